import math
from typing import Any

import numpy as np
import pytest

from optuna_discipline import EpochLog
from optuna_discipline import LossCurve
from optuna_discipline import Verdict
from optuna_discipline import diagnose
from optuna_discipline.rules.level import has_moved
from optuna_discipline.rules.level import measure_level

N = 24
TIME = np.linspace(0, 1, N)
FELL = 0.5 + 0.5 * np.exp(-8 * TIME)
RAN_OUT = "levelled off as the learning rate ran out"


def _diagnose(val: Any, train: Any, lr: Any = 0.1) -> Any:
    rows = zip(np.broadcast_to(lr, N), np.broadcast_to(train, N), np.broadcast_to(val, N), strict=True)
    logs = tuple(EpochLog(i, rate, loss, v) for i, (rate, loss, v) in enumerate(rows))
    return diagnose(LossCurve(logs, n_epochs=N))


@pytest.mark.parametrize(("fell", "moved"), [(0.0006, False), (0.011, False), (0.05, True)])
def test_losses_that_never_moved_ask_for_a_larger_rate(fell: float, moved: bool) -> None:
    val = 0.705 * (1 - fell * (1 - (1 - TIME) ** 4))
    found = _diagnose(val, val + 0.001)
    assert (found.verdict, has_moved(found.evidence)) == (Verdict.HORIZONTAL, moved)
    assert moved != found.advice.startswith(f"The loss has hardly moved from its first value (by {fell:.1%}): try a le")
    assert not moved or found.advice.startswith("The validation loss has levelled off:")


@pytest.mark.parametrize(("fell", "moved"), [(0.0, False), (0.01, False), (0.5, True)])
def test_a_loss_that_begins_below_0_has_moved_where_that_is_clear_of_its_noise(fell: float, moved: bool) -> None:
    val = -50 + fell * np.where(TIME > 0.6, 0.8, 1 - TIME) + 0.01 * np.random.default_rng(0).normal(size=N)
    found = _diagnose(val, val - 0.01)
    assert has_moved(found.evidence) == moved
    assert ("hardly moved from its first value" in found.advice) != moved


@pytest.mark.parametrize(("level", "n_classes", "below"), [(0.15, 10, True), (0.15, None, False), (0.69, 2, False)])
def test_only_losses_that_may_be_those_of_chance_are_said_to_be(
    level: float, n_classes: int | None, below: bool
) -> None:
    val = level * (1 - 0.01 * TIME)
    logs = tuple(EpochLog(i, 0.1, x, x) for i, x in enumerate(val))
    advice = diagnose(LossCurve(logs, n_epochs=N, n_classes=n_classes)).advice
    assert ("; the training loss lies below that of chance (2.3), as that of a model trained before" in advice) == below
    assert ("may stand at chance, unless it was trained before" in advice) == (n_classes is None)
    assert ("has never left that of chance" in advice) == (n_classes == 2)


@pytest.mark.parametrize(("train", "val", "named"), [(2.0, 2.6, "training"), (None, 0.2, "validation")])
def test_the_loss_that_lies_below_chance_is_named(train: float | None, val: float, named: str) -> None:
    shares = 1 - 0.01 * TIME
    logs = tuple(EpochLog(i, 0.1, None if train is None else train * x, val * x) for i, x in enumerate(shares))
    advice = diagnose(LossCurve(logs, n_epochs=N, n_classes=10)).advice
    assert f"; the {named} loss lies below that of chance (2.3)" in advice
    assert advice.endswith("where none does, look at the data and the labels.")


@pytest.mark.parametrize(
    ("lr", "gap", "ran_out"),
    [
        (1 - 0.999 * TIME, 0.0, True),
        (0.1, 0.0, False),  # it has not run out
        (np.where(TIME < 1, 1 - 0.999 * TIME, math.nan), 0.0, False),  # nobody knows
        (1 - 0.999 * TIME, 0.1, False),  # regularisation may be what it lacks
    ],
)
def test_a_loss_that_levelled_off_as_the_rate_ran_out_may_go_on(lr: Any, gap: float, ran_out: bool) -> None:
    found = _diagnose(FELL, FELL - gap, lr)
    assert (found.verdict, RAN_OUT in found.advice) == (Verdict.HORIZONTAL, ran_out)


def test_a_loss_that_stood_long_before_the_rate_ran_out_is_at_its_level() -> None:
    val = 0.2 + 0.8 * np.exp(-25 * TIME)
    found = _diagnose(val, val, 1 - 0.999 * TIME)
    assert (found.verdict, RAN_OUT in found.advice) == (Verdict.HORIZONTAL, False)


@pytest.mark.parametrize(
    ("level", "train", "dead"), [(1.0, 1.0, True), (1.0, 1 - TIME / 100, False), (0.0, 0.0, False)]
)
def test_losses_that_are_exactly_constant_are_those_of_a_dead_network(level: float, train: Any, dead: bool) -> None:
    found = _diagnose(np.where(TIME < 0.2, 1.2 - TIME, level), train)
    assert found.advice.startswith("Both losses stand at exactly 1: the network is dead") == dead


@pytest.mark.parametrize(
    ("val", "train", "lr"),
    [
        (np.where(TIME < 0.2, 1.2 - TIME, 1.0), 0.5, 0.1),  # two levels
        (np.where(TIME < 0.2, 1.2 - TIME, 1.0), 0.0, 0.1),  # the training data are fitted
        (np.maximum(1.0 - TIME, 0.5), np.maximum(1.0 - TIME, 0.5), np.where(TIME < 0.5, 0.1, 0.0)),  # the rate ended
        (np.maximum(1.0 - TIME, 0.5) - 0.001 * (TIME > 0.66), np.maximum(1.0 - TIME, 0.5), 0.1),  # its best level
    ],
)
def test_a_constant_loss_that_something_else_explains_is_no_dead_network(val: Any, train: Any, lr: Any) -> None:
    assert "dead" not in _diagnose(val, train, lr).advice


def test_what_is_not_known_is_no_evidence() -> None:
    measured = measure_level(np.full(N, math.nan), FELL, None, FELL)
    assert set(measured) == {"change_in_all", "val_change_before"}
