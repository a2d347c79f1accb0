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
    if n_epochs * updates_per_epoch > total_steps:
        told, cure = _told(updates_per_epoch, schedule, n_epochs)
        raise ValueError(f"`schedule.total_steps` must cover the run, but {told}: {cure}.")
    return n_epochs


def warn_of_rest(updates_per_epoch: int, schedule: Schedule, n_epochs: int) -> None:
    """Warn of a run that ends above the last learning rate of its schedule; called from what the user calls."""
    planned, total_steps = n_epochs * updates_per_epoch, schedule.total_steps
    last, end = schedule.lr(min(max(0, planned - 1), total_steps - 1)), schedule.lr(total_steps - 1)
    if planned and last > end and not math.isclose(last, end):
        told, cure = _told(updates_per_epoch, schedule, n_epochs)
        warnings.warn(
            f"`schedule.total_steps` should be that of the run, but {told}: it ends at a learning rate of {last:.3g}, "
            f"not at the schedule's {end:.3g}. Raise `n_epochs`, or {cure}.",
            stacklevel=3,
        )


def _told(updates_per_epoch: int, schedule: Schedule, n_epochs: int) -> tuple[str, str]:
    planned, total_steps = n_epochs * updates_per_epoch, schedule.total_steps
    told = f"{n_epochs} epochs of {updates_per_epoch} updates are {planned} and got {total_steps=}"
    return told, f"make it OneCycle(max_lr, total_steps={planned})"
