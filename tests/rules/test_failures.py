import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optuna_discipline.rules.failures import failed_at_once
from optuna_discipline.rules.failures import failures_so_far
from optuna_discipline.rules.failures import since_the_first_training
from optuna_discipline.rules.failures import without_placeholders
from optuna_discipline.rules.run import Run
from optuna_discipline.rules.run import RunState


def run(number: int, state: RunState = "failed", **more: Any) -> Run:
    return Run(number, state, {"lr": 0.1}, **more)


GOOD = run(2, "complete", loss=0.5, seconds=10.0)


@pytest.mark.parametrize(
    "ended",
    [run(0), run(0, "pruned"), run(0, "complete", loss=math.inf), run(0, "complete", loss=math.nan)],
    ids=["raised", "pruned", "infinite", "no number"],
)
def test_what_has_shown_nothing_of_a_training_has_failed(ended: Run) -> None:
    assert not ended.trained
    assert failures_so_far([ended, run(1, "running")]) == 1
    assert failures_so_far([ended, GOOD]) == 0
    assert since_the_first_training([ended, GOOD, run(3)]) == [GOOD, run(3)]
    assert since_the_first_training([ended, run(1)]) == []
    assert since_the_first_training([ended, run(1), run(2)]) == [ended, run(1), run(2)]  # the rate may be to blame


def test_a_run_that_has_reported_has_trained_however_it_ended() -> None:
    for state in ("failed", "pruned"):
        assert run(0, state, reports=(2.3,)).trained
    assert since_the_first_training([run(0, reports=(2.3,)), run(1)]) == [run(0, reports=(2.3,)), run(1)]


def test_what_failed_long_after_its_start_may_have_been_killed() -> None:
    early, late = run(3, seconds=1.0), run(4, seconds=8.0)
    assert failed_at_once([GOOD, early, late]) == {3}
    assert failed_at_once([replace(GOOD, seconds=0.1), early, late]) == {3, 4}  # too short to be timed
    assert failed_at_once([GOOD, run(3), run(4, reports=(2.3,), seconds=1.0)]) == set()  # unknown, has trained


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
