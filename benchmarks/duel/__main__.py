"""The duel on real trainings: `python -m benchmarks.duel --data-root DIR`, then `python -m benchmarks.duel.table`.

Every method tunes every task until its trainings, range tests and stopped trials included, have cost `--budget` full
trainings; one result file per task, method and seed, so an interrupted duel goes on where it stopped. One thread each.
"""

import argparse
import itertools
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from zlib import crc32

import torch

from benchmarks.duel.fresh import load_fresh_tasks
from benchmarks.duel.held_out import load_held_out_tasks
from benchmarks.duel.methods import METHODS
from benchmarks.duel.run import path_of
from benchmarks.duel.run import retrain
from benchmarks.duel.run import run_study
from benchmarks.duel.tasks import Task
from benchmarks.duel.tasks import load_tasks
from benchmarks.result_files import settings
from benchmarks.result_files import write

RESULTS = Path(__file__).parents[1] / "results" / "duel"
LOADERS = {"duel": load_tasks, "duel_held_out": load_held_out_tasks, "duel_fresh": load_fresh_tasks}


def main() -> int:
    """Run what is missing; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, help="folder with FashionMNIST/raw and tabular/, adds three tasks")
    here = [name for name in METHODS if name != "auto" or find_spec("optunahub") is not None]
    which = parser.add_mutually_exclusive_group()
    for flag, text in (("held-out", "the networks written apart"), ("fresh", "eleven written later")):
        folder = "duel_" + flag.replace("-", "_")
        which.add_argument(f"--{flag}", dest="which", action="store_const", const=folder, default="duel", help=text)
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/duel, duel_held_out or duel_fresh")
    parser.add_argument("--budget", type=float, default=20.0, help="cost in full trainings (default 20)")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--tasks", nargs="*", help="only these")
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=here)
    parser.add_argument("--jobs", type=int, default=1, help="processes, one thread each")
    parser.add_argument("--no-retrain", action="store_true", help="leave the fresh seeds and the test scores out")
    arguments = parser.parse_args()
    arguments.out = arguments.out or RESULTS.with_name(arguments.which)
    tasks, skipped = _load(arguments)
    if "auto" not in here:
        skipped.append("auto (OptunaHub's AutoSampler): needs pip install optunahub cmaes")
    for line in skipped:
        print("skipped", line)
    names = arguments.tasks or list(tasks)
    wanted = [
        (task, method, _seed(arguments, task, i))
        for i, task, method in itertools.product(range(arguments.seeds), names, arguments.methods)
        if not path_of(arguments.out, task, method, _seed(arguments, task, i)).exists()
    ]
    start = time.perf_counter()
    with ProcessPoolExecutor(arguments.jobs) as pool:
        jobs = [pool.submit(_one, arguments, *key) for key in wanted]
        for i, (key, job) in enumerate(zip(wanted, jobs, strict=True)):
            job.result()
            print(f"{i + 1}/{len(wanted)} {time.perf_counter() - start:.0f} s {key}", flush=True)
    return 0


def _seed(arguments: argparse.Namespace, task: str, i: int) -> int:
    """Return the i-th seed of a task: only those of the duel share theirs."""
    return i + (0 if arguments.which == "duel" else crc32(task.encode()) % 10**6)


def _load(arguments: argparse.Namespace) -> tuple[dict[str, Task], list[str]]:
    return LOADERS[arguments.which](arguments.data_root)


def _one(arguments: argparse.Namespace, task_name: str, method: str, seed: int) -> None:
    torch.set_num_threads(1)
    task = _load(arguments)[0][task_name]
    records = run_study(task, method, seed, arguments.budget)
    result = {
        "task": task_name,
        "method": method,
        "seed": seed,
        "budget": arguments.budget,
        "settings": settings(),
        "trials": [{k: v for k, v in r.items() if k != "curve"} for r in records],
        "retrained": [] if arguments.no_retrain else retrain(task, records),
    }
    write(path_of(arguments.out, task_name, method, seed), result)


if __name__ == "__main__":
    sys.exit(main())
