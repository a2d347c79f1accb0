"""Choose a learning rate from short complete cycles: which to run next, and what they say together."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from optuna_discipline.rules.curve import running_median
from optuna_discipline.rules.line_search import Axis
from optuna_discipline.rules.line_search import open_points
from optuna_discipline.rules.line_search import point_key
from optuna_discipline.rules.lr_choice import LrChoice
from optuna_discipline.rules.lr_choice import LrStatus
from optuna_discipline.rules.lr_choice import refusal
from optuna_discipline.rules.range_test import RangeTest

FACTOR = 2.5  # between two rungs of the ladder
BELOW_EDGE, ABOVE_EDGE = 0.8, 2.0  # times the last stable rate
FARTHEST_UP = 10.0  # the first step up, where a sweep ended while its loss still fell
# Replayed on the grids of 28 networks at 3 seeds: the best rate falls by a fifth when the cycle gets longer (it must be
# borne for longer), and of a quarter-length cycle, which is noisy, the start knows a quarter of the truth. Both matter
# little: half or twice as much of either gives the same losses within a few percent.
LONGER = 0.8
START_WEIGHT, NOISY_LENGTH = 0.25, 0.5
# Where the budget cuts the ladder below the stable edge and the neighbour's loss is as many times the largest probe's,
# the best lies farther up: there the rate is not lowered. A step up from there brings as many answers astray as nearer.
STEEP = 1.2
WIDE = 1.5  # in rungs: between a probe and its neighbour something better may lie
# Share of the untrained loss that must be gone before losses may be compared; or of what the range test gained, where
# that is less: a constant in the loss or a weak signal leaves no quarter to lose.
GONE, GONE_OF_GAIN, LEAST_GONE = 0.25, 0.5, 0.02
DIVERGED = 0.5  # above the untrained loss, in units of it
EXPLODED = 9.0  # a loss this many starts above its start
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


def divergence_level(untrained: float, gained: float = 0.0) -> float:
    """Return the loss above which a probe has diverged: half of the untrained loss, or of what was gained, above it.

    >>> divergence_level(2.0)
    3.0
    >>> divergence_level(-0.25, gained=2.0)
    0.75
    """
    return untrained + DIVERGED * max(abs(untrained), gained) if math.isfinite(untrained) else math.inf


def learned_level(untrained: float, gained: float = 0.0) -> float:
    """Return the loss at which a probe has learned: a quarter lower, or half of what the range test gained if less.

    >>> learned_level(2.0), learned_level(2.0, gained=0.5), learned_level(2.0, gained=0.01)
    (1.5, 1.75, 1.96)
    """
    gone = GONE * abs(untrained)
    return untrained - (min(gone, max(GONE_OF_GAIN * gained, LEAST_GONE * abs(untrained))) if gained > 0 else gone)


def last_stable_lr(test: RangeTest, untrained: float = math.nan) -> float:
    """Return the rate up to which the training loss of a sweep stayed a number and near or below its start.

    The start is the largest of the first batch's loss, the first ten's and `untrained`, the loss the running median of
    5 updates: one wild batch ends nothing. Two of 5 above ten times the start do, as an exploded network still has no
    loss on the samples that it gets right by chance, and batches may be of one.

    >>> test = RangeTest(np.geomspace(0.1, 10.0, 3), np.array([2.0, 1.0, math.nan]), None, "non-finite loss", 2.0)
    >>> round(last_stable_lr(test), 2)
    1.0
    """
    start = math.nan if test.initial_loss is None else test.initial_loss
    first = float(np.median(test.train_loss[:10])) if len(test.train_loss) else math.nan
    start = max([start, *(x for x in (first, untrained) if math.isfinite(x))])
    smooth = running_median(test.train_loss)
    wild = ~(smooth <= divergence_level(start, start - float(np.min(smooth)))) | ~np.isfinite(test.train_loss)
    exploded = np.nan_to_num(test.train_loss, nan=np.inf) > start + EXPLODED * abs(start)
    near = np.convolve(exploded, np.ones(5))[2 : len(exploded) + 2]  # how many of the five around each
    wild |= exploded & (near >= 2)
    found = np.flatnonzero(wild)
    return float(test.lrs[max(int(found[0]) - 1, 0)]) if len(found) else float(test.lrs[-1])


def highest_to_probe(edge: float, start: float, *, clear: bool) -> float:
    """Return the largest rate to probe: below the last stable one, or where the sweep was `clear` a rung above `start`.

    That is at most twice the last stable one: a short sweep tells it roughly, and a probe that breaks stops early.

    >>> highest_to_probe(1.0, 0.5, clear=False), highest_to_probe(1.0, 0.5, clear=True)
    (0.8, 1.25)
    """
    return max(BELOW_EDGE * edge, min(FACTOR * start, ABOVE_EDGE * edge) if clear else 0.0)


def first_step_up(own: float, start: float) -> float:
    """Return the first step up from `start` towards the rate at which a sweep ended while its loss still fell.

    >>> [first_step_up(own, start=0.01) for own in (0.02, 0.25, 4.0)]
    [2.5, 5.0, 10.0]
    """
    return min(max(FACTOR, math.sqrt(own / start)), FARTHEST_UP)


def next_probe(
    probes: Sequence[Probe],
    *,
    start: float,
    floor: float,
    ceiling: float,
    down_first: bool = False,
    up: float = FACTOR,
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
        up: Ratio of the first step up.

    >>> tried = [Probe(0.2, 0.5, 0.4, True), Probe(0.5, 0.2, 0.1, True)]
    >>> round(next_probe(tried, start=0.2, floor=1e-4, ceiling=2.0), 3)
    1.25
    """
    start = min(max(start, floor), ceiling)
    axis = Axis((1.0,), low=floor / start, high=ceiling / start, factor=FACTOR, first_up=up)
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
    gained: float = 0.0,
    sure: bool = False,
    open_end: bool = False,
) -> LrChoice:
    """Return the choice that the probes of one length allow.

    Losses are compared as ratios (as shares of the improvement where they are not positive), and a parabola through
    the best probe and its neighbours gives the optimum of this length. It is lowered for the longer run, and for probes
    shorter than half of it drawn a quarter of the way (in the exponent) to the start, if that one learned. Where the
    budget ends at the largest probe and the loss still falls clearly towards it, it is not lowered. One probe alone is
    never sure, nor one that is the largest and towards which the loss still fell clearly.

    Args:
        probes: At least one probe.
        start: Where the walk began.
        finished: Whether the walk came to its end within the budget.
        length: Length of the probes, in full runs.
        ceiling: Largest rate that may be probed.
        untrained: Loss before any update, needed where losses are not positive.
        gained: What the range test gained, if it learned; see `learned_level`.
        sure: Whether something else vouches for the start: then a budget that ended early leaves the choice confident
            (.90 of such ones were within 1.25 times the best loss).
        open_end: Whether the ceiling is only where looking ended, not an instability that was seen.

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
        if untrained is not None and math.isfinite(untrained):
            reason = (
                f"Of {count} {span} the loss of every one rose clearly above the untrained {untrained:.3g}, by half of "
                f"it or more, or was no number: a rate that trains lies below {ordered[0].lr:.3g}, the smallest tried."
            )
        held = [probe for probe in probes if math.isfinite(probe.train_loss)]
        if held:
            cure = "look for NaN and inf in its data, and at the model in eval mode"
            if len(held) < len(probes):
                cure = f"some broke in training, so rates below {ordered[0].lr:.3g} may do; if none does, {cure}"
            reason = f"Of {count} {span} none had a validation loss that is a number: {cure}."
        return refusal("DIVERGED_AT_START", reason)
    if not chosen.learned:  # losses near the untrained one rank nothing: stay with the first guess
        larger = not finished and best == len(ordered) - 1 and lr * FACTOR <= ceiling
        more = "longer probes" if length < 1 else "larger rates" * larger
        cure = f"raise `max_cost` so that {more} are tried, " if more else ""
        lr = next(probe.lr for probe in probes if math.isfinite(probe.loss))
        lost = "lost a quarter of the untrained loss"
        if untrained is not None and learned_level(untrained, gained) > learned_level(untrained):
            lost = f"fell from the untrained {untrained:.3g} to {learned_level(untrained, gained):.3g}"
        reason = (
            f"Of {count} {span} none {lost}, so {lr:.3g} is only the first guess: "
            f"{cure}train longer or check the model."
        )
        return LrChoice(lr, lr / 10, (lr / FACTOR, lr * FACTOR), "FLAT", reason, confident=False)
    low = ordered[best - 1].lr if best > 0 else lr / FACTOR
    high = ordered[best + 1].lr if best + 1 < len(ordered) else lr * FACTOR
    last = best == len(ordered) - 1
    falls = last and best > 0 and _height(ranks[best - 1], ranks[best], untrained) > math.log(STEEP)
    status, care = _ended(best == 0, last, finished, room=lr * FACTOR <= ceiling, open_end=open_end)
    shift = 1.0 if length >= 1 or (falls and status == "CENSORED") else LONGER
    optimum = _vertex(ordered, best, ranks, untrained)
    began_well = any(math.isclose(probe.lr, start, rel_tol=1e-3) and math.isfinite(rank) for probe, rank in runs)
    weight = START_WEIGHT if began_well and length < NOISY_LENGTH else 0.0  # not to a start that diverged
    max_lr = min(max((optimum * shift) ** (1 - weight) * start**weight, low), high)
    hole = next((x.lr for x in ordered[max(best - 1, 0) : best + 2] if _rungs(x.lr, lr) > WIDE), None)
    if len(probes) == 1:
        status, care = "TOO_FEW_POINTS", ", but it alone says nothing of its neighbours"
    if falls and status == "OK":
        care = f", but the loss still fell towards it, and none above {ceiling:.3g} may be tried"
    if hole is not None:
        care += f", {'and' if care else 'but'} nothing between it and {hole:.3g} was tried"
    known = len(probes) > 1 and not falls and hole is None and not (open_end and status == "CENSORED")
    applied = [
        f"the parabola through its neighbours is lowest at {optimum:.3g}" if optimum != lr else "",
        f"the longer run bears {shift:g} of that" if shift != 1 else "",
        f"{weight:g} of the way to the start at {start:.3g} is for the noise of short probes" if weight else "",
    ]
    how = ", ".join(filter(None, applied))
    reason = f"Of {count} {span}, {lr:.3g} had the lowest final loss ({chosen.loss:.3g}){care}" + (
        f"; {how}: max_lr {max_lr:.3g}." if how else "; it is taken as it is."
    )
    return LrChoice(max_lr, max_lr / 10, (low, high), status, reason, confident=known and (sure or status == "OK"))


def _rungs(one: float, other: float) -> float:
    return abs(math.log(one / other)) / math.log(FACTOR)


def _ended(first: bool, last: bool, finished: bool, *, room: bool, open_end: bool) -> tuple[LrStatus, str]:
    """Return what kept the walk from both sides of the best probe, if something did."""
    if not finished and first:
        return "BEST_AT_START", ", but `max_cost` ended the search before a smaller one was tried"
    if not finished and last and room:
        return "CENSORED", ", but `max_cost` ended the search before a larger one was tried"
    if last and open_end:
        return "CENSORED", ", but larger ones than these are not looked at, and nothing was unstable"
    return "OK", ""


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
