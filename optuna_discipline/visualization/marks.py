"""How a trial is shown: its stage, how it ended, its value in words, and which values would flatten a plot."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from typing import Protocol

import numpy as np
from optuna.study import Study
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from optuna_discipline import trial_record
from optuna_discipline.costs import Costs
from optuna_discipline.costs import cost_of_range_test
from optuna_discipline.visualization import style

OTHER = "other"
METRIC_NAMES = {"val_loss": "validation loss", "train_loss": "training loss", "val_accuracy": "validation accuracy"}
# How a trial ended, and what that is called.
KINDS = {"full": "full training", "short": "short cycle", "stopped": "stopped early"}
# Significant figures of an objective, and the most where fewer do not tell the best from the next.
FIGURES, MOST_FIGURES = 4, 10
# Numbers of so many digits before the point are shown whole, without an exponent.
MOST_DIGITS = 12
# Full trainings that are not shown as 0.0.
LEAST_COST = 0.05
# Values further from the best than this many times the distance of three quarters of the others would flatten a plot.
REACH = 4.0


class HasValue(Protocol):
    """Something with an objective that ended in one of `KINDS`."""

    @property
    def value(self) -> float | None:
        """The objective."""

    @property
    def kind(self) -> str:
        """How it ended."""


@dataclass(frozen=True)
class Limit:
    """A value that a plot goes to, and no further.

    Attributes:
        value: The value.
        sign: 1 where larger values are worse, -1 where smaller ones are.
    """

    value: float
    sign: int

    def words(self, items: Sequence[HasValue]) -> str:
        """Return which of the items stand at the limit, and where that is."""
        side, place = ("above", "top") if self.sign > 0 else ("below", "bottom")
        numbers = [item.value for item in items if item.value is not None]
        beyond = any(self.sign * number > self.sign * self.value for number in numbers)
        some = [f"values {side} {show(self.value)}"] if beyond else []
        some += ["broken runs"] if len(numbers) < len(items) else []
        return f"{' and '.join(some)} stand at the {place}" if some else ""


def metric_name(trials: Sequence[FrozenTrial]) -> str:
    """Return what the study's objective is called, "objective" if no trial says."""
    stored = next((metric for trial in trials if (metric := trial_record.read_run(trial).get("metric"))), None)
    return METRIC_NAMES.get(str(stored), "objective")


def stage_of(trial: FrozenTrial) -> str:
    """Return the stage that a trial belongs to, cut to what a legend holds."""
    return (trial_record.stage_of(trial) or OTHER)[:30]


def was_drawn(trial: FrozenTrial) -> bool:
    """Whether a trial was drawn from all there is, because nothing had run or learned."""
    claim = trial_record.read_claim(trial)
    return claim is not None and bool(claim.get("drawn"))


def began_anew(trial: FrozenTrial, trials: Sequence[FrozenTrial]) -> str:
    """Return in words from which drawn trial a rung of the ladder began anew, "" for any other."""
    claim = trial_record.read_claim(trial)
    like = claim.get("like") if claim is not None and claim["stage"] == "lr" else None
    if like is None:
        return ""
    return next((f"from trial {like}" for other in trials if other.number == like and was_drawn(other)), "")


def spoken(stage: str) -> str:
    """Return a stage's name for reading.

    >>> spoken("weight_decay")
    'weight decay'
    """
    return "learning rate" if stage == "lr" else stage.replace("_", " ")


def comparable(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Return the trials that may be compared: complete ones that break no constraint."""
    return [trial for trial in trials if is_comparable(trial)]


def is_comparable(trial: FrozenTrial) -> bool:
    """Whether a trial may be compared: it is complete and breaks no constraint."""
    complete = trial.state == TrialState.COMPLETE and trial.value is not None
    return complete and not trial_record.breaks_a_constraint(trial)


def has_ended(trial: FrozenTrial) -> bool:
    """Whether a trial has ended with something to show; one that was stopped at no number is."""
    return trial.state == TrialState.PRUNED or (trial.state == TrialState.COMPLETE and bool(trial.values))


def count(trials: Sequence[FrozenTrial], state: TrialState) -> int:
    """Return how many trials are in a state."""
    return sum(trial.state == state for trial in trials)


def count_without_number(trials: Sequence[FrozenTrial]) -> int:
    """Return how many trials ended at infinity; Optuna fails those that end at NaN."""
    return sum(trial.state == TrialState.COMPLETE and value_of(trial) is None for trial in trials)


def value_of(trial: FrozenTrial) -> float | None:
    """Return a trial's objective as a plot shows it, None where it is no number."""
    return style.finite(trial.values[0]) if trial.values else None


def kind_of(trial: FrozenTrial, costs: Costs) -> str:
    """Return how a trial ended, one of `KINDS`, given what the trials of its study have cost."""
    if trial.state == TrialState.PRUNED:
        return "stopped"
    return "full" if costs.planned[trial.number] == costs.full else "short"


def limit_of(items: Sequence[HasValue], sign: int) -> Limit | None:
    """Return where a plot of these values should end, None if it can show them all.

    A value that is no number stands at the limit, so there is one wherever a run broke.
    """
    values = [sign * item.value for item in items if item.value is not None]
    usual = [sign * item.value for item in items if item.value is not None and item.kind != "stopped"] or values
    if not values:
        return None
    if len(values) >= 4:
        reach = float(np.quantile(usual, 0.75)) - min(values)
        limit = min(values) + REACH * max(reach, 1e-12)
        if max(values) > limit:
            return Limit(sign * limit, sign)
    if len(values) == len(items):
        return None
    room = 0.1 * (max(values) - min(values)) or 0.1 * abs(max(values)) or 1.0
    return Limit(sign * (max(values) + room), sign)


def shown(value: float | None, limit: Limit | None) -> float | None:
    """Return where a value stands in a plot; one that is no number stands at the limit."""
    if limit is None:
        return value
    return limit.value if value is None or limit.sign * value > limit.sign * limit.value else value


def legend_words(items: Sequence[HasValue], limit: Limit | None, left_out: int) -> list[str]:
    """Return what a reader has to know about the marks of a plot."""
    kinds = {item.kind for item in items}
    words = ["filled: full trainings", "open: short cycles"] if "short" in kinds else []
    words += ["crosses: stopped early"] if "stopped" in kinds else []
    words += [at_limit] if limit is not None and (at_limit := limit.words(items)) else []
    words += [f"{left_out} trial{'s' if left_out > 1 else ''} not shown"] if left_out else []
    return words


def show(value: Any, figures: int = FIGURES) -> str:
    """Return a parameter or an objective for reading.

    >>> show(0.000123456), show(64), show(12345.678), show(12345.678, 6)
    ('0.0001235', '64', '12346', '12345.7')
    """
    if not isinstance(value, float):
        return str(value)
    whole = len(str(round(abs(value)))) if abs(value) < 10**MOST_DIGITS else 0  # of NaN too
    return f"{value:.{max(figures, whole)}g}"


def figures_of(trials: Sequence[FrozenTrial], sign: int) -> int:
    """Return how many significant figures tell a study's best objective from the next: 4, or more where 4 do not."""
    values = sorted({sign * (trial.value or 0.0) for trial in trials if trial_record.may_be_best(trial)})[:2]
    enough = (n for n in range(FIGURES, MOST_FIGURES) if len({f"{value:.{n}g}" for value in values}) == len(values))
    return next(enough, MOST_FIGURES)


def counted(number: float, what: str) -> str:
    """Return a number of things in words.

    >>> counted(1, "epoch"), counted(2, "epoch")
    ('1 epoch', '2 epochs')
    """
    return f"{number:g} {what}" + ("" if number == 1 else "s")


def of_range_test(study: Study) -> str:
    """Return in words which part of a study's cost is its range test's, "" where that is not seen."""
    cost = cost_of_range_test(study)
    return f", of which the range test {cost:.1f}" if cost >= LEAST_COST else ""


def order(value: Any) -> tuple[bool, float, str]:
    """Return a key that sorts numbers before words."""
    number = isinstance(value, int | float)
    return not number, float(value) if number else 0.0, str(value)
