import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from optuna_discipline.rules.gaussian_process import Coordinate
from optuna_discipline.rules.gaussian_process import GaussianProcess
from optuna_discipline.rules.gaussian_process import features
from optuna_discipline.rules.gaussian_process import squared_distances

NUMBER = Coordinate(0.0, 1.0, length=0.8)
WORD = Coordinate(0.0, 2.0, length=0.8, choices=True)
LR = Coordinate(-3.0, 3.0, length=2.3, bowl=0.4, follows=(0, 0.5))


def _process(seed: int = 0, n: int = 20) -> GaussianProcess:
    rng = np.random.default_rng(seed)
    points = np.column_stack([rng.random(n), rng.integers(0, 3, n), rng.uniform(-3, 3, n)]).astype(float)
    values = rng.random(n)
    return GaussianProcess((NUMBER, WORD, LR), points, values, points[int(np.argmin(values))])


@settings(max_examples=20)
@given(st.lists(st.floats(-1, 1), min_size=5, max_size=5), st.integers(0, 5))
def test_the_slope_of_the_probability_is_that_of_its_differences(logs: list[float], seed: int) -> None:
    process, at = _process(seed), np.array(logs)
    _, slope = process._log_probability(at)
    for j in range(5):
        step = 1e-5 * np.eye(5)[j]
        difference = process._log_probability(at + step)[0] - process._log_probability(at - step)[0]
        assert slope[j] == pytest.approx(difference / 2e-5, rel=1e-3, abs=1e-3)


@settings(max_examples=20)
@given(st.integers(0, 1000), st.integers(1, 30))
def test_its_scales_are_more_probable_than_those_it_begins_with(seed: int, n: int) -> None:
    process = _process(seed, n)
    assert process._log_probability(process._logs)[0] >= process._log_probability(np.zeros(5))[0]


def test_what_does_not_matter_is_found_out() -> None:
    rng = np.random.default_rng(0)
    points = rng.random((25, 2))
    process = GaussianProcess((NUMBER, NUMBER), points, (points[:, 0] - 0.5) ** 2 * 8, np.array([0.5, 0.5]))
    (mattering, idle), _ = process.predict(np.array([[0.0, 0.5], [0.5, 0.0]]))
    assert mattering == pytest.approx(2.0, abs=0.2)
    assert idle == pytest.approx(0.0, abs=0.2)


def test_a_repeated_run_is_as_sure_as_the_noise_and_a_far_one_less_so() -> None:
    rng = np.random.default_rng(0)
    points, noise = rng.random((40, 1)), rng.normal(size=40)
    deviations = [
        GaussianProcess((NUMBER,), points, 2 * points[:, 0] + sd * noise, points[0]).predict(points[:1])[1][0]
        for sd in (0.01, 0.3)
    ]
    assert 3 * deviations[0] < deviations[1]
    near, far = GaussianProcess((NUMBER,), points, points[:, 0], points[0]).predict(np.array([[0.5], [3.0]]))[1]
    assert near < far / 5


def test_a_bad_word_says_nothing_of_another_one() -> None:
    """One run, bad beside its own numbers, was enough to keep a third word from ever being tried."""
    points = np.array([[0.5, 0.0], [0.4, 0.0], [0.6, 0.0], [0.5, 1.0]])
    process = GaussianProcess((NUMBER, WORD), points, np.array([0.0, 0.05, 0.05, 1.0]), points[0])
    (best, bad, unknown), (_, known, open_) = process.predict(np.array([[0.5, 0.0], [0.5, 1.0], [0.5, 2.0]]))
    assert best < unknown < bad
    assert unknown - open_ < best
    assert known < open_


def test_all_gets_worse_away_from_the_best_run_before_anything_is_known() -> None:
    number = Coordinate(0.0, 1.0, length=0.5, bowl=0.3)
    process = GaussianProcess((number,), np.array([[0.5]]), np.array([0.0]), np.array([0.5]))
    means, _ = process.predict(np.array([[0.5], [0.0], [1.0], [1.5]]))
    assert means == pytest.approx(0.3 * process.unit * np.array([0, 1, 1, 4]))


def test_the_scales_of_another_process_are_taken() -> None:
    one = _process(1)
    points = np.array([[0.1, 0.0, 1.0]])
    other = GaussianProcess((NUMBER, WORD, LR), points, np.array([0.3]), points[0], like=one)
    assert other.unit == one.unit
    assert (other._logs == one._logs).all()


@pytest.mark.parametrize("far", [1.0, 1e3])
def test_runs_in_one_place_and_far_outside_are_no_matter(far: float) -> None:
    points = np.array([[0.5, 0.0, 0.0]] * 5 + [[far, 1.0, -far]])
    mean, deviation = GaussianProcess((NUMBER, WORD, LR), points, np.arange(6.0), points[0]).predict(points)
    assert np.isfinite(mean).all()
    assert (deviation > 0).all()


def test_words_are_alike_in_all_but_their_own_effect() -> None:
    at = features((NUMBER, WORD), np.array([[0.0, 0.0], [0.0, 1.0], [0.0, 2.0], [0.4, 0.0]]))
    assert squared_distances(at, at)[0] == pytest.approx([0.0, *[(0.5 / 0.8) ** 2] * 2, 0.25])
