"""What repeated runs say of a study's noise, as its stages compare by it."""

from collections.abc import Sequence
from dataclasses import dataclass

from optuna.trial import FrozenTrial

from optuna_discipline import trial_record
from optuna_discipline.rules.slots import SMALLEST_NOISE
from optuna_discipline.visualization import marks


@dataclass(frozen=True)
class Noise:
    """What does not differ from a run.

    Attributes:
        mean: Mean objective of the run and its repetitions, with which the recipe compares.
        width: Objectives nearer to it than this do not differ.
        measured: Whether repeated runs have measured that, or it is the least that the recipe assumes.
    """

    mean: float
    width: float
    measured: bool


def noise_around(base: FrozenTrial | None, trials: Sequence[FrozenTrial]) -> Noise | None:
    """Return what does not differ from a run, None for one without an objective."""
    if base is None or base.value is None:
        return None
    measured, least = spread(trials), SMALLEST_NOISE * abs(base.value)
    equal = [base.value, *(trial.value for trial in _repeats(trials).get(base.number, ()) if trial.value is not None)]
    width = least if measured is None else max(measured, least)
    return Noise(sum(equal) / len(equal), width, measured is not None and measured > least)


def _repeats(trials: Sequence[FrozenTrial]) -> dict[int, list[FrozenTrial]]:
    """Return the finished repetitions of each run that was repeated, by its number."""
    found: dict[int, list[FrozenTrial]] = {}
    for trial in marks.comparable(trials):
        claim = trial_record.read_claim(trial)
        if claim is not None and claim["stage"] == "replicate" and isinstance(claim.get("like"), int):
            found.setdefault(claim["like"], []).append(trial)
    return found


def spread(trials: Sequence[FrozenTrial]) -> float | None:
    """Return by how much the first repeated run and its repetitions differ."""
    first, repeats = next(iter(_repeats(trials).items()), (None, []))
    equal = [*(trial for trial in marks.comparable(trials) if trial.number == first), *repeats]
    values = [trial.value for trial in equal if trial.value is not None]
    return max(values) - min(values) if len(values) > 1 else None
