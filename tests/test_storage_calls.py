"""What a trial and an epoch ask of the storage: how often, and how large; the numbers stand in benchmarks/README.md."""

import collections
import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import optuna
import pytest
import sqlalchemy
from optuna.storages import BaseStorage
from optuna.storages import InMemoryStorage
from optuna.storages import RDBStorage

from optuna_discipline import DisciplinedPruner
from optuna_discipline import DisciplinedSampler
from optuna_discipline import EpochLog
from optuna_discipline import RangeTest
from optuna_discipline import Recipe
from optuna_discipline import TrialReporter
from optuna_discipline import publish
from optuna_discipline import suggest_hyperparams

MYSQL_BYTES, KEY_CHARACTERS = 65_535, 512
N_PARAMETERS = 5


class CountingStorage(BaseStorage):
    """A storage in memory that counts its calls by name and keeps every attribute written."""

    def __init__(self) -> None:
        self.inner = InMemoryStorage()
        self.calls: collections.Counter[str] = collections.Counter()
        self.attributes: list[tuple[str, str]] = []

    def counted(self, name: str, *args: Any, **kwargs: Any) -> Any:
        self.calls[name] += 1
        if name.endswith("_attr"):
            self.attributes.append((args[1], json.dumps(args[2])))
        return getattr(self.inner, name)(*args, **kwargs)

    @property
    def writes(self) -> int:
        return sum(n for name, n in self.calls.items() if name.startswith(("set_", "create_")))


def _delegate(name: str) -> Any:
    return lambda self, *args, **kwargs: self.counted(name, *args, **kwargs)


for _name in BaseStorage.__abstractmethods__:
    setattr(CountingStorage, _name, _delegate(_name))
CountingStorage.__abstractmethods__ = frozenset()


def objective(trial: optuna.Trial, n_epochs: int) -> float:
    p = suggest_hyperparams(trial, lr=(0.05, 0.2), momentum=(0.8, 0.95), epochs=n_epochs)
    reporter = TrialReporter(trial, n_epochs=n_epochs, n_classes=10)
    for epoch in range(n_epochs):
        loss = abs(math.log(p.max_lr / (1 - p.momentum))) + (n_epochs - epoch) / n_epochs
        reporter.report(EpochLog(epoch, p.max_lr, loss, loss))
    return loss


def new_study(storage: Any, *stages: Any, range_test: RangeTest | None = None) -> optuna.Study:
    sampler = DisciplinedSampler(
        Recipe(stages=stages or ("lr", "momentum", "refine")),
        range_test=range_test,
        refine_sampler=optuna.samplers.TPESampler(n_startup_trials=1, multivariate=True, seed=0),
        seed=0,
    )
    return optuna.create_study(storage=storage, sampler=sampler, pruner=DisciplinedPruner())


def spent(n_epochs: int, *stages: Any) -> tuple[int, int]:
    """Return the calls and the writes of a trial."""
    storage, n_trials = CountingStorage(), 4
    study = new_study(storage, *stages)
    study.optimize(lambda trial: objective(trial, n_epochs), n_trials=n_trials - 1)
    calls, writes = storage.calls.total(), storage.writes
    study.optimize(lambda trial: objective(trial, n_epochs), n_trials=1)
    return storage.calls.total() - calls, storage.writes - writes


@pytest.mark.parametrize("stage", ["lr", "momentum", "refine"])
def test_an_epoch_costs_two_writes_and_a_trial_seven_more_than_it_has_parameters(stage: str) -> None:
    (few_calls, few_writes), (many_calls, many_writes) = spent(4, stage), spent(24, stage)
    assert (many_writes - few_writes) / 20 == 2
    assert (many_calls - few_calls) / 20 <= 5
    assert few_writes - 4 * 2 <= 7 + N_PARAMETERS  # created, claim, stage, reason, run, verdict, ended
    assert few_calls - 4 * 4.9 <= 24


def test_a_trial_of_a_study_without_roles_costs_seven_writes_more_than_it_has_parameters() -> None:
    storage = CountingStorage()
    study = optuna.create_study(storage=storage, sampler=DisciplinedSampler(seed=0))
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    writes = storage.writes
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    assert storage.writes - writes == 7 + 1  # created, told, stage, reason, told, reason, ended


@pytest.fixture
def statements() -> Iterator[list[str]]:
    """Return the list that every SQL statement of every engine is added to."""
    heard: list[str] = []

    def hear(conn: Any, cursor: Any, statement: str, *_: Any) -> None:
        heard.append(statement)

    sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", hear)
    yield heard
    sqlalchemy.event.remove(sqlalchemy.Engine, "before_cursor_execute", hear)


def test_sql_statements_do_not_grow_with_the_study(statements: list[str]) -> None:
    storage = RDBStorage("sqlite://")
    study = new_study(storage)
    counts = []
    for _ in range(9):
        before = len(statements)
        study.optimize(lambda trial: objective(trial, 4), n_trials=1)
        counts.append(len(statements) - before)
    storage.remove_session()
    storage.engine.dispose()
    assert max(counts[3:]) <= max(counts[:3]), counts
    assert max(counts[1:]) <= 210, counts
    assert counts[0] <= 220, counts  # told what it is for before it asks, and when it does


def test_every_attribute_fits_a_column_of_mysql() -> None:
    pytest.importorskip("optuna_dashboard")
    long = RangeTest(np.geomspace(1e-5, 9, 1_000), np.full(1_000, 2 / 3), np.full(1_000, 1 / 3), "end of range")
    storage = CountingStorage()
    study = new_study(storage, "refine", range_test=long)

    def wide(trial: optuna.Trial) -> float:
        for index in range(100):
            trial.suggest_float(f"{index}-{'w' * 60}", 0, 1)
            trial.suggest_categorical(f"{index}-{'c' * 60}", ["é" * 40, "b"])
        return objective(trial, 2)

    study.optimize(wide, n_trials=3)
    publish(study)
    assert any("model" in text for key, text in storage.attributes if key == "discipline:claim")
    assert max(len(key) for key, _ in storage.attributes) <= KEY_CHARACTERS
    largest = max(storage.attributes, key=lambda attribute: len(attribute[1]))
    assert len(largest[1]) <= MYSQL_BYTES, largest[0]
