import math
from dataclasses import replace

import pytest

from optuna_discipline import LrChoice
from optuna_discipline import Run
from optuna_discipline.rules import rungs
from optuna_discipline.rules.rungs import ladder_axis
from optuna_discipline.rules.rungs import run_elsewhere
from optuna_discipline.rules.space import Bounds


def test_the_rungs_keep_to_the_bounds_to_a_list_and_to_a_range_test_that_is_sure() -> None:
    axis = ladder_axis(0.1, Bounds(1e-5, 10.0))
    assert (axis.low, axis.high, axis.first_up) == (pytest.approx(1e-4), pytest.approx(100), 2.0)
    listed = ladder_axis(0.1, Bounds.of_choices([0.0, 0.01, 0.1, 1.0]))
    assert listed.choices == (0.1, 1.0, 10.0)
    tested = LrChoice(0.1, 0.01, (0.01, 0.4), "OK", "", confident=True)
    assert ladder_axis(0.1, None, tested).high == pytest.approx(4.0)
    assert ladder_axis(0.1, None, replace(tested, confident=False)).high == math.inf


def test_only_what_was_not_proposed_and_differs_in_the_rate_alone_has_run_elsewhere() -> None:
    own = Run(0, "complete", {"lr": 0.1, "momentum": 0.9}, 0.5, "lr0:1")
    twice = replace(own, number=1, params={"lr": 0.2, "momentum": 0.9}, slot=None)
    others = [
        replace(twice, number=2, params={"lr": 0.3, "momentum": 0.99}),
        replace(twice, number=3, params={"lr": 0.4, "momentum": 0.9}, others={"width": 8}),
        replace(twice, number=4, params={"lr": 0.5, "momentum": 0.9}, slot="model"),
        replace(twice, number=5, params={"lr": 0.6, "momentum": 0.9}, state="running"),
        replace(own, number=6, slot=None),
    ]
    runs = [own, twice, *others]
    assert run_elsewhere({1.0: [own]}, runs, 0.1, {}) == {2.0: [twice]}
    assert run_elsewhere({1.0: [own]}, runs, 0.1, {"lr": (0.01, 0.15)}) == run_elsewhere({}, runs, 0.1, {}) == {}


def test_of_many_runs_only_those_of_the_same_other_values_are_compared_with_a_rung(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compared: list[int] = []
    monkeypatch.setattr(rungs, "differ_in_rate", lambda run, _: bool(compared.append(run.number)))
    own = Run(0, "complete", {"lr": 0.1, "momentum": 0.9}, 0.5, "lr0:1")
    others = [Run(i, "complete", {"lr": 0.2, "momentum": 0.9 + i / 1000}, 0.4) for i in range(100)]
    assert run_elsewhere({1.0: [own]}, others, 0.1, {}) == {}
    assert compared == [0]
