import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optuna_discipline.rules.space import ADAM_RANGE
from optuna_discipline.rules.space import DECAY_RANGE
from optuna_discipline.rules.space import DECOUPLED_RANGE
from optuna_discipline.rules.space import SGD_RANGE
from optuna_discipline.rules.space import Bounds
from optuna_discipline.rules.space import default_of
from optuna_discipline.rules.space import searched


@given(st.floats(allow_nan=True, allow_infinity=True), st.sampled_from([(1e-5, 10.0), (0.0, 1.0), (-3.0, 2.0)]))
def test_any_wish_is_fitted_into_the_bounds(wish: float, limits: tuple[float, float]) -> None:
    for bounds in (Bounds(*limits), Bounds.of_choices([limits[0], sum(limits) / 2, limits[1]])):
        fitted = bounds.clip(wish)
        assert bounds.low <= fitted <= bounds.high
        assert bounds.choices is None or fitted in bounds.choices


def test_choices_are_near_by_ratio() -> None:
    assert Bounds.of_choices([256, 16, 64]).clip(33) == 64
    assert Bounds.of_choices([256, 16, 64]).middle() == 64
    assert Bounds.of_choices([16, 64.0, 64, 16]).choices == (16, 64)


def test_defaults_are_the_papers_within_the_bounds() -> None:
    assert default_of("momentum", Bounds(0.8, 0.99)) == 0.95
    assert default_of("momentum", Bounds(0.8, 0.9)) == 0.9
    assert default_of("weight_decay", Bounds(1e-7, 1e-1)) == 1e-4
    assert default_of("weight_decay", Bounds.of_choices([0.0, 1e-4, 1e-2])) == 1e-4
    assert default_of("epochs", Bounds(1, 16)) == 16
    assert default_of("batch_size", Bounds(16, 256)) == 32
    assert default_of("batch_size", Bounds.of_choices([64, 128, 256])) == 64
    assert default_of("lr", Bounds(1e-5, 10)) == pytest.approx(0.1)


def test_a_weight_decay_in_a_range_from_0_starts_at_a_tenth_of_it() -> None:
    assert [default_of("weight_decay", Bounds(0.0, high)) for high in (0.3, 1e-2)] == pytest.approx([0.03, 1e-3])
    assert default_of("weight_decay", Bounds(0.0, 0.3, start=0.01)) == 0.01
    assert default_of("weight_decay", Bounds(0.0, 0.0)) == 0.0


def test_a_weight_decay_that_may_exceed_what_is_coupled_starts_in_the_middle() -> None:
    assert default_of("weight_decay", Bounds(*DECOUPLED_RANGE)) == pytest.approx(0.1)
    assert default_of("weight_decay", Bounds(1e-6, 1.0)) == pytest.approx(1e-3)
    assert default_of("weight_decay", Bounds.of_choices([0.01, 0.1, 0.3])) == 0.1


def test_adamw_searches_larger_weight_decays_and_adam_does_not() -> None:
    assert searched("adamw") == (ADAM_RANGE, DECOUPLED_RANGE)
    assert searched("adam") == (ADAM_RANGE, DECAY_RANGE)
    assert searched("sgd") == (SGD_RANGE, DECAY_RANGE)


def test_a_wide_range_of_learning_rates_does_not_start_high() -> None:
    assert default_of("lr", Bounds(1e-3, 100.0)) == 0.1
    assert default_of("lr", Bounds(1.0, 100.0)) == pytest.approx(100 ** (2 / 3))
    assert default_of("lr", Bounds(1e-5, 1e-1)) == pytest.approx(10 ** (-5 + 8 / 3))


def test_a_momentum_of_a_list_is_near_by_what_is_left_of_one() -> None:
    assert default_of("momentum", Bounds.of_choices([0.0, 0.9, 0.99])) == 0.9
    assert default_of("momentum", Bounds.of_choices([0.0, 1.0])) == 0.0


def test_bounds_must_be_ordered_numbers() -> None:
    bad: list[tuple[Any, Any]] = [(2.0, 1.0), (math.nan, 1.0), (0.0, math.inf), ("a", 1)]
    for low, high in bad:
        with pytest.raises(ValueError, match=f"`low` and `high` must be finite .* but got low={low!r}, high={high!r}"):
            Bounds(low, high)
    wrong: list[list[Any]] = [[], [16, "a"], [math.nan, 1.0]]
    for choices in wrong:
        with pytest.raises(ValueError, match="`choices` must hold one finite number at least, and nothing else"):
            Bounds.of_choices(choices)
