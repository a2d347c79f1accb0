import math
from collections import Counter
from statistics import median
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution

from optuna_discipline import parameters
from optuna_discipline.retreat import draw
from optuna_discipline.retreat import is_smallest
from optuna_discipline.retreat import retreat
from optuna_discipline.rules.space import Role

WIDTH, WORDS = IntDistribution(16, 1024, log=True), CategoricalDistribution(["glu", "relu", "gelu"])
SIZES, SHARE = CategoricalDistribution([256, 32, 64, 128]), FloatDistribution(0.0, 1.0)
MIXED = CategoricalDistribution([None, True, "small"])
ANY_DISTRIBUTION = st.sampled_from(
    [
        WIDTH,
        WORDS,
        SIZES,
        SHARE,
        FloatDistribution(0.1, 0.6, step=0.25),
        FloatDistribution(1e-5, 10.0, log=True),
        FloatDistribution(2.0, 2.0),
        IntDistribution(0, 98, step=7),
        IntDistribution(-3, 3),
        MIXED,
    ]
)


@given(d=ANY_DISTRIBUTION, times=st.integers(1, 9), seed=st.integers(0, 99))
def test_a_retreat_is_allowed_and_no_size_grows_by_it(d: BaseDistribution, times: int, seed: int) -> None:
    start = parameters.start_of("width", d)
    other = retreat(d, start, times, np.random.default_rng(seed))
    assert parameters.allows(d, other)
    if isinstance(d, IntDistribution):
        assert other <= start
    if not isinstance(d, FloatDistribution) and d not in (WORDS, MIXED):
        assert (other == start) is is_smallest(d, start)


def test_a_retreat_makes_sizes_smaller_draws_words_and_leaves_roles() -> None:
    rng = np.random.default_rng(0)
    assert [retreat(WIDTH, 362, times, rng) < limit for times, limit in ((1, 160), (3, 40))] == [True, True]
    assert {retreat(WORDS, "glu", 1, rng) for _ in range(50)} == {"glu", "relu", "gelu"}
    assert {retreat(WORDS, "glu", 1, rng, tried=["glu", "gelu"]) for _ in range(50)} == {"relu"}
    assert {retreat(WORDS, "glu", 1, rng, tried=["glu", "gelu", "relu"]) for _ in range(50)} == {"glu", "relu", "gelu"}
    assert {retreat(SIZES, 256, 1, rng, "batch_size") for _ in range(50)} <= {64, 128}
    spelt_twice = CategoricalDistribution(["8", "8.0", "16", "32", "64", "128"])
    assert {retreat(spelt_twice, "8.0", 1, rng) for _ in range(50)} == {"8"}
    assert retreat(SHARE, 0.5, 2, rng) == 0.5
    assert retreat(SHARE, 0.5, 3, rng) != 0.5
    assert retreat(SHARE, 0.5, 9, rng, "momentum") == 0.5


@given(d=ANY_DISTRIBUTION, role=st.sampled_from([None, "lr", "batch_size"]), seed=st.integers(0, 99))
def test_whatever_is_drawn_is_allowed(d: BaseDistribution, role: Role | None, seed: int) -> None:
    assert parameters.allows(d, draw("x", d, np.random.default_rng(seed), role))


@pytest.mark.parametrize(
    ("distribution", "role", "middle"),
    [
        (FloatDistribution(1e-5, 10.0, log=True), None, 1e-2),
        (FloatDistribution(1e-5, 10.0), "lr", 1e-2),
        (FloatDistribution(0.0, 10.0), "lr", 5.0),
        (IntDistribution(8, 2048), "batch_size", 128),
        (IntDistribution(8, 2048), None, 1028),
        (WIDTH, None, 128),
    ],
)
def test_a_draw_is_even_over_the_box_in_logs_for_rates_and_batches(
    distribution: Any, role: Role | None, middle: float
) -> None:
    rng = np.random.default_rng(0)
    drawn = [draw("x", distribution, rng, role) for _ in range(2000)]
    assert min(drawn) < parameters.at_share(distribution, 0.01) + 1
    assert max(drawn) > parameters.at_share(distribution, 0.95)
    assert median(drawn) == pytest.approx(middle, rel=0.4)


def test_a_rate_given_as_its_exponent_is_drawn_by_it() -> None:
    rng = np.random.default_rng(0)
    drawn = [draw("log_lr", FloatDistribution(-5.0, -1.0), rng, "lr") for _ in range(1000)]
    assert median(drawn) == pytest.approx(-3.0, abs=0.3)
    assert all(math.isfinite(x) for x in drawn)


@pytest.mark.parametrize("d", [IntDistribution(1, 4), FloatDistribution(0.0, 0.3, step=0.1), SIZES])
def test_each_of_few_values_is_drawn_as_often(d: BaseDistribution) -> None:
    rng = np.random.default_rng(0)
    counts = Counter(draw("x", d, rng) for _ in range(2000))
    assert len(counts) == 4
    assert all(400 < n < 600 for n in counts.values())
