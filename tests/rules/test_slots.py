import math
from dataclasses import replace
from typing import Any

import pytest

from optuna_discipline import EpochLog
from optuna_discipline import LossCurve
from optuna_discipline import Run
from optuna_discipline.rules.run import RunState
from optuna_discipline.rules.slots import Slots
from optuna_discipline.rules.slots import any_learned
from optuna_discipline.rules.slots import at_equal_time
from optuna_discipline.rules.slots import example_of
from optuna_discipline.rules.slots import loss_of
from optuna_discipline.rules.slots import passed_over
from optuna_discipline.rules.slots import samples_counted
from optuna_discipline.rules.slots import seconds_per_epoch


def _run(number: int, slot: str | None, loss: float | None = None, state: str = "complete") -> Run:
    return Run(number, state, {}, loss, slot)  # type: ignore[arg-type]


def test_slots_are_found_by_stage_and_foreign_ones_passed_over() -> None:
    slots = Slots([_run(0, "momentum:0.9", 1.0), _run(1, "momentum:nonsense", 1.0), _run(2, None), _run(3, "lr0:3")])
    assert set(slots.points("momentum")) == {0.9}
    assert set(slots.points("lr0")) == {3.0}


def test_a_slot_is_worth_the_mean_of_its_runs() -> None:
    assert loss_of([_run(0, "s", 1.0), _run(1, "s", 3.0)]) == 2.0
    assert loss_of([_run(0, "s", state="running")]) is None
    assert loss_of([_run(0, "s", state="failed")]) is None
    assert loss_of([_run(0, "s", state="failed"), _run(1, "s", state="failed")]) == math.inf


def test_a_slot_is_open_until_somebody_runs_it() -> None:
    slots = Slots([_run(0, "a", state="running"), _run(1, "b", 1.0), _run(2, "c", state="failed")])
    assert [slots.is_open(slot) for slot in ("a", "b", "c", "d")] == [False, False, True, True]


def test_nothing_has_learned_when_all_losses_are_one() -> None:
    assert not any_learned([], {1.0: 2.302, 3.0: 2.303, 0.3: 2.301})
    assert any_learned([], {1.0: 2.302, 3.0: 2.303, 0.3: 1.5})
    assert any_learned([], {1.0: 2.302})  # too few to say so
    curve = LossCurve((EpochLog(0, 0.1, 2.30, 2.3), EpochLog(1, 0.1, 2.2, 2.2)), n_epochs=2, n_classes=10)
    assert not any_learned([Run(0, "complete", {}, 2.2, curve=curve)], {1.0: 2.2, 3.0: 1.0, 0.3: 0.5})


def test_the_pace_of_a_short_run_is_not_known() -> None:
    assert seconds_per_epoch(Run(0, "complete", {"epochs": 4}, seconds=5.0)) is None
    assert seconds_per_epoch(Run(0, "complete", {"epochs": 4}, seconds=80.0)) == 20.0


def test_the_example_is_the_best_and_the_first_of_equals() -> None:
    assert example_of([_run(2, "s", 1.0), _run(1, "s", 1.0), _run(0, "s", 2.0)]).number == 1


def _timed(number: int, batch: float, seconds: float, loss: float, **others: Any) -> Run:
    return Run(number, "complete", {"batch_size": batch, "epochs": 10.0}, loss, seconds=seconds, others=others)


def test_neither_a_slow_first_run_nor_other_programs_decide_between_batch_sizes() -> None:
    usual = [_timed(i, 64, 100, 0.5) for i in range(3)]
    smaller = [_timed(10 + i, 32, seconds, 0.4) for i, seconds in enumerate((900, 140, 141))]
    counted = at_equal_time([*usual, _timed(3, 64, 300, 0.5), *smaller])
    assert [run.handicap for run in counted[-3:]] == [pytest.approx(0.4 * (2.0**0.5) ** 0.25 - 0.4)] * 3
    only = at_equal_time([usual[0], smaller[0]])
    assert only[1].handicap == pytest.approx(0.4 * 2.0**0.25 - 0.4)  # twice as many updates take twice the time
    many = [_timed(i, 64, seconds, 0.5) for i, seconds in enumerate((88, 92, 95, 97, 99, 101, 103, 105, 108, 112))]
    assert at_equal_time([*many, _timed(10, 32, 112, 0.4)])[-1].handicap == 0


def test_a_smaller_batch_with_longer_epochs_has_to_be_better_by_the_fourth_root_of_their_time() -> None:
    runs = [_timed(0, 64, 100, 0.1), _timed(1, 64, 104, 0.2), _timed(2, 16, 400, 0.3), _timed(3, 64, 300, 0.4)]
    counted = at_equal_time([*runs, _timed(4, 32, 115, 0.1), _timed(5, 256, 40, 0.5)])
    assert [run.score for run in counted] == [0.1, 0.2, pytest.approx(0.3 * 4**0.25), 0.4, 0.1, 0.5]
    assert [run.loss for run in counted] == [0.1, 0.2, 0.3, 0.4, 0.1, 0.5]
    assert at_equal_time([_timed(0, 64, 2, 0.1), _timed(1, 16, 9, 0.1)])[1].handicap == 0  # too short to be timed


@pytest.mark.parametrize("seconds", [350, 400, 450])
def test_the_noise_of_a_clock_changes_nothing(seconds: float) -> None:
    assert at_equal_time([_timed(0, 64, 100, 1.0), _timed(1, 16, seconds, 1.0)])[1].handicap == 4**0.25 - 1


def test_of_an_accuracy_what_is_missing_counts_and_what_has_no_scale_only_gets_worse() -> None:
    runs = [_timed(0, 64, 100, -0.9), _timed(1, 4, 1600, -0.95)]
    assert [run.score for run in at_equal_time(runs)] == [-0.9, pytest.approx(-0.9)]
    assert at_equal_time([*runs, _timed(2, 64, 100, 0.02)])[1].score == pytest.approx(-0.9)  # a bad R2 changes no scale
    returns = at_equal_time([_timed(0, 64, 100, -700.0), _timed(1, 4, 1600, -800.0)])
    assert returns[1].score == pytest.approx(-750)
    broken = at_equal_time([_timed(0, 64, 100, 0.5), _timed(1, 16, 400, math.nan), _timed(2, 16, 400, math.inf)])
    assert [run.score for run in broken] == [0.5, math.inf, math.inf]


def test_only_whole_runs_tell_a_pace_and_plain_reports_are_their_epochs() -> None:
    def plain(number: int, state: RunState, batch: float, reports: int) -> Run:
        return Run(number, state, {"batch_size": batch}, 0.4, reports=(0.5,) * reports, seconds=10.0 * reports)

    runs = [plain(0, "complete", 64, 16), plain(1, "pruned", 64, 2), plain(2, "complete", 32, 16)]
    assert at_equal_time(runs) == runs
    stopped = replace(plain(1, "failed", 64, 0), seconds=2.0)
    assert at_equal_time([runs[0], stopped, runs[2]])[2].handicap == 0


def test_neither_a_wide_network_nor_a_slow_machine_is_blamed_on_the_batch_size() -> None:
    wide = [_timed(0, 64, 100, 0.1, width=32), _timed(1, 32, 900, 0.1, width=512), _timed(2, 128, 900, 0.1, width=32)]
    assert at_equal_time(wide) == wide
    narrow = [*wide, _timed(3, 32, 130, 0.1, width=32)]
    assert [run.score > 0.1 for run in at_equal_time(narrow)] == [False, False, False, True]


def test_a_run_that_is_passed_over_for_its_time_is_named() -> None:
    best, slow, better = _timed(0, 64, 100, 0.10), _timed(1, 16, 400, 0.09), _timed(2, 16, 400, 0.05)
    first, passed = at_equal_time([best, slow])
    assert passed_over([first, passed], first) == " at equal time, as trial 1, though better, has longer epochs"
    runs = at_equal_time([best, slow, better])
    assert min(runs, key=lambda run: run.score).number == 2
    assert passed_over([best, replace(slow, loss=0.1, handicap=0.1)], best) == ""  # as good is no better
    assert passed_over(runs, runs[2]) == passed_over([first], first) == passed_over(runs, None) == ""


def test_shares_of_guesses_differ_by_luck() -> None:
    assert not any_learned([], {1.0: -0.103, 3.0: -0.103, 0.3: -0.088})  # accuracies of ten classes
    assert not any_learned([], {1.0: 0.897, 3.0: 0.897, 0.3: 0.912})  # errors
    assert not any_learned([], {1.0: -10.3, 3.0: -10.3, 0.3: -8.8})  # in percent
    assert any_learned([], {1.0: -10.3141, 3.0: -10.3142, 0.3: -8.8143})  # no share of samples
    assert any_learned([], {1.0: -95.0, 3.0: -95.2, 0.3: -94.8})
    assert any_learned([], {1.0: -0.103, 3.0: -0.103, 0.3: -0.2})
    assert any_learned([], {1.0: -0.95, 3.0: -0.94, 0.3: -0.955})  # these have learned


@pytest.mark.parametrize(
    ("numbers", "samples"),
    [
        ((0.0, 0.001, 0.003), 1000),
        ((0.0, -0.001), 1000),
        ((0.0, 0.0), 1),
        ((1.0, 0.0), 1),
        ((0.0002, 0.9), 5000),
        ((9.2e-4, 4.8e-4, 2.84e-4, 2.092e-4, 1.7268e-4), 0),  # a loss of small numbers
        ((2.3e-9, 1.2e-9, 4e-10), 0),
        ((0.02, 0.04, 1.1e-16), 50),
        ((0.02, 0.04, 6e-8), 50),
    ],
)
def test_what_is_not_0_counts_a_sample_at_least(numbers: tuple[float, ...], samples: int) -> None:
    assert samples_counted(numbers) == samples
