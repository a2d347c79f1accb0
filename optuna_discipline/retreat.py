"""What to try where nothing runs: smaller sizes and other words first, then whatever the bounds hold."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution

from optuna_discipline.parameters import at_share
from optuna_discipline.parameters import bounds_of
from optuna_discipline.parameters import fit
from optuna_discipline.parameters import ordered_choices
from optuna_discipline.parameters import share_of
from optuna_discipline.parameters import spelling
from optuna_discipline.rules.space import Role
from optuna_discipline.rules.spelling import PLAIN
from optuna_discipline.rules.spelling import number_of


def retreat(
    distribution: BaseDistribution,
    value: Any,
    times: int,
    rng: np.random.Generator,
    role: Role | None = None,
    tried: Sequence[Any] = (),
) -> Any:
    """Return what to try instead of a value that has not even begun to train, each time farther from it.

    Whole numbers and lists of numbers, which are sizes mostly, get half as far up their range, give or take: that mends
    what does not fit into memory. Words are drawn, first of those not tried: that mends what does not go together. From
    the third time on all else is drawn too, but for roles other than the batch size.
    """
    if role not in (None, "batch_size"):
        return value
    if isinstance(distribution, CategoricalDistribution):
        if bounds_of(distribution) is None:
            words = [word for word in distribution.choices if word not in tried] or distribution.choices
            return words[int(rng.integers(len(words)))]
        ordered = ordered_choices(distribution)
        place = ordered.index(fit(distribution, number_of(value)))
        share = _less(place / max(1, len(ordered) - 1), times, rng)
        return ordered[max(0, min(math.floor(share * len(ordered) * (1 - 1e-9)), place - 1))]
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    if distribution.single():
        return value
    if isinstance(distribution, IntDistribution):
        less = at_share(distribution, _less(share_of(distribution, float(value)), times, rng))
        return fit(distribution, min(less, value - distribution.step))
    return fit(distribution, at_share(distribution, rng.uniform())) if times > 2 else value


def is_smallest(distribution: BaseDistribution, value: Any) -> bool:
    """Whether `retreat` has nothing else to try at once: the smallest size, the only word, a number that is no size.

    >>> [is_smallest(CategoricalDistribution([32, 64]), size) for size in (32, 64)]
    [True, False]
    """
    if isinstance(distribution, CategoricalDistribution) and bounds_of(distribution) is None:
        return len(distribution.choices) == 1
    bounds = bounds_of(distribution)
    assert bounds is not None
    return isinstance(distribution, FloatDistribution) or number_of(value) <= bounds.low


def _less(share: float, times: int, rng: np.random.Generator) -> float:
    return float(share * 2.0 ** -(times + rng.uniform(-0.5, 0.5)))


def draw(name: str, distribution: BaseDistribution, rng: np.random.Generator, role: Role | None = None) -> Any:
    """Return any value of a distribution, each as likely; rates, decays and batch sizes by their exponents."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[int(rng.integers(len(distribution.choices)))]
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    half = (distribution.step or 0) / 2  # a value at the end is as likely as one between
    low, high = distribution.low - half, distribution.high + half
    by_exponent = role in ("lr", "weight_decay", "batch_size") and spelling(role, name, distribution) == PLAIN
    if low > 0 and (distribution.log or by_exponent):
        return fit(distribution, math.exp(rng.uniform(math.log(low), math.log(high))))
    return fit(distribution, rng.uniform(low, high))
