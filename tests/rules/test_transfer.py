import math

import pytest

from optuna_discipline import Run
from optuna_discipline.rules.transfer import full_length_losses


def _run(number: int, lr: float, epochs: float, loss: float | None, state: str = "complete") -> Run:
    return Run(number, state, {"lr": lr, "epochs": epochs}, loss)  # type: ignore[arg-type]


def test_a_pair_carries_the_short_runs_over_in_their_order() -> None:
    runs = [_run(0, 0.1, 4, 0.8), _run(1, 0.3, 4, 1.0), _run(2, 0.1, 16, 0.4), _run(3, 0.03, 8, 0.5)]
    assert full_length_losses(runs, 16) == {2: 0.4, 0: pytest.approx(0.4), 1: pytest.approx(0.5)}


def test_losses_that_are_not_positive_are_carried_by_difference() -> None:
    runs = [_run(0, 0.1, 4, -0.8), _run(1, 0.3, 4, -0.5), _run(2, 0.1, 16, -0.9)]
    assert full_length_losses(runs, 16) == {2: -0.9, 0: pytest.approx(-0.9), 1: pytest.approx(-0.6)}
    below = [_run(0, 0.1, 4, 0.2), _run(1, 0.3, 4, 0.5), _run(2, 0.1, 16, -0.3)]  # a ratio would turn their order
    assert full_length_losses(below, 16) == {2: -0.3, 0: pytest.approx(-0.3), 1: pytest.approx(0.0)}


def test_without_epochs_every_run_is_full_and_a_failed_one_is_infinite() -> None:
    runs = [_run(0, 0.1, 4, 0.8), _run(1, 3.0, 4, 9.0, "pruned"), _run(2, 0.1, 4, None, "running")]
    assert full_length_losses(runs, None) == {0: 0.8, 1: math.inf}


def test_a_run_without_epochs_beside_others_with_them_is_full() -> None:
    without = Run(2, "complete", {"lr": 0.1}, 0.6)
    assert full_length_losses([_run(0, 0.1, 4, 0.8), _run(1, 0.1, 16, 0.4), without], 16)[2] == 0.6
