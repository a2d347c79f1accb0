"""Read one curve as Smith reads it: underfitting, the horizontal part, overfitting, divergence (section 3)."""

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from optuna_discipline.exceptions import DisciplineError
from optuna_discipline.rules.arguments import check_type
from optuna_discipline.rules.curve import FloatArray
from optuna_discipline.rules.curve import LossCurve
from optuna_discipline.rules.curve import noise_sd
from optuna_discipline.rules.curve import running_median
from optuna_discipline.rules.pruning import why_diverged

# A change over the last third of the curve below this share of the loss is no change.
HORIZONTAL_SHARE = 0.02
MIN_EPOCHS = 4


class Verdict(str, enum.Enum):
    """What a curve shows; the last two are no verdict on the run."""

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
    Verdict.HORIZONTAL: "The validation loss has levelled off: this is where a good setting ends; compare with others.",
    Verdict.OVERFITTING: "The validation loss rises while the training loss falls: regularise more (larger learning "
    "rate or weight decay, smaller batch), or train shorter.",
    Verdict.DIVERGED: "The training broke: lower the learning rate, the momentum or the weight decay.",
    Verdict.HIGH_LR: "Both losses rise with the learning rate: normal inside a cycle, no verdict before it falls.",
    Verdict.NOISY: "The noise is larger than the trend: wait, average more runs, or take a larger validation set.",
}


@dataclass(frozen=True)
class Diagnosis:
    """What a curve shows, the numbers behind it, and which knob to turn.

    Attributes:
        verdict: See `Verdict`.
        evidence: Numbers by name: changes over the last third of the curve, noise, gap, share of the run done.
        advice: One sentence after Smith.
    """

    verdict: Verdict
    evidence: Mapping[str, float]
    advice: str


def diagnose(curve: LossCurve) -> Diagnosis:
    """Return what one curve shows.

    Args:
        curve: At least four epochs with a validation loss; the training loss is needed to tell overfitting.

    Raises:
        TypeError: If `curve` is no `LossCurve`.
        DisciplineError: If it holds too little to say anything.

    >>> from optuna_discipline.rules.curve import EpochLog
    >>> logs = tuple(EpochLog(i, 0.1, 1 - i / 10, 1.1 - i / 10) for i in range(8))
    >>> diagnose(LossCurve(logs, n_epochs=8)).verdict.name
    'UNDERFITTING'
    """
    check_type("curve", curve, LossCurve)
    broken = why_diverged(curve)
    if broken is not None:
        last = curve.train_loss[-1] if curve.has_train_loss else curve.val_loss[-1]
        evidence = {"last_loss": float(last), "share_done": curve.fraction}
        return Diagnosis(Verdict.DIVERGED, evidence, f"{ADVICE[Verdict.DIVERGED]} ({broken.capitalize()}.)")
    usable = np.isfinite(curve.val_loss)
    if usable.sum() < MIN_EPOCHS:
        raise DisciplineError(
            f"`curve` must hold at least {MIN_EPOCHS} epochs with a validation loss to be read, "
            f"but holds {int(usable.sum())}: train on, or report `val_loss`."
        )
    val = curve.val_loss[usable]
    evidence = {
        "val_change": _change(val),
        "val_noise": noise_sd(val[len(val) // 2 :]) / _scale(val),
        "rise_from_minimum": _rise(val),
        "share_done": curve.fraction,
    }
    if curve.has_train_loss:
        train = curve.train_loss[usable]
        evidence |= {"train_change": _change(train), "gap": float(val[-1] - train[-1])}
    verdict = _judge(evidence, _rising(curve.lr[usable]))
    return Diagnosis(verdict, evidence, ADVICE[verdict])


def _judge(evidence: Mapping[str, float], lr_rises: bool) -> Verdict:
    val, train = evidence["val_change"], evidence.get("train_change", math.nan)
    certain = max(HORIZONTAL_SHARE, 2 * evidence["val_noise"])
    if val > certain and train > HORIZONTAL_SHARE and lr_rises:
        return Verdict.HIGH_LR
    if (val > certain or evidence["rise_from_minimum"] > max(0.05, 3 * evidence["val_noise"])) and train < 0:
        return Verdict.OVERFITTING
    if val < -certain:
        return Verdict.UNDERFITTING
    if evidence["val_noise"] > 0.1:
        return Verdict.NOISY
    return Verdict.HIGH_LR if val > certain and lr_rises else Verdict.HORIZONTAL


def _change(losses: FloatArray) -> float:
    """Return the change of the smoothed loss over the last third, as a share of its scale."""
    smooth = running_median(losses, window=5 if len(losses) >= 15 else 3)
    third = max(2, len(smooth) // 3)
    return float((smooth[-1] - smooth[-third]) / _scale(losses))


def _rise(losses: FloatArray) -> float:
    smooth = running_median(losses, window=5 if len(losses) >= 15 else 3)
    return float((smooth[-1] - smooth.min()) / _scale(losses))


def _scale(losses: FloatArray) -> float:
    return max(float(np.median(np.abs(losses))), 1e-12)


def _rising(lr: FloatArray) -> bool:
    known = lr[np.isfinite(lr)]
    third = max(2, len(known) // 3)
    return len(known) >= 2 and bool(known[-1] > 1.05 * known[-min(third, len(known))])
