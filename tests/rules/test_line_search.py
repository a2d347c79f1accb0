import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optuna_discipline.rules.line_search import Axis
from optuna_discipline.rules.line_search import best_point
from optuna_discipline.rules.line_search import open_points
from optuna_discipline.rules.line_search import outer_points

LADDER = Axis((1.0,), low=1e-4, high=100.0, factor=3.0, bisect=True)


def _run(axis: Axis, loss_of: object) -> dict[float, float]:
    results: dict[float, float] = {}
    while points := open_points(axis, results):
        assert points[0] not in results
        results[points[0]] = loss_of(points[0])  # type: ignore[operator]
    return results


@given(st.floats(-3.5, 1.5), st.floats(0.2, 1.5))
def test_a_walk_ends_within_a_step_of_the_valley_without_crossing_its_bounds(valley: float, edge: float) -> None:
    def loss_of(x: float) -> float:
        return math.inf if math.log10(x) > valley + edge else (math.log10(x) - valley) ** 2

    results = _run(LADDER, loss_of)
    best = best_point(LADDER, results)
    assert all(LADDER.low * 0.999 <= x <= LADDER.high * 1.001 for x in results)
    assert len(results) <= LADDER.max_points
    if len(results) < LADDER.max_points:
        assert abs(math.log10(best) - valley) < 0.5


def test_a_ladder_over_nothing_but_divergence_walks_down() -> None:
    assert open_points(LADDER, {1.0: math.inf}) == [0.1111]
    assert open_points(LADDER, {1.0: math.inf, 3.0: math.inf}) == [0.1111]
    assert open_points(LADDER, {1.0: math.inf, 0.1111: 0.5, 0.03703: 0.7}) == [0.3333]  # the step left out
    assert best_point(LADDER, {1.0: math.inf, 3.0: math.inf, 0.3333: math.inf}) == 0.3333


def test_no_step_is_taken_to_the_side_where_nothing_better_is_expected() -> None:
    assert open_points(LADDER, {1.0: 0.5}, steps={1.0: [1 / 3]}) == [0.3333]
    assert open_points(LADDER, {1.0: 0.5, 0.3333: 0.6}, steps={1.0: [1 / 3]}) == [0.5773]
    assert open_points(LADDER, {1.0: 0.5, 3.0: math.inf}, steps={1.0: [3.0]}) == [1.732]
    assert open_points(LADDER, {1.0: 0.5, 3.0: 0.4}, steps={1.0: [3.0], 3.0: [1 / 3]}) == [1.732]
    assert open_points(LADDER, {1.0: math.inf}, steps={1.0: [3.0]}) == [0.1111]


def test_the_first_step_up_may_be_smaller_than_the_others() -> None:
    careful = Axis((1.0,), low=1e-4, high=100.0, factor=3.0, first_up=2.0, bisect=True)
    assert open_points(careful, {1.0: 0.5}) == [2.0, 0.3333]
    assert open_points(careful, {1.0: 0.5, 2.0: 0.4}) == [6.0]
    assert open_points(careful, {1.0: 0.5, 2.0: 0.4, 6.0: 0.6}) == []  # a step of 2 needs no halving
    assert open_points(careful, {1.0: 0.5, 2.0: 0.6, 0.3333: 0.6}) == []


def test_candidates_come_first_and_the_default_first_of_all() -> None:
    axis = Axis((1e-4, 3e-4, 3e-5), 1e-7, 1e-1, factor=10.0, bisect=True)
    assert open_points(axis, {}) == [1e-4, 3e-4, 3e-5]
    assert open_points(axis, {1e-4: 0.5, 3e-4: 0.4, 3e-5: 0.6}) == [3e-3]
    assert open_points(axis, {1e-4: 0.5, 3e-4: 0.4, 3e-5: 0.6, 3e-3: 0.7}) == [1.732e-4]


def test_a_difference_within_the_noise_keeps_the_default_and_takes_no_step() -> None:
    axis = Axis((0.95, 0.99, 0.9), 0.8, 0.99, factor=2.0)
    results = {0.95: 0.50, 0.99: 0.49, 0.9: 0.52}
    assert open_points(axis, results, noise=0.02) == []
    assert best_point(axis, results, noise=0.02) == 0.95
    assert best_point(axis, results, noise=0.005) == 0.99
    decays = Axis((1e-4, 1e-3, 1e-2), 1e-7, 1e-1, factor=10.0)  # the default is the smallest
    assert open_points(decays, {1e-4: 0.50, 1e-3: 0.55, 1e-2: 0.6}) == []
    assert open_points(decays, {1e-4: 0.50, 1e-3: 0.55, 1e-2: 0.49}, noise=0.02) == []
    assert open_points(decays, dict.fromkeys((1e-4, 1e-3, 1e-2), math.inf)) == []


def test_zero_is_a_candidate_that_is_neither_bisected_nor_passed() -> None:
    axis = Axis((1e-4, 1e-5, 0.0), 0.0, 1e-1, factor=10.0, bisect=True)
    assert open_points(axis, {1e-4: 0.5, 1e-5: 0.4, 0.0: 0.3}) == []


def test_idle_workers_get_the_next_steps_outwards() -> None:
    assert outer_points(LADDER, {1.0: 0.5}, 2) == [0.3333, 3.0, 0.1111, 9.0]
    assert outer_points(Axis((1.0,), low=0.5, high=1.0, factor=3.0), {}, 2) == []


def test_the_step_beyond_ends_at_the_bound() -> None:
    axis = Axis((1.0,), low=0.5, high=1.2, factor=3.0)
    assert open_points(axis, {1.0: 0.5}) == [0.5]
    assert open_points(axis, {1.0: 0.5, 0.5: 0.4}) == []
    assert best_point(axis, {1.0: 0.5, 0.5: 0.4}) == pytest.approx(0.5)


def test_a_list_of_points_is_walked_from_one_to_the_next() -> None:
    axis = Axis((1.0,), 0.01, 10.0, factor=3.0, first_up=2.0, bisect=True, choices=(0.01, 0.1, 1.0, 10.0))
    assert open_points(axis, {1.0: 0.5}) == [10.0, 0.1]
    assert open_points(axis, {1.0: 0.5, 10.0: 0.9}) == [0.1]
    assert open_points(axis, {1.0: 0.5, 10.0: 0.9, 0.1: 0.4}) == [0.01]
    assert open_points(axis, {1.0: 0.5, 10.0: 0.9, 0.1: 0.4, 0.01: 0.8}) == []  # nothing lies between them
    assert open_points(axis, {1.0: math.inf}) == [0.1]
    assert outer_points(axis, {1.0: 0.5}, 2) == [0.1, 10.0]


@pytest.mark.parametrize(
    ("choices", "results", "steps", "wanted"),
    [
        ((1e-5, 1.0, 2.0, 3.0), {1.0: 0.5}, (1 / 3, 3.0), [3.0]),  # equal steps
        ((1e-5, 1.0, 2.0, 3.0), {1.0: 0.5, 3.0: 0.6}, (1 / 3, 3.0), []),  # 2 is left
        ((1e-5, 1.0, 3.0), {1.0: 0.5, 3.0: 0.6}, (1 / 3, 3.0), [1e-5]),  # nothing else is
        ((0.01, 1.0, 100.0), {1.0: 0.5}, (1 / 3, 3.0), [0.01, 100.0]),  # nor anything nearer
        ((1e-5, 1.0, 2.0, 3.0), {1.0: 0.5}, (1 / 9,), [1e-5]),  # far too high
        ((1e-5, 1.0, 2.0, 3.0), {1.0: math.inf}, (), [1e-5]),
        ((0.5, 1.0, 1e3), {1.0: 0.5}, (3.0,), []),
        ((0.5, 1.0, 1e3), {1.0: 0.5}, (9.0,), [1e3]),
    ],
)
def test_a_value_of_a_list_far_away_waits_for_nearer_ones_unless_a_far_one_is_wanted(
    choices: tuple[float, ...], results: dict[float, float], steps: tuple[float, ...], wanted: list[float]
) -> None:
    axis = Axis((1.0,), choices[0], choices[-1], factor=3.0, first_up=2.0, choices=choices)
    assert open_points(axis, results, steps={1.0: steps}) == wanted
