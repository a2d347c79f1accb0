import math
from typing import Any

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution

from optuna_discipline.coordinates import FARTHEST
from optuna_discipline.coordinates import SMALLEST
from optuna_discipline.coordinates import Coordinates
from optuna_discipline.parameters import roles_of
from optuna_discipline.rules.conditions import Condition
from optuna_discipline.rules.space import Role
from optuna_discipline.shadow import Shares

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


def test_a_weight_decay_in_a_range_from_0_is_searched_as_it_is_without_a_box() -> None:
    space, roles = {**SPACE, "weight_decay": FloatDistribution(0.0, 0.3)}, {**ROLES}
    coordinates = Coordinates(space, roles, BOX, None)
    at = list(space).index("weight_decay")
    values = [{**BEST, "weight_decay": x} for x in (0.0, 0.15, 0.3)]
    vectors = [coordinates.vector(params) for params in values]
    assert [None if vector is None else vector[at] for vector in vectors] == pytest.approx([0.0, 0.5, 1.0])
    known = coordinates.of_the_model()[at]
    assert (known.low, known.high) == (0.0, 1.0)
    assert [coordinates.params(vector) for vector in vectors if vector is not None] == [
        pytest.approx(params) for params in values
    ]


def test_a_momentum_given_as_1_less_itself_is_the_same_point() -> None:
    left = {**SPACE, "momentum": FloatDistribution(0.01, 0.2, log=True)}
    plain, turned = (Coordinates(space, ROLES, BOX, 0.95) for space in (SPACE, left))
    there = plain.vector(BEST)
    assert there is not None
    assert turned.vector({**BEST, "momentum": 0.05}) == pytest.approx(there)
    assert turned.params(there) == pytest.approx({**BEST, "momentum": 0.05})
    assert turned.of_the_model() == plain.of_the_model()


@pytest.mark.parametrize("coupled", [0.95, None])
def test_the_model_sees_a_run_as_one_vector_and_gives_it_back(coupled: float | None) -> None:
    coordinates = Coordinates(SPACE, ROLES, BOX, coupled)
    vector = coordinates.vector(BEST)
    assert vector is not None
    assert coordinates.params(vector) == pytest.approx(BEST)
    assert len(coordinates.of_the_model()) == len(vector) == len(SPACE)


def test_the_model_sees_runs_outside_of_the_box_but_none_that_lacks_a_parameter() -> None:
    coordinates = Coordinates(SPACE, ROLES, BOX, None)
    assert coordinates.vector({**BEST, "lr": 5.0}) is not None
    assert coordinates.vector({name: value for name, value in BEST.items() if name != "width"}) is None
    assert coordinates.vector({**BEST, "kind": "unknown"}) is None
    assert coordinates.vector({**BEST, "batch_size": 17}) is None


def test_a_list_of_numbers_is_searched_in_its_order() -> None:
    space = {**SPACE, "depth": CategoricalDistribution([4, 1, 2]), "size": CategoricalDistribution([1.0, 0.5])}
    coordinates = Coordinates(space, ROLES, BOX, 0.95)
    there = coordinates.vector({**BEST, "depth": 2, "size": 1.0})
    assert there is not None
    assert there[-2:].tolist() == [1.0, 1.0]
    assert coordinates.params(there) == pytest.approx({**BEST, "depth": 2, "size": 1.0})
    assert [(c.low, c.high, c.choices) for c in coordinates.of_the_model()[-2:]] == [(0, 2, False), (0, 1, False)]
    assert coordinates.vector({**BEST, "depth": 3, "size": 1.0}) is None


def test_two_spellings_of_a_number_are_one_place() -> None:
    coordinates = Coordinates({"lr": CategoricalDistribution(["1e-2", "1e-3", "0.001"])}, {"lr": "lr"}, {}, None)
    places = [coordinates.vector({"lr": text}) for text in ("1e-3", "0.001", "1e-2")]
    assert [place.tolist() for place in places if place is not None] == [[0], [0], [1]]
    assert coordinates.params(np.array([0.0])) == {"lr": "1e-3"}
    assert coordinates.vector({"lr": "words"}) is None


@pytest.mark.parametrize(
    ("box", "ends"),
    [
        ((0.01 / 8, 0.06), (1, 3)),  # a neighbour each side, where nothing else is within
        ((0.01, 0.06), (2, 3)),  # a box that ends at the best run's own rate is closed there
        ((0.01 / 8, 0.01), (1, 2)),
        ((1e-6, 100), (0, 4)),
        ((0.02, 0.06), (0, 4)),  # nothing within
    ],
)
def test_a_list_has_its_box_too(box: tuple[float, float], ends: tuple[int, int]) -> None:
    space = {"lr": CategoricalDistribution([1e-2, 1e-4, 1.0, 1e-3, 0.1])}
    (only,) = Coordinates(space, {"lr": "lr"}, {"lr": box}, None).of_the_model()
    assert (only.low, only.high) == ends


def test_the_box_of_a_list_of_1_less_momenta() -> None:
    space = {"one_minus_momentum": CategoricalDistribution([0.5, 0.2, 0.1, 0.05, 0.01])}
    roles: dict[str, Role] = {"one_minus_momentum": "momentum"}
    (only,) = Coordinates(space, roles, {"one_minus_momentum": (0.85, 0.95)}, 0.95).of_the_model()
    assert (only.low, only.high) == (1, 3)  # of 0.01 0.05 0.1 0.2 0.5; 0.2 is the neighbour of 0.1


def test_the_learning_rate_follows_the_batch_size_in_steps_of_its_choices() -> None:
    """Choices 16, 64, 256 are factors of 4 apart, and the best rate grows as batch ** 0.7."""
    coordinates = Coordinates(SPACE, ROLES, BOX, None)
    names = list(SPACE)
    lr = coordinates.of_the_model()[names.index("lr")]
    assert lr.follows is not None
    assert lr.follows == (names.index("batch_size"), pytest.approx(0.7 * 1.386, rel=1e-3))


def test_a_learning_rate_counts_against_the_usual_one_of_the_optimizer() -> None:
    space = {"lr": SPACE["lr"], "opt": CategoricalDistribution(["Adam", "SGD", "other"])}
    coordinates = Coordinates(space, {"lr": "lr"}, {"lr": (1e-3, 1e-2)}, None, optimizer_lr=5e-3)
    adam, sgd, other = [{"lr": lr, "opt": opt} for lr, opt in ((4e-3, "Adam"), (0.08, "SGD"), (4e-3, "other"))]
    vectors = [coordinates.vector(params) for params in (adam, sgd, other)]
    assert [vector[0] for vector in vectors if vector is not None] == pytest.approx([math.log(4e-3)] * 3)
    assert [coordinates.params(vector) for vector in vectors if vector is not None] == [
        pytest.approx(params) for params in (adam, sgd, other)
    ]
    there = Shares(coordinates).of(sgd)
    assert there is not None
    assert Shares(coordinates).decoded(there) == pytest.approx(sgd)


@pytest.mark.parametrize("momenta", [FloatDistribution(0.0, 0.99), CategoricalDistribution([0.9, 0.0, 0.99])])
def test_points_of_the_model_are_moved_to_what_a_trial_can_be_given(momenta: Any) -> None:
    space = {
        "opt": CategoricalDistribution(["SGD", "Adam"]),
        "lr": FloatDistribution(1e-4, 0.1, log=True),
        "momentum": momenta,
    }
    coordinates = Coordinates(space, {"lr": "lr", "momentum": "momentum"}, {}, 0.9, optimizer_lr=0.1)
    rng = np.random.default_rng(0)
    limits = [(c.low, c.high) for c in coordinates.of_the_model()]
    drawn = np.array([[rng.uniform(low, high) for low, high in limits] for _ in range(200)])
    drawn[:, 0] = drawn[:, 0].round()
    if isinstance(momenta, CategoricalDistribution):
        drawn[:, 2] = drawn[:, 2].round()
    within = coordinates.within_bounds(drawn)
    there = np.array([coordinates.vector(coordinates.params(point)) for point in within])
    assert np.abs(there - within).max() < 1e-9
    assert np.abs(within - drawn).max() > 1  # a momentum of 0 asked for a rate far above the bounds


@pytest.mark.parametrize(
    "space",
    [
        {"batch_size": IntDistribution(32, 256, step=32), "width": IntDistribution(1, 8, log=True)},
        {"lr": FloatDistribution(0.0, 0.1, step=0.01), "momentum": FloatDistribution(0.0, 0.9, step=0.1)},
        {"lr": FloatDistribution(1e-4, 1.0, log=True), "one_minus_momentum": FloatDistribution(0.05, 0.5, step=0.05)},
        {"log2_batch_size": IntDistribution(3, 9, step=2), "log_lr": IntDistribution(-5, -1)},
        {"weight_decay": FloatDistribution(0.0, 0.3, step=0.1), "epochs": IntDistribution(1, 30, log=True)},
    ],
)
def test_points_of_whole_numbers_and_steps_are_moved_to_the_values_there_are(space: dict[str, Any]) -> None:
    roles = {name: role for name, role in roles_of(space).items() if role != "epochs"}
    coordinates = Coordinates(space, roles, {}, 0.9)
    rng = np.random.default_rng(0)
    drawn = np.array([[rng.uniform(c.low, c.high) for c in coordinates.of_the_model()] for _ in range(200)])
    within = coordinates.within_bounds(drawn)
    there = np.array([coordinates.vector(coordinates.params(point)) for point in within])
    assert np.abs(there - within).max() < 1e-9
    assert np.abs(within - drawn).max() > 0.01


def test_a_momentum_keeps_to_its_box() -> None:
    space = {"momentum": FloatDistribution(0.0, 0.999)}
    coordinates = Coordinates(space, {"momentum": "momentum"}, {"momentum": (0.7, 0.99)}, None)
    (momentum,) = coordinates.of_the_model()
    assert (momentum.low, momentum.high) == pytest.approx((math.log(0.01), math.log(0.3)))


def test_what_does_not_exist_at_a_point_is_as_told() -> None:
    space = {
        "kind": CategoricalDistribution(["a", "b"]),
        "layers": IntDistribution(1, 3),
        "extra": FloatDistribution(0.0, 1.0),
        "units": IntDistribution(8, 64),
    }
    coordinates = Coordinates(space, {}, {}, None)
    conditions = {
        "extra": Condition("kind", {"a": False, "b": True}),
        "units": Condition("layers", {1: False, 2: True}),
        "gone": Condition("kind", {"a": False}),
    }
    otherwise = np.array([0.0, 0.0, 0.5, 0.25])
    points = np.array([[0.0, 0.0, 0.9, 0.9], [1.0, 0.5, 0.9, 0.9], [0.0, 1.0, 0.1, 0.1]])
    found = coordinates.where_they_exist(points, conditions, otherwise)
    assert found.tolist() == [[0.0, 0.0, 0.5, 0.25], [1.0, 0.5, 0.9, 0.9], [0.0, 1.0, 0.5, 0.1]]
    assert points[0].tolist() == [0.0, 0.0, 0.9, 0.9]
    nested = {"layers": Condition("kind", {"a": False}), "units": conditions["units"]}
    assert coordinates.where_they_exist(points[2:], nested, otherwise).tolist() == [[0.0, 0.0, 0.1, 0.25]]


def test_rates_of_any_size_are_told_apart() -> None:
    space = {"lr": FloatDistribution(1e-30, 1e-20, log=True)}
    coordinates = Coordinates(space, {"lr": "lr"}, {"lr": (1e-25, 1e-23)}, None)
    vectors = [coordinates.vector({"lr": lr}) for lr in (1e-25, 1e-24)]
    assert all(vector is not None for vector in vectors)
    low, high = (float(vector[0]) for vector in vectors if vector is not None)
    assert high - low == pytest.approx(math.log(10))
    assert coordinates.params(np.array([low]))["lr"] == pytest.approx(1e-25)
    assert Shares(coordinates).of({"lr": 1e-24}) == pytest.approx({"lr": 0.5})


def test_a_box_below_the_smallest_number_that_has_a_place_is_that_number() -> None:
    space = {"lr": FloatDistribution(0.0, 0.1)}
    (only,) = Coordinates(space, {"lr": "lr"}, {"lr": (0.0, 0.0)}, None).of_the_model()
    assert (only.low, only.high) == pytest.approx((math.log(SMALLEST), math.log(SMALLEST)))


def test_a_run_from_much_wider_bounds_counts_as_far_away_but_not_as_ever_farther() -> None:
    coordinates = Coordinates({"c": FloatDistribution(0, 1)}, {}, {}, None)
    places = [coordinates.vector({"c": c}) for c in (-1e12, -1.0, 0.5, 2.0, 1e12)]
    assert [place.tolist() for place in places if place is not None] == [[-FARTHEST], [-1], [0.5], [2], [1 + FARTHEST]]


def test_no_learning_rate_of_a_range_in_steps_from_0_is_0() -> None:
    space = {"lr": FloatDistribution(0.0, 1.0, step=0.25), "momentum": FloatDistribution(0.0, 0.99)}
    coordinates = Coordinates(space, {"lr": "lr", "momentum": "momentum"}, {}, 0.0)
    lowest = np.array([[c.low for c in coordinates.of_the_model()]])  # of the momenta the highest
    assert coordinates.params(lowest[0])["lr"] == 0.25
    assert coordinates.params(coordinates.within_bounds(lowest)[0])["lr"] == 0.25
