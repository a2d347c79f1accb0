"""How soon is a broken training stopped? Told with hindsight on the recorded curves, by the divergence rule alone."""

import math
from collections.abc import Sequence

import numpy as np

from benchmarks.pruner_curves import PARTS
from benchmarks.pruner_curves import Group
from benchmarks.pruner_rule import PreparedRun
from optuna_discipline import LossCurve

BACK, LEFT, BLOWN_UP, LEARNED = 0.98, 0.9, 1.5, 0.5


def write(groups: Sequence[Group]) -> str:
    """Return a table of the delays, in Markdown."""
    lines = [
        "| part | broken runs | trained on after the break, mean | 95 % quantile | stopped within 10 % of a run | "
        "stopped runs that would have learned |",
        "|---|---|---|---|---|---|",
    ]
    for part in PARTS:
        delays, healed = _delays([group for group in groups if group.part == part])
        if len(delays):
            numbers = (delays.mean(), np.quantile(delays, 0.95), np.mean(delays <= 0.1 + 1e-9))
            lines.append(f"| {part} | {len(delays)} | {' | '.join(f'{x:.1%}' for x in numbers)} | {healed} |")
    return "\n".join(lines)


def broke_at(curve: LossCurve) -> int | None:
    """Return the epoch from which on a run stayed broken to its end, None if it did not or never was anything else.

    Its training loss is at chance or no number from there on, and was below chance or far above it before.
    """
    assert curve.n_classes is not None
    chance, losses = math.log(curve.n_classes), curve.train_loss
    fine = losses < BACK * chance  # NaN is not
    if fine[-1]:
        return None
    at = int(np.nonzero(fine)[0][-1]) + 1 if fine.any() else 0
    learned = fine.any() and losses[fine].min() < LEFT * chance
    return at if learned or np.any(~(losses[at:] < BLOWN_UP * chance)) else None


def _delays(groups: Sequence[Group]) -> tuple[np.ndarray, int]:
    """Return the shares of a run that broken ones were trained on, and how many stopped ones were not broken."""
    delays, healed = [], 0
    for curve in (curve for group in groups for curve in group.curves):
        broke, stopped = broke_at(curve), PreparedRun(curve, "val_loss").breaks_at
        if broke is not None:
            delays.append(((stopped or len(curve)) - broke) / len(curve))
        elif stopped is not None:
            assert curve.n_classes is not None
            healed += bool(curve.val_loss[-1] < LEARNED * math.log(curve.n_classes))
    return np.array(delays), healed
