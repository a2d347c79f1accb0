"""What the loop asks of a schedule, and how many epochs fit into it."""

import math
import warnings
from typing import Protocol

from optuna_discipline.training.arguments import as_count


class Schedule(Protocol):
    """Learning rate and momentum of each update, such as `OneCycle`."""

    @property
    def total_steps(self) -> int:
        """Updates of the whole run."""
        ...

    def lr(self, step: int, /) -> float:
        """Return the learning rate of update `step`, counted from 0."""
        ...

    def momentum(self, step: int, /) -> float:
        """Return the momentum of update `step`, counted from 0."""
        ...


def as_schedule(schedule: Schedule | None) -> Schedule:
    """Return `schedule`, which has what a `Schedule` has.

    Raises:
        ValueError: If it has not.
    """
    if schedule is None or not all(hasattr(schedule, name) for name in ("lr", "momentum", "total_steps")):
        raise ValueError(
            "`schedule` must have lr(step), momentum(step) and total_steps, such as "
            f"OneCycle(max_lr, total_steps=epochs * updates_per_epoch), but got {schedule!r}."
        )
    return schedule


def plan_epochs(updates_per_epoch: int | None, schedule: Schedule, n_epochs: int | None) -> int:
    """Return the epochs of a run: `n_epochs`, or as many as the schedule asks for.

    Raises:
        ValueError: If they do not fit into the schedule, or cannot be counted.
    """
    total_steps = schedule.total_steps
    if n_epochs is not None:
        n_epochs = as_count("n_epochs", n_epochs)
    if updates_per_epoch is None:
        if n_epochs is None:
            raise ValueError("`n_epochs` must be given where `train` has no length, but got None.")
        return n_epochs
    if n_epochs is None:
        return math.ceil(total_steps / updates_per_epoch)
    planned = n_epochs * updates_per_epoch
    told = f"{n_epochs} epochs of {updates_per_epoch} updates are {planned} and got {total_steps=}"
    cure = f"make it OneCycle(max_lr, total_steps={planned})."
    if planned > total_steps:
        raise ValueError(f"`schedule.total_steps` must cover the run, but {told}: {cure}")
    last, end = schedule.lr(max(0, planned - 1)), schedule.lr(total_steps - 1)
    if planned and last > end and not math.isclose(last, end):
        warnings.warn(
            f"`schedule.total_steps` should be that of the run, but {told}: it ends at a learning rate of {last:.3g}, "
            f"not at the schedule's {end:.3g}. Leave `n_epochs` out, or {cure}",
            stacklevel=3,
        )
    return n_epochs
