import math

import optuna
import pytest
from optuna.trial import Trial
from optuna.trial import TrialState

from optuna_discipline import DisciplinedSampler
from optuna_discipline import trial_record
from optuna_discipline import what_ran
from tests.formulas import formula


def _layers(trial: Trial) -> float:
    widths = [trial.suggest_int(f"width{i}", 4, 128) for i in range(trial.suggest_int("n_layers", 1, 3))]
    return trial.suggest_float("dropout", 0.2, 0.5) + len(widths) - sum(widths) / 300


def test_without_roles_a_reason_names_what_its_trial_has() -> None:
    study = optuna.create_study(sampler=DisciplinedSampler(seed=0))
    study.enqueue_trial({"n_layers": 2})
    study.optimize(_layers, n_trials=10)
    reasons = [trial.user_attrs["reason"] for trial in study.trials]
    assert any("width0" in reason for reason in reasons)
    assert any(trial.params["n_layers"] == 1 for trial in study.trials)
    for trial, reason in zip(study.trials, reasons, strict=True):
        assert {name for name in ("width0", "width1", "width2") if name in reason} <= set(trial.params)


def test_without_roles_a_retry_names_what_it_has_and_still_what_it_retries() -> None:
    study = optuna.create_study(sampler=DisciplinedSampler(seed=0))
    study.enqueue_trial({"n_layers": 2, "width0": 60, "width1": 70, "dropout": 0.2})
    study.optimize(_layers, n_trials=1)
    words = "model-based search around the best full run: trial 0, but n_layers 2 to 1, width0 60 to 90"
    told = {"stage": "refine", "reason": f"{words}, width1 70 to 7"}
    retry = {trial_record.RETRY_MARK: 7, trial_record.TOLD_KEY: told}
    params = {"n_layers": 1, "width0": 90, "dropout": 0.2}
    distributions = {name: study.trials[0].distributions[name] for name in params}
    study.add_trial(
        optuna.create_trial(
            state=TrialState.WAITING,
            params=params,
            distributions=distributions,
            user_attrs=told,
            system_attrs=retry,
        )
    )
    study.optimize(_layers, n_trials=1)
    assert study.trials[1].user_attrs["reason"] == f"{words}; again, since trial 7 failed"


@pytest.mark.parametrize("end", [math.inf, None], ids=["infinite", "pruned"])
def test_a_trial_that_ends_before_it_asks_is_not_said_to_lack_a_role(end: float | None) -> None:
    def objective(trial: Trial) -> float:
        high, low = trial.suggest_float("high", 0.01, 1), trial.suggest_float("low", 0, 1)
        if low >= high:
            if end is None:
                raise optuna.TrialPruned
            return end
        return formula(trial.suggest_float("lr", 1e-4, 1, log=True), trial.suggest_float("momentum", 0.5, 0.99)) + low

    study = optuna.create_study(sampler=DisciplinedSampler(seed=0))
    study.optimize(objective, n_trials=6)
    reasons = [t.user_attrs["reason"] for t in study.trials if t.user_attrs["stage"] == "momentum"]
    assert reasons[0].endswith("; it ended before it asked for a momentum")
    assert not any("this network" in trial.user_attrs["reason"] for trial in study.trials)


@pytest.mark.parametrize(
    ("reason", "found"),
    [
        ("where to begin: each parameter at its usual value or in its middle", ("", None)),
        ("asked of TPESampler", ("", None)),
        ("model-based search far from all that has not run: trial 12 again", ("trial 12 again", 12)),
        ("model: trial 1, but word a to b: trial 2, but c", ("trial 1, but word a to b: trial 2, but c", 1)),
    ],
)
def test_moves_are_what_follows_the_trial_that_a_reason_names(reason: str, found: tuple[str, int | None]) -> None:
    assert what_ran.moves_in(reason) == found
    assert what_ran.moves_in(f"{reason}; again, since trial 3 failed") == found
