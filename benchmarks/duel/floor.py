"""What luck alone reaches: `python -m benchmarks.duel.floor --data-root DIR`, from the duel's result files.

For each task the ten configurations with the best retrainings of any method are trained on eight more seeds, and the
best of them on 24 others. A study that knew it from the start and did nothing but repeat it would see the smallest of k
losses after k trainings, and get its mean when it is retrained.
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.duel.__main__ import RESULTS
from benchmarks.duel.methods import PEERS
from benchmarks.duel.run import CHECKPOINTS
from benchmarks.duel.run import incumbent
from benchmarks.duel.run import train
from benchmarks.duel.table import Results
from benchmarks.duel.table import load
from benchmarks.duel.table import retrained
from benchmarks.duel.table import seen
from benchmarks.duel.table import span
from benchmarks.duel.tasks import load_tasks
from benchmarks.result_files import settings
from benchmarks.result_files import write

ENTRANTS, HEATS, DRAWS = 10, 8, 24
COSTS = [cost for cost in CHECKPOINTS if cost <= 20]  # what the duel's studies spend


def main() -> int:
    """Train what is missing, print the table; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--out", type=Path, default=RESULTS.with_name("duel_floor.json"))
    parser.add_argument("--jobs", type=int, default=1, help="processes, one thread each")
    arguments = parser.parse_args()
    found: dict[str, Any] = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    results = load([arguments.results])
    entrants = {task: _entrants(methods) for task, methods in results.items() if task not in found}
    with ProcessPoolExecutor(arguments.jobs) as pool:
        jobs = {name: pool.submit(_floor, arguments.data_root, name, params) for name, params in entrants.items()}
        for name, job in jobs.items():
            found[name] = job.result()
            write(arguments.out, found, indent=1)
            print(name, file=sys.stderr, flush=True)
    _print(results, {name: one["draws"] for name, one in found.items()})
    return 0


def smallest_of(draws: Sequence[float], k: int) -> float:
    """Return the expected smallest of k of the draws, taken without putting back."""
    n = len(draws)
    weights = np.array([math.comb(n - 1 - i, k - 1) for i in range(n)]) / math.comb(n, k)
    return float(weights @ np.sort(draws))


def _print(results: Results, draws: dict[str, list[float]]) -> None:
    seen_rows, retrained_rows, reached = [], [], []
    for task, drawn in draws.items():
        best, middle = span(results[task], seen, COSTS)
        seen_rows.append([(smallest_of(drawn, k) - best) / (middle - best) for k in COSTS])
        best, middle = span(results[task], retrained, COSTS)
        retrained_rows.append((float(np.mean(drawn)) - best) / (middle - best))
        peers = [runs for name, runs in results[task].items() if name in PEERS]
        level = min(float(np.mean([seen(run, 20) or math.inf for run in runs.values()])) for runs in peers)
        reached.append(next((k for k in range(1, 21) if smallest_of(drawn, k) <= level), math.inf))
    print("| | " + " | ".join(map(str, COSTS)) + " |\n|---|" + "---|" * len(COSTS))
    print("| seen | " + " | ".join(f"{x:.3f}" for x in np.mean(seen_rows, axis=0)) + " |")
    print(f"\nretrained, at any cost: {np.mean(retrained_rows):.3f}")
    print(f"cost to the best peer's level (seen) of 20: median {np.median(reached):g}, {reached}")


def _entrants(methods: dict[str, dict[int, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return the parameters of the best incumbents, by their mean loss on fresh seeds."""
    rows: dict[str, float] = {}
    for runs in methods.values():
        for run in runs.values():
            for row in run["retrained"]:
                best = incumbent(run["trials"], row["checkpoint"])
                if best is not None:
                    rows[json.dumps(best["params"], sort_keys=True)] = float(np.mean(row["val"]))
    return [json.loads(key) for key in sorted(rows, key=lambda key: rows[key])[:ENTRANTS]]


def _floor(data_root: Path | None, name: str, entrants: list[dict[str, Any]]) -> dict[str, Any]:
    torch.set_num_threads(1)
    task = load_tasks(data_root)[0][name]
    heats = [[train(task, params, 50_000 + seed)["value"] for seed in range(HEATS)] for params in entrants]
    best = entrants[int(np.argmin(np.mean(heats, axis=1)))]
    draws = [train(task, best, 60_000 + seed)["value"] for seed in range(DRAWS)]
    return {"params": best, "draws": draws, "settings": settings()}


if __name__ == "__main__":
    sys.exit(main())
