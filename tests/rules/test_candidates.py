import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optuna_discipline import bisect_exponent
from optuna_discipline import epochs_at_equal_time
from optuna_discipline import momentum_candidates
from optuna_discipline import weight_decay_candidates


def test_momenta_are_the_papers_within_the_bounds() -> None:
    assert momentum_candidates() == (0.99, 0.97, 0.95, 0.9)
    assert momentum_candidates(0.9, 0.95) == (0.95, 0.9)


def test_weight_decays_are_the_papers() -> None:
    assert weight_decay_candidates(complexity="shallow") == (1e-2, 1e-3, 1e-4)
    assert weight_decay_candidates(complexity="complex") == (1e-4, 1e-5, 1e-6, 0.0)
    assert weight_decay_candidates() == (3e-4, 1e-4, 3e-5)


def test_decoupled_weight_decays_are_larger() -> None:
    assert weight_decay_candidates(complexity="moderate", optimizer="AdamW") == (0.3, 0.1, 0.03)
    assert weight_decay_candidates(optimizer="adam") == weight_decay_candidates()
    with pytest.raises(TypeError, match="`optimizer` must be a name such as 'sgd' or 'adamw', but got 3"):
        weight_decay_candidates(optimizer=3)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["n_parameters", "n_samples", "n_classes", "depth"])
@pytest.mark.parametrize("value", [0, -3, math.nan])
def test_impossible_sizes_are_named(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"`{name}` must be a number from 1 on"):
        weight_decay_candidates(**{name: value})


def _net(depth: int) -> Any:
    layers = [SimpleNamespace(ndim=2, requires_grad=True, numel=lambda: 64)] * depth
    return SimpleNamespace(parameters=lambda: layers)


def test_a_model_and_its_data_give_what_their_numbers_give() -> None:
    few, many = (np.zeros((60, 3)), np.arange(60)), (np.zeros((20_000, 3)), np.arange(20_000) % 10)
    assert weight_decay_candidates(_net(56), many) == weight_decay_candidates(depth=56, n_samples=20_000)
    assert weight_decay_candidates(_net(56), few) == weight_decay_candidates(complexity="shallow")
    assert weight_decay_candidates(_net(3), many) == weight_decay_candidates(complexity="shallow")
    assert weight_decay_candidates(_net(56), many, depth=3) == weight_decay_candidates(_net(3), many)  # given counts
    assert weight_decay_candidates(_net(8), 50_000, input_size=3_072) == weight_decay_candidates()
    assert weight_decay_candidates(_net(8), 50_000, input_size=150_528) == weight_decay_candidates(complexity="complex")
    with pytest.raises(TypeError, match="`data` must be a number, a tuple"):
        weight_decay_candidates(_net(8), object())


def test_unknown_word_and_bounds_are_refused() -> None:
    for word in ("huge", ["shallow"]):
        with pytest.raises(ValueError, match="`complexity` must be one of"):
            weight_decay_candidates(complexity=word)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`low` and `high`"):
        momentum_candidates(0.9, math.nan)


@given(st.floats(1e-300, 1e300), st.floats(1e-300, 1e300))
def test_bisection_halves_the_exponent(low: float, high: float) -> None:
    middle = bisect_exponent(low, high)
    assert math.log(middle) == pytest.approx((math.log(low) + math.log(high)) / 2, abs=1e-9)


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_bisection_needs_positive_numbers(value: float) -> None:
    with pytest.raises(ValueError, match="`high` must be a positive finite number"):
        bisect_exponent(1.0, value)


def test_epochs_at_equal_time_follow_the_pace() -> None:
    assert epochs_at_equal_time(10, 1.0, 2.0) == 5
    assert epochs_at_equal_time(1, 1.0, 100.0) == 1
    with pytest.raises(ValueError, match="`candidate_seconds_per_epoch`"):
        epochs_at_equal_time(10, 1.0, 0.0)
    with pytest.raises(ValueError, match="`epochs` must be a positive finite number"):
        epochs_at_equal_time(10**400, 1.0, 1.0)
    with pytest.raises(ValueError, match="`candidate_seconds_per_epoch` must not be so far below `seconds_per_epoch`"):
        epochs_at_equal_time(3, 1e308, 0.5)


def test_epochs_at_equal_time_are_the_nearest_whole_number_of_any_kind_of_number() -> None:
    assert [epochs_at_equal_time(3, 1.0, pace) for pace in (1.8, 2.0, 2.2)] == [2, 2, 1]
    assert epochs_at_equal_time(3, np.array(1.0), np.float32(2.0)) == 2  # type: ignore[arg-type]
