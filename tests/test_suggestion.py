import math
import sys
from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from optuna.samplers import RandomSampler
from optuna.samplers import TPESampler

from optuna_discipline import suggestion
from optuna_discipline.parameters import allows
from optuna_discipline.rules.space import Role

SPACE: dict[str, Any] = {
    "momentum": FloatDistribution(0.8, 0.99),
    "lr": FloatDistribution(1e-5, 10, log=True),
    "weight_decay": FloatDistribution(1e-7, 0.1, log=True),
    "batch_size": CategoricalDistribution([64, 16, 256]),
    "width": IntDistribution(8, 64, log=True),
    "kind": CategoricalDistribution(["a", "b"]),
}
ROLES: dict[str, Role] = {
    "momentum": "momentum",
    "lr": "lr",
    "weight_decay": "weight_decay",
    "batch_size": "batch_size",
}
BEST = {"momentum": 0.95, "lr": 0.1, "weight_decay": 1e-4, "batch_size": 64, "width": 32, "kind": "a"}
BOX: dict[Role, tuple[float, float]] = {"lr": (0.025, 0.3), "weight_decay": (1e-5, 1e-3)}
POINTS = [
    suggestion.Point(BEST, 0.3),
    suggestion.Point({**BEST, "lr": 0.05}, 0.4),
    suggestion.Point({**BEST, "lr": 0.2}, math.inf),
]


@pytest.mark.parametrize("coupled", [0.95, None])
def test_suggestions_lie_in_space_and_box(coupled: float | None) -> None:
    for seed in range(20):
        params = suggestion.suggest(RandomSampler(seed=seed), POINTS, SPACE, ROLES, BOX, coupled=coupled)
        assert set(params) == set(SPACE)
        for name, distribution in SPACE.items():
            assert distribution._contains(distribution.to_internal_repr(params[name])), name
        assert 1e-5 * 0.999 <= params["weight_decay"] <= 1e-3 * 1.001
        step = params["lr"] / (1 - params["momentum"]) if coupled else params["lr"]
        scale = 1 - 0.95 if coupled else 1.0
        assert 0.025 / scale * 0.999 <= step <= 0.3 / scale * 1.001


def test_a_diverged_run_is_bad_but_not_how_bad() -> None:
    assert suggestion._tame([0.3, 0.4, 55.0, math.inf]) == pytest.approx([0.3, 0.4, 0.7, 0.7])
    assert max(suggestion._tame([0.3, 0.35, 0.4, 55.0, math.inf])) < 1.0
    assert suggestion._tame([math.inf]) == [0.0]


def test_the_default_model_is_a_gaussian_process_or_tpe_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    assert isinstance(suggestion.default_refine_sampler(0), optuna.samplers.GPSampler)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert isinstance(suggestion.default_refine_sampler(0), TPESampler)


def test_the_shadow_study_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    optuna.logging.set_verbosity(optuna.logging.INFO)
    suggestion.suggest(RandomSampler(seed=0), POINTS, SPACE, ROLES, BOX, coupled=None)
    assert "A new study" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("role", "distribution"),
    [
        ("momentum", FloatDistribution(0.9991, 0.9999)),
        ("momentum", FloatDistribution(0.0, 1.0)),
        ("momentum", CategoricalDistribution([0.9, 0.99])),
        ("lr", FloatDistribution(-1, 1)),
        ("lr", FloatDistribution(-2, -1)),
        ("lr", IntDistribution(1, 9)),
        ("lr", CategoricalDistribution([0.001, 0.1])),
        ("weight_decay", FloatDistribution(0.0, 0.0)),
        ("weight_decay", FloatDistribution(0.0, 1e-12)),
        ("batch_size", IntDistribution(16, 256, step=16)),
    ],
)
@pytest.mark.parametrize("box", [{}, {"lr": (50.0, 90.0)}, {"lr": (1e-12, 1e-11)}, {"weight_decay": (1.0, 2.0)}])
def test_odd_ranges_are_searched_too_and_a_box_beside_them_moves_nothing_out(
    role: Role, distribution: Any, box: Any
) -> None:
    for seed in range(3):
        params = suggestion.suggest(RandomSampler(seed=seed), [], {"x": distribution}, {"x": role}, box, coupled=0.95)
        assert allows(distribution, params["x"])


@pytest.mark.parametrize("missing", ["torch", "scipy"])
def test_tpe_takes_over_and_stays_in_the_box(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    sampler = suggestion.default_refine_sampler(1)
    assert isinstance(sampler, TPESampler)
    points = [suggestion.Point({**BEST, "lr": 0.03 + 0.02 * i, "batch_size": 16}, 0.3 + 0.01 * i) for i in range(12)]
    params = suggestion.suggest(sampler, points, SPACE, ROLES, BOX, coupled=None)
    assert all(allows(SPACE[name], value) for name, value in params.items())
    assert 0.025 * 0.999 <= params["lr"] <= 0.3 * 1.001
    assert params["batch_size"] in (16, 64, 256)


def test_points_under_way_are_kept_clear_of() -> None:
    pytest.importorskip("torch")
    points = [suggestion.Point({"lr": 10.0 ** -(0.5 * i)}, abs(0.5 * i - 1.7)) for i in range(1, 8)]
    space: dict[str, Any] = {"lr": SPACE["lr"]}

    def ask(seed: int, pending: list[float]) -> float:
        sampler = suggestion.default_refine_sampler(seed)
        known = [*points, *(suggestion.Point({"lr": lr}, None) for lr in pending)]
        return float(suggestion.suggest(sampler, known, space, {"lr": "lr"}, {}, coupled=None)["lr"])

    alone = [ask(seed, []) for seed in range(3)]
    assert max(alone) < 1.3 * min(alone)  # asked at the same moment, workers would meet
    together: list[float] = []
    for seed in range(3):
        together.append(ask(seed, together))
    together.sort()
    assert together[1] > 1.3 * together[0] or together[2] > 1.3 * together[1]


@pytest.mark.parametrize("coupled", [0.95, None])
def test_our_own_models_suggestions_lie_in_space_and_box(coupled: float | None) -> None:
    points = [*POINTS, suggestion.Point({**BEST, "lr": 5.0}, 0.9), suggestion.Point({**BEST, "lr": 0.12}, None)]
    for seed in range(10):
        params = suggestion.suggest_by_model(seed, points, SPACE, ROLES, BOX, coupled=coupled)
        assert set(params) == set(SPACE)
        for name, distribution in SPACE.items():
            assert distribution._contains(distribution.to_internal_repr(params[name])), name
        assert 1e-5 * 0.999 <= params["weight_decay"] <= 1e-3 * 1.001
        step = params["lr"] / (1 - params["momentum"]) if coupled else params["lr"]
        scale = 1 - 0.95 if coupled else 1.0
        assert 0.025 / scale * 0.999 <= step <= 0.3 / scale * 1.001


def test_our_own_model_moves_only_what_is_free() -> None:
    params = suggestion.suggest_by_model(0, POINTS, SPACE, ROLES, BOX, coupled=None, free={"momentum", "lr"})
    assert {name: params[name] for name in SPACE if name not in ("momentum", "lr")} == pytest.approx(
        {name: BEST[name] for name in SPACE if name not in ("momentum", "lr")}
    )
    assert suggestion.suggest_by_model(0, POINTS, SPACE, ROLES, BOX, coupled=None, free=set()) == {}


def test_what_is_to_move_does_so_clearly_where_it_can() -> None:
    points = [POINTS[0], *(suggestion.Point({**BEST, "weight_decay": x}, 0.9) for x in (1e-5, 3e-5, 3e-4, 1e-3))]

    def decays(space: dict[str, Any], moving: set[str]) -> list[float]:
        free, seeds = {"weight_decay", "lr"}, (0, 1, 2)
        found = [
            suggestion.suggest_by_model(seed, points, space, ROLES, BOX, coupled=None, free=free, moving=moving)
            for seed in seeds
        ]
        return [params["weight_decay"] for params in found]

    assert any(0.41 < x / 1e-4 < 2.4 for x in decays(SPACE, set()))
    assert not any(0.41 < x / 1e-4 < 2.4 for x in decays(SPACE, {"weight_decay"}))
    one = {**SPACE, "weight_decay": FloatDistribution(1e-4, 1e-4)}
    assert set(decays(one, {"weight_decay"})) == {1e-4}


def test_our_own_model_has_nothing_to_say_before_the_first_run() -> None:
    assert suggestion.suggest_by_model(0, [], SPACE, ROLES, BOX, coupled=None) == {}
    running = [suggestion.Point(BEST, None)]
    assert set(suggestion.suggest_by_model(0, running, SPACE, ROLES, BOX, coupled=None)) == set(SPACE)
    assert set(suggestion.suggest_by_model(0, running, SPACE, ROLES, BOX, coupled=None, free={"lr"})) == {"lr"}


def test_before_the_first_run_has_ended_other_workers_are_spread_over_the_box() -> None:
    running = [suggestion.Point(BEST, None)]
    drawn = [suggestion.suggest_by_model(seed, running, SPACE, ROLES, BOX, coupled=None) for seed in range(12)]
    assert all(0.025 * 0.999 <= params["lr"] <= 0.3 * 1.001 for params in drawn)
    assert min(params["lr"] for params in drawn) < 0.05 < 0.15 < max(params["lr"] for params in drawn)
    assert {params["kind"] for params in drawn} == {"a", "b"}
    assert {params["batch_size"] for params in drawn} == {16, 64, 256}


class _NeverAlone(RandomSampler):
    """Fails where a sampler falls back to one parameter at a time."""

    def sample_independent(self, *args: Any) -> Any:
        raise AssertionError("a parameter was left out of the model")


def test_where_all_that_ended_broke_the_search_goes_on_around_what_still_runs() -> None:
    broke = {**BEST, "lr": 0.6}
    points = [suggestion.Point(broke, math.inf), suggestion.Point(BEST, None)]
    drawn = [suggestion.suggest_by_model(seed, points, SPACE, ROLES, {}, coupled=0.95) for seed in range(12)]
    steps = [math.log(params["lr"] / (1 - params["momentum"])) for params in drawn]
    middle = math.log(math.sqrt(0.1 * 0.6) / 0.05)
    assert sum(step < middle for step in steps) >= 10


def test_a_users_sampler_keeps_its_model_while_the_box_moves() -> None:
    pytest.importorskip("torch")
    sampler = optuna.samplers.GPSampler(seed=0, n_startup_trials=1, independent_sampler=_NeverAlone())
    boxes: list[dict[Role, tuple[float, float]]] = [BOX, {"lr": (0.01, 0.5)}, {"lr": (0.05, 0.2)}]
    points = list(POINTS)
    for box, free in zip(boxes, ({"momentum", "lr"}, {"weight_decay", "lr"}, None), strict=True):
        params = suggestion.suggest(sampler, points, SPACE, ROLES, box, coupled=None, free=free)
        assert all(allows(SPACE[name], value) for name, value in params.items())
        held = set(SPACE) - (set(SPACE) if free is None else free)
        assert {n: params[n] for n in held} == pytest.approx({n: BEST[n] for n in held})
        points.append(suggestion.Point(params, 0.5))
    assert suggestion.suggest(sampler, points, SPACE, ROLES, BOX, coupled=None, free=set()) == {}
