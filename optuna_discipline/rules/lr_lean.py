"""Read from one whole training on which side of its learning rate a better one lies."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from optuna_discipline.rules.curve import FloatArray
from optuna_discipline.rules.divergence import LEARNED
from optuna_discipline.rules.divergence import has_learned
from optuna_discipline.rules.offset import less_offset
from optuna_discipline.rules.reported import leads_to
from optuna_discipline.rules.run import Run
from optuna_discipline.rules.slots import hardly_differ
from optuna_discipline.rules.slots import samples_counted
from optuna_discipline.rules.slots import what_is_missing

Lean = Literal["up", "down"]
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
LEAST_RISE = 1e-3  # of itself: the least that a loss rises which does not stand
AT_START = 0.02  # a loss that changed by less than this share of itself has not left its start
MOST_AFTER = 0.1  # of its first fall, which a loss that then stands moves
# How far the better rate is. Of 3,100 recorded trainings of other networks under four schedules, at all rates, the best
# one was at 30 to 180 times (a tenth of them below 1 to 5) that of a run of which less than half of the loss had gone,
# or nothing, though it fell to the last, and at 4 to 6 times (.5 to .9) that of others that only fell; at .04 to .06
# times (.2 to .4 above) that of a run that climbed and had learned nothing, at .13 to .19 times that of others that
# climbed. So ladders on 42 networks that begin at 1/60 to 1/3 of a usual rate have a regret of .063 after two
# trainings, .16 with steps of one size, and the same near the usual rate (`benchmarks.ladder_replay`). Without "to the
# last" curves that level off high (tables that cannot be learnt better) took such steps too: .077 after five trainings
# by seven parameters, not .064. Two steps down for whoever had climbed and learned little: .041 after five on the duel,
# not .036.
LITTLE, STILL_FALLING = 0.5, 0.15
# Of runs that neither climbed nor only fell the best rate was at .64 to 1 times the rate, read by the loss, and at 1.2
# to 2.1 times it, read by the error: so the first step goes down by 2, or up. On the duel after two trainings .046 so,
# .050 with a step up always. Of 8 reports noise hides climbs: of errors that climbed by more than a tenth, even within
# noise, .21 had a better rate above (of 307), of the others .60 (of 581); so these go down as a loss does. Errors that
# fell to the last and kept half of themselves say "up" even so (.65 of 69 had a better rate above), and other maximised
# shares. Losses do not: of 18 that it would move to "up", 10 had a better rate below.
MIN_REPORTS, MOST_PARTS = 3, 16  # a longer curve is averaged into so many parts, or its noise would be its climb
ROUNDING = 1e-6  # of a mean
NEARBY = 3.01  # times the rate: a better one may lie before one that is worse farther away
MIN_FOR_NOISE, TAIL = 6, 4  # of fewer reports the last four are most of the run


@dataclass(frozen=True)
class LrReading:
    """What the curve of one training says of its learning rate.

    Attributes:
        lean: On which side a better one is to be expected; None where it was about right.
        far: Whether that one is far away; without a side, that nothing was learned there.
    """

    lean: Lean | None
    far: bool = False

    def is_refuted_by(self, losses: Mapping[float, float], loss: float, samples: int = 0) -> bool:
        """Whether a run on that side, no farther than it says, alike in all but the rate, is clearly worse.

        Of a run that has not learned this says nothing: another one, far from where networks learn, may do worse.

        Args:
            losses: Those of the runs that are alike in all else, by their rates in multiples of this one's.
            loss: Its own.
            samples: How many they count, where they are errors: the root of those that are wrong is noise.
        """
        if self.lean is None or (self.lean == "up" and self.far):
            return False
        below = self.lean == "down"
        reach = NEARBY**2 if self.far else NEARBY
        there = (y for x, y in losses.items() if x != 1 and (x < 1) == below and 1 / reach <= x <= reach)
        return any(not (math.isfinite(y) and _differ_by_luck(loss, y, samples)) for y in there if not y <= loss)


def read_lr(run: Run) -> LrReading | None:
    """Return what a run's reports say of its learning rate, None for a run that did not end well, or says nothing.

    Even at the top of its cycle a rate that suits lets the validation loss fall or stand. Where the loss climbs on the
    way, the steps were larger than the network bears; where it ends above its best, the data were learnt by heart;
    where it only ever falls, there was room; where it stands still, it has not begun to learn; where it rises a little
    from report to report, it has not either, and the rate may be too low or too high.

    A better rate is far away where a run has not learned, its loss stands where it was or higher; or where less than
    half of it is gone at the end, and it fell to the last.
    """
    if run.state != "complete" or not leads_to(run.loss, run.reports):
        return None
    reports = run.reports if shape_of(run.reports) is not None else less_offset(run.reports)
    losses, shape = as_losses(reports), shape_of(reports)
    if shape is None:
        if losses is None or not 0 < np.ptp(losses) <= AT_START * losses.max():
            return None
        return LrReading(None) if fell(run) else LrReading(None if _only_rose(losses) else "up", far=True)
    climbed = shape[0]
    unlearned = losses is not None and stayed(losses)
    if got_worse(shape):
        return LrReading("down", far=unlearned)
    if losses is not None and fell_at_once(losses):
        return LrReading("down")
    if climbed <= LEVEL:
        late = losses is not None and began_late(losses) and not _began_at_once(run)
        return LrReading("up", far=unlearned or late)
    if climbed > CLIMBED:
        return LrReading(None)
    if losses is not None and began_late(losses) and (is_error(run) or max(run.reports) <= 0):  # or a maximised share
        return LrReading("up")
    return None if is_error(run) else LrReading(None)


def _began_at_once(run: Run) -> bool:
    """Whether the first epoch already left the loss of chance, where that is known: what is left may be all there is.

    The floor of a language model lies at half of it, or above.
    """
    curve = run.curve
    if curve is None or not len(curve) or curve.n_classes is None or curve.n_classes <= 2:
        return False
    return bool(0 < curve.val_loss[0] <= LEARNED * math.log(curve.n_classes))


def is_error(run: Run) -> bool:
    """Whether a run's reports count samples, as an error or an accuracy does: they hide which side is the better one.

    >>> [is_error(Run(0, "complete", {}, reports=reports)) for reports in ((0.5, 0.3, 0.2), (0.50313, 0.3017, 0.2))]
    [True, False]
    """
    return samples_of(run) > 0


def samples_of(run: Run, *others: Run) -> int:
    """Return how many samples a run's reports count at least, 0 where they are no error or too few.

    Few reports may have a smaller denominator; those of others on the same data tell more.

    >>> samples_of(Run(0, "complete", {}, reports=(-0.5, -0.75, -0.9)))
    20
    """
    if not is_readable(run):
        return 0
    known = (other.reports for other in others if all(map(math.isfinite, other.reports)))
    reports = sum(known, run.reports)
    losses = as_losses(reports)
    return samples_counted(sorted(set(reports if losses is None else losses.tolist())))


def got_worse(shape: tuple[float, float, float]) -> bool:
    """Whether a curve of this shape (see `shape_of`) climbed on the way, or ended above its lowest, beyond noise."""
    return shape[1] > CLIMBED or shape[2] > OVERSHOT


def climbed_by_noise(run: Run) -> bool:
    """Whether a run's reports only fell but for their noise, as at a rate that stays what it is."""
    return (shape := shape_of(run.reports)) is not None and shape[1] <= LEVEL and not got_worse(shape)


def fell(run: Run) -> bool:
    """Whether a run has left the loss that it started from: it has learned; False where nothing can be read.

    >>> [fell(Run(0, "complete", {}, reports=reports)) for reports in ((2.3, 2.0, 1.5), (2.3, 2.31, 2.3), (-0.1, -0.5))]
    [True, False, False]
    """
    if run.curve is not None and has_learned(run.curve):
        return True
    losses = as_losses(less_offset(run.reports))
    return losses is not None and not hardly_differ(list(losses)) and not stayed(losses)


def is_readable(run: Run) -> bool:
    """Whether a run has reported enough for its curve to have a shape."""
    return len(run.reports) >= MIN_REPORTS


def overfits(run: Run) -> bool:
    """Whether a run ended above its lowest report, by more than noise does, and returned that: it trained too long.

    One that returns its best epoch loses nothing by those after it.

    >>> [overfits(Run(0, "complete", {}, loss, reports=(2.0, 0.5, 0.4, 0.8, 0.9))) for loss in (0.9, 0.4)]
    [True, False]
    """
    shape = shape_of(run.reports)
    if shape is None or run.loss is None or shape[2] <= OVERSHOT:
        return False
    return abs(run.loss - run.reports[-1]) < abs(run.loss - min(run.reports))


def _differ_by_luck(loss: float, worse: float, samples: int) -> bool:
    most = max(what_is_missing([loss, worse]))
    noise = math.sqrt(most * samples) / samples + ROUNDING if samples and most > 0 else 0.0
    return hardly_differ([loss, worse]) or most - min(what_is_missing([loss, worse])) <= noise


def stayed(losses: FloatArray) -> bool:
    """Whether a loss ended about where it began, or worse."""
    return bool(losses[0] - losses[-1] <= AT_START * losses[0])


def fell_at_once(losses: FloatArray) -> bool:
    """Whether all that a loss fell, it fell between two reports, and then stood, not at 0: it may be dead.

    So did 12 of 2,989 recorded trainings; a better rate lay below for all of them. Or it is as low as it can be.

    >>> fell_at_once(np.array([9110.0, 2310, 2320, 2309, 2308])), fell_at_once(np.array([0.9, 0.31, 0.3, 0.29, 0.28]))
    (True, False)
    """
    rest = losses[1:]
    stood = len(rest) >= MIN_REPORTS and rest.max() > 0 and np.ptp(rest) <= AT_START * rest.max()
    return bool(stood and np.ptp(rest) <= MOST_AFTER * (losses[0] - rest.max()))


def _only_rose(losses: FloatArray) -> bool:
    """Whether a loss rose at each report, by more than the rounding of one that stands; not one of 447 plateaus did."""
    return bool(np.all(np.diff(losses) > 0) and losses[-1] - losses[0] > LEAST_RISE * losses[0])


def began_late(losses: FloatArray) -> bool:
    """Whether a loss that only fell has hardly fallen: less than half of it is gone, and it fell to the last."""
    gone, late = losses[0] - losses[-1], losses[(len(losses) - 1) // 2] - losses[-1]
    return bool(gone < LITTLE * losses[0] and late >= STILL_FALLING * gone)


def as_losses(reports: tuple[float, ...]) -> FloatArray | None:
    """Return reports as numbers that fall towards 0; None where they do not, and for too few.

    Of a maximised share, such as an accuracy, that is what is missing to 1.
    """
    if len(reports) < MIN_REPORTS or not np.all(np.isfinite(reports)):
        return None
    losses = np.array(what_is_missing(reports), dtype=float)
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
    if span <= AT_START:
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
