"""A study as the rules see it: its trials as runs, its parameters as roles with bounds."""

import datetime
import math
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from itertools import islice
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from optuna_discipline import parameters
from optuna_discipline import retreat
from optuna_discipline import retries
from optuna_discipline import trial_record
from optuna_discipline.rules.conditions import ENOUGH_LATER
from optuna_discipline.rules.conditions import dropped
from optuna_discipline.rules.curve import without_gaps
from optuna_discipline.rules.failures import without_placeholders
from optuna_discipline.rules.role_names import says_seed
from optuna_discipline.rules.run import Run
from optuna_discipline.rules.run import RunState
from optuna_discipline.rules.space import Bounds
from optuna_discipline.rules.space import Role
from optuna_discipline.rules.spelling import check_spelling
from optuna_discipline.rules.spelling import number_of

# A running trial this many times older than the longest complete one is taken for dead; one that still has no parameter
# sooner, because no range test takes so long. One or two complete trials may have been there to see whether the program
# runs, in seconds, so they grant a day.
STALE_FACTOR, UNDECIDED_FACTOR, STALE_SECONDS = 5.0, 2.0, 60.0
ENOUGH_ENDED, FEW_SECONDS = 3, 86_400.0
MOST_OF_A_SWITCH = 10  # values of a whole number that may decide what else there is
_STATES: Mapping[TrialState, RunState] = {
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


class StudyReader:
    """Reads studies by one set of role names. Finished trials are read once; the cache is rebuilt when lost.

    Args:
        roles: Roles of parameters with other names than the usual ones; None for one that has none.
    """

    def __init__(self, roles: Mapping[str, str | None] | None = None) -> None:
        self._told = parameters.check_roles(roles)
        self._finished: dict[str, dict[trial_record.Identity, Run]] = {}
        self._lengths: dict[tuple[str, trial_record.Identity], float] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_finished": {}, "_lengths": {}}

    def role_of(self, name: str, distribution: BaseDistribution) -> Role | None:
        """Return the role of a parameter by itself, None if it has no role or holds no numbers."""
        return parameters.role_of(name, distribution, self._told)

    def is_seed(self, name: str, distribution: BaseDistribution) -> bool:
        """Whether a parameter is a seed, which is held; what the user has told of it comes first."""
        return name not in self._told and says_seed(name) and not _has_fractions(distribution)

    def settings(self, known: Mapping[str, BaseDistribution]) -> dict[str, BaseDistribution]:
        """Return known parameters without the seeds: they are no settings."""
        return {name: distribution for name, distribution in known.items() if not self.is_seed(name, distribution)}

    def leader_of(self, name: str, distribution: BaseDistribution, trial: FrozenTrial) -> str | None:
        """Return the parameter of the same role that a trial has asked for before this one, None if this is the first.

        A network whose body and head have learning rates of their own has two parameters of one role. One of a single
        value leads none.
        """
        role, others = self.role_of(name, distribution), trial.distributions.items()
        earlier = (n for n, d in others if n != name and not d.single() and self.role_of(n, d) == role)
        return next(earlier, None) if role is not None else None

    def has_roles(self, trials: Sequence[FrozenTrial]) -> bool:
        """Whether any trial has a parameter with a role."""
        return any(self.roles(trial.distributions) for trial in trials)

    def roles(self, known: Mapping[str, BaseDistribution]) -> dict[str, Role]:
        """Return the roles among the parameters of one study, by name: what others there are may take one away."""
        return parameters.roles_of(known, self._told)

    def role_in(self, study: Study, name: str, distribution: BaseDistribution) -> Role | None:
        """Return the role of a parameter that a trial asks for, in its study.

        Raises:
            ValueError: If the user has given it one, and it holds exponents that cannot be read.
        """
        role = self.role_of(name, distribution)
        if role is not None and name in self._told and (bounds := parameters.bounds_of(distribution)) is not None:
            check_spelling(role, name, bounds)
        if role != "epochs":
            return role
        return self.roles({**parameters.known_distributions(read_trials(study)), name: distribution}).get(name)

    def space(self, known: Mapping[str, BaseDistribution]) -> dict[Role, Bounds]:
        """Return the bounds of the roles among known parameters, those of the first in each."""
        roles = self.roles(known)
        space: dict[Role, Bounds] = {}
        for name in known:  # not as `roles` has them: what others hold has one value, and may be the first
            if name in roles and (bounds := parameters.bounds_in_role(roles[name], name, known[name])) is not None:
                space.setdefault(roles[name], bounds)
        return space

    def runs(self, study: Study, trials: Sequence[FrozenTrial], *, except_for: int | None = None) -> list[Run]:
        """Return every trial that has started as a run, without the trial numbered `except_for`, which asks now."""
        sign = float(trial_record.sign_of(study))
        overdue: set[int] | None = None  # asked by the first that runs
        by_number: dict[int, FrozenTrial] = {}
        runs = []
        finished = self._finished.setdefault(study.study_name, {})
        for trial in trials:
            if (run := finished.get(trial_record.identity_of(trial))) is None:
                if trial.number == except_for or trial.state not in _STATES:
                    continue
                if overdue is None and trial.state == TrialState.RUNNING:
                    overdue = self._overdue(study.study_name, trials, _now(trials, except_for))
                if trial_record.RETRY_MARK in trial.system_attrs:
                    by_number = by_number or {trial.number: trial for trial in trials}
                attempts = retries.former_attempts(trial, by_number)
                run = self._run(trial, attempts, sign, is_overdue=trial.number in (overdue or ()))
                if trial.state.is_finished():
                    finished[trial_record.identity_of(trial)] = run
            elif run.number == except_for:
                continue
            runs.append(run)
        return without_placeholders(runs)

    def _run(self, trial: FrozenTrial, attempts: Sequence[FrozenTrial], sign: float, *, is_overdue: bool) -> Run:
        claim = trial_record.read_claim(trial)
        params: dict[Role, float] = {}
        told = set()  # in `params`, or moves with what is
        for name, role in self.roles(trial.distributions).items():
            distribution, value = trial.distributions[name], trial.params[name]
            if role not in params or role in ("lr", "epochs"):
                told.add(name)
            params.setdefault(role, float(parameters.value_in_role(role, name, distribution, value)))
        allowed = not trial_record.breaks_a_constraint(trial)
        readable = allowed and trial.state.is_finished()
        reports = retries.read_reports(trial, attempts).values() if readable else ()
        value = trial.value if trial.state in (TrialState.COMPLETE, TrialState.PRUNED) else None
        if value is not None and not allowed:
            value = sign * math.inf
        return Run(
            number=trial.number,
            state="failed" if is_overdue else _STATES[trial.state],
            params=params,
            loss=None if value is None else sign * value,
            slot=None if claim is None or claim["stage"] == "enqueued" else claim["slot"],
            curve=trial_record.read_curve(trial) if readable else None,
            reports=without_gaps(tuple(sign * y for y in reports)),
            seconds=_seconds_of_whole(trial, attempts),
            restarted=trial_record.epochs_of_source(trial) > 0,
            others={name: trial.params[name] for name in self.settings(trial.distributions) if name not in told},
            allowed=allowed,
            smallest=all(retreat.is_smallest(d, trial.params[name]) for name, d in self.sizes(trial)),
        )

    def sizes(self, trial: FrozenTrial) -> list[tuple[str, BaseDistribution]]:
        """Return a trial's sizes and words, which `retreat` changes: without roles, but for the batch size; no seed."""
        known = self.settings(trial.distributions).items()
        return [(name, d) for name, d in known if self.role_of(name, d) in (None, "batch_size")]

    def _overdue(self, study_name: str, trials: Sequence[FrozenTrial], now: datetime.datetime) -> set[int]:
        """Return the numbers of running trials taken for dead.

        A trial started no earlier than any with a smaller number, whatever the clock of its host says; a start in the
        future is a wrong clock's. How long a training takes is read from those that were completed, on one clock, their
        own worker's: one that was stopped, or added to the study, says nothing.
        """
        complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
        paces = [seconds / self._length(study_name, trial) for trial in complete if (seconds := _seconds(trial))]
        if not paces:
            return set()
        longest = max(self._length(study_name, trial) for trial in trials) * max(paces)
        least = STALE_SECONDS if len(paces) >= ENOUGH_ENDED else FEW_SECONDS
        latest: datetime.datetime | None = None
        found = set()
        for trial in sorted(trials, key=lambda trial: trial.number):
            if trial.datetime_start is None:
                continue
            if trial.datetime_start <= now:
                latest = trial.datetime_start if latest is None else max(latest, trial.datetime_start)
                patience = max(least, (STALE_FACTOR if trial.params else UNDECIDED_FACTOR) * longest)
                if trial.state == TrialState.RUNNING and (now - latest).total_seconds() > patience:
                    found.add(trial.number)
        return found

    def _length(self, study_name: str, trial: FrozenTrial) -> float:
        """Return how many epochs a trial trains for, 1 where it does not say."""
        key = (study_name, trial_record.identity_of(trial))
        if key not in self._lengths:
            names = (name for name, role in self.roles(trial.distributions).items() if role == "epochs")
            length = max([1.0, *(float(trial.params[name]) for name in names)])
            if not trial.state.is_finished():
                return length
            self._lengths[key] = length
        return self._lengths[key]


def read_trials(study: Study) -> list[FrozenTrial]:
    """Return the study's trials, fresh and not copied: do not change them."""
    return study._storage.get_all_trials(study._study_id, deepcopy=False)


def asked_distributions(trials: Sequence[FrozenTrial]) -> dict[str, BaseDistribution]:
    """Return the known parameters without those that the objective no longer asks for, those of one value last."""
    known = dict(sorted(parameters.known_distributions(trials).items(), key=lambda item: item[1].single()))
    if known.keys() <= set().union(*islice(_ended(reversed(trials)), ENOUGH_LATER)):
        return known  # as nearly always: a study of thousands is read several times a trial
    few = [name for name, distribution in known.items() if _holds_few(distribution)]
    gone = dropped(list(_ended(trials)), few)
    return {name: distribution for name, distribution in known.items() if name not in gone}


def _ended(trials: Iterable[FrozenTrial]) -> Iterator[dict[str, Any]]:
    """Return the parameters of the trials that have asked for all of theirs."""
    ended = (trial for trial in trials if trial.state in (TrialState.COMPLETE, TrialState.PRUNED))
    return (trial.params for trial in ended if trial.params)


def _holds_few(distribution: BaseDistribution) -> bool:
    """Whether it may decide what else exists: of many values each is run once, and seems to explain all."""
    span = distribution.high - distribution.low if isinstance(distribution, IntDistribution) else math.inf
    return isinstance(distribution, CategoricalDistribution) or span <= MOST_OF_A_SWITCH


def _has_fractions(distribution: BaseDistribution) -> bool:
    """Whether there are numbers between the whole ones, which are no seeds: a share, a threshold."""
    if isinstance(distribution, CategoricalDistribution):
        return any(number_of(choice) % 1 > 0 for choice in distribution.choices)
    return isinstance(distribution, FloatDistribution) and any(
        x % 1 for x in (distribution.low, distribution.step or 0.5)
    )


def _seconds(trial: FrozenTrial) -> float | None:
    if trial.datetime_start is None or trial.datetime_complete is None:
        return None
    return (trial.datetime_complete - trial.datetime_start).total_seconds()


def _seconds_of_whole(trial: FrozenTrial, attempts: Sequence[FrozenTrial]) -> float | None:
    """Return what the trial would have taken from the start, had it not gone on from another or a former attempt."""
    seconds, taken_over = _seconds(trial), trial_record.epochs_of_source(trial)
    if seconds is None or not (taken_over or attempts):
        return seconds
    if attempts:
        epochs, own = len(retries.read_reports(trial, attempts)), len(retries.own_steps(trial))
    else:
        epochs = len(trial_record.read_rows(trial))
        own = epochs - taken_over
    if own == epochs:
        return seconds
    return seconds * epochs / own if own > 0 else None


def _now(trials: Sequence[FrozenTrial], asking: int | None) -> datetime.datetime:
    """Return the time by the clock that stamps trials: when the trial that asks has started, if one does."""
    started = next((trial.datetime_start for trial in trials if trial.number == asking), None)
    return datetime.datetime.now() if started is None else started
