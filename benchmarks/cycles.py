"""What are the triangular policy and a cyclical weight decay worth beside 1cycle and a constant one?

    python -m benchmarks.cycles record --data-root DIR [TASK...]   # trains what is missing; resumable
    python -m benchmarks.cycles table                              # from the files alone

Six small networks of `benchmarks.batch_scaling`, batch size 64, about 200 updates, two seeds. Each policy has its own
best learning rate of seven, a factor of 2 apart, at weight decay 1e-4. Then, under 1cycle at its best, four weight
decays are held constant, or cycle between a tenth of themselves and themselves, high in the middle of the run or at its
ends.
"""

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.batch_scaling import BASE
from benchmarks.batch_scaling import UPDATES
from benchmarks.batch_scaling import tasks_there_are
from benchmarks.duel.tasks import Task
from benchmarks.record_or_table import record_or_table
from benchmarks.result_files import settings
from benchmarks.result_files import write
from benchmarks.weight_decay_tasks import Result
from benchmarks.weight_decay_tasks import build
from benchmarks.weight_decay_tasks import worst
from optuna_discipline import OneCycle
from optuna_discipline import Triangular
from optuna_discipline import train_epochs
from optuna_discipline.comparison import Constant

RESULTS = Path(__file__).parent / "results" / "cycles"
TASKS = ("mlp-256", "regression", "batchnorm", "deep", "residual", "imbalanced")
LRS = tuple(2.0**exponent for exponent in range(-6, 1))
DECAYS = (1e-4, 1e-3, 1e-2, 1e-1)
SEEDS = (0, 1)
POLICIES: dict[str, Callable[[float, int], Any]] = {
    "1cycle": lambda lr, total: OneCycle(lr, total),
    "1cycle, tail of the paper": lambda lr, total: OneCycle(lr, total, tail="paper"),
    "one triangle": lambda lr, total: Triangular(lr, total),
    "three triangles, base a quarter": lambda lr, total: Triangular(lr, total, base_lr=lr / 4, step_size=total / 6),
    "constant": lambda lr, total: Constant(lr, total, 0.9),
}
SHAPES = ("constant", "high in the middle", "high at the ends")


def main() -> int:
    """Run the command line; return the exit code."""
    return record_or_table(__doc__, RESULTS, TASKS, tasks_there_are, record, lambda folder: show(read(folder)))


def record(task: Task, path: Path) -> None:
    """Train what the task's file lacks, and write the file anew after each group of seeds."""
    found: dict[str, Any] = {"task": task.name, "settings": settings(), "policies": {}, "weight decays": {}}
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
    epochs = max(4, round(UPDATES * BASE / len(task.parts[0][1])))
    total = epochs * math.ceil(len(task.parts[0][1]) / BASE)
    for policy, schedule in POLICIES.items():
        grid = found["policies"].setdefault(policy, {})
        for lr in LRS:
            if str(lr) not in grid:
                grid[str(lr)] = [train(task, schedule(lr, total), 1e-4, epochs, seed) for seed in SEEDS]
                write(path, found)
    lr = float(min(found["policies"]["1cycle"], key=lambda key: mean_log(found["policies"]["1cycle"][key])))
    for shape in SHAPES:
        grid = found["weight decays"].setdefault(shape, {})
        for top in DECAYS:
            if str(top) not in grid:
                decay = shaped(shape, top, total)
                grid[str(top)] = [train(task, OneCycle(lr, total), decay, epochs, seed) for seed in SEEDS]
                write(path, found)
    print(task.name, flush=True)


def read(folder: Path) -> dict[str, Any]:
    """Return the results by task."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}


def shaped(shape: str, top: float, total: int) -> float | Callable[[int], float]:
    """Return a weight decay, constant or a function of the update."""
    if shape == "constant":
        return top
    rising = Triangular(top, total)  # from a tenth to the whole and back
    if shape == "high in the middle":
        return rising.lr
    return lambda step: 1.1 * top - rising.lr(step)


def train(task: Task, schedule: Any, weight_decay: float | Callable[[int], float], epochs: int, seed: int) -> float:
    """Train once; return the last validation loss."""
    logs = train_epochs(
        build(task, seed),
        task.loss,
        task.parts[0],
        task.parts[1],
        schedule,
        weight_decay=weight_decay,
        batch_size=BASE,
        seed=seed,
        n_epochs=epochs,
    )
    return round(Result(tuple(logs), worst(task)).loss, 5)


def show(results: dict[str, Any]) -> None:
    """Print the tables."""
    print("\n**Policies**, each at its best rate: loss over that of 1cycle, geometric mean over the tasks\n")
    print("| policy | loss | better than 1cycle on | best rate over 1cycle's |\n" + "|---" * 4 + "|")
    own = [best(result["policies"]["1cycle"]) for result in results.values()]
    for policy in POLICIES:
        rows = [best(result["policies"][policy]) for result in results.values()]
        ratios = np.array([row[1] - mine[1] for row, mine in zip(rows, own, strict=True)])
        rates = np.array([math.log(row[0] / mine[0]) for row, mine in zip(rows, own, strict=True)])
        print(
            f"| {policy} | {math.exp(ratios.mean()):.3f} | {(ratios < 0).sum()} of {len(ratios)} | "
            f"{math.exp(rates.mean()):.2f} |"
        )
    print("\n**Weight decay** under 1cycle: the best of four, loss over that of the best constant one\n")
    print("| task | " + " | ".join(SHAPES) + " | constant 1e-4 |\n" + "|---" * (2 + len(SHAPES)) + "|")
    table = []
    for name, result in results.items():
        found = [best(result["weight decays"][shape]) for shape in SHAPES]
        plain = mean_log(result["weight decays"]["constant"]["0.0001"])
        table.append([*(loss - found[0][1] for _, loss in found), plain - found[0][1]])
        cells = [f"{math.exp(loss - found[0][1]):.3f} ({top:g})" for top, loss in found]
        print(f"| {name} | " + " | ".join(cells) + f" | {math.exp(table[-1][-1]):.3f} |")
    print("| geometric mean | " + " | ".join(f"{math.exp(x):.3f}" for x in np.mean(table, axis=0)) + " |")


def best(grid: dict[str, list[float]]) -> tuple[float, float]:
    """Return the best key of a grid and its mean log loss."""
    key = min(grid, key=lambda key: mean_log(grid[key]))
    return float(key), mean_log(grid[key])


def mean_log(values: list[float]) -> float:
    """Return the mean of the logarithms."""
    return float(np.log(np.maximum(values, 1e-6)).mean())


if __name__ == "__main__":
    sys.exit(main())
