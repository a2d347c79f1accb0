"""The training loop: a generator of `EpochLog`, one per epoch, with the schedule as a function of the step."""

import math
from collections.abc import Callable
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from optuna_discipline.exceptions import DisciplineError
from optuna_discipline.rules.curve import EpochLog
from optuna_discipline.training.arguments import as_choice
from optuna_discipline.training.arguments import as_count
from optuna_discipline.training.arguments import as_number
from optuna_discipline.training.arguments import as_seed
from optuna_discipline.training.batches import Batches
from optuna_discipline.training.batches import as_batches
from optuna_discipline.training.batches import begin_epoch
from optuna_discipline.training.batches import check_batch_size_free
from optuna_discipline.training.batches import check_repeatable
from optuna_discipline.training.batches import n_batches
from optuna_discipline.training.evaluation import evaluate
from optuna_discipline.training.modes import keep_modes
from optuna_discipline.training.modes import set_modes
from optuna_discipline.training.modes import start_training
from optuna_discipline.training.optimizers import OptimizerKind
from optuna_discipline.training.optimizers import build_optimizer
from optuna_discipline.training.optimizers import set_hyperparams
from optuna_discipline.training.optimizers import trainable_parameters
from optuna_discipline.training.placement import moved
from optuna_discipline.training.random_state import PrivateRandom
from optuna_discipline.training.ranks import check_equal_batches
from optuna_discipline.training.ranks import over_ranks
from optuna_discipline.training.saved_state import Snapshots
from optuna_discipline.training.saved_state import apply_state
from optuna_discipline.training.saved_state import capture_state
from optuna_discipline.training.saved_state import check_snapshots
from optuna_discipline.training.schedules import Schedule
from optuna_discipline.training.schedules import as_schedule
from optuna_discipline.training.schedules import plan_epochs
from optuna_discipline.training.schedules import warn_of_rest
from optuna_discipline.training.step import LossFn
from optuna_discipline.training.step import Step
from optuna_discipline.training.step import check_loss_fn
from optuna_discipline.training.update import Amp
from optuna_discipline.training.update import Updater
from optuna_discipline.training.update import n_updates
from optuna_discipline.training.update import resolve_device
from optuna_discipline.training.update import windows


def train_epochs(
    model: nn.Module,
    loss_fn: LossFn,
    train: Any,
    val: Any = None,
    schedule: Schedule | None = None,
    *,
    n_epochs: int | None = None,
    optimizer: OptimizerKind = "sgd",
    weight_decay: float | Callable[[int], float] | None = None,
    decay_bias_and_norm: bool = True,
    nesterov: bool = True,
    batch_size: int | None = None,
    amp: Amp = None,
    clip_norm: float | None = None,
    accumulate: int = 1,
    channels_last: bool = False,
    compile: bool = False,
    device: torch.device | str | None = None,
    seed: int | None = None,
    step: Step | None = None,
    accuracy: bool | None = None,
    snapshots: Snapshots | None = None,
) -> Generator[EpochLog, None, None]:
    """Train, and yield a log after every epoch; what happens between two epochs is the caller's.

    Arguments are checked at the call, training starts at the first `next`. A diverged run is a result: the log of the
    epoch in which the loss stopped being a number has that loss as `train_loss` (and a NaN `val_loss`, if there is a
    validation set) and is the last. On a CPU it comes at the very step, on other devices at the epoch's end, since
    losses are read from the device once an epoch. Closing the generator early leaves the model trained so far.
    With a DistributedDataParallel model (each rank its share of the data, the same number of batches) losses and
    accuracy are those of all ranks, so that all stop at the same step.

    Args:
        model: Any module, trained in place. Its own `train()` is called at the start; modules in eval mode at the call
            stay in it (a frozen BatchNorm) unless the model as a whole is. All modes are given back at the end, and at
            the start of an epoch where the model as a whole was put into eval mode after the last one.
        loss_fn: Called as `loss_fn(output, target)`, returns one number; moved to the device if it is a module, whose
            own parameters are trained only by a given optimizer that holds them.
        train: A tuple of tensors, a torch Dataset or an iterable of batches, see
            `optuna_discipline.training.batches.as_batches`. A loader or sampler that has a `set_epoch`, as torch's
            DistributedSampler, is told each epoch's number, from 0; what you set between two epochs holds for the next.
        val: Likewise; None leaves the validation columns None.
        schedule: Learning rate and momentum of each update, for instance `OneCycle(max_lr, total_steps)`. It must be
            given: it has a default only because `val`, which stands before it, may be left out.
        n_epochs: Passes over `train`; None is what `schedule.total_steps` asks for. The run ends at `total_steps`.
            Fewer epochs, which end above the schedule's last learning rate, are warned of: at the call, or after the
            first epoch of data without a length.
        optimizer: "sgd", "adamw", "adam", a callable or an optimizer of this model, see
            `optuna_discipline.training.optimizers.build_optimizer`. What is unfrozen between two epochs is trained only
            by a given optimizer that holds it: the others get what requires a gradient at the call.
        weight_decay: From 0 on; None is 0 by name, else what the optimizer has. A function of the update (from 0) makes
            it vary, such as `Triangular(1e-3, total_steps, base_lr=1e-4).lr`. The paper advises against that: "the best
            value should remain constant through the training (i.e., cyclical weight decay is not useful)" (section
            4.4); its author found it of use later, beside a constant learning rate (arXiv 2202.08835).
        decay_bias_and_norm: Whether biases and normalisation layers decay too; which these are stands there.
        nesterov: Nesterov's momentum for "sgd".
        batch_size: Samples of a batch for data that is not batched yet, None for 64. A last batch of a single sample
            is left out.
        amp: "bf16" or "fp16" mixed precision. With fp16 an update that overflows is skipped and uses up its step.
        clip_norm: Largest norm of the gradient, None for no limit.
        accumulate: Batches of one update; the gradient is the mean over all their samples.
        channels_last: Whether the model and its images take torch's channels_last layout (the model keeps it).
        compile: Whether the model is called through `torch.compile`.
        device: Where the model is moved and trained; None is where it is, also over several devices: batches go to that
            of its first parameter.
        seed: Fixes the order of the data, dropout and augmentations that use the global generators, which the caller
            gets back untouched at every epoch. None uses the global generators. The weights are not drawn here. Threads
            share these generators (`study.optimize(n_jobs=2)`): only processes of their own repeat a run by its seed.
        step: A hook that knows what a batch is, see `optuna_discipline.training.step.default_step`.
        accuracy: None measures it where the task is a classification, True demands it, False leaves it out.
        snapshots: Saves the training at the end of an epoch, or lets it go on from one saved before. Then the epochs
            that lie behind are yielded first, as they were; weight decay, optimizer settings and schedule are this
            call's. A state that does not fit (another model, schedule or number of updates in an epoch, an optimizer
            that trains something else or needs what was not kept) is left with a warning, and the training begins anew.
            Not saved are attributes of model and loss that are no buffers (a counter, a list), nor other generators of
            a loader or data set than torch's (`random.Random`, NumPy's): these are as the call is given them.

    Returns:
        A generator of `EpochLog`; `lr` is that of the epoch's last update, `train_loss` the mean over its samples.

    Raises:
        ValueError: If an argument breaks its rule, or the epochs do not fit into the schedule.
        DisciplineError: If there is no sample or no trainable parameter.

    >>> from optuna_discipline.rules.schedule import OneCycle
    >>> x = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
    >>> data = (x, x.sum(dim=1, keepdim=True))
    >>> cycle = OneCycle(max_lr=0.03, total_steps=20 * 4)  # 20 epochs of 4 updates
    >>> logs = list(train_epochs(nn.Linear(2, 1), nn.MSELoss(), data, data, cycle, batch_size=16, seed=0))
    >>> len(logs), logs[-1].val_loss < 0.01
    (20, True)
    """
    check_loss_fn(loss_fn)
    trainable_parameters(model)  # refuses what cannot be trained before anything is asked of it
    schedule = as_schedule(schedule)
    check_snapshots(snapshots)
    as_choice("accuracy", accuracy, (None, True, False))
    flags = {"decay_bias_and_norm": decay_bias_and_norm, "nesterov": nesterov, "channels_last": channels_last}
    for name, flag in {**flags, "compile": compile}.items():
        as_choice(name, flag, (True, False))  # a text such as "False" would count as true
    check_batch_size_free(train, batch_size)
    seed, accumulate = as_seed(seed), as_count("accumulate", accumulate)
    target = resolve_device(model, device)
    batches = as_batches(
        train, batch_size=batch_size, shuffle=True, seed=seed, device=target, drop_lone=True, name="train"
    )
    val_batches = None if val is None else as_batches(val, batch_size=batch_size, seed=seed, device=target, name="val")
    check_equal_batches(model, n_batches(batches), target)
    per_epoch = n_updates(batches, accumulate)
    epochs = plan_epochs(per_epoch, schedule, n_epochs)
    if per_epoch is not None:
        warn_of_rest(per_epoch, schedule, epochs)
    check_repeatable(batches, "train", epochs)
    if val_batches is not None:
        check_repeatable(val_batches, "val", epochs)
    with moved(model, loss_fn, optimizer, target, named=device is not None):  # some optimizers make state at once
        built = build_optimizer(
            model,
            optimizer,
            lr=schedule.lr(0),
            momentum=schedule.momentum(0),
            weight_decay=as_number("weight_decay", weight_decay(0)) if callable(weight_decay) else weight_decay,
            nesterov=nesterov,
            decay_bias_and_norm=decay_bias_and_norm,
        )
        called: Any = torch.compile(model) if compile else model
        updater = Updater(
            called, loss_fn, built, target, step=step, amp=amp, clip_norm=clip_norm, channels_last=channels_last
        )
    if channels_last:
        model.to(memory_format=torch.channels_last)
    decay = weight_decay if callable(weight_decay) else None
    how = (schedule, epochs, per_epoch, accumulate, seed, accuracy, decay, snapshots)
    return _run(_Plan(model, updater, batches, val_batches, *how))


@dataclass(frozen=True)
class _Plan:
    model: nn.Module
    updater: Updater
    train: Batches
    val: Batches | None
    schedule: Schedule
    n_epochs: int
    updates_per_epoch: int | None
    accumulate: int
    seed: int | None
    accuracy: bool | None
    weight_decay: Callable[[int], float] | None
    snapshots: Snapshots | None


def _run(plan: _Plan) -> Generator[EpochLog, None, None]:
    with keep_modes(plan.model):
        modes = start_training(plan.model)  # before a saved state is loaded: eval mode may have folded weights
        logs, done, random = _begin(plan)
        first = len(logs)
        begin_epoch(plan.train, first)
        yield from logs
        for epoch in range(first, plan.n_epochs):
            if not plan.model.training:  # the caller tested it between two epochs
                set_modes(modes)
            if epoch > first:
                _save(plan, logs, done, random)
            with random:
                train_loss, steps = _train_epoch(plan, done)
                if steps == 0 and epoch == 0:
                    raise DisciplineError("`train` is empty: there is no batch to train on.")
                if steps == 0:
                    return
                done += steps
                if epoch == 0 and plan.updates_per_epoch is None and math.isfinite(train_loss):
                    warn_of_rest(steps, plan.schedule, plan.n_epochs)
                log = _log(plan, epoch, train_loss, plan.schedule.lr(done - 1))
            logs.append(log)
            is_last = not math.isfinite(train_loss) or done >= plan.schedule.total_steps or epoch + 1 == plan.n_epochs
            if not is_last:
                begin_epoch(plan.train, epoch + 1)  # before the caller's turn, who may have a number of his own
            yield log
            if is_last:
                return


def _begin(plan: _Plan) -> tuple[list[EpochLog], int, PrivateRandom]:
    """Return the epochs and updates that lie behind, and the random stream: nothing, or those of a saved training."""
    state = None if plan.snapshots is None else plan.snapshots.load()
    if plan.snapshots is not None and state is not None:
        total, per_epoch = plan.schedule.total_steps, plan.updates_per_epoch
        start = apply_state(state, plan.model, plan.updater, plan.n_epochs, total, per_epoch, plan.train, plan.val)
        if start is not None:
            plan.snapshots.went_on(state)
            return list(state.logs), state.steps, PrivateRandom(plan.seed, plan.updater.device, start)
    return [], 0, PrivateRandom(plan.seed, plan.updater.device)


def _save(plan: _Plan, logs: list[EpochLog], done: int, random: PrivateRandom) -> None:
    if plan.snapshots is None or not plan.snapshots.is_wanted(logs, plan.n_epochs):
        return
    with random:
        total, per_epoch = plan.schedule.total_steps, plan.updates_per_epoch
        state = capture_state(plan.model, plan.updater, tuple(logs), done, total, per_epoch, plan.train, plan.val)
    plan.snapshots.save(state)


def _train_epoch(plan: _Plan, done: int) -> tuple[float, int]:
    """Train one epoch from update `done` on; return the mean loss and the number of updates."""
    updater, schedule = plan.updater, plan.schedule
    loss_sum, n_samples, steps = torch.zeros((), device=updater.device), 0, 0
    reading_is_free = updater.device.type == "cpu"
    remaining = schedule.total_steps - done
    for window in windows(plan.train, plan.accumulate):
        now = done + steps
        decay = None if plan.weight_decay is None else as_number("weight_decay", plan.weight_decay(now))
        set_hyperparams(updater.optimizer, lr=schedule.lr(now), momentum=schedule.momentum(now), weight_decay=decay)
        result = updater.update(window)
        loss_sum = loss_sum + result.loss_sum
        n_samples += result.n_samples
        steps += 1
        if steps == remaining:
            break
        if reading_is_free and not bool(torch.isfinite(over_ranks(plan.model, result.loss_sum, 0)[0])):
            break
    loss_sum, n_samples = over_ranks(plan.model, loss_sum, n_samples)
    return (float(loss_sum.item()) / n_samples if n_samples else math.nan), steps


def _log(plan: _Plan, epoch: int, train_loss: float, lr: float) -> EpochLog:
    if plan.val is None:
        return EpochLog(epoch, lr, train_loss, None)
    if not math.isfinite(train_loss):
        return EpochLog(epoch, lr, train_loss, math.nan)
    updater = plan.updater
    val = evaluate(
        updater.model,
        plan.val,
        updater.loss_fn,
        device=updater.device,
        step=updater.step,
        amp=updater.amp,
        channels_last=updater.channels_last,
        accuracy=plan.accuracy,
    )
    return EpochLog(epoch, lr, train_loss, val.loss, val.accuracy)
