"""What a user has enqueued: its values, whether the study asks for them, and whether what they make has run already."""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from optuna.trial import FrozenTrial
from optuna.trial import TrialState

FIXED_KEY = "fixed_params"  # Optuna's
HAVE_RUN = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)


def values_of(trial: FrozenTrial) -> Mapping[str, Any]:
    """Return the enqueued values of a trial by name; {} for one that is not enqueued, or with nothing."""
    return trial.system_attrs.get(FIXED_KEY) or {}


def asked_for_none(trial: FrozenTrial) -> bool:
    """Whether a trial was enqueued with values, and has ended without being asked for any."""
    values = values_of(trial)
    return bool(values) and not any(name in trial.params for name in values)


def has_run(configuration: Mapping[str, Any], trials: Sequence[FrozenTrial]) -> bool:
    """Whether a trial has run, or runs, a configuration; what failed may be tried again."""
    return any(trial.state in HAVE_RUN and trial.params == configuration for trial in trials)
