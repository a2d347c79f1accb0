import csv
import gzip
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optuna_discipline import OneCycle
from optuna_discipline import Triangular

# Four of the author's published runs (iteration, lr, momentum), from the logs of arXiv 1708.07120.
AUTHORS_RUNS = [
    (
        dict(max_lr=1.2, total_steps=7080, div_factor=12, step_size=3417, max_momentum=0.95, base_momentum=0.85),
        [(0, 0.1, 0.95), (1700, 0.647264, 0.900249), (3500, 1.17085, 0.852429), (6800, 0.0119403, 0.949005)],
    ),
    (
        dict(max_lr=0.8, total_steps=9277, div_factor=10, step_size=4003, max_momentum=0.95, base_momentum=0.95),
        [(1000, 0.259865, 0.95), (4000, 0.79946, 0.95), (8000, 0.00119905, 0.95), (9200, 8e-05, 0.95)],
    ),
    (
        dict(max_lr=4.0, total_steps=4882, div_factor=40, step_size=2148, max_momentum=0.9, base_momentum=0.8),
        [(400, 0.826257, 0.881378), (2200, 3.90317, 0.802421), (4200, 0.178771, 0.895531), (4800, 0.0001, 0.9)],
    ),
    (
        dict(max_lr=1.0, total_steps=4882, div_factor=10, step_size=2246, max_momentum=0.95, base_momentum=0.85),
        [(400, 0.260285, 0.932191), (2400, 0.931434, 0.856857), (4400, 0.0409617, 0.945904), (4600, 0.0001, 0.95)],
    ),
]


@pytest.mark.parametrize(("settings", "points"), AUTHORS_RUNS)
def test_authors_runs_are_reproduced_at_every_quoted_point(settings: Any, points: Any) -> None:
    cycle = OneCycle(**settings)
    for step, lr, momentum in points:
        assert cycle.lr(step) == pytest.approx(lr, rel=1e-4)
        assert cycle.momentum(step) == pytest.approx(momentum, rel=1e-4)


def test_authors_logged_schedules_are_reproduced_whole() -> None:
    root = os.environ.get("OPTUNA_DISCIPLINE_DATA")
    path = Path(root or ".") / "smith" / "schedule_cases.json"
    if root is None or not path.is_file():
        pytest.skip("set OPTUNA_DISCIPLINE_DATA to the folder that holds smith/schedule_cases.json")
    for case in json.loads(path.read_text())["schedule"]:
        cycle = OneCycle(
            case["max_lr"],
            case["max_iter"],
            div_factor=case["max_lr"] / case["base_lr"],
            step_size=case["stepsize"],
            max_momentum=case["momentum_max"],
            base_momentum=case["momentum_min"],
        )
        for step, lr, momentum in case["points"]:
            assert cycle.lr(step) == pytest.approx(lr, rel=1e-4)
            if step < 2 * case["stepsize"]:  # his momentum starts a second, smaller cycle in the tail: a quirk
                assert cycle.momentum(step) == pytest.approx(momentum, rel=1e-4)


# More of his runs (step, lr): one triangle from 0.1 to 3 and back, and range tests from 0 to 2 or 3.
AUTHORS_TRIANGLES = [
    (
        "clr3SS5k",
        dict(max_lr=3.0, total_steps=10_000, base_lr=0.1, step_size=5000),
        [(0, 0.1), (900, 0.622), (4500, 2.71), (5000, 3.0), (5400, 2.768), (9900, 0.158)],
    ),
    ("range3Iter5k", dict(max_lr=3.0, total_steps=5_000, base_lr=0.0, step_size=5_000), [(100, 0.06), (4900, 2.94)]),
    ("range3Iter20k", dict(max_lr=3.0, total_steps=20_000, base_lr=0.0, step_size=20_000), [(0, 0.0), (19900, 2.985)]),
    (
        "range3Iter100k",
        dict(max_lr=3.0, total_steps=100_000, base_lr=0.0, step_size=100_000),
        [(1e4, 0.3), (99900, 2.997)],
    ),
    ("range2", dict(max_lr=2.0, total_steps=80_000, base_lr=0.0, step_size=80_000), [(200, 0.005), (79900, 1.9975)]),
]


@pytest.mark.parametrize(("name", "settings", "points"), AUTHORS_TRIANGLES, ids=lambda value: str(value)[:14])
def test_authors_triangular_runs_and_long_range_tests_are_reproduced(name: str, settings: Any, points: Any) -> None:
    triangle = Triangular(**settings)
    assert [triangle.lr(int(step)) for step, _ in points] == pytest.approx([lr for _, lr in points], rel=1e-9)


def test_all_of_the_authors_logged_triangles_are_reproduced_whole() -> None:
    root = os.environ.get("OPTUNA_DISCIPLINE_DATA")
    path = Path(root or ".") / "smith" / "superconvergence_logs.csv.gz"
    if root is None or not path.is_file():
        pytest.skip("set OPTUNA_DISCIPLINE_DATA to the folder that holds smith/superconvergence_logs.csv.gz")
    prefixes, seen = {name: Triangular(**settings) for name, settings, _ in AUTHORS_TRIANGLES}, set()
    with gzip.open(path, "rt") as file:
        for row in csv.DictReader(file):
            prefix = next((name for name in prefixes if row["run"].startswith(name)), None)
            if prefix is not None and row["lr"]:
                seen.add(row["run"])
                assert prefixes[prefix].lr(int(row["iteration"])) == pytest.approx(float(row["lr"]), rel=3e-5, abs=1e-9)
    assert len(seen) == 23


@pytest.mark.parametrize("schedule", [OneCycle, Triangular])
@pytest.mark.parametrize(("most", "least"), [(0.95, 0.85), (0.85, 0.85), (0.8, 0.8), (0.0, 0.0)])
def test_the_default_base_momentum_is_never_above_the_largest(schedule: Any, most: float, least: float) -> None:
    cycle = schedule(1.0, 20, step_size=10, max_momentum=most)
    assert (cycle.momentum(0), cycle.momentum(10)) == pytest.approx((most, least))
    with pytest.raises(ValueError, match=r"`base_momentum` must be in \[0, max_momentum\], but got base_momentum=0.96"):
        schedule(1.0, 20, max_momentum=most, base_momentum=0.96)


def test_a_triangle_repeats_and_momentum_mirrors_it() -> None:
    triangle = Triangular(1.0, 60, base_lr=0.25, step_size=10)
    assert [triangle.lr(s) for s in (0, 5, 10, 15, 20, 30, 40)] == pytest.approx([0.25, 0.625, 1, 0.625, 0.25, 1, 0.25])
    assert [triangle.momentum(s) for s in (0, 5, 10, 20)] == pytest.approx([0.95, 0.9, 0.85, 0.95])
    assert [triangle.phase(s) for s in (0, 9, 10, 19, 20)] == ["up", "up", "down", "down", "up"]


@given(total=st.integers(1, 300), share=st.floats(0.01, 1), base=st.floats(0, 0.99), max_lr=st.floats(1e-8, 1e4))
def test_every_triangle_keeps_its_bounds_and_its_period(total: int, share: float, base: float, max_lr: float) -> None:
    triangle = Triangular(max_lr, total, base_lr=base * max_lr, step_size=share * total)
    lrs = [triangle.lr(step) for step in range(total)]
    assert all(base * max_lr * (1 - 1e-9) <= lr <= max_lr * (1 + 1e-9) for lr in lrs)
    assert lrs[0] == base * max_lr
    assert all(0.85 - 1e-12 <= triangle.momentum(step) <= 0.95 + 1e-12 for step in range(total))
    whole = Triangular(max_lr, 4 * total, base_lr=base * max_lr, step_size=total)
    assert whole.lr(total // 2) == pytest.approx(whole.lr(total // 2 + 2 * total))


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("max_lr", math.nan),
        ("total_steps", 0),
        ("total_steps", 10**400),
        ("base_lr", 1.0),
        ("base_lr", -0.1),
        ("base_lr", math.nan),
        ("base_lr", "0"),
        ("step_size", 0),
        ("step_size", 11),
        ("step_size", math.nan),
        ("max_momentum", 1.0),
        ("base_momentum", 0.96),
    ],
)
def test_bad_argument_of_a_triangle_is_named(argument: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"`{argument}`"):
        Triangular(**{"max_lr": 1.0, "total_steps": 10, argument: value})


@pytest.mark.parametrize("kind", [OneCycle, Triangular])
def test_numpys_numbers_and_tensors_are_kept_as_pythons(kind: Any) -> None:
    torch = pytest.importorskip("torch")
    for number in (np.float32, np.float64, torch.tensor):
        momenta = {"max_momentum": number(0.75), "base_momentum": number(0.5)}
        given = kind(number(0.5), np.int64(30), step_size=number(8), **momenta)
        assert given == kind(0.5, 30, step_size=8, max_momentum=0.75, base_momentum=0.5)
        assert {type(value) for step in (3, 12, 30) for value in (given.lr(step), given.momentum(step))} == {float}
        assert type(given.total_steps) is int


@pytest.mark.parametrize("step_size", [1e-310, 5e-324, 1e-3])
def test_the_shortest_triangles_keep_their_bounds(step_size: float) -> None:
    triangle = Triangular(1.0, 1000, step_size=step_size)
    assert all(0.1 <= triangle.lr(step) <= 1 for step in range(1000))
    cycle = OneCycle(1.0, 1000, step_size=step_size)
    assert (cycle.lr(0), cycle.lr(1)) == (0.1, cycle.final_lr)


def test_paper_tail_falls_to_base_then_linearly_far_below() -> None:
    cycle = OneCycle(1.0, 100, step_size=40, tail="paper")
    assert [cycle.lr(s) for s in (0, 40, 80, 99)] == pytest.approx([0.1, 1.0, 0.1, 1e-4])
    assert cycle.lr(90) == pytest.approx(0.1 + (1e-4 - 0.1) * 10 / 19)


def test_cosine_passes_through_the_same_corners() -> None:
    linear, cosine = OneCycle(1.0, 100, step_size=50), OneCycle(1.0, 100, step_size=50, anneal="cos")
    for step in (0, 25, 50, 75):
        assert cosine.lr(step) == pytest.approx(linear.lr(step))
    assert cosine.lr(10) < linear.lr(10)


@given(
    total=st.integers(1, 400),
    max_lr=st.floats(1e-8, 1e4),
    tail=st.sampled_from(["author", "paper"]),
    anneal=st.sampled_from(["linear", "cos"]),
)
def test_every_length_keeps_its_bounds(total: int, max_lr: float, tail: Any, anneal: Any) -> None:
    cycle = OneCycle(max_lr, total, tail=tail, anneal=anneal)
    lrs = [cycle.lr(step) for step in range(total)]
    momenta = [cycle.momentum(step) for step in range(total)]
    assert all(cycle.final_lr * (1 - 1e-9) <= lr <= max_lr * (1 + 1e-9) for lr in lrs)
    assert all(0.85 - 1e-12 <= m <= 0.95 + 1e-12 for m in momenta)
    assert lrs[0] == pytest.approx(max_lr / 10)
    if total >= 10:
        assert lrs[-1] < max_lr / 10
        assert [cycle.phase(0), cycle.phase(total - 1)] == ["up", "tail"]


def test_the_end_may_be_asked_for_as_torchs_schedulers_do() -> None:
    for cycle in (OneCycle(1.0, 100), OneCycle(1.0, 100, tail="paper"), OneCycle(1.0, 100, step_size=50)):
        assert (cycle.lr(100), cycle.momentum(100), cycle.phase(100)) == (pytest.approx(1e-4), 0.95, "tail")
    assert Triangular(1.0, 100).lr(100) == pytest.approx(0.1)
    assert Triangular(1.0, 100, base_lr=0.0, step_size=100).lr(100) == 1.0  # half a triangle ends at its top


@pytest.mark.parametrize("step", [-1, 11, 0.5, True, None])
def test_step_out_of_range_is_refused(step: Any) -> None:
    for schedule in (OneCycle(1.0, 10), Triangular(1.0, 10)):
        with pytest.raises(ValueError, match=r"`step` must be an integer in \[0, total_steps\]"):
            schedule.lr(step)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("max_lr", 0),
        ("max_lr", math.nan),
        ("max_lr", math.inf),
        ("max_lr", "1"),
        ("max_lr", None),
        ("total_steps", 0),
        ("total_steps", 1.5),
        ("total_steps", True),
        ("total_steps", 10**400),
        ("div_factor", 1),
        ("div_factor", math.nan),
        ("final_div_factor", 0.5),
        ("step_size", 6),
        ("step_size", math.nan),
        ("max_momentum", 1.0),
        ("base_momentum", 0.96),
        ("base_momentum", -0.1),
        ("tail", "end"),
        ("anneal", "exp"),
    ],
)
def test_bad_argument_is_named(argument: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"`{argument}`"):
        OneCycle(**{"max_lr": 1.0, "total_steps": 10, argument: value})
