"""What trials and studies have cost, in full trainings, and how long trials were to be."""

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass

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
from optuna_discipline.trial_record import reports_of

Told = Mapping[str, Role | None]


def cost_in_full_trainings(study: Study) -> float:
    """Return what the study has cost in full trainings: epochs done over those of a full training.

    A full training has as many epochs as any trial could have asked for, where they are a parameter, else as the
    longest was to run; where no trial says how long it is, it goes as far as the last report of any complete one. Every
    started trial counts by the epochs it reported, pruned and failed ones too, without those that it took over from
    another's snapshot, or as a retry from its former attempt; one that reported none counts whole if it is complete or
    was pruned, else as nothing. The range test counts by its updates where it knows those of a full training.
    """
    return total_cost(study, read_costs(study.get_trials(deepcopy=False), told_roles(study)))


@dataclass(frozen=True)
class Costs:
    """How long the trials of a study were to be and have been, in epochs, and what they have cost.

    Attributes:
        full: Epochs of a full training: the most that any trial could have run, 0 if none says.
        longest: Epochs (or other steps) up to the last report of any complete trial, 0 if none has reported.
        planned: What each trial was to run, by number; 0 if it does not say.
        reported: What each has run up to its last report, by number.
        spent: What each has cost in full trainings, by number; one that has not begun is missing.
    """

    full: float
    longest: float
    planned: Mapping[int, float]
    reported: Mapping[int, float]
    spent: Mapping[int, float]


def read_costs(trials: Sequence[FrozenTrial], told: Told) -> Costs:
    """Return what each trial has cost; each is read once, as that takes longest of all that a picture asks of it.

    A retry has trained from the last report of its former attempts before its own first one, where it went on; only a
    retry says that it goes on from another training, so any other whose reports begin late is a whole one. So is a
    retry of another sampler's that holds plain reports from the start: it inherited them, or trained those epochs anew.

    Args:
        trials: All trials of a study.
        told: The roles that its sampler was told (`study_record.told_roles`), here and below.
    """
    by_number = {trial.number: trial for trial in trials}
    lengths = {trial.number: epochs_and_most(trial, told) for trial in trials}
    planned = {number: epochs for number, (epochs, _) in lengths.items()}
    reported = {trial.number: _reported(trial, planned[trial.number]) for trial in trials}
    full = max((most for _, most in lengths.values()), default=0.0)
    longest = max((reported[trial.number] for trial in trials if trial.state == TrialState.COMPLETE), default=0.0)
    unit, spent = full or longest, {}
    for trial in trials:
        done, length = reported[trial.number], planned[trial.number]
        if done or trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
            trained = _trained(trial, done, length, by_number) if done else length or unit or 1.0
            spent[trial.number] = trained / (unit or done or 1.0)
    return Costs(full, longest, planned, reported, spent)


def total_cost(study: Study, costs: Costs) -> float:
    """Return what a study has cost in full trainings, given what its trials have; see `cost_in_full_trainings`."""
    return sum(costs.spent.values()) + cost_of_range_test(study)


def cost_of_range_test(study: Study) -> float:
    """Return what the study's range test has cost in full trainings; 0 where it does not say, or there was none."""
    try:
        test = read_range_test(study)
        return float(len(test["lrs"]) / test["planned_steps"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):  # there was none, it does not say, it is damaged
        return 0.0


def epochs_of(trial: FrozenTrial, told: Told) -> float:
    """Return the epochs that a trial was to run, 0 if it does not say."""
    return epochs_and_most(trial, told)[0]


def epochs_and_most(trial: FrozenTrial, told: Told) -> tuple[float, float]:
    """Return the epochs that a trial was to run, and the most that it could have been asked to; 0 if it is silent."""
    name = next((name for name, role in roles_of(trial.distributions, told).items() if role == "epochs"), None)
    epochs = float(read_run(trial).get("n_epochs") or 0) if name is None else float(trial.params[name])
    bounds = None if name is None else bounds_of(trial.distributions[name])
    return epochs, epochs if bounds is None else bounds.high


def _reported(trial: FrozenTrial, planned: float) -> float:
    """Return the epochs up to the last report (a report every fifth epoch counts five), at most those planned.

    Reports that count updates say so by their `n_epochs`: the 200th of 800 is a quarter of the trial's epochs.
    """
    reported = [row.log.epoch for row in read_rows(trial)] or trial.intermediate_values
    done = (max(reported, default=-1) + 1) * _epochs_a_step(trial, planned)
    return min(done, planned or done)


def _epochs_a_step(trial: FrozenTrial, planned: float) -> float:
    """Return what a step of the reports is in epochs: 1 but where they count updates."""
    steps = read_run(trial).get("n_epochs")
    return (planned or steps) / steps if steps else 1.0


def _trained(trial: FrozenTrial, done: float, planned: float, by_number: Mapping[int, FrozenTrial]) -> float:
    """Return the epochs up to the last report that a trial has trained itself."""
    attempts = former_attempts(trial, by_number)
    if attempts:
        done = min(done, _steps_of_retry(trial, attempts) * _epochs_a_step(trial, planned))
    return max(0.0, done - epochs_of_source(trial))


def _steps_of_retry(trial: FrozenTrial, attempts: Sequence[FrozenTrial]) -> int:
    """Return the steps that a retry has done itself, 0 if it has reported nothing of its own."""
    own = own_steps(trial)
    before = (step for attempt in attempts for step in reports_of(attempt) if step < own[0])
    return own[-1] - max(before, default=-1) if own else 0
