from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution
from optuna.distributions import IntDistribution
from optuna.trial import TrialState

from optuna_discipline import DisciplinedSampler
from optuna_discipline import costs
from optuna_discipline import report_epoch
from optuna_discipline.costs import cost_in_full_trainings
from optuna_discipline.range_test_record import RANGE_TEST_KEY
from tests.test_study_record import run_trial


def test_the_cost_counts_epochs_done_and_the_range_test() -> None:
    study = optuna.create_study()
    assert cost_in_full_trainings(study) == 0
    run_trial(study, 2, 0.1)
    run_trial(study, 8, 0.4)
    run_trial(study, 8, 0.4, done=4)
    assert cost_in_full_trainings(study) == pytest.approx(0.25 + 1 + 0.5)
    tested = optuna.create_study()
    kept = {RANGE_TEST_KEY: {"lrs": [0.1] * 50, "planned_steps": 100}}
    tested.add_trial(optuna.create_trial(state=TrialState.FAIL, system_attrs=kept))
    tested.add_trials(study.get_trials())
    assert cost_in_full_trainings(tested) == pytest.approx(2.25)


def test_the_cost_of_sparse_reports_is_that_of_the_epochs_between_them() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for steps in ((3, 7), (1, 3), (9000,)):
        trial = study.ask({"epochs": IntDistribution(8, 8)})
        for step in steps:
            trial.report(1.0, step)
        study.tell(trial, 1.0)
    assert cost_in_full_trainings(study) == pytest.approx(1 + 0.5 + 1)


def test_reports_by_update_count_as_the_share_of_the_run_that_they_are() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for updates in (200, 800):
        trial = study.ask({"epochs": IntDistribution(8, 8)})
        report_epoch(trial, updates - 1, val_loss=1.0, n_epochs=800)
        study.tell(trial, 1.0)
    assert cost_in_full_trainings(study) == pytest.approx(0.25 + 1)


def test_trials_that_say_nothing_of_epochs_cost_one_training_each() -> None:
    study = optuna.create_study()
    study.tell(study.ask(), 1.0)
    study.tell(study.ask(), state=TrialState.PRUNED)
    study.tell(study.ask(), state=TrialState.FAIL)
    study.ask()
    assert cost_in_full_trainings(study) == 2


def test_plain_reports_cost_their_share_of_the_longest_complete_trial() -> None:
    study = optuna.create_study()
    for reports, state in ((20, TrialState.COMPLETE), (2, TrialState.PRUNED), (5, TrialState.FAIL), (10, None)):
        trial = study.ask()
        for step in range(reports):
            trial.report(1.0, step)
        if state is not None:
            study.tell(trial, 1.0 if state == TrialState.COMPLETE else None, state)
    assert list(costs.costs_of(study.trials, {}).values()) == pytest.approx([1, 0.1, 0.25, 0.5])
    study.tell(study.ask(), 1.0)  # reported nothing
    assert cost_in_full_trainings(study) == pytest.approx(2.85)


@pytest.mark.parametrize("plain", [True, False])
def test_a_trial_that_goes_on_from_a_checkpoint_costs_what_it_trained_itself(plain: bool) -> None:
    study = optuna.create_study()
    for epochs, state in ((range(5), TrialState.FAIL), (range(5, 8), TrialState.COMPLETE), (range(8), None)):
        trial = study.ask()
        for epoch in epochs:
            if plain:
                trial.report(1.0, epoch)
            else:
                report_epoch(trial, epoch, val_loss=1.0, n_epochs=8)
        study.tell(trial, None if state == TrialState.FAIL else 1.0, state)
    assert list(costs.costs_of(study.trials, {}).values()) == pytest.approx([5 / 8, 3 / 8, 1])


def test_where_all_reports_begin_late_no_trial_went_on_from_another() -> None:
    study = optuna.create_study()
    for _ in range(2):
        trial = study.ask()
        for epoch in range(5, 10):
            trial.report(1.0, epoch)
        study.tell(trial, 1.0)
    assert cost_in_full_trainings(study) == pytest.approx(2)


def test_passes_over_a_policys_buffer_cost_nothing_more() -> None:
    study = optuna.create_study()
    for epochs in (5, 20):
        study.enqueue_trial({"clip_range": 0.2, "n_epochs": epochs})
        trial = study.ask()
        trial.suggest_float("clip_range", 0.1, 0.4)
        trial.suggest_int("n_epochs", 1, 20)
        study.tell(trial, 1.0)
    assert cost_in_full_trainings(study) == 2


@pytest.mark.parametrize(
    ("name", "role", "cost"),
    [("n_epochs", None, 2), ("n_epochs", "epochs", 0.75), ("length", "epochs", 0.75), ("length", None, 2)],
)
def test_the_cost_is_counted_by_the_roles_that_the_sampler_was_told(name: str, role: str | None, cost: float) -> None:
    study = optuna.create_study(sampler=DisciplinedSampler(roles={name: role}))
    for length in (4, 8):
        study.enqueue_trial({"lr": 0.1, name: length})
    study.optimize(lambda t: t.suggest_float("lr", 1e-3, 1, log=True) + t.suggest_int(name, 1, 16), n_trials=2)
    assert cost_in_full_trainings(study) == cost


@pytest.mark.parametrize("lengths", [IntDistribution(1, 16), CategoricalDistribution([4, 16, 8])])
def test_a_full_training_is_the_longest_that_any_trial_could_ask_for(lengths: Any) -> None:
    trials = [optuna.create_trial(params={"epochs": n}, distributions={"epochs": lengths}, value=1.0) for n in (4, 8)]
    assert costs.full_epochs(trials, {}) == 16
    assert costs.full_epochs([], {}) == 0
