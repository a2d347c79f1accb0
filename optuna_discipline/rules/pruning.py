"""When a run may be stopped: for certain when it diverged, and otherwise late and seldom.

Inside a 1cycle run the early validation loss ranks wrongly (the best ImageNet run of the author has the worse test
loss for 83-94 % of its length), so under a rising or cycling learning rate nothing but divergence stops a run here.
Runs at a constant or falling learning rate can be compared from a quarter of their length on.
"""

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from optuna_discipline.rules.arguments import check_type
from optuna_discipline.rules.arguments import is_number
from optuna_discipline.rules.curve import FloatArray
from optuna_discipline.rules.curve import LossCurve
from optuna_discipline.rules.curve import noise_sd
from optuna_discipline.rules.curve import tail_median

FIRST_COMPARISON = 0.25
MIN_PEERS = 4
MIN_EPOCHS, MIN_RATES = 8, 3
# The end of a short cycle must lie this far below its start to say anything about a learning rate.
LEARNED = 0.8
BLOWN_UP, BLOWN_UP_AT_ONCE = 1.5, 10.0
# A first epoch has learned something already, so a loss may stand higher above it and still come down.
BLOWN_UP_FROM_FIRST_EPOCH = 3.0
LEFT_START, BACK_AT_START = 0.9, 0.98


@dataclass(frozen=True)
class StopDecision:
    """Whether to stop a run.

    Attributes:
        stop: The decision.
        reason: Why, in one sentence with its numbers.
    """

    stop: bool
    reason: str


@dataclass(frozen=True)
class Peer:
    """A run that others may be compared with, read once: `as_peer` costs 0.1 ms, a comparison under a microsecond.

    Attributes:
        n_epochs: Length of the run, as planned.
        epochs: Indices of the logged epochs, rising.
        levels: Median of the last five validation losses at each of `epochs`, NaN where there is none.
    """

    n_epochs: int
    epochs: tuple[int, ...]
    levels: tuple[float, ...]

    def level_at(self, epoch: int, *, n_epochs: int) -> float | None:
        """Return the loss where another run stands now, None if the two do not compare there."""
        if self.n_epochs != n_epochs or self.epochs[-1] < epoch or self.epochs[0] > epoch:
            return None
        level = self.levels[bisect.bisect_right(self.epochs, epoch) - 1]
        return level if math.isfinite(level) else None


def as_peer(curve: LossCurve) -> Peer | None:
    """Return what a run offers to comparisons, None for one that diverged, never learned or whose rate cycles."""
    if not has_falling_lr(curve) or is_diverged(curve) or has_learned(curve) is False:
        return None
    levels = _tail_medians(curve.val_loss)
    return Peer(curve.n_epochs, tuple(log.epoch for log in curve.logs), tuple(levels.tolist()))


def should_stop(curve: LossCurve, peers: Sequence[LossCurve | Peer] = (), *, slack: float = 0.1) -> StopDecision:
    """Decide whether a run may be stopped now (Smith 2018, section 3, as far as measurements bear it out).

    Args:
        curve: The run so far.
        peers: Other runs, or what `as_peer` read of them. Those of another length, those that diverged and those that
            never learned do not count.
        slack: How much worse than the middle peer a run at constant learning rate may be, as a share of that loss.

    Raises:
        ValueError: If `slack` is not a finite number from 0 on.
    """
    check_type("curve", curve, LossCurve)
    if not (is_number(slack) and 0 <= slack < math.inf):
        raise ValueError(f"`slack` must be a finite number from 0 on, but got {slack!r}.")
    broken = why_diverged(curve)
    if broken is not None:
        return StopDecision(True, broken)
    if curve.fraction < FIRST_COMPARISON:
        return StopDecision(False, f"only {curve.fraction:.0%} of the run is done")
    if not compares_with_peers(curve):
        return StopDecision(False, "the learning rate cycles or is not known: early losses rank wrongly")
    read = (as_peer(peer) if isinstance(peer, LossCurve) else peer for peer in peers)
    now, length = curve.logs[-1].epoch, curve.n_epochs
    levels = [level for peer in read if peer and (level := peer.level_at(now, n_epochs=length)) is not None]
    if len(levels) < MIN_PEERS:
        return StopDecision(False, f"{len(levels)} comparable runs are too few")
    own, middle = tail_median(curve.val_loss), float(np.median(levels))
    limit = middle + slack * abs(middle) + 3 * noise_sd(curve.val_loss)
    if own > limit:
        reason = f"validation loss {own:.4g} at {curve.fraction:.0%} of the run, {len(levels)} others had {middle:.4g}"
        return StopDecision(True, reason)
    return StopDecision(False, f"validation loss {own:.4g} is within {limit:.4g}")


def compares_with_peers(curve: LossCurve) -> bool:
    """Return whether peers can stop a run now: a quarter of it is done at a learning rate that only falls."""
    return curve.fraction >= FIRST_COMPARISON and has_falling_lr(curve)


def is_diverged(curve: LossCurve) -> bool:
    """Return whether the training broke for good, judged on the training loss; see `why_diverged`."""
    return why_diverged(curve) is not None


def why_diverged(curve: LossCurve) -> str | None:
    """Return why a run counts as diverged, None if it does not.

    A loss that is no number; a training loss far above its start in two epochs running (half above chance, where the
    classes are known, else three times the first epoch); or one that is back at its start for three epochs and a tenth
    of the run after having left it. A validation loss is asked only where there is no training loss, and only for NaN
    and inf: a healthy densenet's stays at 4 to 19 (chance is 2.3) for half of its run.
    """
    if not len(curve):
        return None
    name, losses = ("training", curve.train_loss) if curve.has_train_loss else ("validation", curve.val_loss)
    measured = [getattr(log, "train_loss" if curve.has_train_loss else "val_loss") is not None for log in curve.logs]
    losses = losses[np.array(measured)]
    if not len(losses):
        return None
    if not math.isfinite(losses[-1]):
        return f"the {name} loss is {losses[-1]} at epoch {curve.logs[-1].epoch}"
    if not curve.has_train_loss:
        return None
    losses = np.where(np.isfinite(losses), losses, np.inf)
    start, word = _start(curve, losses)
    if curve.n_classes is not None and losses[-1] > _times(start, BLOWN_UP_AT_ONCE):
        return f"the training loss {losses[-1]:.3g} is over {BLOWN_UP_AT_ONCE:g} times that of {word} ({start:.3g})"
    factor = BLOWN_UP if curve.n_classes is not None else BLOWN_UP_FROM_FIRST_EPOCH
    if len(losses) >= 2 and np.all(losses[-2:] > _times(start, factor)):
        return f"the training loss {losses[-1]:.3g} is over {factor:g} times that of {word} ({start:.3g})"
    stretch = max(3, math.ceil(0.1 * curve.n_epochs))
    if len(losses) > stretch:
        lowest = float(losses[:-stretch].min())
        if lowest <= start - (1 - LEFT_START) * abs(start) and np.all(
            losses[-stretch:] >= start - (1 - BACK_AT_START) * abs(start)
        ):
            return f"the training loss fell to {lowest:.3g} and is back at {losses[-1]:.3g}, that of {word}"
    return None


def has_learned(curve: LossCurve) -> bool | None:
    """Return whether a complete run left the loss that it started from; None where the curve cannot tell.

    A cycle too short for a slow starter ends at the loss of chance at any learning rate (a 6-layer MLP: 2.30 = ln 10),
    and ranking such runs picks at random. Where the classes are known the start is chance; else it is the first epoch,
    whose mean is below the start already, so that only a clear fall is an answer.
    """
    if is_diverged(curve):
        return False
    if not curve.has_train_loss or not len(curve):
        return None
    losses = curve.train_loss[np.isfinite(curve.train_loss)]
    start, _ = _start(curve, losses)
    learned = bool(losses[-1] <= start - (1 - LEARNED) * abs(start))
    return learned if learned or curve.n_classes is not None else None


def has_falling_lr(curve: LossCurve) -> bool:
    """Return whether the learning rate is known and has never risen by more than a tenth.

    The rise of a cycle is seen at the ends of epochs only if it lasts a few: short runs give no answer, hence False.
    """
    lr = curve.lr[np.isfinite(curve.lr)]
    return (
        curve.n_epochs >= MIN_EPOCHS
        and len(lr) >= MIN_RATES
        and bool(np.all(lr[1:] / 1.1 <= np.minimum.accumulate(lr)[:-1]))
    )


def _tail_medians(losses: FloatArray, count: int = 5) -> FloatArray:
    """Return `tail_median` of every beginning of a curve, shape (n,)."""
    padded = np.concatenate([np.full(count - 1, np.nan), np.where(np.isfinite(losses), losses, np.nan)])
    ordered = np.sort(np.lib.stride_tricks.sliding_window_view(padded, count), axis=1)  # NaN comes last
    known = np.maximum(np.isfinite(ordered).sum(axis=1), 1)
    rows = np.arange(len(losses))
    return np.asarray(ordered[rows, (known - 1) // 2] / 2 + ordered[rows, known // 2] / 2, dtype=np.float64)


def _start(curve: LossCurve, losses: FloatArray) -> tuple[float, str]:
    if curve.n_classes is not None:
        return math.log(curve.n_classes), "chance"
    return float(losses[0]), "the first epoch"


def _times(loss: float, factor: float) -> float:
    return loss + (factor - 1) * abs(loss)
