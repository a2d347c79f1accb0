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
        f"Recorded sets, {TITLES[metric]} ({box} box): mean regret / share of best runs lost / epochs saved\n\n"
        + _own(_where(rows, metric=metric, box=box))
        for box in ("wide", "narrow")
        for metric in TITLES
    ]
    return "\n\n".join(["The author's logs, accuracy\n\n" + _authors(_where(rows, part="author")), *own])


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
    kinds = [(part, cycle) for part in PARTS for cycle in (True, False) if _where(rows, part=part)]
    heads = [f"{part}, {'1cycle' if cycle else 'falling rate'}" for part, cycle in kinds]
    lines = [f"| pruner | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for name in _names(rows):
        cells = []
        for part, cycle in kinds:
            found = [row for row in _where(rows, pruner=name, part=part) if (row["schedule"] == "1cycle") == cycle]
            regret, lost, saved = (_column(found, key) for key in ("regret", "lost", "saved"))
            cells.append(f"{regret.mean():.4f} / {lost.mean():.0%} / {saved.mean():.0%}" if found else "-")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _column(rows: Sequence[Row], key: str) -> np.ndarray:
    return np.array([float(row[key]) for row in rows])
