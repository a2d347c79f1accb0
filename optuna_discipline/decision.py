"""The one decision behind a trial: read the study, ask the recipe, and the model where it says so; claim the answer."""

import dataclasses
import math
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

from optuna_discipline import claims
from optuna_discipline import enqueued
from optuna_discipline import parameters
from optuna_discipline import refinement
from optuna_discipline import shadow
from optuna_discipline import study_record
from optuna_discipline import trial_record
from optuna_discipline import what_ran
from optuna_discipline.rules.failures import can_be_smaller
from optuna_discipline.rules.failures import drawn_first
from optuna_discipline.rules.failures import failures_so_far
from optuna_discipline.rules.failures import those_that_count
from optuna_discipline.rules.failures import what_none_did
from optuna_discipline.rules.model_box import LR_BOX
from optuna_discipline.rules.range_test import RangeTest
from optuna_discipline.rules.recipe import Recipe
from optuna_discipline.rules.recipe import next_params
from optuna_discipline.rules.role_names import is_cyclical
from optuna_discipline.rules.run import MODEL_SLOT
from optuna_discipline.rules.run import Proposal
from optuna_discipline.rules.run import Run
from optuna_discipline.rules.search_state import SearchState
from optuna_discipline.rules.slots import MAX_FAILURES
from optuna_discipline.rules.slots import at_equal_time
from optuna_discipline.study_reader import StudyReader
from optuna_discipline.study_reader import asked_distributions
from optuna_discipline.study_reader import read_trials

BEGIN: Final = "where to begin: each parameter at its usual value or in its middle"
NOTHING: Final = "nothing to choose so far: no setting of more than one value"
ENQUEUED: Final = "enqueued"
RETREAT: Final = "smaller sizes and other words, because no trial"
APART: Final = "model-based search far from all that has not run"
BY_THE_USER: Final = "enqueued by the user"
RUN_ALREADY: Final = "with the best known values it has run already, so the model chooses the rest"


class Decision:
    """Decides what trials run, from what their study shows at that moment.

    Args:
        recipe: The stages.
        range_test: An LR range test, or what runs one; None without.
        reader: Reads the study by the roles.
        refine_sampler: What models the refinement, None for our own model.
        seed: Every trial draws from a stream of its own.
    """

    def __init__(
        self,
        recipe: Recipe,
        range_test: RangeTest | Callable[[], RangeTest] | None,
        reader: StudyReader,
        refine_sampler: BaseSampler | None,
        seed: int,
    ) -> None:
        self._recipe, self._range_test, self._reader = recipe, range_test, reader
        self._refine_sampler, self._seed = refine_sampler, seed

    def keep_range_test(self, study: Study, trial: FrozenTrial) -> None:
        """Run the range test, if there is one and it is this trial's turn."""
        if self._range_test is not None and self._whose_range_test(study, trial) == "mine":
            study_record.keep_range_test(study, trial, self._range_test)

    def decide(
        self, study: Study, trial: FrozenTrial, new: Mapping[str, BaseDistribution] | None = None
    ) -> Mapping[str, Any]:
        """Decide what a trial runs, and claim it; `new` is the first parameter with a role, where there was none."""
        if enqueued.values_of(trial):
            return claims.write(study, trial, *self._enqueued(study, trial))
        if new is not None and self._is_chosen(study, trial):
            return claims.write(study, trial, *self._without_roles_so_far(study, trial))
        proposal = claims.uncontested(
            study,
            trial,
            partial(self.propose, study, trial, new=new),
            partial(self._propose_model, study, trial),
            partial(self._has_rival, study, trial),
            np.random.default_rng([self._seed, trial.number, crc32(b"claim")]),
        )
        suggested, moves = self.model(study, trial, proposal) if proposal.by_model else ({}, "")
        if proposal.learns and claims.is_taken(study, trial, proposal, suggested):
            proposal = dataclasses.replace(proposal, learns=False)
            suggested, moves = self.model(study, trial, proposal)
        if proposal.slot == MODEL_SLOT and "lr" not in proposal.values and self.known_to(study, trial)[1]:
            proposal = self._blind(trial, proposal)
        reason = f"{proposal.reason}: {moves}" if moves else proposal.reason
        retreats = proposal.failures >= MAX_FAILURES and not proposal.drawn and not suggested
        runs = self.known_to(study, trial)[1] if retreats else []
        if any(map(can_be_smaller, runs)):
            none = "has trained" if all(run.allowed for run in runs) else what_none_did(runs, "has ended well")
            reason += f"; {RETREAT} {none}"
        return claims.write(study, trial, dataclasses.replace(proposal, reason=reason), suggested)

    def _is_chosen(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether a search without roles has chosen what a trial runs, around what has trained."""
        told = trial_record.reason_of(trial)
        return told not in ("", BEGIN, NOTHING) and any(run.score < math.inf for run in self.known_to(study, trial)[1])

    def _without_roles_so_far(self, study: Study, trial: FrozenTrial) -> tuple[Proposal, Mapping[str, Any]]:
        """Return what a trial runs that asks for the study's first role: as it was chosen, it is like no other."""
        known, runs = self.known_to(study, trial)
        own = self._refine_sampler is None
        suggested, reason = self.of_plain(study, trial, known) if own else ({}, trial_record.reason_of(trial))
        return Proposal("refine", MODEL_SLOT, reason, like=self._search(study, known, runs).model().like), suggested

    def of_plain(
        self, study: Study, trial: FrozenTrial, search_space: Mapping[str, BaseDistribution]
    ) -> tuple[dict[str, Any], str]:
        """Return what a trial of a study without roles runs of a space by our own model, and why."""
        proposal = self._search(study, *self.known_to(study, trial)).model()
        suggested, moves = self.model(study, trial, proposal, search_space)
        reason = APART if proposal.drawn and suggested else proposal.reason
        return suggested, f"{reason}: {moves}" if moves else reason

    def _blind(self, trial: FrozenTrial, proposal: Proposal) -> Proposal:
        """Return the model's proposal where many begin at once and no trial has shown a parameter yet."""
        rng = np.random.default_rng([self._seed, trial.number, crc32(b"blind")])
        return dataclasses.replace(proposal, lr_multiple=float(np.exp(rng.uniform(*np.log(LR_BOX)))))

    def propose(
        self, study: Study, trial: FrozenTrial, skip: int, *, new: Mapping[str, BaseDistribution] | None = None
    ) -> Proposal:
        """Return what the recipe has open, without so many of the most wanted."""
        if self._range_test is not None and self._whose_range_test(study, trial) == "another's":
            return self._propose_model(study, trial, "while another worker runs the range test")
        known, runs, held = self._read(study, trial)
        if new is not None and any(run.finished for run in runs):
            known = {**known, **new}
        choice = study_record.read_choice(study)
        found = next_params(
            self._recipe_for(known),
            runs,
            space=self._reader.space(known),
            choice=choice,
            skip=skip,
            maximize=trial_record.sign_of(study) < 0,
        )
        return dataclasses.replace(found, bound=held)

    def _propose_model(self, study: Study, trial: FrozenTrial, why: str) -> Proposal:
        known, runs, held = self._read(study, trial)
        found = self._search(study, known, runs).model_meanwhile(why)
        return dataclasses.replace(found, failures=failures_so_far(runs), bound=held)

    def _search(self, study: Study, known: Mapping[str, BaseDistribution], runs: Sequence[Run]) -> SearchState:
        return SearchState(self._recipe_for(known), runs, self._reader.space(known), study_record.read_choice(study))

    def known_to(self, study: Study, trial: FrozenTrial) -> tuple[dict[str, BaseDistribution], list[Run]]:
        """Return the parameters and the runs of all trials but the one that asks; what others hold has one value.

        Seeds are left out: they are no settings.
        """
        return self._read(study, trial)[:2]

    def _read(self, study: Study, trial: FrozenTrial) -> tuple[dict[str, BaseDistribution], list[Run], dict[str, Any]]:
        """Return what is known to a trial, and what others hold."""
        trials = read_trials(study)
        before = [t for t in trials if t._trial_id != trial._trial_id]
        known = self._reader.settings(asked_distributions(before))
        held = {name: value for name, value in refinement.held_by_others(before).items() if name in known}
        known |= {name: parameters.single_at(known[name], value) for name, value in held.items()}
        return known, self._reader.runs(study, trials, except_for=trial.number), held

    def _whose_range_test(self, study: Study, trial: FrozenTrial) -> study_record.RangeTestTurn:
        return study_record.whose_range_test(study, trial.number, lambda: self.known_to(study, trial)[1])

    def _has_rival(self, study: Study, trial: FrozenTrial, slot: str) -> bool:
        # a rival may have claimed and finished since the proposal was made; a dead one is none
        trials = read_trials(study)
        claimed = (t for t in trials if trial_record.CLAIM_KEY in t.system_attrs and t.number != trial.number)
        if not any((trial_record.read_claim(t) or {}).get("slot") == slot for t in claimed):
            return False  # as nearly always
        runs = self._reader.runs(study, trials, except_for=trial.number)
        rivals = {run.number for run in runs if run.slot == slot and run.state != "failed"}
        return bool(rivals) and any(run.number in rivals for run in those_that_count(runs, drawn_first(runs)))

    def _enqueued(self, study: Study, trial: FrozenTrial) -> tuple[Proposal, Mapping[str, Any]]:
        """Return the proposal of an enqueued trial, whose open parameters take the best known values.

        If that has run already the model chooses them: what the study does not ask for makes no new configuration.
        """
        trials = read_trials(study)
        known = asked_distributions(trials)
        runs = self._reader.runs(study, trials)
        wish = dataclasses.replace(self._search(study, known, runs).model(), failures=failures_so_far(runs))
        proposal = dataclasses.replace(wish, stage=ENQUEUED, slot=ENQUEUED, reason=BY_THE_USER)
        given = {n: parameters.as_choice(known[n], x) for n, x in enqueued.values_of(trial).items() if n in known}
        like = next((t.params for t in trials if t.number == wish.like), {})
        lengths = {} if wish.any_length else self._full_lengths({n: known[n] for n in like if n in known})
        if not (wish.by_model and enqueued.has_run({**like, **lengths, **given}, trials)):
            return proposal, {}
        given_only = {name: parameters.single_at(known[name], value) for name, value in given.items()}
        suggested, moves = self.model(study, trial, wish, {**known, **given_only})
        reason = f"{BY_THE_USER}; {RUN_ALREADY}: {moves}" if suggested else BY_THE_USER
        return dataclasses.replace(proposal, reason=reason), suggested

    def _full_lengths(self, known: Mapping[str, BaseDistribution]) -> dict[str, Any]:
        return {n: parameters.fit(known[n], math.inf) for n, r in self._reader.roles(known).items() if r == "epochs"}

    def model(
        self,
        study: Study,
        trial: FrozenTrial,
        proposal: Proposal,
        search_space: Mapping[str, BaseDistribution] | None = None,
    ) -> tuple[dict[str, Any], str]:
        """Return the refinement's suggestion and what it changes in words, empty while there is nothing to model."""
        trials = read_trials(study)
        known, runs = self.known_to(study, trial)
        space = known if search_space is None else search_space
        seed = int(np.random.default_rng([self._seed, trial.number, crc32(b"model")]).integers(2**31))
        suggested = refinement.refine(
            self._refine_sampler or (shadow.default_refine_sampler(seed) if proposal.learns else seed),
            trials,
            at_equal_time(runs),
            space,
            self._reader.roles(space),
            proposal.box,
            coupled=None if self._recipe_for(space).cyclical_momentum else proposal.values.get("momentum"),
            free=proposal.free or None,
            any_length=proposal.any_length,
            redraw=seed if len(runs) % refinement.WORDS_TURN == 1 and not self._refine_sampler else None,
        )
        return suggested, self._moves(suggested, trials, proposal.like, proposal.stage)

    def _moves(self, params: Mapping[str, Any], trials: Sequence[FrozenTrial], like: int | None, stage: str) -> str:
        base = next((trial for trial in trials if trial.number == like), None)
        if base is None:
            return ""
        settings = self._reader.settings(parameters.known_distributions(trials))
        params = {name: value for name, value in params.items() if name in settings}
        return refinement.describe_moves(params, base, self._reader.roles(base.distributions), stage)

    def take_back_retreat(self, study: Study, trial: FrozenTrial) -> None:
        """Let a reason say nothing of other sizes and words where a trial has the first ones, or none yet."""
        told = trial_record.last_told(trial)
        if RETREAT not in told.get("reason", ""):
            return
        trials = read_trials(study)
        first = {name: next(t.params[name] for t in trials if name in t.params) for name in trial.params}
        if all(first[name] == trial.params[name] for name, _ in self._reader.sizes(trial)):
            trial_record.write_stage(study._storage, trial, told["stage"], told["reason"].partition(f"; {RETREAT}")[0])

    def say_what_ran(
        self, study: Study, trial: FrozenTrial, claim: Mapping[str, Any], values: Sequence[float] | None
    ) -> None:
        """Let a reason that names values, or a step of the ladder, name what was run, and what another sampler held."""
        reason = trial_record.last_told(trial).get("reason", "")
        stage, roles = claim["stage"], self._reader.roles(trial.distributions).values()
        lacks = what_ran.lacks(roles, values)
        corrected = what_ran.with_true_step(reason, trial, claim, self._reader) if stage == "lr" else reason
        if stage == "lr" and "lr" not in roles:
            begins = claim.get("like") is None
            stage, corrected = ("refine", BEGIN) if begins else (stage, f"{reason}; {lacks} learning rate")
        if claim.get("suggested"):
            trials, like = read_trials(study), claim["like"]
            suggested = refinement.suggested_to(trial, parameters.known_distributions(trials))
            ran = {name: trial.params[name] for name in (*suggested, *trial.params) if name in trial.params}
            said, true = (self._moves(params, trials, like, stage) for params in (suggested, ran))
            corrected = what_ran.with_moves(reason, said, true)
        if claim.get("free") and stage not in roles:
            corrected += f"; {lacks} {stage.replace('_', ' ')}"
        if held := {name: trial.params[name] for name in claim.get("held", ())}:
            corrected += f"; {refinement.describe_held(held)}"
        if corrected != reason:
            trial_record.write_stage(study._storage, trial, stage, corrected)

    def say_what_ran_without_roles(self, study: Study, trial: FrozenTrial) -> None:
        """Let a reason name of the model's moves those that were run, where no claim keeps what was suggested."""
        reason = trial_record.reason_of(trial)
        said, like = what_ran.moves_in(reason)
        if said:
            true = self._moves(trial.params, read_trials(study), like, "refine")
            trial_record.write_stage(study._storage, trial, "refine", what_ran.with_moves(reason, said, true))

    def _recipe_for(self, known: Mapping[str, BaseDistribution]) -> Recipe:
        """Return the recipe with what the parameter's name says about momentum."""
        if self._recipe.cyclical_momentum is not None:
            return self._recipe
        name = next((n for n, d in known.items() if self._reader.role_of(n, d) == "momentum"), "momentum")
        return dataclasses.replace(self._recipe, cyclical_momentum=is_cyclical(name))
