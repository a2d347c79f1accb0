"""The replay of recorded curves: its fast way is the pruner's, and its tables come from files alone."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from optuna_discipline import DisciplinedPruner
from optuna_discipline import EpochLog
from optuna_discipline import LossCurve

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def _benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


def _group(name: str) -> Any:
    from benchmarks.pruner_curves import read_own

    return next(group for group in read_own() if group.name == name)


@pytest.mark.parametrize("metric", ["val_loss", "val_accuracy"])
@pytest.mark.parametrize("name", ["fashion-deep, 1cycle, wide", "digits-cnn, step, narrow"])
def test_the_pure_rule_lets_every_run_live_as_the_real_pruner_in_a_real_study_does(name: str, metric: str) -> None:
    from benchmarks.pruner_replay import replay
    from benchmarks.pruner_rule import PreparedGroup

    group = _group(name)
    prepared = PreparedGroup(group, metric)
    for seed in range(2):
        real = replay(group, DisciplinedPruner(), metric, seed)
        assert prepared.replay(seed).tolist() == real.lived.tolist()
        assert real.saved > 0.05


def test_2240_recorded_runs_have_their_whole_length_and_four_schedules() -> None:
    from benchmarks.pruner_curves import read_own

    groups = list(read_own())
    assert sum(len(group.curves) for group in groups) >= 2240
    assert {group.schedule for group in groups} == {"1cycle", "cosine", "constant", "step"}
    assert {group.part for group in groups} == {"development", "held out", "fresh"}
    assert all(len(curve) == curve.n_epochs for group in groups for curve in group.curves)
    assert sum(path.stat().st_size for path in (ROOT / "benchmarks/results/pruner_replay").iterdir()) < 2e6


def test_a_recording_that_breaks_is_no_group_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    from benchmarks import pruner_curves
    from benchmarks import pruner_tasks

    task = pruner_tasks.TASKS[0]
    monkeypatch.setattr(pruner_tasks, "TASKS", (task,))
    monkeypatch.setattr(pruner_tasks, "SCHEDULES", ("1cycle",))
    monkeypatch.setattr(pruner_tasks, "train", lambda *_: np.full((4, task.n_epochs), 0.5))

    def full_disk(*_: object) -> None:
        raise OSError("no space")

    with monkeypatch.context() as broken:
        broken.setattr("os.replace", full_disk)
        with pytest.raises(OSError, match="no space"):
            pruner_curves.record(tmp_path)
    assert list(tmp_path.iterdir())
    assert not list(pruner_curves.read_own(tmp_path))
    pruner_curves.record(tmp_path)
    groups = list(pruner_curves.read_own(tmp_path))
    assert [group.name for group in groups] == [f"{task.name}, 1cycle, {box}" for box in sorted(pruner_tasks.BOXES)]
    assert {curve.logs[0].train_loss for group in groups for curve in group.curves} == {0.5}
    assert all(path.suffix == ".npz" for path in tmp_path.iterdir())


def test_regret_counts_the_best_completed_run_and_savings_the_epochs() -> None:
    from benchmarks.pruner_curves import Group
    from benchmarks.pruner_replay import outcome

    ends = (0.1, 0.2, math.nan)
    curves = tuple(
        LossCurve(tuple(EpochLog(i, 0.1, 1.0, end, 1 - end) for i in range(4)), 4, n_classes=10) for end in ends
    )
    group = Group("name", "constant", "wide", "fresh", curves)
    assert outcome(group, "val_loss", np.array([4, 4, 1])).regret == 0
    lost = outcome(group, "val_loss", np.array([2, 4, 2]))
    assert (lost.regret, lost.saved) == (pytest.approx(1.0), pytest.approx(1 / 3))
    assert outcome(group, "val_accuracy", np.array([2, 4, 2])).regret == pytest.approx(0.1)
    assert outcome(group, "val_loss", np.array([1, 1, 1])).regret == 1


@pytest.mark.parametrize(
    ("train", "at"),
    [([2.0, 1.0, 2.5, 2.4, 2.3], 2), ([2.0, 1.0, math.nan, math.nan], 2), ([9.0, 2.4, 2.3], 0), ([2.303] * 4, None)],
)
def test_a_break_is_told_with_hindsight(train: list[float], at: int | None) -> None:
    from benchmarks.pruner_divergence import broke_at

    curve = LossCurve(tuple(EpochLog(i, 0.1, loss, loss) for i, loss in enumerate(train)), len(train), n_classes=10)
    assert broke_at(curve) == at
    assert broke_at(LossCurve((EpochLog(0, 0.1, 1.0, 1.0),), 1, n_classes=10)) is None


def test_the_tables_are_made_from_the_stored_rows() -> None:
    from benchmarks import pruner_table
    from benchmarks.pruner_replay import read_rows

    text = pruner_table.write(read_rows())
    assert "| ours | " in text
    assert "| Median | " in text
    readme = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    for line in text.splitlines():
        if line.startswith("| ours"):
            assert line in readme, line
