"""The example for clusters: one worker killed under Ray, a SLURM task without SLURM."""

import os
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from sqlalchemy.exc import IntegrityError
from sqlalchemy.exc import OperationalError

from examples import cluster

ROOT = Path(__file__).parent.parent
OBJECTIVE = """
import os

import signal
import time

number = 1


def objective(trial):
    trial.set_user_attr("pid", os.getpid())
    lr = trial.suggest_float("lr", 1e-3, 1, log=True)
    if trial.number == 1 and os.environ.get("DIES"):
        os.kill(os.getpid(), signal.SIGKILL)
    # Ray takes its time on a busy machine: the survivor leaves something to do for the worker that is started again.
    until = time.time() + 200 * bool(os.environ.get("DIES"))
    while time.time() < until and len({t.user_attrs.get("pid") for t in trial.study.trials} - {None}) < 3:
        time.sleep(0.2)
    return abs(lr - 0.1)
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "mine.py").write_text(OBJECTIVE, encoding="utf-8")
    path = os.pathsep.join([str(tmp_path), str(ROOT), os.environ.get("PYTHONPATH", "")])
    programs = os.pathsep.join([str(tmp_path), str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, "PYTHONPATH": path, "PATH": programs}


def test_ray_starts_a_killed_worker_again_and_the_study_is_finished(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    pytest.importorskip("ray", reason="pip install ray")
    url = f"sqlite:///{tmp_path}/study.db"
    command = [sys.executable, ROOT / "examples" / "cluster.py", "--storage", url, "--trials", "6", "--heartbeat", "1"]
    done = subprocess.run(
        [*command, "--objective", "mine:objective", "--ray", "2"],
        env={**environment, "DIES": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    study = optuna.load_study(study_name=None, storage=url)
    states = [trial.state for trial in study.trials]
    assert 6 <= states.count(TrialState.COMPLETE) <= 7
    assert states[1] in (TrialState.FAIL, TrialState.RUNNING)  # failed by the others' heartbeats, if there was time
    assert len({trial.user_attrs["pid"] for trial in study.trials}) >= 3
    assert study.trials[0].user_attrs["stage"] == "lr"
    study._storage.remove_session()


def test_a_task_of_slurm_is_a_worker(tmp_path: Path, environment: dict[str, str]) -> None:
    srun = tmp_path / "srun"
    srun.write_text('#!/bin/sh\nexec "$@"\n', encoding="utf-8")
    srun.chmod(0o755)
    url = f"sqlite:///{tmp_path}/study.db"
    asked = {"STORAGE": url, "TRIALS": "2", "OBJECTIVE": "mine:objective", "STUDY": "mine"}
    for _ in range(2):  # a requeued task finds that nothing is left to do
        subprocess.run([ROOT / "examples" / "slurm.sh"], env={**environment, **asked}, cwd=ROOT, check=True, timeout=60)
    study = optuna.load_study(study_name="mine", storage=url)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 2
    study._storage.remove_session()
    without = subprocess.run(
        [ROOT / "examples" / "slurm.sh"], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert without.returncode != 0
    assert "a database that every node reaches" in without.stderr


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"--objective": "mine"}, "--objective: must be MODULE:FUNCTION, such as my_module:objective, but got 'mine'"),
        ({"--objective": "mine:nothing"}, "--objective: module 'mine' has no attribute 'nothing'"),
        (
            {"--objective": "mine:number"},
            "--objective: must be a function, such as my_module:objective, but mine:number",
        ),
        (
            {"--storage": "postgresql://me:sec@ret@127.0.0.1:1/x"},
            "--storage: must not have an @ in its password: write",
        ),
        ({"--storage": "study.log"}, "--storage: must be the URL of a database, such as sqlite:///study.db, but got"),
        ({"--storage": "nonsense://host"}, "--storage: Can't load plugin: sqlalchemy.dialects:nonsense"),
    ],
)
def test_a_wrong_objective_or_storage_is_named_before_anything_is_stored(
    wrong: dict[str, str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "mine.py").write_text(OBJECTIVE, encoding="utf-8")  # in the current folder, as a user's is
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    given = {"--storage": "sqlite:///study.db", "--objective": "mine:objective", "--trials": "1", **wrong}
    monkeypatch.setattr(sys, "argv", ["cluster.py", *(word for pair in given.items() for word in pair)])
    with pytest.raises(SystemExit, match="2"):
        cluster.main()
    told = capsys.readouterr().err
    assert said in told
    assert "ret@" not in told
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".py" and path.is_file()] == []


class Refusing(RDBStorage):
    """A database that refuses as often as there are errors."""

    errors: ClassVar[list[Exception]] = []

    def __init__(self, url: str) -> None:
        if self.errors:
            raise self.errors.pop()
        super().__init__(url)


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    slept: list[float] = []
    monkeypatch.setattr(cluster, "RDBStorage", Refusing)
    monkeypatch.setattr(cluster.time, "sleep", slept.append)
    return slept


def test_tables_that_another_worker_makes_are_waited_for(slept: list[float]) -> None:
    Refusing.errors = [
        IntegrityError("INSERT", {}, Exception("UNIQUE")),
        OperationalError("CREATE", {}, Exception("table studies already exists")),
    ]
    cluster.make_tables("sqlite://")
    assert (Refusing.errors, len(slept)) == ([], 2)


def test_a_database_that_is_refused_is_tried_once(slept: list[float]) -> None:
    Refusing.errors = [OperationalError("CREATE", {}, Exception("database is locked"))]
    with pytest.raises(OperationalError, match="database is locked"):
        cluster.make_tables("sqlite://")
    assert slept == []
