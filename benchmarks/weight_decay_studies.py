"""Whole studies with and without snapshot restarts: which recipe has found the better network for the same cost?

    python -m benchmarks.weight_decay_studies record --data-root DIR [PAIR...]   # runs what is missing; resumable
    python -m benchmarks.weight_decay_studies table                              # from the files alone

On each pair of `benchmarks.weight_decay_snapshot`, two studies a recipe with `tune`, each up to a cost of 12 full
trainings, with weight decay searched by runs (the default) and by snapshots. Judged is the best whole trial when 6, 8
and 12 trainings had been spent, give or take a half: its configuration is trained anew with three fresh seeds, and
the mean loss compared with the smallest such mean on the pair, minus one.
"""

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import optuna

from benchmarks.duel.tasks import Task
from benchmarks.record_or_table import record_or_table
from benchmarks.result_files import settings
from benchmarks.result_files import write
from benchmarks.weight_decay_snapshot import PAIRS
from benchmarks.weight_decay_tasks import BATCH_SIZE
from benchmarks.weight_decay_tasks import load_pairs
from benchmarks.weight_decay_tasks import train
from optuna_discipline import Recipe
from optuna_discipline import tune
from optuna_discipline.costs import cost_of_range_test
from optuna_discipline.costs import read_costs
from optuna_discipline.study_record import told_roles
from optuna_discipline.trial_record import epochs_of_source

RESULTS = Path(__file__).parent / "results" / "weight_decay_studies"
SEARCHES = ("runs", "snapshot")
SEEDS, FRESH_SEEDS = (0, 1), (90_001, 90_002, 90_003)
CHECKPOINTS = (6, 8, 12)


def main() -> int:
    """Run the command line; return the exit code."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return record_or_table(__doc__, RESULTS, PAIRS, load_pairs, record, show)


def record(task: Task, path: Path) -> None:
    """Run what the pair's file lacks, and write the file anew after each study."""
    found: dict[str, Any] = {"pair": task.name, "settings": settings(), "studies": {}}
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
    for seed in SEEDS:
        for search in SEARCHES:
            if f"{search}-{seed}" not in found["studies"]:
                found["studies"][f"{search}-{seed}"] = _study(task, search, seed)
                write(path, found)
    print(task.name, flush=True)


def show(folder: Path) -> None:
    """Print the mean regret of each recipe at each cost, over pairs, with its standard error."""
    results = [_by_both(json.loads(path.read_text(encoding="utf-8"))) for path in sorted(folder.glob("*.json"))]
    n_studies = sum(len(result["studies"]) for result in results) // len(SEARCHES)
    print(f"{len(results)} pairs, {n_studies} studies a recipe\n")
    print(f"| weight decay by | {' | '.join(str(c) for c in CHECKPOINTS)} | trials of the stage |")
    print("|---" * (len(CHECKPOINTS) + 2) + "|")
    for search in SEARCHES:
        cells, trials = [], []
        for checkpoint in CHECKPOINTS:
            regrets = []
            for result in results:
                best = min(np.mean(x) for study in result["studies"].values() for x in study["retrained"].values())
                studies = [study for name, study in result["studies"].items() if name.startswith(search)]
                losses = [np.mean(study["retrained"][str(checkpoint)]) for study in studies]
                regrets.append(float(np.mean(losses)) / best - 1)
                trials += [study["stage_trials"] for study in studies]
            cells.append(f"{np.mean(regrets):.3f} ({np.std(regrets, ddof=1) / len(regrets) ** 0.5:.3f})")
        print(f"| {search} | {' | '.join(cells)} | {np.mean(trials):.1f} |")


def _by_both(result: dict[str, Any]) -> dict[str, Any]:
    """Leave out the seeds that one of the recipes lacks."""
    studies = result["studies"]
    whole = [seed for seed in SEEDS if all(f"{search}-{seed}" in studies for search in SEARCHES)]
    return {**result, "studies": {f"{x}-{seed}": studies[f"{x}-{seed}"] for x in SEARCHES for seed in whole}}


def _study(task: Task, search: Any, seed: int) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study = tune(
            task.build,
            task.parts[0],
            task.parts[1],
            budget=CHECKPOINTS[-1],
            loss_fn=task.loss,
            optimizer=task.optimizer,  # type: ignore[arg-type]
            epochs=task.epochs,
            range_test=True,
            batch_size=task.batch_size or BATCH_SIZE,
            recipe=Recipe(weight_decay_search=search),
            seed=seed,
            device="cpu",
        )
    spent = cost_of_range_test(study) + np.cumsum(list(read_costs(study.trials, told_roles(study)).spent.values()))
    trained: dict[int, list[float]] = {}
    retrained = {}
    for checkpoint in CHECKPOINTS:
        within = [t for t, cost in zip(study.trials, spent, strict=True) if cost <= checkpoint + 0.5 or not t.number]
        whole = [t for t in within if t.state == optuna.trial.TrialState.COMPLETE and not epochs_of_source(t)]
        best = min(whole or study.trials[:1], key=lambda t: t.value if t.value is not None else np.inf)
        if best.number not in trained:
            trained[best.number] = [_retrain(task, best.params, fresh) for fresh in FRESH_SEEDS]
        retrained[str(checkpoint)] = [round(loss, 5) for loss in trained[best.number]]
    stages = [trial.user_attrs.get("stage") for trial in study.trials]
    return {"retrained": retrained, "stage_trials": stages.count("weight_decay"), "trials": len(stages)}


def _retrain(task: Task, params: dict[str, Any], seed: int) -> float:
    share = params["epochs"] / task.epochs
    numbers = {name: params[name] for name in ("lr", "momentum", "weight_decay")}
    return train(task, seed=seed, share=share, **numbers).loss


if __name__ == "__main__":
    sys.exit(main())
