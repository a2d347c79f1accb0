"""What our own model finds most promising given full runs, in the coordinates that matter.

Learning rates are searched as log(lr / (1 - momentum)), momenta as log(1 - momentum), weight decays as logs (but in a
range from 0), by the model of `rules.model`.
"""

from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution

from optuna_discipline.coordinates import Coordinates
from optuna_discipline.rules.conditions import Condition
from optuna_discipline.rules.curve import FloatArray
from optuna_discipline.rules.model import NEAR
from optuna_discipline.rules.model import anywhere
from optuna_discipline.rules.model import next_point
from optuna_discipline.rules.space import Role
from optuna_discipline.rules.usual_values import usual_lr

# A Gaussian process takes the cube of its points in time: it gets the best and the latest, half each.
MOST_POINTS = 200


@dataclass(frozen=True)
class Point:
    """A full-length run: its parameters by name, and its loss (inf for one that failed, None for one under way)."""

    params: Mapping[str, Any]
    loss: float | None


def suggest_by_model(
    seed: int,
    points: Sequence[Point],
    space: Mapping[str, BaseDistribution],
    roles: Mapping[str, Role],
    box: Mapping[str, tuple[float, float]],
    *,
    coupled: float | None,
    free: Collection[str] | None = None,
    moving: Collection[str] = (),
    conditions: Mapping[str, Condition] | None = None,
    absent: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return what our own model finds most promising, by name, within `space`; {} without a usable point.

    Args:
        seed: Draws the candidates.
        points: Full-length runs, finished or under way.
        space: Distributions to search, by name.
        roles: Roles of those names that have one.
        box: Narrower bounds by name, in their own units.
        coupled: Momentum that the box of the learning rate belongs to, to search lr / (1 - momentum); None searches lr.
        free: Names that may move; None moves everything.
        moving: Those of which one moves from its value in the best run, clearly where it can.
        conditions: When those exist that only some configurations have.
        absent: What those count as where they do not exist.
    """
    finished, pending = finished_and_running(points)

    def found_in(box: Mapping[str, tuple[float, float]]) -> dict[str, Any]:
        coordinates = Coordinates(space, roles, box, coupled, optimizer_lr(finished, roles))
        rng = np.random.default_rng(seed)
        return _most_promising(coordinates, finished, pending, rng, free, moving, conditions or {}, absent)

    found = found_in(box)
    ran = [*pending, *(params for params, _ in finished)]
    if found and box and any(all(params.get(name) == value for name, value in found.items()) for params in ran):
        return found_in({})  # of few values all within the box have run
    return found


def _most_promising(
    coordinates: Coordinates,
    finished: Sequence[tuple[Mapping[str, Any], float]],
    pending: Sequence[Mapping[str, Any]],
    rng: np.random.Generator,
    free: Collection[str] | None,
    moving: Collection[str],
    conditions: Mapping[str, Condition],
    absent: Mapping[str, Any] | None,
) -> dict[str, Any]:
    known = [(at, loss) for params, loss in finished if (at := coordinates.vector(params)) is not None]
    under_way = [at for params in pending if (at := coordinates.vector(params)) is not None]
    if free == set() or not (known or under_way):
        return {}
    if not known:
        drawn = coordinates.params(anywhere(coordinates.of_the_model(), rng))
        return {name: value for name, value in drawn.items() if free is None or name in free}
    best = min(known, key=lambda one: one[1])[0]
    otherwise = None if absent is None else coordinates.vector(absent)

    def possible(candidates: FloatArray) -> FloatArray:
        if otherwise is not None:
            candidates = coordinates.where_they_exist(candidates, conditions, otherwise)
        candidates = coordinates.within_bounds(candidates)
        return _those_that_move(coordinates, candidates, best, moving) if moving else candidates

    chosen = next_point(
        coordinates.of_the_model(),
        np.array([at for at, _ in known]),
        [loss for _, loss in known],
        rng,
        running=np.array(under_way) if under_way else None,
        within=possible,
        free=None if free is None else [i for i, name in enumerate(coordinates.space) if name in free],
    )
    return coordinates.params(chosen)


def _those_that_move(
    coordinates: Coordinates, candidates: FloatArray, best: FloatArray, names: Collection[str]
) -> FloatArray:
    """Return the candidates whose runs would differ from the best one in a parameter, those that differ clearly first.

    A run that differs by less than `NEAR` lengths shows little of it; a whole number or a step may not differ at all.
    """
    known = coordinates.of_the_model()
    at = [i for i, name in enumerate(coordinates.space) if name in names]
    moved = np.max(np.abs(candidates - best)[:, at] / [known[i].length for i in at], axis=1, initial=0.0)
    clearly, at_all = moved > NEAR, moved > 1e-9
    chosen: FloatArray = candidates[clearly if clearly.any() else at_all] if at_all.any() else candidates
    return chosen


def optimizer_lr(finished: Sequence[tuple[Mapping[str, Any], float]], roles: Mapping[str, Role]) -> float | None:
    """Return the usual rate of the best run's optimizer, None where every optimizer has a learning rate of its own."""
    several = sum(role == "lr" for role in roles.values()) > 1
    return usual_lr(min(finished, key=lambda one: one[1])[0]) if finished and not several else None


def finished_and_running(
    points: Sequence[Point],
) -> tuple[list[tuple[Mapping[str, Any], float]], list[Mapping[str, Any]]]:
    """Return the finished runs with their losses, at most `MOST_POINTS` of them, and those under way."""
    finished = [(point.params, point.loss) for point in points if point.loss is not None]
    if len(finished) > MOST_POINTS:
        latest, earlier = finished[-MOST_POINTS // 2 :], finished[: -MOST_POINTS // 2]
        finished = [*sorted(earlier, key=lambda one: one[1])[: MOST_POINTS // 2], *latest]
    return finished, [point.params for point in points if point.loss is None]
