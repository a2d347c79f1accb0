"""The samplers in studies as users write them: `python -m benchmarks.spaces`.

Parameters are asked in the order of the code, some only for some networks; optimizers, activations and schedulers are
chosen by name; learning rates lie in bounds that are too low, too high, linear, or in a list. Cost is in full
trainings, stopped runs in part. Normalised regret of the incumbent's objective: 0 is the best that any method found on
the task, 1 the median of the random configurations. One file a task and method; what is there is not run again.
"""

import argparse
import json
import math
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median

import numpy as np
import optuna
import torch
from optuna.trial import TrialState

from benchmarks.duel.methods import METHODS as DUEL
from benchmarks.result_files import settings
from benchmarks.result_files import write
from benchmarks.spaces.architectures import ARCHITECTURES
from benchmarks.spaces.embeddings import EMBEDDINGS
from benchmarks.spaces.failing import FAILING
from benchmarks.spaces.fields import FIELDS
from benchmarks.spaces.fresh import FRESH
from benchmarks.spaces.held_out import HELD_OUT
from benchmarks.spaces.learning import LEARNING
from benchmarks.spaces.objectives import OBJECTIVES
from benchmarks.spaces.optimizers import OPTIMIZERS
from benchmarks.spaces.parts import PARTS
from benchmarks.spaces.published import PUBLISHED
from benchmarks.spaces.seen import SEEN
from benchmarks.spaces.targets import TARGETS
from benchmarks.spaces.tools import TOOLS
from benchmarks.spaces.training import BROKEN
from benchmarks.spaces.training import ImpossibleError
from benchmarks.spaces.training import SpaceTask
from benchmarks.spaces.training import told
from benchmarks.spaces.training import train
from benchmarks.tabular import print_means
from benchmarks.tabular import sampler_of

RESULTS = Path(__file__).parent.parent / "results" / "spaces"
GROUPS = (
    ("Seen", SEEN),
    ("Held out", HELD_OUT),
    ("Written later", FRESH),
    ("Published", PUBLISHED),
    ("Other objectives", OBJECTIVES),
    ("Impossible configurations", FAILING),
    ("Other fields", FIELDS),
    ("Other ways of learning", LEARNING),
    ("Words of tools", TOOLS),
    ("Embeddings and densities", EMBEDDINGS),
    ("Networks in parts", PARTS),
    ("Eleven more kinds", (*ARCHITECTURES, *OPTIMIZERS, *TARGETS)),
)
TASKS = {task.name: task for _, group in GROUPS for task in group}
METHODS = ("ours", "tpe", "tpe + median", "gp", "cma-es", "random")
COST_OF_IMPOSSIBLE = 0.05
COSTS = (1, 2, 3, 5, 8, 10, 15, 20)
Outcome = tuple[float, float, bool]  # of a trial: cost of the study so far, objective, whether it was completed


def run(task: SpaceTask, method: str, seed: int, budget: float) -> list[Outcome]:
    """Return what came of each trial of one study."""
    direction = "maximize" if task.maximize else "minimize"
    pruner = DUEL[method].pruner(task.epochs)
    study = optuna.create_study(sampler=sampler_of(method, seed), pruner=pruner, direction=direction)
    cost = 0.0
    found: list[Outcome] = []
    while cost < budget:
        trial = study.ask()
        try:
            trained = train(task, trial, 1000 * seed + trial.number)
        except ImpossibleError:
            cost += COST_OF_IMPOSSIBLE
            if task.when_impossible == "infinity":
                study.tell(trial, math.inf)
            else:
                study.tell(trial, state=TrialState.FAIL if task.when_impossible == "raise" else TrialState.PRUNED)
            found.append((round(cost, 4), BROKEN, False))
            continue
        cost += trained.cost
        if trained.stopped:
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, told(task, trained.objective))
        found.append((round(cost, 4), round(trained.objective, 6), not trained.stopped))
    return found


def incumbents(trials: list[Outcome], untrained: float) -> list[float]:
    """Return the best completed objective after 1, 2, 3, ... trainings; `untrained` before the first."""
    found = []
    for budget in range(1, COSTS[-1] + 1):
        done = [value for cost, value, whole in trials if whole and cost <= budget + 1e-6]
        found.append(min([*done, untrained]))
    return found


def regrets(known: dict[str, list[list[Outcome]]]) -> dict[str, np.ndarray]:
    """Return the mean normalised regret of each method after 1, 2, 3, ... trainings, on one task."""
    values = [value for studies in known.values() for trials in studies for _, value, whole in trials if whole]
    best, middle = min(values), median(v for trials in known["random"] for _, v, whole in trials if whole)
    return {
        method: np.mean([[(y - best) / (middle - best) for y in incumbents(t, middle)] for t in studies], axis=0)
        for method, studies in known.items()
    }


def _make(job: tuple[str, str, int, Path]) -> str:
    """Run what is missing of one task and method."""
    name, method, seeds, path = job
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    known = json.loads(path.read_text()) if path.exists() else {"settings": settings(), "trials": {}}
    for seed in map(str, range(seeds)):
        if seed not in known["trials"]:
            known["trials"][seed] = run(TASKS[name], method, int(seed), COSTS[-1])
            write(path, known)
    return path.stem


def main() -> int:
    """Run what is missing and print the tables; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--tasks", nargs="*", choices=TASKS, default=list(TASKS))
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=METHODS, help="what to run; all are shown")
    parser.add_argument("--jobs", type=int, default=1)
    arguments = parser.parse_args()
    paths = {(name, m): arguments.out / f"{name}-{m}.json" for name in arguments.tasks for m in METHODS}
    jobs = [(name, m, arguments.seeds, path) for (name, m), path in paths.items() if m in arguments.methods]
    with ProcessPoolExecutor(arguments.jobs) as pool:
        for number, stem in enumerate(pool.map(_make, jobs), 1):
            print(f"{number}/{len(jobs)} {stem}", file=sys.stderr, flush=True)
    known: dict[str, dict[str, list[list[Outcome]]]] = {}
    for (name, method), path in paths.items():
        if path.exists():
            trials = json.loads(path.read_text())["trials"]
            known.setdefault(name, {})[method] = [trials[str(seed)] for seed in range(arguments.seeds)]
    by_task = {name: regrets(found) for name, found in known.items()}
    methods = [m for m in METHODS if all(m in found for found in by_task.values())]
    for title, group in GROUPS:
        names = [task.name for task in group if task.name in by_task]
        heading = f"{title}: {len(names)} studies, {arguments.seeds} seeds (standard error over studies)"
        if names:
            print_means(heading, {m: [by_task[name][m] for name in names] for m in methods}, COSTS)
    print("\n| study, after 2, 5, 10, 20 | " + " | ".join(methods) + " |\n|---|" + "---|" * len(methods))
    for name, means in by_task.items():
        cells = [" ".join(f"{means[method][cost - 1]:.2f}" for cost in (2, 5, 10, 20)) for method in methods]
        print(f"| {name} | " + " | ".join(cells) + " |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
