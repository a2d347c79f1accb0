"""Seconds per trial that samplers take, and per call that pruners do: `python -m benchmarks.overhead`.

Each sampler gets a study of N finished trials (random ones of four parameters) and then asks and tells a few more; all
in one process and one run, so that ratios can be compared although seconds cannot. "ours, ladder" is a rung of the
ladder, which begins anew in a study for each that is timed; "ours, stages" the first trials beside another sampler's: a
rung or two, then the stages, which ask the model; "ours, refinement" is the model's alone. A pruner is asked at each of
24 epochs of a trial after N complete ones, all told by `report_epoch` under 1cycle; the seconds are of the thread, the
fastest of some calls.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import optuna
import torch
from optuna.pruners import BasePruner
from optuna.pruners import MedianPruner
from optuna.pruners import NopPruner
from optuna.samplers import BaseSampler
from optuna.samplers import GPSampler
from optuna.samplers import RandomSampler
from optuna.samplers import TPESampler

from benchmarks.result_files import settings
from optuna_discipline import DisciplinedPruner
from optuna_discipline import DisciplinedSampler
from optuna_discipline import OneCycle
from optuna_discipline import Recipe
from optuna_discipline import report_epoch

SIZES = (10, 100, 1_000, 10_000)
EPOCHS, CALLS = 24, 30
SLOW = 1_000  # GPSampler is not timed above this: it would take minutes a trial


def objective(trial: optuna.Trial) -> float:
    """Report a falling curve; return a bowl."""
    lr = trial.suggest_float("lr", 1e-5, 10, log=True)
    momentum = trial.suggest_float("momentum", 0.8, 0.99)
    decay = trial.suggest_float("weight_decay", 1e-7, 1e-1, log=True)
    batch = trial.suggest_int("batch_size", 16, 256, log=True)
    step = np.log10(lr / (1 - momentum) / 4)
    loss = float(step**2 + 0.1 * (np.log10(decay) + 4) ** 2 + 0.1 * np.log2(batch / 64) ** 2)
    for epoch, above in enumerate((3.0, 2.0, 1.0, 0.0)):
        trial.report(loss + above, epoch)
    return loss


def seconds(make: Callable[[], BaseSampler], size: int, storage: str | None, repeats: int, stage: str = "") -> float:
    """Return the median seconds of one ask, suggest and tell after `size` finished trials.

    With a stage, whose trials soon end, each that is timed is the second in a study of its own; NaN where that is of
    another stage.
    """
    if not stage:
        return float(np.median([took for took, _ in timed(make(), size, storage, repeats)]))
    told = [timed(make(), size, storage, 1)[0] for _ in range(repeats)]
    return float(np.median([took if of == stage else np.nan for took, of in told]))


def timed(sampler: BaseSampler, size: int, storage: str | None, count: int) -> list[tuple[float, str]]:
    """Return the seconds of so many trials after `size` finished ones and a first one, each with its stage."""
    filled = optuna.create_study(sampler=RandomSampler(seed=0), storage=storage)
    if storage is None:
        filled.optimize(objective, n_trials=size)
    else:
        memory = optuna.create_study(sampler=RandomSampler(seed=0))
        memory.optimize(objective, n_trials=size)
        filled.add_trials(memory.trials)
    study = optuna.load_study(study_name=filled.study_name, storage=filled._storage, sampler=sampler)
    times = []
    for _ in range(count + 1):
        start = time.perf_counter()
        trial = study.ask()
        study.tell(trial, objective(trial))
        times.append((time.perf_counter() - start, trial.user_attrs.get("stage", "")))
    return times[1:]


def seconds_of_a_call(pruner: BasePruner, size: int) -> float:
    """Return the median seconds of a question to a pruner in memory, after `size` complete trials, over the epochs."""
    random, cycle = np.random.default_rng(0), OneCycle(1.0, EPOCHS)
    study = optuna.create_study(sampler=RandomSampler(seed=0))
    times = []
    for number in range(size + 1):
        trial, loss = study.ask(), 0.0
        for epoch in range(EPOCHS):
            loss = 1.5 * float(np.exp(-4 * (epoch + 1) / EPOCHS)) + 0.3 + 0.01 * random.normal()
            study.pruner = NopPruner()
            report_epoch(trial, epoch, val_loss=loss, train_loss=loss - 0.1, lr=cycle.lr(epoch), n_epochs=EPOCHS)
            study.pruner = pruner
            if number == size:
                times.append(min(_thread_seconds(trial) for _ in range(CALLS)))
        study.tell(trial, loss)
    return float(np.median(times))


def _thread_seconds(trial: optuna.Trial) -> float:
    start = time.thread_time()
    trial.should_prune()
    return time.thread_time() - start


def main() -> int:
    """Print the tables; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES)
    parser.add_argument("--sqlite-sizes", type=int, nargs="*", default=SIZES[:3])
    parser.add_argument("--pruner-sizes", type=int, nargs="*", default=SIZES[:3])
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    torch.set_num_threads(1)
    print(settings())
    methods = {
        "random": lambda: RandomSampler(seed=0),
        "tpe": lambda: TPESampler(seed=0),
        "ours, ladder": lambda: DisciplinedSampler(seed=0),
        "ours, stages": lambda: DisciplinedSampler(seed=0),
        "ours, refinement": lambda: DisciplinedSampler(Recipe(stages=("refine",)), seed=0),
        "gp": lambda: GPSampler(seed=0),
    }
    print("\nMilliseconds a trial, median\n\n| storage | sampler | " + " | ".join(map(str, arguments.sizes)) + " |")
    print("|---|---|" + "---|" * len(arguments.sizes))
    with tempfile.TemporaryDirectory() as folder:
        for kind, sizes in (("memory", arguments.sizes), ("sqlite", arguments.sqlite_sizes)):
            for name, make in methods.items():
                cells = []
                for size in sizes:
                    if size > SLOW and name == "gp":
                        cells.append("-")
                        continue
                    url = None if kind == "memory" else f"sqlite:///{Path(folder) / f'{name}-{size}.db'}"
                    stage = "lr" if name == "ours, ladder" else ""
                    took = 1e3 * seconds(make, size, url, arguments.repeats, stage)
                    cells.append("-" if np.isnan(took) else f"{took:.1f}")
                print(f"| {kind} | {name} | " + " | ".join(cells) + " |", flush=True)
    print("\nMilliseconds a call of a pruner\n\n| pruner | " + " | ".join(map(str, arguments.pruner_sizes)) + " |")
    print("|---|" + "---|" * len(arguments.pruner_sizes))
    for name, pruner in (("ours", DisciplinedPruner), ("median", MedianPruner)):
        cells = (f"{1e3 * seconds_of_a_call(pruner(), size):.2f}" for size in arguments.pruner_sizes)
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
