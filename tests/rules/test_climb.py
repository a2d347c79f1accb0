import numpy as np
import pytest

from optuna_discipline import EpochLog
from optuna_discipline import LossCurve
from optuna_discipline import Verdict
from optuna_discipline import diagnose
from optuna_discipline.rules.climb import measure_climb


def _curve(val: np.ndarray) -> LossCurve:
    return LossCurve(tuple(EpochLog(i, 0.1, None, float(x)) for i, x in enumerate(val)), n_epochs=len(val))


def _ramp(epochs: int, share: float, end: float) -> np.ndarray:
    """Return a loss that falls from 1 to 0.2, and rises to its end over the last share of its epochs."""
    n_rise = round(epochs * share)
    return np.r_[np.linspace(1, 0.2, epochs - n_rise), np.linspace(0.2, end, n_rise + 1)[1:]]


@pytest.mark.parametrize("epochs", [20, 40, 100])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.67, 0.8])
@pytest.mark.parametrize("end", [0.4, 1.0, 3.0])
def test_a_straight_rise_is_slow_however_high_it_ends(epochs: int, share: float, end: float) -> None:
    assert diagnose(_curve(_ramp(epochs, share, end))).verdict == Verdict.OVERFITTING


def test_a_sudden_rise_is_a_break_and_one_that_healed_is_none() -> None:
    time = np.linspace(0, 1, 30)
    broken = np.where(time < 0.6, 2.3 - 2.5 * time, 2.2)
    assert diagnose(_curve(broken)).verdict == Verdict.DIVERGED
    healed = np.where((time > 0.4) & (time < 0.6), 2.2, 2.3 - 2 * time)
    assert diagnose(_curve(healed)).verdict == Verdict.UNDERFITTING


def test_a_loss_that_runs_away_is_a_break_before_it_is_high() -> None:
    level = 0.83 * (1 + 0.004 * np.random.default_rng(0).standard_normal(25))
    runaway = np.r_[2.3, 1.5, level, 0.83 + np.cumsum([0.006, 0.010, 0.017, 0.035, 0.076])]
    assert diagnose(_curve(runaway)).verdict == Verdict.DIVERGED
    steady = np.r_[2.3, 1.5, level, 0.83 + 0.02 * np.arange(1, 6)]
    assert diagnose(_curve(steady)).verdict != Verdict.DIVERGED


def test_a_climb_is_told_as_a_share_of_the_way_back_to_the_start() -> None:
    found = measure_climb(_ramp(100, 0.5, 0.6))
    assert found["climbed"] == pytest.approx(0.5, abs=0.05)
    assert found["fastest_climb"] == pytest.approx(0.1, abs=0.02)
    assert (found["runs_away"], found["reports"]) == (0.0, 100.0)
