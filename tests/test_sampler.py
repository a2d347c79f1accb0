import math
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import Trial
from optuna.trial import TrialState

from optuna_discipline import DisciplinedSampler
from optuna_discipline import Recipe
from optuna_discipline import UnsupportedStudyError
from optuna_discipline.trial_record import read_claim
from tests.formulas import STAGES
from tests.formulas import five_roles
from tests.formulas import formula
from tests.formulas import model_quickly
from tests.formulas import new_study
from tests.formulas import stages_of


def test_a_plain_objective_goes_through_all_stages_and_ends_near_the_optimum() -> None:
    study = new_study(model_quickly())
    study.optimize(five_roles, n_trials=22)
    assert stages_of(study) == STAGES
    best = min(t.value for t in study.trials if t.params["epochs"] == 16)  # type: ignore[type-var]
    assert best < 0.23  # the optimum is .20, a default configuration .25


def test_the_gaussian_process_refines_what_the_stages_found() -> None:
    study = new_study(DisciplinedSampler(seed=0))
    study.optimize(five_roles, n_trials=24)
    modelled = [t for t in study.trials if "model" in t.user_attrs["reason"]]
    assert len(modelled) >= 4
    assert all(t.params["epochs"] == 16 for t in study.trials if t.user_attrs["stage"] != "refine")
    assert min(t.value for t in modelled) < 0.205  # type: ignore[type-var]  # the optimum is .20


def test_the_objective_reads_its_stage_and_reason() -> None:
    seen = []

    def objective(trial: Trial) -> float:
        value = five_roles(trial)
        seen.append((trial.user_attrs["stage"], trial.user_attrs["reason"]))
        return value

    study = new_study()
    study.optimize(objective, n_trials=3)
    assert seen == [(t.user_attrs["stage"], t.user_attrs["reason"]) for t in study.trials]
    said = "2 x the start; best so far 1 x with 0.4756, which reported nothing that says where to go"
    assert seen[1] == ("lr", f"learning-rate ladder: {said}")


def test_roles_may_be_given_other_names() -> None:
    def objective(trial: Trial) -> float:
        eta, alpha = trial.suggest_float("eta", 1e-4, 1, log=True), trial.suggest_float("alpha", 0, 0.1)
        return formula(eta, weight_decay=max(alpha, 1e-9))

    study = new_study(DisciplinedSampler(roles={"alpha": "weight_decay", "eta": "lr"}, seed=0))
    study.optimize(objective, n_trials=8)
    assert {"lr", "weight_decay"} <= set(stages_of(study))


def test_a_name_may_be_told_to_have_no_role() -> None:
    study = new_study(DisciplinedSampler(roles={"target.momentum": None, "lr": None}, seed=0))
    study.optimize(lambda t: t.suggest_float("lr", 0, 1) + t.suggest_float("target.momentum", 0, 1), n_trials=3)
    assert set(stages_of(study)) == {"refine"}


def test_fixed_parameters_of_a_wrapper_are_not_searched() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler = optuna.samplers.PartialFixedSampler({"lr": 0.05}, model_quickly())
    study = optuna.create_study(sampler=sampler)
    study.optimize(five_roles, n_trials=12)
    assert {t.params["lr"] for t in study.trials} == {0.05}
    assert sum(t.user_attrs["stage"] == "lr" for t in study.trials) == 1


def test_a_reloaded_study_goes_on_where_it_stopped(tmp_path: Path) -> None:
    straight = new_study(model_quickly())
    straight.optimize(five_roles, n_trials=12)
    for count in (1, 4, 7):
        storage = JournalStorage(JournalFileBackend(str(tmp_path / "study.log")))
        resumed = new_study(model_quickly(), storage=storage, study_name="s", load_if_exists=True)
        resumed.optimize(five_roles, n_trials=count)
    assert [t.params for t in resumed.trials] == [t.params for t in straight.trials]


def test_a_sampler_may_be_pickled_between_trials() -> None:
    straight, pickled = new_study(model_quickly()), new_study(model_quickly())
    straight.optimize(five_roles, n_trials=6)
    for _ in range(6):
        pickled.sampler = pickle.loads(pickle.dumps(pickled.sampler))
        pickled.optimize(five_roles, n_trials=1)
    assert [t.params for t in pickled.trials] == [t.params for t in straight.trials]


def test_threads_share_the_stages_without_running_a_candidate_twice() -> None:
    study = new_study(model_quickly())
    study.optimize(five_roles, n_trials=40, n_jobs=4)
    slots = [claim["slot"] for t in study.trials if (claim := read_claim(t)) is not None]
    single = [slot for slot in slots if slot != "model"]
    assert len(single) == len(set(single))
    assert set(stages_of(study)) == set(STAGES)


def test_the_same_seed_repeats_the_study_and_another_refines_elsewhere() -> None:
    def run(seed: int) -> list[dict[str, Any]]:
        study = new_study(DisciplinedSampler(Recipe(stages=("lr", "refine")), seed=seed))
        study.optimize(five_roles, n_trials=9)
        return [t.params for t in study.trials]

    assert run(1) == run(1)
    assert run(1) != run(2)


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_maximising_is_minimising_the_negative(direction: str) -> None:
    sign = -1 if direction == "maximize" else 1
    study = new_study(model_quickly(), direction=direction)
    study.optimize(lambda t: sign * five_roles(t), n_trials=16)
    assert stages_of(study)[:4] == STAGES[:4]
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
    study = new_study(model_quickly())
    study.optimize(lambda t: loss if t.number % 2 else five_roles(t), n_trials=20)
    assert len(study.trials) == 20


def test_trials_that_raise_do_not_stop_the_study() -> None:
    def objective(trial: Trial) -> float:
        if trial.number % 3 == 1:
            raise RuntimeError("out of luck")
        return five_roles(trial)

    study = new_study(model_quickly())
    study.optimize(objective, n_trials=30, catch=RuntimeError)
    assert study.trials[-1].user_attrs["stage"] == "refine"


def test_any_pruner_may_stand_beside_it() -> None:
    def objective(trial: Trial) -> float:
        value = five_roles(trial)
        for epoch in range(trial.params["epochs"]):
            trial.report(value + 1 / (epoch + 1), epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        return value

    for pruner in (optuna.pruners.HyperbandPruner(1, 16), optuna.pruners.MedianPruner(1)):
        study = optuna.create_study(sampler=model_quickly(), pruner=pruner)
        study.optimize(objective, n_trials=20)
        assert len(study.trials) == 20


def test_before_trial_may_be_called_again_on_a_live_trial() -> None:
    study = new_study()
    study.optimize(five_roles, n_trials=2)
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


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("kind", ["CmaEs", "NSGAII", "NSGAIII", "QMC", "BruteForce", "PartialFixed", "Disciplined"])
def test_a_refine_sampler_that_would_not_model_what_it_is_shown_is_refused(kind: str) -> None:
    of = getattr(optuna.samplers, f"{kind}Sampler", DisciplinedSampler)
    cure = "put it around DisciplinedSampler" if kind == "PartialFixed" else "give it to the study itself"
    with pytest.raises(
        ValueError, match=f"`refine_sampler` must .* but got {kind}Sampler: take GPSampler.*, or {cure}"
    ):
        DisciplinedSampler(refine_sampler=of({"lr": 0.1}, of) if kind == "PartialFixed" else of())


def test_a_seed_may_be_numpys() -> None:
    drawn = [new_study(DisciplinedSampler(seed=seed)).ask().suggest_float("x", 0, 1) for seed in (3, np.int64(3))]  # type: ignore[arg-type]
    assert drawn[0] == drawn[1]


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


@pytest.mark.parametrize("objective", [lambda _: 1.0, lambda trial: trial.suggest_float("lr", 0.1, 0.1)])
@pytest.mark.parametrize("storage", [None, "sqlite://"])
def test_a_trial_without_anything_to_choose_has_a_stage_and_a_reason(objective: Any, storage: Any) -> None:
    study = optuna.create_study(sampler=DisciplinedSampler(seed=0), storage=storage)
    study.optimize(objective, n_trials=3)
    assert all(trial.user_attrs["stage"] and trial.user_attrs["reason"] for trial in study.trials)


@pytest.mark.parametrize(("low", "step"), [(0.02, 0.07), (0.0, 0.25)])
def test_a_learning_rate_in_steps_is_never_0_and_its_ladder_repeats_none(low: float, step: float) -> None:
    study = optuna.create_study(sampler=DisciplinedSampler(seed=0))
    study.optimize(lambda trial: abs(trial.suggest_float("lr", low, 1.0, step=step) - 0.01), n_trials=4)
    rates = [trial.params["lr"] for trial in study.trials]
    assert min(rates) > 0
    assert len(set(rates)) == 4
