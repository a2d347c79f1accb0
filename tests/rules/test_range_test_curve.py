from typing import Any

import numpy as np
import pytest

from optuna_discipline import RangeTest
from optuna_discipline.rules.range_test_curve import read_losses
from optuna_discipline.rules.range_test_curve import sustained

N = 30
LRS = np.geomspace(1e-4, 1.0, N)


def _test(losses: Any, **settings: Any) -> RangeTest:
    losses = np.asarray(losses, dtype=float)
    defaults = dict(train_loss=losses, val_loss=None, stop_reason="end of range", initial_loss=2.3)
    return RangeTest(lrs=LRS[: len(losses)], **{**defaults, **settings})


def test_the_validation_loss_comes_first_where_there_is_one() -> None:
    falling = np.linspace(2.3, 1.0, N)
    assert [loss.name for loss in read_losses(_test(falling))] == ["training"]
    assert [loss.name for loss in read_losses(_test(falling, val_loss=falling))] == ["validation", "training"]


def test_a_loss_is_read_up_to_where_it_is_no_number() -> None:
    falling = np.linspace(2.3, 1.0, N)
    falling[20:] = np.nan
    (loss,) = read_losses(_test(falling))
    assert (loss.broken, loss.edge, loss.edge_lr) == (20, 20, pytest.approx(LRS[19]))


@pytest.mark.parametrize(
    ("above", "held"),
    [([0, 1, 0, 0], [0, 0, 0, 0]), ([0, 1, 1, 0, 0], [0, 1, 0, 0, 0]), ([0, 1, 0, 1], [0, 1, 0, 1]), ([], [])],
)
def test_one_spike_is_no_rise_and_past_the_end_a_rise_holds(above: list[int], held: list[int]) -> None:
    assert sustained(np.array(above, dtype=bool)).tolist() == [bool(x) for x in held]
