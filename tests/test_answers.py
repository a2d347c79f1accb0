import math
from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import Trial
from optuna.trial import TrialState

from optuna_discipline import DisciplinedSampler
from tests.formulas import five_roles
from tests.formulas import formula
from tests.formulas import model_quickly
from tests.formulas import new_study


@pytest.mark.parametrize(
    ("suggest", "name"),
    [
        (lambda t, n: t.suggest_float(n, 1e-4, 1.0, log=True), "max_lr"),
        (lambda t, n: t.suggest_float(n, 0.001, 0.5), "learning_rate"),
        (lambda t, n: t.suggest_float(n, 0.01, 0.5, step=0.01), "lr"),
        (lambda t, n: t.suggest_categorical(n, [0.001, 0.1, 0.01, 1.0]), "lr"),
        (lambda t, n: t.suggest_int(n, 1, 9), "lr"),
        (lambda t, n: t.suggest_int(n, 1, 9, log=True), "lr"),
        (lambda t, n: t.suggest_int(n, 1, 9, step=2), "lr"),
    ],
)
def test_a_role_may_have_any_distribution(suggest: Callable[[Trial, str], float], name: str) -> None:
    study = new_study(model_quickly())
    study.optimize(lambda t: (math.log10(suggest(t, name)) + 1) ** 2, n_trials=12)
    assert study.trials[0].user_attrs["stage"] == "lr"
    assert len({t.params[name] for t in study.trials}) >= 3
    assert all(t.state == TrialState.COMPLETE for t in study.trials)


def test_a_second_learning_rate_keeps_its_ratio_to_the_first_until_the_model_moves_both() -> None:
    def objective(trial: Trial) -> float:
        body = trial.suggest_float("lr_body", 1e-5, 1e-2, log=True)
        return formula(10 * body) + formula(trial.suggest_float("lr_head", 1e-4, 1e-1, log=True))

    study = new_study(DisciplinedSampler(seed=0))
    study.optimize(objective, n_trials=12)
    rungs = [t for t in study.trials if "ladder" in t.user_attrs["reason"]]
    assert len(rungs) > 1
    assert all(t.params["lr_head"] == pytest.approx(10 * t.params["lr_body"]) for t in rungs)
    others = [t.params["lr_head"] / t.params["lr_body"] for t in study.trials if t not in rungs]
    assert max(others) > 1.1 * min(others)


SECONDS: list[tuple[str, str, tuple[float, float], float]] = [
    ("momentum", "beta_1", (0.5, 0.99), 0.9),
    ("beta_1", "momentum", (0.5, 0.99), 0.95),
    ("weight_decay", "wd_head", (0.0, 0.1), 0.01),
    ("batch_size", "per_device_train_batch_size", (4.0, 64.0), 8.0),
]


@pytest.mark.parametrize(("first", "second", "bounds", "start"), SECONDS)
def test_a_second_parameter_of_a_role_keeps_its_best_known_value_on_the_ladder(
    first: str, second: str, bounds: tuple[float, float], start: float
) -> None:
    def objective(trial: Trial) -> float:
        loss = formula(trial.suggest_float("lr", 1e-5, 10, log=True))
        trial.suggest_float(first, *bounds)
        return loss + abs(trial.suggest_float(second, *bounds) - start)

    study = new_study(DisciplinedSampler(seed=0))
    study.optimize(objective, n_trials=12)
    rungs = [t.params[second] for t in study.trials if "ladder" in t.user_attrs["reason"]]
    assert len(rungs) > 1
    assert rungs == pytest.approx([start] * len(rungs))
    assert len({t.params[second] for t in study.trials}) > 1  # the model moves it

    study = new_study(DisciplinedSampler(seed=0))
    study.enqueue_trial({"lr": 1e-3, first: bounds[1], second: bounds[0]})
    study.optimize(objective, n_trials=2)
    assert study.trials[1].user_attrs["stage"] == "lr"
    assert [study.trials[1].params[name] for name in (first, second)] == list(bounds[::-1])


def test_every_optimizer_may_have_a_learning_rate_of_its_own_name() -> None:
    def objective(trial: Trial) -> float:
        if trial.suggest_categorical("optimizer", ["Adam", "SGD"]) == "Adam":
            return formula(10 * trial.suggest_float("adam_lr", 1e-5, 1e-1, log=True)) + 0.1
        return formula(trial.suggest_float("sgd_lr", 1e-4, 1.0, log=True))

    study = new_study(DisciplinedSampler(seed=0))
    study.optimize(objective, n_trials=20)
    assert study.trials[0].params == {"optimizer": "Adam", "adam_lr": 0.005}
    assert study.best_trial.params["optimizer"] == "SGD"
    assert len({t.params["sgd_lr"] for t in study.trials if "sgd_lr" in t.params}) > 3


@pytest.mark.parametrize(
    ("order", "low", "lr", "momentum"),
    [("olm", 0.0, 5e-3, 0.0), ("oml", 0.0, 5e-3, 0.0), ("oml", 0.8, 1e-3, 0.8), ("mol", 0.0, 2.5e-4, 0.95)],
)
def test_rmsprop_begins_without_momentum_or_at_a_rate_for_what_it_has(
    order: str, low: float, lr: float, momentum: float
) -> None:
    trial = new_study(DisciplinedSampler(seed=0)).ask()
    ask = {
        "o": lambda: trial.suggest_categorical("optimizer", ["SGD", "RMSprop", "Adam"]),
        "l": lambda: trial.suggest_float("lr", 1e-5, 1e-1, log=True),
        "m": lambda: trial.suggest_float("momentum", low, 0.99),
    }
    for name in order:
        ask[name]()
    assert trial.params == {"optimizer": "RMSprop", "lr": pytest.approx(lr), "momentum": pytest.approx(momentum)}


def test_bounds_narrower_than_the_recipe_hold() -> None:
    study = new_study(model_quickly())

    def objective(trial: Trial) -> float:
        return formula(trial.suggest_float("lr", 1e-3, 2e-3), trial.suggest_float("momentum", 0.91, 0.93))

    study.optimize(objective, n_trials=15)
    assert all(0.91 <= t.params["momentum"] <= 0.93 and 1e-3 <= t.params["lr"] <= 2e-3 for t in study.trials)


def test_bounds_that_change_between_trials_are_those_of_the_trial() -> None:
    study = new_study(model_quickly())
    study.optimize(lambda t: t.suggest_float("lr", 1e-3, 1.0, log=True), n_trials=3)
    study.optimize(lambda t: t.suggest_float("lr", 1e-7, 1e-5, log=True), n_trials=5)
    assert all(t.params["lr"] <= 1e-5 for t in study.trials[3:])


def test_what_is_asked_before_the_learning_rate_begins_where_it_should_too() -> None:
    def objective(trial: Trial) -> float:
        layers = trial.suggest_int("layers", 1, 5)
        width = sum(trial.suggest_int(f"width{i}", 10, 30) for i in range(layers))
        dropout = trial.suggest_float("dropout", 0.0, 0.5)
        optimizer = trial.suggest_categorical("optimizer", ["SGD", "Adam"])
        return formula(trial.suggest_float("lr", 1e-5, 1, log=True)) + dropout / width + len(optimizer) / 100

    study = optuna.create_study(sampler=DisciplinedSampler(seed=0))
    study.optimize(objective, n_trials=2)
    others = {"layers": 3, "width0": 25, "width1": 25, "width2": 25, "dropout": 0.1, "optimizer": "Adam"}
    assert [trial.params for trial in study.trials] == [
        {**others, "lr": 5e-3},
        {**others, "lr": pytest.approx(5e-3 / 3, rel=1e-3)},
    ]


def test_conditional_parameters_are_held_at_the_best_that_has_them_or_asked_of_the_users_sampler() -> None:
    def objective(trial: Trial) -> float:
        lr = trial.suggest_float("lr", 1e-4, 1, log=True)
        deep = trial.suggest_categorical("deep", [False, True])
        width = trial.suggest_float("width", 0, 1) if deep else 0.0
        return formula(lr) + 0.1 * width - 0.2 * deep

    def widths(sampler: DisciplinedSampler) -> list[float]:
        study = optuna.create_study(sampler=sampler)
        study.optimize(objective, n_trials=25)
        assert all(t.state == TrialState.COMPLETE for t in study.trials)
        return [t.params["width"] for t in study.trials if "width" in t.params]

    found = widths(DisciplinedSampler(seed=0))
    assert found[0] == 0.5  # its middle, when it first exists
    assert min(found) < 0.2  # and a run with it is the best one, so the model moves it
    asked = widths(DisciplinedSampler(seed=0, independent_sampler=optuna.samplers.RandomSampler(seed=7)))
    assert asked[0] != 0.5


def test_other_parameters_are_held_during_the_stages_and_searched_after() -> None:
    study = new_study(model_quickly())
    study.optimize(lambda t: five_roles(t) + 0.1 * (t.suggest_float("slope", 0, 0.8) - 0.1) ** 2, n_trials=24)
    held = {t.params["slope"] for t in study.trials if "model" not in t.user_attrs["reason"]}
    assert held == {0.4}
    assert len({t.params["slope"] for t in study.trials}) > 3


def _asked(trial: optuna.Trial, spelt: bool) -> tuple[float, float, float, int]:
    if not spelt:
        return (
            trial.suggest_float("lr", 1e-5, 1, log=True),
            trial.suggest_float("momentum", 0.5, 0.99),
            trial.suggest_float("weight_decay", 1e-7, 0.1, log=True),
            trial.suggest_categorical("batch_size", [16, 32, 64, 128]),
        )
    return (
        10 ** trial.suggest_float("log_lr", -5, 0),
        1 - trial.suggest_float("one_minus_momentum", 0.01, 0.5, log=True),
        math.exp(trial.suggest_float("log_wd", math.log(1e-7), math.log(0.1))),
        2 ** trial.suggest_categorical("log2_batch_size", [4, 5, 6, 7]),
    )


def test_exponents_and_1_less_momentum_change_nothing_of_a_study() -> None:
    studies = []
    for spelt in (False, True):
        asked: list[tuple[float, float, float, int]] = []

        def objective(trial: optuna.Trial, spelt: bool = spelt, asked: list[Any] = asked) -> float:
            lr, momentum, decay, size = _asked(trial, spelt)
            asked.append((lr, momentum, decay, size))
            step = math.log10(lr / (1 - momentum)) - 0.3
            return 0.1 + 0.1 * step**2 + 0.02 * (math.log10(decay) + 4) ** 2 + 0.01 * (math.log2(size) - 5) ** 2

        study = optuna.create_study(sampler=DisciplinedSampler(seed=0))
        study.optimize(objective, n_trials=12)
        studies.append(np.array(asked))
    assert studies[1] == pytest.approx(studies[0], rel=1e-6)


def test_what_has_one_value_changes_nothing_of_a_study_wherever_it_is_asked() -> None:
    studies = []
    for constant in (False, True):

        def objective(trial: Trial, constant: bool = constant) -> float:
            if constant:
                trial.suggest_categorical("lr_encoder", [1e-3])
                trial.suggest_float("nesterov_momentum", 0.9, 0.9)
                trial.suggest_float("weight_decay_head", 1e-2, 1e-2)
            lr, momentum, decay, _ = _asked(trial, spelt=False)
            return 0.1 + 0.1 * math.log10(lr / (1 - momentum)) ** 2 + 0.02 * (math.log10(decay) + 4) ** 2

        study = optuna.create_study(sampler=DisciplinedSampler(seed=0))
        study.optimize(objective, n_trials=12)
        studies.append(study.trials)
    assert [{n: trial.params[n] for n in studies[0][0].params} for trial in studies[1]] == [
        t.params for t in studies[0]
    ]


def test_whole_exponents_are_walked_without_repeats() -> None:
    def objective(trial: Trial) -> float:
        log_lr = trial.suggest_int("log_lr", -6, 0)
        dropout = trial.suggest_float("dropout", 0.0, 0.5)
        for epoch in range(4):  # climbs: too high
            trial.report((1.0, 0.8, 0.95, 0.7)[epoch] + 0.1 * abs(log_lr + 4), epoch)
        return 0.7 + 0.1 * abs(log_lr + 4) + (dropout - 0.2) ** 2

    study = optuna.create_study(sampler=DisciplinedSampler(seed=0))
    study.optimize(objective, n_trials=12)
    assert len({tuple(trial.params.values()) for trial in study.trials}) >= 11
    assert study.best_params["log_lr"] == -4


def _of_rate(trial: Trial, name: str) -> float:
    return formula(100 * trial.suggest_float(name, 1e-5, 1.0, log=True))


def test_a_learning_rate_by_a_new_name_goes_on_from_the_known_one() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(lambda trial: _of_rate(trial, "learning_rate"), n_trials=1)
    study.sampler = DisciplinedSampler(seed=0)
    best = study.best_params["learning_rate"]
    study.optimize(lambda trial: _of_rate(trial, "lr"), n_trials=2)
    rung = study.trials[1]
    assert "0.333 x the start" in rung.user_attrs["reason"]
    assert rung.params["lr"] == pytest.approx(best / 3, rel=1e-3)


def test_a_learning_rate_that_comes_later_has_a_ladder_and_no_other_role_a_stage() -> None:
    def plain(trial: Trial) -> float:
        return abs(trial.suggest_float("x", 0, 1) - 0.3)

    study = optuna.create_study(sampler=DisciplinedSampler(seed=0))
    study.optimize(plain, n_trials=5)
    study.optimize(lambda trial: plain(trial) + _of_rate(trial, "lr"), n_trials=4)
    first, second, third = study.trials[5:8]
    chosen = f"x 0.33 to {first.params['x']:.3g}, new lr {first.params['lr']:.3g}"
    assert first.user_attrs["reason"] == f"model-based search around the best full run: trial 3, but {chosen}"
    assert second.user_attrs["reason"] == "learning-rate ladder: where to start: as trial 3, the best so far"
    assert second.params == {"x": study.trials[3].params["x"], "lr": first.params["lr"]}
    assert third.params == {"x": second.params["x"], "lr": pytest.approx(second.params["lr"] / 3, rel=1e-3)}
    study.optimize(plain, n_trials=8)
    assert {trial.user_attrs["stage"] for trial in study.trials[5:]} <= {"lr", "refine"}


def test_a_ladder_begins_where_a_weight_decay_was_tuned_before() -> None:
    def decay(trial: Trial) -> float:
        return (math.log10(trial.suggest_float("weight_decay", 1e-6, 1e-1, log=True)) + 4) ** 2

    study = optuna.create_study(sampler=DisciplinedSampler(seed=0))
    study.optimize(decay, n_trials=3)
    study.optimize(lambda trial: decay(trial) + _of_rate(trial, "lr"), n_trials=3)
    best = min(study.trials[:3], key=lambda trial: trial.value)
    said = f"learning-rate ladder: where to start: as trial {best.number}, the best so far"
    assert study.trials[4].user_attrs["reason"] == said
    assert {trial.params["weight_decay"] for trial in study.trials[4:]} == {best.params["weight_decay"]}


def test_no_trial_is_like_one_without_parameters() -> None:
    study = optuna.create_study(sampler=DisciplinedSampler(seed=0))
    study.add_trial(optuna.trial.create_trial(value=5.0))
    study.optimize(lambda trial: _of_rate(trial, "lr"), n_trials=1)
    assert study.trials[1].user_attrs["reason"] == "learning-rate ladder: where to start"


def test_a_momentum_that_comes_later_is_not_told_of_a_ladder() -> None:
    study = optuna.create_study(sampler=DisciplinedSampler(seed=0))
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=4)
    study.optimize(lambda trial: trial.suggest_float("momentum", 0.5, 0.99), n_trials=3)
    assert not any("ladder" in trial.user_attrs["reason"] for trial in study.trials)


@pytest.mark.parametrize("name", ["lr", "width"])
@pytest.mark.parametrize("refine_sampler", [None, optuna.samplers.TPESampler(multivariate=True, n_startup_trials=1)])
def test_a_seed_is_no_setting_all_trials_have_that_of_the_first(
    name: str, refine_sampler: optuna.samplers.BaseSampler | None
) -> None:
    def objective(trial: Trial) -> float:
        x = trial.suggest_float(name, 1e-5, 1.0, log=True)
        return formula(x) + 0.01 * trial.suggest_int("seed", 1, 40) + trial.suggest_categorical("random_state", [0, 1])

    study = new_study(DisciplinedSampler(seed=0, refine_sampler=refine_sampler))
    study.enqueue_trial({name: 0.01, "seed": 7})
    study.optimize(objective, n_trials=12)
    assert {(t.params["seed"], t.params["random_state"]) for t in study.trials} == {(7, 0)}
    assert len({t.params[name] for t in study.trials}) == 12
    assert not any("seed" in t.user_attrs["reason"] for t in study.trials)


def test_where_a_trial_has_another_seed_none_is_named_in_a_reason_nor_followed() -> None:
    study = new_study(DisciplinedSampler(seed=0))
    for seed in (3, 5):
        study.enqueue_trial({"lr": 0.1 / seed, "seed": seed})
    study.optimize(lambda t: formula(t.suggest_float("lr", 1e-5, 1.0, log=True)) + t.suggest_int("seed", 1, 40), 8)
    assert [t.params["seed"] for t in study.trials] == [3, 5, *[3] * 6]
    assert not any("seed" in t.user_attrs["reason"] for t in study.trials)


def test_a_number_that_is_named_seed_and_has_fractions_is_searched() -> None:
    study = new_study(DisciplinedSampler(seed=0))
    study.optimize(lambda t: formula(t.suggest_float("lr", 1e-5, 1.0, log=True)) + t.suggest_float("seed", 0.01, 1), 12)
    assert study.trials[0].params["seed"] == 0.505
    assert len({t.params["seed"] for t in study.trials}) > 1


def test_seeds_are_drawn_where_all_else_is_a_constant() -> None:
    study = new_study(DisciplinedSampler(seed=0))
    study.optimize(lambda t: t.suggest_float("lr", 0.1, 0.1) * t.suggest_int("seed", 1, 10**6), n_trials=5)
    assert len({t.params["seed"] for t in study.trials}) == 5


def test_seeds_are_drawn_where_a_study_has_nothing_else_and_searched_where_the_user_says_so() -> None:
    study = new_study(DisciplinedSampler(seed=0))
    study.optimize(lambda t: float(t.suggest_int("seed", 1, 6)), n_trials=7)
    assert len({t.params["seed"] for t in study.trials}) == 6
    assert {t.user_attrs["reason"] for t in study.trials} == {
        "nothing to choose so far: no setting of more than one value"
    }
    study = new_study(DisciplinedSampler(seed=0, roles={"seed": None}))
    study.optimize(lambda t: t.suggest_float("lr", 0.1, 1.0) + t.suggest_int("seed", 1, 9), n_trials=12)
    assert len({t.params["seed"] for t in study.trials}) > 3


@pytest.mark.parametrize(("end", "times"), [(optuna.TrialPruned, 1), (OSError, 2)])
@pytest.mark.parametrize("seed", range(4))
def test_where_no_size_can_be_smaller_what_cannot_run_gets_a_word_that_was_not_tried(
    end: type[Exception], times: int, seed: int
) -> None:
    def objective(trial: Trial) -> float:
        trial.suggest_float("lr", 1e-4, 10, log=True)
        trial.suggest_categorical("optimizer", ["sgd", "adam", "rmsprop"])
        raise end

    study = optuna.create_study(sampler=DisciplinedSampler(seed=seed))
    study.optimize(objective, n_trials=times + 2, catch=OSError)
    words = [trial.params["optimizer"] for trial in study.trials]
    assert len(set(words[:times])) == 1
    assert len(set(words)) == 3


def test_numbers_in_text_are_searched_as_numbers_and_given_as_text() -> None:
    def objective(trial: optuna.Trial) -> float:
        lr = trial.suggest_categorical("lr", ["1e-1", "1e-2", "1e-3", "1e-4"])
        size = trial.suggest_categorical("batch_size", ["16", "32", "64"])
        return abs(math.log10(float(lr)) + 3) + float(size) / 1000

    study = optuna.create_study(sampler=DisciplinedSampler(seed=0))
    study.optimize(objective, n_trials=12)
    assert study.trials[0].params == {"lr": "1e-2", "batch_size": "32"}
    assert study.trials[0].user_attrs["stage"] == "lr"
    assert study.best_params == {"lr": "1e-3", "batch_size": "16"}
