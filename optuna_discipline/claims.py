"""The claim of a trial: what it is to run, written before it runs, so that no candidate runs twice."""

import dataclasses
import time
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any
from typing import Final

import numpy as np
import optuna
from optuna.study import Study
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from optuna_discipline import trial_record
from optuna_discipline.rules.run import MODEL_SLOT
from optuna_discipline.rules.run import Proposal
from optuna_discipline.study_reader import read_trials

CLAIM_ATTEMPTS, BACKOFF_SECONDS = 8, 0.01
AGAIN: Final = "; again, since trial "
_logger = optuna.logging.get_logger(f"optuna.{__name__}")


def write(
    study: Study,
    trial: FrozenTrial,
    proposal: Proposal,
    suggested: Mapping[str, Any] | None = None,
    *,
    write_stage: bool = True,
) -> Mapping[str, Any]:
    """Write what a trial runs, and return it as it is stored.

    Args:
        study: The study.
        trial: Whose claim it is.
        proposal: What it runs.
        suggested: Values that the model chose, by name.
        write_stage: Whether to tell people and the objective, too; not while a rival may still have it.
    """
    claim = {**dataclasses.asdict(proposal), "number": trial.number, "suggested": dict(suggested or {})}
    stored = trial_record.write_claim(study._storage, trial, claim)
    if write_stage:
        _tell(study, trial, proposal.stage, proposal.reason)
    return stored


def _tell(study: Study, trial: FrozenTrial, stage: str, reason: str) -> None:
    trial_record.write_stage(study._storage, trial, stage, reason)
    _logger.info(f"Trial {trial.number}, stage {stage}: {reason}.")


def proposal_of(claim: Mapping[str, Any]) -> Proposal:
    """Return what a claim says to run."""
    fields = {f.name for f in dataclasses.fields(Proposal)}
    return Proposal(**{key: value for key, value in claim.items() if key in fields})


def write_again(study: Study, trial: FrozenTrial, claim: Mapping[str, Any]) -> None:
    """Keep what a retried trial inherits: its parameters are those of the failed one, and so is what it answers."""
    proposal = proposal_of(claim)
    write(study, trial, proposal, claim.get("suggested", {}), write_stage=False)
    # after the claim, which says what was told of the former attempt
    _tell(study, trial, proposal.stage, _again(trial, proposal.reason))


def reason_so_far(trial: FrozenTrial, first: str) -> str:
    """Return why a trial that claims nothing has the parameters that it holds as it begins; `first` without any."""
    reason = trial_record.reason_of(trial)
    if not trial.params or reason in ("", first):
        return first
    return _again(trial, reason) if trial_record.RETRY_MARK in trial.system_attrs else reason


def _again(trial: FrozenTrial, reason: str) -> str:
    return reason.split(AGAIN)[0] + f"{AGAIN}{trial.system_attrs[trial_record.RETRY_MARK]} failed"


def uncontested(
    study: Study,
    trial: FrozenTrial,
    propose: Callable[[int], Proposal],
    give_way: Callable[[str], Proposal],
    has_rival: Callable[[str], bool],
    rng: np.random.Generator,
) -> Proposal:
    """Choose, claim, look again: who sees a rival on the same slot gives way, so no slot runs twice.

    Args:
        study: The study.
        trial: Who asks.
        propose: Returns what is open, without so many of the most wanted.
        give_way: Returns the model's proposal, which nobody contests, for this reason.
        has_rival: Whether another trial has claimed a slot.
        rng: Draws how long to wait.
    """
    proposal = propose(0)
    for attempt in range(CLAIM_ATTEMPTS):
        if proposal.slot == MODEL_SLOT:
            return proposal
        write(study, trial, proposal, write_stage=False)
        if not has_rival(proposal.slot):
            return proposal
        # Who gives way lets go at once, or the rival would see him and give way as well. Rivals in step would do so
        # until the attempts are over: 16 of 60 on Redis, 2 workers.
        write(study, trial, give_way("between two claims"), write_stage=False)
        time.sleep(rng.uniform(0, BACKOFF_SECONDS * 2**attempt))
        proposal = propose(int(rng.integers(1, 1000)))
    return proposal if proposal.slot == MODEL_SLOT else give_way("while others hold what is open")


def is_taken(study: Study, trial: FrozenTrial, proposal: Proposal, suggested: Mapping[str, Any]) -> bool:
    """Whether another worker, who asked at the same moment, was given the same point: a sampler may not draw.

    What had ended when this trial began is no such: it is the model's to repeat.
    """
    own = write(study, trial, proposal, suggested, write_stage=False)["suggested"]
    start = trial.datetime_start
    for other in read_trials(study):
        if other.number == trial.number or other.state in (TrialState.FAIL, TrialState.WAITING):
            continue
        end = other.datetime_complete
        is_known = start is not None and end is not None and end <= start
        if not is_known and (trial_record.read_claim(other) or {}).get("suggested", {}) == own:
            return True
    return False
