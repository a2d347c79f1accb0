"""The losses of a range test as they are read: smoothed, with their noise, their best place and their edge."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optuna_discipline.rules.curve import OVERFLOW
from optuna_discipline.rules.curve import FloatArray
from optuna_discipline.rules.curve import running_median
from optuna_discipline.rules.curve import sd_of_differences
from optuna_discipline.rules.range_test import RangeTest

MIN_EVALUATIONS = 10
# The smallest loss stands anywhere on a noisy plateau that may be two decades wide; the edge where it begins to be lost
# again is steep and stands still. Trained at it, 90 % of 42 pairs of network and seed stay within 1.4 times the best
# loss of a grid (worst 1.8, one refusal apart); at the smallest loss within 3.4 (worst 20). A share of 0.1 to 0.25,
# divisors of 2 to 4 and a trust of 0.6 to 0.85 differ from this by less than the seeds do.
LOST = 0.15
# From a start of 43, as of inputs that nobody scaled, a network that dies at .69 loses 1 % of its gain: a loss that has
# been above its best over so wide a range of rates, until so near its end, has its edge there nonetheless.
DEAD, NEAR_THE_END = 100.0, 3.0
# Of the gain: on recorded range tests 79 validation losses wandered by .55 at most, of 80 training losses alone five by
# more than this. Of noise that was read with confidence it leaves a tenth (heavy tails) to a fourth (slow wander).
WANDERED = 0.6


@dataclass(frozen=True)
class SmoothedLoss:
    """One loss; `broken` is the first index that is no number, `error` the standard error of a median of `smooth`."""

    name: str
    lrs: FloatArray
    raw: FloatArray
    smooth: FloatArray
    broken: int
    start: float
    error: float

    @property
    def best(self) -> int:
        """Index of the smallest loss."""
        return int(np.argmin(self.smooth))

    @property
    def best_lr(self) -> float:
        """Learning rate of the smallest loss."""
        return float(self.lrs[self.best])

    @property
    def gain(self) -> float:
        """How far the loss fell below its start."""
        return self.start - float(self.smooth[self.best])

    @property
    def learns(self) -> bool:
        """Whether the loss fell clearly below its start; where that is below 0, a share of it says nothing."""
        clear = 8 * self.error if self.start < 0 else max(0.02 * self.start, 4 * self.error)
        return self.gain > clear  # the smallest of 50 medians lies 3 errors low

    @property
    def falls_to_its_end(self) -> bool:
        """Whether the loss at the end is clearly the smallest so far."""
        least = float(np.min(self.smooth)) + self.error
        return bool(self.smooth[-1] <= least < np.min(self.smooth[:-5]))

    @property
    def wanders(self) -> bool:
        """Whether the loss rose before its best, or fell again after it, by much of what it gained, as noise does."""
        before, after = self.smooth[: self.best + 1], self.smooth[self.best :]
        blown = np.logical_or.accumulate(after > self.start + self.gain)  # that it comes back from there is no noise
        after = np.where(blown, self.start, np.minimum(after, self.start))
        return max(_rise(before), _rise(after[::-1])) > WANDERED * self.gain

    @property
    def edge(self) -> int | None:
        """Index from which the loss stays clearly above its best, None if it never does."""
        least = float(self.smooth[self.best])
        edge = _edge(self.smooth, self.best, least + max(LOST * self.gain, 3 * self.error))
        return self._dead if edge is None else edge

    @property
    def _dead(self) -> int | None:
        """Index from which the loss stands still above its best, whatever the rate, until near the end of the range."""
        inner = self.lrs <= self.lrs[-1] / NEAR_THE_END
        lrs, smooth = self.lrs[inner], self.smooth[inner]
        if self.broken < len(self.lrs) or len(lrs) < MIN_EVALUATIONS:
            return None
        level = float(np.median(smooth[lrs >= lrs[-1] / DEAD]))
        near = max(4 * self.error, min(0.05 * abs(level), 0.1 * self.gain))
        alive = np.flatnonzero(~sustained(np.abs(smooth - level) <= near))
        if not len(alive) or alive[-1] < self.best or lrs[-1] < DEAD * lrs[alive[-1]]:
            return None
        return int(alive[-1]) + 1 if level > float(self.smooth[self.best]) + near else None

    @property
    def edge_lr(self) -> float:
        """Last learning rate before the edge, the end of the range where there is none."""
        edge = self.edge
        return float(self.lrs[-1] if edge is None else self.lrs[max(edge - 1, self.best)])


def has_validation(test: RangeTest) -> bool:
    """Whether a validation loss was measured that is a number or infinite; only then it decides."""
    return test.val_loss is not None and not bool(np.isnan(test.val_loss).all())


def read_losses(test: RangeTest) -> list[SmoothedLoss]:
    """Return the curve that decides and, if that is the validation loss, the training loss too."""
    if test.val_loss is None or not has_validation(test):
        return [_curve("training", test, test.lrs, test.train_loss, test.initial_loss)]
    seen = ~np.isnan(test.val_loss)
    seen[_broken(test.train_loss)[:1]] = True  # not evaluated any more, but known to be lost
    seen[-1:] |= test.stop_reason == "non-finite loss"
    first = float(test.train_loss[0])
    return [
        _curve("validation", test, test.lrs[seen], test.val_loss[seen], test.initial_loss),
        _curve("training", test, test.lrs, test.train_loss, first),
    ]


def _curve(name: str, test: RangeTest, lrs: FloatArray, losses: FloatArray, initial: float | None) -> SmoothedLoss:
    broken = _broken(losses)
    end = int(broken[0]) if len(broken) else len(losses)
    bad_train = _broken(test.train_loss)
    if len(bad_train):
        end = min(end, int(np.searchsorted(lrs, test.lrs[bad_train[0]])))
    raw, losses = losses, np.where(np.arange(len(losses)) < end, losses, np.inf)
    early = float(running_median(losses[:3])[0]) if len(losses) else math.nan
    measured = early if initial is None or len(_broken(initial)) else initial
    if name == "training" and early > measured:  # of one batch, which may be a lucky one
        measured = early
    noise = _noise(losses[:end], measured)
    start = measured
    if name == "training" and end:  # the first ones together say it better still, unless they rise or fall already
        first = float(np.median(losses[:MIN_EVALUATIONS]))
        start = early if measured == losses[0] else measured  # one batch may be an unlucky one, too
        near = min(noise, _noise(losses[:end][:MIN_EVALUATIONS], measured))  # larger rates are noisier
        fell = np.min(losses[:3]) > np.max(losses[3:7], initial=-math.inf)  # by rank: the noise may hold the fall
        start = start if fell or abs(first - start) > 3 * near else first
    front = max(measured, start)  # the untrained loss stands before the sweep; one lucky batch is no gain
    smooth = running_median(np.concatenate([[front, front], losses]))[2:]
    smooth[end:] = np.inf
    if end and losses[end - 1] > smooth[end - 1] + 3 * noise:  # no later loss can show that it was a spike
        smooth[end - 1] = losses[end - 1]
    return SmoothedLoss(name, lrs, raw, smooth, end, start, 1.2533 * noise / math.sqrt(5))


def _broken(losses: FloatArray | float) -> NDArray[np.intp]:
    """Return where losses are no numbers, or so large that their differences would overflow."""
    return np.flatnonzero(~(np.abs(losses) < OVERFLOW))


def _noise(losses: FloatArray, start: float) -> float:
    """Return the standard deviation of the noise between neighbours that have not blown up."""
    least = float(np.min(running_median(losses), initial=start))
    blown = losses > start + max(0.5 * abs(start), start - least)
    return sd_of_differences(np.diff(losses)[~(blown[1:] | blown[:-1])])


def _rise(losses: FloatArray) -> float:
    """Return the largest rise from one loss to a later one."""
    return float(np.max(losses - np.minimum.accumulate(losses)))


def sustained(above: np.ndarray[Any, np.dtype[np.bool_]]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Mark where the flag holds and holds in at least 2 of 3 evaluations from there (past the end it holds)."""
    padded = np.concatenate([above, [True, True]]) if len(above) else above
    return np.array([padded[i] and padded[i : i + 3].sum() >= 2 for i in range(len(above))], dtype=np.bool_)


def _edge(smooth: FloatArray, best: int, level: float) -> int | None:
    """Return the first index after `best` from which the loss stays above `level`, None if it never does."""
    rising = np.flatnonzero(sustained(smooth > level)[best + 1 :])
    return int(rising[0]) + best + 1 if len(rising) else None
