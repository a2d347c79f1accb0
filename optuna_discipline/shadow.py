"""A user's own sampler asked in a shadow of the study, in memory: it models shares of what may be chosen."""

import logging
import math
import warnings
from collections.abc import Collection
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from optuna.samplers import BaseSampler
from optuna.samplers import PartialFixedSampler
from optuna.samplers import TPESampler
from optuna.trial import TrialState

from optuna_discipline.coordinates import Coordinates
from optuna_discipline.parameters import allows
from optuna_discipline.parameters import at_share
from optuna_discipline.parameters import fit
from optuna_discipline.parameters import share_of
from optuna_discipline.rules.space import Role
from optuna_discipline.suggestion import Point
from optuna_discipline.suggestion import finished_and_running
from optuna_discipline.suggestion import optimizer_lr

# A number of more steps than this is shown as a share of its range: Optuna's GPSampler lists the values of a stepped
# one, and for a whole number up to 1e12 that is 7 TiB.
MOST_STEPS = 10_000
OUTSIDE = 0.25  # of a box, so far beyond its edge a run is shown at the edge


def default_refine_sampler(seed: int | None) -> BaseSampler:
    """Return Optuna's GPSampler, or TPESampler where torch or scipy (which GPSampler needs) is absent."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        try:
            import scipy  # noqa: F401
            import torch  # noqa: F401
        except Exception:
            return TPESampler(seed=seed, constant_liar=True)
        return optuna.samplers.GPSampler(seed=seed, n_startup_trials=1)


def suggest(
    sampler: BaseSampler,
    points: Sequence[Point],
    space: Mapping[str, BaseDistribution],
    roles: Mapping[str, Role],
    box: Mapping[str, tuple[float, float]],
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
        box: Narrower bounds by name, in their own units.
        coupled: As in `suggest_by_model`.
        free: Names that may move, the others are held at the best run's; None moves everything.
    """
    if free is not None and not free:
        return {}
    finished, pending = finished_and_running(points)
    coordinates = Coordinates(space, roles, box, coupled, optimizer_lr(finished, roles))
    shares = Shares(coordinates)
    losses = _tame([loss for _, loss in finished])
    known = [
        (point, loss)
        for (params, _), loss in zip(finished, losses, strict=True)
        if (point := shares.of(params)) is not None
    ]
    under_way = [point for params in pending if (point := shares.of(params)) is not None]
    if free is not None and known:
        best = min(known, key=lambda one: one[1])[0]
        sampler = _held_at({name: value for name, value in best.items() if name not in free}, sampler)
    with _quiet("optuna.storages._in_memory"):
        shadow = optuna.create_study(sampler=sampler)
    for point, loss in known:
        shadow.add_trial(optuna.create_trial(params=point, distributions=shares.space, value=loss))
    for point in under_way:
        shadow.add_trial(optuna.create_trial(state=TrialState.RUNNING, params=point, distributions=shares.space))
    with _quiet("optuna._gp.gp"):
        return shares.decoded(shadow.ask(shares.space).params)


class Shares:
    """Points of a study's coordinates by shares: from 0 to 1 of what the box leaves of a role, and of many steps.

    The space stays the same when the box moves: Optuna's samplers drop a parameter whose distribution changes.
    """

    def __init__(self, coordinates: Coordinates) -> None:
        self._coordinates = coordinates
        self._shared = {
            name: distribution
            for name, distribution in coordinates.space.items()
            if isinstance(distribution, FloatDistribution | IntDistribution)
            and (coordinates.is_log(name) or _is_dense(distribution))
        }
        self.space: dict[str, BaseDistribution] = {
            **coordinates.space,
            **dict.fromkeys(self._shared, FloatDistribution(0.0, 1.0)),
        }

    def of(self, params: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return a run as a point of `space`, None for one that lies far outside or lacks a parameter.

        One a little outside counts at the edge: the box moves with the best run, and a corner of it that is known to be
        bad would be asked for again.
        """
        found = self._coordinates.encoded(params)
        if found is None:
            return None
        for name, value in found.items():
            if name in self._shared:
                distribution = self._shared[name]
                share = (
                    float(value) - distribution.low if distribution.single() else share_of(distribution, float(value))
                )
                if self._coordinates.is_log(name) and not -OUTSIDE <= share <= 1 + OUTSIDE:
                    return None
                found[name] = min(max(share, 0.0), 1.0)
            elif not allows(self.space[name], value):
                return None
        return found

    def decoded(self, shares: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parameters of a point of `space`, fitted into their distributions."""
        encoded = dict(shares)
        for name, distribution in self._shared.items():
            if name in shares:
                number = at_share(distribution, shares[name])
                encoded[name] = number if self._coordinates.is_log(name) else fit(distribution, number)
        return self._coordinates.decoded(encoded)


def _is_dense(distribution: FloatDistribution | IntDistribution) -> bool:
    """Whether a distribution holds more steps than a sampler could list."""
    steps = distribution.step
    return steps is not None and (distribution.high - distribution.low) / steps > MOST_STEPS


def _held_at(values: dict[str, Any], sampler: BaseSampler) -> BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return PartialFixedSampler(values, sampler) if values else sampler


def _tame(losses: Sequence[float]) -> list[float]:
    """Return the losses with a bounded upper tail: a diverged run says "bad here", not how bad."""
    finite = np.array([loss for loss in losses if math.isfinite(loss)])
    if not len(finite):
        return [0.0] * len(losses)
    best, median = float(finite.min()), float(np.median(finite))
    ceiling = median + 3 * (median - best) if median > best else float(finite.max())
    return [min(loss, ceiling) if math.isfinite(loss) else ceiling for loss in losses]


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Keep what Optuna says of the shadow out of the user's log: a new study created in memory, a fit that failed."""
    logger = logging.getLogger(name)
    disabled, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = disabled
