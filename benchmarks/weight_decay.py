"""Do the candidates of `weight_decay_candidates` bracket the best weight decay?

    python -m benchmarks.weight_decay record --data-root DIR [PAIR...]   # trains what is missing; resumable
    python -m benchmarks.weight_decay table                              # from the files alone

Pairs of a data set and a network, each trained by a full 1cycle at weight decays 0 and 1e-6 to 3e-1 by half
decades, five seeds (three for images), at the best of five learning rates for weight decay 1e-4.
"""

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks import weight_decay_table
from benchmarks.duel.tasks import Task
from benchmarks.record_or_table import record_or_table
from benchmarks.result_files import settings
from benchmarks.result_files import write
from benchmarks.weight_decay_tasks import PARTS
from benchmarks.weight_decay_tasks import build
from benchmarks.weight_decay_tasks import load_pairs
from benchmarks.weight_decay_tasks import train

RESULTS = Path(__file__).parent / "results" / "weight_decay"
GRID = (0.0, *(float(f"{digit}e{power}") for power in range(-6, 0) for digit in (1, 3)))
LRS = (0.01, 0.03, 0.1, 0.3, 1.0)
LR_SEEDS = (100, 101)
MANY_SEEDS, FEW_SEEDS = 5, 3


def main() -> int:
    """Run the command line; return the exit code."""
    return record_or_table(
        __doc__, RESULTS, PARTS, load_pairs, record, lambda folder: weight_decay_table.show(read(folder))
    )


def record(task: Task, path: Path) -> None:
    """Train what the pair's file lacks, and write the file anew after each weight decay."""
    model = build(task, 0)
    layers = [p for p in model.parameters() if p.ndim >= 2]
    few = task.parts[0][0].ndim == 4
    found: dict[str, Any] = {
        "pair": task.name,
        "depth": len(layers),
        "n_parameters": sum(p.numel() for p in model.parameters()),
        "n_samples": len(task.parts[0][1]),
        "n_classes": task.n_classes,
        "input_size": task.parts[0][0][0].numel(),
        "lrs": {},
        "grid": {},
        "settings": settings(),
    }
    if path.exists():
        kept = json.loads(path.read_text(encoding="utf-8"))
        found = {**found, **{key: kept[key] for key in ("lrs", "grid", "settings")}}
    for lr in LRS:
        if str(lr) not in found["lrs"]:
            runs = [train(task, lr=lr, weight_decay=1e-4, seed=seed) for seed in LR_SEEDS]
            found["lrs"][str(lr)] = [round(run.loss, 5) for run in runs]
    found["lr"] = float(min(found["lrs"], key=lambda lr: sum(found["lrs"][lr])))
    for weight_decay in GRID:
        if str(weight_decay) not in found["grid"]:
            seeds = range(FEW_SEEDS if few else MANY_SEEDS)
            runs = [train(task, lr=found["lr"], weight_decay=weight_decay, seed=seed) for seed in seeds]
            found["grid"][str(weight_decay)] = [[round(run.loss, 5), round(run.error, 5)] for run in runs]
            write(path, found)
    print(f"{task.name}: lr {found['lr']}", flush=True)


def read(folder: Path) -> dict[str, dict[str, Any]]:
    """Return the results by pair, in the order of `PARTS`."""
    found = {}
    for name, part in PARTS.items():
        path = folder / f"{name}.json"
        if path.exists():
            found[name] = {**json.loads(path.read_text(encoding="utf-8")), "part": part}
    return found


if __name__ == "__main__":
    sys.exit(main())
