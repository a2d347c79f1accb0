"""What trials and studies have cost, in full trainings, and how long trials were to be."""

from collections.abc import Mapping
from collections.abc import Sequence

from optuna.study import Study
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from optuna_discipline.parameters import bounds_of
from optuna_discipline.parameters import roles_of
from optuna_discipline.range_test_record import read_range_test
from optuna_discipline.retries import former_attempts
from optuna_discipline.retries import own_steps
from optuna_discipline.rules.space import Role
from optuna_discipline.study_record import told_roles
from optuna_discipline.trial_record import epochs_of_source
from optuna_discipline.trial_record import read_rows
from optuna_discipline.trial_record import read_run

Told = Mapping[str, Role | None]


def cost_in_full_trainings(study: Study) -> float:
    """Return what the study has cost in full trainings: epochs done over those of a full training.

    A full training has as many epochs as any trial could have asked for, where they are a parameter, else as the
    longest was to run; where no trial says how long it is, it goes as far as the last report of any complete one. Every
    started trial counts by the epochs it reported, pruned and failed ones too, without those that it took over from
    another's snapshot, or as a retry from its former attempt; one that reported none counts whole if it is complete or
    was pruned, else as nothing. The range test counts by its updates where it knows those of a full training.
    """
    return sum(costs_of(study.get_trials(deepcopy=False), told_roles(study)).values()) + cost_of_range_test(study)


def costs_of(trials: Sequence[FrozenTrial], told: Told) -> dict[int, float]:
    """Return what each trial has cost in full trainings, by number; one that has not begun is missing.

    A retry has trained from the last report of its former attempts before its own first one, where it went on; only a
    retry says that it goes on from another training, so any other whose reports begin late is a whole one. So is a
    retry of another sampler's that holds plain reports from the start: it inherited them, or trained those epochs anew.

    Args:
        trials: All trials of a study.
        told: The roles that its sampler was told (`study_record.told_roles`), here and below.
    """
    full = full_epochs(trials, told) or longest_reported(trials, told)
    by_number = {trial.number: trial for trial in trials}
    costs = {}
    for trial in trials:
        done = epochs_reported(trial, told)
        if done or trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
            trained = _epochs_trained(trial, by_number, told) if done else epochs_of(trial, told) or full or 1.0
            costs[trial.number] = trained / (full or done or 1.0)
    return costs


def full_epochs(trials: Sequence[FrozenTrial], told: Told) -> float:
    """Return the epochs of a full training: the most that any trial could have run, 0 if none says."""
    return max((_most_epochs_of(trial, told) for trial in trials), default=0.0)


def longest_reported(trials: Sequence[FrozenTrial], told: Told) -> float:
    """Return the epochs (or other steps) up to the last report of any complete trial, 0 if none has reported."""
    return max((epochs_reported(trial, told) for trial in trials if trial.state == TrialState.COMPLETE), default=0.0)


def cost_of_range_test(study: Study) -> float:
    """Return what the study's range test has cost in full trainings; 0 where it does not say, or there was none."""
    try:
        test = read_range_test(study)
        return float(len(test["lrs"]) / test["planned_steps"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):  # there was none, it does not say, it is damaged
        return 0.0


def epochs_reported(trial: FrozenTrial, told: Told) -> float:
    """Return the epochs up to the last report (a report every fifth epoch counts five), at most those planned.

    Reports that count updates say so by their `n_epochs`: the 200th of 800 is a quarter of the trial's epochs.
    """
    reported = trial.intermediate_values or [row.log.epoch for row in read_rows(trial)]
    done = (max(reported, default=-1) + 1) * _epochs_a_step(trial, told)
    return min(done, epochs_of(trial, told) or done)


def _epochs_a_step(trial: FrozenTrial, told: Told) -> float:
    """Return what a step of the reports is in epochs: 1 but where they count updates."""
    steps = read_run(trial).get("n_epochs")
    return (epochs_of(trial, told) or steps) / steps if steps else 1.0


def _epochs_trained(trial: FrozenTrial, by_number: Mapping[int, FrozenTrial], told: Told) -> float:
    """Return the epochs up to the last report that a trial has trained itself."""
    done, attempts = epochs_reported(trial, told), former_attempts(trial, by_number)
    if attempts:
        done = min(done, _steps_of_retry(trial, attempts) * _epochs_a_step(trial, told))
    return max(0.0, done - epochs_of_source(trial))


def _steps_of_retry(trial: FrozenTrial, attempts: Sequence[FrozenTrial]) -> int:
    """Return the steps that a retry has done itself, 0 if it has reported nothing of its own."""
    own = own_steps(trial)
    before = (step for attempt in attempts for step in attempt.intermediate_values if step < own[0])
    return own[-1] - max(before, default=-1) if own else 0


def epochs_of(trial: FrozenTrial, told: Told) -> float:
    """Return the epochs that a trial was to run, 0 if it does not say."""
    name = _length_of(trial, told)
    return float(read_run(trial).get("n_epochs") or 0) if name is None else float(trial.params[name])


def _most_epochs_of(trial: FrozenTrial, told: Told) -> float:
    name = _length_of(trial, told)
    bounds = None if name is None else bounds_of(trial.distributions[name])
    return epochs_of(trial, told) if bounds is None else bounds.high


def _length_of(trial: FrozenTrial, told: Told) -> str | None:
    """Return the parameter that says how long a trial trains, None without one."""
    return next((name for name, role in roles_of(trial.distributions, told).items() if role == "epochs"), None)
