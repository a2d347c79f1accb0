"""One line a decision, through Optuna's logging: heard at INFO, silent at WARNING."""

import logging
import math
from collections.abc import Iterator

import numpy as np
import optuna
import pytest

from optuna_discipline import DisciplinedPruner
from optuna_discipline import DisciplinedSampler
from optuna_discipline import EpochLog
from optuna_discipline import RangeTest
from optuna_discipline import TrialReporter

LRS = np.geomspace(1e-4, 10, 50)
TEST = RangeTest(LRS, np.where(LRS < 0.5, 2.3 - np.linspace(0, 2, 50), 6.0), None, "end of range", 2.3)


@pytest.fixture
def heard(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    optuna.logging.enable_propagation()
    optuna.logging.disable_default_handler()
    yield caplog
    optuna.logging.enable_default_handler()
    optuna.logging.disable_propagation()


def run_study() -> None:
    """Run two trials, the second of which diverges."""

    def objective(trial: optuna.Trial) -> float:
        lr = trial.suggest_float("lr", 1e-3, 10, log=True)
        reporter = TrialReporter(trial, n_epochs=4)
        for epoch in range(4):
            loss = math.nan if trial.number else 1 / (epoch + 1)
            reporter.report(EpochLog(epoch, lr, loss, loss))
        return loss

    study = optuna.create_study(sampler=DisciplinedSampler(range_test=TEST, seed=0), pruner=DisciplinedPruner())
    study.optimize(objective, n_trials=2)


def own_lines(heard: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in heard.records if "discipline" in record.name]


def test_every_decision_is_one_line_with_its_reason(heard: pytest.LogCaptureFixture) -> None:
    optuna.logging.set_verbosity(optuna.logging.INFO)
    with heard.at_level(logging.INFO):
        run_study()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    starts = ("LR range test: The smoothed", "Trial 0, stage lr: ", "Trial 1, stage lr: ", "Trial 1 pruned: ")
    lines = own_lines(heard)
    assert len(lines) == len(starts)
    for line, start in zip(lines, starts, strict=True):
        assert line.startswith(start)
        assert "\n" not in line
        assert len(line) > len(start)


def test_nothing_is_heard_at_warning(heard: pytest.LogCaptureFixture) -> None:
    run_study()
    assert own_lines(heard) == []
