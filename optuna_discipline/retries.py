"""A trial that retries others: which attempts it follows, and what it has reported itself beside what it inherited."""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial

from optuna_discipline.trial_record import PREFIX
from optuna_discipline.trial_record import RETRY_HISTORY
from optuna_discipline.trial_record import RETRY_MARK
from optuna_discipline.trial_record import epochs_of_rows
from optuna_discipline.trial_record import own_epochs
from optuna_discipline.trial_record import reports_of

INHERITED_KEY = PREFIX + "inherited"


def keep_inherited(storage: BaseStorage, trial: FrozenTrial) -> None:
    """Write, once, which steps a retry holds before it runs: later they look like reports of its own."""
    if RETRY_MARK in trial.system_attrs and _kept(trial) is None:
        inherited: dict[str, Any] = {"number": trial.number, "steps": sorted(trial.intermediate_values)}
        storage.set_trial_system_attr(trial._trial_id, INHERITED_KEY, inherited)
        trial.system_attrs[INHERITED_KEY] = inherited


def former_attempts(trial: FrozenTrial, by_number: Mapping[int, FrozenTrial]) -> list[FrozenTrial]:
    """Return the attempts that a retry follows; [] for any other trial, of which nothing says that it goes on.

    Args:
        trial: Any trial.
        by_number: All trials of its study by number.
    """
    if RETRY_MARK not in trial.system_attrs:
        return []
    numbers = {trial.system_attrs[RETRY_MARK], *trial.system_attrs.get(RETRY_HISTORY, ())}
    return [by_number[number] for number in sorted(numbers) if number in by_number]


def read_reports(trial: FrozenTrial, attempts: Sequence[FrozenTrial]) -> dict[int, float]:
    """Return the reports of a trial by step; a retry that goes on begins with those of its former attempts."""
    start = min(own_steps(trial), default=0) if attempts else 0
    before = ((step, y) for other in attempts for step, y in reports_of(other).items() if step < start)
    return dict(sorted({**dict(before), **reports_of(trial)}.items()))


def own_steps(trial: FrozenTrial) -> list[int]:
    """Return the steps that a trial has reported itself, rising: those of its rows, else what it did not inherit.

    Where nothing was kept of what it inherited, as under another sampler, every report without another's row counts as
    its own: a retry from the same seed repeats its former attempt to the digit. Of steps that it inherited and then
    reported nothing is known: Optuna keeps the first report of a step.
    """
    inherited = _kept(trial)
    if inherited is None:
        inherited = epochs_of_rows(trial)
    return own_epochs(trial) or sorted(step for step in trial.intermediate_values.keys() - inherited if step >= 0)


def _kept(trial: FrozenTrial) -> set[int] | None:
    """Return the steps that a trial inherited, None where none was kept; what its former attempt kept is not its."""
    kept = trial.system_attrs.get(INHERITED_KEY)
    return set(kept["steps"]) if isinstance(kept, dict) and kept.get("number") == trial.number else None
