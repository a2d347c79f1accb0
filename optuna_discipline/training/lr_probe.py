"""What `find_lr` runs and pays for: one range test and short complete cycles, each on a model built anew."""

import math
from collections.abc import Callable
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from dataclasses import field
from functools import cached_property
from itertools import islice
from typing import Any
from typing import NamedTuple
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import nn

from optuna_discipline.rules.curve import OVERFLOW
from optuna_discipline.rules.curve import running_median
from optuna_discipline.rules.lr_probing import Probe
from optuna_discipline.rules.lr_probing import divergence_level
from optuna_discipline.rules.lr_probing import learned_level
from optuna_discipline.rules.range_test import RangeTest
from optuna_discipline.rules.schedule import OneCycle
from optuna_discipline.training.arguments import Seen
from optuna_discipline.training.arguments import as_module
from optuna_discipline.training.batches import Batches
from optuna_discipline.training.batches import as_batches
from optuna_discipline.training.batches import n_batches
from optuna_discipline.training.evaluation import evaluate
from optuna_discipline.training.evaluation import evaluate_with_batch_statistics
from optuna_discipline.training.loop import train_epochs
from optuna_discipline.training.lr_range_test import lr_range_test
from optuna_discipline.training.lr_range_test import momentum_of
from optuna_discipline.training.modes import start_training
from optuna_discipline.training.optimizers import ANY_LR
from optuna_discipline.training.optimizers import OptimizerKind
from optuna_discipline.training.optimizers import build_optimizer
from optuna_discipline.training.optimizers import default_range
from optuna_discipline.training.optimizers import is_adam_like
from optuna_discipline.training.optimizers import takes
from optuna_discipline.training.optimizers import usual_lr
from optuna_discipline.training.placement import moved
from optuna_discipline.training.random_state import PrivateRandom
from optuna_discipline.training.random_state import RandomStates
from optuna_discipline.training.step import LossFn
from optuna_discipline.training.step import Step
from optuna_discipline.training.step import default_step
from optuna_discipline.training.update import resolve_device

_EVALUATION_COST = 1 / 3  # of an update on as many samples: forward only
_TEST_STEPS = (20, 100)  # of a range test
_TEST_SHARE = (0.2, 0.35)  # of a full run: what a range test takes, and what it may take to reach its fewest steps
_MIN_PROBE_STEPS = 12
_UNTRAINED_BATCHES = 10  # one alone may hold an outlier, or none
_FEWER_DECADES = 10.0  # at SGD's lower end: those rates do nothing in so few updates
_DEEPER = (1e-5, 1e6)  # where the floor breaks already: the floor by the first, and from there up by the second


@dataclass
class Prober:
    """Runs range test and probes, and counts their cost in full runs.

    Attributes:
        build_model: Makes the model.
        loss_fn: Called as `loss_fn(output, target)`.
        train: Training data.
        val: Validation data or None.
        epochs: Epochs of a full run.
        momentum: Largest momentum, None for the optimizer's own.
        weight_decay: Weight decay, None for the optimizer's own.
        optimizer: A name or a callable.
        batch_size: For data that is not batched yet.
        device: Where to train, None for where the model is built.
        seed: Start of all random numbers.
        step: The forward hook.
        generators: States of the loaders' generators, put back before every run.
        cost: Full runs spent so far.
        untrained_loss: Mean loss of the first training batches before any update; None before it was measured.
        gained: What the range test gained, for losses that start near 0.
        learned_gain: The same where it was read as having learned, else 0: half of that is enough for a probe.
        deeper: Whether to look below the usual floor, as the loss rises there already.
        seen: The models made so far, as far as somebody holds them.
    """

    build_model: Callable[[], nn.Module]
    loss_fn: LossFn
    train: Any
    val: Any
    epochs: int
    momentum: float | None
    weight_decay: float | None
    optimizer: OptimizerKind
    batch_size: int | None
    device: torch.device | str | None
    seed: int
    step: Step | None
    generators: RandomStates
    cost: float = 0.0
    untrained_loss: float | None = None
    gained: float = 0.0
    learned_gain: float = 0.0
    deeper: bool = False
    seen: Seen = field(default_factory=WeakValueDictionary)

    def __post_init__(self) -> None:
        steps = n_batches(self._train_batches())
        if steps is None:
            raise ValueError(
                "`train` must have a length, so that `epochs` can be counted in updates, but "
                f"{type(self.train).__name__} has none: pass a list of batches, or give it, or its data set, `__len__`."
            )
        self.total_steps = steps * self.epochs
        val = None if self.val is None else self._val_batches()
        self._val_steps = 0.0 if val is None else _EVALUATION_COST * (n_batches(val) or 0)

    @property
    def test_steps(self) -> int:
        """Updates of the range test; 0 where the run is too short to pay for one."""
        fewest, most = _TEST_STEPS
        steps = min(most, max(fewest, int(_TEST_SHARE[0] * self.total_steps)))
        return steps if steps <= _TEST_SHARE[1] * self.total_steps else 0

    @property
    def ceiling(self) -> float:
        """Largest rate that a range test tries."""
        return self.floor * _DEEPER[1] if self.deeper else self._optimizer.high

    @property
    def default_start(self) -> float:
        """Rate to probe first where no range test says where."""
        return self._optimizer.usual

    @property
    def floor(self) -> float:
        """Smallest rate that a range test tries."""
        return self.lowest if self.deeper else self._optimizer.low

    @property
    def lowest(self) -> float:
        """Smallest rate that a probe tries, where all above it break."""
        return self._optimizer.low * _DEEPER[0]

    @property
    def untrained_cost(self) -> float:
        """What is still to pay for the untrained loss, in full runs."""
        batches = min(self.total_steps // self.epochs, _UNTRAINED_BATCHES) if self.untrained_loss is None else 0
        return _EVALUATION_COST * batches / self.total_steps

    def measure_untrained(self) -> float:
        """Return the mean loss of the untrained model on the first training batches, evaluated once."""
        if self.untrained_loss is None:
            self.cost += self.untrained_cost
            self.untrained_loss = self._untrained(
                lambda device: islice(self._train_batches(device), _UNTRAINED_BATCHES)
            )
        return self.untrained_loss

    @property
    def validation_cost(self) -> float:
        """What an evaluation of the validation data costs, in full runs."""
        return self._val_steps / self.total_steps

    def cannot_validate(self) -> bool:
        """Whether the untrained model has a training loss, but no validation loss that is a number; evaluates both."""
        if self.val is None or not abs(self.measure_untrained()) < OVERFLOW:
            return False
        self.cost += self.validation_cost
        return not abs(self._untrained(self._val_batches)) < OVERFLOW

    def range_test(self) -> RangeTest:
        """Sweep the training loss over `test_steps` updates."""
        model = self._build()
        test = lr_range_test(
            model,
            self.loss_fn,
            self.train,
            optimizer=self.optimizer,
            start_lr=self.floor,
            end_lr=self.ceiling,
            num_steps=self.test_steps,
            momentum=self._optimizer.momentum,
            weight_decay=self._optimizer.weight_decay,
            batch_size=self.batch_size,
            step=self.step,
            device=self.device,
            seed=self.seed,
            planned_steps=self.total_steps,
        )
        self.cost += len(test.lrs) / self.total_steps
        self.gained = max(0.0, self.measure_untrained() - float(np.min(running_median(test.train_loss))))
        return test

    def probe_steps(self, length: float) -> int:
        """Return the updates of a probe that is `length` of a full run: at least 12, if the run has as many."""
        return min(self.total_steps, max(round(length * self.total_steps), _MIN_PROBE_STEPS))

    def probe_cost(self, length: float) -> float:
        """Return what a probe costs if it does not end early, in full runs."""
        return (self.probe_steps(length) + self._val_steps) / self.total_steps + self.untrained_cost

    def probe(self, lr: float, length: float) -> Probe:
        """Train one complete cycle of `length` full runs up to `lr`."""
        untrained = self.measure_untrained()
        level = divergence_level(untrained, self.gained)
        model, total = self._build(), self.probe_steps(length)
        cycle = OneCycle(lr, total, max_momentum=self._optimizer.cycled)
        done = 0
        hook = self.step or default_step

        def counting_step(model: nn.Module, batch: Any, loss_fn: LossFn) -> Any:
            nonlocal done
            done += 1
            return hook(model, batch, loss_fn)

        logs = train_epochs(
            model,
            self.loss_fn,
            self.train,
            None,
            cycle,
            optimizer=self.optimizer,
            weight_decay=self._optimizer.weight_decay,
            batch_size=self.batch_size,
            device=self.device,
            seed=self.seed,
            step=counting_step,
        )
        train_loss = math.nan
        with closing(logs):
            for log in logs:
                train_loss = math.nan if log.train_loss is None else log.train_loss
                if not train_loss <= level:
                    train_loss = math.inf
                    break
        self.cost += done / self.total_steps
        loss = train_loss
        if math.isfinite(train_loss) and self.val is not None:
            loss = self._val_loss(model)
        finite = math.isfinite(loss) and math.isfinite(train_loss)
        learned = finite and math.isfinite(untrained) and train_loss <= learned_level(untrained, self.learned_gain)
        return Probe(lr, loss if finite else math.inf, train_loss, learned)

    def _untrained(self, batches: Callable[[torch.device], Iterable[Any]]) -> float:
        model = self._build()
        device = resolve_device(model, self.device)
        with PrivateRandom(self.seed, device), moved(model, self.loss_fn, None, device, named=self.device is not None):
            start_training(model)
            given = batches(device)
            return evaluate_with_batch_statistics(model, given, self.loss_fn, device=device, step=self.step)

    def _val_loss(self, model: nn.Module) -> float:
        device = resolve_device(model, self.device)
        self.cost += self.validation_cost
        with PrivateRandom(self.seed, device):  # a loader draws from the global generator at every pass
            batches = self._val_batches(device)
            return evaluate(model, batches, self.loss_fn, device=device, step=self.step, accuracy=False).loss

    def _train_batches(self, device: torch.device | None = None) -> Batches:
        options: dict[str, Any] = {"batch_size": self.batch_size, "seed": self.seed, "device": device}
        return as_batches(self.train, shuffle=True, drop_lone=True, name="train", **options)

    def _val_batches(self, device: torch.device | None = None) -> Batches:
        return as_batches(self.val, batch_size=self.batch_size, seed=self.seed, device=device, name="val")

    def _build(self) -> nn.Module:
        for generator, state in self.generators.generators:
            generator.set_state(state)
        with PrivateRandom(self.seed, resolve_device(nn.Identity(), self.device)):
            return as_module(self.build_model(), self.seen)

    @cached_property
    def _optimizer(self) -> "_Optimizer":
        built = build_optimizer(self._build(), self.optimizer, lr=ANY_LR)
        low, high = default_range(built)
        return _Optimizer(
            usual_lr(built),
            low * (1.0 if is_adam_like(built) else _FEWER_DECADES),
            high,
            momentum_of(built) if self.momentum is None else self.momentum,
            self.momentum if takes(built, "momentum") else None,
            self.weight_decay if takes(built, "weight_decay") else None,
        )


class _Optimizer(NamedTuple):
    """The optimizer's rates, the momentum that its cycle begins at, and what to set of momentum and weight decay."""

    usual: float
    low: float
    high: float
    cycled: float
    momentum: float | None
    weight_decay: float | None
