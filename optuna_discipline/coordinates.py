"""The coordinates in which a study's hyperparameters are modelled, and back.

Learning rates are searched as log(lr / (1 - momentum)) or log(lr), momenta as log(1 - momentum), weight decays and
batch sizes as logs; a parameter without a role is searched as it is, by its share of its range, and so is a weight
decay whose range begins at 0. A list of numbers is searched in its order. Where a parameter names the optimizer, a
learning rate counts against the usual one of it: 0.1 of SGD stands where 0.005 of Adam does.
"""

import math
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution

from optuna_discipline.parameters import at_share
from optuna_discipline.parameters import bounds_in_role
from optuna_discipline.parameters import fit
from optuna_discipline.parameters import fit_all
from optuna_discipline.parameters import of_each
from optuna_discipline.parameters import ordered_choices
from optuna_discipline.parameters import share_of
from optuna_discipline.parameters import spelling
from optuna_discipline.parameters import step_of
from optuna_discipline.rules.conditions import Condition
from optuna_discipline.rules.curve import FloatArray
from optuna_discipline.rules.gaussian_process import Coordinate
from optuna_discipline.rules.space import Bounds
from optuna_discipline.rules.space import Role
from optuna_discipline.rules.spelling import number_of
from optuna_discipline.rules.usual_values import usual_lr

SMALLEST = 1e-9  # where a range begins at zero, which has no logarithm
# How far the loss is alike along each role (natural logs; of 1 - momentum for momentum), and how much it rises there
# beforehand. Of the processes that fitted 14 small networks best, the learning rate had lengths of 2 to 6, momentum 5
# to 30, weight decay 8 to 15, batch size 2; others, in shares of their range, .6 to 2.
LENGTHS: Mapping[Role, float] = {"lr": 2.3, "momentum": 4.0, "weight_decay": 9.0, "batch_size": 2.5}
BOWLS: Mapping[Role, float] = {"lr": 0.4, "momentum": 0.05, "weight_decay": 0.2, "batch_size": 0.2}
OTHER_LENGTH, OTHER_BOWL = 0.8, 0.2
# What the model expects, and moves the rate from: on small networks of batch 16 to 256 the best learning rate grew as
# batch ** 0.7. Where batch sizes are compared at one rate each, the square root lost least (`rules.stages`).
LR_EXPECTED_BY_BATCH = 0.7
FARTHEST = 10.0  # ranges beyond its own range that a run from wider bounds counts as, at most


class Coordinates:
    """The change of coordinates of one study, and back.

    Args:
        space: Distributions by name.
        roles: Roles of those names that have one.
        box: Narrower bounds of parameters with a role, by name, in their own units.
        coupled: Momentum that the box of the learning rate belongs to, to search lr / (1 - momentum); None searches lr.
        optimizer_lr: Usual learning rate of the optimizer that the box belongs to, None where none is named.
    """

    def __init__(
        self,
        space: Mapping[str, BaseDistribution],
        roles: Mapping[str, Role],
        box: Mapping[str, tuple[float, float]],
        coupled: float | None,
        optimizer_lr: float | None = None,
    ) -> None:
        self._optimizer_lr = optimizer_lr
        self._original = dict(space)
        bounds_by_name = {
            name: bounds_in_role(roles.get(name), name, distribution) for name, distribution in space.items()
        }
        # a parameter without a positive value has no logarithm: it is searched as it is, whatever its name, and so is a
        # weight decay whose range begins at 0
        positive = {name: b for name, b in bounds_by_name.items() if name in roles and b is not None and b.high > 0}
        self._roles = {n: roles[n] for n, b in positive.items() if roles[n] != "weight_decay" or not b.from_zero}
        self._least = {name: b.low if b.low > 0 else SMALLEST for name, b in bounds_by_name.items() if b is not None}
        self._spelt = {name: spelling(role, name, space[name]) for name, role in self._roles.items()}
        self._lists = {  # rising in what they say
            name: ordered_choices(distribution)[:: -1 if name in self._spelt and self._spelt[name].one_less else 1]
            for name, distribution in space.items()
            if isinstance(distribution, CategoricalDistribution) and bounds_by_name[name] is not None
        }
        self._places = {name: {number_of(x): i for i, x in enumerate(found)} for name, found in self._lists.items()}
        momenta = (n for n, role in self._roles.items() if role == "momentum")
        self._momentum = None if coupled is None else next(momenta, None)
        self._centre = min(coupled or 0.0, 0.999)
        in_box = [name for name in box if name in self._lists and name in self._roles]
        self._boxed = {name: found for name in in_box if (found := self._within(name, *box[name])) is not None}
        self.space = {name: self._searched(name, d, bounds_by_name[name], box) for name, d in space.items()}

    def _searched(
        self, name: str, distribution: BaseDistribution, bounds: Bounds | None, box: Mapping[str, tuple[float, float]]
    ) -> BaseDistribution:
        """Return what is searched of a parameter: places in its list, logs of its role in the box, or itself."""
        role = self._roles.get(name)
        if name in self._lists:
            return IntDistribution(0, len(self._lists[name]) - 1)
        if role is None or bounds is None:
            return distribution
        low, high = box.get(name, (bounds.low, bounds.high))
        if role == "momentum":
            most = min(high, bounds.high if bounds.high < 1 else 0.999)
            return FloatDistribution(math.log(1 - most), math.log(1 - min(max(low, bounds.low), most)))
        least = self._least[name]
        low, high = max(low, least), max(min(high, bounds.high), least)
        unit = 1 - self._centre if role == "lr" and self._momentum is not None else 1.0
        return FloatDistribution(math.log(min(low, high) / unit), math.log(high / unit))

    def _within(self, name: str, low: float, high: float) -> tuple[float, float] | None:
        """Return the first and last place in a list within a box, a step further where the box does not end at it."""
        numbers = [self._spelt[name].read(float(choice)) for choice in self._lists[name]]
        inside = [i for i, x in enumerate(numbers) if low <= x <= high]
        if not inside:
            return None
        first, last = inside[0], inside[-1]
        down, up = numbers[first] > low * (1 + 1e-9), numbers[last] < high * (1 - 1e-9)
        return float(max(first - down, 0)), float(min(last + up, len(numbers) - 1))

    def is_log(self, name: str) -> bool:
        """Whether `space` holds the logarithms of a role, within its box, instead of what a trial is given."""
        return name in self._roles and isinstance(self.space[name], FloatDistribution)

    def encoded(self, params: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return a run as a point of `space`, in its bounds or beyond them; None if it lacks a parameter."""
        if not params.keys() >= self.space.keys():
            return None
        return {name: self._forward(name, params) for name in self.space}

    def decoded(self, encoded: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parameters of a point of `space`, fitted into their distributions."""
        params: dict[str, Any] = {}
        for name in sorted(encoded, key=lambda n: self._roles.get(n) == "lr"):  # lr last: it may need the momentum
            value, role, original = encoded[name], self._roles.get(name), self._original[name]
            if name in self._lists:
                params[name] = self._lists[name][value]
            elif role is None:
                params[name] = value
            elif role == "momentum":
                params[name] = fit(original, self._spelt[name].write(1 - math.exp(value)))
            else:
                number = math.exp(value) * (self._lr_unit(params) if role == "lr" else 1.0)
                params[name] = fit(original, self._spelt[name].write(max(number, self._least[name])))
        return params

    def vector(self, params: Mapping[str, Any]) -> FloatArray | None:
        """Return a run as the model sees it, one number a parameter; None if it lacks one or holds an unknown word.

        A run outside of the box counts: it says what lies beyond. How far beyond a range that was narrowed since, it
        does not matter after a while, and the numbers must stay of one size.
        """
        encoded, numbers = self.encoded(params), []
        if encoded is None:
            return None
        for name, value in encoded.items():
            distribution = self.space[name]
            if isinstance(distribution, CategoricalDistribution):
                if value not in distribution.choices:
                    return None
                value = distribution.choices.index(value)
            elif name not in self._roles and name not in self._lists:
                value = min(max(share_of(distribution, float(value)), -FARTHEST), 1 + FARTHEST)
            if not math.isfinite(value) or (isinstance(self._original[name], CategoricalDistribution) and value < 0):
                return None
            numbers.append(float(value))
        return np.array(numbers)

    def of_the_model(self) -> list[Coordinate]:
        """Return what the model knows beforehand of each parameter."""
        names = list(self.space)
        batch = next((name for name in names if self._roles.get(name) == "batch_size"), None)
        found = []
        for name, distribution in self.space.items():
            role, original = self._roles.get(name), self._original[name]
            if role is None and isinstance(distribution, CategoricalDistribution):
                last = float(len(distribution.choices) - 1)
                found.append(Coordinate(0.0, last, OTHER_LENGTH, OTHER_BOWL, choices=True))
            elif role is None and name in self._lists:
                last = float(len(self._lists[name]) - 1)
                found.append(Coordinate(0.0, last, OTHER_LENGTH * max(last, 1.0), OTHER_BOWL, step=1.0))
            elif role is None:
                found.append(Coordinate(0.0, 1.0, OTHER_LENGTH, OTHER_BOWL, step=step_of(distribution)))
            else:
                assert isinstance(distribution, FloatDistribution | IntDistribution)
                unit = self._unit(name)
                follows = None
                if role == "lr" and batch is not None:
                    follows = (names.index(batch), LR_EXPECTED_BY_BATCH * self._unit(batch) / unit)
                step = 1.0 if isinstance(original, CategoricalDistribution) else None
                length = LENGTHS[role] / unit
                low, high = self._boxed.get(name, (float(distribution.low), float(distribution.high)))
                found.append(Coordinate(low, high, length, BOWLS[role], step=step, follows=follows))
        return found

    def params(self, vector: FloatArray) -> dict[str, Any]:
        """Return the parameters of a point of the model, fitted into their distributions."""
        encoded: dict[str, Any] = {}
        for (name, distribution), value in zip(self.space.items(), vector.tolist(), strict=True):
            if isinstance(distribution, CategoricalDistribution):
                encoded[name] = distribution.choices[round(value)]
            elif name not in self._roles and name not in self._lists:
                encoded[name] = fit(distribution, at_share(distribution, value))
            else:
                encoded[name] = round(value) if isinstance(distribution, IntDistribution) else value
        return self.decoded(encoded)

    def within_bounds(self, points: FloatArray) -> FloatArray:
        """Return points of the model, shape (n, d), with the numbers that their trials could be given.

        A small momentum asks for a rate that may lie above its bounds, and a step leaves few; the model must know them.
        """
        unit = np.zeros(len(points))
        within: FloatArray = points.copy()
        for j, name in sorted(enumerate(self.space), key=lambda one: self._roles.get(one[1]) == "lr"):  # last
            within[:, j] = self._given(name, points[:, j], unit)
            if name == self._momentum:
                unit += self._of_choices(name, within[:, j], partial(self._log_of, name))
            elif self._optimizer_lr is not None and isinstance(self._original[name], CategoricalDistribution):
                unit += self._of_choices(name, within[:, j], lambda word: math.log(self._unit_of_optimizer({"": word})))
        return within

    def _given(self, name: str, column: FloatArray, unit: FloatArray) -> FloatArray:
        """Return one coordinate at the values of its distribution; a learning rate counts against `unit`, in logs."""
        original, role = self._original[name], self._roles.get(name)
        if isinstance(original, FloatDistribution | IntDistribution) and original.step is not None:
            if role is None:
                return of_each(partial(share_of, original), fit_all(original, at_share(original, column)))
            against = unit if role == "lr" else 0.0
            numbers = 1 - np.exp(column) if role == "momentum" else np.fmax(np.exp(column + against), self._least[name])
            values = fit_all(original, np.array([self._spelt[name].write(x) for x in numbers.tolist()]))
            return of_each(partial(self._log_of, name), values) - against
        if isinstance(original, FloatDistribution) and role == "lr":
            return np.clip(column, *(self._log_of(name, end) - unit for end in (original.low, original.high)))
        return column

    def where_they_exist(
        self, points: FloatArray, conditions: Mapping[str, Condition], otherwise: FloatArray
    ) -> FloatArray:
        """Return points of the model, shape (n, d), with what does not exist there as in `otherwise`, shape (d,)."""
        names, exist = list(self.space), dict[str, Any]()
        found: FloatArray = points.copy()
        for name, condition in conditions.items():
            if name in names and condition.switch in names:
                values = self._values(condition.switch, points[:, names.index(condition.switch)])
                holds = np.array([condition.holds(value) for value in values], dtype=bool)
                exist[name] = holds & exist.get(condition.switch, True)  # known: a switch comes first
                found[~exist[name], names.index(name)] = otherwise[names.index(name)]
        return found

    def _values(self, name: str, column: FloatArray) -> list[Any]:
        """Return the values of a parameter without a role at points of the model."""
        original = self._original[name]
        if isinstance(original, CategoricalDistribution):
            return [self._choices(name)[round(x)] for x in column.tolist()]
        return [fit(original, at_share(original, x)) for x in column.tolist()]

    def _of_choices(self, name: str, column: FloatArray, number: Callable[[Any], float]) -> FloatArray:
        """Return the number of each point's choice; of a parameter that is not categorical the points as they are."""
        if not isinstance(self._original[name], CategoricalDistribution):
            return column
        return of_each(lambda x: number(self._choices(name)[round(x)]), column)

    def _choices(self, name: str) -> Sequence[Any]:
        original = self._original[name]
        assert isinstance(original, CategoricalDistribution)
        return self._lists.get(name, original.choices)

    def _unit(self, name: str) -> float:
        """Return how far apart two neighbours of a role lie, in logs; 1 where the coordinate is a log already."""
        choices = self._lists.get(name, ())
        if len(choices) < 2:
            return 1.0
        return max(abs(self._log_of(name, choices[-1]) - self._log_of(name, choices[0])) / (len(choices) - 1), 1e-3)

    def _forward(self, name: str, params: Mapping[str, Any]) -> Any:
        value, role = params[name], self._roles.get(name)
        if name in self._lists:
            return self._places[name].get(number_of(value), -1)  # "0.1" and "1e-1" are one
        if role is None:
            return value
        return self._log_of(name, value) - (math.log(self._lr_unit(params)) if role == "lr" else 0.0)

    def _log_of(self, name: str, value: Any) -> float:
        number = self._spelt[name].read(float(value))
        return math.log(max(1 - number, 1e-6) if self._roles[name] == "momentum" else max(number, self._least[name]))

    def _lr_unit(self, params: Mapping[str, Any]) -> float:
        """Return what a learning rate counts against, given the other parameters of its run."""
        unit = self._unit_of_optimizer(params)
        if self._momentum is None or self._momentum not in params:
            return unit
        return unit * max(1 - self._spelt[self._momentum].read(float(params[self._momentum])), 1e-6)

    def _unit_of_optimizer(self, params: Mapping[str, Any]) -> float:
        """Return the usual rate of the optimizer that some parameter names, in that of the box; 1 where none does."""
        usual = None if self._optimizer_lr is None else usual_lr(params)
        return 1.0 if usual is None or self._optimizer_lr is None else usual / self._optimizer_lr
