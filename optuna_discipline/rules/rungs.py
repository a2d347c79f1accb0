"""The rungs of a learning-rate ladder: which it may take, and which have run elsewhere."""

import math
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence

from optuna_discipline.rules.line_search import Axis
from optuna_discipline.rules.line_search import point_key
from optuna_discipline.rules.lr_choice import LrChoice
from optuna_discipline.rules.run import Run
from optuna_discipline.rules.run import all_within
from optuna_discipline.rules.run import differ_in_rate
from optuna_discipline.rules.space import Bounds
from optuna_discipline.rules.space import Role
from optuna_discipline.rules.usual_values import usual_lr

# The first step up: the better rate above lies at 1.8 times a rate whose curve leaves room, and three times a good rate
# trains now and then, on the edge of divergence (in replays on 42 networks the incumbent's expected regret after 3
# trainings was .035 with steps by 3, .011 so; seen .022 and .020).
FACTOR, FIRST_UP = 3.0, 2.0
MOST_RUNGS = 10


def run_elsewhere(
    slots: Mapping[float, Sequence[Run]], runs: Sequence[Run], start: float, limits: Mapping[Role, tuple[float, float]]
) -> dict[float, list[Run]]:
    """Return what has run of a ladder besides its own rungs: what was not proposed, but differs in the rate alone.

    Args:
        slots: The runs of each rung.
        runs: All runs.
        start: Learning rate of the first rung.
        limits: The `limits_of` the space, beyond which no run counts.

    >>> own = Run(0, "complete", {"lr": 0.1}, 0.5, "lr0:1")
    >>> list(run_elsewhere({1.0: [own]}, [own, Run(1, "complete", {"lr": 0.2}, 0.4)], 0.1, {}))
    [2.0]
    """
    first = next((run for of_rung in slots.values() for run in of_rung if run.finished), None)
    if first is None:
        return {}
    others = [run for run in runs if run.slot is None and run.finished]
    same: dict[Role, tuple[float, float]] = {role: (x, x) for role, x in first.params.items() if role != "lr"}
    found: dict[float, list[Run]] = {}
    for run in all_within(all_within(others, same), limits):  # nearly all differ in the first role
        if differ_in_rate(run, first) and (x := point_key(run.params["lr"] / start)) not in slots:
            found.setdefault(x, []).append(run)
    return found


def named_usual_lr(runs: Iterable[Run]) -> float:
    """Return where the optimizer usually trains that the first of some runs to name one names; 0 where none does."""
    return next(filter(None, (usual_lr(run.others, run.params.get("momentum", 0.0)) for run in runs)), 0.0)


def ladder_axis(start: float, bounds: Bounds | None, tested: LrChoice | None = None) -> Axis:
    """Return the rungs that a ladder from `start` may take, as multiples of it.

    Args:
        start: Learning rate of its first rung.
        bounds: Of the learning rate; None knows none yet.
        tested: A range test's choice, whose upper bound holds where it is sure of it.
    """
    low, high, choices = 0.0, math.inf, None
    if bounds is not None:
        low, high = bounds.low / start, bounds.high / start
        choices = None if bounds.choices is None else tuple(point_key(c / start) for c in bounds.choices if c > 0)
    if tested is not None and tested.confident and tested.bounds is not None:
        high = min(high, max(1.0, tested.bounds[1] / start))
    return Axis((1.0,), low, high, FACTOR, FIRST_UP, bisect=True, max_points=MOST_RUNGS, choices=choices)
