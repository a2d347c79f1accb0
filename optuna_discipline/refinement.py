"""The refinement: a model in the coordinates that matter, inside a box around the best run.

Learning rates are searched as log(lr / (1 - momentum)), momenta as log(1 - momentum), weight decays as logs, by the
model of `rules.model`. A user's own sampler is given a shadow of the study in these coordinates, in memory: it models
what it is given. Both are built anew at each call; nothing is kept.
"""

import logging
import math
import warnings
from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.samplers import PartialFixedSampler
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from optuna_discipline.coordinates import Coordinates
from optuna_discipline.parameters import allows
from optuna_discipline.parameters import bounds_of
from optuna_discipline.parameters import start_of
from optuna_discipline.parameters import usual_lr
from optuna_discipline.rules.model import anywhere
from optuna_discipline.rules.model import next_point
from optuna_discipline.rules.run import Run
from optuna_discipline.rules.space import Role
from optuna_discipline.rules.transfer import full_length_losses
from optuna_discipline.trial_record import read_claim

# A Gaussian process takes the cube of its points in time: it gets the best and the latest, half each.
MOST_POINTS = 200
MOST_MOVES = 4  # named in a trial's reason


@dataclass(frozen=True)
class Point:
    """A full-length run: its parameters by name, and its loss (inf for one that failed, None for one under way)."""

    params: Mapping[str, Any]
    loss: float | None


def default_refine_sampler(seed: int | None) -> BaseSampler:
    """Return Optuna's GPSampler, or TPESampler where torch or scipy (which GPSampler needs) is absent."""
    try:
        import scipy  # noqa: F401
        import torch  # noqa: F401
    except Exception:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return TPESampler(seed=seed, constant_liar=True)
    return optuna.samplers.GPSampler(seed=seed, n_startup_trials=1)


def refine(
    sampler: BaseSampler | int,
    trials: Sequence[FrozenTrial],
    runs: Sequence[Run],
    space: Mapping[str, BaseDistribution],
    roles: Mapping[str, Role],
    box: Mapping[Role, tuple[float, float]],
    *,
    coupled: float | None,
    free: Collection[Role] | None = None,
) -> dict[str, Any]:
    """Return the model's next full-length parameters for a study, {} while there is nothing to model.

    What runs now is known to the model by its parameters, so that several workers do not ask for the same point.

    Args:
        sampler: What models the shadow study, or a seed for our own model.
        trials: The study's trials.
        runs: The same as runs.
        space: Every known parameter; all but the epochs are modelled. A run without one counts as if it had the value
            of the best run with one, and while the best run lacks one it stays at that value: to move what a network
            does not use would be the same network again.
        roles: Roles of those names that have one.
        box: Narrower bounds of roles, in their own units.
        coupled: As in `suggest`.
        free: Roles that may move, for our own model; None moves everything.
    """
    epochs = next((name for name, role in roles.items() if role == "epochs"), None)
    full = bounds_of(space[epochs]) if epochs is not None else None
    losses = full_length_losses(runs, None if full is None else full.high)
    finished = [trial for trial in trials if trial.number in losses]
    best_first = sorted(finished, key=lambda trial: losses[trial.number])
    searched = {name: d for name, d in space.items() if name != epochs and not d.single()}
    absent = {name: _value_of_best(name, d, best_first) for name, d in searched.items()}
    under_way = {run.number for run in runs if run.state == "running"}
    pending = [{**absent, **suggested_to(trial), **trial.params} for trial in trials if trial.number in under_way]
    if not searched or not (finished or pending):
        return {}
    points = [Point({**absent, **trial.params}, losses[trial.number]) for trial in finished]
    points += [Point(params, None) for params in pending]
    names = {name for name in searched if free is None or name not in roles or roles[name] in free}
    if best_first:
        names &= set(best_first[0].params)
    if isinstance(sampler, BaseSampler):
        return suggest(sampler, points, searched, roles, box, coupled=coupled, free=names)
    return suggest_by_model(sampler, points, searched, roles, box, coupled=coupled, free=names)


def _value_of_best(name: str, distribution: BaseDistribution, best_first: Sequence[FrozenTrial]) -> Any:
    values = (trial.params[name] for trial in best_first if name in trial.params)
    return next((value for value in values if allows(distribution, value)), start_of(name, distribution))


def suggest_by_model(
    seed: int,
    points: Sequence[Point],
    space: Mapping[str, BaseDistribution],
    roles: Mapping[str, Role],
    box: Mapping[Role, tuple[float, float]],
    *,
    coupled: float | None,
    free: Collection[str] | None = None,
) -> dict[str, Any]:
    """Return what our own model finds most promising, by name, within `space`; {} without a usable point.

    Args:
        seed: Draws the candidates.
        points: Full-length runs, finished or under way.
        space: Distributions to search, by name.
        roles: Roles of those names that have one.
        box: Narrower bounds of roles, in their own units.
        coupled: As in `suggest`.
        free: Names that may move; None moves everything.
    """
    finished, pending = _split(points)
    coordinates = Coordinates(space, roles, box, coupled, _optimizer_lr(finished))
    known = [(at, loss) for params, loss in finished if (at := coordinates.vector(params)) is not None]
    under_way = [at for params in pending if (at := coordinates.vector(params)) is not None]
    if free == set() or not (known or under_way):
        return {}
    if not known:
        drawn = coordinates.params(anywhere(coordinates.of_the_model(), np.random.default_rng(seed)))
        return {name: value for name, value in drawn.items() if free is None or name in free}
    chosen = next_point(
        coordinates.of_the_model(),
        np.array([at for at, _ in known]),
        [loss for _, loss in known],
        np.random.default_rng(seed),
        running=np.array(under_way) if under_way else None,
        within=coordinates.within_bounds,
        free=None if free is None else [i for i, name in enumerate(coordinates.space) if name in free],
    )
    return coordinates.params(chosen)


def _optimizer_lr(finished: Sequence[tuple[Mapping[str, Any], float]]) -> float | None:
    return usual_lr(min(finished, key=lambda one: one[1])[0]) if finished else None


def _split(points: Sequence[Point]) -> tuple[list[tuple[Mapping[str, Any], float]], list[Mapping[str, Any]]]:
    """Return the finished runs with their losses, at most `MOST_POINTS` of them, and those under way."""
    finished = [(point.params, point.loss) for point in points if point.loss is not None]
    if len(finished) > MOST_POINTS:
        latest, earlier = finished[-MOST_POINTS // 2 :], finished[: -MOST_POINTS // 2]
        finished = [*sorted(earlier, key=lambda one: one[1])[: MOST_POINTS // 2], *latest]
    return finished, [point.params for point in points if point.loss is None]


def suggest(
    sampler: BaseSampler,
    points: Sequence[Point],
    space: Mapping[str, BaseDistribution],
    roles: Mapping[str, Role],
    box: Mapping[Role, tuple[float, float]],
    *,
    coupled: float | None,
    free: Collection[str] | None = None,
) -> dict[str, Any]:
    """Return the next parameters of a user's own sampler, by name, within `space`; {} if none is free.

    Args:
        sampler: What models the shadow study.
        points: Full-length runs, finished or under way.
        space: Distributions to search, by name.
        roles: Roles of those names that have one.
        box: Narrower bounds of roles, in their own units.
        coupled: Momentum that the box of the learning rate belongs to, to search lr / (1 - momentum); None searches lr.
        free: Names that may move, the others are held at the best run's; None moves everything.
    """
    if free is not None and not free:
        return {}
    finished, pending = _split(points)
    coordinates = Coordinates(space, roles, box, coupled, _optimizer_lr(finished))
    losses = _tame([loss for _, loss in finished])
    known = [
        (shares, loss)
        for (params, _), loss in zip(finished, losses, strict=True)
        if (shares := coordinates.shares(params)) is not None
    ]
    under_way = [shares for params in pending if (shares := coordinates.shares(params)) is not None]
    within = coordinates.share_space
    if free is not None and known:
        best = min(known, key=lambda one: one[1])[0]
        sampler = _held_at({name: value for name, value in best.items() if name not in free}, sampler)
    with _quiet_storage():
        shadow = optuna.create_study(sampler=sampler)
    for shares, loss in known:
        shadow.add_trial(optuna.create_trial(params=shares, distributions=within, value=loss))
    for shares in under_way:
        shadow.add_trial(optuna.create_trial(state=TrialState.RUNNING, params=shares, distributions=within))
    return coordinates.params_of_shares(shadow.ask(within).params)


def _held_at(values: dict[str, Any], sampler: BaseSampler) -> BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return PartialFixedSampler(values, sampler) if values else sampler


def describe_moves(suggested: Mapping[str, Any], trials: Sequence[FrozenTrial], like: int | None) -> str:
    """Return in words what a suggestion changes of the trial that it starts from; "" without either."""
    before = next((trial.params for trial in trials if trial.number == like), None)
    if before is None or not suggested:
        return ""
    pairs = [(name, before[name], value) for name, value in suggested.items() if name in before]
    moves = [f"{name} {_shown(old)} to {_shown(new)}" for name, old, new in pairs if _shown(old) != _shown(new)]
    if not moves:
        return f"trial {like} again"
    more = [] if len(moves) <= MOST_MOVES else [f"{len(moves) - MOST_MOVES} more"]
    return f"trial {like}, but {', '.join([*moves[:MOST_MOVES], *more])}"


def _shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def suggested_to(trial: FrozenTrial) -> Mapping[str, Any]:
    """Return the point that a trial has been given by the model, also before its objective asks for it."""
    claim = read_claim(trial)
    return {} if claim is None else claim.get("suggested", {})


def _tame(losses: Sequence[float]) -> list[float]:
    """Return the losses with a bounded upper tail: a diverged run says "bad here", not how bad."""
    finite = np.array([loss for loss in losses if math.isfinite(loss)])
    if not len(finite):
        return [0.0] * len(losses)
    best, median = float(finite.min()), float(np.median(finite))
    ceiling = median + 3 * (median - best) if median > best else float(finite.max())
    return [min(loss, ceiling) if math.isfinite(loss) else ceiling for loss in losses]


@contextmanager
def _quiet_storage() -> Iterator[None]:
    """Keep "A new study created in memory" out of the user's log."""
    logger = logging.getLogger("optuna.storages._in_memory")
    disabled, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = disabled
