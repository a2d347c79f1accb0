"""What a trial remembers: one row per epoch, and one small claim of what it runs. Verdicts are computed anew.

Rows and the claim are system attributes of the trial (no page of optuna-dashboard shows them, and they survive its
renaming of a study); `stage`, `reason`, `pruned_because` and `verdict` are user attributes, for people and for
the objective. Others may write under these names as well, so what was told is kept apart, in the claim or beside it.
"""

import datetime
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from optuna.trial import Trial
from optuna.trial import TrialState

from optuna_discipline.exceptions import UnsupportedStudyError
from optuna_discipline.rules.arguments import encode
from optuna_discipline.rules.curve import EpochLog
from optuna_discipline.rules.curve import LossCurve
from optuna_discipline.rules.diagnosis import Diagnosis
from optuna_discipline.rules.diagnosis import diagnose_if_readable

CONSTRAINTS, ONE_CONSTRAINT = "constraints", "constraints:"  # Optuna's
Identity = tuple[int, datetime.datetime | None]
PREFIX = "discipline:"
CLAIM_KEY = PREFIX + "claim"
TOLD_KEY = PREFIX + "told"  # stage and reason, if not as claimed
RUN_KEY = PREFIX + "run"
ROW_PREFIX, ROW_NAMES = PREFIX + "epoch:", ("lr", "train_loss", "val_loss", "val_accuracy", "value")
SETTINGS_KEY = PREFIX + "settings"
TERMS_KEY = PREFIX + "terms"  # of the study: by what `tune` trains
SNAPSHOT_KEY, RESTART_KEY = PREFIX + "snapshot", PREFIX + "restart"
RETRY_MARK, RETRY_HISTORY = "failed_trial", "retry_history"  # Optuna's keys on a trial that retries others
STAGE_KEY, REASON_KEY, PRUNED_KEY, RESTARTED_FROM_KEY = "stage", "reason", "pruned_because", "restarted_from"
VERDICT_KEY = "verdict"


@dataclass(frozen=True)
class Row:
    """One epoch as stored: the log, and the study's metric if that is another than its loss and was measured."""

    log: EpochLog
    value: float | None


def write_run(storage: BaseStorage, trial_id: int, *, n_epochs: int | None, metric: str, n_classes: int | None) -> None:
    """Write what holds for the whole run: its planned length and what its reports mean."""
    counts = {"n_epochs": n_epochs, "n_classes": n_classes}  # of NumPy, maybe, which no storage takes
    run = {"metric": metric, **{name: None if count is None else int(count) for name, count in counts.items()}}
    storage.set_trial_system_attr(trial_id, RUN_KEY, run)


def write_row(storage: BaseStorage, trial_id: int, number: int, log: EpochLog, value: float | None) -> None:
    """Write one epoch, with the trial's number: a retried trial inherits the rows of its former self."""
    storage.set_trial_system_attr(trial_id, f"{ROW_PREFIX}{log.epoch}", [*encode_row(log, value), number])


def encode_row(log: EpochLog, value: float | None) -> list[float | str | None]:
    """Return the numbers of a row as they are stored, in the order of `ROW_NAMES`."""
    return [encode(x) for x in (log.lr, log.train_loss, log.val_loss, log.val_accuracy, value)]


def has_row(system_attrs: Mapping[str, Any], number: int, epoch: int) -> bool:
    """Return whether a trial has written an epoch itself; a row that it inherited from a former attempt is not its."""
    stored = system_attrs.get(f"{ROW_PREFIX}{epoch}")
    return isinstance(stored, list | tuple) and stored[-1:] == [number]


def read_rows(trial: FrozenTrial) -> list[Row]:
    """Return the rows of a trial by epoch, without damaged ones.

    Those of a former attempt count up to where the retry has gone on from it; one that began anew has none of them.
    """
    rows = []
    retried = RETRY_MARK in trial.system_attrs
    start = min(own_epochs(trial), default=0) if retried else 0
    for key, stored in trial.system_attrs.items():
        if key.startswith(ROW_PREFIX):
            try:
                *numbers, number = stored
                lr, train_loss, val_loss, val_accuracy, value = (decode(x) for x in numbers)
                log = EpochLog(int(key[len(ROW_PREFIX) :]), lr, train_loss, val_loss, val_accuracy)
            except (TypeError, ValueError):
                continue
            if not retried or number == trial.number or log.epoch < start:
                rows.append(Row(log, value))
    return sorted(rows, key=lambda row: row.log.epoch)


def reports_of(trial: FrozenTrial) -> dict[int, float]:
    """Return the reports of a trial by step, those of its rows where it has any: Hugging Face's own count updates."""
    epochs = {row.log.epoch for row in read_rows(trial)} or trial.intermediate_values.keys()
    return {step: value for step, value in trial.intermediate_values.items() if step in epochs}


def epochs_of_rows(trial: FrozenTrial) -> set[int]:
    """Return the epochs of which a trial has a row, written or inherited."""
    keys = (key[len(ROW_PREFIX) :] for key in trial.system_attrs if key.startswith(ROW_PREFIX))
    return {int(epoch) for epoch in keys if epoch.isdigit()}


def own_epochs(trial: FrozenTrial) -> list[int]:
    """Return the epochs whose rows a trial has written itself, rising."""
    return sorted(epoch for epoch in epochs_of_rows(trial) if has_row(trial.system_attrs, trial.number, epoch))


def read_run(trial: FrozenTrial) -> Mapping[str, Any]:
    """Return what `write_run` wrote, or {}."""
    run = trial.system_attrs.get(RUN_KEY)
    return run if isinstance(run, dict) else {}


@dataclass(frozen=True)
class Reported:
    """What a trial reported: its curve, and the study's metric at each log of it, None where it was not measured.

    `values` is None where the metric is the validation loss.
    """

    curve: LossCurve
    values: list[float | None] | None


def read_reported(trial: FrozenTrial) -> Reported | None:
    """Return what a trial that used `TrialReporter` or `report_epoch` reported, None for any other trial."""
    rows = read_rows(trial)
    if not rows:
        return None
    run = read_run(trial)
    n_epochs = run.get("n_epochs") or rows[-1].log.epoch + 1
    curve = LossCurve(tuple(row.log for row in rows), n_epochs=n_epochs, n_classes=run.get("n_classes"))
    if all(row.value is None for row in rows):
        equal = run.get("metric") == "value"  # not stored where it was the loss, in the first studies
        return Reported(curve, [row.log.val_loss for row in rows] if equal else None)
    return Reported(curve, [row.value for row in rows])


def read_curve(trial: FrozenTrial) -> LossCurve | None:
    """Return the curve of a trial that used `TrialReporter` or `report_epoch`, None for any other trial."""
    reported = read_reported(trial)
    return None if reported is None else reported.curve


def write_claim(storage: BaseStorage, trial: FrozenTrial, claim: Mapping[str, Any]) -> Mapping[str, Any]:
    """Write which candidate of which stage a trial runs, show it to whoever holds this trial, return it as stored."""
    stored: Mapping[str, Any] = json.loads(json.dumps(dict(claim), default=repr))  # see `parameters.as_choice`
    if trial.system_attrs.get(CLAIM_KEY) != stored:
        storage.set_trial_system_attr(trial._trial_id, CLAIM_KEY, stored)
        trial.system_attrs[CLAIM_KEY] = stored
    return stored


def read_claim(trial: FrozenTrial) -> Mapping[str, Any] | None:
    """Return what `write_claim` wrote, or None."""
    claim = trial.system_attrs.get(CLAIM_KEY)
    if not isinstance(claim, dict) or not (isinstance(claim.get("stage"), str) and isinstance(claim.get("slot"), str)):
        return None
    return claim


def write_snapshot(storage: BaseStorage, trial: Trial, artifact_id: str, sha256: str) -> None:
    """Write where a trial's snapshot lies, once it lies there."""
    snapshot: dict[str, Any] = {"number": trial.number, "artifact_id": artifact_id, "sha256": sha256}
    storage.set_trial_system_attr(trial._trial_id, SNAPSHOT_KEY, snapshot)


def read_snapshot(trial: FrozenTrial) -> Mapping[str, Any] | None:
    """Return what `write_snapshot` wrote, None if the trial saved nothing itself."""
    snapshot = trial.system_attrs.get(SNAPSHOT_KEY)
    return snapshot if isinstance(snapshot, dict) and snapshot.get("number") == trial.number else None


def write_restart(storage: BaseStorage, trial: Trial, source: int, epochs: int) -> None:
    """Write that a trial goes on from another one, whose first epochs it has taken over; people see from which."""
    restart: dict[str, Any] = {"number": trial.number, "from": source, "epochs": epochs}
    storage.set_trial_system_attr(trial._trial_id, RESTART_KEY, restart)
    trial.set_user_attr(RESTARTED_FROM_KEY, source)


def epochs_of_source(trial: FrozenTrial) -> int:
    """Return the epochs that a trial took over from the one that it was restarted from, 0 for any other."""
    restart = trial.system_attrs.get(RESTART_KEY)
    return restart["epochs"] if isinstance(restart, dict) and restart.get("number") == trial.number else 0


def write_stage(storage: BaseStorage, trial: FrozenTrial, stage: str, reason: str) -> None:
    """Keep the stage and its reason, and write each where people and the objective see it, unless the user has.

    What differs from what was told last is the user's. The dict serves the objective, which reads a cached trial.
    """
    last, told = last_told(trial), {STAGE_KEY: stage, REASON_KEY: reason}
    if any(last.get(key) != text for key, text in told.items()):
        storage.set_trial_system_attr(trial._trial_id, TOLD_KEY, told)
        trial.system_attrs[TOLD_KEY] = told
    for key, text in told.items():
        is_own = key in trial.user_attrs and (key not in last or trial.user_attrs[key] != last[key])
        if not is_own and trial.user_attrs.get(key) != text:
            storage.set_trial_user_attr(trial._trial_id, key, text)
            trial.user_attrs[key] = text


def stage_of(trial: FrozenTrial) -> str | None:
    """Return the stage that a trial belongs to, None for one that belongs to none."""
    stage: str | None = last_told(trial).get(STAGE_KEY)
    return stage


def reason_of(trial: FrozenTrial) -> str:
    """Return why a trial has its values, "" where nothing says."""
    return str(last_told(trial).get(REASON_KEY, ""))


def last_told(trial: FrozenTrial) -> Mapping[str, Any]:
    """Return the stage and the reason that `write_stage` was given last, or else the claim's, or {}."""
    told = trial.system_attrs.get(TOLD_KEY)
    is_whole = isinstance(told, dict) and all(isinstance(told.get(key), str) for key in (STAGE_KEY, REASON_KEY))
    found: Mapping[str, Any] | None = told if is_whole else read_claim(trial)
    return found or {}


def read_diagnosis(trial: FrozenTrial) -> Diagnosis | None:
    """Return what a trial's curve shows, None where it has none or too short a one."""
    curve = read_curve(trial)
    return None if curve is None else diagnose_if_readable(curve)


def write_verdict(storage: BaseStorage, trial: FrozenTrial) -> None:
    """Write what a trial's curve shows where the dashboard's table shows it; the trial must not have ended yet."""
    found = read_diagnosis(trial)
    if found is not None:
        storage.set_trial_user_attr(trial._trial_id, VERDICT_KEY, str(found.verdict))


def sign_of(study: Study) -> int:
    """Return 1 where the objective is minimised, -1 where it is maximised.

    Raises:
        UnsupportedStudyError: If the study has several objectives.
    """
    if len(study.directions) > 1:
        raise UnsupportedStudyError(
            f"a study must have one objective, by which its trials are ranked, but {study.study_name!r} has "
            f"{len(study.directions)}: use optuna.visualization.plot_pareto_front."
        )
    return -1 if study.direction == StudyDirection.MAXIMIZE else 1


def identity_of(trial: FrozenTrial) -> Identity:
    """Return what tells a trial from those of an earlier study of the same name, whose id it may have."""
    return trial._trial_id, trial.datetime_start


def breaks_a_constraint(trial: FrozenTrial) -> bool:
    """Whether a trial may not be chosen: constraints are met from 0 down, set one by one or by a sampler."""
    attributes = trial.system_attrs
    keys = [key for key in attributes if key == CONSTRAINTS or key.startswith(ONE_CONSTRAINT)]
    if not keys:
        return False
    values = (attributes[key] or () if key == CONSTRAINTS else (attributes[key],) for key in keys)
    return any(value > 0 for found in values for value in found)


def may_be_best(trial: FrozenTrial) -> bool:
    """Whether a trial may be the best: it ended at a number, broke no constraint and began at the beginning."""
    ended = trial.state == TrialState.COMPLETE and trial.value is not None and math.isfinite(trial.value)
    return ended and not epochs_of_source(trial) and not breaks_a_constraint(trial)


def decode(value: float | str | None) -> float | None:
    """Return what `encode` was given."""
    return math.nan if value == "nan" else None if value is None else float(value)  # one NaN, or no cache finds it
