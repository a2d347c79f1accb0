import math
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optuna_discipline import Recipe
from optuna_discipline import next_params
from optuna_discipline.rules.failures import all_in_vain
from optuna_discipline.rules.failures import drawn_first
from optuna_discipline.rules.run import MODEL_SLOT
from optuna_discipline.rules.run import Run
from optuna_discipline.rules.space import Bounds
from optuna_discipline.rules.space import Role
from optuna_discipline.rules.standstill import DRAWN_AT_ONCE
from optuna_discipline.rules.standstill import FIRST
from optuna_discipline.rules.standstill import far_slot
from optuna_discipline.rules.standstill import first_to_learn
from optuna_discipline.rules.standstill import may_be_flat
from optuna_discipline.rules.standstill import stands_still
from optuna_discipline.rules.standstill import widest_gap

RATES = (0.1, 0.2, 0.03, 0.01, 0.6, 0.003)


def still(loss: float = 2.3, *, reports: tuple[float, ...] = ()) -> list[Run]:
    """Return a study whose first runs end at one loss, whatever their learning rates."""
    return [Run(i, "complete", {"lr": lr}, loss, f"lr0:{lr}", reports=reports) for i, lr in enumerate(RATES)]


def drawn(number: int, loss: float) -> Run:
    return Run(number, "complete", {"lr": 1e-4}, loss, MODEL_SLOT)


@pytest.mark.parametrize("loss", [2.3, 100.0, -0.1, -0.9])
@pytest.mark.parametrize("reports", [(), (2.3, 2.31, 2.29, 2.3), (3.2, 5.0, 7.0, 9.2)])
def test_runs_that_learned_as_little_at_all_rates_stand_still(loss: float, reports: tuple[float, ...]) -> None:
    runs = still(loss, reports=reports)
    assert stands_still(runs)
    assert all_in_vain(runs)
    assert not stands_still(runs[:-1])


@pytest.mark.parametrize(
    "unlike",
    [
        {"loss": 1.9},
        {"reports": (2.3, 2.0, 1.7, 1.5)},
        {"params": {}},
    ],
    ids=["another loss", "a curve that fell", "no rate"],
)
def test_a_run_that_learned_or_says_nothing_of_the_rate_is_enough_to_go_on(unlike: dict[str, object]) -> None:
    runs = still()
    assert not stands_still([*runs[:3], replace(runs[3], **unlike), *runs[4:]])  # type: ignore[arg-type]
    near = [replace(run, params={"lr": 0.1 * 1.2**run.number}) for run in runs]
    assert not stands_still(near)


def test_who_broke_and_fell_back_to_the_level_or_ended_above_it_has_not_learned() -> None:
    runs = still(reports=(2.3, 2.31, 2.29, 2.3))
    fell_back, above = (9.0, 2.5, 2.3, 2.3), (2.3, 2.5, 2.9, 3.1)
    assert stands_still([replace(runs[0], reports=fell_back), replace(runs[1], reports=fell_back), *runs[2:]])
    assert stands_still([replace(runs[0], loss=3.1, reports=above), replace(runs[1], reports=fell_back), *runs[2:]])
    assert not stands_still([*(replace(run, reports=fell_back) for run in runs[:3]), *runs[3:]])
    assert not stands_still([*(replace(run, loss=3.1, reports=above) for run in runs[:2]), *runs[2:]])


@pytest.mark.parametrize("offset", [-1000.0, -50.0, -20.0, 0.0, 50.0])
def test_losses_that_fell_clearly_do_not_stand_still_though_all_end_alike_below_0(offset: float) -> None:
    ends = (0.32, 0.33, 0.4, 0.51, 0.38, 0.9)
    curves = [tuple(offset + end + (2.3 - end) * math.exp(-i / 2) for i in range(10)) for end in ends]
    runs = [replace(run, loss=y[-1], reports=y) for run, y in zip(still(), curves, strict=True)]
    assert not stands_still(runs)
    assert not may_be_flat([replace(run, number=i) for i, run in enumerate((*runs, *runs[:4]))])
    flat = [replace(run, reports=tuple(offset + 2.3 + 0.01 * (-1) ** i for i in range(10))) for run in runs]
    assert stands_still([replace(run, loss=run.reports[-1]) for run in flat])


def test_a_loss_that_falls_a_little_at_first_to_that_of_chance_stands_still() -> None:
    assert stands_still(still(2.302, reports=(2.34, 2.31, 2.305, 2.303, 2.302, 2.302, 2.302)))


def test_losses_that_rise_towards_lower_rates_or_are_a_tenth_apart_show_that_rates_matter() -> None:
    runs = still()
    lowest = min(runs, key=lambda run: run.params["lr"])
    worse = [replace(run, loss=2.6) if run is lowest else run for run in runs]
    assert not stands_still(worse)
    assert stands_still([replace(run, loss=2.6) if run.params["lr"] == 0.6 else run for run in runs])
    assert not stands_still([replace(run, loss=2.2 + 0.04 * i) for i, run in enumerate(runs)])


def test_it_ends_with_the_first_that_learned_and_the_search_begins_there() -> None:
    runs = [*still(), drawn(6, 2.31), drawn(7, 2.9)]
    assert stands_still(runs)
    assert first_to_learn(runs) is drawn_first(runs) is None
    found = drawn(8, 1.7)
    assert not stands_still([*runs, found])
    assert first_to_learn([*runs, found, drawn(9, 0.2)]) is found
    assert drawn_first([*runs, found, drawn(9, 0.2)]) is found
    space: dict[Role, Bounds] = {"lr": Bounds(1e-5, 10.0)}
    assert next_params(Recipe(), [*runs, found], space=space).reason.endswith("; the start is trial 8")
    assert "the start is trial" not in next_params(Recipe(), still()[:4], space=space).reason


def test_low_ground_is_kept_where_most_of_those_drawn_did_worse() -> None:
    runs = [*still(0.4), drawn(6, 0.9)]
    assert stands_still(runs)
    assert not stands_still([*runs, drawn(7, 1.1)])


def test_later_draws_take_turns_with_the_usual_search() -> None:
    runs = [*still(), *(drawn(FIRST + i, 2.3) for i in range(DRAWN_AT_ONCE))]
    assert [stands_still([*runs, *(drawn(len(runs) + i, 2.3) for i in range(n))]) for n in range(4)] == [
        True,
        False,
        True,
        False,
    ]


@given(
    rates=st.lists(st.floats(1e-7, 10), max_size=20),
    low=st.sampled_from([0.0, 1e-7, 1e-5]),
)
def test_the_widest_gap_lies_within_the_bounds_and_no_tried_rate_is_nearer_than_half_of_it(
    rates: list[float], low: float
) -> None:
    bounds = Bounds(low, 10.0)
    found = widest_gap([Run(i, "complete", {"lr": lr}) for i, lr in enumerate(rates)], bounds)
    assert bounds.low <= found <= bounds.high
    tried = sorted(bounds.clip(lr) for lr in rates if bounds.clip(lr) > 0)
    nearest = min((abs(math.log(found / lr)) for lr in tried), default=math.inf)
    gaps = [math.log(b / a) for a, b in pairwise(tried)]
    assert nearest >= max(gaps, default=0.0) / 2 - 0.01


@given(st.sets(st.floats(1e-7, 10), min_size=2, max_size=12), st.data())
def test_of_a_list_the_rate_farthest_from_all_is_a_new_one_as_long_as_there_is_one(
    choices: set[float], data: st.DataObject
) -> None:
    tried = data.draw(st.sets(st.sampled_from(sorted(choices))))
    runs = [Run(i, "complete", {"lr": lr}) for i, lr in enumerate(tried)]
    found = widest_gap(runs, Bounds.of_choices([*choices]))
    assert found in (choices - tried or {None})


def test_no_gap_of_a_list_without_a_new_rate_counts() -> None:
    runs = [Run(i, "complete", {"lr": lr}) for i, lr in enumerate((1e-6, 0.1, 0.6))]
    steps = Bounds.of_choices([1e-6, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    assert widest_gap(runs, steps) == 0.3  # 1e-6 to 0.1 is wider
    assert widest_gap(runs, steps, at_least=30.0) is None


NOISE = (0.90, 0.93, 0.88, 0.99, 0.95, 0.85, 0.91, 0.92, 0.87, 0.94)


def unlike(*far: float, reports: tuple[float, ...] = ()) -> list[Run]:
    """Return first runs of a noisy metric, and those far from all others, two apart."""
    runs = [Run(i, "complete", {"lr": 0.1 * 1.1**i}, loss, reports=reports) for i, loss in enumerate(NOISE)]
    for loss in far:
        runs += [Run(len(runs), "complete", {"lr": 1e-3}, loss, far_slot(1e-3)), Run(len(runs) + 1, "pruned", {})]
    return runs


@pytest.mark.parametrize(
    ("runs", "flat"),
    [
        (unlike(), True),
        (unlike()[:8], False),  # too few
        (unlike(0.91), True),  # one of many: still nothing shows
        (unlike(0.91, 0.84), True),
        (unlike(1.4), False),  # the rate matters
        (unlike(0.97), False),  # worse than all but one
        (unlike(0.91, 1.4), False),
        ([*unlike()[:9], Run(9, "complete", {"lr": 0.1}, 0.9, reports=(2.0, 1.5, 1.0))], False),  # a curve that fell
        ([*unlike()[:9], Run(9, "complete", {"lr": 0.1}, 0.4)], False),  # a run far better than the others
        (unlike(reports=(0.9, 0.91, 0.9)), True),
        (unlike(reports=(0.94, 0.91, 0.93, 0.9, 0.92, 0.91)), True),  # that jumps
    ],
)
def test_nothing_shows_that_rates_matter_until_one_far_away_is_worse_than_nearly_all(
    runs: list[Run], flat: bool
) -> None:
    assert may_be_flat(runs) is flat


def test_every_other_trial_only_goes_far_away() -> None:
    assert not may_be_flat([*unlike(), Run(10, "complete", {"lr": 0.1}, 0.9)])
