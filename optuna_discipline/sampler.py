"""The discipline as an Optuna sampler: read the study, ask the recipe, answer in the trial's own bounds.

A little longer than most files, to keep the hooks and the one decision behind them together.
"""

import contextlib
import dataclasses
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from functools import partial
from typing import Any
from typing import Final
from zlib import crc32

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from optuna_discipline import claims
from optuna_discipline import parameters
from optuna_discipline import refinement
from optuna_discipline import retreat
from optuna_discipline import study_record
from optuna_discipline import suggestion
from optuna_discipline import trial_record
from optuna_discipline.exceptions import UnsupportedStudyError
from optuna_discipline.rules.arguments import check_type
from optuna_discipline.rules.arguments import to_int
from optuna_discipline.rules.failures import all_in_vain
from optuna_discipline.rules.failures import can_be_smaller
from optuna_discipline.rules.failures import failures_so_far
from optuna_discipline.rules.failures import since_the_first_training
from optuna_discipline.rules.model_box import LR_BOX
from optuna_discipline.rules.range_test import RangeTest
from optuna_discipline.rules.recipe import Recipe
from optuna_discipline.rules.recipe import next_params
from optuna_discipline.rules.role_names import is_cyclical
from optuna_discipline.rules.run import MODEL_SLOT
from optuna_discipline.rules.run import Proposal
from optuna_discipline.rules.run import Run
from optuna_discipline.rules.slots import MAX_FAILURES
from optuna_discipline.rules.slots import at_equal_time
from optuna_discipline.rules.space import default_of
from optuna_discipline.rules.stages import Search
from optuna_discipline.study_reader import StudyReader
from optuna_discipline.study_reader import asked_distributions
from optuna_discipline.study_reader import read_trials

ENQUEUED: Final = "enqueued"
RETREAT: Final = "smaller sizes and other words, because no trial could run"
APART: Final = "model-based search far from all that has not run"
BY_THE_USER: Final = "enqueued by the user"
BEGIN: Final = "where to begin: each parameter at its usual value or in its middle"


class DisciplinedSampler(BaseSampler):
    """Leslie Smith's discipline as a sampler (arXiv 1803.09820): one stage after another, each in a few short runs.

    Parameters are recognised by name (`lr`, `momentum`, `weight_decay`, `batch_size`, `epochs` and their usual other
    names, also those of a group, an optimizer or a part of the network, such as `optimizer.lr`, `sgd_momentum`,
    `lr_head`) or by `roles`; any other parameter is held at its best known value during the stages and searched
    together with them in the refinement, where it exists. A second learning rate of a trial keeps its ratio to the
    first during the stages. An integer parameter in the role `epochs` lets the stages use short complete cycles; its
    upper bound is the full length. With `Recipe(short=1)`, the default, the refinement searches the length as well: if
    the best full run's reports end above their lowest, or, from 8 runs on, where it reports nothing. The study is the
    only memory: any number of workers may share it, stop and go on, and the same history gives the same next stage.

    The objective finds `stage` and `reason` in `trial.user_attrs`. If it reports every epoch (`trial.report`, or a
    `TrialReporter`), the curve of a run says on which side of its learning rate to look next.

    Args:
        recipe: The stages and their settings.
        range_test: An LR range test, or a function that runs one (called once, by the first worker that lives, and
            kept on the study). It gives the ladder its start and its ceiling.
        roles: Roles of parameters with other names, such as `{"alpha": "weight_decay"}`; None takes a role away.
        refine_sampler: What models the refinement, and all of a study without any role; by default our own Gaussian
            process, from 20 runs on in turn with GPSampler (TPESampler without torch).
        independent_sampler: What samples parameters that no trial has had yet; by default numbers begin in their middle
            (a dropout at 0.1, a width at three quarters), words at the first, and elsewhere after failures only.
        seed: Seed of the sampler; every trial draws from its own stream, so workers do not disturb each other.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If `roles` names an unknown role.

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
        if range_test is not None and not isinstance(range_test, RangeTest) and not callable(range_test):
            raise TypeError(f"`range_test` must be a RangeTest or a function that returns one, but got {range_test!r}.")
        number = to_int(seed)
        if seed is not None and (number is None or number < 0):
            raise ValueError(f"`seed` must be a non-negative integer or None, but got {seed!r}.")
        self._recipe = recipe or Recipe()
        self._range_test = range_test
        self._reader = StudyReader(roles)
        self._roles = dict(roles or {})
        self._known_studies: set[str] = set()  # whose settings have been compared
        self._refine_sampler = refine_sampler
        self._independent_sampler = independent_sampler
        self._seed = number if number is not None else int(np.random.SeedSequence().generate_state(1)[0])

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
            claim = trial_record.read_claim(trial)
            if claim is not None and claim.get("number") == trial.number:  # called again on a live trial
                return
            if claim is not None and trial_record.RETRY_MARK in trial.system_attrs:
                claims.write_again(study, trial, claim)
                return
            if trial.number == 0 or study.study_name not in self._known_studies:
                study_record.keep_settings(study, {"recipe": dataclasses.asdict(self._recipe), "roles": self._roles})
                self._known_studies.add(study.study_name)
            if self._range_test is not None and self._whose_range_test(study, trial) == "mine":
                study_record.keep_range_test(study, trial, self._range_test)
            if self._reader.has_roles(read_trials(study)):
                self._decide(study, trial)
            elif "fixed_params" in trial.system_attrs:  # all of them may be: then nothing is asked
                trial_record.write_stage(study._storage, trial, ENQUEUED, BY_THE_USER)
        except BaseException:
            _fail(study, trial)
            raise

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return {} for a disciplined study: its trials are answered name by name, in their own bounds."""
        self._refuse_objectives(study)
        if not self._is_plain(study, trial):
            return {}
        if self._refine_sampler is not None:
            return self._refine_sampler.infer_relative_search_space(study, trial)
        known, _ = self._known_to(study, trial)
        return {name: distribution for name, distribution in known.items() if not distribution.single()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Ask what models the refinement in a study without any role; {} otherwise."""
        if not search_space:
            return {}
        if self._refine_sampler is not None:
            self._write_stage(study, trial, _asked_of(self._refine_sampler))
            return self._refine_sampler.sample_relative(study, trial, search_space)
        proposal = Search(self._recipe, self._known_to(study, trial)[1], {}, None).model()
        suggested, moves = self._model(study, trial, proposal)
        reason = APART if proposal.drawn and suggested else proposal.reason
        self._write_stage(study, trial, f"{reason}: {moves}" if moves else reason)
        # a sampler around this one may have fixed some
        return {name: value for name, value in suggested.items() if name in search_space}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Return the trial's value of one parameter, from the one decision that was made for it."""
        self._refuse_objectives(study)
        role = self._reader.role_in(study, param_name, param_distribution)
        claim = trial_record.read_claim(trial)
        if claim is None and role is not None:
            claim = self._decide(study, trial)
        if claim is None:
            return self._without_claim(study, trial, param_name, param_distribution)
        if claim.get("drawn") and role != "epochs" and (role is not None or self._independent_sampler is None):
            return self._draw(trial, param_name, param_distribution)
        if param_name in claim.get("suggested", {}):
            return _fit_any(param_name, param_distribution, claim["suggested"][param_name])
        if role is not None:
            bounds = parameters.bounds_in_role(role, param_name, param_distribution)
            assert bounds is not None
            proposal, like = claims.proposal_of(claim), None
            if role == "lr":
                like = next((t for t in read_trials(study) if t.number == proposal.like), None)
                leader = self._reader.leader_of(param_name, param_distribution, trial)
                if leader is not None:
                    return parameters.follow(trial, param_name, param_distribution, leader, like)
                if (usual := parameters.usual_lr(trial.params)) is not None:
                    bounds = dataclasses.replace(bounds, start=usual)
            wish = proposal.value_of(role, bounds, study_record.read_choice(study))
            if like is not None and like.params and param_name not in like.params:
                wish = default_of(role, bounds)  # another optimizer's says nothing
            value = parameters.fit_in_role(role, param_name, param_distribution, wish)
            return self._away_from_failures(trial, param_name, param_distribution, value, claim.get("failures", 0))
        return self._held(study, trial, param_name, param_distribution, claim)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Write what the curve shows; pass the end on to the refine sampler of a study without roles.

        The reason is corrected where the objective asked in other bounds than before, or no longer for a parameter.
        """
        claim = trial_record.read_claim(trial)
        if claim is not None:
            trial_record.write_verdict(study._storage, trial)
            if state in (TrialState.COMPLETE, TrialState.PRUNED):
                self._say_what_ran(study, trial, claim)
        if self._refine_sampler is not None and self._is_plain(study, trial):
            self._refine_sampler.after_trial(study, trial, state, values)

    # ---- the decision --------------------------------------------------------------------------------------------

    def _decide(self, study: Study, trial: FrozenTrial) -> Mapping[str, Any]:
        """Decide what a trial runs, and claim it."""
        if "fixed_params" in trial.system_attrs:
            return claims.write(study, trial, self._enqueued(study))
        proposal = claims.uncontested(
            study,
            trial,
            partial(self._propose, study, trial),
            partial(self._propose_model, study, trial),
            partial(self._has_rival, study, trial),
            np.random.default_rng([self._seed, trial.number, crc32(b"claim")]),
        )
        suggested, moves = self._model(study, trial, proposal) if proposal.by_model else ({}, "")
        if proposal.learns and self._is_taken(study, trial, proposal, suggested):
            proposal = dataclasses.replace(proposal, learns=False)
            suggested, moves = self._model(study, trial, proposal)
        if proposal.slot == MODEL_SLOT and "lr" not in proposal.values and self._known_to(study, trial)[1]:
            proposal = self._blind(trial, proposal)
        if moves:
            proposal = dataclasses.replace(proposal, reason=f"{proposal.reason}: {moves}")
        retreats = proposal.failures >= MAX_FAILURES and not proposal.drawn
        if retreats and any(map(can_be_smaller, self._known_to(study, trial)[1])):
            proposal = dataclasses.replace(proposal, reason=f"{proposal.reason}; {RETREAT}")
        return claims.write(study, trial, proposal, suggested)

    def _is_taken(self, study: Study, trial: FrozenTrial, proposal: Proposal, suggested: Mapping[str, Any]) -> bool:
        """Whether another worker, who asked at the same moment, was given the same point: a sampler may not draw."""
        claims.write(study, trial, proposal, suggested, write_stage=False)
        under_way = (t for t in read_trials(study) if t.state == TrialState.RUNNING and t.number != trial.number)
        return any(refinement.suggested_to(other) == suggested for other in under_way)

    def _blind(self, trial: FrozenTrial, proposal: Proposal) -> Proposal:
        """Return the model's proposal where many begin at once and no trial has shown a parameter yet."""
        rng = np.random.default_rng([self._seed, trial.number, crc32(b"blind")])
        return dataclasses.replace(proposal, lr_multiple=float(np.exp(rng.uniform(*np.log(LR_BOX)))))

    def _propose(self, study: Study, trial: FrozenTrial, skip: int) -> Proposal:
        if self._range_test is not None and self._whose_range_test(study, trial) == "another's":
            return self._propose_model(study, trial, "model-based search while another worker runs the range test")
        known, runs = self._known_to(study, trial)
        choice = study_record.read_choice(study)
        return next_params(
            self._recipe_for(known),
            runs,
            space=self._reader.space(known),
            choice=choice,
            skip=skip,
            maximize=trial_record.sign_of(study) < 0,
        )

    def _propose_model(self, study: Study, trial: FrozenTrial, reason: str) -> Proposal:
        known, runs = self._known_to(study, trial)
        search = Search(self._recipe_for(known), runs, self._reader.space(known), study_record.read_choice(study))
        found = search.model()
        return dataclasses.replace(
            found, reason=found.reason if found.drawn else reason, failures=failures_so_far(runs)
        )

    def _known_to(self, study: Study, trial: FrozenTrial) -> tuple[dict[str, BaseDistribution], list[Run]]:
        """Return the parameters and the runs of all trials but the one that asks."""
        trials = read_trials(study)
        known = asked_distributions([t for t in trials if t.number != trial.number])
        return known, self._reader.runs(study, trials, except_for=trial.number)

    def _whose_range_test(self, study: Study, trial: FrozenTrial) -> study_record.RangeTestTurn:
        return study_record.whose_range_test(study, trial.number, self._known_to(study, trial)[1])

    def _has_rival(self, study: Study, trial: FrozenTrial, slot: str) -> bool:
        # a rival may have claimed and finished since the proposal was made; a dead one is none
        runs = since_the_first_training(self._known_to(study, trial)[1])
        return any(run.slot == slot and run.state != "failed" for run in runs)

    def _enqueued(self, study: Study) -> Proposal:
        """Return the proposal of an enqueued trial: its open parameters take the best known values."""
        trials = read_trials(study)
        known = asked_distributions(trials)
        runs = self._reader.runs(study, trials)
        recipe = Recipe(stages=("refine",), short=self._recipe.short)
        space, choice = self._reader.space(known), study_record.read_choice(study)
        wish = next_params(recipe, runs, space=space, choice=choice)
        return dataclasses.replace(wish, stage=ENQUEUED, slot=ENQUEUED, reason=BY_THE_USER)

    def _model(self, study: Study, trial: FrozenTrial, proposal: Proposal) -> tuple[dict[str, Any], str]:
        """Return the refinement's suggestion and what it changes in words, empty while there is nothing to model."""
        trials = read_trials(study)
        space = asked_distributions([t for t in trials if t.number != trial.number])
        seed = int(np.random.default_rng([self._seed, trial.number, crc32(b"model")]).integers(2**31))
        roles = self._reader.roles(space)
        suggested = refinement.refine(
            self._refine_sampler or (suggestion.default_refine_sampler(seed) if proposal.learns else seed),
            trials,
            at_equal_time(self._reader.runs(study, trials, except_for=trial.number)),
            space,
            roles,
            proposal.box,
            coupled=None if self._recipe_for(space).cyclical_momentum else proposal.values.get("momentum"),
            free=proposal.free or None,
            any_length=proposal.any_length,
        )
        return suggested, self._moves(suggested, trials, proposal.like, proposal.stage)

    def _moves(self, params: Mapping[str, Any], trials: Sequence[FrozenTrial], like: int | None, stage: str) -> str:
        known = next((trial.distributions for trial in trials if trial.number == like), {})
        return refinement.describe_moves(params, trials, like, self._reader.roles(known), stage)

    def _say_what_ran(self, study: Study, trial: FrozenTrial, claim: Mapping[str, Any]) -> None:
        """Let a reason that names suggested values name what was run; what was not asked for is left out."""
        suggested, reason = claim.get("suggested", {}), trial.user_attrs.get(trial_record.REASON_KEY, "")
        ran = {name: trial.params[name] for name in suggested if name in trial.params}
        if ran == suggested:
            return
        trials = read_trials(study)
        said, true = (self._moves(params, trials, claim["like"], claim["stage"]) for params in (suggested, ran))
        corrected = reason.replace(f": {said}", f": {true}" if true else "") if said else reason
        if corrected != reason:
            trial_record.write_stage(study._storage, trial, claim["stage"], corrected)

    def _is_plain(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether another trial has shown parameters, and none has a role."""
        trials = read_trials(study)
        shown = any(t.distributions for t in trials if t.number != trial.number or t.state.is_finished())
        return shown and not self._reader.has_roles(trials)

    def _write_stage(self, study: Study, trial: FrozenTrial, reason: str) -> None:
        """Say what a trial of a study without roles is for; one that the user has enqueued keeps his reason."""
        if "fixed_params" not in trial.system_attrs:
            trial_record.write_stage(study._storage, trial, "refine", reason)

    def _recipe_for(self, known: Mapping[str, BaseDistribution]) -> Recipe:
        """Return the recipe with what the parameter's name says about momentum."""
        if self._recipe.cyclical_momentum is not None:
            return self._recipe
        name = next((n for n, d in known.items() if self._reader.role_of(n, d) == "momentum"), "momentum")
        return dataclasses.replace(self._recipe, cyclical_momentum=is_cyclical(name))

    # ---- parameters without a role -------------------------------------------------------------------------------

    def _held(
        self, study: Study, trial: FrozenTrial, name: str, distribution: BaseDistribution, claim: Mapping[str, Any]
    ) -> Any:
        """Return the value of the run that the stage builds on, else of the first run, else its start."""
        if claim["slot"] == MODEL_SLOT:
            return self._begin(study, trial, name, distribution, claim.get("failures", 0))
        trials = read_trials(study)
        earlier = [t for t in trials if name in t.params and t.state == TrialState.COMPLETE]
        like = next((t for t in earlier if t.number == claim.get("like")), None)
        if like is None and earlier:
            runs = self._reader.runs(study, trials, except_for=trial.number)
            trained = {run.number for run in runs if run.trained}
            like = next((t for t in earlier if t.number in trained), None)
        if like is not None and parameters.allows(distribution, like.params[name]):
            return like.params[name]
        return self._begin(study, trial, name, distribution, claim.get("failures", 0))

    def _without_claim(self, study: Study, trial: FrozenTrial, name: str, distribution: BaseDistribution) -> Any:
        asked = self._refine_sampler if self._is_plain(study, trial) else None
        if trial_record.STAGE_KEY not in trial.user_attrs:
            trial_record.write_stage(study._storage, trial, "refine", BEGIN if asked is None else _asked_of(asked))
        if asked is not None:
            return asked.sample_independent(study, trial, name, distribution)
        runs = self._known_to(study, trial)[1] if trial.number else []
        if self._independent_sampler is None and all_in_vain(runs):
            return self._draw(trial, name, distribution)
        failures = failures_so_far(runs)
        value = self._begin(study, trial, name, distribution, failures)
        before = (other for other in read_trials(study) if other.number < trial.number)
        if self._independent_sampler is None and any(other.state == TrialState.RUNNING for other in before):
            return parameters.beside(distribution, value, self._stream(trial, name))  # many begin at once
        return value

    def _begin(self, study: Study, trial: FrozenTrial, name: str, distribution: BaseDistribution, failures: int) -> Any:
        if self._independent_sampler is None or trial.number == 0:
            start = parameters.start_of(name, distribution)
            return self._away_from_failures(trial, name, distribution, start, failures)
        return self._independent_sampler.sample_independent(study, trial, name, distribution)

    def _away_from_failures(
        self, trial: FrozenTrial, name: str, distribution: BaseDistribution, value: Any, failures: int
    ) -> Any:
        """Return the value, or another one where nothing has trained and the first has had its second try."""
        if failures < MAX_FAILURES:
            return value
        rng, role = self._stream(trial, name), self._reader.role_of(name, distribution)
        return retreat.retreat(distribution, value, failures - MAX_FAILURES + 1, rng, role)

    def _draw(self, trial: FrozenTrial, name: str, distribution: BaseDistribution) -> Any:
        role = self._reader.role_of(name, distribution)
        return retreat.draw(name, distribution, self._stream(trial, name), role)

    def _stream(self, trial: FrozenTrial, name: str) -> np.random.Generator:
        return np.random.default_rng([self._seed, trial.number, crc32(name.encode())])

    def _refuse_objectives(self, study: Study) -> None:
        if len(study.directions) > 1:
            raise UnsupportedStudyError(
                f"DisciplinedSampler ranks runs by one objective, but the study has {len(study.directions)}: "
                "optimise one, or use NSGAIISampler."
            )


def _asked_of(sampler: BaseSampler) -> str:
    return f"asked of {type(sampler).__name__}"


def _fit_any(name: str, distribution: BaseDistribution, value: Any) -> Any:
    if parameters.allows(distribution, value):
        return value
    if isinstance(value, int | float):
        return parameters.fit(distribution, value)
    return parameters.start_of(name, distribution)


def _fail(study: Study, trial: FrozenTrial) -> None:
    """Fail the trial of an exception in `before_trial`; Optuna would leave it running for ever."""
    if not trial.state.is_finished():
        with contextlib.suppress(Exception):  # a storage that is gone cannot be told; the first error says why
            study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
