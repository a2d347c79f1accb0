"""Short cycles or range tests: which of them picks the better momentum and the better weight decay?

    python -m benchmarks.selectors record --data-root DIR [PAIR...]   # trains what is missing; resumable
    python -m benchmarks.selectors table                              # from the files alone

For each pair of `benchmarks.weight_decay_snapshot`: four momenta and four weight decays, everything else as there. They
are compared by complete cycles of a quarter and a half of a training, by a range test each (100 updates, ranked by
`rank_by_range_test`), and by whole trainings, with three seeds. A pick is judged by the mean loss of whole trainings on
other seeds over that of the best candidate, minus one. The cost is in whole trainings, by updates; a range test also
evaluates its validation samples at every other update, which is not counted.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import weight_decay
from benchmarks.duel.tasks import Task
from benchmarks.record_or_table import record_or_table
from benchmarks.result_files import settings
from benchmarks.result_files import write
from benchmarks.weight_decay_snapshot import PAIRS
from benchmarks.weight_decay_tasks import BATCH_SIZE
from benchmarks.weight_decay_tasks import MAX_MOMENTUM
from benchmarks.weight_decay_tasks import build
from benchmarks.weight_decay_tasks import cycle_of
from benchmarks.weight_decay_tasks import load_pairs
from benchmarks.weight_decay_tasks import train
from optuna_discipline import RangeTest
from optuna_discipline import lr_range_test
from optuna_discipline import rank_by_range_test

RESULTS = Path(__file__).parent / "results" / "selectors"
ROLES = {"momentum": (0.99, 0.97, 0.95, 0.9), "weight_decay": (1e-5, 1e-4, 1e-3, 1e-2)}
DEFAULTS = {"momentum": MAX_MOMENTUM, "weight_decay": 1e-4}
SEEDS, TRUE_SEEDS = (10, 11, 12), (0, 1, 2, 3, 4)
SHARES = (0.25, 0.5, 1.0)
STEPS = 100


def main() -> int:
    """Run the command line; return the exit code."""
    grids = weight_decay.read(weight_decay.RESULTS)
    return record_or_table(
        __doc__, RESULTS, PAIRS, load_pairs, lambda task, path: record(task, grids[task.name]["lr"], path), show
    )


def record(task: Task, lr: float, path: Path) -> None:
    """Train what the pair's file lacks, and write the file anew after each role."""
    found: dict[str, Any] = {"pair": task.name, "lr": lr, "settings": settings(), "roles": {}}
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
    for role, candidates in ROLES.items():
        if role in found["roles"]:
            continue
        measured: dict[str, Any] = {"truth": {}, "picks": {str(seed): {} for seed in SEEDS}, "cost": {}}
        for x in candidates:
            losses = [_train(task, lr, role, x, seed, 1.0) for seed in TRUE_SEEDS]
            measured["truth"][str(x)] = round(float(np.mean(losses)), 5)
        for seed in SEEDS:
            for share in SHARES:
                short = {x: _train(task, lr, role, x, seed, share) for x in candidates}
                measured["picks"][str(seed)][f"cycles of {share:g}"] = min(short, key=lambda x: short[x])
                measured["cost"][f"cycles of {share:g}"] = _cost(task, lr, len(candidates), share)
            tests = {x: _range_test(task, role, x, seed) for x in candidates}
            measured["picks"][str(seed)]["range tests"] = rank_by_range_test(tests)[0]
            steps = sum(len(test.lrs) for test in tests.values())
            measured["cost"]["range tests"] = steps / cycle_of(task, lr).total_steps
        found["roles"][role] = measured
        write(path, found)
    print(task.name, flush=True)


def show(folder: Path) -> None:
    """Print regret and cost of each selector, over pairs and seeds."""
    results = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    for role in ROLES:
        print(f"\n**{role}**, {len(results)} pairs\n")
        print("| selector | picks the best | mean regret | median | worst pair | cost |\n|---|---|---|---|---|---|")
        measured = {result["pair"]: result["roles"][role] for result in results if role in result["roles"]}
        names = list(next(iter(measured.values()))["cost"])
        for name in (*names, f"none: {DEFAULTS[role]:g}"):
            regrets = {pair: _regrets(found, name, DEFAULTS[role]) for pair, found in measured.items()}
            every = np.concatenate(list(regrets.values()))
            worst = max(regrets, key=lambda pair: float(np.mean(regrets[pair])))
            cost = np.mean([found["cost"].get(name, 0.0) for found in measured.values()])
            print(
                f"| {name} | {np.mean(every == 0):.0%} | {every.mean():.3f} | {np.median(every):.3f} | "
                f"{np.mean(regrets[worst]):.3f} ({worst}) | {cost:.2f} |"
            )


def _regrets(found: Mapping[str, Any], name: str, default: float) -> np.ndarray:
    truth = {float(x): loss for x, loss in found["truth"].items()}
    picks = [seed.get(name, default) for seed in found["picks"].values()]
    return np.array([truth[pick] / min(truth.values()) - 1 for pick in picks])


def _train(task: Task, lr: float, role: str, value: float, seed: int, share: float) -> float:
    numbers = {**DEFAULTS, role: value}
    return train(task, lr=lr, seed=seed, share=share, **numbers).loss  # type: ignore[arg-type]


def _range_test(task: Task, role: str, value: float, seed: int) -> RangeTest:
    numbers = {**DEFAULTS, role: value}
    return lr_range_test(
        build(task, seed),
        task.loss,
        task.parts[0],
        task.parts[1],
        optimizer=task.optimizer,  # type: ignore[arg-type]
        num_steps=STEPS,
        batch_size=task.batch_size or BATCH_SIZE,
        seed=seed,
        **numbers,
    )


def _cost(task: Task, lr: float, n: int, share: float) -> float:
    return n * cycle_of(task, lr, share=share).total_steps / cycle_of(task, lr).total_steps


if __name__ == "__main__":
    sys.exit(main())
