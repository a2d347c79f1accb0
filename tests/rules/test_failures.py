import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optuna_discipline.rules.failures import ENOUGH_IN_VAIN
from optuna_discipline.rules.failures import all_in_vain
from optuna_discipline.rules.failures import drawn_first
from optuna_discipline.rules.failures import failed_at_once
from optuna_discipline.rules.failures import failures_so_far
from optuna_discipline.rules.failures import since_the_first_training
from optuna_discipline.rules.failures import those_that_fit
from optuna_discipline.rules.failures import what_none_did
from optuna_discipline.rules.failures import without_placeholders
from optuna_discipline.rules.run import Run
from optuna_discipline.rules.run import RunState


def run(number: int, state: RunState = "failed", **more: Any) -> Run:
    return Run(number, state, {"lr": 0.1}, **{"others": {"width": 64}, **more})


GOOD = run(2, "complete", loss=0.5, seconds=10.0)


@pytest.mark.parametrize(
    ("ended", "counts"),
    [(run(0), 1), (run(0, "pruned"), 2), *((run(0, "complete", loss=loss), 2) for loss in (math.inf, math.nan))],
    ids=["raised", "pruned", "infinite", "no number"],
)
def test_what_has_shown_nothing_of_a_training_has_failed(ended: Run, counts: int) -> None:
    assert not ended.trained
    assert failures_so_far([ended, run(1, "running")]) == counts  # only what raised may go well the second time
    assert failures_so_far([ended, GOOD]) == 0
    assert since_the_first_training([ended]) == []
    assert since_the_first_training([ended, GOOD, run(3)]) == [GOOD, run(3)]
    failed = [ended, run(1), run(2)]
    assert since_the_first_training(failed[:1]) == []
    assert since_the_first_training(failed) == failed  # the rate may be to blame


def test_where_a_constraint_is_broken_only_what_held_within_them_ends_the_retreat() -> None:
    barred, broke = run(0, "complete", loss=math.inf, allowed=False), run(1, "pruned", reports=(2.3, math.nan))
    stopped = run(2, "pruned", loss=1.9, reports=(2.3, 1.9))
    assert failures_so_far([barred, broke, stopped]) == 0
    assert [those_that_fit([barred, broke, stopped]), those_that_fit([broke])] == [[stopped], [broke]]
    assert [failures_so_far([barred, replace(stopped, state=state)]) for state in ("running", "failed")] == [2, 3]
    assert [failures_so_far([barred]), failures_so_far([barred, broke])] == [2, 3]
    assert [failures_so_far([broke]), failures_so_far([barred, broke, GOOD])] == [0, 0]


@pytest.mark.parametrize("runs", [[run(0)], [run(0), run(1, allowed=False)]], ids=["allowed", "one is not"])
def test_what_none_did_is_true_of_those_that_broke_no_constraint(runs: list[Run]) -> None:
    assert what_none_did(runs, "trained") == ("trained" if len(runs) == 1 else "trained within the constraints")


@pytest.mark.parametrize("others", [{}, {"dropout": 0.1}])
def test_where_nothing_can_be_made_smaller_the_learning_rate_is_to_blame_sooner(others: dict[str, float]) -> None:
    raised = [run(0, others=others), run(1, others=others)]
    pruned = [run(0, "pruned", others=others)]
    assert since_the_first_training(raised) == raised
    assert since_the_first_training(pruned) == pruned
    assert since_the_first_training(raised[:1]) == []
    with_batches = [replace(one, params={"lr": 0.1, "batch_size": 32.0}) for one in raised]
    assert since_the_first_training(with_batches) == []


@pytest.mark.parametrize(
    ("failed", "to_blame"),
    [
        (run(0, "pruned"), True),
        (run(0, "complete", loss=math.inf), True),
        (run(0, "pruned", others={"width": 512}), False),
        (replace(run(0, "pruned"), params={"lr": 0.1, "batch_size": 512.0}), False),
        (replace(run(0, "pruned"), params={"lr": 0.01}), False),  # the same went well
        (run(0), False),
        (run(0, seconds=1.0), False),  # a mistake in the code, mended since
        (run(0, seconds=9.0), True),  # it trained to the end and gave no number
    ],
)
def test_a_rate_is_to_blame_where_the_first_that_trained_differs_in_it_alone(failed: Run, to_blame: bool) -> None:
    trained = replace(run(2, "complete", loss=0.5, seconds=10.0), params={"lr": 0.01})
    assert since_the_first_training([failed, trained]) == [failed] * to_blame + [trained]


def test_a_run_that_has_reported_has_trained_however_it_ended() -> None:
    for state in ("failed", "pruned"):
        assert run(0, state, reports=(2.3,)).trained
    assert since_the_first_training([run(0, reports=(2.3,)), run(1)]) == [run(0, reports=(2.3,)), run(1)]


def test_what_failed_long_after_its_start_may_have_been_killed() -> None:
    early, late = run(3, seconds=1.0), run(4, seconds=8.0)
    assert failed_at_once([GOOD, early, late]) == {3}
    assert failed_at_once([replace(GOOD, seconds=0.1), early, late]) == {3, 4}  # too short to be timed
    assert failed_at_once([GOOD, run(3), run(4, reports=(2.3,), seconds=1.0)]) == set()  # unknown, has trained
    by_itself = [run(3, "pruned", seconds=1.0), run(4, "complete", loss=math.inf, seconds=1.0)]
    assert failed_at_once([GOOD, *by_itself]) == set()


def test_what_failed_before_any_had_trained_may_have_been_a_mistake_in_the_code() -> None:
    assert failed_at_once([run(0, seconds=1.0), run(1, seconds=1.0)]) == set()
    assert failed_at_once([run(0, seconds=1.0), GOOD]) == set()


def test_a_large_round_number_that_comes_again_without_reports_is_no_loss() -> None:
    constant = [run(0, "complete", loss=1e9), run(1, "complete", loss=1e9)]
    assert [one.loss for one in without_placeholders([*constant, GOOD])] == [math.inf, math.inf, 0.5]
    for kept in (
        [constant[0], GOOD],
        [replace(one, loss=12.0) for one in constant],  # errors, counted
        [replace(one, loss=12345.5) for one in constant],
        [replace(one, reports=(1e9,)) for one in constant],
        [constant[0], run(1, "complete", loss=2e9)],
    ):
        assert without_placeholders(kept) == kept


states = st.sampled_from(["running", "complete", "pruned", "failed"])
losses = st.none() | st.floats()
runs = st.lists(st.builds(lambda s, y, t: run(0, s, loss=y, seconds=t), states, losses, st.none() | st.floats(0, 99)))


@given(runs)
def test_whatever_came_of_the_runs_those_that_trained_stay(found: list[Run]) -> None:
    numbered = [replace(one, number=i) for i, one in enumerate(found)]
    kept = since_the_first_training(numbered)
    assert [one for one in kept if one.trained] == [one for one in numbered if one.trained]
    assert failed_at_once(numbered) <= {one.number for one in numbered if not one.trained}
    assert {one.number for one in kept} >= {one.number for one in numbered if one.state == "running"}


IN_VAIN: list[tuple[RunState, dict[str, Any]]] = [
    ("failed", {}),
    ("pruned", {}),
    ("complete", {"loss": math.inf}),
    ("failed", {"reports": (math.nan,)}),
]


@pytest.mark.parametrize(("state", "shown"), IN_VAIN, ids=["raised", "pruned", "infinite", "reported no number"])
def test_after_six_without_a_number_all_is_in_vain_however_they_ended(state: RunState, shown: dict[str, Any]) -> None:
    runs = [run(i, state, **shown) for i in range(ENOUGH_IN_VAIN)]
    assert all_in_vain(runs)
    assert all_in_vain([*runs, run(9, "running")])
    assert not all_in_vain(runs[1:])
    assert not all_in_vain([*runs[1:], run(9, "running")])
    assert not all_in_vain([*runs[1:], run(0, "pruned", reports=(2.3,))])  # that one trained
    assert not all_in_vain([])


def test_where_nothing_could_be_another_one_the_first_configuration_is_enough() -> None:
    raised = [Run(i, "failed", {"momentum": 0.9}, others={"dropout": 0.1}) for i in range(2)]
    assert [all_in_vain(raised[:1]), all_in_vain(raised)] == [False, True]
    assert all_in_vain([replace(raised[0], state="pruned")])
    assert not all_in_vain([replace(one, params={"lr": 0.1}) for one in raised])
    assert failed_at_once(raised) == {0, 1}  # nothing else is known


def test_the_first_that_ran_was_drawn_if_all_before_it_were_in_vain() -> None:
    runs = [run(i) for i in range(ENOUGH_IN_VAIN)]
    first, later = run(7, "complete", loss=0.5, slot="model"), run(8, "complete", loss=0.4, slot="model")
    assert drawn_first([later, first, *runs]) == first
    assert drawn_first([*runs[1:], first, later]) is None
    assert drawn_first([*runs, replace(first, slot="lr0:1"), later]) is None
    assert drawn_first(runs) is None
