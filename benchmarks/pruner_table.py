"""Turns the rows that `benchmarks.pruner_replay` wrote into the tables of the README."""

from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np

Row = Mapping[str, str]
PARTS = ("development", "held out", "fresh")
TITLES = {"val_loss": "validation loss, minimised", "val_accuracy": "validation accuracy, maximised"}


def write(rows: Sequence[Row]) -> str:
    """Return all tables in Markdown."""
    own = [
        f"**Recorded sets, {TITLES[metric]}, {box} box** (mean regret / best run lost / epochs saved)\n\n"
        + _own(_where(rows, metric=metric, box=box))
        for box in ("wide", "narrow")
        for metric in TITLES
    ]
    head = "**The author's logs, accuracy** (nine groups of 3 to 11 runs)\n\n"
    tail = "**Ours by schedule, validation loss** (mean regret / best run lost / epochs saved)\n\n"
    ours = _where(rows, pruner="ours", metric="val_loss")
    return "\n\n".join([head + _authors(_where(rows, part="author")), *own, tail + _by_schedule(ours)])


def _where(rows: Sequence[Row], **wanted: str) -> list[Row]:
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def _names(rows: Sequence[Row]) -> list[str]:
    names = dict.fromkeys(row["pruner"] for row in rows)
    return sorted(names, key=lambda name: name != "ours")


def _authors(rows: Sequence[Row]) -> str:
    lines = [
        "| pruner | mean regret | of the worst group | best run lost in the worst group | epochs saved |",
        "|---|---|---|---|---|",
    ]
    for name in _names(rows):
        regret, lost, saved = (_column(_where(rows, pruner=name), key) for key in ("regret", "lost", "saved"))
        cells = (f"{regret.mean():.4f}", f"{regret.max():.4f}", f"{lost.max():.0%}", f"{saved.mean():.0%}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _own(rows: Sequence[Row]) -> str:
    parts = [part for part in PARTS if _where(rows, part=part)]
    lines = [f"| pruner | {' | '.join(parts)} |", "|---" * (len(parts) + 1) + "|"]
    for name in _names(rows):
        cells = (_cell(_where(rows, pruner=name, part=part)) for part in parts)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _by_schedule(rows: Sequence[Row]) -> str:
    schedules = list(dict.fromkeys(row["schedule"] for row in rows if row["part"] in PARTS))
    lines = [f"| box | {' | '.join(schedules)} |", "|---" * (len(schedules) + 1) + "|"]
    for box in ("wide", "narrow"):
        cells = (_cell(_where(rows, box=box, schedule=schedule)) for schedule in schedules)
        lines.append(f"| {box} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(rows: Sequence[Row]) -> str:
    regret, lost, saved = (_column(rows, key) for key in ("regret", "lost", "saved"))
    return f"{regret.mean():.4f} / {lost.mean():.0%} / {saved.mean():.0%}" if len(rows) else "-"


def _column(rows: Sequence[Row], key: str) -> np.ndarray:
    return np.array([float(row[key]) for row in rows])
