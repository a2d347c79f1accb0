"""Whether the curve of a training says on which side a better learning rate lies: `python -m benchmarks.lr_lean`.

Trains the networks of the duel (4 seeds) and of the range-test benchmark (3 seeds) by 1cycle at 14 or 15 rates,
each a factor of 10 ** 0.25 apart, and compares what `shape_of` reads from the validation losses of a run with where the
mean over seeds is best. What was trained is kept in a file per network. One thread.

A second table reads the trainings recorded for the pruners: other networks, four schedules, random learning rates,
momenta and weight decays. There the best rate is the median of the five best runs of a group, in lr / (1 - momentum). A
third reads those at all rates, and how far the better one is; a fourth what few reports hide.
"""

import argparse
import json
import math
import sys
from bisect import bisect_left
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import pruner_curves
from benchmarks.duel import run as duel
from benchmarks.duel.tasks import Task
from benchmarks.duel.tasks import load_tasks
from benchmarks.range_test_nets import Net
from benchmarks.range_test_nets import load_nets
from benchmarks.range_test_nets import loss_fn
from benchmarks.range_test_runs import build
from benchmarks.range_test_runs import total_steps
from benchmarks.result_files import settings
from benchmarks.result_files import write
from optuna_discipline import OneCycle
from optuna_discipline import Run
from optuna_discipline import train_epochs
from optuna_discipline.rules.lr_lean import CLIMBED
from optuna_discipline.rules.lr_lean import LEVEL
from optuna_discipline.rules.lr_lean import OVERSHOT
from optuna_discipline.rules.lr_lean import LrReading
from optuna_discipline.rules.lr_lean import began_late
from optuna_discipline.rules.lr_lean import read_lr
from optuna_discipline.rules.lr_lean import shape_of

RESULTS = Path(__file__).parent / "results" / "lr_lean"
DUEL_LRS = [float(f"{10 ** (k / 4):.3g}") for k in range(-11, 3)]
ADAMW = 0.03  # the grid of AdamW against that of SGD
NEAR = 4.0  # rates within this factor of the best one are those that a ladder meets
FAR = 6.0  # as NEAR, for the recorded trainings, whose best rate is less certain
SCHEDULES = ("1cycle", "cosine", "step", "constant")
FEW = 8
Curves = dict[str, list[list[float]]]  # by learning rate: a curve for each seed


@dataclass(frozen=True)
class Reading:
    """One run near the best rate: what its curve says and what the neighbours show."""

    group: str
    lean: str | None
    below_is_better: bool
    distance: float  # log of the best rate over the run's


def main() -> int:
    """Train what is missing, print the table; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, help="as in the duel")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    tasks, skipped = load_tasks(arguments.data_root)
    nets, more = load_nets(arguments.data_root)
    for line in (*skipped, *more):
        print("skipped", line)
    readings: list[Reading] = []
    for task in tasks.values():
        curves = _known(arguments.out / f"duel-{task.name}.json", lambda task=task: _train_task(task))
        readings += list(_read(curves, "duel"))
    for net in nets.values():
        curves = _known(
            arguments.out / f"{net.name}.json", lambda net=net: _train_net(net, net.data(arguments.data_root))
        )
        readings += list(_read(curves, "held out" if net.held_out else "others"))
    _print(readings)
    _print_recorded()
    _print_far()
    _print_hidden()
    return 0


def _known(path: Path, make: Any) -> Curves:
    if not path.exists():
        write(path, {"settings": settings(), "curves": make()})
    curves: Curves = json.loads(path.read_text(encoding="utf-8"))["curves"]
    return curves


def _train_task(task: Task) -> Curves:
    curves: Curves = {}
    for lr in DUEL_LRS:
        lr *= ADAMW if task.optimizer == "adamw" else 1.0
        params = {"lr": lr, **duel.DEFAULT, "batch_size": task.batch_size or 64}
        params |= duel.ARCHITECTURE if task.architecture else {}
        curves[f"{lr:.3g}"] = [duel.train(task, params, 1000 + seed)["curve"] for seed in range(4)]
    return curves


def _train_net(net: Net, data: Any) -> Curves:
    curves: Curves = {}
    for lr in net.grid:
        curves[f"{lr:.3g}"] = []
        for seed in range(50, 53):
            logs = train_epochs(
                build(net, seed),
                loss_fn,
                data[0],
                data[1],
                OneCycle(lr, total_steps(net, data), max_momentum=0.95, base_momentum=0.85),
                optimizer=net.optimizer,
                weight_decay=1e-4,
                batch_size=net.batch_size,
                seed=seed,
                accuracy=False,
            )
            losses = []
            for log in logs:
                losses.append(math.nan if log.val_loss is None else float(f"{log.val_loss:.5g}"))
                if not math.isfinite(losses[-1]):
                    break
            curves[f"{lr:.3g}"].append(losses)
    return curves


def _read(curves: Curves, group: str) -> Iterator[Reading]:
    """Return what the runs near the best rate say that did not break; the rates at the ends have no neighbours."""
    lrs = sorted(curves, key=float)
    worst = 3 * max(c[0] for runs in curves.values() for c in runs[:1] if math.isfinite(c[0]))
    mean = [float(np.mean([final_loss(c, worst) for c in curves[lr]])) for lr in lrs]
    best = float(lrs[int(np.argmin(mean))])
    for i in range(2, len(lrs) - 2):
        if not 1 / NEAR < float(lrs[i]) / best < NEAR:
            continue
        for curve in curves[lrs[i]]:
            if shape_of(tuple(curve)) is None or final_loss(curve, worst) > 1.3 * curve[0]:
                continue
            said = read_lr(Run(0, "complete", {}, curve[-1], reports=tuple(curve)))
            below, above = min(mean[i - 2 : i]), min(mean[i + 1 : i + 3])
            yield Reading(group, None if said is None else said.lean, below < above, math.log(best / float(lrs[i])))


def _curves(schedule: str, by: str) -> Iterator[tuple[np.ndarray, float]]:
    """Return the reports of each recorded training, and the log of the best rate over its own."""
    for path in sorted(pruner_curves.FOLDER.glob(f"*.{schedule}.*.npz")):
        with np.load(path) as stored:
            rows, configs = stored["rows"].astype(float), stored["configs"]
        rates = np.log(configs[:, 0] / (1 - configs[:, 1]))
        curves = rows[:, 2] if by == "loss" else 1 - rows[:, 3]
        final = np.where(np.isfinite(curves[:, -1]), curves[:, -1], np.inf)
        best = float(np.median(rates[np.argsort(final)[:5]]))
        yield from ((curve, best - float(rate)) for curve, rate in zip(curves, rates, strict=True))


def _recorded(schedule: str, by: str, within: float = FAR) -> Iterator[tuple[LrReading, float]]:
    """Return what each recorded training near the best rate says, and the log of the best rate over its own."""
    for curve, distance in _curves(schedule, by):
        said = read_lr(Run(0, "complete", {}, float(curve[-1]), reports=tuple(curve)))
        if abs(distance) < math.log(within) and said is not None:
            yield said, distance


def _print_recorded() -> None:
    print(f"\nRecorded trainings at rates within {FAR:g} times the best one: number, and best rate over this one\n")
    print("| read by | schedule | down | nothing | up |")
    print("|---|---|---|---|---|")
    for by in ("loss", "error"):
        for schedule in SCHEDULES:
            found = list(_recorded(schedule, by))
            cells = []
            for lean in ("down", None, "up"):
                some = [distance for said, distance in found if said.lean == lean]
                cells.append(f"{len(some)}: {math.exp(np.mean(some)):.2f}" if some else "-")
            print(f"| {by} | {schedule} | {' | '.join(cells)} |")


def _print_far() -> None:
    print("\nAt all rates: number, and best rate over this one (median, a tenth below, a tenth above)\n")
    print("| read by | schedule | far down | down | nothing | up | far up |")
    print("|---|---|---|---|---|---|---|")
    for by in ("loss", "error"):
        for schedule in SCHEDULES:
            found = list(_recorded(schedule, by, math.inf))
            cells = []
            for wanted in (
                LrReading("down", True),
                LrReading("down"),
                LrReading(None),
                LrReading("up"),
                LrReading("up", True),
            ):
                some = [distance for said, distance in found if said == wanted]
                middle, low, high = np.exp(np.quantile(some, [0.5, 0.1, 0.9])) if some else (math.nan,) * 3
                cells.append(f"{len(some)}: {middle:.2g} ({low:.2g}, {high:.2g})")
            print(f"| {by} | {schedule} | {' | '.join(cells)} |")


def _print_hidden() -> None:
    """Print what climbs of few reports mean that do not stand out of what looks like noise."""
    print(f"\nThinned to {FEW} reports, neither climbed beyond noise nor only fell: share with a better rate above\n")
    print("| read by | still falling | steepest climb up to .03 | .1 | .2 | more |\n|---|---|---|---|---|---|")
    for by in ("loss", "error"):
        above: dict[tuple[bool, int], list[bool]] = {}
        for curve, distance in (one for name in SCHEDULES for one in _curves(name, by)):
            reports = tuple(curve[np.linspace(0, len(curve) - 1, FEW).round().astype(int)])
            shape = shape_of(reports)
            if shape is not None and shape[0] > LEVEL and shape[1] <= CLIMBED and shape[2] <= OVERSHOT:
                late = began_late(np.array(reports))
                above.setdefault((late, bisect_left((0.03, 0.1, 0.2), shape[0])), []).append(distance > 0)
        for late in (True, False):
            cells = [f"{np.mean(some):.2f} of {len(some)}" for i in range(4) if (some := above.get((late, i)))]
            print(f"| {by} | {'yes' if late else 'no'} | {' | '.join(cells)} |")


def final_loss(curve: Sequence[float], worst: float) -> float:
    """Return the last loss of a curve, at most `worst`, which also stands for one that broke."""
    return min(curve[-1], worst) if math.isfinite(curve[-1]) else worst


def _print(readings: Sequence[Reading]) -> None:
    print(f"{len(readings)} trainings at rates within {NEAR:g} times the best one\n")
    print("| the curve says | networks | trainings | better rate below | best rate over this one |")
    print("|---|---|---|---|---|")
    groups = list(dict.fromkeys(reading.group for reading in readings))
    for lean in ("down", None, "up"):
        for group in ("all", *groups):
            some = [r for r in readings if r.lean == lean and group in ("all", r.group)]
            if some:
                below = np.mean([r.below_is_better for r in some])
                ratio = math.exp(np.mean([r.distance for r in some]))
                print(f"| {lean or 'nothing'} | {group} | {len(some)} | {below:.2f} | {ratio:.2f} |")


if __name__ == "__main__":
    sys.exit(main())
