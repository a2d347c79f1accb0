import math
import warnings
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from optuna_discipline import DisciplinedSampler
from optuna_discipline import EpochLog
from optuna_discipline import TrialReporter
from optuna_discipline import UnsupportedStudyError
from optuna_discipline import diagnose_study
from optuna_discipline import plot_cost
from optuna_discipline import plot_loss_curve
from optuna_discipline import plot_recipe
from optuna_discipline import plot_schedule
from optuna_discipline import publish
from optuna_discipline import report_epoch
from optuna_discipline import trial_record
from optuna_discipline import write_report
from optuna_discipline.study_record import best_run


def retry_of(study: optuna.Study, number: int, *, inherits: bool = False) -> optuna.Trial:
    """Return the trial that Optuna's callback makes of a failed one, running."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        retry = optuna.storages.RetryHeartbeatStaleTrialCallback(inherit_intermediate_values=inherits)
    retry(study, study.trials[number])
    return study.ask()


@pytest.mark.parametrize("storage", [None, "sqlite"])
def test_rows_survive_every_storage_with_their_broken_numbers(storage: str | None, tmp_path: Path) -> None:
    url = None if storage is None else f"sqlite:///{tmp_path / 's.db'}"
    study = optuna.create_study(storage=url)
    trial = study.ask()
    reporter = TrialReporter(trial, n_epochs=3, n_classes=10)
    logs = (EpochLog(0, 0.1, 1.0, 2.0, 0.5), EpochLog(1, None, math.nan, math.inf), EpochLog(2, 0.1, None, -1.0))
    for log in logs:
        reporter.report(log)
    curve = trial_record.read_curve(study.trials[0])
    assert curve is not None
    assert (curve.n_epochs, curve.n_classes) == (3, 10)
    assert curve.logs[0] == logs[0]
    assert math.isnan(curve.logs[1].train_loss or 0)
    assert curve.logs[1].val_loss == math.inf
    assert curve.logs[2] == logs[2]


def test_trials_of_others_and_damaged_rows_have_no_curve() -> None:
    study = optuna.create_study()
    trial = study.ask()
    trial.report(1.0, 0)
    study._storage.set_trial_system_attr(trial._trial_id, f"{trial_record.ROW_PREFIX}0", ["x", 1])
    study._storage.set_trial_system_attr(trial._trial_id, f"{trial_record.ROW_PREFIX}x", [1, 1, 1, 1, 1, 0])
    study._storage.set_trial_system_attr(trial._trial_id, trial_record.CLAIM_KEY, "nonsense")
    study._storage.set_trial_system_attr(trial._trial_id, trial_record.RUN_KEY, 3)
    assert trial_record.read_curve(study.trials[0]) is None
    assert trial_record.read_claim(study.trials[0]) is None
    assert trial_record.read_run(study.trials[0]) == {}


def test_a_retried_trial_that_begins_anew_does_not_inherit_the_rows_of_its_former_self() -> None:
    study = optuna.create_study()
    first = study.ask()
    for epoch, loss in enumerate((0.9, math.nan)):
        TrialReporter(first, n_epochs=4).report(EpochLog(epoch, 0.1, loss, loss))
    study.tell(first, state=TrialState.FAIL)
    attributes = {**study.trials[0].system_attrs, "failed_trial": 0}
    study.add_trial(optuna.create_trial(state=TrialState.WAITING, system_attrs=attributes))
    again = study.ask()
    TrialReporter(again, n_epochs=4).report(EpochLog(0, 0.1, 0.5, 0.5))
    assert [(row.log.epoch, row.log.val_loss) for row in trial_record.read_rows(study.trials[1])] == [(0, 0.5)]


def test_a_trial_that_has_ended_shows_what_its_curve_says_unless_that_is_too_short() -> None:
    study = optuna.create_study(sampler=DisciplinedSampler(seed=0))
    for n_epochs in (8, 2):
        trial = study.ask()
        trial.suggest_float("lr", 1e-5, 1.0, log=True)
        for epoch in range(n_epochs):
            report_epoch(trial, epoch, val_loss=2 - 0.1 * epoch, train_loss=2 - 0.1 * epoch, n_epochs=n_epochs)
        study.tell(trial, 1.3)
    assert [trial.user_attrs.get("verdict") for trial in study.trials] == ["underfitting", None]


@pytest.mark.parametrize("value", [None, 0.5, math.inf, -math.inf])
def test_numbers_are_encoded_and_decoded(value: float | None) -> None:
    assert trial_record.decode(trial_record.encode(value)) == value
    assert trial_record.encode(math.nan) == "nan"


def test_optunas_own_retry_starts_with_an_empty_curve_and_keeps_what_it_rewrites() -> None:
    study = optuna.create_study()
    first = study.ask()
    reporter = TrialReporter(first, n_epochs=4)
    for epoch in range(3):
        reporter.report(EpochLog(epoch, 0.1, math.nan, math.nan))
    study.tell(first, state=TrialState.FAIL)
    again = retry_of(study, 0)
    assert again.number == 1
    assert trial_record.read_curve(study.trials[1]) is None
    report_epoch(again, 0, val_loss=0.5, train_loss=0.5, n_epochs=4)
    report_epoch(again, 1, val_loss=0.4, train_loss=0.4)
    curve = trial_record.read_curve(study.trials[1])
    assert curve is not None
    assert (curve.train_loss.tolist(), curve.n_epochs) == ([0.5, 0.4], 4)


def test_a_metric_that_is_not_the_validation_loss_is_read_beside_the_curve() -> None:
    study = optuna.create_study()
    trial = study.ask()
    report_epoch(trial, 0, val_loss=0.5, value=0.5, n_epochs=4)
    report_epoch(trial, 2, val_loss=0.4, value=0.9)
    reported = trial_record.read_reported(study.trials[0])
    assert reported is not None
    assert (len(reported.curve), reported.curve.n_epochs, reported.values) == (2, 4, [0.5, 0.9])
    other = study.ask()
    report_epoch(other, 0, val_loss=0.5)
    own = trial_record.read_reported(study.trials[1])
    assert own is not None
    assert own.values is None
    study.ask()
    assert trial_record.read_reported(study.trials[2]) is None


def test_a_metric_that_first_studies_did_not_store_as_it_was_the_loss_is_read_as_that() -> None:
    study = optuna.create_study()
    trial = study.ask()
    trial_record.write_run(study._storage, trial._trial_id, n_epochs=4, metric="value", n_classes=None)
    for epoch, loss in enumerate((0.5, math.nan, 0.4)):
        trial_record.write_row(study._storage, trial._trial_id, 0, EpochLog(epoch, 0.1, 0.3, loss), None)
    reported = trial_record.read_reported(study.trials[0])
    assert reported is not None
    assert reported.values == pytest.approx([0.5, math.nan, 0.4], nan_ok=True)


def test_several_objectives_are_refused_with_the_plot_that_shows_them() -> None:
    study = optuna.create_study(directions=["minimize", "maximize"])
    for call in (trial_record.sign_of, best_run, diagnose_study, plot_loss_curve, plot_schedule):
        with pytest.raises(UnsupportedStudyError, match=r"has 2: use optuna\.visualization\.plot_pareto_front"):
            call(study)
    for told in (diagnose_study, plot_cost, plot_loss_curve, plot_recipe, plot_schedule, publish, write_report):
        assert "UnsupportedStudyError: If it" in (told.__doc__ or "")


RUNG = {"stage": "lr", "slot": "lr:1", "reason": "ladder: 1 x"}


@pytest.mark.parametrize(
    ("claim", "attrs", "stage", "reason"),
    [
        (
            {"stage": "lr", "slot": "lr:1", "reason": "ladder: 1 x"},
            {"stage": "fold 3", "reason": {"why": 1}},
            "lr",
            None,
        ),
        (RUNG, {"stage": "lr", "reason": "mine"}, "lr", None),
        (RUNG, {"stage": "lr", "reason": "ladder: 2 x"}, "lr", None),
        ({"stage": "lr", "slot": "lr:1"}, {"stage": "lr", "reason": "ladder: 2 x"}, "lr", 0),
        (None, {"stage": "refine", "reason": "ladder: 2 x"}, None, 0),
        (None, {"stage": "refine", "reason": ["a"]}, None, 0),
        (None, {"stage": "confirm"}, None, 0),
        (None, {"stage": "fold 3", "reason": ["a"]}, None, 0),
        (None, {"stage": ["lr"]}, None, 0),
        (None, {}, None, 0),
    ],
)
def test_stage_and_reason_are_those_of_the_claim_whatever_else_stands_under_their_names(
    claim: Any, attrs: Any, stage: Any, reason: Any
) -> None:
    system = {} if claim is None else {trial_record.CLAIM_KEY: claim}
    trial = optuna.create_trial(value=1.0, user_attrs=attrs, system_attrs=system)
    assert trial_record.stage_of(trial) == stage
    assert trial_record.reason_of(trial) == {None: "ladder: 1 x", 0: ""}[reason]


@pytest.mark.parametrize("own", [{}, {"stage": "lr"}, {"stage": "refine", "reason": None}, {"reason": ["a"]}])
@pytest.mark.parametrize("claim", [None, RUNG])
def test_a_key_is_the_users_unless_it_says_what_was_told_last(own: dict[str, Any], claim: Any) -> None:
    study = optuna.create_study()
    study.ask()
    for key, text in own.items():
        study._storage.set_trial_user_attr(0, key, text)
    trial = study.get_trials()[0]
    for stage, reason in (("confirm", "first"), ("momentum", "second")):
        trial_record.write_stage(study._storage, trial, stage, reason)
        if claim is not None:
            trial_record.write_claim(study._storage, trial, claim)
        stored = study.get_trials()[0]
        assert trial.user_attrs == stored.user_attrs == {"stage": stage, "reason": reason, **own}
        assert (trial_record.stage_of(stored), trial_record.reason_of(stored)) == (stage, reason)
