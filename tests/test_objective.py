import math
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from optuna_discipline import DisciplinedPruner
from optuna_discipline import EpochLog
from optuna_discipline import TrialReporter
from optuna_discipline import UnsupportedStudyError
from optuna_discipline import report_epoch
from optuna_discipline import suggest_hyperparams
from optuna_discipline import trial_record
from optuna_discipline.objective import Metric
from optuna_discipline.trial_record import read_curve
from optuna_discipline.trial_record import read_rows

LOG = EpochLog(0, 0.1, 0.9, 1.0, 0.7)


class _Counting(InMemoryStorage):
    writes = 0

    def set_trial_system_attr(self, *args: Any) -> None:
        type(self).writes += 1
        super().set_trial_system_attr(*args)

    def set_trial_user_attr(self, *args: Any) -> None:
        type(self).writes += 1
        super().set_trial_user_attr(*args)

    def set_trial_intermediate_value(self, *args: Any) -> None:
        type(self).writes += 1
        super().set_trial_intermediate_value(*args)


@pytest.mark.parametrize("how", ["reporter", "one line"])
def test_an_epoch_costs_two_storage_writes(how: str) -> None:
    trial = optuna.create_study(storage=_Counting(), pruner=DisciplinedPruner()).ask()
    reporter = TrialReporter(trial, n_epochs=9)
    report_epoch(trial, 0, val_loss=1.0, train_loss=0.9, n_epochs=9)
    before = _Counting.writes
    for epoch in range(1, 5):
        if how == "reporter":
            reporter.report(EpochLog(epoch, 0.1, 0.9, 1.0))
        else:
            report_epoch(trial, epoch, val_loss=1.0, train_loss=0.9, lr=0.1, n_epochs=9)
    assert _Counting.writes - before == 2 * 4


def test_the_row_is_there_when_the_pruner_is_asked() -> None:
    seen = []

    class Looking(optuna.pruners.BasePruner):
        def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
            seen.append((len(read_rows(trial)), dict(trial.intermediate_values)))
            return True

    study = optuna.create_study(pruner=Looking())
    with pytest.raises(optuna.TrialPruned, match="Pruned at epoch 0"):
        TrialReporter(study.ask(), n_epochs=1).report(LOG)
    assert seen == [(1, {0: 1.0})]


def test_the_metric_is_what_is_reported() -> None:
    study = optuna.create_study(direction="maximize")
    reporter = TrialReporter(study.ask(), n_epochs=3, metric="val_accuracy")
    accuracies = {0: 0.01, 1: 0.2, 2: 0.72}  # from chance among 100 classes: no tenfold is too much
    for epoch, accuracy in accuracies.items():
        reporter.report(EpochLog(epoch, 0.1, 0.9, 1.0, accuracy))
    assert study.trials[0].intermediate_values == accuracies
    assert [row.value for row in read_rows(study.trials[0])] == list(accuracies.values())


def test_an_exploded_loss_is_clipped_in_the_report_and_kept_in_the_row() -> None:
    study = optuna.create_study()
    reporter = TrialReporter(study.ask(), n_epochs=4)
    for epoch, loss in enumerate((2.0, 1e20, math.inf, 1.0)):
        reporter.report(EpochLog(epoch, 0.1, 1.0, loss))
    assert study.trials[0].intermediate_values == {0: 2.0, 1: 20.0, 2: 20.0, 3: 1.0}
    assert [row.log.val_loss for row in read_rows(study.trials[0])] == [2.0, 1e20, math.inf, 1.0]
    known = TrialReporter(study.ask(), n_epochs=1, n_classes=10)
    known.report(EpochLog(0, 0.1, 1e9, 1e9))
    assert study.trials[1].intermediate_values[0] == pytest.approx(23.0, abs=0.1)


def test_a_first_loss_of_0_sets_no_limit() -> None:
    study = optuna.create_study()
    reporter = TrialReporter(study.ask(), n_epochs=5)
    for epoch, loss in enumerate((0.0, 0.0, 5.0, 9e9)):
        reporter.report(EpochLog(epoch, 0.1, loss, loss))
    assert study.trials[0].intermediate_values == {0: 0.0, 1: 0.0, 2: 5.0, 3: 50.0}


def test_the_one_line_form_takes_another_metric_and_starts_anywhere() -> None:
    study = optuna.create_study()
    report_epoch(study.ask(), 3, val_loss=1.0, value=0.2, n_epochs=5)
    assert study.trials[0].intermediate_values == {3: 0.2}
    curve = read_curve(study.trials[0])
    assert curve is not None
    assert (curve.n_epochs, curve.val_loss.tolist()) == (5, [1.0])


def test_a_value_that_is_missing_at_some_epochs_is_not_replaced_by_the_loss() -> None:
    study = optuna.create_study()
    trial = study.ask()
    for epoch in range(5):
        report_epoch(trial, epoch, val_loss=0.5, value=0.5 if epoch % 2 == 0 else None, n_epochs=5)
    assert study.trials[0].intermediate_values == {0: 0.5, 2: 0.5, 4: 0.5}
    assert [row.value for row in read_rows(study.trials[0])] == [0.5, None, 0.5, None, 0.5]


def test_a_value_that_comes_after_losses_is_warned_of_once_and_makes_them_no_values() -> None:
    study = optuna.create_study()
    trial = study.ask()
    report_epoch(trial, 0, val_loss=2.0, n_epochs=9, n_classes=3)
    with pytest.warns(UserWarning, match=r"`value` should be .* but got it first at epoch=1: give it at") as warned:
        report_epoch(trial, 1, val_loss=1.0, value=0.2)
    assert warned[0].filename == __file__
    for epoch, value in ((2, None), (3, 0.3)):
        report_epoch(trial, epoch, val_loss=0.9, value=value)
    reported = trial_record.read_reported(study.trials[0])
    assert reported is not None
    assert (reported.values, reported.curve.n_epochs, reported.curve.n_classes) == ([None, 0.2, None, 0.3], 9, 3)


def test_a_diverged_run_is_pruned_in_the_users_loop() -> None:
    def objective(trial: optuna.Trial) -> float:
        for epoch in range(9):
            report_epoch(trial, epoch, val_loss=1.0, train_loss=math.nan if epoch == 2 else 0.5, n_epochs=9)
        return 1.0

    study = optuna.create_study(pruner=DisciplinedPruner())
    study.optimize(objective, n_trials=1)
    assert study.trials[0].state == TrialState.PRUNED
    assert study.trials[0].user_attrs["pruned_because"] == "the training loss is nan at epoch 2"


@pytest.mark.parametrize(("n_classes", "lived"), [(10, 5), (None, 8)])
def test_a_net_that_died_at_chance_is_pruned_sooner_where_the_classes_are_known(
    n_classes: int | None, lived: int
) -> None:
    def objective(trial: optuna.Trial) -> float:
        for epoch, loss in enumerate([2.6, 1.2, 0.8, *[2.303] * 17]):
            report_epoch(trial, epoch, val_loss=loss + 0.02, train_loss=loss, n_epochs=20, n_classes=n_classes)
        return 2.303

    study = optuna.create_study(pruner=DisciplinedPruner())
    study.optimize(objective, n_trials=1)
    assert (study.trials[0].state, len(study.trials[0].intermediate_values)) == (TrialState.PRUNED, lived)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_metric_that_is_no_number_for_good_is_pruned_while_the_training_goes_on(bad: float) -> None:
    def objective(trial: optuna.Trial) -> float:
        for epoch in range(20):
            val_loss = bad if epoch in (1, 2) or epoch > 4 else 1.5
            report_epoch(trial, epoch, val_loss=val_loss, train_loss=1.5 - 0.05 * epoch, lr=0.1, n_epochs=20)
        return bad

    study = optuna.create_study(pruner=DisciplinedPruner())
    study.optimize(objective, n_trials=1)
    assert len(study.trials[0].intermediate_values) == 8
    reason = f"the study's metric is {bad} at epoch 5 and no number since"
    assert study.trials[0].user_attrs["pruned_because"] == reason


def test_fixed_trials_are_reported_into_nothing() -> None:
    trial = optuna.trial.FixedTrial({"lr": 0.1})
    TrialReporter(trial, n_epochs=1).report(LOG)
    report_epoch(trial, 0, val_loss=1.0)
    assert (trial.user_attrs, trial.system_attrs) == ({}, {})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_epochs": 0}, "`n_epochs`"),
        ({"n_epochs": 1.5}, "`n_epochs`"),
        ({"n_epochs": True}, "`n_epochs`"),
        ({"n_epochs": 3, "metric": "loss"}, "`metric` must be one of"),
        *(({"n_epochs": 3, "n_classes": n}, "`n_classes` must be an integer from 2 on") for n in (1, 0, -3, 2.5, "10")),
    ],
)
def test_bad_reporters_are_refused(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrialReporter(optuna.create_study().ask(), **arguments)


def test_reports_without_their_number_are_refused() -> None:
    trial, maximized = optuna.create_study().ask(), optuna.create_study(direction="maximize").ask()
    with pytest.raises(ValueError, match="must hold the reporter's metric 'val_accuracy'"):
        TrialReporter(maximized, n_epochs=1, metric="val_accuracy").report(EpochLog(0, 0.1, 1.0, 1.0))
    with pytest.raises(ValueError, match="`val_loss` or `value` must be given"):
        report_epoch(trial, 0, train_loss=1.0)
    with pytest.raises(ValueError, match="`n_epochs` must be a positive integer"):
        report_epoch(trial, 0, val_loss=1.0, n_epochs=0)
    with pytest.raises(ValueError, match="`n_classes` must be an integer from 2 on"):
        report_epoch(trial, 0, val_loss=1.0, n_classes=1)
    with pytest.raises(ValueError, match="`epoch` must be an integer from 0 on"):
        report_epoch(trial, -1, val_loss=1.0)


@pytest.mark.parametrize(("direction", "metric"), [("minimize", "val_accuracy"), ("maximize", "val_loss")])
def test_a_metric_that_the_study_turns_round_is_warned_of(direction: str, metric: Metric) -> None:
    study, cure = optuna.create_study(direction=direction), "maximize" if direction == "minimize" else "minimize"
    for _ in range(2):  # a worker that comes later is told, too
        with pytest.warns(UserWarning, match=f"is to {direction}, .* but got '{metric}': .*='{cure}'") as warned:
            TrialReporter(study.ask(), n_epochs=2, metric=metric)
        assert warned[0].filename == __file__
    TrialReporter(optuna.create_study(direction=cure).ask(), n_epochs=2, metric=metric)  # a warning fails
    report_epoch(study.ask(), 0, val_loss=1.0, value=0.5)
    with pytest.warns(UserWarning, match="is to maximize, .* but got 'val_loss'") as warned:
        report_epoch(optuna.create_study(direction="maximize").ask(), 0, val_loss=1.0)
    assert warned[0].filename == __file__


def test_hyperparameters_are_suggested_within_their_bounds_or_fixed() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    params = suggest_hyperparams(study.ask(), lr=(1e-3, 1e-2), weight_decay=0.0, batch_size=[16, 32], epochs=(2, 4))
    assert 1e-3 <= params.max_lr <= 1e-2
    assert params.weight_decay == 0.0
    assert params.batch_size in (16, 32)
    assert 2 <= params.epochs <= 4


@pytest.mark.parametrize("name", ["lr", "momentum", "weight_decay", "epochs"])
@pytest.mark.parametrize(
    "bounds",
    [
        (-1.0, 0.5),
        (0.5, 0.1),
        (0.1, math.nan),
        (0.1,),
        "ab",
        None,
        ("a", "b"),
        (0.1, math.inf),
        True,
        (True, 1),
        10**400,
    ],
)
def test_bad_bounds_are_named(name: str, bounds: Any) -> None:
    with pytest.raises(ValueError, match=f"`{name}`"):
        suggest_hyperparams(optuna.create_study().ask(), **{name: bounds})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lr": 0.0}, "`lr`"),
        ({"lr": (0.0, 1.0)}, "`lr`"),
        ({"momentum": 1.0}, "`momentum` must be below 1"),
        ({"batch_size": 0}, "`batch_size`"),
        ({"batch_size": []}, "`batch_size`"),
        ({"batch_size": "64"}, "`batch_size`"),
        ({"batch_size": [True]}, "`batch_size`"),
        ({"batch_size": None}, "`batch_size`"),
        ({"epochs": (1, 2.5)}, "`epochs` must be whole numbers"),
    ],
)
def test_bad_hyperparameters_are_named(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        suggest_hyperparams(optuna.create_study().ask(), **arguments)


@pytest.mark.filterwarnings("ignore:The reported value is ignored because")  # Optuna's
@pytest.mark.parametrize("how", ["reporter", "one line"])
def test_of_a_repeated_epoch_the_first_row_and_report_stay(how: str) -> None:
    study = optuna.create_study()
    trial = study.ask()
    reporter = TrialReporter(trial, n_epochs=9)
    report_epoch(trial, 0, val_loss=1.0, train_loss=0.9, n_epochs=9)
    calls = {
        "reporter": lambda: reporter.report(EpochLog(0, 0.1, 5.0, 5.0)),
        "one line": lambda: report_epoch(trial, 0, val_loss=5.0, train_loss=5.0, n_epochs=9),
    }
    again = r"reported once, but got epoch=0 again, with .*train_loss=5.0 after 0.9, val_loss=5.0 after 1.0: the first"
    with pytest.warns(UserWarning, match=again) as warned:
        calls[how]()
    assert warned[0].filename == __file__
    assert study.trials[0].intermediate_values == {0: 1.0}
    assert [row.log.train_loss for row in read_rows(study.trials[0])] == [0.9]


@pytest.mark.filterwarnings("ignore:The reported value is ignored because")  # Optuna's
def test_an_epoch_that_comes_again_is_warned_of_once_a_trial_and_not_where_it_comes_with_the_same_numbers() -> None:
    study = optuna.create_study()
    for _ in range(2):
        trial = study.ask()
        for epoch, loss in enumerate((1.0, math.nan)):
            for _ in range(2):
                report_epoch(trial, epoch, val_loss=loss, value=0.5)
        with pytest.warns(UserWarning, match=r"got epoch=1 again, with value=0.4 after 0.5: the first"):
            report_epoch(trial, 1, val_loss=math.nan, value=0.4)
        report_epoch(trial, 0, val_loss=2.0, value=0.4)


def test_a_users_own_report_of_the_epoch_does_not_keep_the_row_out() -> None:
    study = optuna.create_study()
    trial = study.ask()
    trial.report(1.0, 0)
    with pytest.warns(UserWarning, match="already reported"):
        report_epoch(trial, 0, val_loss=1.0, train_loss=0.9)
    assert len(read_rows(study.trials[0])) == 1


def test_broken_numbers_are_reported_on_disk_too(tmp_path: Path) -> None:
    study = optuna.create_study(storage=f"sqlite:///{tmp_path / 's.db'}")
    for value in (math.nan, math.inf, -math.inf):
        trial = study.ask()
        TrialReporter(trial, n_epochs=1, metric="train_loss").report(EpochLog(0, 0.1, value, value))
        stored = study.trials[trial.number].intermediate_values[0]
        assert stored == value or (math.isnan(stored) and math.isnan(value))


@pytest.mark.parametrize("trial", [None, "trial", 3])
def test_what_is_no_trial_is_refused(trial: Any) -> None:
    for call in (suggest_hyperparams, lambda t: TrialReporter(t, n_epochs=1), lambda t: report_epoch(t, 0, val_loss=1)):
        with pytest.raises(TypeError, match="`trial` must be a BaseTrial"):
            call(trial)


def test_fixed_numbers_need_no_search_and_raise_no_warning() -> None:
    params = suggest_hyperparams(
        optuna.create_study().ask(), lr=0.1, momentum=0, weight_decay=0, batch_size=range(8, 10), epochs=(3, 3)
    )
    assert (params.max_lr, params.momentum, params.weight_decay, params.epochs) == (0.1, 0.0, 0.0, 3)


def test_fixed_numbers_and_choices_may_be_numpys() -> None:
    params = suggest_hyperparams(
        optuna.create_study().ask(),
        lr=np.float32(0.5),
        momentum=np.array([0.5, 0.75]),  # type: ignore[arg-type]
        weight_decay=np.float32(0),
        batch_size=np.array([32, 64]),  # type: ignore[arg-type]
        epochs=np.int64(4),  # type: ignore[arg-type]
    )
    assert (params.max_lr, params.weight_decay, params.epochs) == (0.5, 0.0, 4)
    assert 0.5 <= params.momentum <= 0.75
    assert params.batch_size in (32, 64)


def test_a_training_that_broke_has_no_accuracy_and_is_reported_all_the_same() -> None:
    study = optuna.create_study(direction="maximize")
    trial = study.ask()
    reporter = TrialReporter(trial, n_epochs=3, metric="val_accuracy")
    reporter.report(EpochLog(0, 0.1, 1.0, 1.0, 0.5))
    reporter.report(EpochLog(1, 0.1, math.nan, math.nan))
    assert math.isnan(study.trials[0].intermediate_values[1])
    with pytest.raises(ValueError, match=r"metric 'val_accuracy', but it is None in .* an accuracy needs outputs"):
        reporter.report(EpochLog(2, 0.1, 1.0, 1.0))


def test_an_epoch_may_be_one_of_numpys_integers() -> None:
    study = optuna.create_study()
    trial = study.ask()
    for epoch in np.arange(2):
        report_epoch(trial, epoch, val_loss=1.0, n_epochs=2)
    assert [row.log.epoch for row in read_rows(study.trials[0])] == [0, 1]


def test_counts_may_be_numpys(tmp_path: Path) -> None:
    study = optuna.create_study(storage=f"sqlite:///{tmp_path / 'study.db'}")
    reporter = TrialReporter(study.ask(), n_epochs=np.int64(5), n_classes=np.array([0, 2]).max() + 1)  # type: ignore[arg-type]
    reporter.report(LOG)
    curve = read_curve(study.trials[0])
    assert curve is not None
    assert (curve.n_epochs, curve.n_classes) == (5, 3)


@pytest.mark.parametrize("how", ["reporter", "one line"])
def test_a_report_beyond_the_planned_epochs_is_warned_of_once(how: str) -> None:
    trial = optuna.create_study().ask()
    reporter = TrialReporter(trial, n_epochs=20)

    def report(epoch: int) -> None:
        if how == "reporter":
            reporter.report(EpochLog(epoch, 0.1, 0.9, 1.0))
        else:
            report_epoch(trial, epoch, val_loss=1.0, n_epochs=20)

    report(20)  # counted from 1
    with pytest.warns(UserWarning, match=r"`epoch` should be at most .* got epoch=100, n_epochs=20: pass") as warned:
        report(100)
    assert warned[0].filename == __file__
    report(200)
    plain = optuna.create_study().ask()
    plain.report(1.0, 50)  # says nothing of epochs
    with pytest.warns(UserWarning, match="got epoch=21, n_epochs=20"):
        report_epoch(plain, 21, val_loss=1.0, n_epochs=20)
    report_epoch(optuna.create_study().ask(), 100, val_loss=1.0)
    TrialReporter(optuna.trial.FixedTrial({}), n_epochs=1).report(EpochLog(1, 0.1, 0.9, 1.0))


def test_a_report_beyond_the_planned_epochs_of_a_former_attempt_silences_no_warning() -> None:
    study = optuna.create_study()
    inherited = {f"{trial_record.ROW_PREFIX}30": [None, None, 1.0, None, None, 7]}
    waiting, reports = optuna.trial.TrialState.WAITING, {30: 1.0}
    study.add_trial(optuna.create_trial(state=waiting, system_attrs=inherited, intermediate_values=reports))
    with pytest.warns(UserWarning, match="got epoch=31, n_epochs=20"):
        report_epoch(study.ask(), 31, val_loss=1.0, n_epochs=20)


def test_reports_beyond_the_planned_epochs_do_not_read_the_whole_trial_each(monkeypatch: pytest.MonkeyPatch) -> None:
    study = optuna.create_study(pruner=optuna.pruners.NopPruner())
    trial, whole, reads = study.ask(), study._storage.get_trial, list[int]()

    def get_trial(trial_id: int) -> optuna.trial.FrozenTrial:
        reads.append(trial_id)
        return whole(trial_id)

    monkeypatch.setattr(study._storage, "get_trial", get_trial)

    def reads_of(epochs: range) -> int:
        reads.clear()
        for epoch in epochs:
            report_epoch(trial, epoch, val_loss=1.0, n_epochs=4)
        return len(reads)

    reads_of(range(1))
    within = reads_of(range(1, 4))
    with pytest.warns(UserWarning, match="`epoch` should be at most"):
        assert reads_of(range(5, 8)) == within


def test_a_study_of_several_objectives_takes_no_reports_and_is_told_so() -> None:
    trial = optuna.create_study(directions=["minimize", "minimize"]).ask()
    with pytest.raises(UnsupportedStudyError, match=r"one objective, .* has 2: optimise one, or report no epochs"):
        TrialReporter(trial, n_epochs=1)
    with pytest.raises(UnsupportedStudyError, match="one objective"):
        report_epoch(trial, 0, val_loss=1.0)
