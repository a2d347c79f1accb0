"""A range test as a study keeps it: a system attribute of the trial whose worker ran it, or several for a long one.

optuna-dashboard shows a study's user attributes whole, hundreds of numbers too, and loses its system attributes when it
renames the study. What a trial keeps as system attributes it neither shows nor loses.
"""

import json
from collections.abc import Mapping
from typing import Any

from optuna.storages import BaseStorage
from optuna.study import Study

RANGE_TEST_KEY = "discipline:range_test"
PARTS = "parts"
# MySQL holds 65,535 bytes a value; Optuna encodes a text once more, which at most doubles it.
MAX_WHOLE, MAX_PART = 60_000, 30_000


def write_range_test(storage: BaseStorage, trial_id: int, encoded: Mapping[str, Any]) -> None:
    """Write what `RangeTest.to_dict` returned on a trial, which must be running: trial 0, unless its worker died.

    Its parts come first, so that who finds the head finds all of it.
    """
    text = json.dumps(dict(encoded))
    if len(text) <= MAX_WHOLE:
        storage.set_trial_system_attr(trial_id, RANGE_TEST_KEY, json.loads(text))
        return
    parts = [text[start : start + MAX_PART] for start in range(0, len(text), MAX_PART)]
    for index, part in enumerate(parts):
        storage.set_trial_system_attr(trial_id, f"{RANGE_TEST_KEY}:{index}", part)
    storage.set_trial_system_attr(trial_id, RANGE_TEST_KEY, {PARTS: len(parts)})


def has_range_test(study: Study) -> bool:
    """Return whether a study keeps a range test, be it damaged."""
    trials = study._storage.get_all_trials(study._study_id, deepcopy=False)
    return any(RANGE_TEST_KEY in trial.system_attrs for trial in trials)


def read_range_test(study: Study) -> Any:
    """Return what a study keeps for `RangeTest.from_dict`, None without a range test.

    Raises:
        KeyError: If a part is missing.
        TypeError: If a part is no text.
        ValueError: If the parts do not join.
    """
    trials = study._storage.get_all_trials(study._study_id, deepcopy=False)
    attributes = next((trial.system_attrs for trial in trials if RANGE_TEST_KEY in trial.system_attrs), {})
    stored = attributes.get(RANGE_TEST_KEY)
    if not isinstance(stored, dict) or PARTS not in stored:
        return stored
    return json.loads("".join(attributes[f"{RANGE_TEST_KEY}:{index}"] for index in range(stored[PARTS])))
