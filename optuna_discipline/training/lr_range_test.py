"""The LR range test (Smith 2018, section 3): the rate rises at every update while the losses are recorded."""

from contextlib import ExitStack
from typing import Any
from typing import Literal

import numpy as np
import torch
from torch import nn

from optuna_discipline.exceptions import DisciplineError
from optuna_discipline.exceptions import RangeTestError
from optuna_discipline.rules.curve import FloatArray
from optuna_discipline.rules.range_test import RangeTest
from optuna_discipline.training.arguments import as_choice
from optuna_discipline.training.arguments import as_count
from optuna_discipline.training.arguments import as_number
from optuna_discipline.training.arguments import as_seed
from optuna_discipline.training.batches import as_batches
from optuna_discipline.training.batches import check_batch_size_free
from optuna_discipline.training.batches import n_batches
from optuna_discipline.training.modes import start_training
from optuna_discipline.training.optimizers import ANY_LR
from optuna_discipline.training.optimizers import OptimizerKind
from optuna_discipline.training.optimizers import build_optimizer
from optuna_discipline.training.optimizers import check_takes
from optuna_discipline.training.optimizers import default_range
from optuna_discipline.training.optimizers import lr_ratios
from optuna_discipline.training.optimizers import trainable_parameters
from optuna_discipline.training.placement import moved
from optuna_discipline.training.random_state import generators_of
from optuna_discipline.training.random_state import seed_global
from optuna_discipline.training.ranks import check_equal_batches
from optuna_discipline.training.snapshot import preserved
from optuna_discipline.training.step import LossFn
from optuna_discipline.training.step import Step
from optuna_discipline.training.step import check_loss_fn
from optuna_discipline.training.step import count_samples
from optuna_discipline.training.sweep import Sweep
from optuna_discipline.training.sweep import endless
from optuna_discipline.training.sweep import fixed_subset
from optuna_discipline.training.update import Amp
from optuna_discipline.training.update import Updater
from optuna_discipline.training.update import resolve_device

_EVALUATIONS = 50


def lr_range_test(
    model: nn.Module,
    loss_fn: LossFn,
    train: Any,
    val: Any = None,
    *,
    optimizer: OptimizerKind | None = None,
    start_lr: float | None = None,
    end_lr: float | None = None,
    num_steps: int = 100,
    sweep: Literal["exp", "linear"] = "exp",
    momentum: float | None = None,
    weight_decay: float | None = None,
    base_momentum: float | None = None,
    val_every: int | None = None,
    max_val_samples: int = 1024,
    batch_size: int | None = None,
    amp: Amp = None,
    clip_norm: float | None = None,
    accumulate: int = 1,
    step: Step | None = None,
    device: torch.device | str | None = None,
    seed: int | None = None,
    planned_steps: int | None = None,
) -> RangeTest:
    """Raise the learning rate from `start_lr` to `end_lr`, one update each, and record the losses as they are.

    The model, the optimizer, the loss, every train or eval flag, all buffers, the gradients, the random generators
    (Python, NumPy, torch, CUDA, mps, the loaders') come back exactly as they were, also after an exception, and so do
    other attributes: a counter, a hook, a layer made at the first forward pass, lists, dicts and dense tensors. What
    cannot be given back are the items taken from a one-shot iterator, and what is changed inside an object of any other
    class, such as a NumPy array. All this is copied first, what the model keeps as attributes too: a large table or a
    list of many tensors costs its memory once more, and time. With a DistributedDataParallel model (called on every
    rank, each its share of the data, the same number of batches) losses are those of all ranks, and so is the answer.

    With `val`, the whole curve's 50 or so evaluations of 1,024 samples cost as much as 130 updates with batches of 128,
    beside the 100 updates of the sweep; without it, the training loss bottoms out far below the rate that is best.

    Args:
        model: Any module; trained as it stands, in train mode (modules in eval mode stay, unless all are).
        loss_fn: Called as `loss_fn(output, target)`, returns one number.
        train: A tuple of tensors, a torch Dataset or an iterable of batches, see
            `optuna_discipline.training.batches.as_batches`. One shorter than the sweep is passed over again.
        val: Likewise. The first `max_val_samples` (of tensors and data sets a random choice that the seed fixes) are
            evaluated after every `val_every` updates, with batch statistics in normalisation layers, dropout off.
        optimizer: None or "sgd", "adamw", "adam", a callable, or an optimizer of this model, whose groups keep their
            ratios; the rates are those of its first group. See `optuna_discipline.training.optimizers.build_optimizer`.
        start_lr: First rate, above 0; None is 1e-5, for Adam-type optimizers 1e-6, for others 1e-4 of the usual.
        end_lr: Last rate, above `start_lr`; None is 10, for Adam-type optimizers 1, Adagrad 2, Adadelta 100.
        num_steps: Updates from `start_lr` to `end_lr`, both included; at least 2.
        sweep: "exp" multiplies the rate by a constant, "linear" adds one (the paper's own).
        momentum: In [0, 1) (for Adam beta1); None is 0.9 by name, else what the optimizer has.
        weight_decay: From 0 on; None is 0 by name, else what the optimizer has.
        base_momentum: With it the momentum falls linearly from `momentum` to `base_momentum` as the rate rises.
        val_every: Updates between two evaluations; None is `num_steps / 50`, at least 1.
        max_val_samples: Enough validation batches are kept to hold as many samples, at least one.
        batch_size: Samples of a batch for data that is not batched yet, None for 64.
        amp: "bf16" or "fp16" mixed precision; an update that fp16 skips is repeated at the same rate.
        clip_norm: Largest norm of the gradient, None for no limit.
        accumulate: Batches of one update.
        step: A hook that knows what a batch is, see `optuna_discipline.training.step.default_step`.
        device: Where to train; None is where the model is. The model goes back to where it was.
        seed: Fixes the order of the data and dropout; None uses the global generators (and gives them back too).
        planned_steps: Updates of the training that the test is for; noted in the result.

    Returns:
        The raw curves. `stop_reason` is "end of range"; "non-finite loss"; "diverged" (the loss stood clearly above
        the untrained one three evaluations in a row); or "no more data" (the batches ended).

    Raises:
        ValueError: If an argument breaks its rule, the optimizer lacks what is asked of it, or the loss is no single
            number.
        RangeTestError: If there is no data or no trainable parameter.

    >>> x = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
    >>> test = lr_range_test(nn.Linear(2, 1), nn.MSELoss(), (x, x.sum(1, keepdim=True)), seed=0)
    >>> float(test.lrs[0]), test.stop_reason, 0.01 < test.max_lr < 1
    (1e-05, 'diverged', True)
    """
    as_choice("sweep", sweep, ("exp", "linear"))
    num_steps = as_count("num_steps", num_steps, low=2)
    val_every = max(1, num_steps // _EVALUATIONS) if val_every is None else as_count("val_every", val_every)
    max_val_samples = as_count("max_val_samples", max_val_samples)
    accumulate, seed = as_count("accumulate", accumulate), as_seed(seed)
    if planned_steps is not None:
        planned_steps = as_count("planned_steps", planned_steps)
    check_loss_fn(loss_fn)
    check_batch_size_free(train, batch_size)
    try:
        trainable_parameters(model)
        with ExitStack() as stack:
            given = optimizer if isinstance(optimizer, torch.optim.Optimizer) else None
            target = resolve_device(model, device)
            stack.enter_context(preserved(model, given, loss_fn, generators_of(train, val), target))
            stack.enter_context(moved(model, loss_fn, given, target, named=device is not None))
            start_training(model)
            if seed is not None:
                seed_global(seed, target)
            kind: OptimizerKind = "sgd" if optimizer is None else optimizer
            built = build_optimizer(model, kind, lr=ANY_LR, momentum=momentum, weight_decay=weight_decay)
            check_takes(built, "momentum", momentum)
            lrs = _rates(start_lr, end_lr, num_steps, sweep, default_range(built))
            updater = Updater(model, loss_fn, built, target, step=step, amp=amp, clip_norm=clip_norm)
            batches = as_batches(
                train, batch_size=batch_size, shuffle=True, seed=seed, device=target, drop_lone=True, name="train"
            )
            check_equal_batches(model, n_batches(batches), target)
            subset = None if val is None else fixed_subset(val, max_val_samples, seed, target)
            top = momentum_of(built)
            momenta = None if base_momentum is None else np.linspace(top, _check_base(base_momentum, top), num_steps)
            sweep_run = Sweep(updater, lrs, momenta, subset, val_every)
            stop_reason = sweep_run.run(endless(batches, accumulate))
            settings = {
                "sweep": sweep,
                "start_lr": float(lrs[0]),
                "end_lr": float(lrs[-1]),
                "optimizer": type(built).__name__,
                "lr_ratios": lr_ratios(built),
                "momentum": top,
                "base_momentum": None if base_momentum is None else float(base_momentum),
                "weight_decay": float(built.param_groups[0].get("weight_decay", 0.0)),
                "val_every": val_every,
                "val_samples": 0 if subset is None else sum(map(count_samples, subset)),
                "accumulate": accumulate,
                "clip_norm": updater.clip_norm,
                "amp": amp,
                "seed": seed,
            }
            return sweep_run.record(stop_reason, num_steps, planned_steps, settings)
    except RangeTestError:
        raise
    except DisciplineError as error:
        raise RangeTestError(str(error)) from error


def momentum_of(optimizer: torch.optim.Optimizer) -> float:
    """Return the momentum (beta1) of the first group, 0 where it has none."""
    group = optimizer.param_groups[0]
    return float(group["betas"][0] if "betas" in group else group.get("momentum", 0.0))


def _rates(start: float | None, end: float | None, n: int, sweep: str, default: tuple[float, float]) -> FloatArray:
    low = default[0] if start is None else as_number("start_lr", start, low_open=True)
    high = default[1] if end is None else as_number("end_lr", end, low_open=True)
    if not low < high:
        raise ValueError(f"`start_lr` must be below `end_lr`, but got start_lr={low!r}, end_lr={high!r}.")
    position = np.arange(n) / (n - 1)
    lrs = low * (high / low) ** position if sweep == "exp" else low + (high - low) * position
    lrs[0], lrs[-1] = low, high  # rounding must not move the ends
    return np.asarray(lrs, dtype=np.float64)


def _check_base(base: float, top: float) -> float:
    base = as_number("base_momentum", base, high=1.0)
    if base > top:
        raise ValueError(
            f"`base_momentum` must be at most `momentum`, but got base_momentum={base!r}, momentum={top!r}."
        )
    return base
