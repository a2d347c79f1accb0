"""What trials and studies have cost, in full trainings, and how long trials were to be."""

from collections.abc import Sequence
from functools import lru_cache

from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from optuna_discipline.range_test_record import read_range_test
from optuna_discipline.rules.role_names import role_of_name
from optuna_discipline.rules.role_names import without_passes
from optuna_discipline.rules.space import Role
from optuna_discipline.trial_record import epochs_of_source
from optuna_discipline.trial_record import read_rows
from optuna_discipline.trial_record import read_run


def cost_in_full_trainings(study: Study) -> float:
    """Return what the study has cost in full trainings: epochs done over those of a full training.

    A full training is the longest run planned; where no trial says how long it is, one that goes as far as the last
    report of any complete trial. Every started trial counts by the epochs it reported, pruned and failed ones too,
    without those that it took over from another's snapshot; one that reported none counts whole if it is complete or
    was pruned, else as nothing. The range test counts by its updates where it knows those of a full training.
    """
    return sum(costs_of(study.get_trials(deepcopy=False)).values()) + cost_of_range_test(study)


def costs_of(trials: Sequence[FrozenTrial]) -> dict[int, float]:
    """Return what each trial has cost in full trainings, by number; one that has not begun is missing."""
    full = max(map(full_epochs_of, trials), default=0.0) or longest_reported(trials)
    costs = {}
    for trial in trials:
        done = epochs_reported(trial)
        if done or trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
            trained = max(0.0, done - epochs_of_source(trial)) if done else epochs_of(trial) or full or 1.0
            costs[trial.number] = trained / (full or done or 1.0)
    return costs


def longest_reported(trials: Sequence[FrozenTrial]) -> float:
    """Return the epochs (or other steps) up to the last report of any complete trial, 0 if none has reported."""
    return max((epochs_reported(trial) for trial in trials if trial.state == TrialState.COMPLETE), default=0.0)


def cost_of_range_test(study: Study) -> float:
    """Return what the study's range test has cost in full trainings; 0 where it does not say, or there was none."""
    try:
        test = read_range_test(study)
        return float(len(test["lrs"]) / test["planned_steps"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):  # there was none, it does not say, it is damaged
        return 0.0


def epochs_reported(trial: FrozenTrial) -> float:
    """Return the epochs up to the last report (a report every fifth epoch counts five), at most those planned.

    Reports that count updates say so by their `n_epochs`: the 200th of 800 is a quarter of the trial's epochs.
    """
    reported = trial.intermediate_values or [row.log.epoch for row in read_rows(trial)]
    done = max(reported, default=-1) + 1
    planned = epochs_of(trial) or done
    unit = planned / (read_run(trial).get("n_epochs") or planned or 1)
    return min(done * unit, planned)


def epochs_of(trial: FrozenTrial) -> float:
    """Return the epochs that a trial was to run, 0 if it does not say."""
    lengths = (trial.params[name] for name in _names_of_length(trial))
    length = next((value for value in lengths if isinstance(value, int | float)), None)
    return float(length if length is not None else read_run(trial).get("n_epochs") or 0)


def full_epochs_of(trial: FrozenTrial) -> float:
    """Return the most epochs that a trial could have run, 0 if it does not say."""
    of_names = (trial.distributions[name] for name in _names_of_length(trial))
    return next(
        (float(d.high) for d in of_names if isinstance(d, IntDistribution | FloatDistribution)), epochs_of(trial)
    )


def _names_of_length(trial: FrozenTrial) -> tuple[str, ...]:
    return _of_length(tuple(trial.params))


@lru_cache(maxsize=128)  # a study of thousands of trials, each read several times, has few sets of names
def _of_length(names: tuple[str, ...]) -> tuple[str, ...]:
    lengths: dict[str, Role] = {name: "epochs" for name in names if role_of_name(name) == "epochs"}
    return tuple(without_passes(lengths, names))
