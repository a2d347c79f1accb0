"""What a study has beside its trials: the range test, the sampler's settings (user attributes), and its best run."""

import json
import warnings
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import Literal

import optuna
from optuna.study import Study
from optuna.trial import FrozenTrial
from optuna.trial import Trial
from optuna.trial import TrialState

from optuna_discipline import trial_record
from optuna_discipline.parameters import bounds_of
from optuna_discipline.range_test_record import has_range_test
from optuna_discipline.range_test_record import read_range_test
from optuna_discipline.range_test_record import write_range_test
from optuna_discipline.rules.curve import EpochLog
from optuna_discipline.rules.lr_choice import LrChoice
from optuna_discipline.rules.lr_choice import choose_max_lr
from optuna_discipline.rules.range_test import RangeTest
from optuna_discipline.rules.run import LADDER
from optuna_discipline.rules.run import Run
from optuna_discipline.rules.space import ROLES
from optuna_discipline.rules.space import Role

REPEAT_KEY = trial_record.PREFIX + "repeat"  # on a trial that was warned of one: its number
RangeTestTurn = Literal["mine", "another's", "nobody's"]
_logger = optuna.logging.get_logger(f"optuna.{__name__}")


def keep_range_test(study: Study, trial: FrozenTrial, range_test: RangeTest | Callable[[], RangeTest]) -> None:
    """Run the range test, if the study has none, and keep it on a running trial; one that fails is reported."""
    if has_range_test(study):
        return
    try:
        test = range_test() if callable(range_test) else range_test
        if not isinstance(test, RangeTest):
            raise TypeError(f"`range_test` must return a RangeTest, but got {test!r}")
        encoded = test.to_dict()
    except Exception as error:
        warnings.warn(f"The LR range test failed and is left out: {error!r}", stacklevel=2)
        return
    write_range_test(study._storage, trial._trial_id, encoded)
    _logger.info(f"LR range test: {test.reason}")


def whose_range_test(study: Study, number: int, read_runs: Callable[[], Sequence[Run]]) -> RangeTestTurn:
    """Return whose turn it is to run the study's range test: that of the first worker that lives.

    "mine" if it is that of the trial `number`; "another's" while an earlier trial may still be at it; "nobody's" once
    there is one, or the ladder has begun without (its steps are multiples of where it began). Once there is one, as
    nearly always, the runs are not read.
    """
    if has_range_test(study):
        return "nobody's"
    runs = read_runs()
    if any((run.slot or "").startswith(LADDER) for run in runs):
        return "nobody's"
    before = [run for run in runs if run.number < number and run.state == "running" and run.slot is None]
    return "another's" if any(not run.params for run in before) else "mine"


def read_choice(study: Study) -> LrChoice | None:
    """Return what the study's range test says, None if there was none; a damaged one is reported and left out."""
    try:
        stored = read_range_test(study)
        return None if stored is None else choose_max_lr(RangeTest.from_dict(stored))
    except (KeyError, TypeError, ValueError) as error:
        warnings.warn(f"The study's range test is damaged and is left out: {error!r}", stacklevel=2)
        return None


def keep_settings(study: Study, settings: Mapping[str, Any]) -> None:
    """Keep the sampler's settings, because Optuna stores no sampler; warn where they are not those of before."""
    now = json.loads(json.dumps(settings))
    before = _attributes(study).get(trial_record.SETTINGS_KEY)
    if before is None:
        study._storage.set_study_user_attr(study._study_id, trial_record.SETTINGS_KEY, now)
    elif _as_known(before, now) != now:
        warnings.warn(
            f"The study {study.study_name!r} was begun with other settings of DisciplinedSampler ({before}); "
            f"it goes on with {now}, and stages that are decided may be asked again.",
            stacklevel=2,
        )


def _as_known(before: Any, now: Mapping[str, Any]) -> Any:
    """Return stored settings in the fields of today's: one that another version had, or had not, says nothing."""
    if not isinstance(before, dict):
        return before
    told = {name: before.get(name, value) for name, value in now.items()}
    return {**told, "recipe": _as_known(told["recipe"], now["recipe"])} if "recipe" in now else told


def read_settings(study: Study) -> Mapping[str, Any]:
    """Return the settings of the sampler that began the study, {} if there are none."""
    settings = _attributes(study).get(trial_record.SETTINGS_KEY)
    return settings if isinstance(settings, dict) else {}


def warn_of_idle_roles(study: Study, trial: FrozenTrial, told: Mapping[str, str | None]) -> None:
    """Warn of the names told to have a role that a study's first complete trial has not asked for, or for words."""
    names = [name for name, role in told.items() if role is not None]
    complete = (TrialState.COMPLETE,)
    if not names or any(t.number != trial.number for t in study.get_trials(deepcopy=False, states=complete)):
        return
    for name in names:
        if name not in trial.distributions:
            asked = f"but trial {trial.number} has not asked for {name!r}"
            cure = "correct the name, unless only other trials ask for it"
            warnings.warn(f"`roles` must name parameters, {asked}: {cure}.", stacklevel=2)
        elif bounds_of(trial.distributions[name]) is None:
            got = f"but {name!r} has {trial.distributions[name]}"
            warnings.warn(f"`roles` must name numbers, {got} and is left without a role: suggest them.", stacklevel=2)


def warn_of_direction(study: Study, metric: str, *, stacklevel: int) -> None:
    """Warn of a metric that the study turns round, an accuracy that it minimises or a loss that it maximises.

    Every trial warns, at the line `stacklevel` calls up; of one line Python shows the first.
    """
    direction, of_study = "maximize" if metric == "val_accuracy" else "minimize", study.direction.name.lower()
    if metric != "value" and of_study != direction:
        warnings.warn(
            f"Reports should be of what the study {study.study_name!r} is to {of_study}, or its best runs pass for the "
            f"worst, but got {metric!r}: make the study with {direction=}, or report what the objective returns "
            "(`metric=` of TrialReporter, `value=` of report_epoch).",
            stacklevel=stacklevel,
        )


def warn_of_late_value(epoch: int, *, stacklevel: int) -> None:
    """Warn, at the line `stacklevel` calls up, of a run that reported validation losses before its metric."""
    warnings.warn(
        f"`value` should be given at the first report if at any, or validation losses pass for it, but got it first at "
        f"{epoch=}: give it at the first report, too; where it is None later, only the losses are kept.",
        stacklevel=stacklevel,
    )


def warn_once_beyond(
    trial: Trial, stored: Mapping[str, Any], epoch: int, n_epochs: int | None, *, stacklevel: int
) -> None:
    """Warn, at the line `stacklevel` calls up, of a run's first report beyond what it planned.

    Args:
        trial: The live trial.
        stored: Its system attributes, before the report.
        epoch: What is reported.
        n_epochs: What was planned, if anything; a report of that epoch is none beyond it: one counts from 1.
        stacklevel: See above.
    """
    if n_epochs is None or epoch <= n_epochs:
        return
    steps = reversed(trial._cached_frozen_trial.intermediate_values)  # from the storage each report would read them all
    if not any(step > n_epochs and trial_record.has_row(stored, trial.number, step) for step in steps):
        warnings.warn(
            f"`epoch` should be at most `n_epochs`, or the pruner compares the run with none, but got {epoch=}, "
            f"{n_epochs=}: pass as `n_epochs` the last `epoch` of the run, plus 1 where they count from 0.",
            stacklevel=stacklevel,
        )


def warn_once_of_repeat(
    trial: Trial, stored: Mapping[str, Any], log: EpochLog, value: float | None, *, stacklevel: int
) -> None:
    """Warn, at the line `stacklevel` calls up, of a trial's first epoch that comes again with other numbers.

    Args:
        trial: The live trial.
        stored: Its system attributes, which hold a row of this epoch.
        log: The epoch as it comes again; it is not kept.
        value: The study's metric, as in the row.
        stacklevel: See above.
    """
    before, now = stored[f"{trial_record.ROW_PREFIX}{log.epoch}"], trial_record.encode_row(log, value)
    both = zip(trial_record.ROW_NAMES, before, now, strict=False)  # a row ends with the trial's number
    changes = [f"{name}={new} after {old}" for name, old, new in both if new != old]
    if changes and stored.get(REPEAT_KEY) != trial.number:
        trial.study._storage.set_trial_system_attr(trial._trial_id, REPEAT_KEY, trial.number)
        warnings.warn(
            f"`epoch` should be reported once, but got epoch={log.epoch} again, with {', '.join(changes)}: the first "
            "report stays, and this one is dropped. Leave out checks before the training, as Lightning's (report in "
            "`on_train_epoch_end`, not in `on_validation_end`), and evaluations after it.",
            stacklevel=stacklevel,
        )


def told_roles(study: Study) -> Mapping[str, Role | None]:
    """Return the roles that the sampler that began the study was told, by name; {} if there are none."""
    told = read_settings(study).get("roles")
    return {name: role for name, role in told.items() if role in (*ROLES, None)} if isinstance(told, dict) else {}


def _attributes(study: Study) -> Mapping[str, Any]:
    attributes: Mapping[str, Any] = study._storage.get_study_user_attrs(study._study_id)
    return attributes


def best_run(study: Study) -> FrozenTrial | None:
    """Return the best finished trial, the first of equals; None without one that ended at a number.

    A short cycle is a complete training, and its epochs are part of its configuration: where full trainings overfit,
    a short one is best, and says so. A trial that was restarted from another's middle does not count, since a training
    with its parameters may end elsewhere, nor does one that breaks a constraint.

    Raises:
        UnsupportedStudyError: If the study has several objectives.
    """
    return best_of(study.get_trials(deepcopy=False), trial_record.sign_of(study))


def best_of(trials: Sequence[FrozenTrial], sign: int) -> FrozenTrial | None:
    """Return the best of trials, as `best_run` does of a study's; `sign` as of `trial_record.sign_of`."""
    able = (trial for trial in trials if trial_record.may_be_best(trial))
    return min(able, key=lambda trial: sign * (trial.value or 0.0), default=None)
