"""What a reason says that its trial runs, and what it says once that has run: an objective asks for what it likes."""

import math
import re
from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from optuna.trial import FrozenTrial

from optuna_discipline import parameters
from optuna_discipline.claims import AGAIN
from optuna_discipline.rules.space import Role
from optuna_discipline.study_reader import StudyReader


def moves_in(reason: str) -> tuple[str, int | None]:
    """Return the moves that a reason of the model tells last, and the trial that they start from; "", None without any.

    >>> moves_in("model-based search around the best full run: trial 4, but x 1 to 2; again, since trial 7 failed")
    ('trial 4, but x 1 to 2', 4)
    """
    found = re.search(
        r"(?<=: )trial (\d+)(?:, but | again$).*", re.sub(rf"{AGAIN}\d+ failed$", "", reason), flags=re.DOTALL
    )
    return ("", None) if found is None else (found[0], int(found[1]))


def with_moves(reason: str, said: str, true: str) -> str:
    """Return a reason that tells some moves, "" for none, with those that are true instead."""
    return reason.replace(f": {said}", f": {true}" if true else "") if said else reason


def lacks(asked: Collection[Role], values: Sequence[float] | None) -> str:
    """Return how a reason says what a trial has not: its network has none, or its end came first.

    Args:
        asked: The roles that the trial has asked for.
        values: What it ended with; None where it was pruned before its first report.

    >>> lacks([], [0.3]), lacks([], [math.inf])
    ('this network has no', 'it ended before it asked for a')
    """
    well = values is not None and all(map(math.isfinite, values))
    return "this network has no" if asked or well else "it ended before it asked for a"


def with_true_step(reason: str, trial: FrozenTrial, claim: Mapping[str, Any], reader: StudyReader) -> str:
    """Return the reason of a rung with the step that was run: the trial's own bounds may have changed it."""
    names = (name for name, role in reader.roles(trial.distributions).items() if role == "lr")
    name, wish, step = next(names, None), claim.get("values", {}).get("lr"), claim.get("lr_multiple", 1.0)
    if name is None or not wish:
        return reason
    ran = parameters.value_in_role("lr", name, trial.distributions[name], trial.params[name])
    return reason.replace(f"ladder: {step:.3g} x the start", f"ladder: {step * ran / wish:.3g} x the start")
