"""Replays recorded curves in random orders through pruners: what does early stopping cost, and what does it save?

    python -m benchmarks.pruner_replay record            # 3,136 small trainings, 20 minutes on one core; resumable
    python -m benchmarks.pruner_replay replay [NAME...]  # pruners on the groups that they have no row for; resumable
    python -m benchmarks.pruner_replay again [NAME...]   # the same, without the rows that are there
    python -m benchmarks.pruner_replay table             # from the files alone
    python -m benchmarks.pruner_replay divergence        # how soon broken runs are stopped

A group is a set of complete trainings of one task, length, schedule and box. A replay is one imagined study: all the
group's runs in a random order, one after the other, each reported epoch by epoch to a real `optuna.Study` until the
pruner stops it. The study's result is its best completed run. *Regret* is how far that lies above the group's best:
of the validation loss relative to the best (at most 1), of the accuracy absolute. *Lost* is the share of orders in
which it is not the best. *Saved* is the share of all epochs that was not trained. A run stopped in its last epoch
counts as complete. Ours is replayed through its pure rule, see `benchmarks.pruner_rule`. The author's logs are in
`$OPTUNA_DISCIPLINE_DATA/smith`; of their 3 to 11 runs a group, Median and Percentile compare from the second on.
"""

import argparse
import csv
import os
import platform
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.pruners import BasePruner
from optuna.trial import TrialState

import optuna_discipline
from benchmarks import pruner_divergence
from benchmarks import pruner_table
from benchmarks.pruner_curves import FOLDER
from benchmarks.pruner_curves import Group
from benchmarks.pruner_curves import read_authors
from benchmarks.pruner_curves import read_own
from benchmarks.pruner_rule import PreparedGroup
from benchmarks.result_files import whole
from optuna_discipline import DisciplinedPruner
from optuna_discipline import LossCurve
from optuna_discipline import TrialReporter

METRICS = ("val_loss", "val_accuracy")
RESULTS = FOLDER / "replay.csv"
OURS = "ours"
ORDERS = {"own": 25, "author": 200, "long": 40}
LONG = 400  # reports of a run, from which on there are fewer orders
FEW_ORDERS = 1  # for Wilcoxon, which is slow; it is not replayed on everything, either
CHANCE = 1e9  # what a study hears of a run that ended at no number
COLUMNS = ("pruner", "group", "schedule", "box", "part", "metric", "orders", "regret", "worst", "lost", "saved")

# From the planned epochs of a run and the trials before the first comparison to a pruner.
STOCK: dict[str, Callable[[int, int], BasePruner]] = {
    "Nop": lambda n, first: optuna.pruners.NopPruner(),
    "Median": lambda n, first: optuna.pruners.MedianPruner(first),
    "Median, warm-up 50 %": lambda n, first: optuna.pruners.MedianPruner(first, n // 2),
    "Median, warm-up 80 %": lambda n, first: optuna.pruners.MedianPruner(first, 4 * n // 5),
    "Percentile 75": lambda n, first: optuna.pruners.PercentilePruner(75.0, first),
    "Percentile 75, warm-up 50 %": lambda n, first: optuna.pruners.PercentilePruner(75.0, first, n // 2),
    "Hyperband": lambda n, first: optuna.pruners.HyperbandPruner(1, n),
    "SuccessiveHalving": lambda n, first: optuna.pruners.SuccessiveHalvingPruner(),
    "Wilcoxon": lambda n, first: optuna.pruners.WilcoxonPruner(n_startup_steps=2),
    "Patient (Median)": lambda n, first: optuna.pruners.PatientPruner(optuna.pruners.MedianPruner(first), n // 8),
}
PRUNERS: dict[str, Callable[[int, int], BasePruner]] = {OURS: lambda n, first: DisciplinedPruner(), **STOCK}


@dataclass(frozen=True)
class Outcome:
    """What one replay came to.

    Attributes:
        regret: Of the best completed run against the best of all.
        saved: Share of the epochs that was not trained.
        lived: Epochs that each run of the group was trained, shape (runs,).
    """

    regret: float
    saved: float
    lived: np.ndarray


def replay(group: Group, pruner: BasePruner, metric: str, seed: int) -> Outcome:
    """Run one imagined study over a group."""
    maximize = metric == "val_accuracy"
    order = np.random.default_rng(seed).permutation(len(group.curves))
    study = optuna.create_study(
        pruner=pruner, direction="maximize" if maximize else "minimize", study_name=f"{group.name} {seed}"
    )
    lived = np.zeros(len(order), dtype=int)
    for index in order:
        curve = group.curves[index]
        lived[index] = _live(study, curve, metric, rows=isinstance(pruner, DisciplinedPruner))
    return outcome(group, metric, lived)


def outcome(group: Group, metric: str, lived: np.ndarray) -> Outcome:
    """Return what it came to that the runs of a group lived so many epochs."""
    finals = np.array([final_score(curve, metric) for curve in group.curves])
    lengths = np.array([len(curve) for curve in group.curves])
    best, found = finals.min(), min(finals[lived == lengths], default=np.inf)
    regret = min(1.0, found / best - 1) if metric == "val_loss" else min(found, 0.0) - best
    return Outcome(float(regret), float(1 - lived.sum() / lengths.sum()), lived)


def final_score(curve: LossCurve, metric: str) -> float:
    """Return the last value of a run's metric, turned so that smaller is better; inf if it is no number."""
    value = getattr(curve.logs[-1], metric)
    value = -value if metric == "val_accuracy" else value
    return value if np.isfinite(value) else np.inf


def _live(study: optuna.Study, curve: LossCurve, metric: str, *, rows: bool) -> int:
    """Report one run until the pruner stops it; return the epochs it lived."""
    trial = study.ask()
    reporter = TrialReporter(trial, n_epochs=curve.n_epochs, metric=metric, n_classes=curve.n_classes) if rows else None
    for log in curve.logs:
        try:
            if reporter is not None:
                reporter.report(log)
            else:
                trial.report(getattr(log, metric), log.epoch)
                if trial.should_prune():
                    raise optuna.TrialPruned
        except optuna.TrialPruned:
            study.tell(trial, state=TrialState.PRUNED)
            return log.epoch + 1
    value = final_score(curve, metric)
    sign = -1 if metric == "val_accuracy" else 1
    study.tell(trial, sign * (value if np.isfinite(value) else CHANCE))
    return len(curve)


def read_groups() -> list[Group]:
    """Return the author's groups, if the logs are at hand, and our own."""
    logs = Path(os.environ.get("OPTUNA_DISCIPLINE_DATA", "")) / "smith" / "superconvergence_logs.csv.gz"
    if not logs.is_file():
        print("without the author's logs: set OPTUNA_DISCIPLINE_DATA to a folder with smith/", file=sys.stderr)
    return [*(read_authors(logs) if logs.is_file() else ()), *read_own()]


def replay_all(names: list[str], groups: list[Group]) -> None:
    """Replay groups through the named pruners, where there is no row of them yet, and write the rows after each."""
    for name in names:
        rows = read_rows() if RESULTS.exists() else []
        there = {(row["pruner"], row["group"], row["metric"]) for row in rows}
        for group in groups:
            for metric in METRICS if group.part != "author" else METRICS[1:]:
                if (name, group.name, metric) not in there and not _is_too_slow(name, group, metric):
                    rows.append(_summarise(name, group, metric))
        _write_rows(rows)
        print(name, "done", flush=True)


def _is_too_slow(name: str, group: Group, metric: str) -> bool:
    """Return whether a replay is left out: Wilcoxon takes a second and more for an order of one small group."""
    if name != "Wilcoxon":
        return False
    return len(group.curves[0]) > LONG if group.part == "author" else group.box != "wide" or metric != "val_loss"


def _summarise(name: str, group: Group, metric: str) -> dict[str, str]:
    length, author = group.curves[0].n_epochs, group.part == "author"
    orders = ORDERS["long" if length > LONG else "author" if author else "own"]
    if name == OURS:
        prepared = PreparedGroup(group, metric)
        found = [outcome(group, metric, prepared.replay(seed)) for seed in range(orders)]
    else:
        orders = min(orders, FEW_ORDERS) if name == "Wilcoxon" else orders
        first = 1 if author else 5
        found = [replay(group, PRUNERS[name](length, first), metric, seed) for seed in range(orders)]
    regrets = np.array([one.regret for one in found])
    numbers = (regrets.mean(), regrets.max(), (regrets > 1e-9).mean(), np.mean([one.saved for one in found]))
    kind = (name, group.name, group.schedule, group.box, group.part, metric, str(orders))
    return dict(zip(COLUMNS, (*kind, *(f"{x:.5f}" for x in numbers)), strict=True))


def read_rows() -> list[dict[str, str]]:
    """Return what `replay` wrote."""
    with RESULTS.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(line for line in file if not line.startswith("#")))


def _write_rows(rows: list[dict[str, str]]) -> None:
    with whole(RESULTS) as beside, beside.open("w", encoding="utf-8", newline="") as file:
        versions = f"optuna {optuna.__version__}, optuna_discipline {optuna_discipline.__version__}"
        file.write(f"# {versions}, numpy {np.__version__}, Python {platform.python_version()}\n")
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main() -> int:
    """Record, replay or print; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("record", "replay", "again", "table", "divergence"))
    pruners = ", ".join(PRUNERS).replace("%", "%%")  # argparse formats its help
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"pruners: {pruners}")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", ExperimentalWarning)
    if arguments.command == "record":
        from benchmarks.pruner_curves import record

        record()
    elif arguments.command == "table":
        print(pruner_table.write(read_rows()))
    elif arguments.command == "divergence":
        print(pruner_divergence.write(read_groups()))
    else:
        names = arguments.names or list(PRUNERS)
        if arguments.command == "again":
            _write_rows([row for row in read_rows() if row["pruner"] not in names])
        replay_all(names, read_groups())
    return 0


if __name__ == "__main__":
    sys.exit(main())
