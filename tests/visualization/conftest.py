import math

import numpy as np
import optuna
import pytest

from optuna_discipline import DisciplinedPruner
from optuna_discipline import DisciplinedSampler
from optuna_discipline import EpochLog
from optuna_discipline import RangeTest
from optuna_discipline import Recipe
from optuna_discipline import TrialReporter
from optuna_discipline.trial_record import CLAIM_KEY

pytest.importorskip("plotly")


def objective(trial: optuna.Trial) -> float:
    lr = trial.suggest_float("lr", 1e-4, 10, log=True)
    momentum = trial.suggest_float("momentum", 0.8, 0.99)
    epochs = trial.suggest_int("epochs", 1, 8)
    reporter = TrialReporter(trial, n_epochs=epochs)
    level = 0.2 + 0.3 * math.log10(lr / (1 - momentum) / 4) ** 2
    for epoch in range(epochs):
        train = math.nan if lr > 2 else level * (1 + 3 / (epoch + 1)) - 0.1
        reporter.report(EpochLog(epoch, lr, train, train + 0.1))
    return train + 0.1


@pytest.fixture(scope="session")
def study() -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    lrs = np.geomspace(1e-4, 10, 50)
    test = RangeTest(lrs, np.where(lrs < 0.5, 2.3 - np.linspace(0, 2, 50), 6.0), None, "end of range", 2.3)
    sampler = DisciplinedSampler(
        Recipe(short=0.25), range_test=test, refine_sampler=optuna.samplers.RandomSampler(seed=0), seed=0
    )
    made = optuna.create_study(sampler=sampler, pruner=DisciplinedPruner(), study_name="bowl")
    made.optimize(objective, n_trials=16)
    made.enqueue_trial({"lr": 5.0})
    made.optimize(objective, n_trials=1)
    return made


@pytest.fixture
def empty() -> optuna.Study:
    return optuna.create_study(study_name="empty")


@pytest.fixture
def plain() -> optuna.Study:
    """A study of plain Optuna with running, failed and hostile trials."""
    made = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0), study_name="<script>alert(1)</script>")
    made.optimize(lambda t: t.suggest_float("x | y", 0, 1), n_trials=3)
    made.ask()
    made.tell(made.ask(), state=optuna.trial.TrialState.FAIL)
    trial = made.ask()
    claim = {"stage": "<img src=x onerror=alert(2)>|", "slot": "x"}
    made._storage.set_trial_system_attr(trial._trial_id, CLAIM_KEY, claim)
    trial.suggest_categorical("kind", ["<b>bold</b>", "plain"])
    made.tell(trial, -5.0)
    return made
