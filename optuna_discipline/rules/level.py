"""Why a loss stands at one level: it never moved, the network is dead, or the learning rate ran out."""

import math
from collections.abc import Mapping

import numpy as np

from optuna_discipline.rules.climb import CLEAR_OF_NOISE
from optuna_discipline.rules.climb import scale_of
from optuna_discipline.rules.climb import smoothed
from optuna_discipline.rules.curve import FloatArray
from optuna_discipline.rules.curve import noise_sd

# Losses that stay within this share of their size from the first epoch to the last have not moved, unless they begin
# below 0, where a share says nothing, and have moved clear of their noise.
MOVED = 0.03
# A rate that ended at this share of its largest has run out: a loss that fell by the second share over the middle third
# of the run levelled off with it. Where the gap is more than the third share of the loss, there may be other reasons.
RATE_LEFT, STILL_FELL, NO_GAP = 0.05, 0.02, 0.05

NEVER_MOVED = (
    "The loss has hardly moved from its first value (by {:.1%}): try a learning rate ten times as large; where none "
    "moves it, look at the data, the labels and the model, which may stand at chance, unless it was trained before (of "
    "a classification `n_classes` tells)."
)
BELOW_CHANCE = (
    "The loss has hardly moved from its first value (by {:.1%}); the {} loss lies below that of chance ({:.3g}), as "
    "that of a model trained before does, of classes of unequal size, or one that is no cross-entropy: a learning rate "
    "ten times as large may gain more; where none does, look at the data and the labels."
)
DEAD = (
    "Both losses stand at exactly {:.3g}: the network is dead, its outputs no longer change: lower the learning rate, "
    "or raise it if it is tiny, and look at the loss, which may allow a collapse."
)
RAN_OUT = (
    "The validation loss has levelled off as the learning rate ran out, without a gap: a higher rate or a longer run "
    "may go on."
)


def measure_level(lr: FloatArray, val: FloatArray, train: FloatArray | None, shares: FloatArray) -> dict[str, float]:
    """Return how far the losses have moved in all, and how the rate and the loss stood before the last third.

    Args:
        lr: Learning rates, shape (n,); NaN where not known.
        val: Validation losses, shape (n,).
        train: Training losses, shape (n,), or None.
        shares: The validation loss as shares of it, shape (n,).
    """
    both, third, known = [val] if train is None else [val, train], max(2, len(val) // 3), lr[np.isfinite(lr)]
    smooth = smoothed(shares)
    evidence = {
        "change_in_all": max(float(np.ptp(losses)) / scale_of(losses) for losses in both),
        "val_change_before": float(smooth[-third] - smooth[third]),
    }
    if val[0] < 0:
        evidence["change_in_noise"] = max(float(np.ptp(losses)) / max(noise_sd(losses), 1e-12) for losses in both)
    if len(known) and np.isfinite(lr[-1]) and known.max() > 0:
        evidence["lr_left"] = float(lr[-1] / known.max())
    if train is not None:
        evidence["gap_share"] = abs(float(val[-1] - train[-1])) / scale_of(val)
        stands = all(np.all(losses[-third:] == losses[-1]) for losses in both)
        trains, better = not np.any(lr[-third:] == 0), val[-1] < np.min(val[:-third], initial=math.inf)
        if stands and trains and not better and train[-1] != 0 and evidence["gap_share"] <= MOVED:
            evidence["dead_at"] = float(val[-1])
    return evidence


def has_moved(evidence: Mapping[str, float]) -> bool:
    """Return whether the losses of a curve have moved from their first values."""
    return not evidence["change_in_all"] <= MOVED or evidence.get("change_in_noise", 0.0) > CLEAR_OF_NOISE


def advice_on_level(evidence: Mapping[str, float], n_classes: int | None = None) -> str | None:
    """Return what to turn where a loss stands at one level, None where only a comparison with others tells.

    Args:
        evidence: What `measure_level` returns.
        n_classes: Classes of a classification whose training loss (its validation loss where that is all) has been
            below that of chance; None where nobody says.
    """
    if "dead_at" in evidence:
        return DEAD.format(evidence["dead_at"])
    if not has_moved(evidence):
        moved, which = evidence["change_in_all"], "training" if "gap_share" in evidence else "validation"
        below = n_classes is not None and BELOW_CHANCE.format(moved, which, math.log(n_classes))
        return below or NEVER_MOVED.format(moved)
    ran_out = evidence.get("lr_left", 1.0) <= RATE_LEFT and evidence.get("gap_share", math.inf) <= NO_GAP
    return RAN_OUT if ran_out and evidence["val_change_before"] < -STILL_FELL else None
