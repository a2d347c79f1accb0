import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optuna_discipline import DisciplineError
from optuna_discipline import EpochLog
from optuna_discipline import LossCurve
from optuna_discipline import Verdict
from optuna_discipline import diagnose

N = 30
TIME = np.linspace(0, 1, N)


def _curve(train: Any, val: Any, lr: Any = None) -> LossCurve:
    lrs = np.full(len(val), 0.1) if lr is None else lr
    logs = tuple(EpochLog(i, float(lrs[i]), float(train[i]), float(val[i])) for i in range(len(val)))
    return LossCurve(logs, n_epochs=len(val))


def _noisy(values: Any, sd: float, seed: int) -> Any:
    return values * (1 + sd * np.random.default_rng(seed).standard_normal(len(values)))


FALLING, FLAT = 0.2 + 1.5 * (1 - TIME), 0.5 + np.exp(-15 * TIME)
OVERFIT = 0.5 + np.exp(-10 * TIME) + 0.6 * np.clip(TIME - 0.4, 0, None)

SHAPES = {
    Verdict.UNDERFITTING: (FALLING, FALLING + 0.05, None),
    Verdict.HORIZONTAL: (FLAT, FLAT + 0.1, None),
    Verdict.OVERFITTING: (0.01 + np.exp(-5 * TIME), OVERFIT, None),
    Verdict.DIVERGED: (np.where(TIME < 0.6, 1 - TIME, 4.0), np.where(TIME < 0.6, 1.2 - TIME, 4.0), None),
    Verdict.HIGH_LR: (0.5 + 0.4 * TIME**2, 0.6 + 0.5 * TIME**2, 0.1 + TIME),
}


@pytest.mark.parametrize("verdict", SHAPES)
@pytest.mark.parametrize("seed", range(5))
def test_curves_of_known_shape_are_read_under_noise(verdict: Verdict, seed: int) -> None:
    train, val, lr = SHAPES[verdict]
    curve = _curve(_noisy(train, 0.005, seed), _noisy(val, 0.005, seed + 100), lr)
    assert diagnose(curve).verdict == verdict


def test_pure_noise_is_no_verdict() -> None:
    values = 1 + 0.5 * np.random.default_rng(0).standard_normal(N)
    assert diagnose(_curve(np.abs(values), np.abs(values[::-1]))).verdict in (Verdict.NOISY, Verdict.HORIZONTAL)


def test_evidence_and_advice_come_with_the_verdict() -> None:
    diagnosis = diagnose(_curve(*SHAPES[Verdict.OVERFITTING][:2]))
    assert diagnosis.evidence["val_change"] > 0 > diagnosis.evidence["train_change"]
    assert diagnosis.evidence["gap"] > 0
    assert "regularise more" in diagnosis.advice
    assert str(diagnosis.verdict) == "overfitting"


def test_without_a_training_loss_nothing_is_called_overfitting() -> None:
    logs = tuple(EpochLog(i, 0.1, None, float(OVERFIT[i])) for i in range(N))
    assert diagnose(LossCurve(logs, n_epochs=N)).verdict != Verdict.OVERFITTING


@given(st.lists(st.tuples(*[st.floats(allow_nan=True, allow_infinity=True, width=32)] * 3), min_size=4, max_size=20))
def test_any_numbers_give_a_verdict_or_a_clear_refusal(rows: Any) -> None:
    curve = LossCurve(tuple(EpochLog(i, *row) for i, row in enumerate(rows)), n_epochs=20)
    try:
        verdict = diagnose(curve).verdict
    except DisciplineError:
        assert np.isfinite(curve.val_loss).sum() < 4
    else:
        assert isinstance(verdict, Verdict)


def test_too_little_and_something_else_are_refused() -> None:
    with pytest.raises(DisciplineError, match=r"at least 4 epochs with a validation loss.*but holds 0"):
        diagnose(LossCurve((), n_epochs=3))
    with pytest.raises(TypeError, match="`curve` must be a LossCurve"):
        diagnose([1.0, 0.5])  # type: ignore[arg-type]
    assert diagnose(_curve([1, math.nan], [1, 1])).verdict == Verdict.DIVERGED
