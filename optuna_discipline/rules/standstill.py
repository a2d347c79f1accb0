"""Studies that stand still: whatever the learning rate, their first runs have all learned as little.

A network that trains at few learning rates only, far from the first, ends at the loss of chance at all others, at a
penalty, or at a loss that was clipped. A search around the best of such runs would never leave them.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from operator import attrgetter

import numpy as np

from optuna_discipline.rules.lr_lean import fell
from optuna_discipline.rules.run import MODEL_SLOT
from optuna_discipline.rules.run import Run
from optuna_discipline.rules.slots import what_is_missing
from optuna_discipline.rules.space import Bounds

# So many runs, at learning rates that differ by so much, with losses no farther apart than this share of themselves.
FIRST, SPAN, ALIKE = 6, 9.0, 0.05
DRAWN_AT_ONCE = 6  # one after the other, later ones in turn with the usual search
FAR = "refine:lr="  # the slots of runs at the rate farthest from all tried
# After so many runs, none of them better than the median one by this share of it, nothing shows that rates matter.
MANY, CLEARLY = 10, 0.5
ENOUGH_FOR_NOISE, BEYOND_NOISE = 5, 3.0  # so many reports show how far they jump; a fall must be so many such steps
BELOW = 1e-3  # of the smallest rate tried, where the bounds begin at 0


def stands_still(runs: Sequence[Run]) -> bool:
    """Whether the next run is to be drawn from all there is, since none of the first ones has learned.

    Not where most of those drawn did clearly worse: then the first ones stand on low ground, however flat.
    """
    ended = _ended(runs)
    level = _level(ended[:FIRST])
    if level is None or any(_is_better(run, level) for run in ended[FIRST:]):
        return False
    later = ended[FIRST:]
    worse = sum(run.score > level and not _alike(run.score, level) for run in later)
    return worse <= len(later) - worse + 1 and (len(later) < DRAWN_AT_ONCE or len(runs) % 2 == 0)


def first_to_learn(runs: Sequence[Run]) -> Run | None:
    """Return the first run that did clearly better than those that stood still, None where none has."""
    ended = _ended(runs)
    level = _level(ended[:FIRST])
    if level is None:
        return None
    return next((run for run in ended[FIRST:] if run.slot == MODEL_SLOT and _is_better(run, level)), None)


def far_slot(lr: float) -> str:
    """Return the slot of a run at the learning rate farthest from all tried."""
    return f"{FAR}{lr:g}"


def may_be_flat(runs: Sequence[Run]) -> bool:
    """Whether nothing shows yet that learning rates matter here, so one far from all tried is worth the next run.

    That is so where no curve has fallen (none, where nothing is reported) and no run is better than half of them by
    more than half; and every other time, until a run far away did worse than all others but one. On the flat ground
    above a cliff, where a noisy metric tells nothing, it is one of many.
    """
    ended = _ended(runs)
    if len(ended) < MANY or len(runs) % 2 or any(map(_fell_clearly, ended)):
        return False
    missing = what_is_missing([run.score for run in ended])
    usual = float(np.median(missing))
    if usual - min(missing) > CLEARLY * abs(usual):
        return False
    far = [run for run in ended if (run.slot or "").startswith(FAR)]
    return not any(sum(run.score <= other.score for other in ended if other not in far) <= 1 for run in far)


def widest_gap(runs: Sequence[Run], bounds: Bounds, *, at_least: float = 1.0) -> float | None:
    """Return the learning rate farthest from all that were tried: in the middle of the widest gap, by exponent.

    Of a list it is one that was not tried, in the widest gap that has any. None where no gap is as wide as this factor.

    >>> tried = [Run(i, "complete", {"lr": lr}) for i, lr in enumerate((1e-3, 1e-2, 0.1))]
    >>> [widest_gap(tried, Bounds(1e-7, 1.0), at_least=factor) for factor in (100.0, 1e5)]
    [1e-05, None]
    >>> [widest_gap(tried, Bounds.of_choices(of)) for of in ((1e-5, 1e-3, 1e-2, 0.1, 0.2), (1e-3, 1e-2, 0.1))]
    [1e-05, None]
    """
    tried = {bounds.clip(run.params["lr"]) for run in runs if run.params.get("lr", 0.0) > 0}
    low = bounds.low if bounds.low > 0 else min(tried, default=bounds.high) * BELOW
    marks = sorted({low, *(rate for rate in tried if rate > low), bounds.high})
    untried = [rate for rate in bounds.choices or () if rate not in tried]
    gaps = pairwise([(rate, math.log(rate)) for rate in marks])
    for (low, below), (high, above) in sorted(gaps, key=lambda gap: gap[0][1] - gap[1][1]):
        if above - below < math.log(at_least):
            break
        middle = float(f"{math.exp((below + above) / 2):.3g}")
        inside = [middle] if bounds.choices is None else [rate for rate in untried if low <= rate <= high]
        if inside:
            return bounds.clip(min(inside, key=lambda rate: abs(math.log(rate / middle))))
    return None


def _fell_clearly(run: Run) -> bool:
    """Whether a run has left the loss that it started from by more than its reports jump."""
    if not fell(run):
        return False
    if len(run.reports) < ENOUGH_FOR_NOISE:
        return True
    reports = np.asarray(run.reports)
    fall, jump = reports[0] - np.mean(reports[-len(reports) // 3 :]), np.median(abs(np.diff(reports)))
    return bool(fall > BEYOND_NOISE * jump)


def _ended(runs: Sequence[Run]) -> list[Run]:
    return sorted([run for run in runs if math.isfinite(run.score)], key=attrgetter("number"))


def _level(first: Sequence[Run]) -> float | None:
    """Return the best loss of the first runs, if these stood still; None if any has learned.

    One may have ended higher, as it broke: not at a lower rate than the others, where it has only learned less. Less
    than half may have fallen, to this level: a network that broke falls back to it.
    """
    first = sorted(first, key=attrgetter("score"))
    rates = {run.number: run.params["lr"] for run in first if run.params.get("lr", 0.0) > 0}
    if len(rates) < FIRST:
        return None
    level = first if _alike(*(run.score for run in first)) else first[:-1]
    if not _alike(*(run.score for run in level)):
        return None
    lowest = min(rates[run.number] for run in level)
    apart = max(rates[run.number] for run in level) / lowest
    if apart < SPAN or min(rates.values()) < lowest:
        return None
    fallen = [run for run in level if fell(run)]
    if 2 * len(fallen) >= len(level) or not all(_alike(run.reports[-1], level[0].score) for run in fallen):
        return None
    return level[0].score


def _alike(*losses: float) -> bool:
    """Whether losses are as good as each other."""
    missing = what_is_missing(losses)
    return max(missing) - min(missing) <= ALIKE * max(map(abs, missing))


def _is_better(run: Run, level: float) -> bool:
    return run.score < level and not _alike(run.score, level)
