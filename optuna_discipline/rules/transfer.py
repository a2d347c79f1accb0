"""What a short cycle says about a full one."""

import math
from collections.abc import Sequence

import numpy as np

from optuna_discipline.rules.run import Run
from optuna_discipline.rules.slots import without_epochs
from optuna_discipline.rules.space import Role


def full_length_losses(runs: Sequence[Run], full_epochs: float | None) -> dict[int, float]:
    """Return the losses of finished runs, by number, as if all had been full-length.

    A configuration that ran both short and full gives the ratio of the two (the difference, where a loss is not
    positive); the median over such pairs carries the other short runs over. Short runs of a length without a pair are
    left out, and so are those that failed. The order among short runs is kept, their level is a guess. A run that has
    no such parameter, as only other networks have it, is full.

    Args:
        runs: All runs.
        full_epochs: Epochs of a full training; None if every run is full: the study has no such parameter, or
            one like any other.
    """
    finished = [run for run in runs if run.finished]
    if full_epochs is None:
        return {run.number: run.score for run in finished}
    losses = {run.number: run.score for run in finished if run.params.get("epochs", full_epochs) == full_epochs}
    full = {_configuration(run): run.score for run in finished if run.number in losses and math.isfinite(run.score)}
    short = [run for run in finished if run.number not in losses and math.isfinite(run.score)]
    for length in {run.params.get("epochs") for run in short}:
        same = [run for run in short if run.params.get("epochs") == length]
        pairs = [(run.score, full[_configuration(run)]) for run in same if _configuration(run) in full]
        if not pairs:
            continue
        if all(low > 0 and high > 0 for low, high in pairs):
            ratio = float(np.median([high / low for low, high in pairs]))
            losses |= {run.number: run.score * ratio for run in same}
        else:
            shift = float(np.median([high - low for low, high in pairs]))
            losses |= {run.number: run.score + shift for run in same}
    return losses


def _configuration(run: Run) -> frozenset[tuple[Role, float]]:
    return frozenset(without_epochs(run).items())
