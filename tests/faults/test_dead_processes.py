"""Workers as real processes that are killed, interrupted, or begin at the same moment."""

import contextlib
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.storages import BaseStorage
from optuna.storages import JournalStorage
from optuna.storages import RDBStorage
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from optuna_discipline import DisciplinedPruner
from optuna_discipline import DisciplinedSampler
from optuna_discipline import EpochLog
from optuna_discipline import RangeTest
from optuna_discipline import TrialReporter
from optuna_discipline import study_reader
from optuna_discipline.range_test_record import has_range_test
from optuna_discipline.trial_record import read_claim
from optuna_discipline.trial_record import read_curve

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning"),
]
LRS = np.geomspace(1e-4, 1, 60)
TEST = RangeTest(LRS, np.where(LRS < 0.1, 2.3 - np.linspace(0, 3, 60), 5.0), None, "end of range", initial_loss=2.3)
EPOCHS = 4


def sqlite(folder: Path, **settings: Any) -> BaseStorage:
    return RDBStorage(f"sqlite:///{folder}/study.db", **settings)


def journal(folder: Path) -> BaseStorage:
    return JournalStorage(JournalFileBackend(str(folder / "journal.log")))


def load(storage: BaseStorage, **settings: Any) -> optuna.Study:
    model = optuna.samplers.RandomSampler(seed=0)
    sampler = DisciplinedSampler(refine_sampler=model, seed=0, **settings)
    return optuna.create_study(
        study_name="s", storage=storage, sampler=sampler, pruner=DisciplinedPruner(), load_if_exists=True
    )


def objective(trial: optuna.Trial, reached: Callable[[str], None] | None = None) -> float:
    lr = trial.suggest_float("lr", 1e-5, 10, log=True)
    reporter = TrialReporter(trial, n_epochs=EPOCHS)
    if reached is not None:
        reached("stage")
    for epoch in range(EPOCHS):
        loss = (np.log10(lr) + 1) ** 2 + 1 / (epoch + 1)
        if epoch and reached is not None:  # the row is written, the report is not
            trial.report = lambda *_: reached("report")  # type: ignore[method-assign]
        reporter.report(EpochLog(epoch, lr, loss, loss))
    return float(loss)


class Process:
    """A worker in a process of its own that stops where it is told to and waits to be killed."""

    def __init__(self, open_storage: Callable[[], BaseStorage], where: str, n_trials: int = 9) -> None:
        context = multiprocessing.get_context("fork")
        self.there = context.Event()
        self.process = context.Process(target=self.work, args=(open_storage, where, n_trials), daemon=True)
        self.process.start()

    def work(self, open_storage: Callable[[], BaseStorage], where: str, n_trials: int) -> None:
        def reached(place: str) -> None:
            if place == where:
                self.there.set()
                time.sleep(60)

        def range_test() -> RangeTest:
            reached("range test")
            return TEST

        signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background inherits that it is ignored
        study = load(open_storage(), range_test=range_test)
        with contextlib.suppress(KeyboardInterrupt):
            study.optimize(lambda trial: objective(trial, reached), n_trials=n_trials)

    def end(self, number: int = signal.SIGKILL) -> None:
        assert self.there.wait(60), "the worker has not come so far"
        assert self.process.pid is not None
        os.kill(self.process.pid, number)
        self.process.join(60)
        assert self.process.exitcode is not None


def slots(study: optuna.Study) -> list[str | None]:
    claims = [read_claim(trial) for trial in study.trials]
    return [None if claim is None else claim["slot"] for claim in claims]


def overdue(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STALE_SECONDS", "FEW_SECONDS", "STALE_FACTOR", "UNDECIDED_FACTOR"):
        monkeypatch.setattr(study_reader, name, 0.0)


def states(study: optuna.Study) -> list[str]:
    return [trial.state.name for trial in study.trials]


@pytest.mark.parametrize("open_storage", [sqlite, journal])
def test_without_a_heartbeat_a_killed_workers_candidate_is_run_when_it_is_overdue(
    open_storage: Callable[[Path], BaseStorage], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = open_storage(tmp_path)
    study = load(storage)
    study.optimize(objective, n_trials=1)
    Process(lambda: open_storage(tmp_path), "stage").end()
    study.optimize(objective, n_trials=2)
    assert states(study) == ["COMPLETE", "RUNNING", "COMPLETE", "COMPLETE"]
    assert slots(study)[:3] == ["lr0:1", "lr0:2", "lr0:0.3333"]
    assert slots(study)[3] != "lr0:2"  # it may live
    overdue(monkeypatch)
    study.optimize(objective, n_trials=1)
    assert slots(study)[4] == "lr0:2"


def test_a_worker_killed_in_the_range_test_leaves_it_to_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # no heartbeat helps: it begins when a trial has been asked
    Process(lambda: journal(tmp_path), "range test").end()
    study = load(journal(tmp_path), range_test=TEST)
    assert (states(study), slots(study), has_range_test(study)) == (["RUNNING"], [None], False)
    study.optimize(objective, n_trials=1)
    assert (slots(study), has_range_test(study)) == ([None, "model"], False)
    overdue(monkeypatch)
    study.optimize(objective, n_trials=2)
    assert slots(study)[2:] == ["lr0:1", "lr0:2"]
    assert has_range_test(study)
    assert study.trials[2].params["lr"] == pytest.approx(TEST.max_lr)


def test_a_worker_killed_in_a_report_is_retried_where_it_was(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"heartbeat_interval": 1, "grace_period": 1}
    Process(lambda: sqlite(tmp_path, **settings), "report").end()
    retry = RetryHeartbeatStaleTrialCallback(max_retry=1)
    study = load(sqlite(tmp_path, **settings, heartbeat_stale_trial_callback=retry))
    killed = study.trials[0]
    assert len(killed.intermediate_values) == 1
    curve = read_curve(killed)
    assert curve is not None
    assert len(curve) == 2
    time.sleep(2.1)
    study.optimize(objective, n_trials=2)
    assert states(study) == ["FAIL", "COMPLETE", "COMPLETE"]
    assert slots(study)[:2] == ["lr0:1", "lr0:1"]
    again = study.trials[1]
    assert again.params == killed.params
    assert again.user_attrs["reason"] == killed.user_attrs["reason"] + "; again, since trial 0 failed"
    assert len(again.intermediate_values) == EPOCHS
    curve = read_curve(again)
    assert curve is not None
    assert [log.epoch for log in curve.logs] == list(range(EPOCHS))


@pytest.mark.parametrize("where", ["stage", "range test"])
def test_ctrl_c_fails_the_trial_and_the_study_goes_on_with_its_candidate(where: str, tmp_path: Path) -> None:
    worker = Process(lambda: journal(tmp_path), where)
    worker.end(signal.SIGINT)
    assert worker.process.exitcode == 0
    study = load(journal(tmp_path), range_test=TEST)
    assert states(study) == ["FAIL"]
    study.optimize(objective, n_trials=2)
    assert slots(study)[1] == "lr0:1"
    assert study.trials[1].params["lr"] == pytest.approx(TEST.max_lr)


def test_two_workers_begin_the_same_study_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(2)
    sqlite(tmp_path)  # the tables; Optuna makes them unprotected

    def work() -> None:
        storage = sqlite(tmp_path)
        barrier.wait(60)
        load(storage, range_test=TEST).optimize(objective, n_trials=3)

    processes = [context.Process(target=work, daemon=True) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    study = load(sqlite(tmp_path))
    assert [trial.number for trial in study.trials] == list(range(6))
    assert all(trial.state == TrialState.COMPLETE for trial in study.trials)
    candidates = [slot for slot in slots(study) if slot != "model"]
    assert len(candidates) == len(set(candidates))
    assert sum("discipline:range_test" in trial.system_attrs for trial in study.trials) == 1
