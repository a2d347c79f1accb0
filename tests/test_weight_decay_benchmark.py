"""The tables of the weight-decay benchmarks are made from files alone, and their words mean what they say."""

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")

from benchmarks import decay_and_rate  # noqa: E402
from benchmarks import selectors  # noqa: E402
from benchmarks import weight_decay_snapshot  # noqa: E402
from benchmarks import weight_decay_studies  # noqa: E402
from benchmarks import weight_decay_table  # noqa: E402
from benchmarks.duel.tasks import Task  # noqa: E402
from benchmarks.duel.tasks import mlp  # noqa: E402
from benchmarks.weight_decay import GRID  # noqa: E402
from benchmarks.weight_decay import read  # noqa: E402
from benchmarks.weight_decay import record  # noqa: E402
from benchmarks.weight_decay_table import Grid  # noqa: E402
from benchmarks.weight_decay_table import search  # noqa: E402

PAIR = "mlp-256"  # a name that the benchmark knows


@pytest.fixture(scope="module")
def task() -> Task:
    x = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    part = (x, (x.sum(dim=1) > 0).long())
    return Task(PAIR, (part, part, part), lambda: mlp(4, 2, 4), epochs=4, batch_size=30)


def _result(best: float, noise: float = 0.0) -> dict[str, Any]:
    """Return a made-up result: one valley in the exponent of the weight decay."""
    losses = {x: 1 + 0.5 * abs(GRID.index(x) - GRID.index(best)) for x in GRID}
    grid = {str(x): [[loss + noise * (i - 1) * (x == best), 0.1] for i in range(3)] for x, loss in losses.items()}
    sizes = {"depth": 3, "n_samples": 900, "n_parameters": 99, "n_classes": 2, "input_size": 4}
    return {**sizes, "part": "development", "lr": 0.1, "grid": grid}


def test_a_grid_says_what_is_bracketed_hit_and_lost() -> None:
    grid = Grid(_result(1e-2))
    assert grid.best == 1e-2
    assert grid.hits([1e-2, 1e-3])
    assert grid.brackets([1e-1, 1e-3])
    assert not grid.hits([1e-1, 1e-3])
    assert not grid.brackets([1e-3, 0.0])
    assert grid.regret_of([3e-3]) == pytest.approx(0.5)
    assert grid.plateau() == (1e-2, 1e-2)
    assert grid.values[grid.nearest(0.0)] == 0.0
    assert Grid(_result(1e-2, noise=1.0)).plateau() == (1e-3, 1e-1)  # what the noise hides is as good


@pytest.mark.parametrize("best", [3e-2, 1e-1])
def test_bisection_and_extrapolation_find_a_best_off_the_candidates(best: float) -> None:
    axes = weight_decay_table.SEARCHES
    plain, plain_cost = search(Grid(_result(best)), axes["by complexity"](_result(best)), 0)
    walked, cost = search(Grid(_result(best)), axes["by complexity, then bisect and extrapolate"](_result(best)), 0)
    assert (plain, plain_cost) == (1e-2, 2)
    assert walked == best
    assert cost <= 4


def test_a_recording_goes_on_where_it_stopped_and_its_table_is_made_from_files(
    task: Task, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record(task, tmp_path / f"{PAIR}.json")
    before = (tmp_path / f"{PAIR}.json").read_bytes()
    record(task, tmp_path / f"{PAIR}.json")
    assert (tmp_path / f"{PAIR}.json").read_bytes() == before
    results = read(tmp_path)
    assert list(results[PAIR]["grid"]) == [str(x) for x in GRID]
    held_out = {**results[PAIR], "part": "held out"}
    weight_decay_table.show({**results, "other": held_out})
    out = capsys.readouterr().out
    assert f"| {PAIR} | development | 2 | 60 |" in out
    assert "by complexity, then bisect and extrapolate" in out


def test_restarts_and_selectors_are_compared_by_what_whole_trainings_show(
    task: Task, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (weight_decay_snapshot, selectors):
        monkeypatch.setattr(module, "SEEDS", (10,))
    monkeypatch.setattr(selectors, "TRUE_SEEDS", (0,))
    weight_decay_snapshot.record(task, 0.1, tmp_path / "restarts" / f"{PAIR}.json")
    restarts = json.loads((tmp_path / "restarts" / f"{PAIR}.json").read_text())["seeds"]["10"]["restarts"]
    assert {name: restart["share"] for name, restart in restarts.items()} == {
        "0.25": 0.25,
        "0.5": 0.5,
        "0.75": 0.75,
        "plateau": 0.5,
    }
    weight_decay_snapshot.show(tmp_path / "restarts", {PAIR: _result(1e-2)})
    assert "| restart, 0.75 | 1 |" in capsys.readouterr().out
    selectors.record(task, 0.1, tmp_path / "selectors" / f"{PAIR}.json")
    selectors.show(tmp_path / "selectors")
    out = capsys.readouterr().out
    assert "**momentum**, 1 pairs" in out
    assert "| range tests |" in out


def test_studies_are_judged_by_their_best_whole_trial_trained_anew(
    task: Task, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weight_decay_studies, "SEEDS", (0,))
    monkeypatch.setattr(weight_decay_studies, "CHECKPOINTS", (1, 2))
    weight_decay_studies.record(task, tmp_path / f"{PAIR}.json")
    studies = json.loads((tmp_path / f"{PAIR}.json").read_text())["studies"]
    assert set(studies) == {"runs-0", "snapshot-0"}
    assert studies["runs-0"]["retrained"] == studies["snapshot-0"]["retrained"]  # no weight decay has been searched yet
    (tmp_path / "other.json").write_text(json.dumps({"pair": "other", "studies": studies}))
    weight_decay_studies.show(tmp_path)
    assert "| snapshot | 0.0" in capsys.readouterr().out


def test_a_weight_decay_is_judged_at_the_rates_that_suit_it(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(decay_and_rate, "LOADERS", {"duel": lambda root: ({task.name: task}, [])})
    row = json.loads(json.dumps(decay_and_rate.record("duel", task.name, None)))
    rates = [float(lr) for lr in row["losses"]["0.0001"]]
    assert [round(rate / 0.1, 2) for rate in rates] == [0.11, 0.33, 1.0, 3.0, 9.0]
    assert set(row["losses"]) == {"0.0001", "1e-06", "0.001", "0.01"}
    row["losses"] |= {"0.001": {str(row["best_lr"]): 0.5, str(3 * row["best_lr"]): 0.2}}
    row["losses"]["0.0001"][str(row["best_lr"])] = 0.1
    assert decay_and_rate.ratios(row)["0.001"] == pytest.approx((5.0, 2.0))
    (tmp_path / "known.json").write_text(json.dumps([row]))
    monkeypatch.setattr("sys.argv", ["decay_and_rate", "--out", str(tmp_path / "known.json")])
    assert decay_and_rate.main() == 0
    assert "| sgd | 1 | 0.001 | 5.000, 5.000 | 2.000, 2.000 |" in capsys.readouterr().out
