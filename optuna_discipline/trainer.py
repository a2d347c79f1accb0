"""What `tune` trains, and how one trial trains it."""

import dataclasses
import inspect
import math
from collections.abc import Callable
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from typing import Literal
from typing import get_args
from weakref import WeakValueDictionary

import numpy as np
import optuna
from optuna.trial import Trial

from optuna_discipline._imports import require
from optuna_discipline.first_look import as_device
from optuna_discipline.first_look import check_optimizer
from optuna_discipline.first_look import check_options
from optuna_discipline.first_look import check_output
from optuna_discipline.first_look import first_batch
from optuna_discipline.first_look import first_target
from optuna_discipline.losses import count_classes
from optuna_discipline.losses import default_loss
from optuna_discipline.losses import is_cross_entropy
from optuna_discipline.losses import warn_of_multi_hot
from optuna_discipline.objective import Metric
from optuna_discipline.objective import TrialReporter
from optuna_discipline.objective import batch_sizes
from optuna_discipline.objective import metric_of
from optuna_discipline.objective import suggest_hyperparams
from optuna_discipline.rules.arguments import is_count
from optuna_discipline.rules.candidates import DEFAULT_BATCH_SIZE
from optuna_discipline.rules.candidates import DEFAULT_WEIGHT_DECAY
from optuna_discipline.rules.complexity import Complexity
from optuna_discipline.rules.complexity import complexity_of
from optuna_discipline.rules.range_test import RangeTest
from optuna_discipline.rules.recipe import Recipe
from optuna_discipline.rules.schedule import OneCycle
from optuna_discipline.rules.space import Bounds
from optuna_discipline.snapshots import SnapshotRestarts

OptimizerName = Literal["sgd", "adamw", "adam"]
OPTIMIZERS: tuple[OptimizerName, ...] = get_args(OptimizerName)
# A fifth of a short training gives bounds good enough; more updates than 100 make the curve no better.
RANGE_TEST_SHARE, LEAST_RANGE_TEST_STEPS, MOST_RANGE_TEST_STEPS = 0.2, 20, 100
# What a range test may cost for `tune` to run one unasked, in trainings. It saves the first training of unusual
# networks; on 29 small ones studies without one were level after it, and ahead where its cost, a fifth, is counted.
CHEAP_RANGE_TEST = 0.1
RANGE_TEST_MOMENTUM = 0.9  # the middle of a cycle between 0.95 and 0.85
VALIDATION_BATCH = 1024


@dataclass(frozen=True)
class Trainer:
    """What is trained, and how one trial trains it; made ready by `checked`.

    Attributes:
        build_model: Called without arguments or with the trial; returns a fresh module.
        train: Data that is not cut into batches yet, or a loader, which is made anew with each batch size.
        val: Likewise; a loader or other batches stay as they are.
        loss_fn: Called as `loss_fn(output, target)`; None is chosen by the targets.
        metric: What a trial returns.
        optimizer: Its name.
        epochs: Length of a full training.
        device: Where to train; None is CUDA's GPU if there is one, else the CPU.
        seed: Fixes weights and orders, anew for each trial; None does not.
        options: Further arguments of `train_epochs`, by name.
        space: Arguments of `suggest_hyperparams`.
        n_classes: Number of classes, None for a regression; found by `checked`.
        complexity: Of the model and its data, None where the model takes the trial; found by `checked`.
        chance: The number of classes, where a network that knows nothing has the loss of chance, ln(n_classes).
        snapshots: Saves trials and restarts them, None for neither.
        seen: The models made so far, as far as somebody holds them, by id.
        moved: The data as they are on the device, by name, from their first use until `close`.
    """

    build_model: Callable[..., Any]
    train: Any
    val: Any
    loss_fn: Callable[[Any, Any], Any] | None
    metric: Metric
    optimizer: OptimizerName
    epochs: int
    device: Any
    seed: int | None
    options: Mapping[str, Any]
    space: dict[str, Any]
    n_classes: int | None = None
    complexity: Complexity | None = None
    chance: int | None = None
    snapshots: SnapshotRestarts | None = None
    seen: WeakValueDictionary[int, Any] = dataclasses.field(default_factory=WeakValueDictionary)
    moved: dict[str, Any] = dataclasses.field(default_factory=dict)

    def checked(self) -> "Trainer":
        """Return the trainer with its defaults filled in, after one look at data, options, model and search space.

        Raises:
            ValueError: If something cannot be trained as it is; the message names the argument of `tune`.
        """
        torch = require("torch", extra="torch")
        from optuna_discipline.training.arguments import as_seed
        from optuna_discipline.training.arguments import check_builder
        from optuna_discipline.training.random_state import kept_random

        check_builder(self.build_model)
        if not is_count(self.epochs):
            raise ValueError(f"`epochs` must be a positive integer, but got {self.epochs!r}.")
        check_optimizer(self.optimizer, OPTIMIZERS)
        as_seed(self.seed)
        check_options(self.options)
        suggest_hyperparams(optuna.trial.FixedTrial(self._lowest()), **self.space)
        with kept_random(self.val):
            batches = {name: first_batch(name, getattr(self, name)) for name in ("train", "val")}
        target = [first_target(batch, self.options.get("step")) for batch in batches.values()][-1]
        loss_fn = default_loss(target) if self.loss_fn is None else self.loss_fn
        ready = dataclasses.replace(self, device=as_device(self.device), loss_fn=loss_fn, options=dict(self.options))
        with kept_random(self.val):
            n_classes = count_classes(target, ready._val_batches())
            if self.loss_fn is None and self.options.get("step") is None:
                warn_of_multi_hot(target, ready._val_batches())
        ready = dataclasses.replace(ready, n_classes=n_classes, chance=n_classes if is_cross_entropy(loss_fn) else None)
        if self.takes_trial:  # only a trial has its model: options and loss are checked with any other
            ready._check_options(torch.nn.PReLU())
            return ready
        ready = dataclasses.replace(ready, complexity=ready._look_at_model(batches, own_loss=self.loss_fn is not None))
        if ready.seen:  # somebody holds the model that was looked at: to return it again, maybe
            ready._model(None, 0)
        return ready

    def _check_options(self, model: Any) -> None:
        """Call for a training that never starts: it checks its arguments."""
        from optuna_discipline.training.loop import train_epochs

        batches = self._first_batches()
        train_epochs(
            model,
            self.loss_fn,  # type: ignore[arg-type]
            batches,
            self._val_batches(),
            OneCycle(1e-3, total_steps=len(batches)),
            optimizer=self.optimizer,
            weight_decay=self._most_weight_decay,
            device=self.device,
            **self.options,
        ).close()

    def _look_at_model(self, batches: Mapping[str, Any], *, own_loss: bool) -> Complexity:
        """Return the model's complexity, after a check of how it is trained, and of its output for either data."""
        from optuna_discipline.training.loaders import count_of
        from optuna_discipline.training.update import autocast

        model = self._model(None, 0)
        self._check_options(model)
        how: dict[str, Any] = {"metric": self.metric, "own_loss": own_loss}
        how |= {name: self.options.get(name) for name in ("step", "accuracy")}
        for name in ("val", "train"):
            with autocast(self.device, self.options.get("amp")):
                check_output(name, model, batches[name], self.loss_fn, self.device, **how)
        return complexity_of(model, max(1, count_of(self.train)), self.n_classes)

    @property
    def takes_trial(self) -> bool:
        """Whether `build_model` wants the trial."""
        try:
            needed = inspect.signature(self.build_model).parameters.values()
        except (TypeError, ValueError):
            return False
        return any(p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in needed)

    def recipe(self, wish: Recipe | None = None) -> Recipe:
        """Return a recipe with what it leaves open: the complexity of model and data; our loop cycles the momentum."""
        recipe = wish or Recipe()
        if recipe.cyclical_momentum is None:
            recipe = dataclasses.replace(recipe, cyclical_momentum=True)
        return dataclasses.replace(recipe, complexity=recipe.complexity or self.complexity)

    def objective(self, trial: Trial) -> float:
        """Train once as the trial says, report every epoch, return the metric."""
        from optuna_discipline.training.loop import train_epochs

        params = suggest_hyperparams(trial, **self.space)
        seed = self._seed_of(trial.number)
        model = self._model(trial, seed)
        batches = self._train_batches(params.batch_size, seed)
        schedule = OneCycle(params.max_lr, params.epochs * self._updates(batches), max_momentum=params.momentum)
        reporter = TrialReporter(trial, n_epochs=params.epochs, metric=self.metric, n_classes=self.chance)
        value = math.nan
        for log in train_epochs(
            model,
            self.loss_fn,  # type: ignore[arg-type]
            batches,
            self._val_batches(),
            schedule,
            optimizer=self.optimizer,
            weight_decay=params.weight_decay,
            device=self.device,
            seed=seed,
            snapshots=None if self.snapshots is None else self.snapshots.of(trial),
            **self.options,
        ):
            reporter.report(log)
            value = metric_of(log, self.metric)
        return value

    def range_test_is_cheap(self) -> bool:
        """Whether an LR range test costs a tenth of a training at most."""
        return range_test_cost(self.epochs * self._updates(self._first_batches())) <= CHEAP_RANGE_TEST

    def range_test(self) -> RangeTest:
        """Run the LR range test of the study."""
        from optuna_discipline.training.lr_range_test import lr_range_test

        batches = self._first_batches()
        planned = self.epochs * self._updates(batches)
        return lr_range_test(
            self._model(None, self.seed),
            self.loss_fn,  # type: ignore[arg-type]
            batches,
            self._val_batches(),
            optimizer=self.optimizer,
            num_steps=_range_test_steps(planned),
            momentum=RANGE_TEST_MOMENTUM,
            weight_decay=min(DEFAULT_WEIGHT_DECAY, self._most_weight_decay),
            device=self.device,
            seed=self.seed,
            planned_steps=planned,
            **{name: self.options[name] for name in ("amp", "clip_norm", "accumulate", "step") if name in self.options},
        )

    def _model(self, trial: Trial | None, seed: int | None) -> Any:
        """Return a fresh model whose weights the seed fixes; the caller's random state stays."""
        from optuna_discipline.training.arguments import as_module
        from optuna_discipline.training.random_state import PrivateRandom

        with PrivateRandom(seed, self.device):
            model = as_module(self.build_model(trial) if self.takes_trial else self.build_model(), self.seen)
        return model

    def _first_batches(self) -> Any:
        """Return the training data in batches of the size that a study begins with."""
        size = int(Bounds.of_choices(batch_sizes(self.space["batch_size"])).clip(DEFAULT_BATCH_SIZE))
        return self._train_batches(size, self.seed)

    def _train_batches(self, batch_size: int, seed: int | None) -> Any:
        from optuna_discipline.training.loaders import cut_anew

        train = self._data("train")
        return cut_anew(train, batch_size=batch_size, shuffle=True, seed=seed, drop_lone=True)

    def _val_batches(self) -> Any:
        from optuna_discipline.training.batches import as_batches

        return as_batches(self._data("val"), batch_size=VALIDATION_BATCH, name="val")

    def _data(self, name: str) -> Any:
        from optuna_discipline.training.batches import on_device

        if name not in self.moved:
            self.moved[name] = on_device(getattr(self, name), self.device)
        return self.moved[name]

    def close(self) -> None:
        """Free the data on the device; a sampler may hold the trainer as long as its study is there."""
        self.moved.clear()

    def _updates(self, batches: Any) -> int:
        """Return the optimizer updates of one epoch."""
        return math.ceil(len(batches) / int(self.options.get("accumulate", 1)))

    def _seed_of(self, number: int) -> int | None:
        return None if self.seed is None else int(np.random.default_rng([self.seed, number]).integers(2**31))

    @property
    def _most_weight_decay(self) -> float:
        return float(np.max(np.asarray(self.space["weight_decay"], dtype=np.float64)))  # a tensor's, too

    def _lowest(self) -> dict[str, Any]:
        def first(bounds: Any) -> Any:
            plain = bounds.tolist() if hasattr(bounds, "tolist") else bounds  # NumPy's
            return plain[0] if isinstance(plain, list | tuple) and plain else plain

        return {name: first(bounds) for name, bounds in self.space.items()}


def range_test_cost(planned: int) -> float:
    """Return what a range test costs before trainings of `planned` updates, in such trainings."""
    return _range_test_steps(planned) / planned


def _range_test_steps(planned: int) -> int:
    """Return the updates of a range test before trainings of `planned` updates."""
    return min(max(LEAST_RANGE_TEST_STEPS, round(RANGE_TEST_SHARE * planned)), MOST_RANGE_TEST_STEPS)
