"""Read from one whole training on which side of its learning rate a better one lies."""

import math

import numpy as np

from optuna_discipline.rules.curve import FloatArray
from optuna_discipline.rules.line_search import Lean
from optuna_discipline.rules.run import Run

# Shares of what the loss spans. Of 640 trainings of 42 small networks by 1cycle, at rates within a factor of 4 of the
# best one, those that overshot or climbed by more had a better rate below in .91 (the best one at .52 of the rate in
# the mean), those that climbed by less than the smallest share a better one above in .79 (1.8 times the rate), the
# others stood about right (.86); on the 14 networks kept apart .96 and .83 (`python -m benchmarks.lr_lean`). On other
# curves by 1cycle, cosine, step and constant rates the best stood at .33 to .43 of the rate and at 1.7 to 1.8 times
# it; read by the noisier error instead of the loss at .49 to .63 and 1.3 to 2.1. On surrogates of error curves with 2,
# 5 and 10 % of noise on each report, the regret after three trainings was .050, .065 and .078 so; .078, .107 and .160
# with noise counted less (two deviations of a report, on the overshoot alone); .051, .055 and .058 without reading
# curves.
OVERSHOT, CLIMBED, LEVEL = 0.03, 0.1, 0.01
CLIMB_IN_NOISE = 1.0  # standard deviations of a step that count as noise
LEARNED = 0.02  # a loss that changed by less than this share of itself has not left its start
# A loss of which less than half is gone at the end, though it was still falling, asks for far more, one that climbed for
# far less: of 3,100 recorded trainings of other networks under four schedules the best rate was at 30 to 300 times
# (climbed: .1) the rate of such a run, at 2 to 3 times (.3) that of others. One that stands still from the start was
# below the best in .91. With two steps at once, ladders on 42 networks that began at 1/60 to 1/3 of a usual rate had a
# regret of .063 after two trainings instead of .166, near the usual rate the same. Without "still falling" curves that
# level off high (tables that cannot be learnt better) took such steps too: .077 after five trainings by seven
# parameters instead of .064.
LITTLE, STILL_FALLING = 0.5, 0.15
MIN_REPORTS, MOST_PARTS = 3, 16  # a longer curve is averaged into so many parts, or its noise would be its climb
MIN_FOR_NOISE, TAIL = 6, 4  # of fewer reports the last four are most of the run


def lr_lean(run: Run) -> Lean | None:
    """Return on which side a better learning rate is to be expected, None where the reports of a run do not say.

    Even at the top of its cycle a rate that suits lets the validation loss fall or stand. Where the loss climbs on the
    way, the steps were larger than the network bears; where it ends above its best, the data were learnt by heart;
    where it only ever falls, there was room; where it stands still, it has not begun to learn.
    """
    shape = shape_of(run.reports) if run.state == "complete" else None
    if shape is None:
        return "up" if run.state == "complete" and _stands_still(run.reports) else None
    climbed, beyond_noise, overshot = shape
    if beyond_noise > CLIMBED or overshot > OVERSHOT:
        return "down"
    return "up" if climbed <= LEVEL else None


def leans_far(run: Run) -> bool:
    """Return whether the better rate that `lr_lean` expects is far away.

    The run has not learned, its loss stands where it was or higher; or less than half of it is gone at the end, and it
    fell to the last.
    """
    losses, lean = _as_losses(run.reports), lr_lean(run)
    if losses is None or lean is None:
        return False
    fell, late = losses[0] - losses[-1], losses[(len(losses) - 1) // 2] - losses[-1]
    still_falling = lean == "up" and fell < LITTLE * losses[0] and late >= STILL_FALLING * fell
    return bool(fell <= LEARNED * losses[0] or still_falling)


def _stands_still(reports: tuple[float, ...]) -> bool:
    """Whether a loss has not left its start; one that is the same to the last digit belongs to a dead network."""
    losses = _as_losses(reports)
    return losses is not None and bool(0 < np.ptp(losses) <= LEARNED * losses.max())


def _as_losses(reports: tuple[float, ...]) -> FloatArray | None:
    """Return reports as numbers that fall towards 0; None where they do not, and for too few.

    Of a maximised share, such as an accuracy, that is what is missing to 1.
    """
    losses = np.array(reports, dtype=float)
    if len(losses) < MIN_REPORTS or not np.all(np.isfinite(losses)):
        return None
    if losses.max() <= 0 and losses.min() >= -1:
        losses += 1.0
    return losses if losses.min() >= 0 and losses.max() > 0 else None


def shape_of(reports: tuple[float, ...]) -> tuple[float, float, float] | None:
    """Return a run's steepest climb from report to report, with and without what noise does, and its overshoot.

    As shares of what the reports span; None for too few. The overshoot is what the last part lies above the lowest one,
    less what noise does. Noise is measured on the last third, where a schedule has brought the rate down and a network
    stands still, and grows with the loss.

    >>> shape_of((2.0, 1.0, 1.2, 0.5, 0.0, 0.2, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6))
    (0.2, 0.2, 0.3)
    """
    losses = np.array(reports, dtype=float)
    if len(losses) < MIN_REPORTS or not np.all(np.isfinite(losses)) or not np.any(losses):
        return None
    losses /= np.abs(losses).max()
    span = float(np.ptp(losses))
    if span <= LEARNED:
        return None
    split = np.array_split(losses, min(len(losses), MOST_PARTS))
    parts = np.array([part.mean() for part in split])
    noise = _relative_noise(losses) * np.abs(parts) / np.sqrt([len(part) for part in split])
    climbs = np.diff(parts)
    beyond_noise = climbs - CLIMB_IN_NOISE * np.hypot(noise[1:], noise[:-1])
    lowest_by_luck = math.sqrt(2 * math.log(len(parts))) + 1.3  # deviations of one part above the least of all
    overshot = max(float(parts[-1] - parts.min() - lowest_by_luck * noise[-1]), 0.0)
    climbed, surely, ended = (round(float(x) / span, 6) for x in (climbs.max(), beyond_noise.max(), overshot))
    return climbed, surely, ended


def _relative_noise(losses: FloatArray) -> float:
    """Return the noise of one report as a share of the loss, from the last third of a run (four reports at least).

    By the deviation of the differences: the median that `noise_sd` takes is too uncertain on so few.
    """
    if len(losses) < MIN_FOR_NOISE:
        return 0.0
    tail = losses[-max(TAIL, len(losses) // 3) :]
    size = float(np.abs(tail).mean())
    return float(np.diff(tail).std(ddof=1)) / math.sqrt(2) / size if size > 0 else 0.0
