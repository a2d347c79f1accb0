import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optuna_discipline.rules.space import Bounds
from optuna_discipline.rules.space import Role
from optuna_discipline.rules.spelling import PLAIN
from optuna_discipline.rules.spelling import Spelling
from optuna_discipline.rules.spelling import check_spelling
from optuna_discipline.rules.spelling import spelling_of

SPELLINGS = [PLAIN, Spelling(one_less=True), Spelling(base=2.0), Spelling(base=math.e), Spelling(base=10.0)]


@pytest.mark.parametrize("spelling", SPELLINGS)
@given(value=st.floats(-12, 1))
def test_what_is_read_is_written_back(spelling: Spelling, value: float) -> None:
    assert spelling.write(spelling.read(value)) == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize("spelling", SPELLINGS)
@given(ends=st.lists(st.floats(-12, 1), min_size=2, max_size=2), share=st.floats(0, 1))
def test_what_lies_between_the_bounds_is_read_between_them(spelling: Spelling, ends: list[float], share: float) -> None:
    low, high = sorted(ends)
    read = spelling.read_bounds(Bounds(low, high, start=0.9))
    number = spelling.read(min(max(low + share * (high - low), low), high))
    assert read.low - 1e-12 <= number <= read.high + 1e-12
    assert read.start == 0.9


def test_lists_are_read_in_rising_order() -> None:
    assert Spelling(one_less=True).read_bounds(Bounds.of_choices([0.25, 0.5])).choices == (0.5, 0.75)
    assert Spelling(base=2.0).read_bounds(Bounds.of_choices([4, 6])).choices == (16.0, 64.0)


def test_no_exponent_says_what_is_not_above_zero() -> None:
    assert [Spelling(base=10.0).write(x) for x in (0.0, -1.0, math.nan)] == [-math.inf] * 3


@pytest.mark.parametrize(
    ("role", "name", "low", "high", "base"),
    [
        ("lr", "log_lr", -5, -1, 10.0),
        ("lr", "log_lr", -9, -2, 10.0),
        ("lr", "log10_lr", -9.2, -2.3, 10.0),
        ("lr", "log_lr", math.log(1e-4), math.log(0.1), math.e),
        ("lr", "ln_lr", -7, -2, math.e),
        ("lr", "ln_lr", math.log(1e-5), math.log(10), math.e),
        ("lr", "x", math.log(1e-5), math.log(100), math.e),
        ("lr", "log2_lr", -12, 0, 2.0),
        ("lr", "log2_lr", math.log2(1e-5), math.log2(100), 2.0),
        ("lr", "log2_lr", -12, 7, None),
        ("lr", "neg_log10_lr", -1, 2, None),
        ("lr", "x", -4, 0, 10.0),
        ("weight_decay", "weight_decay_exp", -6, -2, 10.0),
        ("batch_size", "log2_batch_size", 4, 8, 2.0),
        ("batch_size", "batch_size_exponent", 4, 8, 2.0),
        ("batch_size", "log2_batch_size", 4, 8.5, 2.0),
        ("batch_size", "log_batch", math.log(16), math.log(512), None),
        ("batch_size", "batch_size", 4, 8, None),
        ("batch_size", "batch_size_exponent", 16, 256, None),
        ("lr", "lr", 1e-5, 1e-1, None),
        ("lr", "log_lr", -5, 40, None),
        ("epochs", "log_epochs", 1, 3, None),
        (None, "log_lr", -5, -1, None),
    ],
)
def test_exponents_are_told_by_name_and_bounds(
    role: Role | None, name: str, low: float, high: float, base: float | None
) -> None:
    assert spelling_of(role, name, Bounds(low, high)) == Spelling(base=base)


@pytest.mark.parametrize(
    ("name", "low", "high"), [("neg_log10_lr", -1, 5), ("minus_log_lr", 0, 5), ("lr_exp", 1, 5), ("x", -1, 5)]
)
def test_exponents_that_cannot_be_read_are_refused(name: str, low: float, high: float) -> None:
    with pytest.raises(
        ValueError, match=f"`roles` must give 'lr' to .* but {name!r} has it, from {low} to {high}: sug"
    ):
        check_spelling("lr", name, Bounds(low, high))


@pytest.mark.parametrize(
    ("role", "name", "low", "high"),
    [
        ("lr", "log_lr", -5, 2),
        ("lr", "log_lr", 1e-5, 1),
        ("lr", "x", 1, 5),
        ("lr", "x", 0, 0),
        ("momentum", "x", -1, 5),
    ],
)
def test_what_may_be_a_number_of_its_role_is_not_refused(role: Role, name: str, low: float, high: float) -> None:
    check_spelling(role, name, Bounds(low, high))


@pytest.mark.parametrize(
    ("name", "low", "high", "log", "expected"),
    [
        ("one_minus_beta1", 0.01, 0.5, False, True),
        ("opt_momentum", 1e-3, 1.0, True, True),
        ("momentum", 1e-3, 0.2, True, True),
        ("momentum", 0.01, 0.99, True, False),
        ("momentum", 0.1, 0.7, True, False),
        ("momentum", 0.5, 0.99, True, False),
        ("momentum", 0.0, 1.0, False, False),
    ],
)
def test_a_momentum_that_is_1_less_itself_is_told_by_name_or_scale(
    name: str, low: float, high: float, log: bool, expected: bool
) -> None:
    assert spelling_of("momentum", name, Bounds(low, high), log=log).one_less == expected
