"""The benchmarks count what they spend, and make their tables from files alone."""

import argparse
import importlib
import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")

from benchmarks import ladder_replay  # noqa: E402
from benchmarks import lr_lean  # noqa: E402
from benchmarks import smooth  # noqa: E402
from benchmarks import workers  # noqa: E402
from benchmarks.duel import __main__ as duel  # noqa: E402
from benchmarks.duel import floor  # noqa: E402
from benchmarks.duel import fresh  # noqa: E402
from benchmarks.duel import held_out  # noqa: E402
from benchmarks.duel import table  # noqa: E402
from benchmarks.duel.methods import METHODS  # noqa: E402
from benchmarks.duel.run import ARCHITECTURE  # noqa: E402
from benchmarks.duel.run import incumbent  # noqa: E402
from benchmarks.duel.run import run_study  # noqa: E402
from benchmarks.duel.tasks import Task  # noqa: E402
from benchmarks.duel.tasks import load_tasks  # noqa: E402
from benchmarks.duel.tasks import mlp  # noqa: E402
from benchmarks.record_or_table import record_or_table  # noqa: E402
from benchmarks.tuning_losses import KINDS  # noqa: E402
from benchmarks.tuning_losses import Loss  # noqa: E402

ROOT = Path(__file__).parent.parent
COMMANDS = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in sorted((ROOT / "benchmarks").rglob("*.py"))
    if "def main() -> int:" in path.read_text(encoding="utf-8")
]


@pytest.fixture(scope="module")
def task() -> Task:
    x = torch.randn(120, 4, generator=torch.Generator().manual_seed(0))
    part = (x, (x.sum(dim=1) > 0).long())
    return Task("tiny", (part, part, part), lambda: mlp(4, 2, 8), epochs=4, batch_size=40)


@pytest.mark.parametrize("method", sorted({"ours", "tpe + median", "box, random", "default", "early ranking"}))
def test_a_study_spends_its_budget_and_counts_everything(task: Task, method: str) -> None:
    records = run_study(task, method, seed=0, budget=3)
    spent = [r["spent"] for r in records]
    assert spent == sorted(spent)
    assert 3 - 1e-6 <= spent[-1] <= 6  # the last round of "early ranking" is finished
    assert spent[-1] >= sum(r["cost"] for r in records) - 1e-6
    assert all(np.isfinite(r["value"]) for r in records)
    best = incumbent(records, 5)
    assert best is None or best["value"] == min(r["value"] for r in records if not r["pruned"])


def test_the_same_seed_gives_the_same_trials(task: Task) -> None:
    first, second = (run_study(task, "ours", seed=1, budget=2) for _ in range(2))
    assert [r["value"] for r in first] == [r["value"] for r in second]


def test_every_kind_of_network_is_there_and_missing_data_is_said() -> None:
    tasks, skipped = load_tasks(None)
    assert len(tasks) >= 8
    assert {task.optimizer for task in tasks.values()} == {"sgd", "adamw"}
    assert len(skipped) == 3
    assert all("no --data-root" in line for line in skipped)


def test_a_duel_goes_on_where_it_stopped_and_its_table_is_made_from_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for method, value in (("ours", 0.1), ("random", 0.4), ("tpe", 0.3)):
        trials = [{"spent": cost, "value": value / cost, "pruned": False, "params": {}} for cost in (1.0, 2.0, 3.0)]
        rows = [{"checkpoint": c, "val": [value / c], "test": [value / c]} for c in (1, 2, 3)]
        result = {"task": "t", "method": method, "seed": 0, "trials": trials, "retrained": rows}
        (tmp_path / "t").mkdir(exist_ok=True)
        (tmp_path / "t" / f"{method}-0.json").write_text(json.dumps(result))
    monkeypatch.setattr(sys, "argv", ["table", str(tmp_path), "--budget", "3"])
    assert table.main() == 0
    out = capsys.readouterr().out
    assert "| ours | 1 | 0.400 (0.000) | 0.100 (0.000) | 0.000 (0.000) |" in out
    assert "ours / best peer:" in out
    drawn = table.draw(table.regrets(table.load([tmp_path]), table.seen, [1, 2, 3]), [1, 2, 3], "as seen")
    assert {trace.name: len(trace.y) for trace in drawn.data} == {"random": 2, "ours": 2}
    monkeypatch.setattr(
        sys, "argv", ["duel", "--out", str(tmp_path), "--seeds", "1", "--tasks", "t", "--methods", "tpe"]
    )
    assert duel.main() == 0
    assert set(METHODS) > set(table.PEERS)


@pytest.mark.parametrize(
    ("which", "missing", "searched"),
    [
        ("duel_held_out", {"held-mlp", "held-any-cnn", "held-any-table"}, "held-imbalanced"),
        ("duel_fresh", {"fresh-mixer", "fresh-groupnorm"}, "fresh-labels"),
    ],
)
def test_tasks_apart_have_three_parts_and_seeds_of_their_own(which: str, missing: set[str], searched: str) -> None:
    tasks, skipped = duel.LOADERS[which](None)
    assert {line.split(":")[0] for line in skipped} >= missing
    assert set(tasks).isdisjoint(load_tasks()[0])
    assert tasks[searched].batch_size is None
    for task in tasks.values():
        assert len(task.parts) == 3
        network = task.build(**ARCHITECTURE) if task.architecture else task.build()
        loss = task.loss(network(task.parts[2][0]), task.parts[2][1]).item()
        assert math.isfinite(loss)
        assert task.n_classes is not None or task.name == "held-unscaled" or 0.4 < loss / task.untrained < 2.5
    arguments = argparse.Namespace(which=which)
    assert len({duel._seed(arguments, name, i) for name in tasks for i in range(5)}) == 5 * len(tasks)
    assert [duel._seed(argparse.Namespace(which="duel"), "deep", i) for i in range(2)] == [0, 1]


def test_networks_of_files_give_a_row_for_each_image() -> None:
    assert fresh.Mixer()(torch.zeros(2, 1, 14, 14)).shape == (2, 10)
    assert fresh.group_norm_cnn()(torch.zeros(2, 3, 16, 16)).shape == (2, 10)


@pytest.mark.parametrize("depth", [1, 4])
def test_held_out_architectures_follow_their_parameters(depth: int) -> None:
    images = held_out.any_cnn(64, depth, 0.1)
    assert images(torch.zeros(2, 1, 14, 14)).shape == (2, 10)
    assert sum(isinstance(layer, torch.nn.Conv2d) for layer in images) == depth
    assert held_out.any_table_net(32, depth, 0.0)(torch.zeros(2, 16)).shape == (2, 10)


def test_the_floor_is_the_expected_smallest_of_some_draws() -> None:
    draws = [3.0, 1.0, 2.0]
    assert floor.smallest_of(draws, 1) == pytest.approx(2.0)
    assert floor.smallest_of(draws, 2) == pytest.approx((1 + 1 + 2) / 3)
    assert floor.smallest_of(draws, 3) == 1.0


def test_a_study_that_has_ended_keeps_its_last_incumbent() -> None:
    result = {"retrained": [{"checkpoint": c, "val": [1 / c, 3 / c], "test": [5 / c]} for c in (2, 4)]}
    assert [table.retrained(result, c) for c in (1, 2, 3, 20)] == [None, 1.0, 1.0, 0.5]
    assert table.tested(result, 20) == 1.25


def test_what_curves_say_is_compared_with_the_rates_beside_them() -> None:
    fell, climbed, flat = [2.0, 1.0, 0.8, 0.6], [2.0, 1.0, 1.5, 0.7], [2.0, 1.0, 0.9, 0.5]
    curves = {"0.01": [flat], "0.02": [flat], "0.04": [fell], "0.08": [[2.0, 1.0, 0.7, 0.4]], "0.16": [climbed]}
    curves |= {"0.32": [[2.0, math.inf]], "0.64": [[math.inf]]}
    readings = list(lr_lean._read(curves, "all"))
    assert [(r.lean, r.below_is_better) for r in readings] == [("up", False), ("up", True), ("down", True)]
    assert [round(math.exp(r.distance), 2) for r in readings] == [2.0, 1.0, 0.5]


def test_a_ladder_is_answered_by_the_nearest_recorded_rate(tmp_path: Path) -> None:
    curves = {"0.01": [[2.3, 2.29, 2.2, 2.1]], "0.1": [[2.0, 1.0, 0.5, 0.3]], "1.0": [[2.3, math.nan]]}
    path = tmp_path / "net.json"
    path.write_text(json.dumps({"curves": curves}))
    network = ladder_replay.read(path, None)
    assert network.regrets.tolist() == pytest.approx([0.9, 0.0, 1.0])
    found = ladder_replay.replay(network, 0.01, np.random.default_rng(0), 4)
    assert found[:2] == pytest.approx([0.9, 0.0])  # two steps up at once: it had hardly learned
    assert found[-1] == 0.0
    assert ladder_replay.read(path, 2).curves[0] == [[2.2, 2.1]]


def test_a_simulated_study_spends_one_budget_with_any_number_of_workers() -> None:
    loss = Loss.draw("plain", 0)
    for n_workers in (1, 3):
        done = workers.simulate(loss, "random", n_workers, 0, 6.0)
        assert sum(one.cost for one in done[:-n_workers]) < 6.0 <= sum(one.cost for one in done)
        busy = [sum(other.start <= one.start < other.end for other in done) for one in done]
        assert max(busy) == n_workers
        assert workers.alike([done[0], done[0]]) == 1
    assert workers.regret_at(done, 1e9) == min(done, key=lambda one: one.value or math.inf).regret


def test_the_simulation_counts_stages_built_on_undecided_ones_and_candidates_run_twice() -> None:
    done = workers.simulate(Loss.draw("plain", 0), "ours", 1, 0, 8.0)
    assert workers.wrong_stages(done) == workers.twice(done) == 0
    assert any((one.slot or "").startswith("momentum") for one in done)
    at_once = [replace(one, start=0.0, end=9.0) for one in done]
    assert workers.wrong_stages(at_once) >= 2
    assert workers.twice([*done, done[0]]) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_simulated_loss_has_its_optimum_inside_the_bounds_and_diverges_above(kind: str) -> None:
    for seed in range(4):
        loss = Loss.draw(kind, seed)
        best = {
            "momentum": 1 - 10**loss.momentum,
            "lr": 10 ** (loss.step if kind == "adam" else loss.step + loss.momentum),
        }
        best |= {"weight_decay": 10**loss.decay, "batch_size": 64.0, "dropout": loss.extra}
        assert 1e-5 <= best["lr"] <= (0.1 if kind == "adam" else 10)
        assert 0.8 <= best["momentum"] <= 0.99
        assert loss(best) == pytest.approx(loss.floor, abs=0.1)
        assert loss({**best, "lr": best["lr"] * 1.5}) > loss(best)
        assert loss({**best, "lr": best["lr"] * 1e3}) == math.inf
        assert loss.floor < loss.middle() <= math.log(10)


def test_smooth_functions_are_kept_and_the_incumbent_is_judged_without_noise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(smooth, "COSTS", (2, 6))
    first = smooth.recorded("random", 2, 1, tmp_path)
    both = smooth.recorded("random", 2, 2, tmp_path)
    assert both[0] == first[0]
    assert [len(row) for row in both] == [6, 6]
    monkeypatch.setattr(
        sys, "argv", ["smooth", "--out", str(tmp_path), "--others", "2", "--seeds", "2", "--methods", "random"]
    )
    monkeypatch.setattr(smooth, "regrets", None)  # all is known
    assert smooth.main() == 0
    mean = np.mean(both, axis=0)
    assert f"| random | {mean[1]:.3f}" in capsys.readouterr().out


def test_a_smooth_function_knows_a_best_learning_rate() -> None:
    rest = {"weight_decay": 1e-3, "x0": 0.5, "x1": 0.5, **{f"word{i}": "a" for i in range(3)}}
    near, far = (smooth.function(0, 2)(optuna.trial.FixedTrial({"lr": lr, **rest})) for lr in (10**-2.6, 1e-1))
    assert 0 < near < far
    assert far - near == pytest.approx(0.1 * 1.6**2)


def test_what_a_recording_leaves_out_is_named(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def record(*names: str) -> list[str]:
        recorded: list[str] = []
        monkeypatch.setattr(sys, "argv", ["benchmark", "record", *names, "--out", str(tmp_path)])
        tasks = {"there": task, "more": task}
        wanted = (name for name in ("there", "elsewhere", "nowhere"))
        assert (
            record_or_table("", tmp_path, wanted, lambda _: tasks, lambda _, path: recorded.append(path.stem), str) == 0
        )
        return recorded

    assert record() == ["there"]
    assert capsys.readouterr().out == "not recorded, since their data is not there: elsewhere, nowhere\n"
    assert record("more") == ["more"]
    assert not capsys.readouterr().out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_tells_its_arguments(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit, match=r"^0$"):
        importlib.import_module(name).main()
    assert "usage: " in capsys.readouterr().out
