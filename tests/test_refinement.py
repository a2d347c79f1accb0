import math
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from optuna_discipline import DisciplinedSampler
from optuna_discipline import refinement
from optuna_discipline import suggestion
from optuna_discipline.rules.run import Run
from optuna_discipline.rules.space import Role
from optuna_discipline.trial_record import CLAIM_KEY
from optuna_discipline.trial_record import read_claim
from tests.formulas import five_roles
from tests.formulas import formula

LR = FloatDistribution(1e-5, 10, log=True)


def _ended(
    configurations: Sequence[Mapping[str, Any]], known: Mapping[str, Any], losses: Iterable[float]
) -> tuple[list[FrozenTrial], list[Run]]:
    """Return complete trials and their runs, all at one learning rate."""
    trials = []
    for number, (params, loss) in enumerate(zip(configurations, losses, strict=True)):
        trials.append(optuna.create_trial(params=params, distributions={n: known[n] for n in params}, value=loss))
        trials[-1].number = number
    return trials, [Run(trial.number, "complete", {"lr": 0.1}, trial.value) for trial in trials]


def test_what_the_model_has_promised_to_a_trial_counts_before_its_objective_asks_for_it() -> None:
    claim = {"stage": "refine", "slot": "model", "suggested": {"lr": 0.1}}
    trial = optuna.create_trial(state=TrialState.RUNNING, system_attrs={CLAIM_KEY: claim})
    assert refinement.suggested_to(trial) == {"lr": 0.1}
    assert refinement.suggested_to(optuna.create_trial(state=TrialState.RUNNING)) == {}


@pytest.mark.parametrize("sampler", [0, RandomSampler(seed=0)])
def test_what_the_best_run_lacks_stays_where_it_was_best(sampler: Any) -> None:
    lr, width = FloatDistribution(1e-3, 1.0, log=True), IntDistribution(1, 9)
    deep = CategoricalDistribution([False, True])
    known = {"lr": lr, "deep": deep, "width": width}
    deeper: list[dict[str, Any]] = [{"lr": 0.1, "deep": True, "width": width} for width in (7, 2)]
    params = [{"lr": 0.1, "deep": False}, *deeper, {"lr": 0.3, "deep": False}]
    trials, runs = _ended(params, known, (0.1, 0.3, 0.2, 0.4))

    def widths(runs: list[Run]) -> set[int]:
        found = [refinement.refine(sampler, trials, runs, known, {"lr": "lr"}, {}, coupled=None) for _ in range(9)]
        return {one["width"] for one in found}

    assert widths(runs) == {2}
    assert widths(runs[1:]) != {2}  # the best run has a width now


@pytest.mark.parametrize(
    ("answer", "n_trials", "asked"),
    [
        ({"kind": "tree", "width": 5}, 3, [{"kind", "width"}, {"width"}]),
        ({"kind": "net", "width": 5}, 3, [{"kind", "width"}]),
        ({"kind": "net", "width": 7}, 2, [{"kind", "width"}]),  # no condition: it may repeat what is noisy
    ],
)
def test_a_sampler_whose_answer_has_run_but_for_what_does_not_exist_is_asked_again_with_what_decides_held(
    answer: dict[str, Any], n_trials: int, asked: list[set[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    known: dict[str, Any] = {"kind": CategoricalDistribution(["tree", "net"]), "width": IntDistribution(1, 9)}
    params: list[dict[str, Any]] = [{"kind": "net", "width": 7}, {"kind": "net", "width": 2}, {"kind": "tree"}]
    trials, runs = _ended(params[:n_trials], known, range(n_trials))
    given: list[set[str]] = []
    monkeypatch.setattr(refinement, "suggest", lambda *_, free, **__: given.append(free) or answer)
    assert refinement.refine(RandomSampler(seed=0), trials, runs, known, {}, {}, coupled=None) == answer
    assert given == asked


def test_a_stage_stays_with_the_networks_that_have_what_it_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    rate = FloatDistribution(1e-4, 1.0, log=True)
    known: dict[str, Any] = {"optimizer": CategoricalDistribution(["AdamW", "SGD"]), "lr": rate, "weight_decay": rate}
    params = [{"optimizer": "AdamW", "lr": 0.1, "weight_decay": 0.1}, {"optimizer": "SGD", "lr": 0.1}]
    trials, runs = _ended(params, known, (0, 1))
    moved: list[tuple[set[str], set[str]]] = []
    monkeypatch.setattr(refinement, "suggest_by_model", lambda *_, free, moving, **__: moved.append((free, moving)))
    roles: dict[str, Role] = {"lr": "lr", "weight_decay": "weight_decay"}
    stages: list[tuple[Role, ...] | None] = [("weight_decay", "lr"), None]
    for free in stages:
        refinement.refine(0, trials, runs, known, roles, {}, coupled=None, free=free)
    assert moved == [({"lr", "weight_decay"}, {"weight_decay"}), ({"lr", "weight_decay", "optimizer"}, set())]


def test_the_model_is_given_the_runs_in_their_order_so_that_the_latest_are_the_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    losses = [0.4, 0.1, 0.5, 0.2, 0.3]
    trials, runs = _ended([{"lr": 0.1}] * 5, {"lr": LR}, losses)
    given: list[suggestion.Point] = []
    monkeypatch.setattr(refinement, "suggest_by_model", lambda seed, points, *_, **__: given.extend(points))
    refinement.refine(0, trials, runs, {"lr": LR}, {"lr": "lr"}, {}, coupled=None)
    assert [point.loss for point in given] == losses


def test_the_model_is_told_what_could_not_run_but_for_what_has_run_since(monkeypatch: pytest.MonkeyPatch) -> None:
    rates, failed = (0.1, 0.2, 0.3), {0.2, 0.3}
    trials = [optuna.create_trial(params={"lr": 0.2}, distributions={"lr": LR}, value=0.5)]
    for lr in rates:
        state, value = (TrialState.FAIL, None) if lr in failed else (TrialState.COMPLETE, 0.4)
        trials.append(optuna.create_trial(state=state, params={"lr": lr}, distributions={"lr": LR}, value=value))
    for number, trial in enumerate(trials):
        trial.number = number
    runs = [
        Run(t.number, "failed" if t.value is None else "complete", {"lr": t.params["lr"]}, t.value, seconds=0.1)
        for t in trials
    ]
    given: list[suggestion.Point] = []
    monkeypatch.setattr(refinement, "suggest_by_model", lambda seed, points, *_, **__: given.extend(points))
    refinement.refine(0, trials, runs, {"lr": LR}, {"lr": "lr"}, {}, coupled=None)
    assert [(point.params["lr"], point.loss) for point in given] == [(0.2, 0.5), (0.1, 0.4), (0.3, math.inf)]


@pytest.mark.parametrize(
    ("suggested", "words"),
    [
        ({"lr": 0.25, "act": "relu"}, "trial 0, but lr 0.1 to 0.25"),
        (
            {"lr": 0.1001, "act": "tanh", "width": 32, "depth": 1},
            "trial 0, but act relu to tanh, width 64 to 32, lr as it was, new depth 1",
        ),
        ({"lr": 0.10001, "act": "relu"}, "trial 0 again"),
        ({"lr": 0.1, "momentum": 0.9}, "trial 0, but new momentum 0.9"),
        (
            {"act": "elu", "width": 1, "a": 2, "b": 2, "c": 2, "lr": 0.2},
            "trial 0, but lr 0.1 to 0.2, act relu to elu, width 64 to 1, a 1 to 2, 2 others",
        ),
        (
            {"act": "elu", "width": 1, "a": 2, "b": 2, "c": 2, "lr": 0.1},
            "trial 0, but act relu to elu, width 64 to 1, a 1 to 2, b 1 to 2, 2 others",
        ),
        (
            {"act": "elu", "width": 1, "a": 2, "b": 2, "lr": 0.2},
            "trial 0, but lr 0.1 to 0.2, act relu to elu, width 64 to 1, a 1 to 2, b 1 to 2",
        ),
        ({"lr": 0.1, "a": 3}, "trial 0, but a 1 to 3, lr as it was"),
    ],
)
def test_what_the_model_changes_is_said_in_words(suggested: dict[str, Any], words: str) -> None:
    params: dict[str, Any] = {"lr": 0.1, "act": "relu", "width": 64, "a": 1, "b": 1, "c": 1}
    study = optuna.create_study()
    study.enqueue_trial(params)
    trial = study.ask()
    trial.suggest_float("lr", 0.01, 1)
    trial.suggest_categorical("act", ["relu", "tanh", "elu"])
    for name in ("width", "a", "b", "c"):
        trial.suggest_int(name, 1, 64)
    study.tell(trial, 1.0)
    roles: dict[str, Role] = {"lr": "lr"}
    assert refinement.describe_moves(suggested, study.trials[0], roles, "lr") == words
    assert refinement.describe_moves({}, study.trials[0], roles, "lr") == ""


def test_a_second_learning_rate_has_a_box_around_its_own_value() -> None:
    roles: dict[str, Role] = {"lr_body": "lr", "lr_head": "lr", "sgd.momentum": "momentum", "wd": "weight_decay"}
    params = {"lr_body": 0.001, "lr_head": 0.01, "sgd.momentum": 0.9, "width": 8}
    box: dict[Role, tuple[float, float]] = {"lr": (0.0005, 0.002), "momentum": (0.5, 0.95)}
    space = {name: FloatDistribution(0, 10) for name in params}
    found = refinement._by_name(box, roles, params, space)
    assert found["lr_head"] == pytest.approx((0.005, 0.02))
    assert {name: found[name] for name in ("lr_body", "sgd.momentum")} == {
        "lr_body": (0.0005, 0.002),
        "sgd.momentum": (0.5, 0.95),
    }
    assert set(found) == {"lr_body", "lr_head", "sgd.momentum"}
    frozen = refinement._by_name(box, roles, {**params, "lr_head": 0.0}, space)
    assert set(frozen) == {"lr_body", "sgd.momentum"}


def test_a_second_learning_rate_that_is_0_in_the_best_run_is_searched_in_all_its_bounds() -> None:
    space: dict[str, Any] = {"lr": LR, "lr_head": FloatDistribution(0, 1e-2)}
    trials, runs = _ended([{"lr": 0.1, "lr_head": x} for x in (0.0, 1e-3)], space, (0.1, 0.3))
    found = refinement.refine(0, trials, runs, space, {"lr": "lr", "lr_head": "lr"}, {"lr": (0.05, 0.2)}, coupled=None)
    assert 0.05 <= found["lr"] <= 0.2
    assert found["lr_head"] > 0


@pytest.mark.parametrize("high", [1e4, 1e12, 1e300])
def test_a_range_that_was_narrowed_however_much_is_modelled(high: float) -> None:
    wide, narrow = ({"lr": LR, "c": FloatDistribution(0, x)} for x in (high, 1.0))
    shares = (0.0, 0.2, 0.5, 1.0)
    trials, runs = _ended([{"lr": 0.1, "c": c * high} for c in shares], wide, [c + 0.1 for c in shares])
    found = refinement.refine(0, trials, runs, narrow, {"lr": "lr"}, {"lr": (0.05, 0.2)}, coupled=None)
    assert 0 <= found["c"] <= 1


@pytest.mark.parametrize("sampler", [0, RandomSampler(seed=0)])
def test_runs_of_any_length_count_and_move_where_the_length_is_a_parameter(sampler: Any) -> None:
    space: dict[str, Any] = {"lr": LR, "epochs": IntDistribution(5, 200)}
    roles: dict[str, Role] = {"lr": "lr", "epochs": "epochs"}
    lengths = {200: 0.5, 100: 0.3, 20: 0.1}
    trials, _ = _ended([{"lr": 0.1, "epochs": n} for n in lengths], space, lengths.values())
    runs = [Run(trial.number, "complete", trial.params, trial.value) for trial in trials]

    def suggested(any_length: bool) -> dict[str, Any]:
        return refinement.refine(sampler, trials, runs, space, roles, {}, coupled=None, any_length=any_length)

    assert set(suggested(False)) == {"lr"}
    assert 5 <= suggested(True)["epochs"] <= 200


def test_a_wide_range_of_lengths_is_searched_in_logs() -> None:
    assert refinement._in_logs(IntDistribution(5, 200)) == IntDistribution(5, 200, log=True)
    few: list[Any] = [IntDistribution(5, 40), IntDistribution(10, 200, step=10), CategoricalDistribution([5, 200])]
    assert [refinement._in_logs(one) for one in few] == few


def test_words_and_short_counts_may_decide_which_parameters_exist() -> None:
    space: dict[str, Any] = {
        "width": IntDistribution(8, 512),
        "layers": IntDistribution(1, 3),
        "kind": CategoricalDistribution(["a", "b"]),
        "drop": FloatDistribution(0, 1),
        "batch": IntDistribution(1, 2),
    }
    assert refinement._switches(space, {"batch": "batch_size"}) == ["kind", "layers", "width"]


def test_what_others_hold_is_known_by_the_latest_trial_that_was_to_have_another_value() -> None:
    def trial(wish: float | None, ran: float, high: float = 1.0) -> optuna.trial.FrozenTrial:
        claim = {"stage": "refine", "slot": "model", "suggested": {} if wish is None else {"x": wish}}
        space = {"x": FloatDistribution(0, high)}
        return optuna.create_trial(params={"x": ran}, distributions=space, value=1.0, system_attrs={CLAIM_KEY: claim})

    held = trial(0.7, 0.5)
    assert refinement.held_by_others([trial(0.3, 0.3), held, trial(None, 0.5)]) == {"x": 0.5}
    assert refinement.held_by_others([held, trial(0.3, 0.3)]) == {}
    assert refinement.held_by_others([trial(0.7, 0.5, high=0.5)]) == {}  # its own bounds
    assert refinement.held_by_others([held, *[trial(None, 0.5)] * refinement.TRY_AGAIN]) == {}


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
@pytest.mark.parametrize("fixed", [{"lr": 1.0}, {"slope": 0.25}])
def test_what_a_sampler_around_ours_held_is_free_once_ours_is_asked_for_it_again(fixed: dict[str, Any]) -> None:
    def objective(trial: optuna.Trial) -> float:
        return five_roles(trial) + trial.suggest_float("slope", 0, 1)

    study = optuna.create_study(sampler=DisciplinedSampler(seed=0))
    study.optimize(objective, n_trials=5)
    study.sampler = optuna.samplers.PartialFixedSampler(fixed, DisciplinedSampler(seed=0))
    study.optimize(objective, n_trials=refinement.TRY_AGAIN + 2)
    after = len(study.trials)
    study.sampler = DisciplinedSampler(seed=0)
    study.optimize(objective, n_trials=4)
    ((name, value),) = fixed.items()
    words = f"; {refinement.describe_held(fixed)}"
    for trial in study.trials[6:after]:
        assert trial.params[name] == value
        assert trial.user_attrs["reason"].endswith(words)
        assert f"{name} " not in trial.user_attrs["reason"].removesuffix(words)  # the model knows it
    assert study.trials[5].user_attrs["reason"].endswith(words)
    assert all(words not in trial.user_attrs["reason"] for trial in study.trials[after:])  # the first is asked for it
    assert name == "lr" or study.trials[after].params[name] == value  # what the model chose the rest for
    assert any(trial.params[name] != value for trial in study.trials[after + 1 :])


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_a_first_rate_that_is_held_is_said_to_be() -> None:
    sampler = optuna.samplers.PartialFixedSampler({"lr": 0.05}, DisciplinedSampler(seed=0))
    study = optuna.create_study(sampler=sampler)
    study.optimize(five_roles, n_trials=2)
    reasons = [trial.user_attrs["reason"] for trial in study.trials]
    assert all(reason.endswith("; at lr 0.05, held by another sampler") for reason in reasons)
    assert reasons[1].count("held by") == 1


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_what_another_sampler_or_process_asks_for_is_not_taken_for_fixed() -> None:
    study = optuna.create_study(sampler=DisciplinedSampler(seed=0))
    for _ in range(3):
        trial = study.ask()
        lr = trial.suggest_float("lr", 1e-5, 10, log=True)
        study.sampler, before = DisciplinedSampler(seed=0), study.sampler
        momentum = trial.suggest_float("momentum", 0.8, 0.99)
        study.sampler = before
        study.tell(trial, formula(lr, momentum))
    assert all("held" not in (read_claim(trial) or {}) for trial in study.trials)
    study.sampler = optuna.samplers.PartialFixedSampler({"lr": 0.05}, DisciplinedSampler(seed=0))
    study.optimize(five_roles, n_trials=13)
    claims = [read_claim(trial) or {} for trial in study.trials[3:]]
    assert all(claim.get("held") == ["lr"] or "lr" in claim["suggested"] for claim in claims)
    assert all(trial.user_attrs["stage"] != "lr" for trial in study.trials[4:])


def test_a_move_between_classes_is_said_by_their_names() -> None:
    assert refinement.moves_of({"act": int}, {"act": dict}, {}, "refine") == ["act dict to int"]


def test_words_are_drawn_anew_where_the_best_run_has_its_numbers() -> None:
    x, word = FloatDistribution(1e-3, 1.0, log=True), CategoricalDistribution(["a", "b"])
    space: dict[str, Any] = {"x": x, "kind": word, "norm": word, "depth": CategoricalDistribution([1, 2])}
    trials = []
    for number, kind in enumerate("ab"):
        params = {"x": 0.3 - 0.1 * number, "kind": kind, "norm": "a", "depth": 2}
        trials.append(optuna.create_trial(params=params, distributions=space, value=1.0 + number))
        trials[-1].number = number
    runs = [Run(trial.number, "complete", {}, trial.value) for trial in trials]

    def drawn(free: dict[str, Any]) -> list[dict[str, Any]]:
        return [
            refinement.refine(RandomSampler(seed=0), trials, runs, free, {}, {}, coupled=None, redraw=seed)
            for seed in range(20)
        ]

    words = [one for one in drawn(space) if math.isclose(one["x"], 0.3)]
    assert all(one["depth"] == 2 for one in words)  # a list of numbers is none of words
    assert {one["kind"] + one["norm"] for one in words} == {"ab", "bb", "ba"}  # "aa" has run: the sampler is asked
    assert len(words) < 20
    assert not any(math.isclose(one["x"], 0.3) for one in drawn({"x": x, "kind": word}))  # one list alone
