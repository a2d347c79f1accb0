"""The discipline as an Optuna sampler: its hooks, in the order of a trial."""

import contextlib
import dataclasses
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from optuna_discipline import claims
from optuna_discipline import enqueued
from optuna_discipline import retries
from optuna_discipline import study_record
from optuna_discipline import trial_record
from optuna_discipline.answers import Answers
from optuna_discipline.answers import Question
from optuna_discipline.decision import BEGIN
from optuna_discipline.decision import BY_THE_USER
from optuna_discipline.decision import ENQUEUED
from optuna_discipline.decision import NOTHING
from optuna_discipline.decision import Decision
from optuna_discipline.exceptions import UnsupportedStudyError
from optuna_discipline.rules.arguments import check_type
from optuna_discipline.rules.arguments import to_int
from optuna_discipline.rules.range_test import RangeTest
from optuna_discipline.rules.recipe import Recipe
from optuna_discipline.study_reader import StudyReader
from optuna_discipline.study_reader import read_trials

# They keep what they know on the study's own trials, or list all configurations in its own units.
_NEED_THE_STUDY = (
    optuna.samplers.CmaEsSampler,
    optuna.samplers.NSGAIISampler,
    optuna.samplers.NSGAIIISampler,
    optuna.samplers.QMCSampler,
    optuna.samplers.GridSampler,
    optuna.samplers.BruteForceSampler,
)


class DisciplinedSampler(BaseSampler):
    """Leslie Smith's discipline as a sampler (arXiv 1803.09820): one stage after another, each in a few runs.

    Parameters are recognised by name (`lr`, `momentum`, `weight_decay`, `batch_size`, `epochs` and their usual other
    names, also those of a group, an optimizer or a part of the network, such as `optimizer.lr`, `sgd_momentum`,
    `lr_head`) or by `roles`; any other parameter is held at its best known value during the stages and searched
    together with them in the refinement, where it exists. A seed is no setting and is held. A second learning rate of a
    trial keeps its ratio to the first during the stages, a second momentum, weight decay or batch size is held like
    what has no role; the model moves them apart. The upper bound of an integer parameter in the role `epochs` is the
    full length, at which every stage trains (`Recipe(short=0.25)`: in short complete cycles); the refinement searches
    the length as well if the best run's reports end above their lowest, or, from 8 runs on, where it reports nothing.
    The study is the only memory: any number of workers may share it, stop and go on, and the same history gives the
    same next stage.

    The objective finds `stage` and `reason` in `trial.user_attrs`. If it reports every epoch (`trial.report`, or a
    `TrialReporter`), the curve of a run says on which side of its learning rate to look next. Folds of a
    cross-validation are no epochs: report none of them.

    Args:
        recipe: The stages and their settings.
        range_test: An LR range test, or a function that runs one (called once, by the first worker that lives, and
            kept on the study). It gives the ladder its start and its ceiling.
        roles: Roles of parameters with other names, such as `{"alpha": "weight_decay"}`; None takes a role away.
        refine_sampler: What models the refinement, and all of a study without any role, from the parameters and values
            of runs alone, as GPSampler, TPESampler and RandomSampler do; by default our own Gaussian process, from 20
            runs on in turn with GPSampler (TPESampler without torch).
        independent_sampler: What samples parameters that no trial has had yet; by default numbers begin in their middle
            (a dropout at 0.1, a width at three quarters), words at the first, and elsewhere after failures only.
        seed: Seed of the sampler; every trial draws from its own stream, so workers do not disturb each other.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If `roles` names an unknown role, or `refine_sampler` needs more than parameters and values.

    Example:
        >>> import optuna
        >>> from optuna_discipline import DisciplinedSampler
        >>> optuna.logging.set_verbosity(optuna.logging.WARNING)
        >>> study = optuna.create_study(sampler=DisciplinedSampler(seed=0))
        >>> study.optimize(lambda trial: abs(trial.suggest_float("lr", 1e-5, 10, log=True) - 0.3), n_trials=4)
        >>> study.best_value < 0.25
        True
    """

    def __init__(
        self,
        recipe: Recipe | None = None,
        *,
        range_test: RangeTest | Callable[[], RangeTest] | None = None,
        roles: Mapping[str, str | None] | None = None,
        refine_sampler: BaseSampler | None = None,
        independent_sampler: BaseSampler | None = None,
        seed: int | None = None,
    ) -> None:
        for name, value, kind in (
            ("recipe", recipe, Recipe),
            ("refine_sampler", refine_sampler, BaseSampler),
            ("independent_sampler", independent_sampler, BaseSampler),
        ):
            if value is not None:
                check_type(name, value, kind)
        _refuse_more_than_values(refine_sampler)
        if range_test is not None and not isinstance(range_test, RangeTest) and not callable(range_test):
            raise TypeError(f"`range_test` must be a RangeTest or a function that returns one, but got {range_test!r}.")
        number = to_int(seed)
        if seed is not None and (number is None or number < 0):
            raise ValueError(f"`seed` must be a non-negative integer or None, but got {seed!r}.")
        self._recipe = recipe or Recipe()
        self._reader = StudyReader(roles)
        self._roles = dict(roles or {})
        self._known_studies: set[str] = set()  # whose settings have been compared
        self._shown_studies: set[str] = set()  # of which a trial was complete
        self._asked: dict[tuple[str, trial_record.Identity], set[str]] = {}  # by the trials under way that began here
        self._refine_sampler = refine_sampler
        self._independent_sampler = independent_sampler
        seed = number if number is not None else int(np.random.SeedSequence().generate_state(1)[0])
        self._decision = Decision(self._recipe, range_test, self._reader, refine_sampler, seed)
        self._answers = Answers(self._reader, independent_sampler, seed)

    def reseed_rng(self) -> None:
        """Reseed the samplers that are asked; the discipline itself draws by trial number."""
        for sampler in (self._independent_sampler, self._refine_sampler):
            if sampler is not None:
                sampler.reseed_rng()

    # ---- Optuna's hooks, in the order of a trial ----------------------------------------------------------------

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Decide what the trial runs, as far as earlier trials have shown what there is to decide.

        Raises:
            UnsupportedStudyError: If the study has several objectives; the trial is failed first.
        """
        try:
            self._refuse_objectives(study)
            self._asked.setdefault(_key(study, trial), set())
            retries.keep_inherited(study._storage, trial)
            claim = trial_record.read_claim(trial)
            if claim is not None and claim.get("number") == trial.number:  # called again on a live trial
                return
            if claim is not None and trial_record.RETRY_MARK in trial.system_attrs:
                claims.write_again(study, trial, claim)
                return
            if trial.number == 0 or study.study_name not in self._known_studies:
                study_record.keep_settings(study, {"recipe": dataclasses.asdict(self._recipe), "roles": self._roles})
                self._known_studies.add(study.study_name)
            self._decision.keep_range_test(study, trial)
            if self._reader.has_roles(read_trials(study)):
                self._decision.decide(study, trial)
            elif enqueued.values_of(trial):  # all of them may be: then nothing is asked
                trial_record.write_stage(study._storage, trial, ENQUEUED, BY_THE_USER)
            else:  # the objective may read it before it asks, or never ask
                trial_record.write_stage(study._storage, trial, "refine", claims.reason_so_far(trial, NOTHING))
        except BaseException:
            _fail(study, trial)
            raise

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return {} for a disciplined study: its trials are answered name by name, in their own bounds."""
        self._refuse_objectives(study)
        if not self._is_plain(study, trial):
            return {}
        if self._refine_sampler is not None:
            return self._reader.settings(self._refine_sampler.infer_relative_search_space(study, trial))
        known, _ = self._decision.known_to(study, trial)
        return {name: distribution for name, distribution in known.items() if not distribution.single()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Ask what models the refinement in a study without any role; {} otherwise."""
        if not search_space:
            return {}
        if self._refine_sampler is not None:
            self._write_stage(study, trial, _reason_of(self._refine_sampler))
            return self._refine_sampler.sample_relative(study, trial, search_space)
        suggested, reason = self._decision.of_plain(study, trial, search_space)  # one around this may have fixed some
        self._write_stage(study, trial, reason)
        return suggested

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Return the trial's value of one parameter, from the one decision that was made for it."""
        self._refuse_objectives(study)
        self._asked.get(_key(study, trial), set()).add(param_name)
        question = Question(study, trial, param_name, param_distribution)
        if self._reader.is_seed(param_name, param_distribution):
            return self._answers.of_seed(question)
        role = self._reader.role_in(study, param_name, param_distribution)
        claim = trial_record.read_claim(trial)
        if claim is None and role is not None:
            claim = self._decision.decide(study, trial, {param_name: param_distribution})
        return self._without_claim(question) if claim is None else self._answers.answer(question, claim, role)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Write what the curve shows; pass the end on to the refine sampler of a study without roles.

        The reason is corrected where the objective asked in other bounds than before, or no longer for a parameter.
        """
        claim, asked = trial_record.read_claim(trial), self._asked.pop(_key(study, trial), set())
        ended = state in (TrialState.COMPLETE, TrialState.PRUNED)
        if claim is not None:
            trial_record.write_verdict(study._storage, trial)
            self._decision.take_back_retreat(study, trial)
            if ended:
                self._decision.say_what_ran(study, trial, self._keep_what_is_held(study, trial, claim, asked), values)
        elif ended:
            self._decision.say_what_ran_without_roles(study, trial)
        if ended and enqueued.asked_for_none(trial):
            said = f"{trial_record.reason_of(trial)}; nothing asks for {', '.join(enqueued.values_of(trial))}"
            trial_record.write_stage(study._storage, trial, ENQUEUED, said)
        if state == TrialState.COMPLETE and study.study_name not in self._shown_studies:
            self._shown_studies.add(study.study_name)
            study_record.warn_of_idle_roles(study, trial, self._roles)
        if self._refine_sampler is not None and self._is_plain(study, trial):
            self._refine_sampler.after_trial(study, trial, state, values)

    def _keep_what_is_held(
        self, study: Study, trial: FrozenTrial, claim: Mapping[str, Any], asked: Collection[str]
    ) -> Mapping[str, Any]:
        """Write what a sampler around this one sets, which nothing asks for here, and what is asked for again."""
        if not asked:
            return claim  # the objective has asked elsewhere, if at all
        bound = {name for name in claim.get("bound", ()) if name in trial.params}
        roles = self._reader.roles({n: d for n, d in trial.distributions.items() if not d.single()})
        wished = roles.keys() | bound | (claim.get("suggested", {}).keys() & trial.params.keys())
        others = wished - set(asked) - enqueued.values_of(trial).keys()
        held = [name for name in sorted(others) if name in bound or self._wished_else(study, trial, claim, name)]
        freed = sorted(bound.intersection(asked))
        found = {"held": held, "freed": freed} if held or freed else {}
        return trial_record.write_claim(study._storage, trial, {**claim, **found})

    def _wished_else(self, study: Study, trial: FrozenTrial, claim: Mapping[str, Any], name: str) -> bool:
        question = Question(study, trial, name, trial.distributions[name])
        role = self._reader.role_of(name, question.distribution)
        return bool(self._answers.answer(question, claim, role) != trial.params[name])

    def _is_plain(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether another trial has shown parameters, and none has a role."""
        trials = read_trials(study)
        shown = any(t.distributions for t in trials if t.number != trial.number or t.state.is_finished())
        return shown and not self._reader.has_roles(trials)

    def _write_stage(self, study: Study, trial: FrozenTrial, reason: str) -> None:
        """Say what a trial of a study without roles is for; one that the user has enqueued keeps his reason."""
        if not enqueued.values_of(trial):
            trial_record.write_stage(study._storage, trial, "refine", reason)

    def _without_claim(self, question: Question) -> Any:
        study, trial = question.study, question.trial
        model = self._refine_sampler if self._is_plain(study, trial) else None
        if trial_record.reason_of(trial) == NOTHING:
            trial_record.write_stage(study._storage, trial, "refine", BEGIN if model is None else _reason_of(model))
        if model is not None:
            return model.sample_independent(study, trial, question.name, question.distribution)
        runs = self._decision.known_to(study, trial)[1] if trial.number else []
        return self._answers.before_a_claim(question, runs)

    def _refuse_objectives(self, study: Study) -> None:
        if len(study.directions) > 1:
            raise UnsupportedStudyError(
                f"DisciplinedSampler ranks runs by one objective, but the study has {len(study.directions)}: "
                "optimise one, or use NSGAIISampler."
            )


def _refuse_more_than_values(sampler: BaseSampler | None) -> None:
    """Refuse a refine sampler that would not model what it is shown: parameters in other units, values, no trials."""
    fixes = isinstance(sampler, optuna.samplers.PartialFixedSampler)
    if fixes or isinstance(sampler, (DisciplinedSampler, *_NEED_THE_STUDY)):
        cure = "put it around DisciplinedSampler" if fixes else "give it to the study itself"
        raise ValueError(
            "`refine_sampler` must choose from the parameters and values of runs alone, but got "
            f"{type(sampler).__name__}: take GPSampler, TPESampler or RandomSampler, or {cure}."
        )


def _key(study: Study, trial: FrozenTrial) -> tuple[str, trial_record.Identity]:
    return study.study_name, trial_record.identity_of(trial)


def _reason_of(sampler: BaseSampler) -> str:
    return f"asked of {type(sampler).__name__}"


def _fail(study: Study, trial: FrozenTrial) -> None:
    """Fail the trial of an exception in `before_trial`; Optuna would leave it running for ever."""
    if not trial.state.is_finished():
        with contextlib.suppress(Exception):  # a storage that is gone cannot be told; the first error says why
            study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
