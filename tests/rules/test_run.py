import math

import pytest

from optuna_discipline import EpochLog
from optuna_discipline import LossCurve
from optuna_discipline import Proposal
from optuna_discipline import Run
from optuna_discipline.rules import run as rules_of_a_run
from optuna_discipline.rules.lr_choice import LrChoice
from optuna_discipline.rules.run import differ_in_rate
from optuna_discipline.rules.run import start_lr
from optuna_discipline.rules.space import Bounds
from optuna_discipline.rules.space import Role

BROKEN = LossCurve((EpochLog(0, 0.1, math.nan, 1.0),), n_epochs=4)


@pytest.mark.parametrize(
    ("run", "score", "finished"),
    [
        (Run(0, "complete", {}, 0.5), 0.5, True),
        (Run(0, "complete", {}, math.nan), math.inf, True),
        (Run(0, "complete", {}, -math.inf), math.inf, True),
        (Run(0, "complete", {}, 0.5, curve=BROKEN), math.inf, True),
        (Run(0, "pruned", {}, 0.5), math.inf, True),
        (Run(0, "running", {}), math.inf, False),
        (Run(0, "failed", {}), math.inf, False),
        (Run(0, "failed", {}, curve=BROKEN), math.inf, True),
    ],
)
def test_a_run_scores_its_loss_only_if_it_ended_well(run: Run, score: float, finished: bool) -> None:
    assert (run.score, run.finished) == (score, finished)


def test_the_curve_of_a_run_is_judged_once(monkeypatch: pytest.MonkeyPatch) -> None:
    judged: list[LossCurve] = []
    monkeypatch.setattr(rules_of_a_run, "is_diverged", judged.append)
    run = Run(0, "complete", {}, 0.5, curve=BROKEN)
    assert [run.score for _ in range(3)] == [0.5] * 3
    assert (run.held, judged) == (True, [BROKEN])


@pytest.mark.parametrize(
    ("run", "held"),
    [
        (Run(0, "complete", {}, 0.5), True),
        (Run(0, "pruned", {}, 0.5, reports=(1.0, 0.5)), True),
        (Run(0, "pruned", {}, None, reports=(1.0, math.nan)), False),
        (Run(0, "pruned", {}, math.inf, reports=(1.0, math.inf)), False),
        (Run(0, "pruned", {}, 0.5, curve=BROKEN), False),
        (Run(0, "pruned", {}), False),
        (Run(0, "failed", {}, reports=(1.0, 0.5)), False),
    ],
)
def test_a_run_held_if_its_last_number_is_finite_also_where_it_was_pruned(run: Run, held: bool) -> None:
    assert run.held == held


@pytest.mark.parametrize(
    ("train", "val", "finite"),
    [(1.0, None, True), (math.nan, None, False), (1.0, math.nan, False), (math.nan, 1.0, True), (None, None, False)],
)
def test_a_run_is_finite_by_its_validation_loss_or_else_its_training_loss(
    train: float | None, val: float | None, finite: bool
) -> None:
    assert Run(0, "failed", {}, curve=LossCurve((EpochLog(0, 0.1, train, val),), n_epochs=4)).finite == finite


def test_a_state_that_no_run_has_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`state` must be one of \('running', .*'failed'\), but got 'completed'"):
        Run(0, "completed", {})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("other", "differ"),
    [
        ({"lr": 0.3}, True),
        ({"lr": 0.1}, False),
        ({"lr": 0.3, "momentum": 1}, False),
        ({"lr": 0.0}, False),
        ({"lr": math.nan}, False),
        ({}, False),
    ],
)
def test_two_runs_differ_in_their_rate_only_where_both_have_one(other: dict[Role, float], differ: bool) -> None:
    one, two = Run(0, "complete", {"lr": 0.1}), Run(1, "complete", other)
    assert [differ_in_rate(one, two), differ_in_rate(two, one)] == [differ, differ]


def test_a_proposal_is_fitted_into_the_trials_own_bounds() -> None:
    proposal = Proposal("lr", "lr0:3", "", {"momentum": 0.99}, lr_multiple=3.0, fidelity=0.25)
    assert proposal.value_of("momentum", Bounds(0.8, 0.9)) == 0.9
    assert proposal.value_of("lr", Bounds(1e-5, 10)) == pytest.approx(0.3)
    assert proposal.value_of("lr", Bounds(0.01, 0.1)) == pytest.approx(0.1)
    assert [proposal.value_of("epochs", Bounds(1, high)) for high in (1, 3, 16)] == [1, 1, 4]
    assert proposal.value_of("weight_decay", Bounds(1e-6, 0.1)) == 1e-4
    best = Proposal("refine", "model", "", {"epochs": 5.0}, any_length=True)
    assert [best.value_of("epochs", Bounds(1, high)) for high in (3, 16)] == [3, 5]


def test_the_ladder_starts_at_the_range_tests_choice() -> None:
    choice = LrChoice(0.02, 0.002, (0.004, 0.04), "OK", "", confident=True)
    assert start_lr(Bounds(1e-5, 10), choice) == 0.02
    assert start_lr(Bounds(0.1, 10), choice) == 0.1
    refused = LrChoice(None, None, None, "FLAT", "", confident=False)
    assert start_lr(Bounds(1e-5, 10), refused) == pytest.approx(0.1)


@pytest.mark.parametrize(("guess", "start"), [(0.003, 0.003), (0.5, 0.1)])
def test_a_guess_of_the_range_test_only_lowers_the_start_of_the_ladder(guess: float, start: float) -> None:
    choice = LrChoice(guess, guess / 10, (guess / 10, guess), "NO_GAIN_THEN_DIVERGED", "", confident=False)
    assert start_lr(Bounds(1e-5, 10), choice) == pytest.approx(start)
