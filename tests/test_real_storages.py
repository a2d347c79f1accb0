"""The same study on every storage: SQLite, PostgreSQL, MariaDB, journals on a file and on Redis, and gRPC."""

import contextlib
import math
import tempfile
import threading
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.storages import BaseStorage
from optuna.storages import GrpcStorageProxy
from optuna.storages import JournalStorage
from optuna.storages import RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal import JournalRedisBackend

from benchmarks import servers
from optuna_discipline import DisciplinedPruner
from optuna_discipline import DisciplinedSampler
from optuna_discipline import EpochLog
from optuna_discipline import RangeTest
from optuna_discipline import TrialReporter
from optuna_discipline import publish
from optuna_discipline import suggest_hyperparams
from optuna_discipline.range_test_record import RANGE_TEST_KEY
from optuna_discipline.trial_record import read_claim
from optuna_discipline.trial_record import read_curve

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

Open = Callable[[], BaseStorage]
# Every step evaluated: more than one value of MySQL holds. Not sure of itself, so that the ladder goes up and diverges.
LONG_TEST = RangeTest(np.geomspace(1e-5, 9, 1_500), np.full(1_500, 2 / 3), np.full(1_500, 1 / 3), "end of range")
EPOCHS = 4


@contextlib.contextmanager
def rdb(url: str) -> Iterator[Open]:
    """Yield a function that opens the database anew, as another process would."""
    opened: list[RDBStorage] = []

    def connect() -> BaseStorage:
        opened.append(RDBStorage(url))
        return opened[-1]

    yield connect
    for storage in opened:
        storage.remove_session()
        storage.engine.dispose()


@contextlib.contextmanager
def sqlite(folder: Path) -> Iterator[Open]:
    with rdb(f"sqlite:///{folder}/study.db") as connect:
        yield connect


@contextlib.contextmanager
def postgresql(_: Path) -> Iterator[Open]:
    with servers.postgresql(durable=False) as url, rdb(url) as connect:
        yield connect


@contextlib.contextmanager
def mariadb(_: Path) -> Iterator[Open]:
    with servers.mariadb() as url, rdb(url) as connect:
        yield connect


@contextlib.contextmanager
def journal_file(folder: Path) -> Iterator[Open]:
    yield lambda: JournalStorage(JournalFileBackend(str(folder / "journal.log")))


@contextlib.contextmanager
def journal_redis(_: Path) -> Iterator[Open]:
    with servers.redis() as url:
        yield lambda: JournalStorage(JournalRedisBackend(url))


@contextlib.contextmanager
def grpc(folder: Path) -> Iterator[Open]:
    from optuna.storages._grpc.server import make_server  # the public function cannot be stopped

    port = servers.free_port()
    with rdb(f"sqlite:///{folder}/served.db") as connect:
        server = make_server(connect(), "localhost", port)
        server.start()
        proxies: list[GrpcStorageProxy] = []

        def proxy() -> BaseStorage:
            proxies.append(GrpcStorageProxy(port=port))
            return proxies[-1]

        try:
            yield proxy
        finally:
            for opened in proxies:
                opened.close()
            server.stop(None).wait()


NEEDS = {postgresql: "psycopg", mariadb: "pymysql", journal_redis: "redis", grpc: "grpc"}
KINDS = (sqlite, journal_file, journal_redis, grpc, postgresql, mariadb)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Return a folder in memory where there is one: a real disk makes every write wait."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as made:
        yield Path(made)


@contextlib.contextmanager
def opened(kind: Callable[[Path], Any], folder: Path) -> Iterator[Open]:
    if kind in NEEDS:
        pytest.importorskip(NEEDS[kind])
    with contextlib.ExitStack() as stack:
        try:
            connect = stack.enter_context(kind(folder))
        except servers.ServerMissingError as error:
            pytest.skip(str(error))
        yield connect


def objective(trial: optuna.Trial) -> float:
    p = suggest_hyperparams(trial, momentum=0.9, weight_decay=1e-4, epochs=EPOCHS)
    reporter = TrialReporter(trial, n_epochs=EPOCHS, n_classes=10)
    for epoch in range(EPOCHS):
        loss = math.inf if p.max_lr > 1 else abs(math.log(p.max_lr)) / (epoch + 1) + 1 / 3
        log = EpochLog(epoch, p.max_lr, loss, loss, 1 / 7)
        reporter.report(log)
    return loss


def new_sampler() -> DisciplinedSampler:
    return DisciplinedSampler(range_test=LONG_TEST, seed=0)


def tell(study: optuna.Study) -> list[Any]:
    """Return all that the study holds of us."""
    return [
        (trial.number, trial.state, trial.params, trial.user_attrs, read_claim(trial), read_curve(trial))
        for trial in study.trials
    ]


@pytest.fixture(scope="module")
def expected() -> list[Any]:
    study = optuna.create_study(sampler=new_sampler(), pruner=DisciplinedPruner())
    study.optimize(objective, n_trials=4)
    told = tell(study)
    assert {state.name for _, state, *_ in told} == {"COMPLETE", "PRUNED"}
    return told


def meet(connect: Open) -> list[Any]:
    """Let three workers begin at once on a study with one trial; return its trials."""
    errors: list[BaseException] = []
    study = optuna.create_study(study_name="met", storage=connect(), sampler=DisciplinedSampler(seed=0))
    study.optimize(lambda trial: trial.suggest_float("lr", 1e-5, 10, log=True), n_trials=1)
    barrier = threading.Barrier(3)

    def work(storage: BaseStorage) -> None:
        try:
            own = optuna.load_study(study_name="met", storage=storage, sampler=DisciplinedSampler(seed=0))
            barrier.wait(30)
            own.optimize(lambda trial: trial.suggest_float("lr", 1e-5, 10, log=True), n_trials=1)
        except BaseException as error:
            errors.append(error)

    workers = [threading.Thread(target=work, args=(connect(),)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not errors
    return study.trials


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_storage_gives_the_study_that_memory_gives_and_runs_no_candidate_twice(
    kind: Callable[[Path], Any], folder: Path, expected: list[Any]
) -> None:
    pytest.importorskip("plotly")
    pytest.importorskip("optuna_dashboard")
    with opened(kind, folder) as connect:
        for n_trials in (2, 2):  # the second worker has nothing but the storage
            study = optuna.create_study(
                study_name="s",
                storage=connect(),
                sampler=new_sampler(),
                pruner=DisciplinedPruner(),
                load_if_exists=True,
            )
            study.optimize(objective, n_trials=n_trials)
        publish(study)
        read = optuna.load_study(study_name="s", storage=connect())
        assert tell(read) == expected
        assert "parts" in read.trials[0].system_attrs[RANGE_TEST_KEY]
        assert any(key.startswith("dashboard:note_str") for key in read._storage.get_study_system_attrs(read._study_id))
        met = meet(connect)
    assert [trial.number for trial in met] == list(range(4))
    slots = [claim["slot"] for trial in met if (claim := read_claim(trial)) is not None]
    stages = [slot for slot in slots if slot != "model"]  # the third of three finds the ladder's two steps taken
    assert len(slots) == 4
    assert len(stages) == len(set(stages)) >= 2
