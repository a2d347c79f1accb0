"""The refinement's Gaussian process: it knows beforehand how much each hyperparameter matters, and learns the rest.

A model that must learn all this from ten trainings wastes half of them in corners where nothing trains. So its scales
begin where those of other networks lie: a factor of ten in learning rate is far, a factor of ten in weight decay near,
all momenta are neighbours, and everything gets worse away from the best run, slowly. The runs move them as far as they
have evidence for it: the most probable scales are taken. Each word of a list has an effect of its own, and what is
known of the numbers beside one word holds beside another, by and large.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from optuna_discipline.rules.curve import FloatArray

# In the units of the prior: standard deviation of a repeated run, and what it has at least.
NOISE, LEAST_NOISE = 0.2, 0.02
# Standard deviations of the logarithms of the lengths, of the unit of loss and of the noise, before there are runs.
LENGTHS_VARY, UNIT_VARIES, NOISE_VARIES = 0.7, 1.0, 0.7
# Two words are this share of a length apart in all that is not their own effect.
WORDS_APART = 0.5
# The level of the loss is not known beforehand: this variance of it is as good as none.
_LEVEL = 100.0
# Steps of Rprop (Riedmiller and Braun 1993) to the most probable scales, and how far their logarithms may go.
_STEPS, _FIRST_STEP, _LEAST_STEP, _MOST_STEP, _FARTHEST = 30, 0.1, 1e-3, 0.5, 3.0


@dataclass(frozen=True)
class Coordinate:
    """One number that the model searches.

    Attributes:
        low: Smallest value.
        high: Largest value.
        length: Distance over which the loss is alike beforehand, in units of the coordinate.
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


class GaussianProcess:
    """An unknown level, a bowl and slopes around the best run, a smooth rest (Matern 5/2), and noise.

    Args:
        coordinates: What is searched, d numbers.
        points: Runs, shape (n, d), n > 0.
        values: Their losses, shape (n,), finite.
        centre: The best run, shape (d,).
        like: Takes the scales of another process of these coordinates instead of the most probable ones.
    """

    def __init__(
        self,
        coordinates: Sequence[Coordinate],
        points: FloatArray,
        values: FloatArray,
        centre: FloatArray,
        *,
        like: "GaussianProcess | None" = None,
    ) -> None:
        self._coordinates = coordinates
        widths = [int(c.high - c.low) + 1 if c.choices else 1 for c in coordinates]
        self._owner = np.repeat(np.arange(len(coordinates)), widths)  # the coordinate of each column
        self._bowl = np.repeat([c.bowl for c in coordinates], widths)
        self._at, self._centre = features(coordinates, points), features(coordinates, centre[None])
        words = np.repeat([c.choices for c in coordinates], widths)
        others = np.where(self._centre[0] > 0, 0.0, math.sqrt(2.0) / WORDS_APART)
        self._stretch = np.where(words, others, 1.0)
        self._values = values
        self._logs: FloatArray = self._most_probable() if like is None else like._logs
        self._fit = self._fitted(self._logs)

    @property
    def unit(self) -> float:
        """How much loss one unit of the prior is."""
        return math.exp(self._logs[-2])

    def predict(self, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the expected loss of points, shape (m, d), and its standard deviation, both of shape (m,)."""
        fit = self._fit
        at, moved = self._scaled(features(self._coordinates, points), self._logs)
        cross = _LEVEL + moved @ fit.moved.T + _smooth(squared_distances(at, fit.at))[0]
        mean = moved**2 @ self._bowl + cross @ fit.weights
        variance = 1.0 + _LEVEL + (moved**2).sum(axis=1) - np.einsum("ij,ij->i", cross @ fit.inverse, cross)
        return self.unit * mean, self.unit * np.sqrt(np.maximum(variance, 1e-12))

    def _most_probable(self) -> FloatArray:
        """Return the logarithms of the lengths, in their prior's, of the unit of loss and of the noise."""
        logs = best = np.zeros(len(self._coordinates) + 2)
        before, steps, most = np.zeros_like(logs), np.full_like(logs, _FIRST_STEP), -math.inf
        for _ in range(_STEPS):
            probability, slope = self._log_probability(logs)
            if probability > most:
                best, most = logs, probability
            turned = slope * before
            steps = np.clip(steps * np.where(turned > 0, 1.3, np.where(turned < 0, 0.5, 1.0)), _LEAST_STEP, _MOST_STEP)
            before = np.where(turned < 0, 0.0, slope)
            logs = np.clip(logs + steps * np.sign(before), -_FARTHEST, _FARTHEST)
        return best

    def _log_probability(self, logs: FloatArray) -> tuple[float, FloatArray]:
        """Return the logarithm of the probability of scales given the runs, but for a constant, and its slope."""
        fit = self._fitted(logs)
        spread = np.append(np.full(len(self._coordinates), LENGTHS_VARY), [UNIT_VARIES, NOISE_VARIES])
        found = -0.5 * float(fit.rest @ fit.weights) - fit.log_root - len(fit.at) * logs[-2]
        found -= 0.5 * float(((logs / spread) ** 2).sum())
        # of half the trace of `gain` times the covariance's slope
        gain = np.outer(fit.weights, fit.weights) - fit.inverse
        near = gain * fit.nearer
        of_columns = 2 * (near.sum(axis=1) @ fit.at**2 - np.einsum("ij,ij->j", fit.at, near @ fit.at))
        of_columns -= np.einsum("ij,ij->j", fit.moved, gain @ fit.moved) + 2 * self._bowl * (fit.weights @ fit.moved**2)
        slope = -logs / spread**2
        np.add.at(slope, self._owner, of_columns)
        slope[-2] += float(fit.weights @ self._values) * math.exp(-logs[-2]) - len(fit.at)
        slope[-1] += float(np.trace(gain)) * (NOISE * math.exp(logs[-1])) ** 2
        return found, slope

    def _fitted(self, logs: FloatArray) -> "_Fit":
        at, moved = self._scaled(self._at, logs)
        smooth, nearer = _smooth(squared_distances(at, at))
        noise = (NOISE * math.exp(logs[-1])) ** 2 + LEAST_NOISE**2
        root = np.linalg.cholesky(_LEVEL + moved @ moved.T + smooth + noise * np.eye(len(at)))
        back = np.linalg.inv(root)
        inverse = back.T @ back
        rest = self._values * math.exp(-logs[-2]) - moved**2 @ self._bowl
        return _Fit(at, moved, nearer, rest, inverse, inverse @ rest, float(np.log(np.diag(root)).sum()))

    def _scaled(self, at: FloatArray, logs: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return features in their lengths, and how far they are from the best run's; each other word on its own."""
        shrink = np.exp(-logs[self._owner])
        return at * shrink, (at - self._centre) * shrink * self._stretch


@dataclass(frozen=True)
class _Fit:
    """A process at given scales: what the runs are there, and what they weigh in a prediction."""

    at: FloatArray
    moved: FloatArray
    nearer: FloatArray  # how fast the smooth part of the covariance falls with the squared distance
    rest: FloatArray
    inverse: FloatArray
    weights: FloatArray
    log_root: float


def features(coordinates: Sequence[Coordinate], points: FloatArray) -> FloatArray:
    """Return points in units of the lengths, shape (n, columns); a choice becomes one column for each name."""
    moved = np.array(points, dtype=float)
    for j, coordinate in enumerate(coordinates):
        if coordinate.follows is not None:
            leader, slope = coordinate.follows
            moved[:, j] -= slope * points[:, leader]
    columns = []
    for j, coordinate in enumerate(coordinates):
        if coordinate.choices:
            names = np.arange(coordinate.low, coordinate.high + 1)
            columns.append((points[:, j, None] == names) * (WORDS_APART / (math.sqrt(2.0) * coordinate.length)))
        else:
            columns.append(moved[:, j, None] / coordinate.length)
    return np.hstack(columns)


def squared_distances(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return the squared distances between rows, shape (len(a), len(b))."""
    found: FloatArray = np.maximum((a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None] - 2 * a @ b.T, 0.0)
    return found


def _smooth(squared: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return Matern's covariance (5/2) at squared distances, and minus its slope there."""
    distance = np.sqrt(5 * squared)
    decay = np.exp(-distance)
    return (1 + distance + distance**2 / 3) * decay, 5 / 6 * (1 + distance) * decay
