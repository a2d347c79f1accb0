"""The samplers on smooth functions with little noise, where they can be precise: `python -m benchmarks.smooth`.

A learning rate and a weight decay on log scales, `--others` numbers of unequal weight and three lists of four words;
the noise is 1 % of the mean. Few trainings are like this: there the noise of a run ends the search. Normalised regret
of the incumbent, without noise: 0 is the best of the function, 1 its mean. One file a method and number of parameters;
what is there is not run again.
"""

import argparse
import json
import math
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import optuna
from optuna import Trial

from benchmarks.result_files import settings
from benchmarks.result_files import write
from benchmarks.tabular import print_means
from benchmarks.tabular import sampler_of

RESULTS = Path(__file__).parent / "results" / "smooth"
METHODS = ("ours", "tpe", "gp", "random")
COSTS = (2, 5, 10, 20, 40, 60)


def function(seed: int, others: int) -> Callable[[Trial], float]:
    """Return a function of a trial, without noise: 0 at best."""
    rng = np.random.default_rng(seed)
    centres, weights = rng.uniform(0, 1, others), rng.exponential(1, others) ** 2
    ranks = [rng.permutation(4) for _ in range(3)]

    def value(trial: Trial) -> float:
        lr = trial.suggest_float("lr", 1e-5, 1e-1, log=True)
        decay = trial.suggest_float("weight_decay", 1e-6, 1e-1, log=True)
        x = np.array([trial.suggest_float(f"x{i}", 0, 1) for i in range(others)])
        words = [trial.suggest_categorical(f"word{i}", list("abcd")) for i in range(3)]
        found = 0.1 * (math.log10(lr) + 2.6) ** 2 + 0.01 * (math.log10(decay) + 3) ** 2
        found += 2 * float(weights @ (x - centres) ** 2 / weights.sum())
        return found + 0.05 * float(sum(rank["abcd".index(word)] for rank, word in zip(ranks, words, strict=True)))

    return value


def regrets(method: str, seed: int, others: int, budget: int) -> list[float]:
    """Return the regret of the incumbent after each trial of one study."""
    exact = function(seed, others)
    free = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    mean = float(np.mean([exact(free.ask()) for _ in range(200)]))
    rng = np.random.default_rng([seed, 1])
    study = optuna.create_study(sampler=sampler_of(method, seed))
    best, found = (math.inf, 1.0), []
    for _ in range(budget):
        trial = study.ask()
        value = exact(trial)
        noisy = value + 0.01 * mean * rng.normal()
        study.tell(trial, noisy)
        best = min(best, (noisy, value / mean))
        found.append(round(best[1], 5))
    return found


def recorded(method: str, others: int, seeds: int, out: Path) -> list[list[float]]:
    """Return the regrets of the first `seeds` functions; those that are missing are run and kept."""
    path = out / f"{others + 5}-{method}.json"
    known = json.loads(path.read_text())["regret"] if path.exists() else []
    if len(known) < seeds:
        known += [regrets(method, seed, others, COSTS[-1]) for seed in range(len(known), seeds)]
        write(path, {"settings": settings(), "regret": known})
    return known[:seeds]


def main() -> int:
    """Run what is missing and print the tables; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--others", type=int, nargs="*", default=[4, 10, 40])
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=METHODS)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    for others in arguments.others:
        found = {
            method: np.array(recorded(method, others, arguments.seeds, arguments.out)) for method in arguments.methods
        }
        print_means(f"{others + 5} parameters, {arguments.seeds} functions", found, COSTS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
