import json

import numpy as np
import optuna
import pytest
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from optuna_discipline import DisciplinedSampler
from optuna_discipline import claims
from optuna_discipline import trial_record
from optuna_discipline.rules.run import MODEL_SLOT
from optuna_discipline.rules.run import Proposal
from optuna_discipline.trial_record import read_claim
from tests.formulas import before_the_far_turn
from tests.test_trial_record import retry_of

RUNG = Proposal("lr", "lr0:2", "a rung", {"lr": 0.2}, box={"lr": (0.1, 0.4)}, like=3)
MODEL = Proposal("refine", MODEL_SLOT, "the model")


def _trial() -> tuple[optuna.Study, FrozenTrial]:
    study = optuna.create_study()
    study.ask()
    return study, study.trials[0]


def _stored(study: optuna.Study) -> FrozenTrial:
    return study.get_trials(deepcopy=True)[0]


def test_a_claim_is_read_as_the_proposal_that_it_was() -> None:
    study, trial = _trial()
    written = claims.write(study, trial, RUNG, {"width": 64})
    assert read_claim(_stored(study)) == written
    assert json.loads(json.dumps(written, allow_nan=False)) == written
    assert written["suggested"] == {"width": 64}
    assert claims.proposal_of(written) == Proposal(**{**RUNG.__dict__, "box": {"lr": [0.1, 0.4]}, "free": []})
    assert _stored(study).user_attrs == {"stage": "lr", "reason": "a rung"}


def test_a_claim_that_may_have_a_rival_is_not_told_to_people() -> None:
    study, trial = _trial()
    claims.write(study, trial, RUNG, write_stage=False)
    assert _stored(study).user_attrs == {}


def test_a_retried_trial_says_once_whom_it_repeats() -> None:
    study, trial = _trial()
    trial.system_attrs["failed_trial"] = 7
    for _ in range(2):
        claims.write_again(study, trial, claims.write(study, trial, RUNG, {"width": 64}))
        claims.write_again(study, trial, read_claim(_stored(study)) or {})
    assert _stored(study).user_attrs["reason"] == "a rung; again, since trial 7 failed"
    assert (read_claim(_stored(study)) or {})["suggested"] == {"width": 64}


def test_a_retry_in_a_study_without_roles_says_why_its_former_attempt_had_its_parameters() -> None:
    study = optuna.create_study(sampler=DisciplinedSampler(seed=0))
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    trial = study.ask()
    trial.suggest_float("x", 0, 1)
    reason = trial_record.reason_of(study.trials[2])
    for again in (3, 4):
        study.tell(trial, state=TrialState.FAIL)
        trial = retry_of(study, again - 1)
        trial.suggest_float("x", 0, 1)
        optuna.Trial(study, trial._trial_id)  # another look at a live trial
        assert trial_record.reason_of(study.trials[again]) == f"{reason}; again, since trial 2 failed"
        assert study.trials[again].user_attrs["reason"] == f"{reason}; again, since trial 2 failed"
    assert reason.startswith("model-based search")


def test_another_look_at_a_live_trial_of_a_study_without_roles_leaves_its_reason() -> None:
    study = optuna.create_study(sampler=DisciplinedSampler(seed=0))
    trial = study.ask()
    trial.suggest_float("x", 0, 1)
    optuna.Trial(study, trial._trial_id)
    assert study.trials[0].user_attrs["reason"].startswith("where to begin")


def test_a_retry_that_holds_no_parameters_yet_is_told_what_it_runs() -> None:
    study = optuna.create_study(sampler=DisciplinedSampler(seed=0))
    study.tell(study.ask(), state=TrialState.FAIL)
    trial = retry_of(study, 0)
    assert trial.user_attrs["reason"].startswith("nothing to choose so far")
    trial.suggest_float("x", 0, 1)
    assert study.trials[1].user_attrs["reason"].startswith("where to begin")


@pytest.mark.parametrize(
    ("rivals", "slot", "asked"),
    [([], "lr0:2", 1), ([True], "lr0:2", 2), ([True] * claims.CLAIM_ATTEMPTS, MODEL_SLOT, claims.CLAIM_ATTEMPTS + 1)],
)
def test_who_has_a_rival_lets_go_and_asks_again_but_not_for_ever(
    rivals: list[bool], slot: str, asked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, trial = _trial()
    held: list[str | None] = []
    monkeypatch.setattr("time.sleep", lambda _: held.append((read_claim(_stored(study)) or {}).get("slot")))
    skips: list[int] = []

    def propose(skip: int) -> Proposal:
        skips.append(skip)
        return RUNG

    waiting = list(rivals)
    chosen = claims.uncontested(
        study,
        trial,
        propose,
        lambda reason: Proposal("refine", MODEL_SLOT, reason),
        lambda _: waiting.pop(0) if waiting else False,
        np.random.default_rng(0),
    )
    assert chosen.slot == slot
    assert len(skips) == asked
    assert skips[0] == 0 < min(skips[1:], default=1)  # past the most wanted, or rivals would meet again
    assert held == [MODEL_SLOT] * len(rivals)


def test_the_models_proposal_has_no_rival() -> None:
    study, trial = _trial()

    def never(_: str) -> bool:
        raise AssertionError

    rng = np.random.default_rng(0)
    assert claims.uncontested(study, trial, lambda _: MODEL, lambda _: MODEL, never, rng) is MODEL
    assert read_claim(_stored(study)) is None


def test_of_two_workers_at_once_one_runs_the_far_turn_and_the_other_the_model_without_a_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    study = before_the_far_turn(monkeypatch)
    monkeypatch.setattr("time.sleep", lambda _: pytest.fail("waited"))
    ids = [study._storage.create_new_trial(study._study_id) for _ in range(2)]
    for trial_id in ids:
        study.sampler.before_trial(study, study._storage.get_trial(trial_id))
    first, second = (read_claim(study._storage.get_trial(trial_id)) or {} for trial_id in ids)
    assert first["slot"].startswith("refine:lr=")
    assert second["slot"] == MODEL_SLOT
    assert "around the best full run" in second["reason"]
