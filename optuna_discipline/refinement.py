"""The refinement: a model-based sampler in the coordinates that matter, inside a box around the best run.

An Optuna sampler models what it is given. Here it is given a shadow of the study, in memory: the full-length runs with
their learning rates as log(lr / (1 - momentum)), momenta as log(1 - momentum), weight decays as logs. The shadow is
built anew at each call; nothing is kept.
"""

import logging
import math
import warnings
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from optuna.samplers import BaseSampler
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from optuna_discipline.parameters import allows
from optuna_discipline.parameters import bounds_of
from optuna_discipline.parameters import fit
from optuna_discipline.rules.run import Run
from optuna_discipline.rules.space import Role
from optuna_discipline.rules.transfer import full_length_losses
from optuna_discipline.trial_record import read_claim

SMALLEST_WEIGHT_DECAY = 1e-9
# A Gaussian process takes the cube of its points in time: it gets the best and the latest, half each.
MOST_POINTS = 200


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
    sampler: BaseSampler,
    trials: Sequence[FrozenTrial],
    runs: Sequence[Run],
    space: Mapping[str, BaseDistribution],
    roles: Mapping[str, Role],
    box: Mapping[Role, tuple[float, float]],
    *,
    coupled: float | None,
) -> dict[str, Any]:
    """Return the model's next full-length parameters for a study, {} while there is nothing to model.

    What runs now is known to the model by its parameters, so that several workers do not ask for the same point.

    Args:
        sampler: What models the shadow study.
        trials: The study's trials.
        runs: The same as runs.
        space: Every known parameter; those that all finished trials share are searched, but for the epochs.
        roles: Roles of those names that have one.
        box: Narrower bounds of roles, in their own units.
        coupled: As in `suggest`.
    """
    epochs = next((name for name, role in roles.items() if role == "epochs"), None)
    full = bounds_of(space[epochs]) if epochs is not None else None
    losses = full_length_losses(runs, None if full is None else full.high)
    finished = [trial for trial in trials if trial.number in losses]
    shared = {name: d for name, d in space.items() if name != epochs and not d.single()}
    common = {name: d for name, d in shared.items() if all(name in trial.params for trial in finished)}
    under_way = {run.number for run in runs if run.state == "running"}
    pending = [{**suggested_to(trial), **trial.params} for trial in trials if trial.number in under_way]
    if not common or not (finished or pending):
        return {}
    points = [Point(trial.params, losses[trial.number]) for trial in finished]
    points += [Point(params, None) for params in pending]
    return suggest(sampler, points, common, roles, box, coupled=coupled)


def suggest(
    sampler: BaseSampler,
    points: Sequence[Point],
    space: Mapping[str, BaseDistribution],
    roles: Mapping[str, Role],
    box: Mapping[Role, tuple[float, float]],
    *,
    coupled: float | None,
) -> dict[str, Any]:
    """Return the model's next parameters, by name, within `space`.

    Args:
        sampler: What models the shadow study.
        points: Full-length runs, finished or under way.
        space: Distributions to search, by name.
        roles: Roles of those names that have one.
        box: Narrower bounds of roles, in their own units.
        coupled: Momentum that the box of the learning rate belongs to, to search lr / (1 - momentum); None searches lr.
    """
    pending = [point for point in points if point.loss is None]
    finished = [(point.params, point.loss) for point in points if point.loss is not None]
    if len(finished) > MOST_POINTS:
        latest, earlier = finished[-MOST_POINTS // 2 :], finished[: -MOST_POINTS // 2]
        finished = [*sorted(earlier, key=lambda one: one[1])[: MOST_POINTS // 2], *latest]
    coordinates = _Coordinates(space, roles, box, coupled)
    losses = _tame([loss for _, loss in finished])
    with _quiet_storage():
        shadow = optuna.create_study(sampler=sampler)
    for (params, _), loss in zip(finished, losses, strict=True):
        encoded = coordinates.encode(params)
        if encoded is not None:
            shadow.add_trial(optuna.create_trial(params=encoded, distributions=coordinates.space, value=loss))
    for point in pending:
        encoded = coordinates.encode(point.params)
        if encoded is not None:
            running = TrialState.RUNNING
            shadow.add_trial(optuna.create_trial(state=running, params=encoded, distributions=coordinates.space))
    return coordinates.decode(shadow.ask(coordinates.space).params)


def suggested_to(trial: FrozenTrial) -> Mapping[str, Any]:
    """Return the point that a trial has been given by the model, also before its objective asks for it."""
    claim = read_claim(trial)
    return {} if claim is None else claim.get("suggested", {})


class _Coordinates:
    """The change of coordinates of one study, and back."""

    def __init__(
        self,
        space: Mapping[str, BaseDistribution],
        roles: Mapping[str, Role],
        box: Mapping[Role, tuple[float, float]],
        coupled: float | None,
    ) -> None:
        self._original = dict(space)
        bounds_by_name = {name: bounds_of(distribution) for name, distribution in space.items()}
        # a parameter without a positive value has no logarithm: it is searched as it is, whatever its name
        self._roles = {n: roles[n] for n, bounds in bounds_by_name.items() if n in roles and bounds and bounds.high > 0}
        self._momentum = next((n for n, role in self._roles.items() if role == "momentum"), None)
        if coupled is None:
            self._momentum = None
        self._centre = min(coupled or 0.0, 0.999)
        self.space: dict[str, BaseDistribution] = {}
        for name, distribution in space.items():
            role = self._roles.get(name)
            bounds = bounds_by_name[name]
            if role is None or bounds is None:
                self.space[name] = distribution
            elif isinstance(distribution, CategoricalDistribution):
                self.space[name] = IntDistribution(0, len(distribution.choices) - 1)
            elif role == "momentum":
                most = bounds.high if bounds.high < 1 else 0.999
                self.space[name] = FloatDistribution(math.log(1 - most), math.log(1 - min(bounds.low, most)))
            else:
                low, high = box.get(role, (bounds.low, bounds.high))
                low, high = max(low, bounds.low, SMALLEST_WEIGHT_DECAY), min(high, bounds.high)
                self.space[name] = self._log_range(role, min(low, high), high)

    def encode(self, params: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the coordinates of a run, None for one that lies outside or lacks a parameter."""
        encoded: dict[str, Any] = {}
        for name, distribution in self.space.items():
            if name not in params:
                return None
            value = self._forward(name, params)
            if isinstance(distribution, FloatDistribution) and name in self._roles:
                slack = 1e-9 + 1e-9 * abs(value)
                if not distribution.low - slack <= value <= distribution.high + slack:
                    return None
                value = min(max(value, distribution.low), distribution.high)
            elif not allows(distribution, value):
                return None
            encoded[name] = value
        return encoded

    def decode(self, encoded: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parameters of a point, fitted into their distributions."""
        params: dict[str, Any] = {}
        for name in sorted(encoded, key=lambda n: self._roles.get(n) == "lr"):  # lr last: it may need the momentum
            value, role, original = encoded[name], self._roles.get(name), self._original[name]
            if role is None or name not in self.space:
                params[name] = value
            elif isinstance(original, CategoricalDistribution):
                params[name] = _ordered(original)[value]
            elif role == "momentum":
                params[name] = fit(original, 1 - math.exp(value))
            else:
                scale = 1 - float(params[self._momentum]) if role == "lr" and self._momentum is not None else 1.0
                params[name] = fit(original, math.exp(value) * scale)
        return params

    def _forward(self, name: str, params: Mapping[str, Any]) -> Any:
        value, role, original = params[name], self._roles.get(name), self._original[name]
        if role is None:
            return value
        if isinstance(original, CategoricalDistribution):
            ordered = _ordered(original)
            return ordered.index(value) if value in ordered else -1
        if role == "momentum":
            return math.log(max(1 - float(value), 1e-6))
        scale = 1.0
        if role == "lr" and self._momentum is not None:
            scale = max(1 - float(params.get(self._momentum, 0.0)), 1e-6)
        return math.log(max(float(value), SMALLEST_WEIGHT_DECAY) / scale)

    def _log_range(self, role: Role, low: float, high: float) -> FloatDistribution:
        if role == "lr" and self._momentum is not None:
            low, high = low / (1 - self._centre), high / (1 - self._centre)
        return FloatDistribution(math.log(low), math.log(high))


def _ordered(distribution: CategoricalDistribution) -> list[Any]:
    return sorted(distribution.choices, key=float)


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
