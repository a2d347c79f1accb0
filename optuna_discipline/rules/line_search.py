"""Search one number at a time: compare candidates, walk on from an edge, halve the bracket once."""

import math
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from optuna_discipline.rules.candidates import bisect_exponent

# Of a list the next value may lie so many times away (1e-6 of 1e-6, 0.1, 0.2 and so on, in equal steps): no step of the
# usual size leads there while a nearer one has not run.
FARTHEST = 30.0


@dataclass(frozen=True)
class Axis:
    """One number to search, all values on a log scale.

    Attributes:
        candidates: Values to compare first, in this order; the first is the default. Zero is allowed.
        low: Smallest value.
        high: Largest value.
        factor: Ratio of a step beyond the outermost value; 1 takes no such step.
        first_up: Ratio of the first step up from a single candidate; None is `factor`.
        bisect: Whether to try the middle of the bracket, in the exponent, once.
        max_points: Points at most.
        figures: Significant figures of a middle.
        choices: The only points allowed; None if all between `low` and `high` are.
    """

    candidates: tuple[float, ...]
    low: float = 0.0
    high: float = math.inf
    factor: float = 1.0
    first_up: float | None = None
    bisect: bool = False
    max_points: int = 12
    figures: int = 4
    choices: tuple[float, ...] | None = None

    @property
    def first_step_up(self) -> float:
        """Ratio of the first step up from a single candidate."""
        return self.factor if self.first_up is None else self.first_up

    def nearest(self, point: float, *, above: float = 0.0, below: float = math.inf) -> float | None:
        """Return the allowed point nearest to `point` of those strictly between `above` and `below`, None for none."""
        if self.choices is None:
            return point
        allowed = [choice for choice in self.choices if above < choice < below]
        return min(allowed, key=lambda choice: abs(math.log(choice / point)), default=None)


def point_key(value: float) -> float:
    """Return `value` rounded to four figures, so that a point found again is the same point; a whole number as it is.

    >>> point_key(0.123456), point_key(16384.0)
    (0.1235, 16384.0)
    """
    return float(value if float(value).is_integer() else f"{value:.4g}")


def open_points(
    axis: Axis,
    results: Mapping[float, float],
    *,
    noise: float = 0.0,
    steps: Mapping[float, Sequence[float]] | None = None,
) -> list[float]:
    """Return the points that must run next, most wanted first; [] when the search is decided.

    The search is for one valley: candidates first; then, while the best point is the outermost on a side and better
    than the default by more than the noise, a step beyond it; then once the middle between the best point and its
    better neighbour, of those on a side to which a step would go. Where everything so far broke, two steps down at
    once: there is nothing to compare yet.

    Args:
        axis: What to search.
        results: Finished points and their losses; inf for a run that diverged.
        noise: Difference of two losses that means nothing.
        steps: Where something says on which side of a finished point a better one lies, and how far: the ratios of the
            steps to take from there, the most wanted first. Elsewhere one up and one down.

    >>> walk = Axis(candidates=(1.0,), factor=3.0)
    >>> open_points(walk, {})
    [1.0]
    >>> open_points(walk, {1.0: 0.5})
    [3.0, 0.3333]
    >>> open_points(walk, {1.0: 0.5, 3.0: math.inf, 0.3333: 0.6})
    []
    >>> open_points(walk, {1.0: 0.5}, steps={1.0: [9.0]})
    [9.0]
    """
    todo = [point_key(c) for c in axis.candidates if point_key(c) not in results]
    if todo or not results or len(results) >= axis.max_points:
        return todo
    best = best_point(axis, results, noise=noise)
    ratios = (steps or {}).get(best)
    return _steps_beyond(axis, results, best, noise, ratios) or _middle(axis, results, best, ratios)


def best_point(axis: Axis, results: Mapping[float, float], *, noise: float = 0.0) -> float:
    """Return the point of the smallest loss; the default wins within `noise`. With only inf, the smallest point."""
    if not any(math.isfinite(loss) for loss in results.values()):
        return min(results)
    best = min(results, key=lambda x: (results[x], x))
    default = point_key(axis.candidates[0])
    if results.get(default, math.inf) <= results[best] + noise:
        return default
    return best


def outer_points(axis: Axis, results: Mapping[float, float], count: int) -> list[float]:
    """Return points that may turn out useful, for workers with nothing else to do: the next steps outwards."""
    start = point_key(axis.candidates[0])
    ratios = (r for i in range(count) for r in (axis.factor ** (-i - 1), axis.first_step_up * axis.factor**i))
    allowed = (axis.nearest(start * ratio) for ratio in ratios)
    points = dict.fromkeys(point_key(x) for x in allowed if x is not None)
    return [x for x in points if axis.low <= x <= axis.high and x not in results]


def _steps_beyond(
    axis: Axis, results: Mapping[float, float], best: float, noise: float, ratios: Sequence[float] | None
) -> list[float]:
    if axis.factor <= 1 or best <= 0:
        return []
    default = point_key(axis.candidates[0])
    walking = len(axis.candidates) == 1
    if not walking and (best == default or not results[best] < results[default] - noise):
        return []
    if not math.isfinite(results[best]):
        ratios = [axis.factor**-2]
    elif ratios is None:
        ratios = [axis.first_step_up if walking and best == default else axis.factor, 1 / axis.factor]
    found = []
    for ratio in ratios:
        step, upward = best * ratio, ratio > 1
        if any(x > best for x in results) if upward else any(x < best for x in results):
            continue
        wanted = min(step, axis.high) if upward else max(step, axis.low)
        point = axis.nearest(wanted, above=best) if upward else axis.nearest(wanted, below=best)
        if point is None or abs(math.log(point / best)) <= 0.4 * math.log(axis.factor):
            continue
        is_usual = axis.factor**-1.5 < ratio < axis.factor**1.5
        if not (is_usual and _is_passed_over(point, best, axis, results)):
            found.append(point_key(point))
    return found


def _is_passed_over(point: float, best: float, axis: Axis, results: Mapping[float, float]) -> bool:
    """Whether a point of a list is too far from the best one for a step, and a nearer one, on any side, is left."""
    left = [x for x in axis.choices or () if x not in results]
    return not _is_near(point, best) and any(_is_near(x, best) for x in left)


def _is_near(point: float, best: float) -> bool:
    return 1 / FARTHEST <= point / best <= FARTHEST


def _middle(
    axis: Axis, results: Mapping[float, float], best: float, ratios: Sequence[float] | None = None
) -> list[float]:
    """Return the middle between the best point and a neighbour, on a side to which a step would go."""
    if not axis.bisect or best <= 0 or not math.isfinite(results[best]):
        return []
    positive = sorted(x for x in results if x > 0)
    at = positive.index(best)
    neighbours = [positive[i] for i in (at - 1, at + 1) if 0 <= i < len(positive)]
    if ratios is not None:
        neighbours = [x for x in neighbours if any((ratio > 1) == (x > best) for ratio in ratios)]
    if not neighbours:
        return []
    grid = {point_key(c) for c in axis.candidates}
    gaps = [abs(math.log(x / best)) for x in neighbours]
    spacing = math.log(axis.factor) if len(grid) == 1 else _spacing(grid)
    if min(gaps) < 0.75 * spacing:  # halved already
        return []
    holes = [x for x, gap in zip(neighbours, gaps, strict=True) if len(grid) == 1 and gap > 1.5 * spacing]
    better = holes[0] if holes else min(neighbours, key=lambda x: results[x])
    low, high = sorted((best, better))
    middle = axis.nearest(bisect_exponent(low, high), above=low, below=high)
    return [] if middle is None else [float(f"{middle:.{axis.figures}g}")]


def _spacing(grid: set[float]) -> float:
    ordered = sorted(x for x in grid if x > 0)
    return min((math.log(b / a) for a, b in pairwise(ordered)), default=0.0)
