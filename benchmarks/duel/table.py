"""The duel's table from its result files: `python -m benchmarks.duel.table`.

Normalised regret of a loss on a task: 0 is the best that any method found there, 1 the median of random configurations.
Two readings: "seen", the incumbent's own validation loss, which rewards luck; "retrained", its mean validation loss on
three fresh seeds, which does not. Means over tasks of the means over seeds; the standard error is over tasks.
"""

import argparse
import json
import sys
import warnings
from collections import defaultdict
from collections.abc import Callable
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import browser
from benchmarks.duel.__main__ import RESULTS
from benchmarks.duel.methods import BOXES
from benchmarks.duel.methods import PEERS
from benchmarks.duel.run import CHECKPOINTS
from benchmarks.duel.run import incumbent
from benchmarks.figures import FIGURES
from benchmarks.figures import shoot_plots
from optuna_discipline.visualization.style import figure

Results = dict[str, dict[str, dict[int, dict[str, Any]]]]  # task, method, seed
Reading = Callable[[dict[str, Any], int], float | None]


def load(folders: list[Path]) -> Results:
    """Return the results of all files below the folders; a later folder's file wins."""
    found: Results = defaultdict(lambda: defaultdict(dict))
    for folder in folders:
        for path in sorted(folder.glob("*/*.json")):
            result = json.loads(path.read_text(encoding="utf-8"))
            found[result["task"]][result["method"]][result["seed"]] = result
    return found


def seen(result: dict[str, Any], checkpoint: int) -> float | None:
    """Return the incumbent's own validation loss."""
    best = incumbent(result["trials"], checkpoint)
    return None if best is None else float(best["value"])


def retrained(result: dict[str, Any], checkpoint: int) -> float | None:
    """Return the incumbent's mean validation loss on fresh seeds."""
    return _on_fresh_seeds(result, checkpoint, "val")


def tested(result: dict[str, Any], checkpoint: int) -> float | None:
    """Return the incumbent's mean test loss on fresh seeds."""
    return _on_fresh_seeds(result, checkpoint, "test")


def _on_fresh_seeds(result: dict[str, Any], checkpoint: int, part: str) -> float | None:
    """Return a loss of the latest incumbent that was retrained: a study that has ended keeps its last one."""
    rows = [row for row in result["retrained"] if row["checkpoint"] <= checkpoint]
    return float(np.mean(max(rows, key=lambda row: row["checkpoint"])[part])) if rows else None


def regrets(results: Results, reading: Reading, checkpoints: list[int]) -> dict[str, dict[str, np.ndarray]]:
    """Return the normalised regret by method and task, shape (seeds, checkpoints) each."""
    table: dict[str, dict[str, np.ndarray]] = defaultdict(dict)
    for task, methods in results.items():
        values = _values(methods, reading, checkpoints)
        best, middle = _span(methods, values)
        for name, v in values.items():
            table[name][task] = np.where(np.isfinite(v), (v - best) / max(middle - best, 1e-12), 1.0)
    return table


def cells(tasks: dict[str, np.ndarray]) -> list[str]:
    """Return a method's mean over tasks at each checkpoint, and its standard error."""
    rows = np.array([runs.mean(axis=0) for runs in tasks.values()])
    error = rows.std(axis=0, ddof=1) / np.sqrt(len(rows)) if len(rows) > 1 else np.zeros(rows.shape[1])
    return [f"{m:.3f} ({e:.3f})" for m, e in zip(rows.mean(axis=0), error, strict=True)]


def span(
    methods: dict[str, dict[int, dict[str, Any]]], reading: Reading, checkpoints: Sequence[int]
) -> tuple[float, float]:
    """Return what has the regrets 0 and 1 on a task: the best of anybody, and the median random configuration."""
    return _span(methods, _values(methods, reading, checkpoints))


def _span(methods: dict[str, dict[int, dict[str, Any]]], values: dict[str, np.ndarray]) -> tuple[float, float]:
    random = [t["value"] for run in methods.get("random", {}).values() for t in run["trials"]]
    best = min(float(np.nanmin(v)) for v in values.values() if np.isfinite(v).any())
    return best, float(np.median(random)) if random else float(np.nanmedian([v[:, 0] for v in values.values()]))


def _values(
    methods: dict[str, dict[int, dict[str, Any]]], reading: Reading, checkpoints: Sequence[int]
) -> dict[str, np.ndarray]:
    return {
        name: np.array([[_or_nan(reading(runs[s], c)) for c in checkpoints] for s in sorted(runs)])
        for name, runs in methods.items()
    }


def cost_to_reach(results: Results, reading: Reading, checkpoint: int, budget: int) -> dict[str, dict[str, float]]:
    """Return, by method and task, the cost at which its mean over seeds reaches the best peer's at `checkpoint`."""
    grid = list(range(1, budget + 1))
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for task, methods in results.items():
        with warnings.catch_warnings():  # before a method's first trial there is nothing to average
            warnings.simplefilter("ignore", RuntimeWarning)
            means = {
                name: np.nanmean([[_or_nan(reading(run, c)) for c in grid] for run in runs.values()], axis=0)
                for name, runs in methods.items()
            }
        peers = [means[name][grid.index(checkpoint)] for name in PEERS if name in means]
        if peers:
            level = min(peers)
            for name, curve in means.items():
                reached = np.flatnonzero(curve <= level)
                found[name][task] = float(grid[reached[0]]) if len(reached) else np.inf
    return found


def main() -> int:
    """Print the tables; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, default=[RESULTS])
    parser.add_argument("--budget", type=int, default=20)
    parser.add_argument("--methods", nargs="*")
    parser.add_argument("--tasks", action="store_true", help="a table of every task too")
    parser.add_argument("--seeds", type=int, help="only this many seeds, and only methods that have them all")
    parser.add_argument("--figure", action="store_true", help="write benchmarks/figures/duel.png (needs Chromium)")
    arguments = parser.parse_args()
    results = _complete(load(arguments.folders), arguments.seeds)
    if not results:
        print("no result files: run python -m benchmarks.duel first", file=sys.stderr)
        return 1
    checkpoints = [c for c in CHECKPOINTS if c <= arguments.budget]
    counts = {name: sum(len(methods.get(name, {})) for methods in results.values()) for name in _names(results)}
    for title, reading in (("seen", seen), ("retrained", retrained), ("retrained, test loss", tested)):
        table = regrets(results, reading, checkpoints)
        print(f"\nNormalised regret, {title}: mean over {len(results)} tasks (standard error)\n")
        print("| method | runs | " + " | ".join(str(c) for c in checkpoints) + " |")
        print("|---|---|" + "---|" * len(checkpoints))
        for name in arguments.methods or _names(results):
            print(f"| {name} | {counts[name]} | " + " | ".join(cells(table[name])) + " |")
        _print_targets(table, checkpoints)
        if arguments.tasks:
            _print_tasks(table, checkpoints)
    costs = cost_to_reach(results, seen, min(20, arguments.budget), arguments.budget)
    print("\nCost to reach the best peer's mean (seen) at 20: median over tasks, and tasks that never do\n")
    for name in arguments.methods or _names(results):
        values = np.array(list(costs[name].values()))
        print(f"| {name} | {np.median(values):.1f} | {int(np.isinf(values).sum())} |")
    if arguments.figure:
        figures = [
            draw(regrets(results, reading, checkpoints), checkpoints, name)
            for name, reading in (("as seen by the study", seen), ("retrained on fresh seeds", retrained))
        ]
        with browser.chromium() as chromium:
            shoot_plots(chromium, figures, FIGURES / "duel.png")
    return 0


def _complete(results: Results, seeds: int | None) -> Results:
    """Return the runs of the first `seeds` seeds of those methods that have them on every task."""
    if seeds is None:
        return results
    wanted = {task: sorted(set().union(*methods.values()))[:seeds] for task, methods in results.items()}
    names = [n for n in _names(results) if all(set(wanted[t]) <= set(m.get(n, {})) for t, m in results.items())]
    return {
        task: {name: {s: methods[name][s] for s in wanted[task]} for name in names} for task, methods in results.items()
    }


def draw(table: dict[str, dict[str, np.ndarray]], checkpoints: list[int], reading: str) -> Any:
    """Return the figure: the mean regret of ours, of some peers and of the best in our box against cost."""
    made = figure(
        f"Incumbent {reading}", x="cost in full trainings", y="regret (0 best, 1 median of random)", log_x=True
    )
    at = [i for i, c in enumerate(checkpoints) if c >= 2]
    for name in ("random", "tpe + median", "tpe + hyperband", "gp", "cma-es", "box, gp", "default", "ours"):
        if name in table:
            mean = np.mean([runs.mean(axis=0) for runs in table[name].values()], axis=0)
            line = {"width": 4, "color": "#D55E00"} if name == "ours" else {"width": 1.5}
            made.add_scatter(x=[checkpoints[i] for i in at], y=mean[at], name=name, mode="lines+markers", line=line)
    made.update_xaxes(tickvals=[checkpoints[i] for i in at])
    made.update_yaxes(type="log", tickvals=[0.02, 0.05, 0.1, 0.2, 0.5])
    return made


def _print_targets(table: dict[str, dict[str, np.ndarray]], checkpoints: list[int]) -> None:
    """Print ours over the best peer, and over the best in our box; and where we lose."""
    if "ours" not in table:
        return
    ours = {task: runs.mean(axis=0) for task, runs in table["ours"].items()}
    for label, group in (("peer", PEERS), ("sampler in our box", BOXES)):
        rivals = [name for name in group if name in table and set(table[name]) >= set(ours)]
        if not rivals:
            continue
        means = np.array([np.mean([table[n][t].mean(axis=0) for t in ours], axis=0) for n in rivals])
        mine = np.mean(list(ours.values()), axis=0)
        cells = (f"{c}: {a / b:.2f}" for c, a, b in zip(checkpoints, mine, means.min(axis=0), strict=True))
        print(f"\nours / best {label}: " + ", ".join(cells))
        losses = []
        for task, mean in ours.items():
            best = np.min([table[n][task].mean(axis=0) for n in rivals], axis=0)
            losses.append(mean > best)
        print(f"tasks on which the best {label} is ahead: ", end="")
        print(", ".join(f"{c}: {n}" for c, n in zip(checkpoints, np.sum(losses, axis=0), strict=True)))


def _print_tasks(table: dict[str, dict[str, np.ndarray]], checkpoints: list[int]) -> None:
    for task in next(iter(table.values())):
        print(f"\n{task}: mean over seeds (sd)\n")
        for name, tasks in table.items():
            if task in tasks:
                mean, sd = tasks[task].mean(axis=0), tasks[task].std(axis=0)
                print(f"| {name} | " + " | ".join(f"{m:.3f} ({s:.3f})" for m, s in zip(mean, sd, strict=True)) + " |")


def _names(results: Results) -> list[str]:
    return list(dict.fromkeys(name for methods in results.values() for name in methods))


def _or_nan(value: float | None) -> float:
    return np.nan if value is None else value


if __name__ == "__main__":
    sys.exit(main())
