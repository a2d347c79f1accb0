import math

import numpy as np
import pytest

from optuna_discipline.rules.arguments import check_type
from optuna_discipline.rules.arguments import is_count
from optuna_discipline.rules.arguments import is_number
from optuna_discipline.rules.arguments import to_float
from optuna_discipline.rules.arguments import to_int


def test_numbers_are_numbers_and_nothing_else_is() -> None:
    assert all(is_number(value) for value in (0, 1.5, math.nan, math.inf, np.float32(1), np.int64(2)))
    assert not any(is_number(value) for value in (True, np.True_, "1", np.str_("1"), None, [1], 1j))


def test_what_no_float_can_hold_is_neither_number_nor_count() -> None:
    for value in (10**400, np.ones(2), np.arange(1, 3)):
        assert not is_number(value)
        assert not is_count(value)


def test_a_tensor_of_one_is_a_number_with_its_gradient_too() -> None:
    torch = pytest.importorskip("torch")
    assert to_float(torch.tensor(0.5, requires_grad=True)) == 0.5
    assert to_float(torch.ones(2)) is None
    assert to_int(torch.tensor(3)) == 3
    assert to_int(torch.tensor(3.0)) is None


def test_counts_are_integers_from_one_on() -> None:
    assert all(is_count(value) for value in (1, np.int64(1), np.array(1)))
    assert not any(is_count(value) for value in (0, -1, 1.0, np.array(1.0), True, np.True_, "1", None))


def test_another_type_is_named() -> None:
    check_type("curve", 1, int)
    with pytest.raises(TypeError, match="`curve` must be a int, but got str: 'x'"):
        check_type("curve", "x", int)
