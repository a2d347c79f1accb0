import math

import pytest

from optuna_discipline import Run
from optuna_discipline.rules.model_box import box_around
from optuna_discipline.rules.space import Bounds
from optuna_discipline.rules.space import Role

VALUES: dict[Role, float] = {"lr": 0.2, "momentum": 0.95, "weight_decay": 1e-4, "epochs": 16}
FALLS, CLIMBS, BUMPS = (2.0, 1.0, 0.5, 0.3), (2.0, 1.0, 1.5, 0.3), (2.0, 1.0, 1.05, 0.3)
JUMPS, STEADY = (0.8, 0.4, 0.5, 0.3, 0.28, 0.37, 0.25, 0.3), (0.8, 0.5, 0.53, 0.35, 0.34, 0.3)


def _lr_box(
    reports: tuple[float, ...], others: dict[float, float], decay: float = 1e-3, limits: Bounds | None = None
) -> tuple[float, float]:
    """Return the learning rates around a best run of these reports, beside others by their rate and loss."""
    best = Run(0, "complete", VALUES, 0.3, reports=reports)
    params = [{**VALUES, "weight_decay": decay, "lr": lr} for lr in others]
    rest = [Run(i, "complete", p, loss) for i, (p, loss) in enumerate(zip(params, others.values(), strict=True), 1)]
    return box_around(VALUES, best, [best, *rest], limits=limits)["lr"]


@pytest.mark.parametrize(
    ("reports", "others", "low", "high"),
    [
        ((), {0.1: 0.5, 0.7: 0.6, 0.9: math.inf}, 0.2 / 8, 0.7),  # above it nothing has trained
        (BUMPS, {0.1: 0.5, 0.21: 0.6}, 0.2 / 8, 0.3),  # a little above is no end
        ((), {0.1: 0.5, 0.4: math.inf}, 0.2 / 8, 0.6),  # the best is the largest that trained: a step of the ladder
        (BUMPS, {0.1: 0.5, 0.4: math.inf}, 0.2 / 8, 0.3),  # and where its curve says nothing half again
        (JUMPS, {0.1: 0.5, 0.21: 0.6}, 0.2 / 8, 0.6),  # an error hides on which side the better rate is
        (STEADY, {0.1: 0.5, 0.21: 0.6}, 0.2 / 8, 0.6),
        ((), {5.0: 0.6}, 0.2 / 8, 1.2),  # never far from the best
        (FALLS, {0.4: 0.6}, 0.2, 0.4),
        (CLIMBS, {0.4: 0.6}, 0.2 / 8, 0.2),
    ],
)
def test_the_model_goes_neither_where_the_best_curve_says_no_nor_above_all_that_trained(
    reports: tuple[float, ...], others: dict[float, float], low: float, high: float
) -> None:
    assert _lr_box(reports, others) == pytest.approx((low, high))


def test_momentum_has_its_box_in_what_is_left_of_one() -> None:
    assert box_around(VALUES, None, [])["momentum"] == pytest.approx((0.7, 1 - 0.05 / 6))
    assert box_around({"momentum": 0.5}, None, [])["momentum"] == pytest.approx((0.0, 1 - 0.5 / 6))


def test_in_the_stage_of_another_role_the_learning_rate_stays_near() -> None:
    others = [Run(i, "complete", {**VALUES, "lr": lr}, 0.3 + lr) for i, lr in enumerate((0.2, 0.9))]
    assert box_around(VALUES, others[0], others, near=True)["lr"] == pytest.approx((0.1, 0.4))
    assert box_around(VALUES, None, [], near=True)["weight_decay"] == box_around(VALUES, None, [])["weight_decay"]


def test_a_batch_size_moves_by_a_factor_of_four_and_a_weight_decay_farther_down_than_up() -> None:
    box = box_around({**VALUES, "batch_size": 32.0}, None, [])
    assert box["batch_size"] == (8.0, 128.0)
    assert box["weight_decay"] == pytest.approx((1e-4 / 300, 3e-3))


@pytest.mark.parametrize(
    ("reports", "high", "up"),
    [
        ((1.0, 0.5, 0.4, 0.39, 0.39, 0.39, 0.39, 0.39), 1e-1, True),  # it stands
        ((1.0, 0.5, 0.4, 0.45, 0.5, 0.6, 0.6, 0.7), 1e-1, True),  # it has learnt its data by heart
        ((1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3), 1e-1, False),  # it still learns
        ((1.0, 0.5, 0.4, 0.39, 0.39, 0.39, 0.39, 0.39), 3e-4, False),  # no room above
        ((), 1e-1, False),
        ((0.5, math.nan, 0.5, 0.5, 0.5), 1e-1, False),
    ],
)
def test_the_first_look_at_the_weight_decay_goes_up_from_a_run_that_has_learned_what_it_can(
    reports: tuple[float, ...], high: float, up: bool
) -> None:
    best = Run(0, "complete", VALUES, 0.3, reports=reports)
    usual = pytest.approx((1e-4 / 300, 3e-3))
    found = box_around(VALUES, best, [best], decays=Bounds(1e-7, high))["weight_decay"]
    assert found == (pytest.approx((1e-4, 1e-3)) if up else usual)
    assert box_around(VALUES, best, [best])["weight_decay"] == usual


def test_a_role_without_a_positive_value_has_no_box() -> None:
    assert box_around({"weight_decay": 0.0, "momentum": 0.0}, None, []) == {}


@pytest.mark.parametrize(
    ("reports", "others", "low", "high"),
    [
        (FALLS, {0.4: 0.5, 0.5: 0.6, 0.6: 0.9}, 0.2 / 8, 0.6),  # all of three above were worse
        (FALLS, {0.4: 0.5, 0.5: 0.6, 0.8: 0.9}, 0.2, 0.8),  # one of them far above
        (FALLS, {0.4: 0.5, 0.5: 0.6, 0.8: math.inf}, 0.2, 0.5),  # of two that trained
        (CLIMBS, {0.1: 0.5, 0.09: 0.6, 0.08: 0.9, 0.5: 0.6}, 0.2 / 8, 0.5),
        (CLIMBS, {0.1: 0.5, 0.05: 0.6, 0.03: 0.9, 0.5: 0.6}, 0.2 / 8, 0.2),
        (CLIMBS, {0.1: 0.5, 0.05: 0.6, 0.5: 0.6}, 0.2 / 8, 0.2),
        (CLIMBS, {0.1: 0.5, 0.2: 0.3, 0.1999: 0.3, 0.5: 0.6}, 0.2 / 8, 0.5),  # as good at its own rate
        (CLIMBS, {0.1: 0.5, 0.2: 0.4, 0.1999: 0.4, 0.5: 0.6}, 0.2 / 8, 0.2),  # worse there: by another parameter
        (FALLS, {0.8: 0.5, 0.2: 0.3, 0.20001: 0.3}, 0.2 / 8, 0.8),
    ],
)
def test_a_side_that_the_best_curve_closes_opens_again(
    reports: tuple[float, ...], others: dict[float, float], low: float, high: float
) -> None:
    assert _lr_box(reports, others) == pytest.approx((low, high))


@pytest.mark.parametrize(("lr", "loss", "low", "high"), [(0.4, 0.31, 0.025, 0.4), (0.4, 0.301, 0.2, 0.4)])
def test_a_clearly_worse_run_that_is_alike_but_for_its_rate_speaks_against_what_the_best_curve_says(
    lr: float, loss: float, low: float, high: float
) -> None:
    assert _lr_box(FALLS, {lr: loss}, decay=1e-4) == pytest.approx((low, high))
    assert _lr_box(FALLS, {lr: loss}, decay=1e-3) == pytest.approx((0.2, high))


@pytest.mark.parametrize(("reports", "low"), [((0.5, 0.3, 0.25), 0.2), ((0.5031, 0.3, 0.25), 0.025)])
def test_the_reports_of_a_worse_run_tell_whether_its_error_is_worse_by_luck(
    reports: tuple[float, ...], low: float
) -> None:
    best = Run(0, "complete", VALUES, 0.2, reports=(0.5, 0.25, 0.2))
    above = Run(1, "complete", {**VALUES, "lr": 0.4}, 0.25, reports=reports)
    assert box_around(VALUES, best, [best, above])["lr"] == pytest.approx((low, 0.4))


def test_at_the_end_of_its_bounds_the_learning_rate_may_go_back() -> None:
    assert _lr_box(FALLS, {0.1: 0.6}, limits=Bounds(1e-5, 0.2)) == pytest.approx((0.2 / 8, 0.2))
    assert _lr_box(CLIMBS, {0.4: 0.6}, limits=Bounds(0.2, 1.0)) == pytest.approx((0.2, 0.4))
    assert _lr_box(FALLS, {0.1: 0.6}, limits=Bounds(1e-5, 0.1)) == pytest.approx((0.2, 0.3))  # narrowed since


def test_a_best_run_without_a_learning_rate_closes_no_side() -> None:
    best = Run(0, "complete", {}, 0.3, reports=FALLS)
    assert box_around(VALUES, best, [best])["lr"] == pytest.approx((0.2 / 8, 1.2))


def test_runs_from_before_there_was_a_learning_rate_say_nothing_of_it() -> None:
    best = Run(0, "complete", VALUES, 0.3, reports=FALLS)
    before = Run(1, "complete", {role: x for role, x in VALUES.items() if role != "lr"}, 0.9)
    above = Run(2, "complete", {**VALUES, "lr": 0.4, "weight_decay": 1e-3}, 0.6)
    assert box_around(VALUES, best, [best, before, above])["lr"] == pytest.approx((0.2, 0.4))
