import math
import warnings

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from optuna_discipline import DisciplinedSampler
from optuna_discipline import RangeTest
from optuna_discipline import Recipe
from optuna_discipline import study_record
from optuna_discipline.range_test_record import RANGE_TEST_KEY
from optuna_discipline.trial_record import SETTINGS_KEY

LRS = np.geomspace(1e-4, 1, 40)
TEST = RangeTest(LRS, np.linspace(2.3, 0.1, 40), None, "end of range", initial_loss=2.3)


def run_trial(study: optuna.Study, epochs: int, value: float, *, done: int | None = None) -> None:
    """Run a trial of `epochs` epochs out of 8 that ends at `value`, or is pruned after `done` epochs."""
    trial = study.ask()
    trial.study.sampler = optuna.samplers.RandomSampler(seed=0)
    study.enqueue_trial({"epochs": epochs})
    study.tell(trial, state=TrialState.FAIL)
    trial = study.ask()
    trial.suggest_int("epochs", 1, 8)
    for epoch in range(epochs if done is None else done):
        trial.report(value, epoch)
    study.tell(trial, value if done is None else None, state=None if done is None else TrialState.PRUNED)


def test_a_range_test_is_kept_once_and_read_back_as_a_choice() -> None:
    study = optuna.create_study()
    assert study_record.read_choice(study) is None
    study.ask()
    study_record.keep_range_test(study, study.trials[0], TEST)
    study_record.keep_range_test(study, study.trials[0], lambda: pytest.fail("it has one already"))
    choice = study_record.read_choice(study)
    assert choice is not None
    assert choice.max_lr == TEST.max_lr


def test_whose_turn_the_range_test_is_is_not_asked_of_the_runs_once_there_is_one() -> None:
    study = optuna.create_study()
    study.ask()
    assert study_record.whose_range_test(study, 0, list) == "mine"
    study_record.keep_range_test(study, study.trials[0], TEST)
    assert study_record.whose_range_test(study, 1, lambda: pytest.fail("they were read")) == "nobody's"


@pytest.mark.parametrize("damaged", [{}, {"lrs": "x"}, {"lrs": [1], "train_loss": [], "stop_reason": ""}, 3, "text"])
def test_a_damaged_range_test_is_reported_and_left_out(damaged: object) -> None:
    study = optuna.create_study()
    study.add_trial(optuna.create_trial(value=1.0, system_attrs={RANGE_TEST_KEY: damaged}))
    with pytest.warns(UserWarning, match="range test is damaged and is left out"):
        assert study_record.read_choice(study) is None


def test_other_settings_are_reported_and_the_same_are_not() -> None:
    study = optuna.create_study(sampler=DisciplinedSampler())
    study.optimize(lambda t: t.suggest_float("lr", 1e-3, 1), n_trials=1)
    assert study.user_attrs[SETTINGS_KEY]["recipe"]["short"] == 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        study.sampler = DisciplinedSampler(seed=3)
        study.optimize(lambda t: t.suggest_float("lr", 1e-3, 1), n_trials=1)
    study.sampler = DisciplinedSampler(Recipe(short=0.5))
    with pytest.warns(UserWarning, match="was begun with other settings of DisciplinedSampler"):
        study.optimize(lambda t: t.suggest_float("lr", 1e-3, 1), n_trials=2)


def test_fields_that_only_another_version_knows_are_no_other_settings() -> None:
    study, recipe = optuna.create_study(), {"short": 1.0, "new": 2}
    study.set_user_attr(SETTINGS_KEY, {"recipe": {"short": 1.0, "lr_factor": 3.0}, "roles": {}, "gone": 1})
    study_record.keep_settings(study, {"recipe": recipe, "roles": {}})  # a warning fails
    for other in ({"recipe": {**recipe, "short": 0.5}, "roles": {}}, {"recipe": recipe, "roles": {"alpha": "lr"}}):
        with pytest.warns(UserWarning, match="was begun with other settings of DisciplinedSampler"):
            study_record.keep_settings(study, other)


def test_the_roles_that_were_told_are_read_without_what_is_none() -> None:
    study = optuna.create_study()
    assert study_record.told_roles(study) == {}
    study.set_user_attr(SETTINGS_KEY, {"roles": {"alpha": "lr", "n_epochs": None, "b": "evil", "c": [1]}})
    assert study_record.told_roles(study) == {"alpha": "lr", "n_epochs": None}
    for damage in ("damaged", {"roles": 3}, {}):
        study.set_user_attr(SETTINGS_KEY, damage)
        assert study_record.told_roles(study) == {}


def test_the_best_run_is_the_best_of_any_length_that_finished() -> None:
    study = optuna.create_study()
    assert study_record.best_run(study) is None
    for epochs, value in ((8, 0.4), (2, 0.3), (8, 0.35)):
        run_trial(study, epochs, value)
    run_trial(study, 8, 0.0, done=3)
    study.tell(study.ask(), float("-inf"))
    assert study_record.best_run(study).params == {"epochs": 2}  # type: ignore[union-attr]


def test_the_best_run_follows_the_direction() -> None:
    study = optuna.create_study(direction="maximize")
    for value in (0.4, 0.6, 0.5):
        run_trial(study, 8, value)
    assert study_record.best_run(study).value == 0.6  # type: ignore[union-attr]


def test_the_best_run_of_a_study_of_broken_values_is_none() -> None:
    for direction in ("minimize", "maximize"):
        study = optuna.create_study(direction=direction)
        study.tell(study.ask(), math.inf)
        study.tell(study.ask(), state=TrialState.PRUNED)
        assert study_record.best_run(study) is None


def test_the_best_run_keeps_its_constraints() -> None:
    study = optuna.create_study()
    for value in (1.0, 2.0):
        trial = study.ask()
        trial.set_constraint("memory", 1.5 - value)
        study.tell(trial, value)
    best = study_record.best_run(study)
    assert best is not None
    assert best.number == study.best_trial.number == 1


def test_what_is_no_range_test_is_said_to_be_none() -> None:
    study = optuna.create_study(sampler=DisciplinedSampler(range_test=lambda: None))  # type: ignore[arg-type,return-value]
    with pytest.warns(UserWarning, match="`range_test` must return a RangeTest, but got None"):
        study.optimize(lambda trial: trial.suggest_float("lr", 0.1, 1), n_trials=1)


@pytest.mark.parametrize(
    ("roles", "said"),
    [
        ({"learnign_rate": "lr"}, r"trial 0 has not asked for 'learnign_rate': correct the name"),
        ({"learnign_rate": "lr", "n_epoch": None, "rate": None}, r"trial 0 has not asked for 'learnign_rate'"),
        ({"rate": "lr"}, r"must name numbers, but 'rate' has .*'slow'.* without a role"),
    ],
)
def test_a_role_that_is_told_in_vain_is_warned_of_once(roles: dict[str, str | None], said: str) -> None:
    study = optuna.create_study(sampler=DisciplinedSampler(roles=roles))
    with pytest.warns(UserWarning, match=said) as warned:
        study.optimize(lambda trial: len(trial.suggest_categorical("rate", ["slow", "high"])), n_trials=2)
    assert len(warned) == 1


def test_the_first_complete_trial_warns_of_roles_told_in_vain() -> None:
    def objective(trial: optuna.Trial) -> float:
        if trial.number == 0:
            raise optuna.TrialPruned
        return trial.suggest_float("x", 0, 1)

    study = optuna.create_study(sampler=DisciplinedSampler(roles={"rate": "lr"}))
    with pytest.warns(UserWarning, match="trial 1 has not asked for 'rate'") as warned:
        study.optimize(objective, n_trials=3)
    study.sampler = DisciplinedSampler(roles={"rate": "lr"})  # goes on where others were complete
    study.optimize(objective, n_trials=1)
    assert sum("has not asked" in str(one.message) for one in warned) == 1  # Python 3.13 warns of files left open, too
