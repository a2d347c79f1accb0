"""Recorded curves: writes those of the small tasks, reads them and the author's logs."""

import csv
import gzip
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.result_files import whole
from optuna_discipline import EpochLog
from optuna_discipline import LossCurve

FOLDER = Path(__file__).parent / "results" / "pruner_replay"
CLASSES = {"digits": 10, "wine": 3, "cancer": 2, "fashion": 10}
PARTS = ("development", "held out", "fresh")
# Runs of one network, data, length and schedule family; their accuracies compare. The rest of the logs are range tests
# and runs on another amount of data.
AUTHORS_GROUPS = {
    "1cycle, weight decay": ("clr3SS5kFig1a", "clr3SS5kWD-3Fig11", "clr3SS5kWD-5Fig11", "clr3SS5kWD-6Fig11"),
    "1cycle, momentum": ("clr3SS5kFig1a", "clr3SS5kMom8Fig11", "clr3SS5kMom85Fig11", "clr3SS5kMom95Fig11"),
    "1cycle, all": (
        "clr3SS5kFig1a",
        "clr3SS5kWD-3Fig11",
        "clr3SS5kWD-5Fig11",
        "clr3SS5kWD-6Fig11",
        "clr3SS5kMom8Fig11",
        "clr3SS5kMom85Fig11",
        "clr3SS5kMom95Fig11",
        "clr3SS5kNestFig9",
    ),
    "1cycle, depth": ("clr3SS5kFig1a", "clr3SS5kRes110Tab1", "clr3SS5kRes20Tab1"),
    "1cycle, data": (
        "clr3SS5kFig1a",
        "clr3SS5kTr10kTab1",
        "clr3SS5kTr20kTab1",
        "clr3SS5kTr30kTab1",
        "clr3SS5kTr40kTab1",
    ),
    "step, optimizer": ("lr35Fig1a", "lr35AdaDeltaFig9", "lr35AdaGradFig9", "lr35AdamFig9", "lr35NestFig9"),
    "step, depth": ("lr35Fig1a", "lr35Res110Fig6b", "lr35Res20Fig6b"),
    "step, data": ("lr35Fig1a", "lr35Tr10kTab1", "lr35Tr20kTab1", "lr35Tr30kTab1", "lr35Tr40kTab1"),
    "step, all": (
        "lr35Fig1a",
        "lr35AdaDeltaFig9",
        "lr35AdaGradFig9",
        "lr35AdamFig9",
        "lr35NestFig9",
        "lr35Res110Fig6b",
        "lr35Res20Fig6b",
        "lr35Tr10kTab1",
        "lr35Tr20kTab1",
        "lr35Tr30kTab1",
        "lr35Tr40kTab1",
    ),
}


@dataclass(frozen=True)
class Group:
    """The trainings of one imagined study.

    Attributes:
        name: What they share.
        schedule: "1cycle", "cosine", "constant" or "step".
        box: "wide", "narrow" or "author".
        part: "development", "held out", "fresh" (see `pruner_tasks`) or "author".
        curves: At full length.
    """

    name: str
    schedule: str
    box: str
    part: str
    curves: tuple[LossCurve, ...]


def record(folder: Path = FOLDER) -> None:
    """Train every run that has no record yet; a group is written whole, so a broken recording goes on."""
    from benchmarks import pruner_tasks as tasks

    for task in tasks.TASKS:
        for schedule in tasks.SCHEDULES:
            for box in tasks.BOXES:
                path = folder / f"{task.name}.{schedule}.{box}.npz"
                if path.exists():
                    continue
                start, configs = time.perf_counter(), tasks.draw(task, schedule, box)
                rows = np.stack([tasks.train(task, schedule, config, i) for i, config in enumerate(configs)])
                settings = {"n_classes": CLASSES[task.data], "part": PARTS.index(task.part)}
                with whole(path) as beside, beside.open("wb") as file:
                    np.savez_compressed(file, rows=rows.astype(np.float32), configs=configs, **settings)
                print(f"{path.name}: {len(configs)} trainings in {time.perf_counter() - start:.0f} s", flush=True)


def read_own(folder: Path = FOLDER) -> Iterator[Group]:
    """Read the recorded groups."""
    for path in sorted(folder.glob("*.npz")):
        task, schedule, box = path.name.removesuffix(".npz").split(".")
        with np.load(path) as stored:
            rows, n_classes, part = stored["rows"].astype(float), int(stored["n_classes"]), PARTS[int(stored["part"])]
        curves = tuple(_curve(run, n_classes) for run in rows)
        yield Group(f"{task}, {schedule}, {box}", schedule, box, part, curves)


def read_authors(path: Path) -> Iterator[Group]:
    """Read the groups of the author's published training logs (companion paper, arXiv 1708.07120)."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    runs: dict[str, list[tuple[float, ...]]] = {}
    for row in rows:
        if row["test_loss"]:
            names = ("lr", "train_loss", "test_loss", "test_accuracy")
            runs.setdefault(row["run"], []).append(tuple(float(row[name] or "nan") for name in names))
    for name, members in AUTHORS_GROUPS.items():
        curves = tuple(_curve(np.array(runs[run]).T, 10) for run in members)
        yield Group(name, name.split(",")[0], "author", "author", curves)


def _curve(rows: np.ndarray, n_classes: int) -> LossCurve:
    logs = tuple(EpochLog(epoch, *(float(x) for x in row)) for epoch, row in enumerate(rows.T))
    return LossCurve(logs, n_epochs=len(logs), n_classes=n_classes)
