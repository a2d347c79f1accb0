import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optuna_discipline import bisect_exponent
from optuna_discipline import complexity_of
from optuna_discipline import epochs_at_equal_time
from optuna_discipline import momentum_candidates
from optuna_discipline import weight_decay_candidates


class _Parameter:
    def __init__(self, *shape: int, requires_grad: bool = True) -> None:
        self.ndim = len(shape)
        self.requires_grad = requires_grad
        self._count = math.prod(shape)

    def numel(self) -> int:
        return self._count


class _Model:
    def __init__(self, *parameters: _Parameter) -> None:
        self._parameters = parameters

    def parameters(self) -> Any:
        return iter(self._parameters)


def _net(depth: int) -> _Model:
    return _Model(*(p for _ in range(depth) for p in (_Parameter(64, 64), _Parameter(64))))


def test_momenta_are_the_papers_within_the_bounds() -> None:
    assert momentum_candidates() == (0.99, 0.97, 0.95, 0.9)
    assert momentum_candidates(0.9, 0.95) == (0.95, 0.9)


def test_weight_decays_are_the_papers() -> None:
    assert weight_decay_candidates(complexity="shallow") == (1e-2, 1e-3, 1e-4)
    assert weight_decay_candidates(complexity="complex") == (1e-4, 1e-5, 1e-6, 0.0)
    assert weight_decay_candidates() == (3e-4, 1e-4, 3e-5)


@pytest.mark.parametrize(
    ("depth", "n_samples", "n_classes", "expected"),
    [
        (3, 1_000, 10, "shallow"),  # a small net on digits
        (5, 50_000, 10, "shallow"),  # the paper's 3 convolutions on CIFAR-10
        (10, 50_000, 10, "moderate"),
        (56, 50_000, 10, "complex"),  # resnet-56 on CIFAR-10
        (50, 1_281_167, 1000, "complex"),  # resnet-50 on ImageNet
        (5, 1_281_167, 1000, "moderate"),
    ],
)
def test_complexity_follows_depth_and_data(depth: int, n_samples: int, n_classes: int, expected: str) -> None:
    assert complexity_of(_net(depth), n_samples, n_classes) == expected


def test_frozen_parameters_do_not_count() -> None:
    frozen = [_Parameter(9, 9, requires_grad=False)] * 60
    assert complexity_of(_Model(*frozen, _Parameter(9, 9)), 100, 10) == "shallow"
    with pytest.raises(ValueError, match="`model` must have trainable parameters"):
        complexity_of(_Model(*frozen), 100, 10)


def test_complexity_of_something_else_is_refused() -> None:
    with pytest.raises(TypeError, match="`model` must be a torch module"):
        complexity_of("resnet", 100, 10)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`n_samples` must be a number from 1 on"):
        complexity_of(_net(3), 0, 10)


@pytest.mark.parametrize("name", ["n_parameters", "n_samples", "n_classes", "depth"])
@pytest.mark.parametrize("value", [0, -3, math.nan])
def test_impossible_sizes_are_named(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"`{name}` must be a number from 1 on"):
        weight_decay_candidates(**{name: value})


def test_unknown_word_and_bounds_are_refused() -> None:
    with pytest.raises(ValueError, match="`complexity` must be one of"):
        weight_decay_candidates(complexity="huge")  # type: ignore[arg-type]
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
