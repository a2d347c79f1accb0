"""Read from one whole training on which side of its learning rate a better one lies."""

import numpy as np

from optuna_discipline.rules.curve import noise_sd
from optuna_discipline.rules.line_search import Lean
from optuna_discipline.rules.run import Run

# Shares of what the loss spans from report to report. Of 640 trainings of 42 small networks by 1cycle, at rates within
# a factor of 4 of the best one, those that overshot or climbed by more had a better rate below in .88 (the best one at
# .6 of the rate in the mean), those that climbed by less than the smaller share a better one above in .79 (1.8 times
# the rate), the others stood right (.97); on the 14 networks kept apart .94 and .83 (`python -m benchmarks.lr_lean`).
# On other curves by 1cycle, cosine, step and constant rates the best stood at .44 to .46 of the rate and at 1.8 to 1.9
# times it; read by the noisier error instead of the loss at .65 to .76 and 1.3 to 2.3.
OVERSHOT, CLIMBED, LEVEL = 0.01, 0.1, 0.01
OVERSHOT_IN_NOISE = 2.0  # and beyond so many deviations of a report: the lowest of many is low by luck
LEARNED = 0.02  # a loss that changed by less than this share of itself shows nothing but noise
MIN_REPORTS, MOST_PARTS = 4, 16  # a longer curve is averaged into so many parts, or its noise would be its climb


def lr_lean(run: Run) -> Lean | None:
    """Return on which side a better learning rate is to be expected, None where the reports of a run do not say.

    Even at the top of its cycle a rate that suits lets the validation loss fall or stand. Where the loss climbs on the
    way, the steps were larger than the network bears; where it ends above its best, the data were learnt by heart;
    where it only ever falls, there was room.
    """
    shape = shape_of(run.reports) if run.state == "complete" else None
    if shape is None:
        return None
    climbed, overshot = shape
    if climbed > CLIMBED or overshot > OVERSHOT:
        return "down"
    return "up" if climbed <= LEVEL else None


def shape_of(reports: tuple[float, ...]) -> tuple[float, float] | None:
    """Return the steepest climb and the overshoot of a run's reports, as shares of their span; None for too few.

    The overshoot is what the end lies above the lowest report, less what noise does.

    >>> shape_of((2.0, 1.0, 1.2, 0.5, 0.0, 0.1, 0.2, 0.3))
    (0.1, 0.15)
    """
    losses = np.array(reports, dtype=float)
    if len(losses) < MIN_REPORTS or not np.all(np.isfinite(losses)):
        return None
    with np.errstate(over="ignore"):
        span = float(np.ptp(losses))
    if not LEARNED * float(np.abs(losses).max()) < span < np.inf:
        return None
    parts = np.array([part.mean() for part in np.array_split(losses, min(len(losses), MOST_PARTS))])
    overshot = float(losses[-1] - losses.min()) - OVERSHOT_IN_NOISE * noise_sd(losses[len(losses) // 2 :])
    return round(float(np.diff(parts).max()) / span, 6), round(max(overshot, 0.0) / span, 6)
