"""The refinement's model: a Gaussian process that knows beforehand how much each hyperparameter matters.

A model that must learn this from ten trainings wastes half of them in corners where nothing trains. Here the scales are
given: a factor of ten in learning rate is far, a factor of ten in weight decay near, all momenta are neighbours, and
everything gets worse away from the best run, slowly. Only the scale of the loss is fitted. On surrogates of 13 small
networks the incumbent's regret was a fifth below that of Optuna's GPSampler from 8 to 20 trainings.
"""

import math
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from optuna_discipline.rules.curve import FloatArray

# In the units of the prior: standard deviation of a repeated run, and how far below its expectation a point may count.
NOISE, CAUTION = 0.2, 1.0
# A run closer than this to another one (in lengths; a factor of 1.26 in the learning rate) shows little new.
NEAR = 0.1
# Who asks while others run draws his caution (Hutter, Hoos and Leyton-Brown 2012), or all would look beside the
# best run: with a constant 0.7 four had twice the regret after 60 trainings, in `benchmarks.workers`.
MEAN_CAUTION = 1.0
N_CANDIDATES = 800
# How many units of loss one unit of the prior may be; the data choose.
SCALES = (0.25, 0.5, 1.0, 2.0, 4.0)
# In multiples of a middling distance from the best: a loss farther away, such as the 1e6 that stands for a network that
# broke, counts as so far, or the unit of loss would be its own, and all else alike.
FARTHEST = 10.0
HUGE = 1e150
# The level of the loss is not known beforehand: this variance of it is as good as none.
_LEVEL = 100.0


@dataclass(frozen=True)
class Coordinate:
    """One number that the model searches.

    Attributes:
        low: Smallest value.
        high: Largest value.
        length: Distance over which the loss is alike, in units of the coordinate.
        bowl: How much worse it gets at one length from the best run, in units of the prior.
        step: Distance of the values allowed, from `low` on; None allows all.
        choices: Whether the values, low to high by one, are names, all equally far from each other.
        follows: How much the best value of another coordinate moves with this one, as (index, slope): the learning
            rate grows with the batch size.
    """

    low: float
    high: float
    length: float = 1.0
    bowl: float = 0.2
    step: float | None = None
    choices: bool = False
    follows: tuple[int, float] | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low <= self.high):
            raise ValueError(f"`low` and `high` must be finite with low <= high, but got {self.low=}, {self.high=}.")
        if not self.length > 0:
            raise ValueError(f"`length` must be positive, but got {self.length!r}.")


def next_point(
    coordinates: Sequence[Coordinate],
    points: FloatArray,
    losses: Sequence[float],
    rng: np.random.Generator,
    *,
    running: FloatArray | None = None,
    free: Sequence[int] | None = None,
    within: Callable[[FloatArray], FloatArray] | None = None,
) -> FloatArray:
    """Return the most promising point, shape (d,).

    Args:
        coordinates: What is searched, d numbers.
        points: Finished runs, shape (n, d), at least one; they may lie outside of the bounds.
        losses: Their losses, smaller is better; anything not finite is as bad as the worst.
        rng: Draws the candidates.
        running: Runs under way, shape (r, d): they are taken to end as the model expects, so that no other worker is
            sent to the same place.
        free: Indices of the coordinates that may move; the others stay at the best run's. None: all.
        within: Moves candidates, shape (n, d), to where a run can be; None where the bounds alone say that.

    Raises:
        ValueError: If there is no point, or shapes do not fit.
    """
    points = np.asarray(points, dtype=float)
    if points.ndim != 2 or len(points) == 0 or points.shape[1] != len(coordinates) or len(points) != len(losses):
        raise ValueError(
            f"`points` must have the shape (n, {len(coordinates)}) with one loss each and n > 0, but got "
            f"{points.shape=}, {len(losses)=}."
        )
    values = warp(losses)
    best = points[int(np.argmin(values))]
    candidates = _candidates(coordinates, best, range(len(coordinates)) if free is None else free, rng)
    candidates = candidates if within is None else within(candidates)
    under_way = np.zeros((0, len(coordinates))) if running is None else np.asarray(running, dtype=float)
    candidates = _clear_of(coordinates, candidates, np.vstack([points, under_way]))
    model = _Model(coordinates, points, values, best)
    if len(under_way):
        expected, _ = model.predict(under_way)
        model = _Model(
            coordinates, np.vstack([points, under_way]), np.concatenate([values, expected]), best, scale=model.scale
        )
    mean, deviation = model.predict(candidates)
    caution = float(rng.exponential(MEAN_CAUTION)) if len(under_way) else CAUTION
    chosen: FloatArray = candidates[int(np.argmin(mean - caution * model.scale * deviation))]
    return chosen


def anywhere(coordinates: Sequence[Coordinate], rng: np.random.Generator) -> FloatArray:
    """Return a point drawn evenly within the bounds, shape (d,): all there is to do before the first run has ended."""
    return rng.uniform([c.low for c in coordinates], [c.high for c in coordinates])


def warp(losses: Sequence[float]) -> FloatArray:
    """Return the losses above the best one, on a scale that is linear near it and logarithmic far away.

    Nothing changes when all losses are shifted or multiplied. A run that broke says "bad here", not how bad.

    >>> warp([0.3, 0.4, 0.5, float("inf")]).round(2).tolist()
    [0.0, 0.63, 1.1, 2.09]
    """
    values = np.asarray(losses, dtype=float)
    finite = np.isfinite(values)
    if not finite.any():
        return np.zeros(len(values))
    largest = float(np.abs(values[finite]).max())
    if largest > HUGE:  # their difference would be infinite
        values = values / largest
    above = values - values[finite].min()
    positive = above[finite & (above > 0)]
    unit = float(np.median(positive)) if len(positive) else 1.0
    warped = np.arcsinh(np.minimum(np.where(finite, above, 0.0) / max(unit, 1e-300), FARTHEST))
    worst = max(float(warped.max()), math.asinh(4.0))
    return np.where(finite, warped, worst)


class _Model:
    """A Gaussian process around a bowl, its unit of loss chosen by the data."""

    def __init__(
        self,
        coordinates: Sequence[Coordinate],
        points: FloatArray,
        values: FloatArray,
        centre: FloatArray,
        *,
        scale: float | None = None,
    ) -> None:
        self._coordinates = coordinates
        self._centre = _features(coordinates, centre[None])
        self._bowl = _weights(coordinates)
        self._at = _features(coordinates, points)
        covariance = self._covariance(self._at, self._at) + NOISE**2 * np.eye(len(points))
        self._root = np.linalg.cholesky(covariance)
        log_determinant = float(np.log(np.diag(self._root)).sum())
        best = -math.inf
        for unit in SCALES if scale is None else (scale,):
            rest = values / unit - self._prior(self._at)
            weights = np.linalg.solve(self._root.T, np.linalg.solve(self._root, rest))
            likelihood = -0.5 * float(rest @ weights) - log_determinant - len(values) * math.log(unit)
            likelihood -= 0.5 * math.log(unit) ** 2
            if likelihood > best:
                best, self.scale, self._weights = likelihood, unit, weights

    def predict(self, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the expected warped loss of points, and its standard deviation in units of the prior."""
        at = _features(self._coordinates, points)
        cross = self._covariance(at, self._at)
        mean = self.scale * (self._prior(at) + cross @ self._weights)
        spread = np.linalg.solve(self._root, cross.T)
        moved = at - self._centre
        variance = 1.0 + _LEVEL + (moved**2).sum(axis=1) - (spread**2).sum(axis=0)
        return mean, np.sqrt(np.maximum(variance, 1e-12))

    def _prior(self, at: FloatArray) -> FloatArray:
        bowl: FloatArray = ((at - self._centre) ** 2) @ self._bowl
        return bowl

    def _covariance(self, a: FloatArray, b: FloatArray) -> FloatArray:
        """Return an unknown level, an unknown slope, and a smooth rest (Matern 5/2)."""
        distance = np.sqrt(5 * _squared_distances(a, b))
        smooth = (1 + distance + distance**2 / 3) * np.exp(-distance)
        slope = (a - self._centre) @ (b - self._centre).T
        found: FloatArray = _LEVEL + slope + smooth
        return found


def _clear_of(coordinates: Sequence[Coordinate], candidates: FloatArray, points: FloatArray) -> FloatArray:
    """Return the candidates that are not near a point; all of them where there is nothing else."""
    at, known = _features(coordinates, candidates), _features(coordinates, points)
    clear = (_squared_distances(at, known) > NEAR**2).all(axis=1)
    return candidates[clear] if clear.any() else candidates


def _squared_distances(a: FloatArray, b: FloatArray) -> FloatArray:
    found: FloatArray = np.maximum((a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None] - 2 * a @ b.T, 0.0)
    return found


def _features(coordinates: Sequence[Coordinate], points: FloatArray) -> FloatArray:
    """Return points in units of the lengths; a choice becomes one column for each name."""
    moved = np.array(points, dtype=float)
    for j, coordinate in enumerate(coordinates):
        if coordinate.follows is not None:
            leader, slope = coordinate.follows
            moved[:, j] -= slope * points[:, leader]
    columns = []
    for j, coordinate in enumerate(coordinates):
        if coordinate.choices:
            names = np.arange(coordinate.low, coordinate.high + 1)
            columns.append((points[:, j, None] == names) / (math.sqrt(2.0) * coordinate.length))
        else:
            columns.append(moved[:, j, None] / coordinate.length)
    return np.hstack(columns)


def _weights(coordinates: Sequence[Coordinate]) -> FloatArray:
    """Return the bowl's weight of each column of `_features`."""
    widths = [int(c.high - c.low) + 1 if c.choices else 1 for c in coordinates]
    return np.repeat([c.bowl for c in coordinates], widths)


def _candidates(
    coordinates: Sequence[Coordinate], best: FloatArray, free: Sequence[int], rng: np.random.Generator
) -> FloatArray:
    """Return points to choose from: near the best run and far, along one coordinate, some, and all."""
    low = np.array([c.low for c in coordinates])
    high = np.array([c.high for c in coordinates])
    inside = np.clip(best, low, high)
    moves = np.zeros((N_CANDIDATES, len(coordinates)), dtype=bool)
    share = np.where(np.arange(N_CANDIDATES) % 3 == 0, 1.0, 1.5 / max(1, len(free)) + 0.2)
    moves[:, list(free)] = rng.random((N_CANDIDATES, len(free))) < share[:, None]
    far = np.where(np.arange(N_CANDIDATES) % 2 == 0, 1.0, 0.25)[:, None]
    anywhere = rng.uniform(low, high, (N_CANDIDATES, len(coordinates)))
    points = np.where(moves, inside + far * (anywhere - inside), inside)
    for j, coordinate in enumerate(coordinates):
        if coordinate.choices:
            points[:, j] = np.where(moves[:, j], np.round(anywhere[:, j]), inside[j])
        elif coordinate.step is not None:
            steps = np.floor((points[:, j] - coordinate.low) / coordinate.step + 0.5)
            points[:, j] = np.minimum(coordinate.low + coordinate.step * steps, coordinate.high)
    return points
