"""Two processes over gloo, one run for all tests: started once, because a start costs seconds."""

import json
import math
import os
import runpy
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest

from benchmarks.servers import free_port
from optuna_discipline import DisciplineError
from optuna_discipline import optimize_on_ranks

torch = pytest.importorskip("torch")
ROOT = Path(__file__).parents[2]
SECONDS = 240


def run(url: str, folder: Path) -> list[dict[str, Any]]:
    """Return what each of two ranks saw."""
    environment = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    program = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("two_ranks.py"), url, folder],
        env={**environment, "PYTHONPATH": path},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        _, told = program.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(program.pid, signal.SIGKILL)  # its ranks too
        _, told = program.communicate()
    assert program.returncode == 0, told[-3000:]
    return [json.loads((folder / f"{rank}.json").read_text(encoding="utf-8")) for rank in range(2)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="ranks are forked")
def test_two_ranks_decide_stop_and_fail_as_one(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    first, second = run(url, tmp_path)

    # every rank sees the same trials, and is pruned at the same epoch
    assert first["decisions"] == second["decisions"]
    assert [entry[-1] for entry in first["decisions"]] == [2, 1, 2, 2]

    # an error of rank 0 is raised on every rank
    assert first["errors"][0] == "DriverError: server gone"
    assert second["errors"][0] == "DisciplineError: DriverError on rank 0: server gone"
    assert first["errors"][1:] == second["errors"][1:]
    assert first["errors"][1] == "OSError: disk full"
    assert "both are None" in first["errors"][2]

    # an error holds nothing for longer than it lives; Optuna keeps its own of rank 0
    assert first["freed"][-1]
    assert second["freed"] == [True] * 3

    # a group has a first rank of its own, which alone may do what takes all ranks
    assert (first["group_of_its_own"], second["group_of_its_own"]) == ([], [None, 0])

    # a loss that breaks on one rank stops all of them at the same step
    assert [log[0] for log in first["one_sided_nan"]] == [0, 1]
    assert first["one_sided_nan"][0] == second["one_sided_nan"][0]
    assert all(math.isnan(rank["one_sided_nan"][1][1]) for rank in (first, second))

    assert first["shares"] == second["shares"] == [2.0, 1.0, 7, 0.0]
    assert first["misuse"] == second["misuse"] == "`trial` must be a trial on rank 0 and None on the others"

    # range tests and find_lr have one answer, also without a seed, and stop at the same update
    assert first["range_tests"] == second["range_tests"]
    assert [entry[-1] for entry in first["range_tests"][:3]] == ["diverged", "diverged", "non-finite loss"]
    assert first["skipped_updates"] == second["skipped_updates"] == ["end of range", 2, 3]
    assert first["batch_sizes"] == second["batch_sizes"]
    assert first["batch_sizes"][0] == 8

    # unequal shares are refused on every rank, before one waits for the other
    assert first["unequal"] == second["unequal"]
    assert len(first["unequal"]) == 2
    assert all("on every rank, but they have [2, 3]: give each rank" in error for error in first["unequal"])

    # an end on one rank is the trial's, and an error that is not caught is the job's
    assert first["one_sided_ends"][0] == ["FAIL", "PRUNED", "FAIL", "COMPLETE", "FAIL"]
    assert first["one_sided_ends"][1] == "DisciplineError: OSError on rank 1: disk full"
    assert second["one_sided_ends"][1] == "OSError: disk full"

    # a call that another rank does not make is an error on every rank, before one gets another's answer
    assert first["unequal_calls"][:-1] == second["unequal_calls"][:-1]
    assert "rank 0 called suggest_float('lr') and rank 1 suggest_float('momentum'): make" in first["unequal_calls"][0]
    assert "rank 0 called report and rank 1 should_prune: make" in first["unequal_calls"][1]
    assert first["unequal_calls"][2:] == [["FAIL", "FAIL", "COMPLETE"]]

    # what only rank 0 can have, or can do alone, is asked of all before anything begins
    assert first["refused_studies"] == second["refused_studies"]
    assert [error.partition(", but ")[2].partition(":")[0] for error in first["refused_studies"]] == [
        "is one on ranks [0, 1]",
        "is one on no rank",
        *["got a function, which rank 0 would run while the others wait"] * 2,
        "",
    ]

    assert first["callback_error"] == "OSError: disk full"
    assert second["callback_error"] == "DisciplineError: OSError on rank 0: disk full"

    # the example trains
    assert (first["example"], second["example"]) == (2, 0)
    study = optuna.load_study(study_name="ddp", storage=url)
    assert all(trial.value is not None and trial.value < 1.5 for trial in study.trials)
    study._storage.remove_session()


def test_without_a_process_group_nothing_begins() -> None:
    study = optuna.create_study()
    with pytest.raises(DisciplineError, match="has joined no others: start all by torchrun"):
        optimize_on_ranks(study, lambda _: 1.0, n_trials=1)
    assert study.trials == []


@pytest.mark.parametrize(("gpus", "devices"), [(0, ["cpu", "cpu"]), (1, ["cpu", "cpu"]), (2, ["cuda:0", "cuda:1"])])
def test_the_example_takes_gpus_where_each_rank_has_one(
    gpus: int, devices: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    own_device = runpy.run_path(str(ROOT / "examples" / "ddp.py"))["own_device"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    for rank, device in enumerate(devices):
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        assert str(own_device()) == device
