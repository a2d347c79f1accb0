import dataclasses
import math
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from optuna.trial import Trial
from optuna.trial import TrialState

from optuna_discipline import DisciplinedPruner
from optuna_discipline import DisciplinedSampler
from optuna_discipline import RangeTest
from optuna_discipline import Recipe
from optuna_discipline import decision
from optuna_discipline import report_epoch
from optuna_discipline import trial_record
from optuna_discipline.range_test_record import RANGE_TEST_KEY
from optuna_discipline.rules import search_state
from optuna_discipline.study_reader import StudyReader
from optuna_discipline.trial_record import read_claim
from tests.formulas import five_roles
from tests.formulas import formula
from tests.formulas import new_study


def test_epochs_that_overfit_are_left_in_the_refinement_and_its_reason_says_so() -> None:
    def objective(trial: Trial) -> float:
        lr = trial.suggest_float("lr", 1e-4, 1, log=True)
        return abs(math.log10(lr) + 1) + math.log10(trial.suggest_int("epochs", 2, 100) / 10) ** 2

    study = new_study(DisciplinedSampler(seed=0))
    study.optimize(objective, n_trials=20)
    assert all(t.params["epochs"] == 100 for t in study.trials if t.user_attrs["stage"] != "refine")
    assert study.best_params["epochs"] < 50
    assert any("epochs 100 to " in t.user_attrs["reason"] for t in study.trials)


def _range_test() -> RangeTest:
    lrs = np.geomspace(1e-4, 1, 60)
    losses = np.where(lrs < 0.1, 2.3 - np.linspace(0, 3, 60), 5.0)
    return RangeTest(lrs, losses, None, "end of range", initial_loss=2.3)


def test_a_range_test_runs_once_and_is_kept_on_the_study() -> None:
    calls = []

    def run() -> RangeTest:
        calls.append(1)
        return _range_test()

    study = new_study(DisciplinedSampler(range_test=run, seed=0))
    study.optimize(five_roles, n_trials=3)
    assert calls == [1]
    assert RangeTest.from_dict(study.trials[0].system_attrs[RANGE_TEST_KEY]) == _range_test()
    assert study.trials[0].params["lr"] == pytest.approx(_range_test().max_lr)


def test_a_range_test_that_fails_is_reported_and_done_without() -> None:
    def run() -> RangeTest:
        raise RuntimeError("no data")

    study = new_study(DisciplinedSampler(range_test=run))
    with pytest.warns(UserWarning, match="range test failed and is left out: RuntimeError\\('no data'\\)"):
        study.optimize(five_roles, n_trials=1)
    assert study.trials[0].params["lr"] == pytest.approx(0.1)


def test_from_many_runs_on_every_second_trial_is_one_of_a_sampler_that_learns_what_matters(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(search_state, "ENOUGH_TO_LEARN", 6)
    monkeypatch.setattr(
        decision.shadow,
        "default_refine_sampler",
        lambda seed: asked.append(len(study.trials) - 1) or optuna.samplers.RandomSampler(seed=seed),
    )
    study = optuna.create_study(sampler=DisciplinedSampler(seed=0))
    study.optimize(lambda trial: abs(math.log(trial.suggest_float("lr", 1e-5, 10, log=True))), n_trials=13)
    assert asked == [7, 9, 11]
    for number in asked:
        best = min(study.trials[:number], key=lambda trial: trial.value)
        assert 0.49 <= study.trials[number].params["lr"] / best.params["lr"] <= 2.01
        assert "near the best full run" in study.trials[number].user_attrs["reason"]


def test_from_many_runs_on_every_fourth_trial_is_the_best_run_with_other_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def objective(trial: Trial) -> float:
        for name in ("norm", "kind", "pooling"):
            trial.suggest_categorical(name, list("abcdefgh"))
        return abs(trial.suggest_float("x", 0, 1) - 0.3)

    monkeypatch.setattr(search_state, "ENOUGH_TO_LEARN", 6)
    monkeypatch.setattr(
        decision.shadow, "default_refine_sampler", lambda seed: optuna.samplers.RandomSampler(seed=seed)
    )
    study = optuna.create_study(sampler=DisciplinedSampler(seed=0))
    study.optimize(objective, n_trials=18)
    for number in range(7, 18, 2):
        best = min(study.trials[:number], key=lambda trial: trial.value)
        assert (study.trials[number].params["x"] == pytest.approx(best.params["x"])) == (number in (9, 13, 17))
    with_own = optuna.create_study(
        sampler=DisciplinedSampler(seed=0, refine_sampler=optuna.samplers.RandomSampler(seed=0))
    )
    with_own.optimize(objective, n_trials=14)
    for number in (9, 13):  # a user's sampler chooses all
        best = min(with_own.trials[:number], key=lambda trial: trial.value)
        assert with_own.trials[number].params["x"] != pytest.approx(best.params["x"])


def test_a_best_trial_without_any_role_does_not_end_the_study() -> None:
    def objective(trial: Trial) -> float:
        if trial.suggest_categorical("freeze_all", [True, False]):
            return 0.1
        return 0.2 + 0.1 * (math.log10(trial.suggest_float("lr", 1e-5, 1e-1, log=True)) + 3) ** 2

    study = optuna.create_study(sampler=DisciplinedSampler(seed=0))
    study.optimize(objective, n_trials=12)
    assert len(study.trials) == 12


@pytest.mark.filterwarnings("ignore:Choices for a categorical distribution")
@pytest.mark.parametrize("storage", [None, "sqlite://"])
def test_words_that_json_does_not_keep_are_searched_and_named_as_they_are(storage: str | None) -> None:
    choices = [(64,), (128, 64), (256, 128)]

    def objective(trial: Trial) -> float:
        lr = trial.suggest_float("lr", 1e-4, 1.0, log=True)
        hidden = trial.suggest_categorical("hidden", choices)
        assert isinstance(hidden, tuple)
        return 0.05 * math.log(lr / 0.05) ** 2 + (0.5, 0.1, 0.3)[choices.index(hidden)]

    study = optuna.create_study(sampler=DisciplinedSampler(seed=0), storage=storage)
    study.optimize(objective, n_trials=12)
    assert {tuple(trial.params["hidden"]) for trial in study.trials} == set(choices)
    assert tuple(study.best_params["hidden"]) == (128, 64)
    for trial in study.trials:
        reason = trial.user_attrs["reason"]
        if "hidden" in reason:
            assert f" to {trial.params['hidden']}" in reason


@pytest.mark.filterwarnings("ignore:Choices for a categorical distribution")
def test_classes_are_words_too() -> None:
    choices = [int, float, str]

    def objective(trial: Trial) -> float:
        lr = trial.suggest_float("lr", 1e-4, 1.0, log=True)
        return 0.05 * math.log(lr / 0.05) ** 2 + choices.index(trial.suggest_categorical("kind", choices))

    study = optuna.create_study(sampler=DisciplinedSampler(seed=0))
    study.optimize(objective, n_trials=8)
    assert {trial.params["kind"] for trial in study.trials} == set(choices)


@pytest.mark.parametrize("reports", [False, True])
def test_a_broken_constraint_is_blamed_on_sizes_not_on_the_rate(reports: bool) -> None:
    def objective(trial: Trial) -> float:
        lr = trial.suggest_float("lr", 1e-4, 1.0, log=True)
        width = trial.suggest_int("width", 8, 512, log=True)
        trial.set_constraint("size", width - 100)
        loss = (math.log10(lr) + 2) ** 2 + 1 / width
        for epoch in range(5 if reports else 0):
            report_epoch(trial, epoch, val_loss=loss + (4 - epoch) / 2, train_loss=loss + (4 - epoch) / 2)
        return loss

    study = optuna.create_study(sampler=DisciplinedSampler(seed=0))
    study.optimize(objective, n_trials=16)
    first, second = study.trials[:2]
    assert first.params["width"] > 100 >= second.params["width"]
    assert second.params["lr"] == first.params["lr"]
    words = "smaller sizes and other words, because no trial has ended well within the constraints"
    assert second.user_attrs["reason"].endswith(words)
    assert sum(trial.params["width"] <= 100 for trial in study.trials) >= 10


@pytest.mark.parametrize("seed", range(3))
def test_a_run_that_diverges_within_the_constraints_does_not_bring_the_forbidden_size_back(seed: int) -> None:
    def objective(trial: Trial) -> float:
        lr = trial.suggest_float("lr", 1e-5, 10, log=True)
        trial.set_constraint("size", trial.suggest_int("width", 8, 512, log=True) - 40)
        loss = 0.1 + (math.log10(lr) + 2) ** 2 / 10
        for epoch in range(8):
            broken = lr > 0.05 and epoch > 2
            report_epoch(trial, epoch, val_loss=math.nan if broken else loss + 2 * math.exp(-epoch), n_epochs=8)
        return loss

    study = optuna.create_study(sampler=DisciplinedSampler(seed=seed), pruner=DisciplinedPruner())
    study.optimize(objective, n_trials=8)
    first, *later = study.trials
    assert TrialState.PRUNED in {trial.state for trial in later}  # an allowed one
    assert sum(trial.params["width"] == first.params["width"] for trial in later) == 0
    assert study.best_value < 0.12


@pytest.mark.parametrize("barred", [True, False], ids=["forbidden", "too large to run"])
def test_sizes_that_fit_are_held_though_every_trial_of_them_was_pruned(barred: bool) -> None:
    def objective(trial: Trial) -> float:
        lr, width = trial.suggest_float("lr", 1e-4, 1.0, log=True), trial.suggest_int("width", 16, 1024, log=True)
        batch_size = trial.suggest_int("batch_size", 8, 512, log=True)
        if barred:
            trial.set_constraint("size", width - 100)
        elif width > 100:
            raise optuna.TrialPruned
        for epoch in range(4):
            trial.report((math.log10(lr) + 2) ** 2 + 1 / (epoch + 1), epoch)
        if width <= 100:
            raise optuna.TrialPruned
        return batch_size

    study = optuna.create_study(sampler=DisciplinedSampler(seed=0))
    study.optimize(objective, n_trials=6)
    first, *later = study.trials
    ladder = [trial for trial in later if trial.user_attrs["stage"] == "lr"]
    assert len({(trial.params["width"], trial.params["batch_size"]) for trial in ladder}) == 1 < len(ladder)
    assert ladder[0].params["width"] <= 100 < first.params["width"]
    assert ["smaller sizes" in trial.user_attrs["reason"] for trial in study.trials] == [False, True, *[False] * 4]


@pytest.mark.parametrize("choices", [[32, 64], [64]])
@pytest.mark.parametrize("pruned", [False, True])
def test_what_cannot_be_smaller_gets_a_lower_rate_at_once(choices: list[int], *, pruned: bool) -> None:
    def objective(trial: Trial) -> float:
        trial.suggest_float("lr", 1e-5, 1.0, log=True)
        trial.suggest_categorical("batch_size", choices)
        raise optuna.TrialPruned if pruned else MemoryError

    study = optuna.create_study(sampler=DisciplinedSampler(seed=0))
    study.optimize(objective, n_trials=4, catch=MemoryError)
    rates = [trial.params["lr"] for trial in study.trials]
    assert len(set(rates)) == (4 if pruned else 2)
    assert rates == sorted(rates, reverse=True)
    assert not any("smaller sizes" in trial.user_attrs["reason"] for trial in study.trials)


@pytest.mark.parametrize(("empty", "end"), [(0, optuna.TrialPruned), (1, optuna.TrialPruned), (0, OSError)])
def test_only_trials_with_another_word_are_said_to_have_one(empty: int, end: type[Exception]) -> None:
    def objective(trial: Trial) -> float:
        if trial.number < empty or trial.number == 4:
            raise OSError
        trial.suggest_float("lr", 1e-5, 1.0, log=True)
        trial.suggest_categorical("norm", ["layer", "batch"])
        raise end

    study = optuna.create_study(sampler=DisciplinedSampler(seed=0))
    study.optimize(objective, n_trials=6, catch=OSError)
    said = ["other words" in trial.user_attrs["reason"] for trial in study.trials]
    assert said == [trial.params.get("norm") == "batch" for trial in study.trials]
    assert {True, False} == set(said)


def test_what_the_model_chose_is_not_said_to_be_smaller() -> None:
    def objective(trial: Trial) -> float:
        trial.set_constraint("size", 1.0)
        return trial.suggest_float("lr", 1e-4, 1.0, log=True) + trial.suggest_int("width", 16, 1024, log=True)

    study = optuna.create_study(sampler=DisciplinedSampler(Recipe(stages=("refine",)), seed=0))
    study.optimize(objective, n_trials=5)
    chosen = [bool((read_claim(trial) or {})["suggested"]) for trial in study.trials]
    smaller = ["smaller sizes" in trial.user_attrs["reason"] for trial in study.trials]
    assert any(chosen)
    assert not any(a and b for a, b in zip(chosen, smaller, strict=True))


def test_bounds_below_the_best_known_rate_leave_a_ladder_that_ends() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))

    def objective(trial: Trial, high: float) -> float:
        lr = trial.suggest_float("lr", 1e-5, high, log=True)
        return (math.log10(lr) + 0.5) ** 2 + abs(trial.suggest_float("momentum", 0.8, 0.99) - 0.9)

    study.optimize(lambda trial: objective(trial, 1.0), n_trials=6)
    study.sampler = DisciplinedSampler(seed=0)
    study.optimize(lambda trial: objective(trial, 0.03), n_trials=10)
    ours = study.trials[6:]
    assert len({tuple(trial.params.values()) for trial in ours}) == len(ours)
    assert not any("others" in trial.user_attrs["reason"] for trial in ours)
    assert "refine" in {trial.user_attrs["stage"] for trial in ours}


def test_a_run_from_before_is_the_ladders_first() -> None:
    study = optuna.create_study(sampler=DisciplinedSampler(seed=0), direction="maximize")
    study.enqueue_trial({"lr": 3e-3, "momentum": 0.9})
    study.optimize(
        lambda trial: (
            0.9
            - 0.05 * (math.log10(trial.suggest_float("lr", 1e-5, 1.0, log=True)) + 2) ** 2
            - 0.1 * abs(trial.suggest_float("momentum", 0.8, 0.99) - 0.9)
        ),
        n_trials=3,
    )
    assert [trial.user_attrs["stage"] for trial in study.trials[:2]] == ["enqueued", "lr"]
    assert study.trials[1].params == {"lr": pytest.approx(9e-3), "momentum": 0.9}
    assert "3 x the start; best so far 1 x with 0.8863" in study.trials[1].user_attrs["reason"]


def _decayed(trial: Trial, decay: float) -> float:
    return formula(trial.suggest_float("lr", 1e-5, 10, log=True)) + (math.log10(decay) + 2.5) ** 2


def test_a_parameter_that_the_objective_asks_for_later_is_searched_though_the_best_run_lacks_it() -> None:
    study = new_study()
    study.optimize(lambda t: _decayed(t, 1e-3), n_trials=8)
    study.optimize(lambda t: 1 + _decayed(t, t.suggest_float("weight_decay", 1e-7, 1e-1, log=True)), n_trials=8)
    assert study.best_trial.number < 8
    assert len({round(math.log10(trial.params["weight_decay"]), 1) for trial in study.trials[8:]}) >= 4


def test_a_parameter_that_the_objective_no_longer_asks_for_is_forgotten() -> None:
    study = new_study()
    study.optimize(lambda t: _decayed(t, t.suggest_float("weight_decay", 1e-7, 1e-1, log=True)), n_trials=8)
    study.optimize(lambda t: _decayed(t, 1e-3), n_trials=8)
    reasons = [trial.user_attrs["reason"] for trial in study.trials]
    assert any("weight_decay" in reason for reason in reasons[:8])
    assert not any("weight_decay" in reason for reason in reasons[8:])
    assert not any("weight" in reason for reason in reasons[11:])


def test_a_reason_names_what_was_run_where_the_objective_asks_in_other_bounds() -> None:
    study = new_study()

    def objective(trial: Trial, low: float, high: float) -> float:
        width = trial.suggest_int("width", 8, 64)
        return formula(trial.suggest_float("lr", low, high, log=True)) + abs(width - 40) / 100

    study.optimize(lambda t: objective(t, 1e-5, 1e-1), n_trials=6)
    study.optimize(lambda t: objective(t, 1.0, 10), n_trials=1)
    trial = study.trials[-1]
    assert trial.params["lr"] == 1.0
    assert " to 1" in trial.user_attrs["reason"].split("lr ")[1]
    assert f"to {trial.params['width']}" in trial.user_attrs["reason"]


@pytest.mark.parametrize(
    ("like", "words"), [(0, "trial 0, but lr 0.1 to 0.2"), (7, ""), (None, "")], ids=["there", "not there", "none"]
)
def test_a_reason_names_changes_of_a_trial_that_is_there_and_of_no_seed(like: int | None, words: str) -> None:
    study = optuna.create_study()
    lr, seed = FloatDistribution(0.01, 1.0, log=True), IntDistribution(0, 9)
    study.add_trial(optuna.create_trial(params={"lr": 0.1, "seed": 1}, distributions={"lr": lr, "seed": seed}, value=1))
    decided = decision.Decision(Recipe(), None, StudyReader(None), None, 0)
    assert decided._moves({"lr": 0.2, "seed": 2}, study.trials, like, "lr") == words


def test_a_claim_that_says_no_reason_ends_no_study() -> None:
    def objective(trial: Trial) -> float:
        lr = trial.suggest_float("lr", 1e-5, 1, log=True)
        claim = {"stage": "lr", "slot": "lr0:1"}
        trial.study._storage.set_trial_system_attr(trial._trial_id, trial_record.CLAIM_KEY, claim)
        return formula(lr)

    study = optuna.create_study(sampler=DisciplinedSampler(seed=0))
    study.optimize(objective, n_trials=2)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 2


def test_a_reason_says_where_a_stage_came_to_a_network_without_its_role() -> None:
    study = new_study()

    def objective(trial: Trial) -> float:
        if trial.suggest_categorical("optimizer", ["AdamW", "SGD"]) == "SGD":
            return formula(trial.suggest_float("lr", 1e-5, 1, log=True), trial.suggest_float("momentum", 0.5, 0.99))
        lr, decay = (
            trial.suggest_float("lr", 1e-5, 1, log=True),
            trial.suggest_float("weight_decay", 1e-5, 0.1, log=True),
        )
        return formula(lr * 100, 0.95, decay)

    study.optimize(objective, n_trials=9)
    for trial in study.trials:
        stage, reason = trial.user_attrs["stage"], trial.user_attrs["reason"]
        of_others = stage in ("momentum", "weight_decay") and stage not in trial.params
        assert of_others == reason.endswith("; this network has no weight decay")
    assert sum(trial.user_attrs["stage"] == "momentum" for trial in study.trials) == 0


def test_a_study_goes_on_from_the_best_run_that_narrowed_bounds_allow() -> None:
    study = new_study()
    study.optimize(lambda t: formula(t.suggest_float("lr", 1e-5, 10, log=True)), n_trials=6)
    study.optimize(lambda t: formula(t.suggest_float("lr", 1e-5, 1e-2, log=True)), n_trials=8)
    allowed = {trial.number for trial in study.trials if trial.params["lr"] <= 1e-2}
    claims = [read_claim(trial) for trial in study.trials[8:]]
    assert {claim["like"] for claim in claims if claim is not None and claim["slot"] == "model"} <= allowed


def test_workers_that_begin_a_study_without_roles_at_once_run_different_configurations() -> None:
    study = new_study()

    assert len({study.ask().suggest_float("x", -5, 5) for _ in range(6)}) == 6
    at_once = new_study()
    trials = [at_once.ask() for _ in range(6)]
    assert len({trial.suggest_float("x", -5, 5) for trial in trials}) == 6
    assert trials[0].params["x"] == 0


@pytest.mark.parametrize("state", [None, TrialState.COMPLETE])
def test_workers_that_ask_at_once_are_not_given_the_same_point_by_a_sampler_that_does_not_draw(
    state: TrialState | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Fixed(optuna.samplers.BaseSampler):
        def infer_relative_search_space(self, study: Any, trial: Any) -> Any:
            return {}

        def sample_relative(self, study: Any, trial: Any, search_space: Any) -> Any:
            return {}

        def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:
            return 0.5

    study = new_study()
    study.optimize(lambda t: formula(t.suggest_float("lr", 1e-5, 10, log=True)), n_trials=4)
    learning = dataclasses.replace(
        decision.SearchState(Recipe(), [], {}, None).model(), learns=True, values={"lr": 0.1}, box={"lr": (0.01, 1.0)}
    )
    monkeypatch.setattr(decision, "next_params", lambda *_, **__: learning)
    rates: list[float] = []

    def ask() -> None:
        trial = study.ask()
        rates.append(trial.suggest_float("lr", 1e-5, 10, log=True))
        if state is not None:
            study.tell(trial, 1.0, state)

    def fixed(_: int) -> Fixed:
        if len(study.trials) < 7:  # others ask between what this one has read and its claim
            ask()
        return Fixed()

    monkeypatch.setattr(decision.shadow, "default_refine_sampler", fixed)
    ask()
    assert len(set(rates)) == 3


@pytest.mark.parametrize("best", [1e-5, 1e-3, 5.0])
@pytest.mark.parametrize("reported", [True, False])
def test_a_study_in_which_nothing_learns_at_first_finds_where_networks_do(best: float, reported: bool) -> None:
    def objective(trial: Trial) -> float:
        away = abs(math.log(trial.suggest_float("lr", 1e-7, 10, log=True) / best))
        accuracy = 0.1 if away > 2 else 0.9 - 0.05 * away**2
        for epoch in range(4 * reported):
            trial.report(0.1 + (accuracy - 0.1) * (epoch + 1) / 4, epoch)
        return accuracy

    study = optuna.create_study(direction="maximize", sampler=DisciplinedSampler(seed=0))
    study.optimize(objective, n_trials=16)
    assert study.best_value > 0.85
    reasons = [trial.user_attrs["reason"] for trial in study.trials]
    drawn = [reason for reason in reasons if reason.startswith("drawn")]
    assert all(reason.endswith("at the learning rate farthest from all tried") for reason in drawn)
    assert bool(drawn) == (max(trial.value for trial in study.trials[:6]) < 0.2)


@pytest.mark.parametrize("own", [{"why": 1}, None, ["a"], "table 3", "learning-rate ladder: my notes"])
def test_a_reason_of_the_users_own_ends_no_study_and_stays(own: Any) -> None:
    study = new_study()

    def objective(trial: Trial, low: float, high: float) -> float:
        rate = trial.suggest_float("lr", low, high, log=True)
        trial.set_user_attr("reason", own)
        return formula(rate)

    study.optimize(lambda t: objective(t, 1e-5, 1e-1), n_trials=3)
    study.optimize(lambda t: objective(t, 1.0, 10), n_trials=1)  # the reason names another step than was run
    assert [trial.user_attrs["reason"] for trial in study.trials] == [own] * 4
    assert own not in [trial_record.reason_of(trial) for trial in study.trials]
    assert "ladder: 215 x the start" in trial_record.reason_of(study.trials[3])


@pytest.mark.parametrize(
    ("own", "name", "storage"),
    [
        ({"stage": "fold 1"}, "lr", None),
        ({"stage": "confirm"}, "lr", None),
        ({"reason": "table 3"}, "lr", "sqlite://"),
        ({"stage": "fold 1"}, "x", "sqlite://"),
        ({"stage": "confirm"}, "x", None),
        ({"reason": "table 3"}, "x", None),
    ],
)
def test_what_the_user_writes_before_the_first_suggestion_stays_and_all_else_is_told(
    own: dict[str, str], name: str, storage: str | None
) -> None:
    study = optuna.create_study(sampler=DisciplinedSampler(seed=0), storage=storage)

    def objective(trial: Trial) -> float:
        for key, text in own.items():
            trial.set_user_attr(key, text)
        return formula(trial.suggest_float(name, 1e-5, 1e-1, log=True))

    study.optimize(objective, n_trials=3)
    for trial in study.trials:
        reason, stage = trial_record.reason_of(trial), trial_record.stage_of(trial)
        assert trial.user_attrs == {"stage": stage, "reason": reason, **own}
        assert stage == ("lr" if name == "lr" else "refine")
        assert reason.startswith(("learning-rate ladder", "where to begin", "model-based search around the best"))


def test_a_stage_of_the_users_own_leaves_the_reason_that_was_corrected() -> None:
    study = new_study()

    def objective(trial: Trial, low: float, high: float) -> float:
        trial.set_user_attr("stage", "fold 1")
        return formula(trial.suggest_float("lr", low, high, log=True))

    study.optimize(lambda t: objective(t, 1e-5, 1e-1), n_trials=3)
    study.optimize(lambda t: objective(t, 1.0, 10), n_trials=1)
    assert study.trials[3].user_attrs["stage"] == "fold 1"
    assert "ladder: 215 x the start" in study.trials[3].user_attrs["reason"]
    assert trial_record.stage_of(study.trials[3]) == "lr"


def test_rungs_are_of_the_best_run_with_a_learning_rate_where_the_best_has_none() -> None:
    def objective(trial: Trial) -> float:
        if trial.suggest_categorical("classifier", ["RandomForest", "MLP"]) == "RandomForest":
            return 0.12 + 0.0025 * abs(trial.suggest_int("depth", 2, 32, log=True) - 16)
        return 0.05 + 0.05 * (math.log10(trial.suggest_float("lr", 1e-5, 1, log=True)) + 3) ** 2

    study = optuna.create_study(sampler=DisciplinedSampler(seed=0))
    study.optimize(objective, n_trials=8)
    rungs = [trial for trial in study.trials if trial.user_attrs["stage"] == "lr"]
    assert len(rungs) > 1
    assert all("lr" in rung.params and "the start is trial 1" in rung.user_attrs["reason"] for rung in rungs)
    assert len({tuple(trial.params.items()) for trial in study.trials}) == 8
    assert study.best_value < 0.06


@pytest.mark.parametrize("name", ["momentum", "weight_decay"])
def test_a_study_without_a_learning_rate_is_told_of_none(name: str) -> None:
    study = new_study(DisciplinedSampler(seed=0))
    study.optimize(lambda trial: (trial.suggest_float(name, 0.0, 0.99) - 0.5) ** 2, n_trials=3)
    reasons = [trial.user_attrs["reason"] for trial in study.trials]
    assert (study.trials[0].user_attrs["stage"], reasons[0]) == ("refine", decision.BEGIN)
    assert not any("learning rate" in reason or "ladder" in reason for reason in reasons)
