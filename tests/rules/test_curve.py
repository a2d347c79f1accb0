import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optuna_discipline import EpochLog
from optuna_discipline import LossCurve
from optuna_discipline import diagnose
from optuna_discipline.rules.curve import noise_sd
from optuna_discipline.rules.curve import running_median
from optuna_discipline.rules.curve import tail_median


def test_logs_are_ordered_and_the_first_of_an_epoch_stays() -> None:
    logs = (EpochLog(1, 0.1, 0.5, 0.6), EpochLog(0, 0.1, 0.9, 1.0), EpochLog(1, 0.1, 9.0, 9.0))
    curve = LossCurve(logs, n_epochs=4)
    assert curve.epochs.tolist() == [0, 1]
    assert curve.val_loss.tolist() == [1.0, 0.6]
    assert curve.gap.tolist() == pytest.approx([0.1, 0.1])
    assert curve.fraction == 0.5


def test_unmeasured_losses_are_nan_and_known_as_such() -> None:
    curve = LossCurve((EpochLog(0, None, None, 0.5),), n_epochs=1)
    assert math.isnan(curve.train_loss[0])
    assert not curve.has_train_loss
    assert LossCurve((EpochLog(0, None, math.nan, None),), n_epochs=1).has_train_loss
    some = LossCurve((EpochLog(0, None, 1.0, None), EpochLog(1, None, None, 1.0)), n_epochs=2)
    assert some.has_train_loss
    assert some.has_val_loss


def test_a_log_beyond_the_plan_lengthens_it() -> None:
    assert LossCurve((EpochLog(9, 0.1, 1.0, 1.0),), n_epochs=5).n_epochs == 10


def test_epochs_that_count_from_1_do_not_lengthen_the_plan() -> None:
    curve = LossCurve((EpochLog(5, 0.1, 1.0, 1.0),), n_epochs=5)
    assert (curve.n_epochs, curve.fraction) == (5, 1.0)


def test_columns_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="read-only"):
        LossCurve((EpochLog(0, 0.1, 1.0, 1.0),), n_epochs=1).val_loss[0] = 0


@pytest.mark.parametrize("epoch", [-1, 0.5, True, None])
def test_epoch_must_be_an_index(epoch: Any) -> None:
    with pytest.raises(ValueError, match="`epoch` must be an integer"):
        EpochLog(epoch, 0.1, 1.0, 1.0)


@pytest.mark.parametrize("loss", [np.array([1.0, 2.0]), "1", True, 10**400, [1.0]])
def test_a_loss_must_be_one_number(loss: Any) -> None:
    with pytest.raises(ValueError, match="`train_loss` must be one number"):
        EpochLog(0, 0.1, loss, 1.0)


def test_a_tensors_loss_is_kept_as_a_number_without_its_gradient() -> None:
    torch = pytest.importorskip("torch")
    losses = [torch.tensor(1.0 / (epoch + 1), requires_grad=True) for epoch in range(6)]
    logs = tuple(EpochLog(epoch, np.float32(0.5), loss, np.array(0.5)) for epoch, loss in enumerate(losses))
    assert [type(value) for value in (logs[0].lr, logs[0].train_loss, logs[0].val_loss)] == [float] * 3
    assert diagnose(LossCurve(logs, n_epochs=6)).verdict


def test_an_accuracy_is_a_share_that_rounding_may_move() -> None:
    for accuracy in (0.0, 1.0, np.float16(1.001), math.nan, None):
        assert EpochLog(0, 0.1, 1.0, 1.0, accuracy).val_loss == 1.0
    for accuracy in (95, 1.5, -0.1, math.inf):
        with pytest.raises(ValueError, match=r"`val_accuracy` must be a share in \[0, 1\], .*: divide percent by 100"):
            EpochLog(0, 0.1, 1.0, 1.0, accuracy)


@pytest.mark.parametrize(
    ("n_epochs", "n_classes", "name"),
    [(0, None, "n_epochs"), (1.5, None, "n_epochs"), (10**400, None, "n_epochs"), (1, 1, "n_classes")],
)
def test_bad_plan_is_named(n_epochs: Any, n_classes: Any, name: str) -> None:
    with pytest.raises(ValueError, match=f"`{name}`"):
        LossCurve((), n_epochs=n_epochs, n_classes=n_classes)


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=40))
def test_running_median_stays_within_the_values(values: list[float]) -> None:
    smooth = running_median(values)
    assert len(smooth) == len(values)
    finite = [v for v in values if math.isfinite(v)]
    assert all(x == math.inf or min(finite) <= x <= max(finite) for x in smooth)


def test_the_median_of_two_of_the_smallest_numbers_is_no_zero() -> None:
    assert running_median([5e-324, 5e-324]).tolist() == [5e-324, 5e-324]


def test_running_median_ignores_one_spike_and_shows_a_broken_end() -> None:
    assert running_median([1, 1, 50, 1, 1])[2] == 1
    assert running_median([1, 1, 1, math.nan, math.nan, math.nan])[-1] == math.inf


def test_noise_is_recovered_on_a_trend() -> None:
    rng = np.random.default_rng(0)
    values = np.linspace(2, 1, 2000) + rng.normal(0, 0.05, 2000)
    assert noise_sd(values) == pytest.approx(0.05, rel=0.1)


def test_tail_median_leaves_out_what_is_no_number() -> None:
    assert tail_median([9, 1, 2, math.nan, 3], count=4) == 2
    assert math.isnan(tail_median([math.nan]))
