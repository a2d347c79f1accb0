"""A formula that behaves like a training, its study, and what a study went through: for the sampler's tests."""

import math
from typing import Any

import optuna
import pytest
from optuna.trial import Trial

from optuna_discipline import DisciplinedPruner
from optuna_discipline import DisciplinedSampler
from optuna_discipline import Recipe
from optuna_discipline.rules import search_state

STAGES = ["lr", "confirm", "replicate", "momentum", "weight_decay", "batch_size", "refine"]


def formula(
    lr: float, momentum: float = 0.95, weight_decay: float = 1e-4, batch_size: float = 64, share: float = 1
) -> float:
    step = math.log10(lr / (1 - momentum) / 4)
    bowl = 0.2 * step**2 + 0.05 * (math.log10(weight_decay) + 3.5) ** 2 + 0.02 * math.log2(batch_size / 64) ** 2
    return 2.3 if step > 0.9 else min(2.3, 0.2 + bowl + 0.3 * (1 - share))


def five_roles(trial: Trial) -> float:
    lr = trial.suggest_float("lr", 1e-5, 10, log=True)
    momentum = trial.suggest_float("momentum", 0.8, 0.99)
    weight_decay = trial.suggest_float("weight_decay", 1e-7, 1e-1, log=True)
    batch_size = trial.suggest_categorical("batch_size", [16, 32, 64, 128, 256])
    epochs = trial.suggest_int("epochs", 1, 16)
    return formula(lr, momentum, weight_decay, batch_size, epochs / 16)


def new_study(sampler: DisciplinedSampler | None = None, **settings: Any) -> optuna.Study:
    return optuna.create_study(
        sampler=sampler or DisciplinedSampler(Recipe(short=0.25), seed=0), pruner=DisciplinedPruner(), **settings
    )


def stages_of(study: optuna.Study) -> list[str]:
    return list(dict.fromkeys(trial.user_attrs["stage"] for trial in study.trials))


def model_quickly() -> DisciplinedSampler:
    """Return a sampler whose refinement costs nothing, for tests of everything else."""
    return DisciplinedSampler(Recipe(short=0.25), seed=0, refine_sampler=optuna.samplers.RandomSampler(seed=0))


def with_dropout(trial: Trial) -> float:
    return formula(trial.suggest_float("lr", 1e-6, 10, log=True)) + 0.1 * trial.suggest_float("dropout", 0, 0.5)


def before_the_far_turn(monkeypatch: pytest.MonkeyPatch) -> optuna.Study:
    """Return a study of `with_dropout` whose next trial is to run the best one at a rate far from all tried."""
    monkeypatch.setattr(search_state, "ENOUGH_TO_LEARN", 6)
    study = optuna.create_study(sampler=DisciplinedSampler(seed=0))
    study.optimize(with_dropout, n_trials=search_state.FAR_TURN - 1)
    return study
