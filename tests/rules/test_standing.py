import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optuna_discipline import EpochLog
from optuna_discipline import LossCurve
from optuna_discipline import OneCycle
from optuna_discipline.rules.curve import tail_median
from optuna_discipline.rules.standing import as_peer
from optuna_discipline.rules.standing import rank_alike
from optuna_discipline.rules.standing import running_tail_median
from optuna_discipline.rules.standing import stand

ANY = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True))


def _curve(train: Any, lr: Any = 0.1, n_classes: int | None = None, n_epochs: int | None = None) -> LossCurve:
    lrs = lr if isinstance(lr, list) else [lr] * len(train)
    logs = tuple(EpochLog(i, lrs[i], loss, None if loss is None else loss + 0.1) for i, loss in enumerate(train))
    return LossCurve(logs, n_epochs=n_epochs or max(1, len(train)), n_classes=n_classes)


@given(st.lists(st.floats(-1e100, 1e100) | st.just(math.nan), max_size=30), st.integers(1, 10))
def test_a_level_is_the_median_of_the_last_known_values(values: list[float], count: int) -> None:
    found = running_tail_median(np.array(values, dtype=float), count)
    wanted = [tail_median(values[: i + 1], count) for i in range(len(values))]
    assert found == pytest.approx(wanted, rel=1e-12, nan_ok=True)
    pair = [values, values[::-1]]
    both = running_tail_median(np.array(pair, dtype=float), count)
    alone = [running_tail_median(np.array(one, dtype=float), count) for one in pair]
    assert np.array_equal(both, np.array(alone), equal_nan=True)


@given(st.lists(st.tuples(ANY, ANY, ANY, ANY), min_size=1, max_size=30), st.booleans(), st.booleans())
def test_any_curve_can_be_read(rows: Any, maximize: bool, has_values: bool) -> None:
    curve = LossCurve(tuple(EpochLog(i, *row[:3]) for i, row in enumerate(rows)), n_epochs=10)
    own = stand(curve, values=[row[3] for row in rows] if has_values else None, maximize=maximize)
    assert len(own.scores) == len(own.train) == len(own.gap) == len(own.lr_shares) == len(curve)
    assert np.all(own.score_noise >= 0)


@pytest.mark.parametrize(
    "curve",
    [_curve([2.303] * 20, n_classes=10), _curve([1.0, *[9.0] * 19]), _curve([])],
    ids=["never learned", "diverged", "empty"],
)
def test_runs_that_say_nothing_are_no_peers(curve: LossCurve) -> None:
    assert as_peer(curve) is None


def test_a_place_lies_within_the_run_at_the_last_report_so_far() -> None:
    logs = tuple(EpochLog(epoch, 0.1, None, 1.0) for epoch in (2, 5, 5, 9))
    own = stand(LossCurve(logs, n_epochs=20))
    assert [own.index_at(epoch) for epoch in (0, 2, 4, 5, 9, 10)] == [None, 0, 0, 1, 2, None]


def test_runs_of_one_schedule_are_alike_at_any_largest_rate_and_others_are_not() -> None:
    n = 20
    shapes = {
        "1cycle": [OneCycle(1.0, n).lr(i) for i in range(n)],
        "cosine": [0.5 + 0.5 * math.cos(math.pi * i / n) for i in range(n)],
        "constant": [1.0] * n,
        "step": [1.0 if i < n / 4 else 0.1 for i in range(n)],
        "unknown": [None] * n,
    }
    place = n // 2
    for one, lrs in shapes.items():
        for other, others in shapes.items():
            scaled = [None if lr is None else 0.01 * lr for lr in others]
            like = stand(_curve([1.0] * n, lrs)).is_like(stand(_curve([1.0] * n, scaled)), place, place)
            assert like == (one == other), (one, other)


def test_a_rate_that_begins_at_0_is_known() -> None:
    of_zero, above_zero = (stand(_curve([1.0] * 3, [first, 0.5, 1.0])) for first in (0.0, 1e-6))
    assert of_zero.is_like(above_zero, 2, 2)
    assert of_zero.lr_shares[2] == (1.0, 0.0)


def test_the_metric_is_turned_and_its_best_is_known_for_losses_and_shares() -> None:
    curve = _curve([1.0, 0.5])
    assert stand(curve).best_possible == 0
    accuracy = stand(curve, values=[0.5, 0.75], maximize=True)
    assert (accuracy.best_possible, accuracy.final, accuracy.first) == (-1, -0.75, -0.5)
    percent = stand(curve, values=[50.0, 75.0], maximize=True)
    assert (percent.best_possible, percent.final) == (-100, -75)
    assert stand(curve, values=[-5.0, 75.0], maximize=True).best_possible is None
    assert stand(curve, values=[50.0, 101.0], maximize=True).best_possible is None
    assert stand(curve, values=[-3.0, -4.0]).best_possible is None


@pytest.mark.parametrize(
    ("values", "final"),
    [
        ([0.5, 0.4], 0.4),
        ([0.5, math.nan], 0.5),
        ([0.5, None], 0.5),
        ([0.5, math.inf], math.inf),
        ([None] * 2, math.inf),
    ],
)
def test_a_run_ends_where_it_was_measured_last(values: list[float | None], final: float) -> None:
    assert stand(_curve([1.0, 0.5]), values=values).final == final


def test_one_sample_is_recognised_as_the_step_of_an_accuracy_and_a_loss_has_none() -> None:
    curve = _curve([1.0] * 6)
    shares = [count / 82 for count in (40, 50, 51, 60, 61, 66)]
    assert stand(curve, values=shares, maximize=True).step == pytest.approx(1 / 82)
    assert stand(curve, values=[100 * share for share in shares], maximize=True).step == pytest.approx(100 / 82)
    assert stand(curve, values=[0.93, 0.71, 0.52, 0.43, 0.401, 0.38]).step == 0
    assert stand(curve, values=[2.6, 2.4, 2.2, 2.0, 1.8, 1.4]).step == 0  # rounded


def test_noise_is_that_of_the_last_values() -> None:
    rng = np.random.default_rng(0)
    noisy = _curve((1 + 0.1 * rng.standard_normal(200)).tolist())
    smooth = _curve(np.linspace(1.0, 0.9, 200).tolist())
    assert 0.05 < np.median(stand(noisy).score_noise) < 0.2
    assert np.median(stand(smooth).score_noise) < 0.001


def test_values_of_another_length_are_refused() -> None:
    rule = "`values` must hold one number or None for each log of `curve`, but got 2 for 1"
    with pytest.raises(ValueError, match=rule):
        stand(_curve([1.0]), values=[1.0, 2.0])


def test_two_runs_are_too_few_to_tell_whether_reports_are_of_another_metric() -> None:
    assert rank_alike([(0.2, 0.8), (0.5, 0.5)])
    assert not rank_alike([(0.2, 0.8), (0.5, 0.5), (0.4, 0.6)])
    assert rank_alike([(0.2, 0.3)] * 5)
