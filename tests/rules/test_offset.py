import math

import numpy as np
import pytest

from optuna_discipline.rules.lr_lean import LrReading
from optuna_discipline.rules.lr_lean import fell
from optuna_discipline.rules.lr_lean import read_lr
from optuna_discipline.rules.offset import less_offset
from optuna_discipline.rules.run import Run

FALLS = tuple(2.3 * math.exp(-i / 2) + 0.3 for i in range(10))


def at(offset: float, reports: tuple[float, ...] = FALLS) -> Run:
    moved = tuple(y + offset for y in reports)
    return Run(0, "complete", {"lr": 0.1}, moved[-1], reports=moved)


@pytest.mark.parametrize("offset", [-1000.0, -50.0, -20.0, -3.0, 0.0])
def test_a_loss_that_fell_says_the_same_wherever_its_zero_is(offset: float) -> None:
    assert fell(at(offset))
    assert read_lr(at(offset)) == LrReading("up")
    climbed = (2.6, 0.9, 0.6, 1.9, 0.5, 0.42, 0.41, 0.405, 0.402, 0.401)
    assert read_lr(at(offset, climbed)) == LrReading("down")


@pytest.mark.parametrize(
    "reports",
    [
        (2.4, 2.32, 2.31, 2.305, 2.303, 2.302),  # that of chance
        (5000.0, 4960.0, 4940.0, 4930.0, 4925.0, 4920.0),  # a squared error of which hardly anything is learned
        (-0.1, -0.3, -0.5, -0.6, -0.7, -0.8),  # an accuracy
        (-20.3, -20.1, -20.4, -20.2, -20.3, -20.25),
        (-20.0, -22.0, -23.0, -23.5),  # too few to know its noise
        (500.0, math.nan, 498.0, 497.0, 496.5, 496.4),
    ],
)
def test_reports_near_0_and_those_that_did_not_fall_clearly_stay_what_they_are(reports: tuple[float, ...]) -> None:
    assert less_offset(reports) is reports


def test_of_noise_alone_few_reports_fall_clearly() -> None:
    noise = np.random.default_rng(0).normal(-20, 0.1, size=(1000, 10)).tolist()
    assert sum(less_offset(reports) is not reports for reports in map(tuple, noise)) < 5
