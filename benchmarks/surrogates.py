"""The samplers alone on surrogates of perceptrons, by four and by seven parameters: `python -m benchmarks.surrogates`.

`python -m benchmarks.surrogates record --data-root DIR` trains what is missing: 430 perceptrons on each of twelve
tables by SGD under a cosine, about an hour of one core; the recordings are kept. A trial costs one training, reports
the expected validation error after each epoch, and is never stopped. Normalised regret of the incumbent, without noise:
0 is the best of 20,000 random configurations, 1 their median. `--noise` multiplies each report by a lognormal error.

The model's caution, the starts of dropout, width and batch size and a curve's allowance for noise were chosen here.
"""

import argparse
import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler

from benchmarks.result_files import settings
from benchmarks.result_files import write
from benchmarks.surrogate_tasks import FEW
from benchmarks.surrogate_tasks import TASKS
from benchmarks.surrogate_tasks import Surrogate
from benchmarks.surrogate_tasks import record
from benchmarks.surrogate_tasks import surrogates
from benchmarks.tabular import print_means
from benchmarks.tabular import sampler_of

RESULTS = Path(__file__).parent / "results" / "surrogates"
COSTS = (1, 2, 3, 5, 8, 10, 15, 20)
OURS, SILENT = "ours", "ours, no reports"
METHODS = (OURS, SILENT, "tpe", "gp", "cma-es", "random")


def suggest(trial: optuna.Trial, few: bool) -> dict[str, float]:
    """Return a configuration from the box of the recorded trainings."""
    config = {
        "lr": trial.suggest_float("lr", 1e-4, 1e-1, log=True),
        "momentum": trial.suggest_float("momentum", 0.1, 0.99),
        "weight_decay": trial.suggest_float("weight_decay", 1e-5, 1e-1, log=True),
        "batch_size": float(trial.suggest_int("batch_size", 16, 512, log=True)),
    }
    if few:
        return config | FEW
    return config | {
        "layers": float(trial.suggest_int("layers", 1, 4)),
        "units": float(trial.suggest_int("units", 16, 256, log=True)),
        "dropout": trial.suggest_float("dropout", 0.0, 0.8),
    }


def run(task: Surrogate, sampler: BaseSampler, seed: int, *, noise: float, budget: int, report: bool) -> list[float]:
    """Return the normalised regret of the incumbent after each training."""
    rng = np.random.default_rng(seed)
    study = optuna.create_study(sampler=sampler)
    best, regret, regrets = np.inf, 1.0, []
    for _ in range(budget):
        trial = study.ask()
        errors = task.errors(suggest(trial, task.few))
        seen = errors * np.exp(rng.normal(0.0, noise, len(errors)))
        for epoch, error in enumerate(seen if report else ()):
            trial.report(float(error), epoch)
        study.tell(trial, float(seen[-1]))
        if seen[-1] < best:
            best, regret = float(seen[-1]), task.regret(float(errors[-1]))
        regrets.append(round(regret, 5))
    return regrets


def compare(tasks: list[Surrogate], methods: list[str], *, noise: float, seeds: int, budget: int) -> dict[str, Any]:
    """Return the regrets by method and table: lists of seeds of trainings."""
    found: dict[str, Any] = {}
    for method in methods:
        start = time.perf_counter()
        found[method], sampler = {}, OURS if method == SILENT else method
        for number, task in enumerate(tasks):
            own = [1000 * number + seed for seed in range(seeds)]  # no two tables begin with the same random draws
            found[method][task.name] = [
                run(task, sampler_of(sampler, s), s, noise=noise, budget=budget, report=method != SILENT) for s in own
            ]
        print(f"{time.perf_counter() - start:.0f} s {method}", file=sys.stderr, flush=True)
    return found


def main() -> int:
    """Record, or run every method and print the tables; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("do", nargs="?", choices=("record", "run"), default="run")
    parser.add_argument("--data-root", type=Path, help="folder with FashionMNIST/raw, tabular/ and cifar10_small.npz")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--runs", type=int, default=430, help="recorded trainings a table")
    parser.add_argument("--tables", nargs="*", choices=TASKS, default=TASKS)
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=METHODS, help="run; the others are kept")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--budget", type=int, default=20)
    parser.add_argument("--noise", type=float, default=0.0)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    if arguments.do == "record":
        if arguments.data_root is None:
            parser.error("`record` needs --data-root")
        for name in arguments.tables:
            record(name, arguments.data_root, arguments.out, arguments.runs)
        return 0
    fitted = [surrogates(name, arguments.out) for name in arguments.tables]
    for few, words in ((True, "Four"), (False, "Seven")):
        tasks = [by_size[few] for by_size in fitted]
        path = arguments.out / f"{words.lower()}-noise-{arguments.noise:g}.json"
        known = json.loads(path.read_text()) if path.exists() else {"settings": {}, "regret": {}}
        found = compare(tasks, arguments.methods, noise=arguments.noise, seeds=arguments.seeds, budget=arguments.budget)
        shape = (len(tasks), arguments.seeds, arguments.budget)
        kept = {m: runs for m, runs in known["regret"].items() if np.shape(list(runs.values())) == shape}
        regret = {m: runs for m in METHODS if (runs := found.get(m, kept.get(m))) is not None}
        made = {m: settings() if m in found else known["settings"][m] for m in regret}
        write(path, {"settings": made, "regret": regret})
        title = f"{words} parameters, noise {arguments.noise:g}, {len(tasks)} tables, {arguments.seeds} seeds"
        means = {m: [np.mean(runs, axis=0) for runs in by_table.values()] for m, by_table in regret.items()}
        costs = [cost for cost in COSTS if cost <= arguments.budget]
        print_means(title + ": mean normalised regret (standard error over tables)", means, costs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
