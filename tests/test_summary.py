import json

import optuna
import pytest

from optuna_discipline import DisciplinedSampler
from optuna_discipline import summary
from optuna_discipline.comparison import Score


@pytest.fixture
def study() -> optuna.Study:
    study = optuna.create_study(sampler=DisciplinedSampler(seed=0))
    study.optimize(lambda t: t.suggest_float("lr", 1e-3, 1, log=True) + t.suggest_int("epochs", 1, 8), n_trials=4)
    return study


def test_a_trial_is_one_line_with_stage_numbers_and_reason(study: optuna.Study) -> None:
    line = summary.trial_line(study.trials[0])
    assert line.startswith("  0 lr             2 epochs  lr 0.1")
    assert line.endswith("learning-rate ladder: where to start")
    assert "\n" not in line


def test_a_trial_of_another_sampler_is_a_line_too() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(lambda t: t.suggest_float("x", 0, 1), n_trials=1)
    assert "loss 0.5488" in summary.trial_line(study.trials[0])
    assert [line.split()[0] for line in summary.decision_lines(study)] == ["other"]


def test_every_stage_has_its_decision_in_order(study: optuna.Study) -> None:
    lines = list(summary.decision_lines(study))
    assert lines[0].startswith("lr            4 trials   best 2.")
    assert "lr 0.0" in lines[0]


def test_a_result_is_json(study: optuna.Study) -> None:
    scores = {"tuned": Score((1.0,), (0.9,))}
    result = json.loads(json.dumps(summary.as_json(study, study.best_trial, scores, None)))
    assert result["best_trial"] == study.best_trial.number
    assert result["scores"] == {"tuned": {"val_accuracy": [1.0], "test_accuracy": [0.9]}}
