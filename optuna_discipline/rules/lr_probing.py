"""Choose a learning rate from short complete cycles: which to run next, and what they say together."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from optuna_discipline.rules.line_search import Axis
from optuna_discipline.rules.line_search import open_points
from optuna_discipline.rules.line_search import point_key
from optuna_discipline.rules.lr_choice import LrChoice
from optuna_discipline.rules.lr_choice import LrStatus

FACTOR = 2.5  # between two rungs of the ladder
# Replayed on the grids of 28 networks at 3 seeds: the best rate falls by a fifth when the cycle gets longer (it must be
# borne for longer), and of a quarter-length cycle, which is noisy, the start knows a quarter of the truth. Both matter
# little: half or twice as much of either gives the same losses within a few percent.
LONGER = 0.8
START_WEIGHT, NOISY_LENGTH = 0.25, 0.5
WORST = 1.0  # a loss e times the best says no more than "bad", whatever its height


@dataclass(frozen=True)
class Probe:
    """One short complete cycle.

    Attributes:
        lr: Its largest learning rate.
        loss: Final validation loss (training loss without a validation set); inf for a diverged run.
        train_loss: Mean training loss of its last epoch.
        learned: Whether it clearly left the untrained loss, so that `loss` may be compared.
    """

    lr: float
    loss: float
    train_loss: float
    learned: bool


def next_probe(
    probes: Sequence[Probe], *, start: float, floor: float, ceiling: float, down_first: bool = False
) -> float | None:
    """Return the learning rate to try next, None when the walk is over.

    The walk is the ladder of the recipe (`line_search.open_points`): the start, a rung above and one below it, and on
    while the outermost is the best. It depends on nothing but the history.

    Args:
        probes: What has run, in any order.
        start: Where to begin.
        floor: Smallest rate.
        ceiling: Largest rate.
        down_first: Whether the rung below comes before the one above.

    >>> tried = [Probe(0.2, 0.5, 0.4, True), Probe(0.5, 0.2, 0.1, True)]
    >>> round(next_probe(tried, start=0.2, floor=1e-4, ceiling=2.0), 3)
    1.25
    """
    start = min(max(start, floor), ceiling)
    axis = Axis((1.0,), low=floor / start, high=ceiling / start, factor=FACTOR)
    results = {point_key(probe.lr / start): rank for probe, rank in zip(probes, _ranks(probes), strict=True)}
    points = open_points(axis, results)
    if not points:
        return None
    return start * (points[-1] if down_first else points[0])


def choose_from_probes(
    probes: Sequence[Probe],
    *,
    start: float,
    finished: bool,
    length: float,
    ceiling: float,
    untrained: float | None = None,
    sure: bool = False,
) -> LrChoice:
    """Return the choice that the probes of one length allow.

    Losses are compared as ratios (as shares of the improvement where they are not positive), and a parabola through
    the best probe and its neighbours gives the optimum of this length. It is lowered for the longer run, and for probes
    shorter than half of it drawn a quarter of the way (in the exponent) to the start, if that one learned.

    Args:
        probes: At least one probe.
        start: Where the walk began.
        finished: Whether the walk came to its end within the budget.
        length: Length of the probes, in full runs.
        ceiling: Largest rate that may be probed.
        untrained: Loss before any update, needed where losses are not positive.
        sure: Whether something else vouches for the start: then a budget that ended early leaves the choice confident
            (.90 of such ones were within 1.25 times the best loss).

    >>> probes = [Probe(0.1, 0.2, 0.1, True), Probe(0.25, 0.5, 0.4, True), Probe(0.04, 0.5, 0.4, True)]
    >>> choice = choose_from_probes(probes, start=0.1, finished=True, length=0.25, ceiling=1.0)
    >>> round(choice.max_lr, 3), choice.bounds, choice.confident
    (0.085, (0.04, 0.25), True)
    """
    ordered = sorted(probes, key=lambda probe: probe.lr)
    ranks = _ranks(ordered)
    runs = list(zip(ordered, ranks, strict=True))
    best = min(range(len(ordered)), key=lambda i: (ranks[i], ordered[i].lr))
    chosen, lr = ordered[best], ordered[best].lr
    count = f"{len(probes)} probe{'s' if len(probes) > 1 else ''} of {length:g} of the run"
    span = f"at lr {lr:.3g}" if len(probes) == 1 else f"between lr {ordered[0].lr:.3g} and {ordered[-1].lr:.3g}"
    if not math.isfinite(chosen.loss):
        reason = f"Of {count} {span} none kept a finite loss: check the data, the loss and the model's initialisation."
        return LrChoice(None, None, None, "DIVERGED_AT_START", reason, confident=False)
    if not chosen.learned:  # losses near the untrained one rank nothing: stay with the first guess
        lr = next(probe.lr for probe in probes if math.isfinite(probe.loss))
        room = math.isfinite(ordered[-1].loss) and ordered[-1].lr * FACTOR <= ceiling
        larger = "raise `max_cost` so that larger rates are tried, " if room and not finished else ""
        reason = (
            f"Of {count} {span} none clearly left the untrained loss, so {lr:.3g} is only the first guess: "
            f"{larger}train longer or check the model."
        )
        return LrChoice(lr, lr / 10, (lr / FACTOR, lr * FACTOR), "FLAT", reason, confident=False)
    low = ordered[best - 1].lr if best > 0 else lr / FACTOR
    high = ordered[best + 1].lr if best + 1 < len(ordered) else lr * FACTOR
    optimum = _vertex(ordered, best, ranks, untrained)
    shift = 1.0 if length >= 1 else LONGER
    began_well = any(math.isclose(probe.lr, start, rel_tol=1e-3) and math.isfinite(rank) for probe, rank in runs)
    weight = START_WEIGHT if began_well and length < NOISY_LENGTH else 0.0  # not to a start that diverged
    max_lr = min(max((optimum * shift) ** (1 - weight) * start**weight, low), high)
    status: LrStatus = "OK"
    care = ""
    if not finished and best == 0:
        status, care = "BEST_AT_START", ", but `max_cost` ended the search before a smaller one was tried"
    elif not finished and best == len(ordered) - 1 and lr * FACTOR <= ceiling:
        status, care = "CENSORED", ", but `max_cost` ended the search before a larger one was tried"
    reason = (
        f"Of {count} {span}, {lr:.3g} had the lowest final loss ({chosen.loss:.3g}){care}; {max_lr:.3g} allows for the "
        f"neighbours, the longer run and the start at {start:.3g}."
    )
    return LrChoice(max_lr, max_lr / 10, (low, high), status, reason, confident=sure or status == "OK")


def _ranks(probes: Sequence[Probe]) -> list[float]:
    """Return what to compare: the loss of those that learned, or if none did, the training loss; infinite otherwise."""
    if not any(probe.learned for probe in probes):
        return [probe.train_loss if math.isfinite(probe.loss) else math.inf for probe in probes]
    return [probe.loss if probe.learned else math.inf for probe in probes]


def _vertex(ordered: Sequence[Probe], best: int, ranks: Sequence[float], untrained: float | None) -> float:
    """Return the minimum of the parabola through the best probe and its neighbours; the best where it has only one."""
    if not 0 < best < len(ordered) - 1:
        return ordered[best].lr
    height = [_height(ranks[i], ranks[best], untrained) for i in (best - 1, best, best + 1)]
    x = [math.log(ordered[i].lr) for i in (best - 1, best, best + 1)]
    square, slope, _ = np.polyfit(x, height, 2)
    if not square > 0:
        return ordered[best].lr
    return math.exp(min(max(-slope / (2 * square), x[0]), x[2]))


def _height(loss: float, best: float, untrained: float | None) -> float:
    scale = best if best > 0 or untrained is None else untrained - best
    if not scale > 0:
        return WORST if loss > best else 0.0
    return min(math.log1p((loss - best) / scale), WORST)
