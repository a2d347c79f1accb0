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

from optuna_discipline import shadow
from optuna_discipline.coordinates import Coordinates
from optuna_discipline.parameters import allows
from optuna_discipline.rules.space import Role
from optuna_discipline.shadow import Shares
from optuna_discipline.suggestion import Point
from tests.test_suggestion import BEST
from tests.test_suggestion import BOX
from tests.test_suggestion import POINTS
from tests.test_suggestion import ROLES
from tests.test_suggestion import SPACE
from tests.test_suggestion import assert_in_space_and_box


@pytest.mark.parametrize("coupled", [0.95, None])
def test_coordinates_go_there_and_back(coupled: float | None) -> None:
    coordinates = Coordinates(SPACE, ROLES, BOX, coupled)
    shares = Shares(coordinates).of(BEST)
    assert shares is not None
    assert all(allows(distribution, shares[name]) for name, distribution in Shares(coordinates).space.items())
    assert Shares(coordinates).decoded(shares) == pytest.approx(BEST)


def test_the_space_of_shares_stays_when_the_box_moves() -> None:
    there, elsewhere = Coordinates(SPACE, ROLES, BOX, 0.95), Coordinates(SPACE, ROLES, {"lr": (1e-3, 0.02)}, 0.9)
    assert Shares(there).space == Shares(elsewhere).space
    assert there.space != elsewhere.space


def test_runs_outside_the_box_or_without_a_parameter_are_left_out() -> None:
    coordinates = Coordinates(SPACE, ROLES, BOX, None)
    assert Shares(coordinates).of({**BEST, "lr": 5.0}) is None
    assert Shares(coordinates).of({name: value for name, value in BEST.items() if name != "width"}) is None
    assert Shares(coordinates).of({**BEST, "kind": "unknown"}) is None


def test_a_run_a_little_outside_the_box_counts_at_its_edge() -> None:
    coordinates = Coordinates(SPACE, ROLES, BOX, None)
    top = Shares(coordinates).of({**BEST, "lr": 0.4})
    assert top is not None
    assert top["lr"] == 1


def test_large_momenta_are_modelled() -> None:
    distribution = FloatDistribution(0.9, 0.9999)
    coordinates = Coordinates({"m": distribution}, {"m": "momentum"}, {}, 0.95)
    shares = Shares(coordinates).of({"m": 0.9995})
    assert shares is not None
    assert Shares(coordinates).decoded(shares) == pytest.approx({"m": 0.9995})


@pytest.mark.parametrize(
    ("distribution", "value"),
    [
        (IntDistribution(1, 10**12, log=True), 120_654_753),
        (IntDistribution(-(10**6), 10**6, step=5), 35),
        (FloatDistribution(0.0, 1.0, step=1e-6), 0.123456),
    ],
)
def test_a_number_of_more_steps_than_can_be_listed_is_shown_as_a_share(distribution: Any, value: float) -> None:
    coordinates = Coordinates({**SPACE, "n_params": distribution}, ROLES, BOX, None)
    assert Shares(coordinates).space["n_params"] == FloatDistribution(0.0, 1.0)
    assert Shares(coordinates).space["width"] == SPACE["width"]
    shares = Shares(coordinates).of({**BEST, "n_params": value})
    assert shares is not None
    assert 0 < shares["n_params"] < 1
    found = Shares(coordinates).decoded(shares)["n_params"]
    assert found == pytest.approx(value)
    assert allows(distribution, found)
    for share, end in ((0.0, distribution.low), (1.0, distribution.high)):
        assert Shares(coordinates).decoded({**shares, "n_params": share})["n_params"] == end


@pytest.mark.parametrize("coupled", [0.95, None])
def test_suggestions_lie_in_space_and_box(coupled: float | None) -> None:
    for seed in range(20):
        params = shadow.suggest(RandomSampler(seed=seed), POINTS, SPACE, ROLES, BOX, coupled=coupled)
        assert_in_space_and_box(params, coupled)


def test_a_diverged_run_is_bad_but_not_how_bad() -> None:
    assert shadow._tame([0.3, 0.4, 55.0, math.inf]) == pytest.approx([0.3, 0.4, 0.7, 0.7])
    assert max(shadow._tame([0.3, 0.35, 0.4, 55.0, math.inf])) < 1.0
    assert shadow._tame([math.inf]) == [0.0]


def test_the_default_model_is_a_gaussian_process_or_tpe_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    assert isinstance(shadow.default_refine_sampler(0), optuna.samplers.GPSampler)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert isinstance(shadow.default_refine_sampler(0), TPESampler)


def test_the_shadow_study_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    optuna.logging.set_verbosity(optuna.logging.INFO)
    shadow.suggest(RandomSampler(seed=0), POINTS, SPACE, ROLES, BOX, coupled=None)
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
        params = shadow.suggest(RandomSampler(seed=seed), [], {"x": distribution}, {"x": role}, box, coupled=0.95)
        assert allows(distribution, params["x"])


@pytest.mark.parametrize("missing", ["torch", "scipy"])
def test_tpe_takes_over_and_stays_in_the_box(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    sampler = shadow.default_refine_sampler(1)
    assert isinstance(sampler, TPESampler)
    points = [Point({**BEST, "lr": 0.03 + 0.02 * i, "batch_size": 16}, 0.3 + 0.01 * i) for i in range(12)]
    params = shadow.suggest(sampler, points, SPACE, ROLES, BOX, coupled=None)
    assert all(allows(SPACE[name], value) for name, value in params.items())
    assert 0.025 * 0.999 <= params["lr"] <= 0.3 * 1.001
    assert params["batch_size"] in (16, 64, 256)


def test_points_under_way_are_kept_clear_of() -> None:
    pytest.importorskip("torch")
    points = [Point({"lr": 10.0 ** -(0.5 * i)}, abs(0.5 * i - 1.7)) for i in range(1, 8)]
    space: dict[str, Any] = {"lr": SPACE["lr"]}

    def ask(seed: int, pending: list[float]) -> float:
        sampler = shadow.default_refine_sampler(seed)
        known = [*points, *(Point({"lr": lr}, None) for lr in pending)]
        return float(shadow.suggest(sampler, known, space, {"lr": "lr"}, {}, coupled=None)["lr"])

    alone = [ask(seed, []) for seed in range(3)]
    assert max(alone) < 1.3 * min(alone)  # asked at the same moment, workers would meet
    together: list[float] = []
    for seed in range(3):
        together.append(ask(seed, together))
    together.sort()
    assert together[1] > 1.3 * together[0] or together[2] > 1.3 * together[1]


class _NeverAlone(RandomSampler):
    """Fails where a sampler falls back to one parameter at a time."""

    def sample_independent(self, *args: Any) -> Any:
        raise AssertionError("a parameter was left out of the model")


def test_a_users_sampler_keeps_its_model_while_the_box_moves() -> None:
    pytest.importorskip("torch")
    sampler = optuna.samplers.GPSampler(seed=0, n_startup_trials=1, independent_sampler=_NeverAlone())
    boxes: list[dict[Role, tuple[float, float]]] = [BOX, {"lr": (0.01, 0.5)}, {"lr": (0.05, 0.2)}]
    points = list(POINTS)
    for box, free in zip(boxes, ({"momentum", "lr"}, {"weight_decay", "lr"}, None), strict=True):
        params = shadow.suggest(sampler, points, SPACE, ROLES, box, coupled=None, free=free)
        assert all(allows(SPACE[name], value) for name, value in params.items())
        held = set(SPACE) - (set(SPACE) if free is None else free)
        assert {n: params[n] for n in held} == pytest.approx({n: BEST[n] for n in held})
        points.append(Point(params, 0.5))
    assert shadow.suggest(sampler, points, SPACE, ROLES, BOX, coupled=None, free=set()) == {}
