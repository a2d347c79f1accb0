"""Who fights: our sampler, Optuna's samplers with the pruners that suit them, simple baselines, ablations.

A method's `start` returns the sampler and pruner of one study; what it searches is said by `space`:
"wide" is the space of everybody, "box" is ours: learning-rate bounds of our range test, 1 - momentum on a log scale in
[0.01, 0.1], weight decay within our candidates.
"""

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from typing import Literal

import optuna
from optuna.pruners import BasePruner
from optuna.pruners import HyperbandPruner
from optuna.pruners import MedianPruner
from optuna.pruners import NopPruner
from optuna.pruners import SuccessiveHalvingPruner
from optuna.samplers import BaseSampler
from optuna.samplers import CmaEsSampler
from optuna.samplers import GPSampler
from optuna.samplers import QMCSampler
from optuna.samplers import RandomSampler
from optuna.samplers import TPESampler

from optuna_discipline import DisciplinedPruner
from optuna_discipline import DisciplinedSampler
from optuna_discipline import RangeTest
from optuna_discipline import Recipe

Space = Literal["wide", "box", "fixed"]


@dataclass(frozen=True)
class Method:
    """One contestant.

    Attributes:
        sampler: Makes the sampler from the seed and the range test (None without one).
        pruner: Makes the pruner from the epochs of a full training.
        space: What it searches.
        range_test: Whether a range test is run, and paid for, first.
        short: Whether it may choose the number of epochs.
        reports: Whether its trials report their epochs.
        stages_only: Whether it ends where our refinement would begin.
        halving: Whether trials come in rounds: eight start, the best after an eighth of the epochs is finished.
    """

    sampler: Callable[[int, RangeTest | None, dict[str, Any]], BaseSampler]
    pruner: Callable[[int], BasePruner] = lambda epochs: NopPruner()
    space: Space = "wide"
    range_test: bool = False
    short: bool = False
    reports: bool = True
    stages_only: bool = False
    halving: bool = False


def _ours(seed: int, test: RangeTest | None, recipe: dict[str, Any]) -> BaseSampler:
    return DisciplinedSampler(Recipe(cyclical_momentum=True, **recipe), range_test=test, seed=seed)


def _our_pruner(epochs: int) -> BasePruner:
    return DisciplinedPruner()


def _tpe(seed: int, *_: Any) -> BaseSampler:
    return TPESampler(seed=seed)


def _gp(seed: int, *_: Any) -> BaseSampler:
    return GPSampler(seed=seed)


def _random(seed: int, *_: Any) -> BaseSampler:
    return RandomSampler(seed=seed)


def _qmc(seed: int, *_: Any) -> BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return QMCSampler(seed=seed, warn_independent_sampling=False)


def _auto(seed: int, *_: Any) -> BaseSampler:
    """Return OptunaHub's AutoSampler: from GitHub, or from the folder that OPTUNAHUB_PACKAGES names.

    That is the `package` folder of a checkout of optuna/optunahub-registry.
    """
    import optunahub

    name, folder = "samplers/auto_sampler", os.environ.get("OPTUNAHUB_PACKAGES")
    module = optunahub.load_local_module(name, registry_root=folder) if folder else optunahub.load_module(name)
    return module.AutoSampler(seed=seed)


def _median(epochs: int) -> BasePruner:
    return MedianPruner(n_startup_trials=5, n_warmup_steps=epochs // 3)


METHODS: dict[str, Method] = {
    "ours": Method(_ours, _our_pruner, short=True),
    "ours, range test": Method(_ours, _our_pruner, range_test=True, short=True),
    "ours, no refinement": Method(_ours, _our_pruner, short=True, stages_only=True),
    "ours, no reports": Method(_ours, reports=False),
    "tpe": Method(_tpe),
    "tpe + median": Method(_tpe, _median),
    "tpe + hyperband": Method(_tpe, lambda epochs: HyperbandPruner(1, epochs, 3)),
    "gp": Method(_gp),
    "gp + median": Method(_gp, _median),
    "auto": Method(_auto),
    "cma-es": Method(lambda seed, *_: CmaEsSampler(seed=seed)),
    "qmc": Method(_qmc),
    "random": Method(_random),
    "random + halving": Method(_random, lambda epochs: SuccessiveHalvingPruner(min_resource=max(1, epochs // 8))),
    "box, random": Method(_random, space="box", range_test=True),
    "box, tpe": Method(_tpe, space="box", range_test=True),
    "box, gp": Method(_gp, space="box", range_test=True),
    "default": Method(_random, space="fixed"),
    "early ranking": Method(_random, halving=True),
}
PEERS = (
    "tpe",
    "tpe + median",
    "tpe + hyperband",
    "gp",
    "gp + median",
    "auto",
    "cma-es",
    "qmc",
    "random",
    "random + halving",
)
BOXES = ("box, random", "box, tpe", "box, gp")

optuna.logging.set_verbosity(optuna.logging.ERROR)
