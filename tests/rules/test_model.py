import math
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from optuna_discipline.rules import model
from optuna_discipline.rules.curve import FloatArray
from optuna_discipline.rules.gaussian_process import Coordinate
from optuna_discipline.rules.gaussian_process import GaussianProcess
from optuna_discipline.rules.model import next_point
from optuna_discipline.rules.model import warp

LR = Coordinate(-3.0, 3.0, length=2.3, bowl=0.4)
WIDTH = Coordinate(0.0, 1.0, length=0.8, step=0.25)
KIND = Coordinate(0.0, 2.0, length=0.8, choices=True)
COORDINATES = (LR, WIDTH, KIND)


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@settings(max_examples=50)
@given(
    st.lists(
        st.tuples(
            st.floats(-20, 20), st.floats(-1, 2), st.sampled_from([0.0, 1.0, 2.0]), st.floats(allow_nan=True, width=32)
        ),
        min_size=1,
        max_size=12,
    ),
    st.integers(0, 9),
)
def test_any_losses_give_a_point_within_the_bounds(rows: list[tuple[float, ...]], seed: int) -> None:
    points, losses = np.array([row[:3] for row in rows]), [row[3] for row in rows]
    lr, width, kind = next_point(COORDINATES, points, losses, _rng(seed), running=points[:1] + 0.1).tolist()
    assert -3 <= lr <= 3
    assert width in (0, 0.25, 0.5, 0.75, 1)
    assert kind in (0, 1, 2)


@pytest.mark.parametrize("seed", range(5))
def test_it_finds_a_valley_in_a_few_runs(seed: int) -> None:
    rng, points, losses = _rng(seed), [[-1.5, 0.0]], [0.1 * 9 + 0.05]
    for _ in range(8):
        point = next_point((LR, WIDTH), np.array(points), losses, rng)
        points.append(point.tolist())
        losses.append(0.1 * (point[0] - 1.5) ** 2 + 0.05 * (point[1] - 1) ** 2)
    assert min(losses) < 0.02


def test_no_run_is_repeated_where_there_is_anything_else() -> None:
    points, losses = np.array([[0.0, 0.5, 1.0], [0.1, 0.5, 1.0]]), [0.2, 0.2]
    for seed in range(20):
        chosen = next_point(COORDINATES, points, losses, _rng(seed), free=[0])
        assert np.abs(points[:, 0] - chosen[0]).min() > 0.1 * 2.3 - 1e-9
    here = (Coordinate(0.0, 0.0), Coordinate(0.5, 0.5))
    assert next_point(here, np.array([[0.0, 0.5]]), [0.2], _rng()).tolist() == [0.0, 0.5]


def test_what_is_near_a_run_is_taken_before_the_run_itself() -> None:
    narrow = (Coordinate(0.0, 0.2, step=0.05),)
    for seed in range(20):
        (chosen,) = next_point(narrow, np.array([[0.0], [0.1], [0.2]]), [0.3, 0.2, 0.4], _rng(seed))
        assert chosen in (0.05, pytest.approx(0.15))


def test_what_is_not_free_stays_at_the_best_run() -> None:
    points = np.array([[0.0, 0.5, 1.0], [1.0, 0.25, 2.0]])
    for seed in range(5):
        chosen = next_point(COORDINATES, points, [0.3, 0.2], _rng(seed), free=[0])
        assert chosen.tolist()[1:] == [0.25, 2.0]


def test_the_same_history_and_seed_give_the_same_point_and_a_scaled_loss_changes_nothing() -> None:
    points, losses = np.array([[0.0, 0.5, 1.0], [1.0, 0.25, 2.0], [-1.0, 0.5, 1.0]]), [0.3, 0.2, math.inf]
    chosen = next_point(COORDINATES, points, losses, _rng(3))
    assert next_point(COORDINATES, points, losses, _rng(3)).tolist() == chosen.tolist()
    assert next_point(COORDINATES, points, [7 * x - 50 for x in losses], _rng(3)).tolist() == chosen.tolist()


def test_workers_side_by_side_are_sent_to_different_places() -> None:
    points, losses = np.array([[0.0, 0.5], [1.0, 0.5], [-1.0, 0.5]]), [0.30, 0.25, 0.5]
    first = next_point((LR, WIDTH), points, losses, _rng(1))
    second = next_point((LR, WIDTH), points, losses, _rng(1), running=first[None])
    assert np.abs(second - first).max() > 0.05


def test_of_many_workers_some_look_near_the_best_run_and_some_far() -> None:
    points = np.array([[0.0, 0.5], [0.5, 0.5], [-0.5, 0.5], [0.0, 0.75], [0.0, 0.25]])
    losses, running = [0.25, 0.3, 0.3, 0.3, 0.3], np.array([[0.1, 0.5]])
    rates = [next_point((LR, WIDTH), points, losses, _rng(seed), running=running)[0] for seed in range(20)]
    assert sum(abs(rate) < 0.5 for rate in rates) >= 4
    assert sum(abs(rate) > 1.5 for rate in rates) >= 4


def test_the_best_rate_moves_with_the_batch_size() -> None:
    """Where a larger batch was tried with a larger rate, that rate is what is expected to suit it."""
    batch = Coordinate(-2.0, 2.0, length=2.5)
    lr = Coordinate(-3.0, 3.0, length=2.3, bowl=0.4, follows=(0, 0.7))
    points = np.array([[0.0, 0.0], [0.0, 1.0], [0.0, -1.0], [0.0, 0.1]])
    chosen = next_point((batch, lr), points, [0.2, 0.5, 0.5, 0.2], _rng(0), free=[0, 1])
    assert abs(chosen[1] - 0.7 * chosen[0]) < 0.8


@pytest.mark.parametrize("seed", range(5))
def test_a_new_word_is_tried_alone_and_every_word_soon(seed: int) -> None:
    rng, words = _rng(seed), Coordinate(0.0, 3.0, length=0.8, choices=True)
    points, losses = [[0.0, 0.5, 0.0, 0.0]], [1.0]
    for _ in range(14):
        point = next_point((LR, WIDTH, words, words), np.array(points), losses, rng).tolist()
        best = points[int(np.argmin(losses))]
        new = [j for j in (2, 3) if point[j] not in {other[j] for other in points}]
        assert not new or [j for j in range(4) if point[j] != best[j]] == new[:1]
        points.append(point)
        losses.append(0.1 * point[0] ** 2 + (point[1] - 0.5) ** 2 + 0.2 * (point[2] != 3) + 0.2 * (point[3] != 2))
    assert [len({point[j] for point in points}) for j in (2, 3)] == [4, 4]


def test_a_broken_run_is_as_bad_as_the_worst_and_no_worse() -> None:
    assert warp([math.inf, math.nan]).tolist() == [0.0, 0.0]
    assert warp([0.1, 0.1]).tolist() == [0.0, 0.0]
    values = warp([0.1, 0.2, 0.3, 1e9, math.nan])
    assert values[4] == values[3] == max(values)
    assert values[3] == warp([0.1, 0.2, 0.3, 10.0, math.nan])[3] < 3  # it says "bad here", not how bad


def test_no_point_is_promised_that_a_run_cannot_have() -> None:
    def within(points: FloatArray) -> FloatArray:
        return np.minimum(points, [0.5, 1.0])

    for seed in range(10):
        lr, _ = next_point((LR, WIDTH), np.array([[0.0, 0.5]]), [0.3], _rng(seed), within=within).tolist()
        assert lr <= 0.5


def test_the_largest_numbers_are_losses_too() -> None:
    warped = warp([1e308, -1e308, 0.0])
    assert np.isfinite(warped).all()
    assert warped[1] == 0 < warped[2] < warped[0]


def test_of_many_runs_half_tell_the_scales_the_best_among_them_and_all_the_next_point() -> None:
    rng = np.random.default_rng(0)
    coordinates = [Coordinate(-3.0, 3.0), Coordinate(-3.0, 3.0)]
    points = rng.uniform(-3, 3, (150, 2))
    chosen = next_point(coordinates, points, (points**2).sum(axis=1).tolist(), np.random.default_rng(1))
    assert np.abs(chosen).max() < 1.0
    with mock.patch.object(model, "GaussianProcess", wraps=GaussianProcess) as asked:
        next_point(coordinates, points, (points**2).sum(axis=1).tolist(), np.random.default_rng(1))
    few, every = (call.args[1] for call in asked.call_args_list)
    assert (len(few), len(every)) in {(76, 150), (77, 150)}  # 38 pairs, and the best
    assert (few == points[np.argmin((points**2).sum(axis=1))]).all(axis=1).any()
    assert (few[:4] == points[[0, 1, 4, 5]]).all()
