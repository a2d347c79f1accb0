"""Read one curve as Smith reads it: underfitting, the horizontal part, overfitting, divergence (section 3)."""

import enum
import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

import numpy as np
from numpy.typing import NDArray

from optuna_discipline.exceptions import DisciplineError
from optuna_discipline.rules.arguments import check_type
from optuna_discipline.rules.climb import FAR_ABOVE_BEST
from optuna_discipline.rules.climb import RISE
from optuna_discipline.rules.climb import measure_climb
from optuna_discipline.rules.climb import noise_of_end
from optuna_discipline.rules.climb import read_climb
from optuna_discipline.rules.climb import scale_of
from optuna_discipline.rules.climb import smoothed
from optuna_discipline.rules.climb import stays_above_best
from optuna_discipline.rules.climb import stays_above_start
from optuna_discipline.rules.curve import FloatArray
from optuna_discipline.rules.curve import LossCurve
from optuna_discipline.rules.curve import noise_sd
from optuna_discipline.rules.divergence import chance_never_left
from optuna_discipline.rules.divergence import why_broken
from optuna_discipline.rules.level import advice_on_level
from optuna_discipline.rules.level import measure_level
from optuna_discipline.rules.lr_lean import got_worse
from optuna_discipline.rules.lr_lean import shape_of

# Curves whose diagnosis is kept: a study's notes are written anew after every few of its trials.
KEPT_CURVES = 10_000
# A change over the last third of the curve below this share of the loss is no change.
HORIZONTAL_SHARE = 0.02
MIN_EPOCHS = 4
# The last fifth of a curve above its best one by `RISE`, and by so many standard errors, is a rise ...
RISE_IN_ERRORS = 2.0
# ... and overfitting if the training loss fell to this share meanwhile (mini-batches are noisy: a little says nothing).
TRAIN_FELL_TO = 0.7
# A change is certain beyond this many times the noise; a fall also beyond so many times what goes up and down in it.
CERTAIN_IN_NOISE, CERTAIN_IN_JUMPS = 2.0, 8.0
# Noise above this share bears no verdict. At the end of a run whose rate has fallen, the last third (so many epochs at
# least) may have less: that of the peak of a cycle is gone.
TOO_NOISY, ENOUGH_FOR_NOISE = 0.1, 5
# A straight fall: in each part of the curve, clear of the noise in the last, which falls this share of the usual part.
STRAIGHT = 0.5
# A loss above 0 whose usual size is this many times that of its last third still falls while its logarithm does.
BY_ORDERS = 3.0


class Verdict(str, enum.Enum):
    """What a curve shows; noise, and a high learning rate while it rises, are no verdict on the run."""

    UNDERFITTING = "underfitting"
    HORIZONTAL = "horizontal"
    OVERFITTING = "overfitting"
    DIVERGED = "diverged"
    HIGH_LR = "high lr"
    NOISY = "noisy"

    def __str__(self) -> str:
        return self.value


ADVICE: Mapping[Verdict, str] = {
    Verdict.UNDERFITTING: "The validation loss still falls: train longer, raise the learning rate, or regularise less.",
    Verdict.HORIZONTAL: "The validation loss has levelled off: how good that is, only a comparison with others tells.",
    Verdict.OVERFITTING: "The validation loss has risen from its best: regularise more (larger weight decay, smaller "
    "batch), or train shorter.",
    Verdict.DIVERGED: "The training broke: lower the learning rate, the momentum or the weight decay.",
    Verdict.HIGH_LR: "The loss rises with the learning rate: normal inside a cycle, no verdict before it falls.",
    Verdict.NOISY: "The noise is larger than the trend: wait, average more runs, or take a larger validation set.",
}
ROSE_ON_THE_WAY = "The validation loss still falls, but rose on the way: train longer, or regularise less."
NAME_THE_CLASSES = (
    " It has levelled off far above its best: if it is that of a classification, give `n_classes`, by which a net that "
    "died is told."
)
NOTHING_LEARNED = (
    "The loss has never left that of chance ({:.3g}), so nothing was learned: try learning rates far above and below "
    "this one, and look at the labels and the loss."
)


@dataclass(frozen=True)
class Diagnosis:
    """What a curve shows, the numbers behind it, and which knob to turn.

    Attributes:
        verdict: See `Verdict`.
        evidence: Numbers by name: changes over the last third of the curve, gap, share of the run done, the loss of
            chance where it was never left; noise of the second half twice: `val_noise` by the differences from epoch to
            epoch, in which a bend counts, `val_jumps` by what goes up and down, in which it does not; `end_noise`,
            that of the last third; `change_in_all`, how far the losses have moved (of those that begin below 0 also in
            noise, `change_in_noise`); `lr_left`, the last learning rate as a share of the largest.
        advice: One sentence after Smith; one more where the number of classes would tell.
    """

    verdict: Verdict
    evidence: Mapping[str, float]
    advice: str


def diagnose(curve: LossCurve) -> Diagnosis:
    """Return what one curve shows.

    A loss that never left that of chance, where the classes are known, is underfitting; so is one that falls straight
    to the last. None is that ends above its first value: a sudden rise far above that, from which the loss has not come
    back, means a high learning rate; so does one that jumps about far above its best while the training loss stands.

    Args:
        curve: At least four epochs with a validation loss. Without a training loss only a rise of the validation loss
            that stands far out of the noise is told: a slow one as overfitting, a sudden one as divergence. So it is
            where the training loss is missing for a quarter of the curve; smaller gaps are filled from beside them.

    Raises:
        TypeError: If `curve` is no `LossCurve`.
        DisciplineError: If it holds too little to say anything.

    >>> from optuna_discipline.rules.curve import EpochLog
    >>> logs = tuple(EpochLog(i, 0.1, 1 - i / 10, 1.1 - i / 10) for i in range(8))
    >>> diagnose(LossCurve(logs, n_epochs=8)).verdict.name
    'UNDERFITTING'
    """
    check_type("curve", curve, LossCurve)
    broken = why_broken(curve)
    if broken is not None:
        measured = [x for log in curve.logs for x in (log.val_loss, log.train_loss) if x is not None]
        evidence = {"last_loss": measured[-1], "share_done": curve.fraction}
        return Diagnosis(Verdict.DIVERGED, evidence, f"{ADVICE[Verdict.DIVERGED]} ({broken.capitalize()}.)")
    usable = np.isfinite(curve.val_loss)
    if usable.sum() < MIN_EPOCHS:
        raise DisciplineError(
            f"`curve` must hold at least {MIN_EPOCHS} epochs with a validation loss to be read, "
            f"but holds {int(usable.sum())}: train on, or report `val_loss`."
        )
    val, train = curve.val_loss[usable], _training_loss(curve, usable)
    with np.errstate(over="ignore", invalid="ignore"):
        evidence = _measure(curve.fraction, val, train, curve.lr[usable])
    trend = _trend(curve.lr[usable])
    verdict = _judge(evidence, trend)
    if verdict == Verdict.HORIZONTAL and train is not None and _rises_alone(evidence, val):
        verdict = Verdict.OVERFITTING
    chance = chance_never_left(curve.n_classes, val if train is None else train)
    if verdict in (Verdict.HORIZONTAL, Verdict.NOISY) and chance is not None:
        return Diagnosis(Verdict.UNDERFITTING, {**evidence, "chance": chance}, NOTHING_LEARNED.format(chance))
    if verdict == Verdict.UNDERFITTING and (shape := shape_of(tuple(val.tolist()))) is not None and got_worse(shape):
        return Diagnosis(verdict, evidence, ROSE_ON_THE_WAY)
    far = verdict == Verdict.HORIZONTAL and evidence["rise_from_minimum"] > FAR_ABOVE_BEST
    names = NAME_THE_CLASSES if far and curve.n_classes is None else ""
    return Diagnosis(verdict, evidence, _advice_on(verdict, evidence, curve.n_classes, lr_rises=trend > 0) + names)


@functools.lru_cache(maxsize=KEPT_CURVES)
def diagnose_if_readable(curve: LossCurve) -> Diagnosis | None:
    """Return what one curve shows, None where it holds too little to say anything."""
    try:
        return diagnose(curve)
    except DisciplineError:
        return None


def _advice_on(verdict: Verdict, evidence: Mapping[str, float], n_classes: int | None, *, lr_rises: bool) -> str:
    if verdict == Verdict.HORIZONTAL:
        return advice_on_level(evidence, n_classes) or ADVICE[verdict]
    if verdict != Verdict.HIGH_LR or (lr_rises and (evidence["val_change"] > 0 or evidence["stays_above_best"])):
        return ADVICE[verdict]
    if evidence["stays_above_start"]:
        return "The loss rose far above its first value and has not come back: the learning rate is too high, lower it."
    if evidence["stays_above_best"]:
        return "The loss jumps about far above its best: the learning rate or the momentum is too high, lower it."
    return "Both losses rise, and the learning rate does not: it is too high, lower it."


def _training_loss(curve: LossCurve, usable: NDArray[np.bool_]) -> FloatArray | None:
    """Return the training loss beside the validation losses, None if there is none for a quarter of their epochs."""
    places, known = curve.epochs[usable], np.isfinite(curve.train_loss)
    quarters, _ = np.histogram(curve.epochs[known], bins=4, range=(places[0], places[-1]))
    return np.interp(places, curve.epochs[known], curve.train_loss[known]) if quarters.all() else None


def _measure(done: float, val: FloatArray, train: FloatArray | None, lr: FloatArray) -> dict[str, float]:
    """Return the numbers of a curve at its epochs with a validation loss; a difference of huge losses may be inf."""
    shares = _in_shares(val)
    evidence = {
        "val_change": _change(shares),
        "val_noise": noise_sd(shares[len(val) // 2 :]),
        "val_jumps": noise_of_end(shares),
        "end_noise": noise_sd(shares[-max(ENOUGH_FOR_NOISE, len(val) // 3) :]),
        "rise_from_minimum": float((smooth := smoothed(shares))[-1] - smooth.min()),
        "change_from_first": float((val[-1] - val[0]) / scale_of(val)),
        "stays_above_start": float(stays_above_start(val, train)),
        "stays_above_best": float(train is not None and stays_above_best(val, train)),
        "falls_straight": float(_falls_straight(shares)),
        "share_done": done,
        **measure_level(lr, val, train, shares),
    }
    if train is not None:
        evidence |= {"train_change": _change(train / scale_of(train)), "gap": float(val[-1] - train[-1])}
        evidence |= _compare_fifths(val, train)
    else:
        evidence |= measure_climb(val)
    return evidence


def _judge(evidence: Mapping[str, float], trend: int) -> Verdict:
    val, train = evidence["val_change"], evidence.get("train_change", math.nan)
    lr_rises, lr_still_falls = trend > 0, trend < 0 and evidence["share_done"] < 1
    noise, jumps = evidence["val_noise"], evidence["val_jumps" if val <= HORIZONTAL_SHARE else "val_noise"]
    if trend < 0 and not lr_still_falls and jumps > TOO_NOISY >= evidence["end_noise"]:
        noise = jumps = evidence["end_noise"]
    certain = max(HORIZONTAL_SHARE, min(CERTAIN_IN_NOISE * noise, CERTAIN_IN_JUMPS * jumps))
    if val > certain and train > HORIZONTAL_SHARE and lr_rises:
        return Verdict.HIGH_LR
    broken, overfitting = read_climb(evidence) if "climbed" in evidence else (False, _overfits(evidence))
    if broken:
        return Verdict.DIVERGED
    if evidence["stays_above_start"]:
        return Verdict.HIGH_LR
    if overfitting:
        return Verdict.OVERFITTING
    if evidence["stays_above_best"] and not lr_still_falls:
        return Verdict.HIGH_LR
    if val < -certain or evidence["falls_straight"]:
        return Verdict.UNDERFITTING if evidence["change_from_first"] < 0 else Verdict.NOISY
    if jumps > TOO_NOISY:
        return Verdict.NOISY
    both_rise = train > certain or lr_rises
    return Verdict.HIGH_LR if val > certain and both_rise else Verdict.HORIZONTAL


def _in_shares(losses: FloatArray) -> FloatArray:
    """Return a loss whose differences are shares of it: by its usual size, or in logs where it fell far below that."""
    end = float(np.median(losses[-max(2, len(losses) // 3) :]))
    fell_far = losses.min() > 0 and scale_of(losses) > BY_ORDERS * end
    shares: FloatArray = np.log(losses) if fell_far else losses / scale_of(losses)
    return shares


def _falls_straight(val: FloatArray) -> bool:
    """Whether a loss, in shares, falls to the last as it did before, too slowly for the last third alone to show."""
    count = max(3, min(5, len(val) // 4))
    levels = [median(part.tolist()) for part in np.array_split(val, count)]
    falls: list[float] = [before - after for before, after in pairwise(levels)]
    if not min(falls) > 0 or falls[-1] < STRAIGHT * sum(falls) / len(falls):
        return False
    return sum(falls) > HORIZONTAL_SHARE and bool(falls[-1] > RISE_IN_ERRORS * _error(val, count))


def _overfits(evidence: Mapping[str, float]) -> bool:
    risen = evidence["rise_from_best_fifth"] > RISE and evidence["rise_in_errors"] > RISE_IN_ERRORS
    return risen and evidence["train_since_best_fifth"] < TRAIN_FELL_TO


def _rises_alone(evidence: Mapping[str, float], val: FloatArray) -> bool:
    """Whether the validation loss rises as one without a training loss would, while that stands or falls."""
    still = evidence["train_since_best_fifth"] < 1 + HORIZONTAL_SHARE and evidence["train_change"] <= HORIZONTAL_SHARE
    return still and evidence["val_change"] > 0 and read_climb({**evidence, **measure_climb(val)})[1]


def _compare_fifths(val: FloatArray, train: FloatArray) -> dict[str, float]:
    """Return how the medians of the last fifth stand to those of the fifth with the best validation loss."""
    count = max(2, min(5, len(val) // 4))
    medians = np.array([np.median(part) for part in np.array_split(val, count)])
    best = int(np.argmin(medians))
    rise = float(medians[-1] - medians[best])
    before, after = (float(np.median(np.array_split(train, count)[i])) for i in (best, -1))
    return {
        "rise_from_best_fifth": rise / scale_of(val),
        "rise_in_errors": rise / max(_error(val, count), 1e-12),
        "train_since_best_fifth": 1 - (before - after) / max(abs(before), 1e-12),
    }


def _error(losses: FloatArray, count: int) -> float:
    """Return the standard error of a difference between the medians of two of so many parts of a curve."""
    return 1.25 * noise_sd(losses[len(losses) // 2 :]) * math.sqrt(2 * count / len(losses))


def _change(losses: FloatArray) -> float:
    """Return the change of the smoothed loss over the last third."""
    smooth = smoothed(losses)
    third = max(2, len(smooth) // 3)
    return float(smooth[-1] - smooth[-third])


def _trend(lr: FloatArray) -> int:
    """Return 1 where the learning rate has risen over the last third, -1 where it has fallen, else 0."""
    known = lr[np.isfinite(lr)]
    if len(known) < 2:
        return 0
    before, after = known[-min(max(2, len(known) // 3), len(known))], known[-1]
    return int(after / 1.05 > before) - int(before / 1.05 > after)
