"""The duel by time, where the batch size is searched: `python -m benchmarks.duel.equal_time`, from its files alone.

The duel counts an epoch alike whatever its batches. Here a trial costs what its epochs take against those in batches
of 64, by the samples a second of `benchmarks.batch_scaling` (medians of its networks, between its sizes by powers). As
seen alone: what was retrained are the incumbents by epochs.
"""

import argparse
import contextlib
import io
import sys
from typing import Any

import numpy as np

from benchmarks import batch_scaling
from benchmarks.duel.__main__ import RESULTS
from benchmarks.duel.methods import PEERS
from benchmarks.duel.table import Results
from benchmarks.duel.table import load
from benchmarks.duel.table import regrets
from benchmarks.duel.table import seen
from benchmarks.tabular import print_means

METHODS = ("ours", "default", "box, gp", *PEERS)
COSTS = (1, 2, 3, 5, 8, 10, 15, 20)


def main() -> int:
    """Print the tables; return the exit code."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    by_epochs = {task: methods for task, methods in load([RESULTS]).items() if _searches_batches(methods)}
    by_time = at_equal_time(by_epochs, throughput())
    for words, results in (("epochs", by_epochs), ("time", by_time)):
        table = regrets(results, seen, list(range(1, COSTS[-1] + 1)))
        means = {name: [runs.mean(axis=0) for runs in table[name].values()] for name in METHODS}
        print_means(f"Normalised regret, seen, at equal {words}: {len(results)} tasks (standard error)", means, COSTS)
    print("\nTime of all its trials, in trainings in batches of 64\n\n| method | " + " | ".join(by_time) + " |")
    print("|---|" + "---|" * len(by_time))
    for name in METHODS:
        ends = ([run["trials"][-1]["spent"] for run in methods[name].values()] for methods in by_time.values())
        print(f"| {name} | " + " | ".join(f"{np.mean(spent):.0f}" for spent in ends) + " |")
    return 0


def throughput() -> dict[int, float]:
    """Return the samples a second of batch sizes over those of 64, the median of the recorded networks."""
    with contextlib.redirect_stdout(io.StringIO()):  # what is not complete is said by its own table
        recorded = [result["speed"] for result in batch_scaling.read(batch_scaling.RESULTS).values()]
    base = str(batch_scaling.BASE)
    return {s: float(np.median([speed[str(s)] / speed[base] for speed in recorded])) for s in batch_scaling.SIZES}


def at_equal_time(results: Results, speeds: dict[int, float]) -> Results:
    """Return the results with each trial's cost in the time of a training in batches of 64."""
    return {
        task: {
            name: {seed: {**run, "trials": _timed(run["trials"], speeds)} for seed, run in runs.items()}
            for name, runs in methods.items()
        }
        for task, methods in results.items()
    }


def _timed(trials: list[dict[str, Any]], speeds: dict[int, float]) -> list[dict[str, Any]]:
    sizes = np.log([trial["params"]["batch_size"] for trial in trials])
    times = np.exp(-np.interp(sizes, np.log(list(speeds)), np.log(list(speeds.values()))))
    before = trials[0]["spent"] - trials[0]["cost"]  # a range test
    spent = before + np.cumsum(times * [trial["cost"] for trial in trials])
    return [{**trial, "spent": float(end)} for trial, end in zip(trials, spent, strict=True)]


def _searches_batches(methods: dict[str, dict[int, dict[str, Any]]]) -> bool:
    trials = [trial for run in methods["random"].values() for trial in run["trials"]]
    return len({trial["params"]["batch_size"] for trial in trials}) > 1


if __name__ == "__main__":
    sys.exit(main())
