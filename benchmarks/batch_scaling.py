"""How does the best learning rate move with the batch size, and which batch size is best?

    python -m benchmarks.batch_scaling record --data-root DIR [TASK...]   # trains what is missing; resumable
    python -m benchmarks.batch_scaling table                              # from the files alone

Eight small networks, each trained by a full 1cycle (momentum 0.95 to 0.85, weight decay 1e-4) at batch sizes 16, 64 and
256, ten learning rates a factor of 2 apart, two seeds; at as many epochs for every batch size, and at equal time, as
many epochs as come nearest to the time of batch size 64 by the measured throughput. The best rate of one batch size is
then carried over to another one unchanged, by the square root of the ratio, in proportion, or by a range test there,
and judged by the loss between the grid's points there, over that of the best rate.
"""

import json
import math
import sys
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.duel.tasks import Task
from benchmarks.duel.tasks import load_tasks
from benchmarks.record_or_table import record_or_table
from benchmarks.result_files import settings
from benchmarks.result_files import write
from benchmarks.weight_decay_tasks import Result
from benchmarks.weight_decay_tasks import build
from benchmarks.weight_decay_tasks import worst
from optuna_discipline import OneCycle
from optuna_discipline import epochs_at_equal_time
from optuna_discipline import lr_range_test
from optuna_discipline import samples_per_second
from optuna_discipline import train_epochs

RESULTS = Path(__file__).parent / "results" / "batch_scaling"
TASKS = ("mlp-256", "regression", "batchnorm", "deep", "residual", "imbalanced", "fashion-cnn", "magic")
SIZES, BASE = (16, 64, 256), 64
LRS = tuple(2.0**exponent for exponent in range(-7, 3))
SEEDS = (0, 1)
UPDATES = 200  # at the batch size of 64
MODES = ("equal epochs", "equal time")
RULES = ("none", "square root", "linear", "range test")
PLATEAU = 1.05  # rates within 5 % of the best loss are one plateau; its middle is the best rate


def main() -> int:
    """Run the command line; return the exit code."""
    return record_or_table(__doc__, RESULTS, TASKS, tasks_there_are, record, lambda folder: show(read(folder)))


def tasks_there_are(data_root: Path | None) -> dict[str, Task]:
    """Return the duel's tasks, and say which are skipped."""
    tasks, skipped = load_tasks(data_root)
    print("".join(f"skipped {line}\n" for line in skipped), end="")
    return tasks


def record(task: Task, path: Path) -> None:
    """Train what the task's file lacks, and write the file anew after each learning rate."""
    found: dict[str, Any] = {"task": task.name, "settings": settings(), "runs": {mode: {} for mode in MODES}}
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
    base = max(4, round(UPDATES * BASE / len(task.parts[0][1])))
    if "speed" not in found:
        found["speed"] = measure(task)
    found["epochs"] = {
        "equal epochs": {str(size): base for size in SIZES},
        "equal time": {
            str(size): epochs_at_equal_time(base, 1 / found["speed"][str(BASE)], 1 / found["speed"][str(size)])
            for size in SIZES
        },
    }
    found.setdefault("range test", {str(size): [range_test(task, size, seed) for seed in SEEDS] for size in SIZES})
    for mode in MODES:
        for size in SIZES:
            grid = found["runs"][mode].setdefault(str(size), {})
            if mode == "equal time" and size == BASE:
                found["runs"][mode][str(size)] = found["runs"]["equal epochs"][str(size)]
                continue
            for lr in LRS:
                if str(lr) not in grid:
                    epochs = found["epochs"][mode][str(size)]
                    grid[str(lr)] = [round(train(task, size, lr, epochs, seed).loss, 5) for seed in SEEDS]
                    write(path, found)
    write(path, found)
    print(task.name, flush=True)


def read(folder: Path) -> dict[str, Any]:
    """Return the complete results by task, and say which are not."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        if all(len(result["runs"][mode].get(str(size), {})) == len(LRS) for mode in MODES for size in SIZES):
            found[path.stem] = result
        else:
            print(f"{path.stem}: not complete")
    return found


def measure(task: Task) -> dict[str, float]:
    """Return the samples a second of each batch size: the best of three rounds, since others use the machine too."""
    x, y = task.parts[0]
    speed = {str(size): 0.0 for size in SIZES}
    for _ in range(3):
        for size in SIZES:
            now = samples_per_second(build(task, 0), (x[:BASE], y[:BASE]), size, task.loss, seconds=0.3)
            speed[str(size)] = max(speed[str(size)], round(now, 1))
    return speed


def range_test(task: Task, size: int, seed: int) -> float | None:
    """Return the learning rate that a range test of 100 updates chooses."""
    test = lr_range_test(build(task, seed), task.loss, task.parts[0], task.parts[1], batch_size=size, seed=seed)
    return test.max_lr


def train(task: Task, size: int, lr: float, epochs: int, seed: int) -> Result:
    """Train once by 1cycle; return its logs."""
    cycle = OneCycle(lr, epochs * math.ceil(len(task.parts[0][1]) / size))
    logs = train_epochs(
        build(task, seed),
        task.loss,
        task.parts[0],
        task.parts[1],
        cycle,
        weight_decay=1e-4,
        batch_size=size,
        seed=seed,
        n_epochs=epochs,
    )
    return Result(tuple(logs), worst(task))


def show(results: dict[str, Any]) -> None:
    """Print the tables."""
    for mode in MODES:
        print(f"\n**{mode.capitalize()}**: best rate (loss) by batch size, and its exponent from 16 to 256\n")
        print("| task | " + " | ".join(map(str, SIZES)) + " | exponent |\n" + "|---" * (2 + len(SIZES)) + "|")
        exponents = []
        for name, result in results.items():
            curves = [losses(result, mode, size) for size in SIZES]
            best = [best_lr(curve) for curve in curves]
            exponents.append(math.log(best[-1] / best[0]) / math.log(SIZES[-1] / SIZES[0]))
            cells = [f"{lr:.2g} ({math.exp(curve.min()):.4f})" for lr, curve in zip(best, curves, strict=True)]
            print(f"| {name} | " + " | ".join(cells) + f" | {exponents[-1]:.2f} |")
        print(f"\nmedian exponent {np.median(exponents):.2f}, mean {np.mean(exponents):.2f}\n")
        print("| batch ratio | rule | loss over the best, geometric mean | worst | octaves off, mean |")
        print("|---" * 5 + "|")
        for ratio in (1 / 16, 1 / 4, 4, 16):
            for rule in RULES:
                found = [carried(result, mode, a, b, rule) for result in results.values() for a, b in pairs(ratio)]
                excess, octaves = np.array(found).T
                print(
                    f"| {ratio:g} | {rule} | {math.exp(excess.mean()):.3f} | {math.exp(excess.max()):.2f} | "
                    f"{octaves.mean():.2f} |"
                )
    print("\n**Which batch size**: loss at its best rate over that of batch size 64, geometric mean (best on)\n")
    print("| | " + " | ".join(map(str, SIZES)) + " |\n" + "|---" * (1 + len(SIZES)) + "|")
    for mode in MODES:
        table = np.array([[losses(r, mode, size).min() for size in SIZES] for r in results.values()])
        means = np.exp((table - table[:, [SIZES.index(BASE)]]).mean(axis=0))
        wins = np.bincount(table.argmin(axis=1), minlength=len(SIZES))
        print(f"| {mode} | " + " | ".join(f"{m:.3f} ({w})" for m, w in zip(means, wins, strict=True)) + " |")
    speeds = np.array([[r["speed"][str(size)] / r["speed"][str(BASE)] for size in SIZES] for r in results.values()])
    print("| samples a second | " + " | ".join(f"{speed:.2f}" for speed in np.median(speeds, axis=0)) + " |")


def pairs(ratio: float) -> list[tuple[int, int]]:
    """Return the pairs of batch sizes of one ratio."""
    return [(a, b) for a, b in permutations(SIZES, 2) if b / a == ratio]


def losses(result: dict[str, Any], mode: str, size: int) -> Any:
    """Return the mean log loss of each learning rate, shape (rates,)."""
    grid = result["runs"][mode][str(size)]
    return np.array([np.log(np.maximum(grid[str(lr)], 1e-6)).mean() for lr in LRS])


def best_lr(curve: Any) -> float:
    """Return the middle (in the exponent) of the rates that are as good as the best."""
    plateau = np.flatnonzero(curve <= curve.min() + math.log(PLATEAU))
    return float(math.exp(np.log(np.array(LRS)[plateau]).mean()))


def carried(result: dict[str, Any], mode: str, start: int, end: int, rule: str) -> tuple[float, float]:
    """Return the log of the loss over the best at the rate carried over, and how many octaves the rate is off."""
    there = losses(result, mode, end)
    if rule == "range test":
        found = [math.log(lr) for lr in result["range test"][str(end)] if lr is not None]
        lr = math.exp(sum(found) / len(found)) if found else LRS[0]
    else:
        exponent = {"none": 0.0, "square root": 0.5, "linear": 1.0}[rule]
        lr = best_lr(losses(result, mode, start)) * (end / start) ** exponent
    excess = float(np.interp(math.log(lr), np.log(LRS), there) - there.min())
    return excess, abs(math.log2(lr / best_lr(there)))


if __name__ == "__main__":
    sys.exit(main())
