"""When a training broke for good, and when it never began: judged on the training loss (Smith 2018, section 3)."""

import math

import numpy as np
from numpy.typing import NDArray

from optuna_discipline.rules.curve import OVERFLOW
from optuna_discipline.rules.curve import FloatArray
from optuna_discipline.rules.curve import LossCurve
from optuna_discipline.rules.curve import noise_sd

# The end of a short cycle must lie this far below its start to say anything about a learning rate.
LEARNED = 0.8
BLOWN_UP, BLOWN_UP_AT_ONCE = 1.5, 10.0
# A first epoch has learned something already, so a loss may stand higher above it and still come down.
BLOWN_UP_FROM_FIRST_EPOCH = 3.0
# A loss that has been above that of chance from the first epoch on and falls by more than this is not broken: of inputs
# that nobody scaled the first epochs may have 50 times that of chance (40, 25, 9, ... .27). Beyond a hundred it is.
# With .9, and no such end, recorded runs that broke trained on for 11.3, 12.6, 7.8 % of their length, not 10, 9.3, 7.
FALLS, BEYOND_DATA = 0.7, 100.0
LEFT_START, BACK_AT_START = 0.9, 0.98
# The first epoch's loss is one of a noisy column: from there, a fall by less than this many times the noise is none.
LEFT_IN_NOISE = 2.0
# Losses that reach below 0, by more than this share of the first, have no size of their own, and those of a policy
# gradient swing around it. Such a run broke once all of its epochs lie above a stretch of so many before, by so many
# times the largest rise in that, where it had fallen clear of its noise.
ROUNDING, STRETCH, CLEAR_RISE, CLEAR_FALL = 1e-3, 5, 2.0, 3.0
# Or, for a stretch, so many times as large as all before, or by so many times all their span above what they were a
# stretch ago; two epochs a hundred times as large are enough.
OUT_OF_SIZE = 10.0
# A net is dead once its losses lie at chance for so many epochs. One epoch this many times above every earlier one is a
# break, and no noise: also the last, after which none follows.
DEAD_EPOCHS, BURST = 5, 100.0
# A dead net's loss is flat: it lies within this share of chance at once, where a bouncing one's does not.
FLAT = 0.03
# Where the classes are not known a net is dead whose losses stand at one level (the validation loss within this share),
# above the best by that best, or by half of the fall to it and a quarter of it; half of the way it jumped at once,
# while the rate did not rise by this factor: after a restart of the schedule a loss may stand high for long.
ONE_LEVEL, REGAINED, ABOVE_BEST, AT_ONCE, RESTART = 0.1, 0.5, 0.25, 0.5, 3.0
# Losses of unknown scale that end within this share of their first, or this many times their noise, stood still.
STILL, STILL_IN_NOISE = 0.01, 2.0


def is_diverged(curve: LossCurve) -> bool:
    """Return whether the training broke for good, judged on the training loss; see `why_diverged`."""
    return why_diverged(curve) is not None


def why_diverged(curve: LossCurve) -> str | None:
    """Return why a run counts as diverged, None if it does not.

    A loss that is no number (named by the first of those at the end); a training loss far above its start in two epochs
    running (half above chance, where the classes are known, else three times the first epoch) and not falling; or one
    that is at or above its start for three epochs and a tenth of the run after having left it downwards, or upwards
    beyond chance; flat at chance, two epochs and a twentieth are enough. Where the classes are not known it counts,
    too, if both losses have jumped to one level far above the best and stand there for five epochs and a tenth of the
    run. A loss that reaches below 0 is judged by its own noise and span: it broke once it is back at its start for
    three epochs and a tenth of the run, clear above all that five epochs before did, or out of all proportion. A
    validation loss is asked only where there is no training loss, and only for NaN and inf: a healthy densenet's stays
    at 4 to 19 (chance is 2.3) for half of its run.
    """
    name, column = ("training", "train_loss") if curve.has_train_loss else ("validation", "val_loss")
    measured = np.array([getattr(log, column) is not None for log in curve.logs], dtype=bool)
    epochs, losses = curve.epochs[measured], getattr(curve, column)[measured]
    if not len(losses):
        return None
    if not math.isfinite(losses[-1]):
        first = 1 + int(max(np.flatnonzero(np.isfinite(losses)), default=-1))
        return f"the {name} loss is {losses[first]} at epoch {epochs[first]:.0f}"
    if not curve.has_train_loss:
        return None
    losses = np.where(np.isfinite(losses), losses, np.inf)
    start, word = start_of(curve, losses)
    if start == 0:  # nothing can be told from there: an error of 0 from the first epoch on, a placeholder
        return None
    if curve.n_classes is None and losses.min() < -ROUNDING * abs(start):
        return _why_above(curve, losses, epochs)
    if (far := _why_far(curve, losses, start, word)) is not None:
        return far
    if curve.n_classes is None and (stands := _why_it_stands(curve, losses, measured)) is not None:
        return stands
    return _why_back(curve, losses, start, word)


def _why_far(curve: LossCurve, losses: FloatArray, start: float, word: str) -> str | None:
    """Return why a run is far above its start; None if it is not, is on its way down, or has just begun."""
    known, first = curve.n_classes is not None, len(losses) < 2
    young = losses.min() > _times(start, BLOWN_UP) if known else len(losses) <= STRETCH and curve.fraction < 1
    falls = first or (young and losses[-1] <= FALLS * losses[-2])
    if falls and not (losses[-1] > _times(start, BEYOND_DATA) and (known or not first)):
        return None
    factor, at_once = (BLOWN_UP, BLOWN_UP_AT_ONCE) if known else (BLOWN_UP_FROM_FIRST_EPOCH, math.inf)
    if losses[-1] > _times(start, at_once):
        factor = at_once
    elif not np.all(losses[-2:] > _times(start, factor)):
        return None
    return f"the training loss {losses[-1]:.3g} is over {factor:g} times that of {word} ({start:.3g})"


def _why_above(curve: LossCurve, losses: FloatArray, epochs: FloatArray) -> str | None:
    """Return why a run whose losses reach below 0 is clear above what they were; None if it is not."""
    losses, n = np.clip(losses, -OVERFLOW, OVERFLOW), len(losses)
    stays = max(3, math.ceil(0.1 * n * curve.n_epochs / (curve.logs[-1].epoch + 1)))  # in reports
    best, worst = np.minimum.accumulate(losses), np.maximum.accumulate(losses)
    size = _later(np.maximum.accumulate(np.abs(losses)), 1, n)
    far = _later(worst + OUT_OF_SIZE * (worst - best), STRETCH + 1, n)  # it may have climbed for a stretch
    far[: 2 * STRETCH] = math.inf
    clear = np.full(n, math.inf)
    if n > STRETCH:
        stretches = np.lib.stride_tricks.sliding_window_view(losses, STRETCH)
        rise = np.maximum(np.diff(stretches).max(axis=1), 0.0)
        clear = _later(stretches.max(axis=1) + CLEAR_RISE * rise, STRETCH, n)
        fell = _later(losses[0] - best, 1, n)
        clear[fell <= CLEAR_FALL * noise_sd(losses[:-stays])] = math.inf
        clear = np.maximum(clear, losses[0] - (1 - LEFT_START) * fell)
    lowest = np.minimum.accumulate(losses[::-1])[::-1]  # of each report and those after it
    broke = np.zeros(n, dtype=bool)
    stretch = max(STRETCH, stays)
    for bar, enough in ((BURST * size, 2), (OUT_OF_SIZE * size, stretch), (far, stays), (clear, stays)):
        broke[: max(0, n + 1 - enough)] |= (lowest > bar)[: max(0, n + 1 - enough)]
    if not broke.any():
        return None
    at = int(np.argmax(broke))
    return (
        f"the training loss fell to {best[at - 1]:.3g}, and is {lowest[at]:.3g} or more from epoch {epochs[at]:.0f} on"
    )


def _later(values: FloatArray, by: int, n: int) -> FloatArray:
    """Return for each of n reports the value so many before; infinite where there was none."""
    return np.concatenate([np.full(by, math.inf), values])[:n]


def _why_back(curve: LossCurve, losses: FloatArray, start: float, word: str) -> str | None:
    """Return why a run is back at its start for good, None if it is not."""
    known = curve.n_classes is not None
    back = losses >= start - (1 - BACK_AT_START) * abs(start)
    flat = back & (losses <= start + FLAT * abs(start)) & known
    n = curve.n_epochs
    for stays, length in ((flat, max(2, math.ceil(0.05 * n))), (back, max(3, math.ceil(0.1 * n)))):
        if len(losses) <= length or not np.all(stays[-length:]):
            continue
        before = losses[:-length]
        noise = 0.0 if known else LEFT_IN_NOISE * noise_sd(before)
        if before.min() <= start - max((1 - LEFT_START) * abs(start), noise):
            return f"the training loss fell to {before.min():.3g} and is back at {losses[-1]:.3g}, that of {word}"
        if known and before.max() > _times(start, BLOWN_UP) and losses[-1] > FALLS * losses[-length]:
            return f"the training loss was {before.max():.3g} and stays at {losses[-1]:.3g}, that of {word}"
    return None


def _why_it_stands(curve: LossCurve, losses: FloatArray, measured: NDArray[np.bool_]) -> str | None:
    """Return why a net counts as dead whose loss of chance nobody knows, None if it does not.

    Of the 3,184 recorded trainings of `benchmarks.pruner_replay` this stops 58 at some epoch, and none that ended well.
    """
    length = max(DEAD_EPOCHS, math.ceil(0.1 * curve.n_epochs))
    before, tail, val = losses[:-length], losses[-length:], curve.val_loss[measured][-length:]
    level = float(tail[-1])
    if not len(before) or not np.all(np.abs(tail - level) <= FLAT * abs(level)):
        return None
    place = int(np.argmin(before))
    best, rise = float(before[place]), level - float(before[place])
    fell = best <= losses[0] - (1 - LEFT_START) * abs(losses[0])
    if not fell or not np.all(np.abs(val - level) <= ONE_LEVEL * abs(level)):
        return None
    fall = float(before[: place + 1].max()) - best
    jumps, lr = np.diff(np.minimum(losses[place : len(before) + 1], OVERFLOW)), curve.lr[measured]
    at = place + int(np.argmax(jumps))
    far = rise >= min(abs(best), max(REGAINED * fall, ABOVE_BEST * abs(best)))
    if not far or not jumps.max() >= AT_ONCE * rise > 0 or lr[at + 1] > RESTART * lr[at]:
        return None
    return f"the training loss fell to {best:.3g} and stands at {level:.3g}, as the validation loss does"


def why_broken(curve: LossCurve) -> str | None:
    """Return why a run looks broken to who reads its curve, which is less certain than what stops it; None if not."""
    return why_diverged(curve) or _why_dead(curve) or _why_burst(curve)


def _why_dead(curve: LossCurve) -> str | None:
    """Return why a net counts as dead before `why_diverged` is certain: both of its losses lie at chance again.

    A mini-batch's training loss still jumps then, so its median counts; the validation loss of a dead net does not.
    """
    if curve.n_classes is None or len(curve) <= 2 * DEAD_EPOCHS:
        return None
    chance = math.log(curve.n_classes)
    train, val = curve.train_loss[-DEAD_EPOCHS:], curve.val_loss[1 - DEAD_EPOCHS :]
    at_chance = np.median(train) >= BACK_AT_START * chance and np.all(np.abs(val - chance) <= 0.1 * chance)
    if at_chance and np.any(curve.train_loss[:-DEAD_EPOCHS] <= LEFT_START * chance):
        return f"both losses are back at {chance:.3g}, that of chance"
    return None


def _why_burst(curve: LossCurve) -> str | None:
    """Return why a run counts as broken whose last loss is out of all proportion, before `why_diverged` is certain."""
    for name, losses in (("training", curve.train_loss), ("validation", curve.val_loss)):
        known = losses[np.isfinite(losses)]
        if len(known) >= 2 and known[-1] > BURST * np.abs(known[:-1]).max() > 0:
            return f"the last {name} loss, {known[-1]:.3g}, is over {BURST:g} times every earlier one"
        if np.isfinite(losses[-1:]).any():  # the validation loss of a training that holds may be anything
            return None
    return None


def has_learned(curve: LossCurve) -> bool | None:
    """Return whether a complete run left the loss that it started from; None where the curve cannot tell.

    A cycle too short for a slow starter ends at the loss of chance at any learning rate (a 6-layer MLP: 2.30 = ln 10),
    and ranking such runs picks at random. Where the classes are known the start is chance; else it is the first epoch,
    whose mean is below the start already, so that only a clear fall is an answer.
    """
    if is_diverged(curve):
        return False
    if not curve.has_train_loss:
        return None
    losses = curve.train_loss[np.isfinite(curve.train_loss)]
    start, _ = start_of(curve, losses)
    learned = bool(losses[-1] <= start - (1 - LEARNED) * abs(start))
    return learned if learned or curve.n_classes is not None else None


def stood_still(curve: LossCurve) -> bool:
    """Return whether both losses of a run ended where they were after the first epoch, within their noise.

    One that learned all within its first epoch has the start in the mean training loss of that, which lies above.
    """
    for losses in (curve.train_loss, curve.val_loss):
        known = losses[np.isfinite(losses)]
        if len(known) < 2:
            return False
        if abs(known[-1] - known[0]) > max(STILL * abs(known[0]), STILL_IN_NOISE * noise_sd(known)):
            return False
    return True


def chance_never_left(n_classes: int | None, losses: FloatArray) -> float | None:
    """Return the loss of chance if a loss has stood there or above it from the first epoch to the last, else None."""
    if n_classes is None:
        return None
    chance = math.log(n_classes)
    return chance if losses.min() > LEFT_START * chance else None


def start_of(curve: LossCurve, losses: FloatArray) -> tuple[float, str]:
    """Return the training loss that a run started from, and what it is: chance, or the first epoch."""
    if curve.n_classes is not None:
        return math.log(curve.n_classes), "chance"
    return float(losses[0]), "the first epoch"


def _times(loss: float, factor: float) -> float:
    return loss + (factor - 1) * abs(loss)
