"""What the objective of a study asks for, and which of it nothing can choose."""

import math
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from itertools import islice
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import IntDistribution
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from optuna_discipline import parameters
from optuna_discipline.refinement import held_by_others
from optuna_discipline.rules.conditions import ENOUGH_LATER
from optuna_discipline.rules.conditions import dropped
from optuna_discipline.rules.space import Role

MOST_OF_A_SWITCH = 10  # values of a whole number that may decide what else there is


def asked_distributions(trials: Sequence[FrozenTrial]) -> dict[str, BaseDistribution]:
    """Return the known parameters that the objective still asks for, constants last: they alone have one value.

    A constant has one value in every trial, or a sampler around this one holds it. What is free in some has the latest
    of its ranges.
    """
    known = parameters.known_distributions(trials)
    known |= {name: _latest_range(name, trials) or d for name, d in known.items() if d.single()}
    # as nearly always nothing is gone: a study of thousands is read several times a trial
    if not known.keys() <= set().union(*islice(_ended(reversed(trials)), ENOUGH_LATER)):
        gone = dropped(list(_ended(trials)), [name for name, d in known.items() if _holds_few(d)])
        known = {name: distribution for name, distribution in known.items() if name not in gone}
    held = {name: value for name, value in held_by_others(trials).items() if name in known}
    known |= {name: parameters.single_at(known[name], value) for name, value in held.items()}
    return dict(sorted(known.items(), key=lambda item: item[1].single()))


def constants_of(trials: Sequence[FrozenTrial]) -> set[str]:
    """Return the parameters of a study that nothing can choose."""
    return {name for name, distribution in asked_distributions(trials).items() if distribution.single()}


def constants_last(roles: Mapping[str, Role], asked: Iterable[str], constants: Collection[str]) -> dict[str, Role]:
    """Return the roles of parameters in the order in which they were asked for, those of constants last."""
    return {name: roles[name] for name in sorted(asked, key=lambda name: name in constants) if name in roles}


def _latest_range(name: str, trials: Sequence[FrozenTrial]) -> BaseDistribution | None:
    found = (trial.distributions[name] for trial in reversed(trials) if name in trial.distributions)
    return next((distribution for distribution in found if not distribution.single()), None)


def _ended(trials: Iterable[FrozenTrial]) -> Iterator[dict[str, Any]]:
    """Return the parameters of the trials that have asked for all of theirs."""
    ended = (trial for trial in trials if trial.state in (TrialState.COMPLETE, TrialState.PRUNED))
    return (trial.params for trial in ended if trial.params)


def _holds_few(distribution: BaseDistribution) -> bool:
    """Whether it may decide what else exists: of many values each is run once, and seems to explain all."""
    span = distribution.high - distribution.low if isinstance(distribution, IntDistribution) else math.inf
    return isinstance(distribution, CategoricalDistribution) or span <= MOST_OF_A_SWITCH
