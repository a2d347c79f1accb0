import math
from typing import Any

import optuna
import pytest

from optuna_discipline import DisciplinedSampler
from optuna_discipline import trial_record
from optuna_discipline.visualization import stages
from optuna_discipline.visualization.view import view_of

DISTRIBUTIONS: dict[str, optuna.distributions.BaseDistribution] = {
    "lr": optuna.distributions.FloatDistribution(1e-4, 1.0, log=True),
    "batch_size": optuna.distributions.CategoricalDistribution([32, 64, 128]),
    "epochs": optuna.distributions.IntDistribution(1, 16),
}


def run(stage: str, slot: str, value: float, *, like: int | None = None, lr: float = 0.1, batch: int = 64) -> Any:
    claim = {"stage": stage, "slot": slot, "like": like, "fidelity": 0.25}
    return optuna.create_trial(
        params={"lr": lr, "batch_size": batch, "epochs": 4},
        distributions=DISTRIBUTIONS,
        value=value,
        user_attrs={"stage": stage},
        system_attrs={trial_record.CLAIM_KEY: claim},
    )


def decided(trials: list[Any], direction: str = "minimize") -> dict[str, stages.StageRow]:
    study = optuna.create_study(direction=direction)
    study.add_trials(trials)
    return {row.stage: row for row in stages.collect(study)}


LADDER = [run("lr", "lr0:1", 0.3), run("lr", "lr0:3", 0.2, lr=0.3)]
REPEAT = run("replicate", "replicate:1", 0.22, like=1, lr=0.3)


def test_a_stage_decided_what_the_next_one_stands_on() -> None:
    rows = decided([*LADDER, run("confirm", "confirm:1", 0.1, like=1, lr=0.3)])
    assert (rows["lr"].tried, rows["lr"].decision, rows["lr"].chosen) == ("0.1, 0.3", "0.3", 1)
    assert rows["confirm"].decision == ""


def test_a_stage_without_a_next_one_is_open_and_repetitions_are_no_next_one() -> None:
    rows = decided([*LADDER, REPEAT])
    assert (rows["lr"].decision, rows["lr"].chosen) == (stages.OPEN, None)
    assert rows["replicate"].decision == "equal runs differ by 0.02"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.195, "64 kept: 32 was better by 0.015 only, and the noise is 0.02"),  # than the mean of the repeated run
        (0.205, "64 kept: 32 was better by 0.005 only, and the noise is 0.02"),
        (0.1, "64 kept: 32 was better by 0.11, but its epochs take longer"),
        (0.3, "64 kept: nothing else was better"),
    ],
)
@pytest.mark.parametrize("sign", [1, -1])
def test_a_kept_value_is_named_although_the_stages_best_is_another(value: float, words: str, sign: int) -> None:
    trials = [
        run("lr", "lr0:1", sign * 0.3),
        run("lr", "lr0:3", sign * 0.2, lr=0.3),
        run("replicate", "replicate:1", sign * 0.22, like=1, lr=0.3),
        run("batch_size", "batch_size:32", sign * value, like=1, lr=0.3, batch=32),
        run("confirm", "confirm:1", sign * 0.1, like=1, lr=0.3),
    ]
    row = decided(trials, "minimize" if sign > 0 else "maximize")["batch_size"]
    assert (row.decision, row.chosen, row.best_trial) == (words, None, 3)


def test_an_earlier_confirmation_run_again_decides_nothing_later() -> None:
    trials = [
        *LADDER,
        run("confirm", "confirm:1", 0.1, like=1, lr=0.3),
        run("batch_size", "batch_size:32", 0.05, like=1, batch=32),
        run("confirm", "confirm:1", 0.1, like=1, lr=0.3),
    ]
    assert decided(trials)["batch_size"].decision == stages.OPEN


@pytest.mark.parametrize(
    "claim",
    [
        {"stage": "refine", "slot": "model", "like": 99},
        {"stage": "refine", "slot": 7},
        {"stage": "replicate", "slot": "replicate:1"},
        "x",
    ],
)
def test_damaged_claims_break_nothing(claim: Any) -> None:
    trial = run("refine", "model", 0.1)
    trial.system_attrs[trial_record.CLAIM_KEY] = claim
    assert decided([*LADDER, trial])["lr"].decision == stages.OPEN


def test_a_real_study_went_on_with_what_its_stages_decided(study: optuna.Study) -> None:
    rows = {row.stage: row for row in stages.collect(study)}
    last = max(trial.number for trial in study.trials if trial.user_attrs["stage"] == "momentum")
    after = next(trial for trial in study.trials[last + 1 :] if trial.user_attrs["stage"] != "replicate")
    assert rows["momentum"].decision.split()[0] == f"{after.params['momentum']:.4g}"
    assert rows["enqueued"].decision == ""


def test_the_sampler_may_have_been_told_other_names() -> None:
    study = optuna.create_study(sampler=DisciplinedSampler(roles={"alpha": "lr"}, seed=0))
    study.optimize(lambda t: t.suggest_float("alpha", 1e-3, 1, log=True), n_trials=2)
    assert len(stages.collect(study)[0].tried.split(", ")) == 2
    study.set_user_attr(trial_record.SETTINGS_KEY, "damaged")
    assert view_of(study).roles == {}
    study.optimize(lambda t: t.suggest_float("optimizer.lr", 1e-3, 1, log=True), n_trials=1)
    assert view_of(study).roles == {"optimizer.lr": "lr"}


def test_values_of_mixed_kinds_are_shown() -> None:
    mixed, numbers = (optuna.distributions.CategoricalDistribution(x) for x in (["auto", 64], [16, 64]))
    told = {trial_record.TOLD_KEY: {"stage": "batch_size", "reason": "a test"}}
    trials = [
        optuna.create_trial(params={"batch_size": size}, distributions={"batch_size": d}, value=1.0, system_attrs=told)
        for size, d in (("auto", mixed), (64, mixed), (16, numbers))
    ]
    assert decided(trials[:2])["batch_size"].tried == ""  # words have no role
    assert decided(trials)["batch_size"].tried == "16, 64, auto"


def test_a_choice_that_is_not_the_stages_best_is_explained() -> None:
    trials = [
        *LADDER,
        run("batch_size", "batch_size:128", 0.15, like=1, lr=0.3, batch=128),
        run("batch_size", "batch_size:32", 0.1, like=1, lr=0.3, batch=32),
        run("refine", "model", 0.1, like=2, lr=0.3, batch=128),
    ]
    row = decided(trials)["batch_size"]
    assert row.decision == "128: 32 was better by 0.05, but its epochs take longer"
    assert (row.chosen, row.went_on_with, row.best_trial) == (2, 2, 3)


def test_what_counts_as_a_difference_is_said_where_no_noise_was_measured() -> None:
    base, other = run("lr", "lr0:1", 0.3), run("batch_size", "batch_size:32", 0.299, like=0, batch=32)
    row = decided([base, other, run("refine", "model", 0.1, like=0)])["batch_size"]
    assert row.decision == "64 kept: 32 was better by 0.001 only, and what counts is 0.003"


def test_noise_explains_nothing_where_the_stage_does_not_ask_for_it() -> None:
    trials = [LADDER[0], run("lr", "lr0:3", 0.299, lr=0.3), run("refine", "model", 0.1, like=0)]
    assert decided(trials)["lr"].decision == "0.1: 0.3 was better by 0.001, but only when the study had gone on"
    base, other = run("lr", "lr0:1", 0.3), run("batch_size", "batch_size:model", 0.299, like=0, batch=32)
    row = decided([base, other, run("refine", "model", 0.1, like=1, batch=32)])["batch_size"]
    assert (row.decision, row.chosen) == ("32", 1)
    assert not stages.keeps_within_noise("batch_size", [other])
    assert not stages.keeps_within_noise("lr", [base])


def test_what_a_model_moved_beside_a_value_is_said() -> None:
    trials = [*LADDER, run("batch_size", "batch_size:model", 0.3, like=1, batch=64, lr=0.1)]
    row = decided([*trials, run("refine", "model", 0.1, like=1, lr=0.3)])["batch_size"]
    assert (row.tried, row.purpose) == ("64 (lr 0.3 to 0.1)", "try a batch size that a model chose")
    assert row.decision == "64 kept: no other value was tried"
    taken = run("batch_size", "batch_size:model", 0.1, like=1, lr=0.1)
    row = decided([*LADDER, taken, run("refine", "model", 0.1, like=2)])["batch_size"]
    assert (row.decision, row.chosen) == ("64: no other value was tried", 2)
    compared = decided([*LADDER, run("batch_size", "batch_size:32", 0.3, like=1, batch=32, lr=0.2)])["batch_size"]
    assert (compared.tried, compared.purpose) == ("32", "compare batch sizes")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.1, "from trial 1 to trial 3: lr 0.3 to 0.2, batch_size 64 to 32; 0.2 to 0.1"),
        (0.19999, "from trial 1 to trial 3: lr 0.3 to 0.2, batch_size 64 to 32; 0.2 to 0.19999"),
        (0.25, "trial 1 kept: nothing else was better"),
    ],
)
def test_a_refinement_says_from_where_to_where_it_went(value: float, words: str) -> None:
    first = run("refine", "model", 0.3, like=1, lr=0.5)
    assert decided([*LADDER, first, run("refine", "model", value, lr=0.2, batch=32)])["refine"].decision == words
    assert decided([run("refine", "model", value)])["refine"].decision == ""


def test_what_breaks_a_constraint_is_no_stages_best() -> None:
    breaking = run("lr", "lr0:9", 0.1, lr=0.9)
    breaking.system_attrs["constraints"] = [1.0]
    row = decided([*LADDER, breaking, run("refine", "model", 0.15, like=1, lr=0.3)])["lr"]
    assert (row.n_trials, row.best_trial, row.best_value, row.decision) == (3, 1, 0.2, "0.3")


def test_infinity_is_no_stages_best() -> None:
    (row,) = decided([run("lr", "lr:1", math.inf)]).values()
    assert (row.best, row.best_value, row.best_trial) == ("", None, None)
    (row,) = decided([run("lr", "lr:1", -math.inf), run("lr", "lr:3", 0.5)]).values()
    assert row.best == "0.5 in trial 1"


@pytest.mark.parametrize(
    ("values", "excess", "outcome", "why"),
    [
        ((0.1,), 1.0, "1 of 1 broke a constraint", "1 of 1 broke a constraint"),
        ((math.inf,), 1.0, "1 of 1 ended without a number", "1 of 1 ended without a number"),
        ((0.1, 0.3), 1.0, "0.3 in trial 3", "nothing else was better within the constraints"),
        ((0.4, 0.3), 0.0, "0.3 in trial 3", "nothing else was better"),
    ],
)
def test_what_may_not_be_taken_is_not_passed_over_in_silence(
    values: tuple[float, ...], excess: float, outcome: str, why: str
) -> None:
    own = [run("batch_size", "batch_size:32", value, like=1, batch=32) for value in values]
    own[0].system_attrs["constraints"] = [excess]
    row = decided([*LADDER, *own, run("refine", "model", 0.3, like=1)])["batch_size"]
    assert (row.outcome, row.decision) == (outcome, f"64 kept: {why}")
    if len(values) > 1:
        for trial in own:
            trial.system_attrs[trial_record.CLAIM_KEY] |= {"stage": "refine", "slot": "model"}
        assert decided([*LADDER, *own])["refine"].decision == f"trial 1 kept: {why}"


def test_a_search_that_began_anew_from_a_drawn_trial_says_so() -> None:
    drawn = run("refine", "model", 0.2, lr=0.001, batch=32)
    drawn.system_attrs[trial_record.CLAIM_KEY]["drawn"] = True
    anew = run("lr", "lr0:9", 0.1, like=1, lr=0.009, batch=32)
    rows = decided([LADDER[0], drawn, anew, run("refine", "model", 0.05, like=2, lr=0.02, batch=32)])
    assert (rows["lr"].tried, rows["lr"].decision) == ("0.009 (from trial 1), 0.1", "0.009")
    assert rows["refine"].purpose == "draw from all there is and search around the best full training"
    assert rows["refine"].decision == "from trial 2 to trial 3: lr 0.009 to 0.02; 0.1 to 0.05"
    assert stages.purpose_of("refine", [drawn]) == "draw from all there is"
    assert decided([LADDER[0], drawn])["refine"].decision == ""


def test_a_study_of_another_sampler_says_why_it_has_no_stages(plain: optuna.Study, empty: optuna.Study) -> None:
    random = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    random.optimize(lambda t: t.suggest_float("lr", 1e-3, 1), n_trials=2)
    for own in ("fold 1", "lr"):
        random.add_trial(optuna.create_trial(value=1.0, user_attrs={"stage": own}))
    assert "another sampler than DisciplinedSampler" in stages.why_none(random)
    begun = optuna.create_study(sampler=DisciplinedSampler(seed=0))
    begun.optimize(lambda t: t.suggest_float("lr", 1e-3, 1), n_trials=2)
    assert [stages.why_none(study) for study in (plain, empty, begun)] == ["", "", ""]


def test_what_a_stage_went_on_with_though_it_broke_is_not_called_the_best() -> None:
    broken = [run("lr", "lr0:1", 9.0), run("batch_size", "batch_size:model", 9.0, like=0, batch=32)]
    for trial in broken:
        trial.state, trial.values = optuna.trial.TrialState.PRUNED, None
    rows = decided([*broken, run("refine", "model", 0.1, like=0)])
    assert rows["lr"].decision == "0.1: no run had ended well"
    assert rows["batch_size"].decision == "64 kept: no run had ended well"
    for trial in broken:
        trial.state, trial.values = optuna.trial.TrialState.COMPLETE, [0.1]
        trial.system_attrs["constraints"] = [1.0]
    rows = decided([*broken, run("refine", "model", 0.1, like=0)])
    assert rows["lr"].decision == "0.1: no run had ended well within the constraints"


def test_a_refinement_that_began_the_study_began_from_its_first_run() -> None:
    study = optuna.create_study(sampler=DisciplinedSampler(seed=0))
    study.optimize(lambda t: t.suggest_int("hidden", 1, 9) + t.suggest_float("x", 0, 1), n_trials=4)
    (row,) = stages.collect(study)
    assert row.decision.startswith(f"from trial 0 to trial {study.best_trial.number}: hidden 5 to ")
    assert row.decision.endswith(f"; 5.5 to {stages.show(study.best_value)}")
    nothing = optuna.create_study(sampler=DisciplinedSampler(seed=0))
    nothing.optimize(lambda t: 0.5 - 0.1 * t.number, n_trials=3)
    (row,) = stages.collect(nothing)
    assert row.decision == "nothing moved from trial 0 to trial 2: 0.5 to 0.3 is luck"


@pytest.mark.parametrize(
    ("states", "said"),
    [
        (("PRUNED", "PRUNED", "FAIL"), "2 of 3 stopped early, 1 of 3 failed"),
        (("FAIL",), "1 of 1 failed"),
        (("PRUNED", "COMPLETE"), "0.5 in trial 1"),
        (("RUNNING",), ""),
    ],
)
def test_a_stage_without_a_best_says_how_its_trials_ended(states: tuple[str, ...], said: str) -> None:
    study = optuna.create_study()
    claim = {"stage": "lr", "slot": "lr0:1", "like": None}
    for state in states:
        value = 0.5 if state == "COMPLETE" else None
        kept = {trial_record.CLAIM_KEY: claim}
        study.add_trial(optuna.create_trial(state=optuna.trial.TrialState[state], value=value, system_attrs=kept))
    (row,) = stages.collect(study)
    assert row.outcome == said
