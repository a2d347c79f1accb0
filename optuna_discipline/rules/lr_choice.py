"""Read a range test: the interval of learning rates that a search may use, with a status and a reason."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from typing import Literal

import numpy as np

from optuna_discipline.rules.arguments import check_type
from optuna_discipline.rules.curve import FloatArray
from optuna_discipline.rules.curve import noise_sd
from optuna_discipline.rules.curve import running_median
from optuna_discipline.rules.range_test import RangeTest

LrStatus = Literal[
    "OK", "NO_RISE", "CENSORED", "BEST_AT_START", "FLAT", "DIVERGED_AT_START", "NO_GAIN_THEN_DIVERGED", "TOO_FEW_POINTS"
]
MIN_EVALUATIONS = 10
# Where most networks train, by optimizer.
USUAL_LR: Mapping[str, float] = {"SGD": 0.1, "Adam": 5e-3, "AdamW": 5e-3, "NAdam": 5e-3, "RAdam": 5e-3}
# The loss bottoms out in a noisy plateau that may be two decades wide; where half of the gain is lost again is steep,
# and stands still from seed to seed. A cycle's best rate lies below that edge by a factor of 2 to 20.
LOST = 0.5
EDGE_DIVISOR = 5.0
TRUST = 2 / 3  # in the curve, against the usual rate
TRUST_WITHOUT_GAIN = 1 / 3  # an untrained network bears more than a trained one


@dataclass(frozen=True)
class LrChoice:
    """What a learning-rate search found.

    Attributes:
        max_lr: Suggested largest learning rate of a cycle; None is a refusal, with the reason in `reason`.
        base_lr: Suggested smallest learning rate, `max_lr / 10`; None with `max_lr`.
        bounds: Interval (low, high) worth searching; None where the curve shows none.
        status: How the curve looked; `OK`, or the reason for care.
        reason: One sentence with its numbers.
        confident: False where the curve cannot answer.
        cost: What the choice cost, in full trainings of the run that it is for (0 for a curve that was there already).
    """

    max_lr: float | None
    base_lr: float | None
    bounds: tuple[float, float] | None
    status: LrStatus
    reason: str
    confident: bool
    cost: float = 0.0


def choose_max_lr(range_test: RangeTest) -> LrChoice:
    """Choose the largest learning rate of a cycle from one range test (Smith 2018, section 3; the rule is ours).

    The validation loss is read where there is one, else the training loss, through a running median of 5 evaluations.
    What a short test tells reliably is its edge: the learning rate beyond which half of what had been gained is lost
    for good. The suggestion is a fifth of it; where the optimizer is known, that is drawn a third of the way (in the
    exponent) to the rate at which most networks train by that optimizer. (The smallest loss, which the paper's long
    tests read, stands anywhere on a plateau in a short one.) A test as long as the training is read as the paper does:
    the smallest smoothed loss, at most 0.8 of the edge. Thresholds are relative to the improvement over the untrained
    loss, so scaling all losses changes nothing.

    Returns:
        A choice inside the tested range, or a refusal (`max_lr=None`) whose reason says what to do; never an exception.
    """
    check_type("range_test", range_test, RangeTest)
    lrs, losses, initial, which = _read(range_test)
    broken = _first_broken(range_test, lrs, losses)
    if broken < MIN_EVALUATIONS:
        return _short_curve(lrs, broken, len(losses))
    losses = np.where(np.arange(len(losses)) < broken, losses, np.inf)
    smooth = running_median(losses)
    smooth[broken:] = np.inf
    best = int(np.argmin(smooth))
    start = initial if initial is not None and math.isfinite(initial) else float(smooth[0])
    if which == "training":  # of one batch; the first ones together say it better, unless they rise already
        start = min(float(np.median(losses[:MIN_EVALUATIONS])), start + 3 * noise_sd(losses[:broken]))
    error = 1.2533 * noise_sd(losses[:broken]) / math.sqrt(5)  # of a median of 5
    gain = start - float(smooth[best])
    if not gain > max(0.02 * abs(start), 4 * error):  # the smallest of some 50 medians lies 3 errors low by chance
        return _no_gain(range_test, lrs, smooth, start, error, which)
    edge = _edge(smooth, best, float(smooth[best]) + max(LOST * gain, 3 * error))
    edge_lr = float(lrs[-1] if edge is None else lrs[max(edge - 1, best)])
    max_lr, how = _read_long(float(lrs[best]), edge_lr) if _is_long(range_test) else _below(edge_lr, range_test, TRUST)
    max_lr = min(max(max_lr, float(lrs[0])), float(lrs[-1]))
    bounds = (max(min(float(lrs[best]) / 10, max_lr / 3), float(lrs[0])), max(edge_lr, max_lr))
    status, care = _status(best, edge, len(lrs), broken)
    reason = (
        f"The smoothed {which} loss fell from {start:.3g} to {smooth[best]:.3g} at lr {lrs[best]:.3g}"
        + (" and never rose for good" if edge is None else f" and rose for good after {edge_lr:.3g}")
        + f"; max_lr {max_lr:.3g} is {how}{care}."
    )
    return LrChoice(max_lr, max_lr / 10, bounds, status, reason, confident=status in ("OK", "NO_RISE"))


def _below(edge_lr: float, test: RangeTest, trust: float) -> tuple[float, str]:
    """Return the suggestion of a short test, and how it was made."""
    found, how = edge_lr / EDGE_DIVISOR, f"a {EDGE_DIVISOR:g}th of {edge_lr:.3g}"
    usual = USUAL_LR.get(str(test.settings.get("optimizer")))
    if usual is None:
        return found, how
    found = found**trust * usual ** (1 - trust)
    return min(found, 0.8 * edge_lr), f"{how}, drawn towards the usual {usual:g}"


def _read_long(best_lr: float, edge_lr: float) -> tuple[float, str]:
    return min(best_lr, 0.8 * edge_lr), "that lr, as the test is as long as the training"


def _read(test: RangeTest) -> tuple[FloatArray, FloatArray, float | None, str]:
    if test.val_loss is None or not np.any(~np.isnan(test.val_loss)):
        return test.lrs, test.train_loss, test.initial_loss, "training"
    seen = ~np.isnan(test.val_loss)
    if test.stop_reason == "non-finite loss" and len(seen):
        seen = seen | (np.arange(len(seen)) == len(seen) - 1)
    return test.lrs[seen], test.val_loss[seen], test.initial_loss, "validation"


def _first_broken(test: RangeTest, lrs: FloatArray, losses: FloatArray) -> int:
    broken = np.flatnonzero(~np.isfinite(losses))
    first = int(broken[0]) if len(broken) else len(losses)
    bad_train = np.flatnonzero(~np.isfinite(test.train_loss))
    if len(bad_train):
        first = min(first, int(np.searchsorted(lrs, test.lrs[bad_train[0]])))
    return first


def _short_curve(lrs: FloatArray, broken: int, total: int) -> LrChoice:
    if broken < total:
        reason = f"The loss stopped being a number at lr {lrs[broken]:.3g}, evaluation {broken}: lower `start_lr`."
        return LrChoice(None, None, None, "DIVERGED_AT_START", reason, confident=False)
    reason = f"The test has {total} evaluations and needs {MIN_EVALUATIONS} to be read: raise `num_steps`."
    return LrChoice(None, None, None, "TOO_FEW_POINTS", reason, confident=False)


def _no_gain(test: RangeTest, lrs: FloatArray, smooth: FloatArray, start: float, error: float, which: str) -> LrChoice:
    """Read a curve that never got better than the untrained network."""
    above = np.flatnonzero(_sustained(smooth > start + max(0.5 * abs(start), 3 * error)))
    if not len(above):
        reason = (
            f"The {which} loss never left its start of {start:.3g} between lr {lrs[0]:.3g} and {lrs[-1]:.3g}: "
            "take more steps, raise `end_lr`, or check the model."
        )
        return LrChoice(None, None, None, "FLAT", reason, confident=False)
    edge = float(lrs[max(int(above[0]) - 1, 0)])
    if above[0] < len(lrs) / 4:
        reason = f"The {which} loss rose from its start of {start:.3g} at lr {edge:.3g} already: lower `start_lr`."
        return LrChoice(None, None, None, "DIVERGED_AT_START", reason, confident=False)
    max_lr, how = _below(edge, test, TRUST_WITHOUT_GAIN)
    max_lr = max(max_lr, float(lrs[0]))
    reason = (
        f"The {which} loss never fell below its start of {start:.3g} and rose for good after lr {edge:.3g}, as on a "
        f"network that starts slowly or is trained already; max_lr {max_lr:.3g} is a guess: {how}."
    )
    bounds = (max(edge / 300, float(lrs[0])), max(edge, max_lr))
    return LrChoice(max_lr, max_lr / 10, bounds, "NO_GAIN_THEN_DIVERGED", reason, confident=False)


def _edge(smooth: FloatArray, best: int, level: float) -> int | None:
    """Return the first index after `best` from which the loss stays above `level`, None if it never does."""
    rising = np.flatnonzero(_sustained(smooth > level)[best + 1 :])
    return int(rising[0]) + best + 1 if len(rising) else None


def _sustained(above: np.ndarray[Any, np.dtype[np.bool_]]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Mark where the flag holds and holds in at least 2 of 3 evaluations from there (past the end it holds)."""
    padded = np.concatenate([above, [True, True]]) if len(above) else above
    return np.array([padded[i] and padded[i : i + 3].sum() >= 2 for i in range(len(above))], dtype=np.bool_)


def _is_long(test: RangeTest) -> bool:
    return test.planned_steps is not None and len(test.lrs) >= test.planned_steps


def _status(best: int, edge: int | None, n: int, broken: int) -> tuple[LrStatus, str]:
    if best < 5:
        return "BEST_AT_START", ", but the best loss stands at the start of the sweep: lower `start_lr`"
    if edge is None and broken == n and best >= n - 5:
        return "CENSORED", ", but the loss was still falling at the end of the range: raise `end_lr`"
    if edge is None:
        return "NO_RISE", " (the loss never rose again)"
    return "OK", ""
