import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution

from optuna_discipline import parameters
from optuna_discipline.rules.space import Bounds

DISTRIBUTIONS: list[BaseDistribution] = [
    FloatDistribution(1e-5, 10, log=True),
    FloatDistribution(-1, 1),
    FloatDistribution(0.1, 0.95, step=0.05),
    IntDistribution(1, 16),
    IntDistribution(3, 15, step=4),
    IntDistribution(1, 1000, log=True),
    CategoricalDistribution([16, 64, 256]),
    CategoricalDistribution([0.1, 1, 0.01]),
]


@given(st.sampled_from(DISTRIBUTIONS), st.floats(-1e6, 1e6))
def test_any_wish_is_fitted_into_any_distribution(distribution: BaseDistribution, wish: float) -> None:
    value = parameters.fit(distribution, wish)
    assert parameters.allows(distribution, value)
    assert type(value) in (int, float)
    assert parameters.fit(distribution, value) == value


def test_fitting_takes_the_nearest() -> None:
    assert parameters.fit(IntDistribution(3, 15, step=4), 9.5) == 11
    assert parameters.fit(CategoricalDistribution([16, 64, 256]), 100) == 64
    assert parameters.fit(FloatDistribution(0.0, 1.0), 7.0) == 1.0


@pytest.mark.parametrize(
    ("distribution", "bounds"),
    [
        (FloatDistribution(0.5, 2), Bounds(0.5, 2.0)),
        (CategoricalDistribution([64, 16]), Bounds(16.0, 64.0, (16.0, 64.0))),
        (CategoricalDistribution(["a", "b"]), None),
        (CategoricalDistribution([True, False]), None),
        (CategoricalDistribution([1, None]), None),
        (CategoricalDistribution([1.0, math.inf]), None),
    ],
)
def test_bounds_are_those_of_numbers(distribution: BaseDistribution, bounds: Bounds | None) -> None:
    assert parameters.bounds_of(distribution) == bounds


@pytest.mark.parametrize("value", ["a", None, 99, math.nan])
def test_what_a_distribution_does_not_hold_is_not_allowed(value: Any) -> None:
    assert not any(parameters.allows(d, value) for d in DISTRIBUTIONS[:5])


def test_the_middle_is_in_the_exponent_of_a_log_distribution_and_the_first_of_words() -> None:
    assert parameters.middle_of(FloatDistribution(1e-4, 1, log=True)) == pytest.approx(1e-2)
    assert parameters.middle_of(FloatDistribution(0, 0.8)) == 0.4
    assert parameters.middle_of(CategoricalDistribution(["relu", "tanh"])) == "relu"


def test_roles_are_checked() -> None:
    assert parameters.check_roles({"alpha": "weight_decay"})["alpha"] == "weight_decay"
    assert parameters.check_roles(None)["lr"] == "lr"
    with pytest.raises(ValueError, match="`roles` must give one of"):
        parameters.check_roles({"alpha": "shine"})
    with pytest.raises(TypeError, match="`roles` must map names to roles"):
        parameters.check_roles({1: "lr"})  # type: ignore[dict-item]
