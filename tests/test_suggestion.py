import math
from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution

from optuna_discipline import suggestion
from optuna_discipline.parameters import roles_of
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


def assert_in_space_and_box(params: dict[str, Any], coupled: float | None) -> None:
    assert set(params) == set(SPACE)
    for name, distribution in SPACE.items():
        assert distribution._contains(distribution.to_internal_repr(params[name])), name
    assert 1e-5 * 0.999 <= params["weight_decay"] <= 1e-3 * 1.001
    step = params["lr"] / (1 - params["momentum"]) if coupled else params["lr"]
    scale = 1 - 0.95 if coupled else 1.0
    assert 0.025 / scale * 0.999 <= step <= 0.3 / scale * 1.001


@pytest.mark.parametrize("coupled", [0.95, None])
def test_our_own_models_suggestions_lie_in_space_and_box(coupled: float | None) -> None:
    points = [*POINTS, suggestion.Point({**BEST, "lr": 5.0}, 0.9), suggestion.Point({**BEST, "lr": 0.12}, None)]
    for seed in range(10):
        params = suggestion.suggest_by_model(seed, points, SPACE, ROLES, BOX, coupled=coupled)
        assert_in_space_and_box(params, coupled)


@pytest.mark.parametrize(
    ("name", "distribution", "best"),
    [
        ("batch_size", IntDistribution(32, 256, step=32), 192),
        ("lr", FloatDistribution(0.01, 0.1, step=0.01), 0.07),
        ("n_layers", IntDistribution(1, 8, log=True), 6),
    ],
)
def test_no_value_is_repeated_before_all_have_run_and_then_the_best(name: str, distribution: Any, best: float) -> None:
    roles, points = roles_of({name: distribution}), [suggestion.Point({name: distribution.low}, abs(best))]
    many = round((distribution.high - distribution.low) / distribution.step) + 1
    for seed in range(many + 3):
        params = suggestion.suggest_by_model(seed, points, {name: distribution}, roles, {}, coupled=None)
        points.append(suggestion.Point(params, abs(params[name] - best)))
    values = [point.params[name] for point in points]
    assert len({round(value, 6) for value in values[:many]}) == many
    assert values[-1] == pytest.approx(best)


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
