from typing import Any

import optuna
import pytest
from optuna.trial import Trial

from optuna_discipline import DisciplinedSampler
from optuna_discipline import trial_record
from tests.formulas import before_the_far_turn
from tests.formulas import five_roles
from tests.formulas import formula
from tests.formulas import model_quickly
from tests.formulas import new_study
from tests.formulas import with_dropout


def _rates(trial: Trial) -> float:
    return formula(trial.suggest_float("lr", 1e-4, 10, log=True), trial.suggest_float("momentum", 0.8, 0.99))


def test_an_enqueued_trial_takes_the_length_of_the_best_run() -> None:
    study = new_study(DisciplinedSampler(seed=0))
    for epochs in (16, 4):
        study.enqueue_trial({"lr": 0.1, "epochs": epochs})
    study.enqueue_trial({"lr": 0.2})
    study.optimize(lambda t: t.suggest_float("lr", 1e-4, 1, log=True) + t.suggest_int("epochs", 1, 16), n_trials=3)
    assert study.trials[2].params == {"lr": 0.2, "epochs": 4}


def test_enqueued_values_are_used_and_the_rest_is_filled_in() -> None:
    study = new_study(model_quickly())
    study.enqueue_trial({"lr": 0.07})
    study.optimize(five_roles, n_trials=3)
    assert study.trials[0].params["lr"] == 0.07
    assert study.trials[0].user_attrs["stage"] == "enqueued"
    assert study.trials[0].params["momentum"] == 0.95
    assert study.trials[1].params["lr"] == pytest.approx(0.07)  # the ladder starts at what the user knows


def test_an_enqueued_trial_of_a_study_without_roles_keeps_its_reason() -> None:
    study = new_study()
    study.optimize(lambda t: t.suggest_float("x", -5, 5) ** 2, n_trials=2)
    study.enqueue_trial({"x": 4.5})
    study.optimize(lambda t: t.suggest_float("x", -5, 5) ** 2 + t.suggest_int("layers", 1, 3), n_trials=1)
    assert study.trials[-1].user_attrs["reason"] == "enqueued by the user"


@pytest.mark.parametrize(
    ("values", "stage", "reason"),
    [
        ({}, "momentum", "the model's choice of momentum"),
        ({"lr_typo": 0.2}, "enqueued", "; nothing asks for lr_typo"),
        ({"momentum": "the best"}, "enqueued", "it has run already, so the model chooses the rest: trial"),
        ({"momentum": 0.85}, "enqueued", "enqueued by the user"),
    ],
)
def test_what_makes_no_new_configuration_trains_none_twice(values: dict[str, Any], stage: str, reason: str) -> None:
    study = new_study()
    study.optimize(_rates, n_trials=4)
    best, asked = (
        study.best_params,
        {name: study.best_params[name] if x == "the best" else x for name, x in values.items()},
    )
    study.enqueue_trial(asked)
    study.optimize(_rates, n_trials=1)
    trial = study.trials[-1]
    assert (trial.user_attrs["stage"], reason in trial.user_attrs["reason"]) == (stage, True)
    assert all(trial.params != other.params for other in study.trials[:-1])
    assert all(trial.params.get(name, value) == value for name, value in asked.items())
    if values == {"momentum": 0.85}:  # a new configuration takes the best known values for the rest
        assert trial.params == {**best, **asked}


def test_names_that_nothing_has_asked_for_yet_are_enqueued_and_told_at_the_end() -> None:
    study = new_study()
    for values in ({"momentum": 0.9}, {"typo": 1}):
        study.enqueue_trial(values)
    study.optimize(_rates, n_trials=2)
    assert study.trials[0].params["momentum"] == 0.9
    assert study.trials[0].user_attrs["reason"] == "enqueued by the user"
    assert study.trials[1].user_attrs["reason"].endswith("; nothing asks for typo")
    first = optuna.create_study(sampler=DisciplinedSampler(seed=0))
    first.enqueue_trial({"typo": 1})
    first.optimize(_rates, n_trials=1)
    assert first.trials[0].user_attrs["reason"] == "enqueued by the user; nothing asks for typo"


def test_a_configuration_that_is_enqueued_as_a_whole_runs_as_it_is() -> None:
    study = new_study()
    for _ in range(2):
        study.enqueue_trial({"lr": 0.1, "momentum": 0.9})
    study.optimize(_rates, n_trials=2)
    assert study.trials[0].params == study.trials[1].params
    assert study.trials[1].user_attrs["reason"] == "enqueued by the user"


def test_an_enqueued_trial_takes_the_best_known_rate_also_where_it_is_the_turn_of_a_far_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    study = before_the_far_turn(monkeypatch)
    best = study.best_params["lr"]
    study.enqueue_trial({"dropout": 0.3})
    study.optimize(with_dropout, n_trials=1)
    assert study.trials[-1].params == {"lr": best, "dropout": 0.3}


@pytest.mark.parametrize(
    "own",
    [
        {"stage": "baseline", "reason": "table 3"},
        {"stage": "lr", "reason": "table 3"},
        {"stage": "refine", "reason": None},
        {"stage": "confirm"},
        {"stage": None},
        {"reason": "table 3"},
    ],
)
@pytest.mark.parametrize("name", ["lr", "x"])
def test_what_the_user_writes_under_our_names_stays_and_the_other_name_says_what_is_so(
    own: dict[str, Any], name: str
) -> None:
    with_own, without = new_study(), new_study()
    for study, attrs in ((with_own, own), (without, {})):
        study.enqueue_trial({name: 3.5}, user_attrs=attrs)
        study.enqueue_trial({name: 4.5}, user_attrs=attrs)
        study.enqueue_trial({}, user_attrs=attrs)
        study.enqueue_trial({"typo": 1}, user_attrs=attrs)
        study.optimize(lambda t: t.suggest_float(name, 0.1, 5), n_trials=4)
    for trial, other in zip(with_own.trials, without.trials, strict=True):
        assert trial.user_attrs == {**other.user_attrs, **own}
        assert trial_record.stage_of(trial) == other.user_attrs["stage"]
        assert trial_record.reason_of(trial) == other.user_attrs["reason"]
