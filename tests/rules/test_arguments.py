import math

import numpy as np
import pytest

from optuna_discipline.rules.arguments import check_type
from optuna_discipline.rules.arguments import is_count
from optuna_discipline.rules.arguments import is_number


def test_numbers_are_numbers_and_nothing_else_is() -> None:
    assert all(is_number(value) for value in (0, 1.5, math.nan, math.inf, np.float32(1), np.int64(2)))
    assert not any(is_number(value) for value in (True, "1", None, [1], 1j))


def test_counts_are_integers_from_one_on() -> None:
    assert is_count(1)
    assert not any(is_count(value) for value in (0, -1, 1.0, True, "1", None))


def test_another_type_is_named() -> None:
    check_type("curve", 1, int)
    with pytest.raises(TypeError, match="`curve` must be a int, but got str: 'x'"):
        check_type("curve", "x", int)
