"""The refinement's next point: the most promising of many, near the best run and far, by its model."""

import math
from collections.abc import Callable
from collections.abc import Sequence

import numpy as np

from optuna_discipline.rules.curve import OVERFLOW
from optuna_discipline.rules.curve import FloatArray
from optuna_discipline.rules.gaussian_process import Coordinate
from optuna_discipline.rules.gaussian_process import GaussianProcess
from optuna_discipline.rules.gaussian_process import features
from optuna_discipline.rules.gaussian_process import squared_distances

# How many standard deviations below its expectation a point may count.
CAUTION = 1.0
# A run closer than this to another one (in lengths; a factor of 1.26 in the learning rate) shows little new.
NEAR = 0.1
# One closer than this is the same: what is left are the errors of logarithms.
SAME = 1e-5
# Who asks while others run draws his caution (Hutter, Hoos and Leyton-Brown 2012), or all would look beside the
# best run: with a constant 0.7 four had twice the regret after 60 trainings, in `benchmarks.workers`.
MEAN_CAUTION = 1.0
N_CANDIDATES = 800
# Of more runs half tell the scales: their search takes the cube of the number in time, thirty times.
ENOUGH_FOR_SCALES = 100
# In multiples of a middling distance from the best: a loss farther away, such as the 1e6 that stands for a network that
# broke, counts as so far, or the unit of loss would be its own, and all else alike.
FARTHEST = 10.0


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
    """
    values = warp(losses)
    best = points[int(np.argmin(values))]
    under_way = np.zeros((0, len(coordinates))) if running is None else np.asarray(running, dtype=float)
    begun = np.vstack([points, under_way])
    candidates = _candidates(coordinates, best, begun, range(len(coordinates)) if free is None else free, rng)
    candidates = candidates if within is None else within(candidates)
    candidates = _clear_of(coordinates, candidates, begun)
    scales = None
    if len(points) > ENOUGH_FOR_SCALES:
        half = np.arange(len(points)) % 4 < 2  # in pairs: every second run may be another sampler's
        half[int(np.argmin(values))] = True
        scales = GaussianProcess(coordinates, points[half], values[half], best)
    model = GaussianProcess(coordinates, points, values, best, like=scales)
    if len(under_way):
        expected, _ = model.predict(under_way)
        model = GaussianProcess(coordinates, begun, np.concatenate([values, expected]), best, like=model)
    mean, deviation = model.predict(candidates)
    caution = float(rng.exponential(MEAN_CAUTION)) if len(under_way) else CAUTION
    chosen: FloatArray = candidates[int(np.argmin(mean - caution * deviation))]
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
    if largest > OVERFLOW:  # their difference would be infinite
        values = values / largest
    above = values - values[finite].min()
    positive = above[finite & (above > 0)]
    unit = float(np.median(positive)) if len(positive) else 1.0
    warped = np.arcsinh(np.minimum(np.where(finite, above, 0.0) / max(unit, 1e-300), FARTHEST))
    worst = max(float(warped.max()), math.asinh(4.0))
    return np.where(finite, warped, worst)


def _clear_of(coordinates: Sequence[Coordinate], candidates: FloatArray, points: FloatArray) -> FloatArray:
    """Return the candidates that are not near a point; where there are none those that are no point, or all."""
    nearest = squared_distances(features(coordinates, candidates), features(coordinates, points)).min(axis=1)
    clear, new = nearest > NEAR**2, nearest > SAME**2
    chosen: FloatArray = candidates[clear if clear.any() else new] if new.any() else candidates
    return chosen


def _candidates(
    coordinates: Sequence[Coordinate],
    best: FloatArray,
    begun: FloatArray,
    free: Sequence[int],
    rng: np.random.Generator,
) -> FloatArray:
    """Return points to choose from: near the best run and far, along one coordinate, some, and all.

    Where a word is new to those that have begun, all else is the best run's: what it is worth shows alone.
    """
    low = np.array([c.low for c in coordinates])
    high = np.array([c.high for c in coordinates])
    inside = np.clip(best, low, high)
    moves = np.zeros((N_CANDIDATES, len(coordinates)), dtype=bool)
    share = np.where(np.arange(N_CANDIDATES) % 3 == 0, 1.0, 1.5 / max(1, len(free)) + 0.2)
    moves[:, list(free)] = rng.random((N_CANDIDATES, len(free))) < share[:, None]
    far = np.where(np.arange(N_CANDIDATES) % 2 == 0, 1.0, 0.25)[:, None]
    anywhere = rng.uniform(low, high, (N_CANDIDATES, len(coordinates)))
    for j in (j for j, coordinate in enumerate(coordinates) if coordinate.choices):
        anywhere[:, j] = np.round(anywhere[:, j])
        new = moves[:, j] & ~np.isin(anywhere[:, j], begun[:, j])
        moves[new] = np.arange(len(coordinates)) == j
    points = np.where(moves, inside + far * (anywhere - inside), inside)
    for j, coordinate in enumerate(coordinates):
        if coordinate.choices:
            points[:, j] = np.where(moves[:, j], anywhere[:, j], inside[j])
        elif coordinate.step is not None:
            steps = np.floor((points[:, j] - coordinate.low) / coordinate.step + 0.5)
            points[:, j] = np.minimum(coordinate.low + coordinate.step * steps, coordinate.high)
    return points
