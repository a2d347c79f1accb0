import numpy as np
import pytest

from optuna_discipline import EpochLog
from optuna_discipline import LossCurve
from optuna_discipline import Verdict
from optuna_discipline import diagnose
from optuna_discipline.rules.climb import measure_climb
from optuna_discipline.rules.climb import read_climb


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
    twice = np.r_[2.3, 1.5, level, 0.83 + np.cumsum([-0.01, -0.01, 0.03, 0.06])]
    assert [measure_climb(losses)["runs_away"] for losses in (runaway, steady, twice)] == [1, 0, 0]


def test_noise_that_rises_faster_and_faster_by_luck_is_no_break() -> None:
    noise = [0.67, 0.73, 0.71, 0.66, 0.67, 0.62, 0.72, 0.62, 0.67, 0.69, 0.61]
    rises = np.array([0.694, 0.696, 0.714, 0.744, 0.819])
    assert (np.diff(rises, 2) > 0).all()
    assert diagnose(_curve(np.r_[noise, rises])).verdict == Verdict.HORIZONTAL


@pytest.mark.parametrize(
    ("reports", "climbed", "broken"), [(20, 0.3, True), (20, 0.1, False), (19, 0.3, False), (19, 0.6, True)]
)
def test_of_few_reports_a_break_must_climb_half_of_the_way_back(reports: int, climbed: float, broken: bool) -> None:
    evidence = {"climbed": climbed, "fastest_climb": climbed, "last_climb": 0.0, "runs_away": 0.0, "reports": reports}
    assert read_climb({**evidence, "rise_from_minimum": climbed, "val_noise": 0.0})[0] is broken


def test_a_climb_is_told_as_a_share_of_the_way_back_to_the_start() -> None:
    found = measure_climb(_ramp(100, 0.5, 0.6))
    assert found["climbed"] == pytest.approx(0.5, abs=0.05)
    assert found["fastest_climb"] == pytest.approx(0.1, abs=0.02)
    assert (found["runs_away"], found["reports"]) == (0.0, 100.0)
