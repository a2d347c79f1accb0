"""Surrogates of recorded trainings: the recording is repeatable, the studies on it end where they should."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("sklearn")

from benchmarks import surrogate_tasks
from benchmarks import surrogates
from benchmarks.surrogate_tasks import KEYS
from benchmarks.surrogate_tasks import Surrogate
from optuna_discipline import DisciplinedSampler

CONFIG = dict(zip(KEYS, (0.05, 0.9, 1e-4, 128.0, 1.0, 32.0, 0.2), strict=True))


@pytest.fixture(scope="module")
def segment() -> dict[bool, Surrogate]:
    return surrogate_tasks.surrogates("segment", surrogates.RESULTS)


def test_a_training_learns_is_repeatable_and_ends_early_where_it_breaks() -> None:
    data = surrogate_tasks.load("cancer", Path())
    errors = surrogate_tasks.train(data, CONFIG, seed=3)
    assert errors == surrogate_tasks.train(data, CONFIG, seed=3)
    assert len(errors) == surrogate_tasks.EPOCHS
    assert errors[-1] < 0.1
    broken = surrogate_tasks.train(data, CONFIG | {"lr": 1e30}, seed=3)
    assert len(set(broken[-40:])) == 1


def test_a_recording_goes_on_where_it_stopped(tmp_path: Path) -> None:
    surrogate_tasks.record("cancer", Path(), tmp_path, 2)
    surrogate_tasks.record("cancer", Path(), tmp_path, 3)
    with np.load(tmp_path / "cancer.npz") as new, np.load(surrogates.RESULTS / "cancer.npz") as kept:
        assert new["configs"].tolist() == kept["configs"][:3].tolist()
        assert new["errors"].shape == (3, surrogate_tasks.EPOCHS)


@pytest.mark.parametrize("few", [True, False])
def test_a_study_ends_near_the_best_and_random_configurations_in_the_middle(
    segment: dict[bool, Surrogate], few: bool
) -> None:
    task = segment[few]
    assert task.regret(task.best) == 0
    assert task.regret(task.middle) == 1
    regrets = surrogates.run(task, DisciplinedSampler(seed=0), 0, noise=0.0, budget=6, report=True)
    assert regrets == sorted(regrets, reverse=True)
    assert regrets[-1] < 0.3
    noisy = surrogates.run(task, DisciplinedSampler(seed=0), 0, noise=1.0, budget=6, report=True)
    assert noisy != regrets


def test_methods_that_are_not_run_again_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(surrogate_tasks, "CANDIDATES", 1_000)  # what the regret is normalised by is not asked
    (tmp_path / "cancer.npz").write_bytes((surrogates.RESULTS / "cancer.npz").read_bytes())
    same = ["surrogates", "--out", str(tmp_path), "--tables", "cancer", "--seeds", "1", "--budget", "3", "--methods"]
    for method in ("random", "ours"):
        monkeypatch.setattr("sys.argv", [*same, method])
        assert surrogates.main() == 0
    last = capsys.readouterr().out.split("Seven parameters")[-1]
    assert "| ours | " in last
    assert "| random | " in last
