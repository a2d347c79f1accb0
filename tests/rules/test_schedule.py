import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optuna_discipline import OneCycle

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


@pytest.mark.parametrize("step", [-1, 10, 11, 0.5, True, None])
def test_step_out_of_range_is_refused(step: Any) -> None:
    with pytest.raises(ValueError, match=r"`step` must be an integer in \[0, total_steps\)"):
        OneCycle(1.0, 10).lr(step)


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
