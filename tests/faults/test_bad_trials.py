"""Trials that raise, hang, or return something that is no number; studies that change half-way."""

import datetime
import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from optuna_discipline import DisciplinedPruner
from optuna_discipline import DisciplinedSampler
from optuna_discipline import Recipe
from optuna_discipline.decision import APART
from optuna_discipline.decision import RETREAT
from optuna_discipline.rules.slots import MAX_FAILURES
from optuna_discipline.trial_record import read_claim
from optuna_discipline.visualization import story

pytestmark = pytest.mark.filterwarnings(
    "ignore:The value .* is not acceptable", "ignore:The value .* could not be cast"
)


def new_study() -> optuna.Study:
    return optuna.create_study(sampler=DisciplinedSampler(Recipe(stages=("lr", "momentum", "refine")), seed=0))


def good(trial: optuna.Trial) -> Any:
    lr, momentum = trial.suggest_float("lr", 1e-5, 10, log=True), trial.suggest_float("momentum", 0.8, 0.99)
    return (math.log10(lr / (1 - momentum)) - 0.3) ** 2


def bad(what: Any) -> Callable[[optuna.Trial], Any]:
    def objective(trial: optuna.Trial) -> Any:
        good(trial)
        if isinstance(what, Exception):
            raise what
        return what

    return objective


def slots(study: optuna.Study) -> list[str]:
    return [claim["slot"] for trial in study.trials if (claim := read_claim(trial)) is not None]


BAD = [RuntimeError("out of memory"), math.nan, None, "a good loss", [], {"loss": 1}, object()]


@pytest.mark.parametrize("what", BAD, ids=lambda what: type(what).__name__)
def test_what_is_no_result_is_asked_again_once_and_holds_up_nothing(what: Any) -> None:
    study = new_study()
    study.optimize(good, n_trials=1)
    study.optimize(bad(what), n_trials=1, catch=RuntimeError)
    study.optimize(good, n_trials=8)
    assert [trial.state for trial in study.trials].count(TrialState.FAIL) == 1
    assert slots(study)[1] == slots(study)[2] == "lr0:0.3333"
    assert slots(study)[-1] == "model"
    assert "momentum" in {trial.user_attrs["stage"] for trial in study.trials}


@pytest.mark.parametrize("what", BAD[:4], ids=lambda what: type(what).__name__)
def test_a_study_of_nothing_but_failures_goes_on_and_repeats_no_candidate_for_ever(what: Any) -> None:
    study = new_study()
    study.optimize(bad(what), n_trials=20, catch=RuntimeError)
    counts = Counter(slots(study))
    del counts["model"]
    assert max(counts.values()) == MAX_FAILURES
    assert len(study.trials) == 20


def does_not_fit(end: Callable[[], float]) -> Callable[[optuna.Trial], float]:
    """Return an objective whose first configuration ends so, as all do that are too large or of a wrong kind."""

    def objective(trial: optuna.Trial) -> float:
        width, layers = trial.suggest_int("width", 16, 1024, log=True), trial.suggest_int("layers", 1, 6)
        kind = trial.suggest_categorical("kind", ["impossible", "one", "other"])
        size, loss = trial.suggest_categorical("batch_size", [64, 128, 256]), good(trial)
        if width * layers * size > 20_000 or kind == "impossible":
            return end()
        trial.report(loss + 1, 0)
        return loss + 1 / width

    return objective


def raises() -> float:
    raise RuntimeError("out of memory")


def prunes() -> float:
    raise optuna.TrialPruned


@pytest.mark.parametrize(
    "end",
    [raises, prunes, lambda: math.inf, lambda: math.nan, lambda: 1e9],
    ids=["error", "pruned", "inf", "nan", "constant"],
)
def test_a_study_whose_first_configuration_cannot_run_finds_one_that_can(end: Callable[[], float]) -> None:
    study = new_study()
    study.optimize(does_not_fit(end), n_trials=16, catch=RuntimeError)
    could = [trial for trial in study.trials if trial.value is not None and trial.value < 1e8]
    assert could[0].number <= 6
    assert len(could) >= 8
    assert RETREAT in could[0].user_attrs["reason"]
    # the ladder begins anew where it had begun: its first rate was not to blame
    after = study.trials[could[0].number + 1]
    assert after.params["lr"] == pytest.approx(study.trials[0].params["lr"])
    assert {name: after.params[name] for name in ("width", "layers", "kind")} == {
        name: could[0].params[name] for name in ("width", "layers", "kind")
    }


@pytest.mark.parametrize(
    "end",
    [raises, prunes, lambda: math.inf, lambda: math.nan, lambda: 1e9],
    ids=["error", "pruned", "inf", "nan", "constant"],
)
def test_what_runs_above_the_start_is_found_and_searched(end: Callable[[], float]) -> None:
    def objective(trial: optuna.Trial) -> float:
        lr, size = trial.suggest_float("lr", 1e-5, 10, log=True), trial.suggest_int("batch_size", 8, 1024, log=True)
        if lr < 0.2 or size < 64:
            return end()
        return math.log10(lr) ** 2 + (math.log10(size) - 2.5) ** 2

    study = new_study()
    study.optimize(objective, n_trials=30, catch=RuntimeError)
    could = [trial for trial in study.trials if trial.value is not None and trial.value < 1e8]
    assert could[0].user_attrs["reason"] == "drawn from all there is, as nothing has run so far"
    assert max(Counter(str(trial.params) for trial in study.trials).values()) <= MAX_FAILURES
    assert not any("best full run" in trial.user_attrs["reason"] for trial in study.trials[: could[0].number + 1])
    after = study.trials[could[0].number + 1]
    assert after.user_attrs["stage"] == "lr"  # the ladder begins where it runs
    assert after.params["batch_size"] == could[0].params["batch_size"]
    assert study.best_value < 0.1


def test_where_nothing_meets_the_constraints_the_reasons_say_so() -> None:
    def objective(trial: optuna.Trial) -> float:
        trial.set_constraint("latency", 1.0)
        return trial.suggest_float("lr", 1e-4, 1.0, log=True)

    study = new_study()
    study.optimize(objective, n_trials=8)
    assert study.trials[3].user_attrs["reason"].endswith("nothing has ended well within the constraints so far")
    drawn = "drawn from all there is, as nothing has run within the constraints so far"
    assert study.trials[7].user_attrs["reason"] == drawn
    study.tell(study.ask(), state=TrialState.FAIL)
    look, loosen = story.collect(study).next_steps
    assert look.startswith("Look at the error")
    assert loosen.startswith("8 of 9 trials broke a constraint: loosen it, move the bounds to where it holds, or run")


@pytest.mark.parametrize("end", [raises, prunes, lambda: math.inf], ids=["error", "pruned", "inf"])
def test_a_study_without_roles_keeps_clear_of_what_could_not_run(end: Callable[[], float]) -> None:
    def objective(trial: optuna.Trial) -> float:
        a, b = trial.suggest_float("alpha", 0, 1), trial.suggest_float("beta", 0, 1)
        return (a - 0.9) ** 2 + (b - 0.8) ** 2 if a + b > 1.5 else end()

    study = new_study()
    study.optimize(objective, n_trials=20, catch=RuntimeError)
    could = [t.number for t in study.trials if t.value is not None and math.isfinite(t.value)]
    assert len(could) >= 8
    assert max(Counter(str(trial.params) for trial in study.trials).values()) <= MAX_FAILURES
    assert APART in study.trials[2].user_attrs["reason"]


def test_where_no_epoch_is_a_number_other_configurations_are_drawn() -> None:
    def objective(trial: optuna.Trial) -> float:
        trial.suggest_float("lr", 1e-5, 10, log=True)
        for epoch in range(trial.suggest_int("epochs", 1, 4)):
            trial.report(math.nan, epoch)
        return math.nan

    study = new_study()
    study.optimize(objective, n_trials=16)
    assert len({trial.params["lr"] for trial in study.trials[6:]}) == 10
    assert {trial.params["epochs"] for trial in study.trials[6:]} == {4}


def test_the_model_learns_from_trials_that_could_not_run() -> None:
    def objective(trial: optuna.Trial) -> float:
        width, loss = trial.suggest_int("width", 16, 1024, log=True), good(trial)
        if width > 600:
            raise RuntimeError("out of memory")
        return loss + 10 / width

    study = new_study()
    study.optimize(objective, n_trials=30, catch=RuntimeError)
    failed = [trial.number for trial in study.trials if trial.state == TrialState.FAIL]
    assert 1 <= len(failed) <= 6
    assert study.best_params["width"] > 300


@pytest.mark.parametrize("loss", [math.inf, -math.inf])
def test_an_infinite_loss_is_a_result_but_never_the_base_of_a_stage(loss: float) -> None:
    study = new_study()
    study.optimize(good, n_trials=1)
    study.optimize(bad(loss), n_trials=1)
    study.optimize(good, n_trials=8)
    claims = [claim for trial in study.trials if (claim := read_claim(trial)) is not None]
    assert 1 not in {claim["like"] for claim in claims}
    assert slots(study).count("lr0:0.3333") == 1


def test_a_trial_that_hangs_is_waited_for_and_then_done_without() -> None:
    study = new_study()
    study.optimize(good, n_trials=1)
    hangs = study.ask()
    good(hangs)
    study.optimize(good, n_trials=6)
    assert set(slots(study)[3:]) == {"model"}  # the ladder waits, the workers do not
    for trial in study._storage.get_all_trials(study._study_id, deepcopy=False):  # an hour passes
        for name in ("datetime_start", "datetime_complete"):
            if (at := getattr(trial, name)) is not None:
                setattr(trial, name, at - datetime.timedelta(hours=1))
    study.optimize(good, n_trials=8)
    assert slots(study).count("lr0:0.3333") == 1  # another step has been taken, and says as much
    assert "momentum" in {trial.user_attrs["stage"] for trial in study.trials}


def test_a_search_space_that_changes_half_way_is_obeyed_at_every_trial() -> None:
    spaces: list[Callable[[optuna.Trial], Any]] = [
        lambda t: (t.suggest_float("lr", 1e-5, 10, log=True), t.suggest_float("momentum", 0.8, 0.99)),
        lambda t: (t.suggest_float("lr", 1e-3, 1e-2, log=True), t.suggest_float("momentum", 0.5, 0.6)),
        lambda t: (t.suggest_float("lr", 0.5, 0.5, log=True), t.suggest_float("weight_decay", 0, 0.1)),
        lambda t: (t.suggest_float("momentum", 0, 0), t.suggest_int("epochs", 1, 4), t.suggest_int("k", 1, 9)),
        lambda t: (t.suggest_float("lr", 1e-5, 1, log=True), t.suggest_int("epochs", 2, 2)),
        lambda t: (t.suggest_float("learning_rate", 1e-5, 1, log=True), t.suggest_float("beta1", 0.8, 0.99)),
        lambda t: (t.suggest_float("dropout", 0, 1),),
        lambda t: (t.suggest_float("lr", 1e-5, 10, log=True), t.suggest_int("batch_size", 16, 256, log=True)),
    ]
    study = new_study()
    for space in spaces * 2:
        study.optimize(lambda t, space=space: float(sum(space(t))), n_trials=2)
    assert {trial.state for trial in study.trials} == {TrialState.COMPLETE}
    for trial in study.trials:
        for name, distribution in trial.distributions.items():
            assert distribution._contains(distribution.to_internal_repr(trial.params[name]))


def test_a_recipe_that_changes_half_way_is_said_and_followed() -> None:
    study = new_study()
    study.optimize(good, n_trials=6)
    study.sampler = DisciplinedSampler(Recipe(stages=("lr", "weight_decay", "momentum", "refine")), seed=1)
    with pytest.warns(UserWarning, match="was begun with other settings of DisciplinedSampler"):
        study.optimize(lambda t: good(t) + t.suggest_float("weight_decay", 0, 0.1), n_trials=1)
    study.optimize(lambda t: good(t) + t.suggest_float("weight_decay", 0, 0.1), n_trials=9)
    assert {trial.state for trial in study.trials} == {TrialState.COMPLETE}
    assert "weight_decay" in {trial.user_attrs["stage"] for trial in study.trials[6:]}
    candidates = [slot for slot in slots(study) if slot != "model"]
    assert len(candidates) == len(set(candidates))


@pytest.mark.parametrize("reports_value", [True, False])
def test_reports_of_another_metric_than_the_value_stop_nothing(reports_value: bool) -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0), pruner=DisciplinedPruner())

    def objective(trial: optuna.Trial) -> float:
        last = 5.0 if reports_value else 0.1
        loss = 0.95 - 0.01 * trial.number if trial.number < 8 else last
        for epoch in range(20):
            trial.report(loss if reports_value else 1 - loss, epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        return loss

    study.optimize(objective, n_trials=9)
    assert (study.trials[-1].state == TrialState.PRUNED) == reports_value


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("fixed", [{"momentum": 0.0}, {"lr": 0.05}])
def test_what_a_sampler_around_ours_fixes_is_known_to_the_model_and_the_reasons(fixed: dict[str, Any]) -> None:
    def objective(trial: optuna.Trial) -> float:
        lr, momentum = trial.suggest_float("lr", 1e-5, 10, log=True), trial.suggest_float("momentum", 0, 0.99)
        return 0.06 * math.log(lr / (1 - momentum)) ** 2

    sampler = optuna.samplers.PartialFixedSampler(fixed, DisciplinedSampler(seed=0))
    study = optuna.create_study(sampler=sampler)
    study.optimize(objective, n_trials=12)
    assert study.best_value < 0.002
    assert len({tuple(trial.params.values()) for trial in study.trials[2:]}) == 10
    for trial in study.trials:
        assert "2 x the start" not in trial.user_attrs["reason"] or trial.params["lr"] != 0.05
