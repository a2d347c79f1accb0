import itertools
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution
from optuna.distributions import IntDistribution
from optuna.samplers import BaseSampler
from optuna.trial import TrialState

from optuna_discipline import DisciplinedSampler
from optuna_discipline import costs
from optuna_discipline import report_epoch
from optuna_discipline.costs import cost_in_full_trainings
from optuna_discipline.range_test_record import RANGE_TEST_KEY
from tests.test_study_record import run_trial
from tests.test_trial_record import retry_of


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


def test_a_frameworks_reports_by_update_beside_those_by_epoch_cost_nothing_more() -> None:
    study = optuna.create_study()
    for n_epochs in (8, 2):
        trial = study.ask()
        for epoch in range(n_epochs):
            report_epoch(trial, epoch, val_loss=1.0, n_epochs=8)
            trial.report(1.0, (epoch + 1) * 75)
        study.tell(trial, 1.0 if n_epochs == 8 else None, TrialState.COMPLETE if n_epochs == 8 else TrialState.PRUNED)
    assert cost_in_full_trainings(study) == 1.25


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
    assert list(costs.read_costs(study.trials, {}).spent.values()) == pytest.approx([1, 0.1, 0.25, 0.5])
    study.tell(study.ask(), 1.0)  # reported nothing
    assert cost_in_full_trainings(study) == pytest.approx(2.85)


@pytest.mark.filterwarnings("ignore:The reported value is ignored because")  # Optuna's, of an inherited step
@pytest.mark.parametrize(
    ("before", "own", "n_epochs", "trained", "inherited", "unknown"),  # the last two of plain reports, inherited
    [
        (range(5), range(5, 8), 8, 3, 3, 8),  # went on
        (range(5), [5], 8, 1, 1, 6),  # and ended at its first report
        (range(7), [7], 8, 1, 1, 8),  # the last epoch alone
        (range(6), range(3, 8), 8, 5, 2, 8),  # from an earlier checkpoint
        ([4, 9], [14, 19], 20, 10, 10, 20),  # every fifth epoch
        ([4, 9, 14], [19], 20, 5, 5, 20),
        (range(5, 12), range(12, 20), 20, 8, 8, 20),  # after a warm-up without evaluations
        (range(5), [], 8, 0, 0, 5),  # died before its first report
        (range(5), range(2), 8, 2, 0, 5),  # began anew, from the same seed, and died
        (range(5), range(8), 8, 8, 3, 8),  # began anew
        (range(19), range(20), 20, 20, 1, 20),
        (range(5, 7), range(5, 20), 20, 20, 13, 20),
    ],
)
@pytest.mark.parametrize("sampler", [DisciplinedSampler(seed=0), None])
def test_a_retry_costs_what_it_trained_itself(
    before: Any, own: Any, n_epochs: int, trained: int, inherited: int, unknown: int, sampler: BaseSampler | None
) -> None:
    for inherits, plain in itertools.product([False, True], repeat=2):
        study = optuna.create_study(sampler=sampler)
        whole, first = study.ask(), study.ask()
        _report(whole, range(n_epochs), None if plain else n_epochs)
        study.tell(whole, 1.0)
        _report(first, before, None if plain else n_epochs)
        study.tell(first, state=TrialState.FAIL)
        _report(retry_of(study, 1, inherits=inherits), own, None if plain else n_epochs)
        found = costs.read_costs(study.trials, {}).spent.get(2, 0.0)
        expected = (unknown if sampler is None else inherited) if inherits and plain else trained
        assert found * n_epochs == pytest.approx(expected), (inherits, plain)


def test_a_retry_of_a_retry_went_on_from_where_any_attempt_had_come() -> None:
    study = optuna.create_study()
    first = study.ask()
    _report(first, range(5))
    study.tell(first, state=TrialState.FAIL)
    study.tell(retry_of(study, 0), state=TrialState.FAIL)  # died before its first report
    last = retry_of(study, 1)
    _report(last, range(5, 8))
    study.tell(last, 1.0)
    assert costs.read_costs(study.trials, {}).spent == pytest.approx({0: 5 / 8, 2: 3 / 8})


@pytest.mark.parametrize(
    "reported",
    [
        [range(5, 20), range(5, 20), range(20)],  # a warm-up without evaluations, and one more evaluation
        [[10, 15, 19], [10, 15, 19], [0, 19]],
        [[12, 19], [0, 5, 10, 15, 19]],
        [range(500, 1000, 100), range(500, 1000, 100), range(500, 1000, 100)],  # updates
    ],
)
def test_where_reports_begin_late_and_nothing_says_that_they_go_on_a_trial_is_whole(reported: Any) -> None:
    study = optuna.create_study()
    for steps in reported:
        trial = study.ask()
        _report(trial, steps)
        study.tell(trial, 1.0)
    assert list(costs.read_costs(study.trials, {}).spent.values()) == pytest.approx([1] * len(reported))


def test_trials_of_which_only_the_last_epochs_are_reported_cost_their_lengths() -> None:
    study = optuna.create_study()
    for epochs in (10, 20, 20):
        study.enqueue_trial({"epochs": epochs})
        trial = study.ask({"epochs": IntDistribution(1, 20)})
        _report(trial, range(epochs - 5, epochs))
        study.tell(trial, 1.0)
    assert list(costs.read_costs(study.trials, {}).spent.values()) == pytest.approx([0.5, 1, 1])


def _report(trial: optuna.Trial, epochs: Any, n_epochs: int | None = None) -> None:
    """Report epochs, plainly where none says how many there are."""
    for epoch in epochs:
        if n_epochs is None:
            trial.report(3 - epoch / 10, epoch)
        else:
            report_epoch(trial, epoch, val_loss=3 - epoch / 10, n_epochs=n_epochs)


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
    assert costs.read_costs(trials, {}).full == 16
    assert costs.read_costs([], {}).full == 0
