"""Where the model searches: a box around the best full run, in the units of its hyperparameters."""

import math
from collections.abc import Mapping
from collections.abc import Sequence
from statistics import median

from optuna_discipline.rules.lr_lean import NEARBY
from optuna_discipline.rules.lr_lean import LrReading
from optuna_discipline.rules.lr_lean import is_error
from optuna_discipline.rules.lr_lean import read_lr
from optuna_discipline.rules.lr_lean import samples_of
from optuna_discipline.rules.run import Run
from optuna_discipline.rules.run import differ_in_rate
from optuna_discipline.rules.space import Bounds
from optuna_discipline.rules.space import Role

# Narrower boxes (a third of it) were no better after 10 trainings and worse after 20, on surrogates of 13 small nets.
LR_BOX = (1 / 8, 6.0)
# Where nothing is known the model looks at the ends first. Up to 300 times the weight decay, and over all batch sizes,
# some 30 of the first nine runs of 70 studies were lost to 0.03 (from 1e-4) or to batches of 250 (from 32);
# with these ends the regret of 14 networks fell from .040 .030 .022 to .037 .028 .019 after 5, 10 and 20 trainings.
WEIGHT_DECAY_BOX, BATCH_BOX = (1 / 300, 30.0), (1 / 4, 4.0)
MOMENTUM_BOX = 6.0  # times 1 - momentum
# In a stage of another role the learning rate only follows that role. From a few noisy rungs the model would jump: on
# one study to 1/8 of a good rate. A factor of 3 gained half as much.
NEAR_LR_BOX = (1 / 2, 2.0)
# How far above the best run's learning rate, where no larger one has trained farther above; a step of the ladder where
# no curve can say that there is room. Without reports, by 1.5 and by 3, studies with the names of Hugging Face's
# trainer had a regret of .17 .10 .08 and .08 .05 .04 after 5, 10 and 20 trainings, tables .143 .142 .134 and .141 .140
# .133. What has trained a little above is no end: in a study whose best rate was 10 times the start every trial after
# the fourth stayed below one that was 1.02 times the best (10 seeds of 10). An error without a side is unread, too: a
# fine-tuning that began at 1/20 of its best rate stood at .25 after 13 trainings, .05 to .08 so (with the ladder's step
# up); surrogates whose errors count 400 samples had .065 .063 and .093 .089 after 5 and 6 trainings by four and seven
# parameters, .058 .059 and .088 .084 without both, within their noise.
BEYOND_TRAINED, BEYOND_UNREAD = 1.5, 3.0

# A side that the best curve closes is open again where the other one has no room left, or so many trained there, all of
# them worse, or at the best run's own rate to the same end. (With all that trained at its own rate, whatever their end,
# 89 studies had a regret of .084 after 10 trainings, not .081.)
LEAST_ROOM, ENOUGH_BEYOND, SAME = 1.2, 3, 1e-3


# Where the best run gained less than this share of its span in its second half, the first look at the weight decay goes
# up: the network has learned what it can, and a model that knows nothing yet would take the farther end of the box. At
# ten times 1e-4 six of 30 networks gain more than 2 % and two lose more than 5 %, at a hundredth two and two, at a
# hundred times three and 18 (`benchmarks.decay_and_rate`).
GAINED_LATE, FIRST_LOOK, MIN_FOR_HALVES = 0.05, 10.0, 4


def box_around(
    values: Mapping[Role, float],
    best: Run | None,
    runs: Sequence[Run],
    *,
    near: bool = False,
    limits: Bounds | None = None,
    decays: Bounds | None = None,
) -> dict[Role, tuple[float, float]]:
    """Return bounds of the roles that have a box.

    Args:
        values: What it lies around.
        best: The best full run, if `values` are its own: its curve may close a side of the learning rate.
        runs: All runs.
        near: Whether the learning rate is to stay near.
        limits: Bounds of the learning rate.
        decays: Bounds of the weight decay, where it is looked at for the first time.
    """
    box: dict[Role, tuple[float, float]] = {}
    sizes: dict[Role, tuple[float, float]] = {
        "lr": NEAR_LR_BOX if near else LR_BOX,
        "weight_decay": WEIGHT_DECAY_BOX,
        "batch_size": BATCH_BOX,
    }
    for role, (low, high) in sizes.items():
        if values.get(role, 0) > 0:
            box[role] = (values[role] * low, values[role] * high)
    now = values.get("weight_decay", 0)
    if decays is not None and best is not None and 0 < FIRST_LOOK * now <= decays.high and _stood_late(best.reports):
        box["weight_decay"] = (now, now * FIRST_LOOK)
    if 0 < values.get("momentum", 0) < 1:
        left = 1 - values["momentum"]
        box["momentum"] = (max(1 - left * MOMENTUM_BOX, 0.0), 1 - left / MOMENTUM_BOX)
    if "lr" in box and best is not None and "lr" in best.params:
        low, high = box["lr"]
        if limits is not None and limits.low <= best.params["lr"] <= limits.high:
            low, high = max(low, limits.low), min(high, limits.high)
        box["lr"] = _within_reach(low, high, best, runs)
    return box


def _stood_late(reports: Sequence[float]) -> bool:
    """Whether a run gained hardly anything in its second half; medians of three reports are compared."""
    if len(reports) < MIN_FOR_HALVES or not all(map(math.isfinite, reports)):
        return False
    at = len(reports) // 2
    return median(reports[at - 1 : at + 2]) - median(reports[-3:]) <= GAINED_LATE * (max(reports) - min(reports))


def _is_refuted(reading: LrReading, best: Run, runs: Sequence[Run]) -> bool:
    alike = [run for run in runs if run.finished and differ_in_rate(run, best)]
    losses = {run.params["lr"] / best.params["lr"]: run.score for run in alike}
    return reading.is_refuted_by(losses, best.score, samples_of(best, *alike))


def _is_same(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=SAME)


def _within_reach(low: float, high: float, best: Run, runs: Sequence[Run]) -> tuple[float, float]:
    """Return the learning rates worth a run: of those from `low` to `high` not the side that the best curve closes.

    Nor those far above all that have trained: a rate that went well once on the edge of divergence breaks at the next
    seed, and a ladder that ended at its top is a slope to the model, which leads out of the box's corner.
    """
    reading, lr = read_lr(best), best.params["lr"]
    lean = None if reading is None or _is_refuted(reading, best, runs) else reading.lean
    others = [run for run in runs if "lr" in run.params and math.isfinite(run.score) and run.number != best.number]
    trained = [run.params["lr"] for run in others]
    most = max([lr, *trained])
    unread = reading is None or (reading.lean is None and is_error(best))
    above = min(high, max(most, lr * (BEYOND_UNREAD if unread else BEYOND_TRAINED)))
    same = sum(_is_same(run.params["lr"], lr) and _is_same(run.score, best.score) for run in others)
    near = [rate / lr for rate in trained if 1 / NEARBY <= rate / lr <= NEARBY]
    if lean == "up" and above >= lr * LEAST_ROOM and same + sum(x > 1 for x in near) < ENOUGH_BEYOND:
        return lr, above
    if lean == "down" and low <= lr / LEAST_ROOM and same + sum(x < 1 for x in near) < ENOUGH_BEYOND:
        return low, lr
    return low, above
