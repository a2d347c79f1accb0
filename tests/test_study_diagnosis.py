import math

import optuna
import pytest

from optuna_discipline import DisciplinedPruner
from optuna_discipline import DisciplinedSampler
from optuna_discipline import DisciplineError
from optuna_discipline import EpochLog
from optuna_discipline import TrialReporter
from optuna_discipline import Verdict
from optuna_discipline import diagnose_study
from optuna_discipline import report_epoch


def _study(direction: str = "minimize", name: str = "lr", sampler: DisciplinedSampler | None = None) -> optuna.Study:
    study = optuna.create_study(sampler=sampler, pruner=DisciplinedPruner(), direction=direction)

    def objective(trial: optuna.Trial) -> float:
        lr = trial.suggest_float(name, 1e-3, 10, log=True)
        accuracy = direction == "maximize"
        reporter = TrialReporter(trial, n_epochs=8, metric="val_accuracy" if accuracy else "val_loss")
        for epoch in range(8):
            loss = math.nan if lr > 1 else 2 - epoch / 5 - lr
            reporter.report(EpochLog(epoch, lr, loss, loss, val_accuracy=min(0.1 * epoch + lr, 1.0)))
        return 0.7 + lr if accuracy else loss

    for lr in (0.01, 0.1, 3.0, 5.0):
        study.enqueue_trial({name: lr})
    study.optimize(objective, n_trials=4)
    return study


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_a_study_is_read_with_its_pruned_trials_in_either_direction(direction: str) -> None:
    found = diagnose_study(_study(direction))
    assert (found.n_runs, found.diverged, found.best) == (4, 0.5, 1)
    assert found.best_diagnosis is not None
    assert found.best_diagnosis.verdict == Verdict.UNDERFITTING
    assert (found.highest_lr_that_held, found.lowest_lr_that_diverged) == (0.1, 3.0)


def test_the_learning_rate_may_have_another_name() -> None:
    study = _study(name="alpha")
    assert diagnose_study(study).lowest_lr_that_diverged is None
    assert diagnose_study(study, roles={"alpha": "lr"}).lowest_lr_that_diverged == 3.0


def test_the_roles_that_the_sampler_was_told_are_known_and_those_given_come_first() -> None:
    study = _study(name="alpha", sampler=DisciplinedSampler(roles={"alpha": "lr"}))
    assert diagnose_study(study).lowest_lr_that_diverged == 3.0
    assert diagnose_study(study, roles={"alpha": None}).lowest_lr_that_diverged is None
    with pytest.raises(TypeError, match="`roles` must map names to roles"):
        diagnose_study(study, roles=["alpha"])  # type: ignore[arg-type]


def test_plain_reports_are_said_to_be_there_and_to_be_no_losses() -> None:
    study = optuna.create_study()
    study.optimize(lambda trial: [trial.report(1 / (step + 1), step) for step in range(8)] and 0.1, n_trials=2)
    with pytest.raises(DisciplineError, match=r"none of 2 did, and 2 reported the objective only.*report_epoch"):
        diagnose_study(study)


def test_what_broke_a_constraint_or_failed_is_left_out_and_said_to_be() -> None:
    def objective(trial: optuna.Trial, constraint: float) -> float:
        for epoch in range(8):
            report_epoch(trial, epoch, val_loss=2 - epoch / 5, train_loss=2 - epoch / 5, n_epochs=8)
        trial.set_constraint("memory", constraint)
        return math.nan if trial.number else 0.6

    study = optuna.create_study()
    study.optimize(lambda trial: objective(trial, 1.0), n_trials=1)
    study.optimize(lambda trial: objective(trial, -1.0), n_trials=2)
    left_out = r"none of 0 did \(not read: 1 that broke a constraint, 2 that failed\): run more"
    with pytest.raises(DisciplineError, match=left_out):
        diagnose_study(study)
    study.optimize(lambda trial: trial.report(1.0, 0) or 1.0, n_trials=1)
    with pytest.raises(DisciplineError, match=r"none of 1 did, and 1 reported .* \(not read: 1 that.*report_epoch"):
        diagnose_study(study)
    study.add_trial(_study().trials[0])
    found = diagnose_study(study)
    assert (found.n_runs, sum(found.verdicts.values())) == (1, 1)
    assert found.advice[-1] == "1 of 5 runs broke a constraint, and is not counted here."


def test_a_trial_that_still_runs_is_said_to_and_not_to_have_reported_nothing() -> None:
    study = optuna.create_study()
    report_epoch(study.ask(), 0, val_loss=2.0, train_loss=2.0, n_epochs=8)
    with pytest.raises(DisciplineError, match=r"none of 0 did \(not read: 1 still running\): wait until one has ended"):
        diagnose_study(study)
    study.tell(study.ask(), 1.0)
    with pytest.raises(DisciplineError, match=r"none of 1 did \(not read: 1 still running\): report them through"):
        diagnose_study(study)


def test_a_study_without_reports_and_something_else_are_refused() -> None:
    with pytest.raises(DisciplineError, match=r"A run must have reported its losses, but none of 0 did: report them"):
        diagnose_study(optuna.create_study())
    with pytest.raises(TypeError, match="`study` must be a Study"):
        diagnose_study("study")  # type: ignore[arg-type]
