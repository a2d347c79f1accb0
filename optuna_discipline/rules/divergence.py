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
# Losses that reach below 0 have no size of their own, and those of a policy gradient swing around it: such a run broke
# once all of its epochs lie above a stretch of so many before, by so many times the largest rise in that. Where fewer
# came before they lie there for a stretch, and are so many times as large as all before.
STRETCH, CLEAR_RISE, OUT_OF_SIZE = 5, 2.0, 10.0
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
    run. A loss that reaches below 0 has no size, only its own noise: it is back at its start for three epochs and a
    tenth of the run, clear above all that the five epochs before did. A validation loss is asked only where there is
    no training loss, and only for NaN and inf: a healthy densenet's stays at 4 to 19 (chance is 2.3) for half of its
    run.
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
    if curve.n_classes is None and losses.min() <= 0:
        return _why_above(curve, losses)
    if (far := _why_far(losses, start, word, known=curve.n_classes is not None)) is not None:
        return far
    if curve.n_classes is None and (stands := _why_it_stands(curve, losses, measured)) is not None:
        return stands
    return _why_back(curve, losses, start, word)


def _why_far(losses: FloatArray, start: float, word: str, *, known: bool) -> str | None:
    """Return why a run is far above its start; None if it is not, is on its way down, or has just begun."""
    first = len(losses) < 2
    young = losses.min() > _times(start, BLOWN_UP) if known else len(losses) <= STRETCH
    falls = first or (young and losses[-1] <= FALLS * losses[-2])
    if falls and not (known and losses[-1] > _times(start, BEYOND_DATA)):
        return None
    factor, at_once = (BLOWN_UP, BLOWN_UP_AT_ONCE) if known else (BLOWN_UP_FROM_FIRST_EPOCH, math.inf)
    if losses[-1] > _times(start, at_once):
        factor = at_once
    elif not np.all(losses[-2:] > _times(start, factor)):
        return None
    return f"the training loss {losses[-1]:.3g} is over {factor:g} times that of {word} ({start:.3g})"


def _why_above(curve: LossCurve, losses: FloatArray) -> str | None:
    """Return why a run whose losses reach below 0 is back at its start and clear above what it was; None if not."""
    stays = max(3, math.ceil(0.1 * curve.n_epochs))
    lowest = np.minimum.accumulate(losses[::-1])[::-1]  # of each epoch and those after it
    early = np.arange(1, min(STRETCH, len(losses) - max(STRETCH, stays) + 1))
    broke = early[lowest[early] > OUT_OF_SIZE * np.maximum.accumulate(np.abs(losses))[early - 1]]
    if not len(broke) and len(losses) >= STRETCH + stays:
        stretches = np.lib.stride_tricks.sliding_window_view(losses[:-stays], STRETCH)
        with np.errstate(over="ignore", invalid="ignore"):  # inf less inf
            fell = losses[0] - np.minimum.accumulate(losses)[STRETCH - 1 : len(losses) - stays]
            clear = stretches.max(axis=1) + CLEAR_RISE * np.maximum(np.diff(stretches).max(axis=1), 0.0)
            clear = np.maximum(clear, losses[0] - (1 - LEFT_START) * fell)
        broke = STRETCH + np.flatnonzero(lowest[STRETCH : len(losses) - stays + 1] > clear)
    if not len(broke):
        return None
    at = int(broke[0])
    n, low, best = len(losses) - at, lowest[at], losses[:at].min()
    return f"the training loss was {best:.3g}, and has been {low:.3g} or more for {n} epochs"


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
