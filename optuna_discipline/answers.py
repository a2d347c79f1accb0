"""What a trial is answered, name by name, in its own bounds: what its claim says, what is held, or where to begin."""

import dataclasses
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from zlib import crc32

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from optuna_discipline import claims
from optuna_discipline import parameters
from optuna_discipline import retreat
from optuna_discipline import study_record
from optuna_discipline.rules.failures import all_in_vain
from optuna_discipline.rules.failures import failures_so_far
from optuna_discipline.rules.failures import those_that_fit
from optuna_discipline.rules.run import MODEL_SLOT
from optuna_discipline.rules.run import Run
from optuna_discipline.rules.slots import MAX_FAILURES
from optuna_discipline.rules.space import Role
from optuna_discipline.rules.space import default_of
from optuna_discipline.rules.usual_values import adds_up
from optuna_discipline.rules.usual_values import usual_lr
from optuna_discipline.study_reader import StudyReader
from optuna_discipline.study_reader import read_trials

SEEDS_DRAWN = 100  # to find one that has not run
BESIDE = 0.25  # of its range, so far from the first value a trial may begin that starts beside others


@dataclasses.dataclass(frozen=True)
class Question:
    """What the objective of a trial asks for."""

    study: Study
    trial: FrozenTrial
    name: str
    distribution: BaseDistribution


class Answers:
    """Answers trials one parameter at a time.

    Args:
        reader: Reads the study by the roles.
        independent_sampler: What samples parameters that no trial has had yet; None for where they usually begin.
        seed: Every trial and name draws from a stream of its own.
    """

    def __init__(self, reader: StudyReader, independent_sampler: BaseSampler | None, seed: int) -> None:
        self._reader, self._independent_sampler, self._seed = reader, independent_sampler, seed

    def answer(self, question: Question, claim: Mapping[str, Any], role: Role | None) -> Any:
        """Return the value of one parameter, from the one decision that was made for its trial."""
        told = role == "epochs" or role in claim["values"]
        if claim.get("drawn") and not told and (role is not None or self._independent_sampler is None):
            return self._draw(question)
        if question.name in claim.get("suggested", {}):
            return _fit_any(question.name, question.distribution, claim["suggested"][question.name])
        if role is not None:
            return self._in_role(question, claim, role)
        return self._held(question, claim, parameters.start_of(question.name, question.distribution))

    def before_a_claim(self, question: Question, runs: Sequence[Run]) -> Any:
        """Return where a parameter without a role begins, while no trial has shown one with a role."""
        if self._independent_sampler is None and all_in_vain(runs):
            return self._draw(question)
        start = parameters.start_of(question.name, question.distribution)
        value = self._begin(question, start, failures_so_far(runs))
        before = (other for other in read_trials(question.study) if other.number < question.trial.number)
        if self._independent_sampler is None and any(other.state == TrialState.RUNNING for other in before):
            return _beside(question.distribution, value, self._stream(question))  # many begin at once
        return value

    def of_seed(self, question: Question) -> Any:
        """Return a seed: the first trial's, so that no trial differs in it; a new one if there is nothing else."""
        others = [other for other in read_trials(question.study) if other.number != question.trial.number]
        shown = parameters.known_distributions(other for other in others if other.state.is_finished())
        before = [other.params[question.name] for other in others if question.name in other.params]
        if shown and all(d.single() for d in self._reader.settings(shown).values()):
            stream = self._stream(question)
            drawn = (retreat.draw(question.name, question.distribution, stream) for _ in range(SEEDS_DRAWN))
            return next((seed for seed in drawn if seed not in before), self._draw(question))
        allowed = (value for value in before if parameters.allows(question.distribution, value))
        return next(allowed, parameters.start_of(question.name, question.distribution))

    def _in_role(self, question: Question, claim: Mapping[str, Any], role: Role) -> Any:
        trial, name, distribution = question.trial, question.name, question.distribution
        bounds = parameters.bounds_in_role(role, name, distribution)
        assert bounds is not None
        proposal, like = claims.proposal_of(claim), None
        leader = self._reader.leader_of(name, distribution, trial)
        if role == "lr":
            like = next((t for t in read_trials(question.study) if t.number == proposal.like), None)
            if leader is not None:
                return _follow(trial, name, distribution, leader, like)
            if (usual := usual_lr(trial.params, self._momentum_of(trial))) is not None:
                bounds = dataclasses.replace(bounds, start=usual)
        if role == "momentum" and adds_up(trial.params):
            bounds = dataclasses.replace(bounds, start=bounds.low)
        if leader is not None and role != "epochs":  # what the stages say is of the first
            return self._held(
                question, claim, parameters.fit_in_role(role, name, distribution, default_of(role, bounds))
            )
        choice = study_record.read_choice(question.study) if role == "lr" and role not in proposal.values else None
        wish = proposal.value_of(role, bounds, choice)
        if like is not None and name not in like.params and self._differ_in_words(trial, like):
            wish = default_of(role, bounds) * proposal.lr_multiple  # another optimizer's says nothing
        value = parameters.fit_in_role(role, name, distribution, wish)
        return self._away_from_failures(question, value, proposal.failures)

    def _momentum_of(self, trial: FrozenTrial) -> float:
        """Return the momentum that a trial has been given so far; 0 without one."""
        given = {self._reader.role_of(n, d): (n, d) for n, d in trial.distributions.items() if n in trial.params}
        if "momentum" not in given:
            return 0.0
        name, distribution = given["momentum"]
        return float(parameters.value_in_role("momentum", name, distribution, trial.params[name]))

    def _differ_in_words(self, trial: FrozenTrial, like: FrozenTrial) -> bool:
        """Whether a trial has been given another word or count, such as an optimizer, than one it is to be like."""
        kinds = CategoricalDistribution | IntDistribution
        words = (n for n, d in trial.distributions.items() if isinstance(d, kinds) and not self._reader.role_of(n, d))
        return any(name in like.params and like.params[name] != trial.params[name] for name in words)

    def _held(self, question: Question, claim: Mapping[str, Any], start: Any) -> Any:
        """Return the value of the run that the stage builds on, else of the first run, else where it begins.

        Where the model took it to be held by another sampler, that value, which the rest was chosen for.
        """
        like = None if claim["slot"] == MODEL_SLOT else self._example(question, claim.get("like"))
        known = claim.get("bound", {}) if like is None else like.params
        held = parameters.as_choice(question.distribution, known.get(question.name))
        if question.name in known and parameters.allows(question.distribution, held):
            return held
        return self._begin(question, start, claim.get("failures", 0))

    def _example(self, question: Question, number: int | None) -> FrozenTrial | None:
        """Return the complete trial of this number, else the first that fitted, if it has the parameter.

        Where none is complete it is one of the sampler's own that was pruned: the start may be what did not fit.
        """
        trials = read_trials(question.study)
        ended = (t for t in trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED))
        earlier = [t for t in ended if question.name in t.params]
        like = next((t for t in earlier if t.number == number and t.state == TrialState.COMPLETE), None)
        if like is not None or not earlier:
            return like
        runs = those_that_fit(self._reader.runs(question.study, trials, except_for=question.trial.number))
        fits = {run.number for run in runs if run.state == "complete" or run.slot is not None}
        fitted = [t for t in earlier if t.number in fits]
        return min(fitted, key=lambda t: (t.state == TrialState.PRUNED, t.number), default=None)

    def _begin(self, question: Question, start: Any, failures: int) -> Any:
        if self._independent_sampler is None or question.trial.number == 0:
            return self._away_from_failures(question, start, failures)
        return self._independent_sampler.sample_independent(
            question.study, question.trial, question.name, question.distribution
        )

    def _away_from_failures(self, question: Question, value: Any, failures: int) -> Any:
        """Return the value, or another one where nothing has fitted and the first has had its second try."""
        if failures < MAX_FAILURES:
            return value
        role = self._reader.role_of(question.name, question.distribution)
        times, tried = failures - MAX_FAILURES + 1, self._tried(question)
        return retreat.retreat(question.distribution, value, times, self._stream(question), role, tried)

    def _tried(self, question: Question) -> list[Any]:
        """Return the values that trials have had where no size can get smaller: one more would be the same again."""
        trials = read_trials(question.study)
        known = [(distribution, t.params[name]) for t in trials for name, distribution in self._reader.sizes(t)]
        if not all(retreat.is_smallest(d, value) for d, value in known if parameters.bounds_of(d) is not None):
            return []
        values = (t.params[question.name] for t in trials if question.name in t.params)
        return [parameters.as_choice(question.distribution, value) for value in values]

    def _draw(self, question: Question) -> Any:
        role = self._reader.role_of(question.name, question.distribution)
        return retreat.draw(question.name, question.distribution, self._stream(question), role)

    def _stream(self, question: Question) -> np.random.Generator:
        return np.random.default_rng([self._seed, question.trial.number, crc32(question.name.encode())])


def _beside(distribution: BaseDistribution, value: Any, rng: np.random.Generator) -> Any:
    """Return a number within a quarter of its range beside a value; words and lists as they are."""
    if not isinstance(distribution, FloatDistribution | IntDistribution) or distribution.single():
        return value
    share = parameters.share_of(distribution, float(value)) + rng.uniform(-BESIDE, BESIDE)
    return parameters.fit(distribution, parameters.at_share(distribution, min(max(share, 0.0), 1.0)))


def _fit_any(name: str, distribution: BaseDistribution, value: Any) -> Any:
    value = parameters.as_choice(distribution, value)
    if parameters.allows(distribution, value):
        return value
    if isinstance(value, int | float):
        return parameters.fit(distribution, value)
    return parameters.start_of(name, distribution)


def _follow(
    trial: FrozenTrial, name: str, distribution: BaseDistribution, leader: str, like: FrozenTrial | None
) -> Any:
    """Return a second learning rate: it keeps its ratio to the first, that of the trial `like` or of the starts."""
    of_leader = trial.distributions[leader]
    if like is not None and name in like.params and leader in like.params:
        own, first = _rate(name, distribution, like), _rate(leader, of_leader, like)
    else:
        own, first = _first_rate(name, distribution), _first_rate(leader, of_leader)
    now = _rate(leader, of_leader, trial)
    return parameters.fit_in_role("lr", name, distribution, own * now / first if first > 0 else own)


def _rate(name: str, distribution: BaseDistribution, trial: FrozenTrial) -> float:
    return float(parameters.value_in_role("lr", name, distribution, trial.params[name]))


def _first_rate(name: str, distribution: BaseDistribution) -> float:
    bounds = parameters.bounds_in_role("lr", name, distribution)
    assert bounds is not None
    return default_of("lr", bounds)
