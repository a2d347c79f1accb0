import csv
import gzip
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optuna_discipline import RangeTest
from optuna_discipline import rank_by_range_test

ROOT = Path(os.environ.get("OPTUNA_DISCIPLINE_DATA", "no data"))
PANELS = ROOT / "smith" / "paper_figures_digitised.csv.gz"
# what the paper's text names as the best of the panel
CHOICES = {"4a": "WD=4e-3", "7a": "Mom=0.9", "9a": "WD=3.2e-3", "11b": "WD=1e-4", "12a": "WD=3e-3", "13a": "WD=1e-4"}
LOSSES = st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=30)


def _test(losses: Any, low: float = 1e-3, high: float = 1.0) -> RangeTest:
    return RangeTest(np.geomspace(low, high, len(losses)), np.array(losses, dtype=float), None, "end of range")


@pytest.mark.skipif(not PANELS.is_file(), reason="the digitised figures are not in OPTUNA_DISCIPLINE_DATA/smith")
@pytest.mark.parametrize(("figure", "best"), CHOICES.items())
def test_the_papers_panels_give_the_papers_choices(figure: str, best: str) -> None:
    curves: dict[str, list[tuple[float, float]]] = {}
    with gzip.open(PANELS, "rt", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["figure"] == figure and row["y_quantity"] == "test_loss":
                curves.setdefault(row["curve"], []).append((float(row["x"]), float(row["y"])))
    tests = {}
    for name, points in curves.items():
        xs, ys = (np.array(column) for column in zip(*sorted(points), strict=True))
        tests[name] = RangeTest(xs, ys, None, "end of range")
    assert rank_by_range_test(tests)[0] == best


def test_the_smallest_loss_wins_and_a_tie_goes_to_the_one_that_bears_larger_rates() -> None:
    valley = np.abs(np.linspace(-1, 1, 40))
    tests = {"low": _test(1 + valley), "high": _test(2 + valley)}
    assert rank_by_range_test(tests) == ["low", "high"]
    steep = np.where(np.linspace(-1, 1, 40) > 0, 3 * valley, valley)
    assert rank_by_range_test({"steep": _test(1 + steep), "flat": _test(1.004 + valley)}) == ["flat", "steep"]


@pytest.mark.parametrize("shift", [0.0, 5.0])
def test_tied_losses_are_all_compared_in_the_log_or_none_is(shift: float) -> None:
    left = np.concatenate([np.linspace(2.0, -1.0, 10), [-1.0] * 2, [0.05] * 18])  # all positive above, below log 1
    stayed = np.concatenate([np.linspace(2.0, -0.9, 16), [-1.005] * 3, [-0.3] * 11])
    assert rank_by_range_test({"left": _test(left + shift), "stayed": _test(stayed + shift)}) == ["stayed", "left"]


def test_equals_are_ranked_alike_in_whatever_order_they_are_given() -> None:
    left = _test(np.concatenate([np.linspace(2.0, 0.0, 10), [0.0] * 2, [0.05] * 18]))  # error rates that reach 0
    stayed = _test(np.concatenate([np.linspace(2.0, 0.1, 16), [0.0] * 3, [0.001] * 11]))
    for tests in ({"left": left, "stayed": stayed}, {"stayed": stayed, "left": left}):
        assert rank_by_range_test(tests) == ["stayed", "left"]


def test_one_lucky_batch_does_not_win() -> None:
    valley = 1 + np.abs(np.linspace(-1, 1, 40))
    lucky = np.where(np.arange(40) == 5, 0.5, valley + 0.1)
    assert rank_by_range_test({"lucky": _test(lucky), "lower": _test(valley)}) == ["lower", "lucky"]


def test_a_curve_that_blew_up_counts_with_the_largest_loss() -> None:
    valley = 1 + np.abs(np.linspace(-1, 1, 40))
    broken = np.where(np.arange(40) > 25, math.nan, valley)
    assert rank_by_range_test({"broken": _test(broken), "whole": _test(valley + 0.001)}) == ["whole", "broken"]
    assert rank_by_range_test({"a": _test([math.nan] * 5), "b": _test([1.0] * 5)}) == ["b", "a"]


@given(st.dictionaries(st.integers(0, 5), LOSSES, min_size=1, max_size=4))
def test_any_curves_are_ranked_and_none_is_lost(losses: dict[int, list[float]]) -> None:
    order = rank_by_range_test({name: _test(values) for name, values in losses.items()})
    assert sorted(order) == sorted(losses)


@given(st.lists(st.lists(st.floats(0.1, 10), min_size=12, max_size=12), min_size=2, max_size=4), st.integers(-8, 8))
def test_scaling_all_losses_changes_nothing(losses: list[list[float]], power: int) -> None:
    one = rank_by_range_test({i: _test(values) for i, values in enumerate(losses)})
    other = rank_by_range_test({i: _test([x * 2.0**power for x in values]) for i, values in enumerate(losses)})
    assert one == other


def test_a_validation_loss_is_not_ranked_against_a_training_loss() -> None:
    losses = np.linspace(2.0, 1.0, 20)
    val = RangeTest(np.geomspace(1e-3, 1, 20), losses, losses, "end of range")
    with pytest.raises(ValueError, match=r"must have validation losses, all or none.* none of \['b'\]: run these with"):
        rank_by_range_test({"a": val, "b": _test(losses)})


def test_one_that_broke_before_its_first_evaluation_comes_last() -> None:
    lrs, losses = np.geomspace(1e-3, 1, 20), np.linspace(2.0, 1.0, 20)
    whole = RangeTest(lrs, losses, np.where(np.arange(20) % 4 == 3, losses, math.nan), "end of range")
    broke = RangeTest(lrs[:3], [0.1, 0.1, math.nan], [math.nan] * 3, "non-finite loss")
    empty = RangeTest([], [], [], "diverged")
    for tests in ({"broke": broke, "whole": whole, "empty": empty}, {"whole": whole, "broke": broke, "empty": empty}):
        assert rank_by_range_test(tests) == ["whole", "broke", "empty"]
    never = RangeTest(lrs, losses + 1, np.full(20, math.nan), "end of range")  # no one was evaluated
    assert rank_by_range_test({"never": never, "without": _test(losses)}) == ["without", "never"]


def test_what_is_no_range_test_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one candidate"):
        rank_by_range_test({})
    with pytest.raises(TypeError, match=r"`range_tests\[0.9\]` must be a RangeTest"):
        rank_by_range_test({0.9: [1.0]})  # type: ignore[dict-item]
