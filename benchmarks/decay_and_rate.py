"""Which weight decay is best, at which learning rate? `python -m benchmarks.decay_and_rate --data-root DIR`.

Every network of the three duels: learning rates a ninth to nine times the usual one at a weight decay of 1e-4, then
other weight decays at the best of these and at three times it; two seeds. A loss that is not a number, or above twice
the untrained one, counts as that. The table gives the loss over that at 1e-4, geometric mean and median.
"""

import argparse
import json
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.duel.__main__ import LOADERS
from benchmarks.duel.run import ARCHITECTURE
from benchmarks.duel.run import DEFAULT_LR
from benchmarks.duel.run import train
from benchmarks.result_files import settings
from benchmarks.result_files import write

RESULTS = Path(__file__).parent / "results" / "decay_and_rate.json"
USUAL, SEEDS = 1e-4, (11, 12)
DECAYS = {"sgd": (1e-6, 1e-3, 1e-2), "adam": (1e-6, 1e-2, 1e-1), "adamw": (1e-6, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)}


def record(loader: str, name: str, data_root: Path | None) -> dict[str, Any]:
    """Return the mean losses of one network by learning rate and weight decay."""
    torch.set_num_threads(1)
    task = LOADERS[loader](data_root)[0][name]
    held = {"momentum": 0.95, "batch_size": task.batch_size or 32, **(ARCHITECTURE if task.architecture else {})}

    def loss(lr: float, decay: float) -> float:
        found = [train(task, {**held, "lr": lr, "weight_decay": decay}, seed)["value"] for seed in SEEDS]
        return float(np.mean(found))

    lrs = [float(f"{DEFAULT_LR[task.optimizer] * 3.0**i:.3g}") for i in range(-2, 3)]
    usual = {lr: loss(lr, USUAL) for lr in lrs}
    best = min(lrs, key=lambda lr: usual[lr])
    tried = [best, *lrs[lrs.index(best) + 1 :][:1]]
    losses = {f"{USUAL:g}": usual, **{f"{d:g}": {lr: loss(lr, d) for lr in tried} for d in DECAYS[task.optimizer]}}
    return {"network": name, "optimizer": task.optimizer, "best_lr": best, "losses": losses, "settings": settings()}


def ratios(row: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """Return, by weight decay, the loss over that at 1e-4: at its best rate, and at the better of it and 3 times it."""
    base, best = row["losses"][f"{USUAL:g}"][str(row["best_lr"])], str(row["best_lr"])
    return {d: (at[best] / base, min(at.values()) / base) for d, at in row["losses"].items()}


def main() -> int:
    """Record what is missing and print the table; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, help="folder with FashionMNIST/raw, tabular/ and cifar10_small.npz")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--networks", nargs="*", help="only these")
    parser.add_argument("--jobs", type=int, default=1, help="processes, one thread each")
    arguments = parser.parse_args()
    rows = json.loads(arguments.out.read_text()) if arguments.out.exists() else []
    known = {row["network"] for row in rows}
    names = [(loader, name) for loader, load in LOADERS.items() for name in load(arguments.data_root)[0]]
    wanted = [key for key in names if key[1] not in known and key[1] in (arguments.networks or [key[1]])]
    with ProcessPoolExecutor(arguments.jobs) as pool:
        for job in [pool.submit(record, *key, arguments.data_root) for key in wanted]:
            rows.append(json.loads(json.dumps(job.result())))  # keys as a file has them
            write(arguments.out, rows)
    print("| optimizer | networks | weight decay | at the best rate for 1e-4 | at it or 3 times it | best on |")
    print("|---|---|---|---|---|---|")
    for optimizer in DECAYS:
        found = [ratios(row) for row in rows if row["optimizer"] == optimizer]
        for decay in sorted(found[0], key=float) if found else ():
            both = np.array([one[decay] for one in found])
            cells = [f"{np.exp(np.log(x).mean()):.3f}, {np.median(x):.3f}" for x in both.T]
            wins = sum(min(one, key=lambda d: one[d][1]) == decay for one in found)
            print(f"| {optimizer} | {len(found)} | {decay} | {' | '.join(cells)} | {wins} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
