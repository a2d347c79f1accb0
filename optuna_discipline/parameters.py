"""Between Optuna's distributions and the rules' roles: recognise, bound, and fit a wish into a distribution."""

import json
import math
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any
from typing import TypeVar

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from optuna.trial import FrozenTrial

from optuna_discipline.rules.curve import FloatArray
from optuna_discipline.rules.role_names import ROLE_NAMES
from optuna_discipline.rules.role_names import all_words_of
from optuna_discipline.rules.role_names import can_be
from optuna_discipline.rules.role_names import is_small_momentum
from optuna_discipline.rules.role_names import role_of_name
from optuna_discipline.rules.role_names import role_said
from optuna_discipline.rules.role_names import says_index
from optuna_discipline.rules.role_names import without_passes
from optuna_discipline.rules.role_names import words_of
from optuna_discipline.rules.space import ROLES
from optuna_discipline.rules.space import START_BETA
from optuna_discipline.rules.space import START_BY_NAME
from optuna_discipline.rules.space import Bounds
from optuna_discipline.rules.space import Role
from optuna_discipline.rules.space import above_zero
from optuna_discipline.rules.space import steps_between
from optuna_discipline.rules.spelling import PLAIN
from optuna_discipline.rules.spelling import Spelling
from optuna_discipline.rules.spelling import number_of
from optuna_discipline.rules.spelling import spelling_of
from optuna_discipline.rules.usual_values import BETA2
from optuna_discipline.rules.usual_values import START_WIDTH
from optuna_discipline.rules.usual_values import is_width
from optuna_discipline.rules.usual_values import usual_lr_of
from optuna_discipline.rules.usual_values import usual_value
from optuna_discipline.rules.usual_values import usual_word

NumberOrMany = TypeVar("NumberOrMany", float, FloatArray)


def check_roles(roles: Mapping[str, str | None] | None) -> dict[str, Role | None]:
    """Return the roles that the user gives to names; None says that a name has none.

    Raises:
        ValueError: If a role is unknown.
        TypeError: If `roles` is no mapping of strings.
    """
    names: dict[str, Role | None] = {}
    roles = {} if roles is None else roles
    if not isinstance(roles, Mapping) or not all(isinstance(name, str) for name in roles):
        raise TypeError(f"`roles` must map names to roles, such as {{'alpha': 'weight_decay'}}, but got {roles!r}.")
    for name, role in roles.items():
        if role is not None and role not in ROLES:
            raise ValueError(f"`roles` must give one of {ROLES}, or None, to {name!r}, but got {role!r}.")
        names[name] = role
    return names


def bounds_of(distribution: BaseDistribution, name: str = "") -> Bounds | None:
    """Return the numbers, also those in text, of a distribution, whose name may say where to begin; None without."""
    if isinstance(distribution, FloatDistribution | IntDistribution):
        return _between(float(distribution.low), float(distribution.high), start=_start_by_name(name))
    if isinstance(distribution, CategoricalDistribution):
        numbers = tuple(map(number_of, distribution.choices))
        if all(map(math.isfinite, numbers)):
            return replace(_among(numbers), start=_start_by_name(name))
    return None


def role_of(name: str, distribution: BaseDistribution, told: Mapping[str, Role | None] | None = None) -> Role | None:
    """Return the role of a parameter, None if it has no role or holds no numbers.

    Args:
        name: Its name.
        distribution: Its distribution, which may rule out what the name says.
        told: What the user has told of names.
    """
    told = told or {}
    role = role_said(name, told)
    bounds = None if role is None else bounds_of(distribution)
    if role is None or bounds is None:
        return None
    if name not in told and says_index(name) and _holds_integers(distribution):
        return None
    if name not in told and role == "momentum" and is_small_momentum(name, bounds):
        return None
    if role_of_name(name, told) is None:  # it says exponents
        return role if spelling(role, name, distribution) != PLAIN else None
    if name not in told and role != "epochs" and _is_gapless(distribution):
        return None  # an index, a switch
    of_momentum = role != "momentum" or bounds.high <= 1  # none is above 1, whatever its name
    sure = name in told or (name in ROLE_NAMES and of_momentum)
    return role if sure or can_be(role, bounds) else None


def _holds_integers(distribution: BaseDistribution) -> bool:
    if isinstance(distribution, CategoricalDistribution):
        return all(isinstance(choice, int) or str(choice).isdigit() for choice in distribution.choices)
    return isinstance(distribution, IntDistribution)


def _is_gapless(distribution: BaseDistribution) -> bool:
    """Whether these are 0, 1, 2 and so on: sizes and decays that begin at 0 have gaps."""
    if isinstance(distribution, CategoricalDistribution):
        count = len(distribution.choices)
        return _holds_integers(distribution) and {*map(number_of, distribution.choices)} == {*range(count)}
    return isinstance(distribution, IntDistribution) and distribution.low == 0 and distribution.step == 1


def roles_of(known: Mapping[str, BaseDistribution], told: Mapping[str, Role | None] | None = None) -> dict[str, Role]:
    """Return the roles of parameters by name, those of one value last; `told`: `study_record.told_roles` of a study."""
    by_freedom = sorted(known.items(), key=lambda item: item[1].single())
    roles = {name: role for name, d in by_freedom if (role := role_of(name, d, told)) is not None}
    return without_passes(roles, known, told)


def spelling(role: Role | None, name: str, distribution: BaseDistribution) -> Spelling:
    """Return how a parameter spells the numbers of its role: `log_lr` as exponents, `one_minus_beta1` as 1 less them.

    >>> spelling("lr", "log_lr", FloatDistribution(-5, -1)).read(-2)
    0.01
    """
    bounds = bounds_of(distribution)
    log = isinstance(distribution, FloatDistribution) and distribution.log
    return PLAIN if bounds is None else spelling_of(role, name, bounds, log=log)


def bounds_in_role(role: Role | None, name: str, distribution: BaseDistribution) -> Bounds | None:
    """Return the numbers that a parameter says in its role, with the start that its name says; None without numbers.

    Those of a learning rate with a step are counted; 0 is none where others are: it trains nothing.
    """
    bounds, spelt = bounds_of(distribution, name), spelling(role, name, distribution)
    if bounds is None:
        return None
    step = getattr(distribution, "step", None)
    if step and (role == "lr" or (spelt.base is not None and isinstance(distribution, IntDistribution))):
        bounds = replace(bounds, choices=steps_between(bounds.low, bounds.high, step))
    bounds = spelt.read_bounds(bounds)
    return above_zero(bounds, step) if role == "lr" else bounds


def value_in_role(role: Role | None, name: str, distribution: BaseDistribution, value: Any) -> Any:
    """Return what a parameter's value says in its role; a number that is spelt as it is stays what it is."""
    spelt, is_text = spelling(role, name, distribution), isinstance(value, str) and bounds_of(distribution) is not None
    return value if spelt == PLAIN and not is_text else spelt.read(float(value))


def fit_in_role(role: Role | None, name: str, distribution: BaseDistribution, number: float) -> Any:
    """Return the parameter's value that says the number nearest to one of its role; 0 is near no learning rate."""
    bounds = bounds_in_role(role, name, distribution) if role == "lr" and number > 0 else None
    number = number if bounds is None else max(number, bounds.low)
    return fit(distribution, spelling(role, name, distribution).write(number))


_between = lru_cache(maxsize=1024)(Bounds)  # every decision asks for the bounds of every parameter of every trial

_among = lru_cache(maxsize=1024)(Bounds.of_choices)


@lru_cache
def _start_by_name(name: str) -> float | None:
    """Return where a parameter with a role begins that a library, an optimizer or Adam's beta is named in: `sgd_lr`."""
    role = role_said(name)
    if name in START_BY_NAME or role is None:
        return START_BY_NAME.get(name)
    if role == "lr":
        return next((usual for word in all_words_of(name) if (usual := usual_lr_of(word)) is not None), None)
    return START_BETA if role == "momentum" and any(word.startswith("beta") for word in words_of(name)) else None


def fit(distribution: BaseDistribution, value: float) -> Any:
    """Return the value of `distribution` nearest to a number, as a plain Python value; nearest to NaN is the lowest."""
    if isinstance(distribution, CategoricalDistribution):
        bounds = bounds_of(distribution)
        nearest = bounds.clip(value) if bounds is not None else None
        return next((c for c in distribution.choices if number_of(c) == nearest), distribution.choices[0])
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high = distribution.low, distribution.high
    if distribution.step is not None:
        [nearest] = fit_all(distribution, np.array([float(value)])).tolist()
        return min(max(type(low)(nearest), low), high)
    inside = min(max(low, float(value)), high)  # in this order NaN gives low
    # 0.1 is 0.0999999999999999 after its way through logarithms, whose error is in the 15th figure
    return min(max(float(f"{inside:.14g}") if low < inside < high else inside, low), high)


def fit_all(distribution: FloatDistribution | IntDistribution, numbers: FloatArray) -> FloatArray:
    """Return the values nearest to many numbers, of a distribution with a step; a loop takes 1,000 times as long."""
    low, high, step = float(distribution.low), float(distribution.high), distribution.step
    inside: FloatArray = np.fmin(np.fmax(numbers, low), high)
    if step is not None and not (isinstance(distribution, IntDistribution) and distribution.log):
        inside = low + step * np.floor((inside - low) / step + 0.5)
    return np.clip(np.round(inside) if isinstance(distribution, IntDistribution) else inside, low, high)


def of_each(function: Callable[[float], float], numbers: FloatArray) -> FloatArray:
    """Return a function of many numbers, of which few differ: it is asked once of each."""
    values, places = np.unique(numbers, return_inverse=True)
    return np.array([function(x) for x in values.tolist()])[places]


def start_of(name: str, distribution: BaseDistribution) -> Any:
    """Return where a parameter without a role begins.

    A number that its name says begins at its usual value (`rules.usual_values`), a width at three quarters of its
    range, an optimizer at the first that adapts its steps, an activation at the first that does not saturate, other
    words at the first, and all else in the middle (in the exponent of a log scale).
    """
    bounds = bounds_of(distribution)
    if bounds is None:
        assert isinstance(distribution, CategoricalDistribution)
        return usual_word(name, distribution.choices)
    usual = usual_value(name, bounds)
    if usual is not None and (usual > 1 or not isinstance(distribution, IntDistribution)):  # a share is no whole number
        return fit_in_role("momentum" if usual == BETA2 else None, name, distribution, usual)
    return _at(START_WIDTH if is_width(name, bounds) else 0.5, distribution, bounds)


def _at(share: float, distribution: BaseDistribution, bounds: Bounds) -> Any:
    """Return the value at a share of the way up the range, or up the sorted list."""
    if bounds.choices is not None:
        return fit(distribution, bounds.choices[round(share * (len(bounds.choices) - 1) - 1e-9)])
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    if distribution.log:
        return fit(distribution, distribution.low ** (1 - share) * distribution.high**share)
    return fit(distribution, (1 - share) * distribution.low + share * distribution.high)


def known_distributions(trials: Iterable[FrozenTrial]) -> dict[str, BaseDistribution]:
    """Return every parameter that any trial has had, with its latest distribution."""
    known: dict[str, BaseDistribution] = {}
    for trial in trials:
        known.update(trial.distributions)
    return known


def allows(distribution: BaseDistribution, value: Any) -> bool:
    """Return whether a distribution holds a value; one of the wrong type it does not."""
    try:
        return bool(distribution._contains(distribution.to_internal_repr(value)))
    except (TypeError, ValueError):
        return False


def single_at(distribution: BaseDistribution, value: Any) -> BaseDistribution:
    """Return a distribution of one value that is like another."""
    if isinstance(distribution, CategoricalDistribution):
        return CategoricalDistribution((value,))
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    return type(distribution)(value, value, log=distribution.log)


def as_choice(distribution: BaseDistribution, value: Any) -> Any:
    """Return the choice that a stored value stands for: JSON gives a tuple back as a list, a class as its name."""
    if not isinstance(distribution, CategoricalDistribution) or allows(distribution, value):
        return value
    stored = json.dumps(value, default=repr)
    return next((choice for choice in distribution.choices if json.dumps(choice, default=repr) == stored), value)


def share_of(distribution: BaseDistribution, value: float) -> float:
    """Return where a number lies between the bounds, 0 to 1, in the exponent of a log distribution."""
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high = distribution.low, distribution.high
    if distribution.log:
        return math.log(max(value, low) / low) / math.log(high / low)
    return (value - low) / (high - low)


def at_share(distribution: BaseDistribution, share: NumberOrMany) -> NumberOrMany:
    """Return the number at a share of the way up the bounds, in the exponent of a log distribution; not fitted."""
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high = float(distribution.low), float(distribution.high)
    found: NumberOrMany = low * (high / low) ** share if distribution.log else low + share * (high - low)
    return found


def step_of(distribution: BaseDistribution) -> float | None:
    """Return the step of a distribution as a share of its range, None where the numbers are dense enough."""
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    if distribution.step is None or distribution.log:
        return None
    return distribution.step / (distribution.high - distribution.low)


def ordered_choices(distribution: CategoricalDistribution) -> list[Any]:
    """Return the numbers of a list, rising; of several spellings of one the first."""
    found = {number_of(choice): choice for choice in reversed(distribution.choices)}
    return [found[number] for number in sorted(found)]
