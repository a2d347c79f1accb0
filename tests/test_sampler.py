import dataclasses
import math
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import Trial
from optuna.trial import TrialState

from optuna_discipline import DisciplinedPruner
from optuna_discipline import DisciplinedSampler
from optuna_discipline import RangeTest
from optuna_discipline import Recipe
from optuna_discipline import UnsupportedStudyError
from optuna_discipline import sampler as sampler_module
from optuna_discipline.rules import stages
from optuna_discipline.trial_record import RANGE_TEST_KEY
from optuna_discipline.trial_record import read_claim

STAGES = ["lr", "confirm", "replicate", "momentum", "weight_decay", "batch_size", "refine"]


def _loss(
    lr: float, momentum: float = 0.95, weight_decay: float = 1e-4, batch_size: float = 64, share: float = 1
) -> float:
    step = math.log10(lr / (1 - momentum) / 4)
    bowl = 0.2 * step**2 + 0.05 * (math.log10(weight_decay) + 3.5) ** 2 + 0.02 * math.log2(batch_size / 64) ** 2
    return 2.3 if step > 0.9 else min(2.3, 0.2 + bowl + 0.3 * (1 - share))


def _objective(trial: Trial) -> float:
    lr = trial.suggest_float("lr", 1e-5, 10, log=True)
    momentum = trial.suggest_float("momentum", 0.8, 0.99)
    weight_decay = trial.suggest_float("weight_decay", 1e-7, 1e-1, log=True)
    batch_size = trial.suggest_categorical("batch_size", [16, 32, 64, 128, 256])
    epochs = trial.suggest_int("epochs", 1, 16)
    return _loss(lr, momentum, weight_decay, batch_size, epochs / 16)


def _study(sampler: DisciplinedSampler | None = None, **settings: Any) -> optuna.Study:
    return optuna.create_study(
        sampler=sampler or DisciplinedSampler(Recipe(short=0.25), seed=0), pruner=DisciplinedPruner(), **settings
    )


def _stages(study: optuna.Study) -> list[str]:
    return list(dict.fromkeys(trial.user_attrs["stage"] for trial in study.trials))


def _model_quickly() -> DisciplinedSampler:
    """Return a sampler whose refinement costs nothing, for tests of everything else."""
    return DisciplinedSampler(Recipe(short=0.25), seed=0, refine_sampler=optuna.samplers.RandomSampler(seed=0))


def test_a_plain_objective_goes_through_all_stages_and_ends_near_the_optimum() -> None:
    study = _study(_model_quickly())
    study.optimize(_objective, n_trials=22)
    assert _stages(study) == STAGES
    best = min(t.value for t in study.trials if t.params["epochs"] == 16)  # type: ignore[type-var]
    assert best < 0.23  # the optimum is .20, a default configuration .25


def test_the_gaussian_process_refines_what_the_stages_found() -> None:
    study = _study(DisciplinedSampler(seed=0))
    study.optimize(_objective, n_trials=24)
    modelled = [t for t in study.trials if "model" in t.user_attrs["reason"]]
    assert len(modelled) >= 4
    assert all(t.params["epochs"] == 16 for t in study.trials if t.user_attrs["stage"] != "refine")
    assert min(t.value for t in modelled) < 0.205  # type: ignore[type-var]  # the optimum is .20


def test_epochs_that_overfit_are_left_in_the_refinement_and_its_reason_says_so() -> None:
    def objective(trial: Trial) -> float:
        lr = trial.suggest_float("lr", 1e-4, 1, log=True)
        return abs(math.log10(lr) + 1) + math.log10(trial.suggest_int("epochs", 2, 100) / 10) ** 2

    study = _study(DisciplinedSampler(seed=0))
    study.optimize(objective, n_trials=20)
    assert all(t.params["epochs"] == 100 for t in study.trials if t.user_attrs["stage"] != "refine")
    assert study.best_params["epochs"] < 50
    assert any("epochs 100 to " in t.user_attrs["reason"] for t in study.trials)


def test_an_enqueued_trial_takes_the_length_of_the_best_run() -> None:
    study = _study(DisciplinedSampler(seed=0))
    for epochs in (16, 4):
        study.enqueue_trial({"lr": 0.1, "epochs": epochs})
    study.enqueue_trial({"lr": 0.2})
    study.optimize(lambda t: t.suggest_float("lr", 1e-4, 1, log=True) + t.suggest_int("epochs", 1, 16), n_trials=3)
    assert study.trials[2].params == {"lr": 0.2, "epochs": 4}


def test_the_objective_reads_its_stage_and_reason() -> None:
    seen = []

    def objective(trial: Trial) -> float:
        value = _objective(trial)
        seen.append((trial.user_attrs["stage"], trial.user_attrs["reason"]))
        return value

    study = _study()
    study.optimize(objective, n_trials=3)
    assert seen == [(t.user_attrs["stage"], t.user_attrs["reason"]) for t in study.trials]
    assert seen[1] == ("lr", "learning-rate ladder: 2 x the start; best so far 1 x with 0.4756")


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
    study = _study(_model_quickly())
    study.optimize(lambda t: (math.log10(suggest(t, name)) + 1) ** 2, n_trials=12)
    assert study.trials[0].user_attrs["stage"] == "lr"
    assert len({t.params[name] for t in study.trials}) >= 3
    assert all(t.state == TrialState.COMPLETE for t in study.trials)


def test_roles_may_be_given_other_names() -> None:
    def objective(trial: Trial) -> float:
        eta, alpha = trial.suggest_float("eta", 1e-4, 1, log=True), trial.suggest_float("alpha", 0, 0.1)
        return _loss(eta, weight_decay=max(alpha, 1e-9))

    study = _study(DisciplinedSampler(roles={"alpha": "weight_decay", "eta": "lr"}, seed=0))
    study.optimize(objective, n_trials=8)
    assert {"lr", "weight_decay"} <= set(_stages(study))


def test_a_name_may_be_told_to_have_no_role() -> None:
    study = _study(DisciplinedSampler(roles={"target.momentum": None, "lr": None}, seed=0))
    study.optimize(lambda t: t.suggest_float("lr", 0, 1) + t.suggest_float("target.momentum", 0, 1), n_trials=3)
    assert set(_stages(study)) == {"refine"}


def test_a_second_learning_rate_keeps_its_ratio_to_the_first_until_the_model_moves_both() -> None:
    def objective(trial: Trial) -> float:
        body = trial.suggest_float("lr_body", 1e-5, 1e-2, log=True)
        return _loss(10 * body) + _loss(trial.suggest_float("lr_head", 1e-4, 1e-1, log=True))

    study = _study(DisciplinedSampler(seed=0))
    study.optimize(objective, n_trials=12)
    rungs = [t for t in study.trials if "ladder" in t.user_attrs["reason"]]
    assert len(rungs) > 1
    assert all(t.params["lr_head"] == pytest.approx(10 * t.params["lr_body"]) for t in rungs)
    others = [t.params["lr_head"] / t.params["lr_body"] for t in study.trials if t not in rungs]
    assert max(others) > 1.1 * min(others)


def test_every_optimizer_may_have_a_learning_rate_of_its_own_name() -> None:
    def objective(trial: Trial) -> float:
        if trial.suggest_categorical("optimizer", ["Adam", "SGD"]) == "Adam":
            return _loss(10 * trial.suggest_float("adam_lr", 1e-5, 1e-1, log=True)) + 0.1
        return _loss(trial.suggest_float("sgd_lr", 1e-4, 1.0, log=True))

    study = _study(DisciplinedSampler(seed=0))
    study.optimize(objective, n_trials=20)
    assert study.trials[0].params == {"optimizer": "Adam", "adam_lr": 0.005}
    assert study.best_trial.params["optimizer"] == "SGD"
    assert len({t.params["sgd_lr"] for t in study.trials if "sgd_lr" in t.params}) > 3


def test_bounds_narrower_than_the_recipe_hold() -> None:
    study = _study(_model_quickly())

    def objective(trial: Trial) -> float:
        return _loss(trial.suggest_float("lr", 1e-3, 2e-3), trial.suggest_float("momentum", 0.91, 0.93))

    study.optimize(objective, n_trials=15)
    assert all(0.91 <= t.params["momentum"] <= 0.93 and 1e-3 <= t.params["lr"] <= 2e-3 for t in study.trials)


def test_bounds_that_change_between_trials_are_those_of_the_trial() -> None:
    study = _study(_model_quickly())
    study.optimize(lambda t: t.suggest_float("lr", 1e-3, 1.0, log=True), n_trials=3)
    study.optimize(lambda t: t.suggest_float("lr", 1e-7, 1e-5, log=True), n_trials=5)
    assert all(t.params["lr"] <= 1e-5 for t in study.trials[3:])


def test_what_is_asked_before_the_learning_rate_begins_where_it_should_too() -> None:
    def objective(trial: Trial) -> float:
        layers = trial.suggest_int("layers", 1, 5)
        width = sum(trial.suggest_int(f"width{i}", 10, 30) for i in range(layers))
        dropout = trial.suggest_float("dropout", 0.0, 0.5)
        optimizer = trial.suggest_categorical("optimizer", ["SGD", "Adam"])
        return _loss(trial.suggest_float("lr", 1e-5, 1, log=True)) + dropout / width + len(optimizer) / 100

    study = optuna.create_study(sampler=DisciplinedSampler(seed=0))
    study.optimize(objective, n_trials=2)
    others = {"layers": 3, "width0": 25, "width1": 25, "width2": 25, "dropout": 0.1, "optimizer": "Adam"}
    assert [trial.params for trial in study.trials] == [{**others, "lr": 5e-3}, {**others, "lr": 1e-2}]


def test_conditional_parameters_are_held_at_the_best_that_has_them_or_asked_of_the_users_sampler() -> None:
    def objective(trial: Trial) -> float:
        lr = trial.suggest_float("lr", 1e-4, 1, log=True)
        deep = trial.suggest_categorical("deep", [False, True])
        width = trial.suggest_float("width", 0, 1) if deep else 0.0
        return _loss(lr) + 0.1 * width - 0.2 * deep

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
    study = _study(_model_quickly())
    study.optimize(lambda t: _objective(t) + 0.1 * (t.suggest_float("slope", 0, 0.8) - 0.1) ** 2, n_trials=24)
    held = {t.params["slope"] for t in study.trials if "model" not in t.user_attrs["reason"]}
    assert held == {0.4}
    assert len({t.params["slope"] for t in study.trials}) > 3


def test_enqueued_values_are_used_and_the_rest_is_filled_in() -> None:
    study = _study(_model_quickly())
    study.enqueue_trial({"lr": 0.07})
    study.optimize(_objective, n_trials=3)
    assert study.trials[0].params["lr"] == 0.07
    assert study.trials[0].user_attrs["stage"] == "enqueued"
    assert study.trials[0].params["momentum"] == 0.95
    assert study.trials[1].params["lr"] == pytest.approx(0.07)  # the ladder starts at what the user knows


def test_fixed_parameters_of_a_wrapper_are_not_searched() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.PartialFixedSampler({"lr": 0.05}, _model_quickly())
    study = optuna.create_study(sampler=sampler)
    study.optimize(_objective, n_trials=12)
    assert {t.params["lr"] for t in study.trials} == {0.05}
    assert sum(t.user_attrs["stage"] == "lr" for t in study.trials) == 2


def test_a_reloaded_study_goes_on_where_it_stopped(tmp_path: Path) -> None:
    straight = _study(_model_quickly())
    straight.optimize(_objective, n_trials=12)
    url = f"sqlite:///{tmp_path / 'study.db'}"
    for count in (1, 4, 7):
        _study(_model_quickly(), storage=url, study_name="s", load_if_exists=True).optimize(_objective, n_trials=count)
    resumed = optuna.load_study(study_name="s", storage=url)
    assert [t.params for t in resumed.trials] == [t.params for t in straight.trials]


def test_a_sampler_may_be_pickled_between_trials() -> None:
    straight, pickled = _study(_model_quickly()), _study(_model_quickly())
    straight.optimize(_objective, n_trials=6)
    for _ in range(6):
        pickled.sampler = pickle.loads(pickle.dumps(pickled.sampler))
        pickled.optimize(_objective, n_trials=1)
    assert [t.params for t in pickled.trials] == [t.params for t in straight.trials]


def test_threads_share_the_stages_without_running_a_candidate_twice() -> None:
    study = _study(_model_quickly())
    study.optimize(_objective, n_trials=40, n_jobs=4)
    slots = [claim["slot"] for t in study.trials if (claim := read_claim(t)) is not None]
    single = [slot for slot in slots if slot != "model"]
    assert len(single) == len(set(single))
    assert set(_stages(study)) == set(STAGES)


def test_the_same_seed_repeats_the_study_and_another_refines_elsewhere() -> None:
    def run(seed: int) -> list[dict[str, Any]]:
        study = _study(DisciplinedSampler(Recipe(stages=("lr", "refine")), seed=seed))
        study.optimize(_objective, n_trials=9)
        return [t.params for t in study.trials]

    assert run(1) == run(1)
    assert run(1) != run(2)


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_maximising_is_minimising_the_negative(direction: str) -> None:
    sign = -1 if direction == "maximize" else 1
    study = _study(_model_quickly(), direction=direction)
    study.optimize(lambda t: sign * _objective(t), n_trials=16)
    assert _stages(study)[:4] == STAGES[:4]
    assert abs(study.best_value) < 0.3


def test_a_study_without_roles_is_the_refine_samplers() -> None:
    def run(sampler: optuna.samplers.BaseSampler) -> list[dict[str, Any]]:
        study = optuna.create_study(sampler=sampler)
        study.add_trial(optuna.create_trial(params={"x": 0.5}, distributions={"x": FloatDistribution(0, 1)}, value=1.0))
        study.optimize(lambda t: t.suggest_float("x", 0, 1), n_trials=5)
        assert all(read_claim(t) is None for t in study.trials)
        return [t.params for t in study.trials]

    tpe = optuna.samplers.TPESampler
    assert run(DisciplinedSampler(refine_sampler=tpe(seed=3), seed=0)) == run(tpe(seed=3))


def test_a_study_without_roles_learns_from_what_was_stopped_and_from_what_failed() -> None:
    """Optuna's GPSampler forgets pruned trials, and asks again for the same."""

    def objective(trial: optuna.Trial) -> float:
        x, y = trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)
        if x > 0.6:
            raise optuna.TrialPruned
        if y > 0.6:
            raise RuntimeError
        return (x - 0.4) ** 2 + (y - 0.3) ** 2

    study = optuna.create_study(sampler=DisciplinedSampler(seed=0))
    study.optimize(objective, n_trials=20, catch=RuntimeError)
    assert [trial.state for trial in study.trials].count(TrialState.COMPLETE) >= 12
    assert study.best_value < 0.01


def test_a_study_without_roles_says_what_each_trial_is_for_to_the_objective_too() -> None:
    seen: list[tuple[str, str]] = []

    def objective(trial: Trial) -> float:
        a = trial.suggest_float("a", 0.0, 1.0)
        seen.append((trial.user_attrs["stage"], trial.user_attrs["reason"]))
        return a

    for other in (None, optuna.samplers.RandomSampler(seed=0)):
        sampler = DisciplinedSampler(refine_sampler=other, seed=0)
        study = optuna.create_study(sampler=sampler)
        study.optimize(objective, n_trials=2)
        assert [trial.user_attrs["reason"] for trial in study.trials] == [reason for _, reason in seen[-2:]]
    begin = ("refine", "where to begin: each parameter at its usual value or in its middle")
    assert seen[0] == seen[2] == begin
    assert seen[1][1].startswith("model-based search around the best full run: trial 0, but a 0.5 to ")
    assert seen[3] == ("refine", "asked of RandomSampler")


def test_several_objectives_are_refused_and_leave_no_running_trial() -> None:
    study = optuna.create_study(directions=["minimize", "minimize"], sampler=DisciplinedSampler())
    with pytest.raises(UnsupportedStudyError, match="ranks runs by one objective, but the study has 2"):
        study.optimize(lambda t: (t.suggest_float("lr", 0, 1), 1.0), n_trials=1)
    assert [t.state for t in study.trials] == [TrialState.FAIL]


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_losses_that_are_no_numbers_do_not_stop_the_study(loss: float) -> None:
    study = _study(_model_quickly())
    study.optimize(lambda t: loss if t.number % 2 else _objective(t), n_trials=20)
    assert len(study.trials) == 20


def test_trials_that_raise_do_not_stop_the_study() -> None:
    def objective(trial: Trial) -> float:
        if trial.number % 3 == 1:
            raise RuntimeError("out of luck")
        return _objective(trial)

    study = _study(_model_quickly())
    study.optimize(objective, n_trials=30, catch=RuntimeError)
    assert study.trials[-1].user_attrs["stage"] == "refine"


def test_any_pruner_may_stand_beside_it() -> None:
    def objective(trial: Trial) -> float:
        value = _objective(trial)
        for epoch in range(trial.params["epochs"]):
            trial.report(value + 1 / (epoch + 1), epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        return value

    for pruner in (optuna.pruners.HyperbandPruner(1, 16), optuna.pruners.MedianPruner(1)):
        study = optuna.create_study(sampler=_model_quickly(), pruner=pruner)
        study.optimize(objective, n_trials=20)
        assert len(study.trials) == 20


def _range_test() -> RangeTest:
    lrs = np.geomspace(1e-4, 1, 60)
    losses = np.where(lrs < 0.1, 2.3 - np.linspace(0, 3, 60), 5.0)
    return RangeTest(lrs, losses, None, "end of range", initial_loss=2.3)


def test_a_range_test_runs_once_and_is_kept_on_the_study() -> None:
    calls = []

    def run() -> RangeTest:
        calls.append(1)
        return _range_test()

    study = _study(DisciplinedSampler(range_test=run, seed=0))
    study.optimize(_objective, n_trials=3)
    assert calls == [1]
    assert RangeTest.from_dict(study.trials[0].system_attrs[RANGE_TEST_KEY]) == _range_test()
    assert study.trials[0].params["lr"] == pytest.approx(_range_test().max_lr)


def test_a_range_test_that_fails_is_reported_and_done_without() -> None:
    def run() -> RangeTest:
        raise RuntimeError("no data")

    study = _study(DisciplinedSampler(range_test=run))
    with pytest.warns(UserWarning, match="range test failed and is left out: RuntimeError\\('no data'\\)"):
        study.optimize(_objective, n_trials=1)
    assert study.trials[0].params["lr"] == pytest.approx(0.1)


def test_before_trial_may_be_called_again_on_a_live_trial() -> None:
    study = _study()
    study.optimize(_objective, n_trials=2)
    trial = study.ask()
    trial.suggest_float("lr", 1e-5, 10, log=True)
    before = read_claim(study.trials[-1])
    optuna.Trial(study, trial._trial_id)
    assert read_claim(study.trials[-1]) == before


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"recipe": "fast"}, TypeError, "`recipe` must be a Recipe, but got str"),
        ({"roles": {"alpha": "colour"}}, ValueError, "`roles` must give one of"),
        ({"roles": ["alpha"]}, TypeError, "`roles` must map names to roles"),
        ({"range_test": 0.1}, TypeError, "`range_test` must be a RangeTest or a function"),
        ({"refine_sampler": "tpe"}, TypeError, "`refine_sampler` must be a BaseSampler"),
        ({"independent_sampler": 1}, TypeError, "`independent_sampler` must be a BaseSampler"),
        ({"seed": -1}, ValueError, "`seed` must be a non-negative integer"),
    ],
)
def test_bad_arguments_are_named(arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        DisciplinedSampler(**arguments)


def test_a_seed_may_be_numpys() -> None:
    drawn = [_study(DisciplinedSampler(seed=seed)).ask().suggest_float("x", 0, 1) for seed in (3, np.int64(3))]  # type: ignore[arg-type]
    assert drawn[0] == drawn[1]


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


def test_from_many_runs_on_every_second_trial_is_one_of_a_sampler_that_learns_what_matters(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(stages, "ENOUGH_TO_LEARN", 6)
    monkeypatch.setattr(
        sampler_module.suggestion,
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


def test_a_best_trial_without_any_role_does_not_end_the_study() -> None:
    def objective(trial: Trial) -> float:
        if trial.suggest_categorical("freeze_all", [True, False]):
            return 0.1
        return 0.2 + 0.1 * (math.log10(trial.suggest_float("lr", 1e-5, 1e-1, log=True)) + 3) ** 2

    study = optuna.create_study(sampler=DisciplinedSampler(seed=0))
    study.optimize(objective, n_trials=12)
    assert len(study.trials) == 12


@pytest.mark.parametrize("stored", [False, True])
def test_a_sampler_used_again_knows_nothing_of_a_former_study_of_the_name(stored: bool, tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'study.db'}" if stored else None

    def run(sampler: DisciplinedSampler, shift: float) -> list[Any]:
        study = optuna.create_study(sampler=sampler, study_name="mnist", storage=storage)
        study.optimize(lambda trial: abs(math.log10(trial.suggest_float("lr", 1e-5, 10, log=True)) - shift), n_trials=4)
        assert "discipline:settings" in study.user_attrs
        told = [(trial.params, trial.user_attrs["reason"]) for trial in study.trials]
        if storage is not None:
            optuna.delete_study(study_name="mnist", storage=storage)
        return told

    again = DisciplinedSampler(seed=0)
    run(again, -3.0)
    assert run(again, 0.0) == run(DisciplinedSampler(seed=0), 0.0)


def test_trials_that_break_a_constraint_count_as_impossible() -> None:
    def objective(trial: Trial) -> float:
        lr = trial.suggest_float("lr", 1e-4, 1.0, log=True)
        width = trial.suggest_int("width", 8, 512, log=True)
        trial.set_constraint("size", width - 100)
        return (math.log10(lr) + 2) ** 2 + 1 / width

    study = optuna.create_study(sampler=DisciplinedSampler(seed=0))
    study.optimize(objective, n_trials=16)
    assert sum(trial.params["width"] <= 100 for trial in study.trials) >= 10


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
    assert study.trials[1].params == {"lr": pytest.approx(6e-3), "momentum": 0.9}
    assert "2 x the start; best so far 1 x with 0.8863" in study.trials[1].user_attrs["reason"]


def test_the_widths_of_optunas_own_example_are_no_weight_decays() -> None:
    def objective(trial: Trial) -> float:
        for i in range(3):
            trial.suggest_int(f"n_units_l{i}", 4, 128)
            trial.suggest_float(f"dropout_l{i}", 0.2, 0.5)
        return trial.suggest_float("lr", 1e-5, 1e-1, log=True)

    study = optuna.create_study(sampler=DisciplinedSampler(seed=0))
    study.optimize(objective, n_trials=4)
    first = study.trials[0].params
    assert first["n_units_l0"] == first["n_units_l1"] == first["n_units_l2"]
    assert "weight_decay" not in {trial.user_attrs["stage"] for trial in study.trials}


def _decayed(trial: Trial, decay: float) -> float:
    return _loss(trial.suggest_float("lr", 1e-5, 10, log=True)) + (math.log10(decay) + 2.5) ** 2


def test_a_parameter_that_the_objective_asks_for_later_is_searched_though_the_best_run_lacks_it() -> None:
    study = _study()
    study.optimize(lambda t: _decayed(t, 1e-3), n_trials=8)
    study.optimize(lambda t: 1 + _decayed(t, t.suggest_float("weight_decay", 1e-7, 1e-1, log=True)), n_trials=8)
    assert study.best_trial.number < 8
    assert len({round(math.log10(trial.params["weight_decay"]), 1) for trial in study.trials[8:]}) >= 4


def test_a_parameter_that_the_objective_no_longer_asks_for_is_forgotten() -> None:
    study = _study()
    study.optimize(lambda t: _decayed(t, t.suggest_float("weight_decay", 1e-7, 1e-1, log=True)), n_trials=8)
    study.optimize(lambda t: _decayed(t, 1e-3), n_trials=8)
    reasons = [trial.user_attrs["reason"] for trial in study.trials]
    assert any("weight_decay" in reason for reason in reasons[:8])
    assert not any("weight_decay" in reason for reason in reasons[8:])
    assert not any("weight" in reason for reason in reasons[11:])


def test_a_reason_names_what_was_run_where_the_objective_asks_in_other_bounds() -> None:
    study = _study()

    def objective(trial: Trial, low: float, high: float) -> float:
        width = trial.suggest_int("width", 8, 64)
        return _loss(trial.suggest_float("lr", low, high, log=True)) + abs(width - 40) / 100

    study.optimize(lambda t: objective(t, 1e-5, 1e-1), n_trials=6)
    study.optimize(lambda t: objective(t, 1.0, 10), n_trials=1)
    trial = study.trials[-1]
    assert trial.params["lr"] == 1.0
    assert " to 1" in trial.user_attrs["reason"].split("lr ")[1]
    assert f"to {trial.params['width']}" in trial.user_attrs["reason"]


def test_a_study_goes_on_from_the_best_run_that_narrowed_bounds_allow() -> None:
    study = _study()
    study.optimize(lambda t: _loss(t.suggest_float("lr", 1e-5, 10, log=True)), n_trials=6)
    study.optimize(lambda t: _loss(t.suggest_float("lr", 1e-5, 1e-2, log=True)), n_trials=8)
    allowed = {trial.number for trial in study.trials if trial.params["lr"] <= 1e-2}
    claims = [read_claim(trial) for trial in study.trials[8:]]
    assert {claim["like"] for claim in claims if claim is not None and claim["slot"] == "model"} <= allowed


def test_workers_that_begin_a_study_without_roles_at_once_run_different_configurations() -> None:
    study = _study()

    assert len({study.ask().suggest_float("x", -5, 5) for _ in range(6)}) == 6
    at_once = _study()
    trials = [at_once.ask() for _ in range(6)]
    assert len({trial.suggest_float("x", -5, 5) for trial in trials}) == 6
    assert trials[0].params["x"] == 0


def test_workers_that_ask_at_once_are_not_given_the_same_point_by_a_sampler_that_does_not_draw(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Fixed(optuna.samplers.BaseSampler):
        def infer_relative_search_space(self, study: Any, trial: Any) -> Any:
            return {}

        def sample_relative(self, study: Any, trial: Any, search_space: Any) -> Any:
            return {}

        def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:
            return 0.5

    study = _study()
    study.optimize(lambda t: _loss(t.suggest_float("lr", 1e-5, 10, log=True)), n_trials=4)
    learning = dataclasses.replace(
        sampler_module.Search(Recipe(), [], {}, None).model(), learns=True, values={"lr": 0.1}, box={"lr": (0.01, 1.0)}
    )
    monkeypatch.setattr(sampler_module, "next_params", lambda *_, **__: learning)
    monkeypatch.setattr(sampler_module.suggestion, "default_refine_sampler", lambda _: Fixed())
    rates = []
    for _ in range(3):
        rates.append(study.ask().suggest_float("lr", 1e-5, 10, log=True))
    assert len(set(rates)) == 3


def test_an_enqueued_trial_of_a_study_without_roles_keeps_its_reason() -> None:
    study = _study()
    study.optimize(lambda t: t.suggest_float("x", -5, 5) ** 2, n_trials=2)
    study.enqueue_trial({"x": 4.5})
    study.optimize(lambda t: t.suggest_float("x", -5, 5) ** 2 + t.suggest_int("layers", 1, 3), n_trials=1)
    assert study.trials[-1].user_attrs["reason"] == "enqueued by the user"
