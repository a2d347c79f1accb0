"""Read a range test: the interval of learning rates that a search may use, with a status and a reason."""

import math
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from optuna_discipline.rules.arguments import check_type
from optuna_discipline.rules.arguments import is_number
from optuna_discipline.rules.curve import OVERFLOW
from optuna_discipline.rules.range_test import RangeTest
from optuna_discipline.rules.range_test_cures import BROKEN_VALIDATION
from optuna_discipline.rules.range_test_cures import cannot_validate
from optuna_discipline.rules.range_test_cures import go_farther
from optuna_discipline.rules.range_test_cures import more_below
from optuna_discipline.rules.range_test_curve import LOST
from optuna_discipline.rules.range_test_curve import MIN_EVALUATIONS
from optuna_discipline.rules.range_test_curve import SmoothedLoss
from optuna_discipline.rules.range_test_curve import read_losses
from optuna_discipline.rules.range_test_curve import sustained

LrStatus = Literal[
    "OK",
    "NO_RISE",
    "CENSORED",
    "BEST_AT_START",
    "OVERFITTING",
    "FLAT",
    "DIVERGED_AT_START",
    "NO_GAIN_THEN_DIVERGED",
    "TOO_FEW_POINTS",
]
# Where most networks train, by optimizer. On five small ones under a cosine the best rates had the geometric mean .013
# for Adam, .016 for Adamax, .04 for Adagrad and for SGD with momentum, 3 for Adadelta.
USUAL_LR: Mapping[str, float] = {
    "SGD": 0.1,
    **dict.fromkeys(("Adam", "AdamW", "NAdam", "RAdam", "RMSprop", "Adamax"), 5e-3),
    "Adagrad": 2e-2,
    "Adadelta": 1.0,
    "Lion": 7e-4,  # 3 to 10 times below AdamW's: Chen et al. 2023, arXiv 2302.06675
    "LAMB": 5e-3,
}
EDGE_DIVISOR: Mapping[str, float] = {"validation": 3.0, "training": 4.0}
TRUST = 0.7  # in the curve, against the usual rate
# Through fewer updates the rate rises faster than the loss answers, and a training loss alone is read too high. On 14
# networks with 25 to 78 updates and no validation loss the first training's regret was .21 at full trust, .11 so, and
# .10 at the usual rate.
ENOUGH_UPDATES, TRUST_WITHOUT_VALIDATION = 100, 0.5
UNTRAINED_DIVISOR, UNTRAINED_TRUST = 5.0, 1 / 3  # an untrained network bears more than a trained one
# Above its start, as a share of it and in errors, a loss that never fell has risen: a cross-entropy at chance hardly
# gets a half higher. Of flat noise in a validation loss 1 % is read as a rise so, 5 % at 3 errors.
RISEN: Mapping[str, tuple[float, int]] = {"validation": (0.05, 4), "training": (0.5, 3)}
# The usual rate draws no nearer to the edge than this. On regressions with unscaled targets or a summed loss 7 of 18
# trainings broke at the edge itself, 2 at the edge over 1.2, none over 1.5; after a test that gained nothing 4 of 9 at
# the edge, none at the edge over 1.2. The benchmark's networks are drawn to the edge over 1.57 at most.
NEAREST, NEAREST_UNTRAINED = 1.5, 1.2
NEAR_ITS_END = 0.8  # of its updates: a test that diverged there is read as one of its whole length
FAR = 30.0  # times below it a validation loss has other units (a sum): on 28 networks it helps up to 14 times


@dataclass(frozen=True)
class LrChoice:
    """What a learning-rate search found.

    Attributes:
        max_lr: Suggested largest learning rate of a cycle; None is a refusal, with the reason in `reason`.
        base_lr: Suggested smallest learning rate, `max_lr / 10`; None with `max_lr`.
        bounds: Interval (low, high) worth searching; None where the curve shows none.
        status: How the curve looked; `OK`, also where it wanders (then not confident), or the reason for care.
        reason: One sentence with its numbers.
        confident: False where the curve cannot answer, or wanders as noise does.
        cost: What the choice cost, in full trainings of the run that it is for (0 for a curve that was there already).
    """

    max_lr: float | None
    base_lr: float | None
    bounds: tuple[float, float] | None
    status: LrStatus
    reason: str
    confident: bool
    cost: float = 0.0


def refusal(status: LrStatus, reason: str) -> LrChoice:
    """Return the choice of what shows no learning rate."""
    return LrChoice(None, None, None, status, reason, confident=False)


def choose_max_lr(range_test: RangeTest, *, trust: float | None = None) -> LrChoice:
    """Choose the largest learning rate of a cycle from one range test (Smith 2018, section 3; the rule is ours).

    What a short test tells reliably is its edge: the learning rate from which 15 % of what had been gained is lost for
    good, or else from which the loss stands still above its best to near the end of the range. It is read from the
    validation loss and the training loss, each through a running median of 5 (before the first stands the untrained
    loss; a last one that jumps up counts as it is); the suggestion is the geometric mean of the first over 3 and the
    second over 4 (or the one there is). Where the optimizer is known, that is drawn to the rate at which most networks
    train by it: a little after 100 updates, more after fewer and without a validation loss, but never above the edge
    over 1.5, and with it not to one 30 times larger. Where the loss falls to the end of the range, that end is drawn
    likewise. A test as long as the training (as planned, where it diverged in its last fifth) is not drawn, but read as
    the paper does: the smallest smoothed loss, at most 0.8 of the edge. Thresholds are relative to the improvement over
    the untrained loss, so scaling all losses changes nothing.

    Args:
        range_test: The curves.
        trust: Share of the way (in the exponent) from the usual rate to the curve's, in [0, 1]; None is as above.

    Returns:
        A choice inside the tested range, or a refusal (`max_lr=None`) whose reason says what to do: no curve raises.

    Raises:
        TypeError: If `range_test` is not a RangeTest.
        ValueError: If `trust` is outside [0, 1].
    """
    check_type("range_test", range_test, RangeTest)
    if trust is not None and not (is_number(trust) and 0 <= trust <= 1):
        raise ValueError(f"`trust` must be in [0, 1] or None, but got {trust!r}.")
    curves = read_losses(range_test)
    main = curves[0]
    if cannot_validate(range_test):
        return refusal("DIVERGED_AT_START", BROKEN_VALIDATION)
    if main.broken < MIN_EVALUATIONS:
        return _short_curve(main, range_test)
    if not main.learns:
        return _no_gain(main, range_test)
    status, care = _status(main, range_test)
    readable = [curve for curve in curves if curve is main or (curve.broken >= MIN_EVALUATIONS and curve.learns)]
    if len(readable) > 1 and _overfits(*readable):
        status, care = "OVERFITTING", ": the validation loss rose by overfitting, as the training loss fell on below it"
    edge_lr = _mean([curve.edge_lr for curve in readable])
    planned = range_test.planned_steps or math.inf
    if status == "CENSORED":
        edge_lr = float(main.lrs[-1])
        max_lr, how = _at_the_end(main, range_test, 1.0 if _steps(range_test) >= planned else trust)
    elif _steps(range_test) >= planned:
        max_lr, how = _as_in_the_training(main, edge_lr, len(range_test.lrs) < planned)
    else:
        max_lr, how = _below_the_edge(readable, edge_lr, range_test, trust)
    low, high = float(main.lrs[0]), float(main.lrs[-1])
    max_lr = min(max(max_lr, low), high)
    bounds = (max(max_lr / 10, low), min(max(2 * edge_lr, 3 * max_lr), high))
    reason = (
        f"The smoothed {main.name} loss fell from {main.start:.3g} to {main.smooth[main.best]:.3g} at lr "
        f"{main.best_lr:.3g} and "
        + ("never rose for good" if main.edge is None else f"rose for good after {main.edge_lr:.3g}")
        + f"; max_lr {max_lr:.3g} is {how}{care}."
    )
    return LrChoice(max_lr, max_lr / 10, bounds, status, reason, confident=status == "OK" and not care)


def check_optimizer_of(range_test: RangeTest, optimizer: str) -> None:
    """Check that a range test is of an optimizer with the usual learning rate of the one that trains.

    One that names no optimizer of `USUAL_LR` may be of any.

    Raises:
        ValueError: If it is not.
    """
    usual = {name.lower(): lr for name, lr in USUAL_LR.items()}
    tested = str(range_test.settings.get("optimizer")).lower()
    if usual.get(tested, usual[optimizer]) != usual[optimizer]:
        rule = "must be of the optimizer that trains, as others have other rates"
        raise ValueError(
            f"`range_test` {rule}, but got one of {tested!r} for {optimizer=}: run it with that optimizer."
        )


def _as_in_the_training(curve: SmoothedLoss, edge_lr: float, cut: bool) -> tuple[float, str]:
    """Read a test as long as the training, or `cut` on the way: the rate, and how it was found."""
    max_lr, how = curve.best_lr, "that of the smallest loss"
    if max_lr > 0.8 * edge_lr:
        max_lr, how = 0.8 * edge_lr, f"0.8 of the edge, {edge_lr:.3g}"
    return max_lr, f"{how}, as the test {'was to be' if cut else 'is'} as long as the training"


def _at_the_end(main: SmoothedLoss, test: RangeTest, trust: float | None) -> tuple[float, str]:
    """Read a test whose edge lies beyond; with AdamW the end itself, not drawn, ended at 1.05 to 1.8 times the loss."""
    end, how = float(main.lrs[-1]), "the largest that was tried"
    trust, far = _trust(main, test, trust)
    max_lr, drawn = _drawn_to_usual(end, test, trust, math.inf, far)
    return (max_lr, f"{how}, {end:.3g}{drawn}") if max_lr < end else (end, how)


def _below_the_edge(
    readable: Sequence[SmoothedLoss], edge_lr: float, test: RangeTest, trust: float | None
) -> tuple[float, str]:
    """Read a test shorter than the training: the rate, and how it was found."""
    below = _mean([curve.edge_lr / EDGE_DIVISOR[curve.name] for curve in readable])
    trust, far = _trust(readable[0], test, trust)
    seen = sum(c.edge is not None for c in readable)
    max_lr, drawn = _drawn_to_usual(below, test, trust, edge_lr / NEAREST if seen else math.inf, far)
    edges = "the mean edge of both losses" if len(readable) > 1 else "the edge"
    if seen < len(readable):
        edges = "the mean of one edge and the range's end" if seen else "the end of the range, as no edge was seen"
    return max_lr, f"{edges}, {edge_lr:.3g}, over {edge_lr / below:.2g}{drawn}"


def _trust(main: SmoothedLoss, test: RangeTest, told: float | None) -> tuple[float, float]:
    """Return the share of the way from the usual rate to the curve's, and how far above that the usual one counts."""
    if told is not None:
        return told, math.inf
    planned = len(test.lrs) if test.n_steps is None else test.n_steps
    trust = TRUST * min(1.0, planned / ENOUGH_UPDATES)
    return (trust * TRUST_WITHOUT_VALIDATION, math.inf) if main.name == "training" else (trust, FAR)


def _drawn_to_usual(lr: float, test: RangeTest, trust: float, most: float, far: float = math.inf) -> tuple[float, str]:
    usual = USUAL_LR.get(str(test.settings.get("optimizer")))
    if usual is None:
        return lr, ""
    if usual > far * lr:
        return lr, f"; the usual {usual:g} lies too far above to count"
    drawn, words = lr**trust * usual ** (1 - trust), f", drawn to the usual {usual:g}"
    return (drawn, words) if drawn <= most else (most, f"{words} no farther than to {most:.3g}, clear of the edge")


def _overfits(val: SmoothedLoss, train: SmoothedLoss) -> bool:
    """Whether the training loss goes on falling at clearly larger rates, to clearly below the best validation loss."""
    below = val.smooth[val.best] - train.smooth[train.best] > max(LOST * val.gain, 3 * (val.error + train.error))
    return val.edge is not None and train.best_lr > 3 * val.edge_lr and bool(below)


def _mean(values: list[float]) -> float:
    return math.exp(math.fsum(map(math.log, values)) / len(values))


def _broke(test: RangeTest) -> bool:
    return test.stop_reason in ("diverged", "non-finite loss")


def _steps(test: RangeTest) -> int:
    """Return the updates that were made, with those that a divergence near the end saved."""
    made, planned = len(test.lrs), test.n_steps
    return planned if planned is not None and _broke(test) and made >= NEAR_ITS_END * planned else made


def _short_curve(curve: SmoothedLoss, test: RangeTest) -> LrChoice:
    val_every = curve.name == "validation" and test.settings.get("val_every") != 1
    if curve.broken < len(curve.lrs):
        lr, lost = float(curve.lrs[curve.broken]), f"was no number, or above {OVERFLOW:g}"
        cure = f"{more_below(lr, test, val_every)}, or look for NaN and inf in the data"
        reason = f"The loss {lost}, at lr {lr:.3g}, evaluation {curve.broken}: {cure}."
        untrained = (test.initial_loss, *test.train_loss[:1])
        if not all(loss is None or abs(loss) < OVERFLOW for loss in untrained):
            reason = f"The loss of the untrained model {lost}: check the data, the loss and the model."
        return refusal("DIVERGED_AT_START", reason)
    cure = go_farther(test, "raise `num_steps`" + " or lower `val_every`" * val_every)
    if _broke(test) and len(test.lrs):
        cure = more_below(float(test.lrs[-1]), test, val_every)
    elif _broke(test):
        cure = "it broke before its first update, so check the data, the loss and the model"
        cure += ", or take another `amp`" * bool(test.settings.get("amp"))
    reason = f"The test has {len(curve.lrs)} evaluations and needs {MIN_EVALUATIONS} to be read: {cure}."
    return refusal("TOO_FEW_POINTS", reason)


def _no_gain(curve: SmoothedLoss, test: RangeTest) -> LrChoice:
    """Read a curve that never got better than the untrained network."""
    lrs, start, (share, errors) = curve.lrs, curve.start, RISEN[curve.name]
    above = np.flatnonzero(sustained(curve.smooth > start + max(share * abs(start), errors * curve.error)))
    if not len(above):
        ends_above = np.median(curve.smooth[-(len(lrs) // 4) :]) > start + 0.02 * abs(start)
        cure = go_farther(test, f"take more steps, {'lower' if ends_above else 'raise'} `end_lr`")
        reason = (
            f"The smoothed {curve.name} loss lost below 2 % of its start of {start:.3g}, or only noise, between lr "
            f"{lrs[0]:.3g} and {lrs[-1]:.3g}{', and rose towards its end' * bool(ends_above)}: {cure}, or check the "
            "model."
        )
        return refusal("FLAT", reason)
    edge = float(lrs[max(int(above[0]) - 1, 0)])
    if above[0] < len(lrs) / 4:
        cure = more_below(edge, test)
        reason = f"The {curve.name} loss rose from its start of {start:.3g} at lr {edge:.3g} already: {cure}."
        return refusal("DIVERGED_AT_START", reason)
    max_lr, drawn = _drawn_to_usual(edge / UNTRAINED_DIVISOR, test, UNTRAINED_TRUST, edge / NEAREST_UNTRAINED)
    max_lr = min(max(max_lr, float(lrs[0])), float(lrs[-1]))
    reason = (
        f"The smoothed {curve.name} loss never fell clearly below its start of {start:.3g} and rose for good after lr "
        f"{edge:.3g}, as on a network that starts slowly or is trained already; max_lr {max_lr:.3g} is a guess: that "
        f"over {UNTRAINED_DIVISOR:g}{drawn}."
    )
    bounds = (max(min(edge / 300, max_lr), float(lrs[0])), max(edge, max_lr))
    return LrChoice(max_lr, max_lr / 10, bounds, "NO_GAIN_THEN_DIVERGED", reason, confident=False)


def _status(curve: SmoothedLoss, test: RangeTest) -> tuple[LrStatus, str]:
    if curve.best < 5:
        care = f", but the best loss stands at the start of the sweep: {more_below(curve.edge_lr, test)}"
        return "BEST_AT_START", care
    if curve.edge is None and curve.broken == len(curve.lrs) and curve.falls_to_its_end:
        return "CENSORED", f", and the loss was still falling: {go_farther(test, 'raise `end_lr`')}"
    care = ", but the loss wandered by much of what it gained, as noise does" if curve.wanders else ""
    return "NO_RISE" if curve.edge is None else "OK", care
