"""Curves of known shape: what each verdict looks like, with random sizes and realistic noise."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from optuna_discipline import EpochLog
from optuna_discipline import LossCurve
from optuna_discipline import OneCycle
from optuna_discipline import Verdict
from optuna_discipline import diagnose
from optuna_discipline.rules.pruning import should_stop

Random = np.random.Generator
Shape = tuple[np.ndarray, np.ndarray, np.ndarray]  # training loss, validation loss, learning rate, without noise


def _underfitting(random: Random, time: np.ndarray) -> Shape:
    val = random.uniform(0.2, 0.8) + random.uniform(1, 3) * np.exp(-random.uniform(1.0, 2.0) * time)
    return val * random.uniform(0.8, 1.0), val, np.full(len(time), 0.1)


def _horizontal(random: Random, time: np.ndarray) -> Shape:
    val = random.uniform(0.3, 1.2) + random.uniform(0.5, 3) * np.exp(-random.uniform(12, 30) * time)
    train = val * random.uniform(0.6, 1.0) * (1 - random.uniform(0, 0.15) * time)
    return train, val, np.full(len(time), 0.1)


def _overfitting(random: Random, time: np.ndarray) -> Shape:
    turn = random.uniform(0.2, 0.6)
    rise = random.uniform(0.5, 2.0) * np.clip(time - turn, 0, None)
    val = random.uniform(0.4, 1.0) + random.uniform(0.8, 2) * np.exp(-8 * time / turn) + rise
    return 0.005 + random.uniform(0.8, 2) * np.exp(-random.uniform(4, 8) * time), val, np.full(len(time), 0.1)


def _diverged(random: Random, time: np.ndarray) -> Shape:
    break_at = random.uniform(0.3, 0.7)
    healthy = 0.4 + 1.9 * np.exp(-random.uniform(4, 10) * time)
    broken = random.choice([2.3026, random.uniform(3.6, 50.0)])
    train = np.where(time < break_at, healthy, broken)
    return train, np.where(time < break_at, 1.1 * healthy, broken), np.full(len(time), 1.0)


def _high_lr(random: Random, time: np.ndarray) -> Shape:
    bump = random.uniform(0.4, 0.9) * time ** random.uniform(1.5, 2.5)
    fall = np.exp(-random.uniform(15, 30) * time)
    return 0.4 + bump + fall, random.uniform(0.5, 0.8) + 1.2 * bump + fall, 0.1 + random.uniform(0.5, 3) * time


SHAPES: dict[Verdict, Callable[[Random, np.ndarray], Shape]] = {
    Verdict.UNDERFITTING: _underfitting,
    Verdict.HORIZONTAL: _horizontal,
    Verdict.OVERFITTING: _overfitting,
    Verdict.DIVERGED: _diverged,
    Verdict.HIGH_LR: _high_lr,
}


def draw(verdict: Verdict, seed: int) -> LossCurve:
    """Return a curve of 16 to 80 epochs that shows a verdict, under noise of 0.3 to 2 %."""
    random = np.random.default_rng([seed, list(SHAPES).index(verdict)])
    time = np.linspace(0, 1, random.integers(16, 81))
    return _noisy(random, *SHAPES[verdict](random, time), sd=random.uniform(0.003, 0.02))


def draw_healthy_cycle(seed: int) -> LossCurve:
    """Return a 1cycle run that ends at its best: in the middle its losses stay or rise, its noise is 2 to 10 %."""
    random = np.random.default_rng([seed, 99])
    n = int(random.integers(20, 81))
    cycle = OneCycle(1.0, n)
    lr = np.array([cycle.lr(step) for step in range(n)])
    time = np.linspace(0, 1, n)
    fall = random.uniform(0.8, 2) * np.exp(-random.uniform(6, 20) * time)
    height = random.uniform(0.1, 0.6)
    train = 0.02 + fall + height * lr + random.uniform(0.1, 0.3) * (1 - time)
    val = train + random.uniform(0.05, 0.2) + random.uniform(0, 0.5) * height * lr
    return _noisy(random, train, val, lr, sd=random.uniform(0.02, 0.1) * lr / lr.max())


def _noisy(random: Random, train: np.ndarray, val: np.ndarray, lr: np.ndarray, *, sd: float | np.ndarray) -> LossCurve:
    n = len(val)
    seen = [losses * (1 + sd * random.standard_normal(n)) for losses in (train, val)]
    rows = zip(lr, *seen, strict=True)
    logs = tuple(EpochLog(i, *(float(x) for x in row)) for i, row in enumerate(rows))
    return LossCurve(logs, n_epochs=n, n_classes=10 if math.isclose(float(train.max()), 2.3026) else None)


@pytest.mark.parametrize("verdict", SHAPES)
def test_95_of_100_noisy_curves_of_known_shape_are_read_rightly(verdict: Verdict) -> None:
    found = [diagnose(draw(verdict, seed)).verdict for seed in range(100)]
    assert found.count(verdict) >= 95


@pytest.mark.parametrize("verdict", [Verdict.UNDERFITTING, Verdict.HORIZONTAL, Verdict.HIGH_LR])
def test_a_healthy_curve_is_never_condemned(verdict: Verdict) -> None:
    found = {diagnose(draw(verdict, seed)).verdict for seed in range(100, 300)}
    assert not found & {Verdict.OVERFITTING, Verdict.DIVERGED}


def test_a_healthy_cycle_is_never_condemned_nor_stopped_at_any_epoch() -> None:
    for seed in range(60):
        curve = draw_healthy_cycle(seed)
        for done in range(8, len(curve) + 1, 3):
            seen = LossCurve(curve.logs[:done], curve.n_epochs, curve.n_classes)
            assert diagnose(seen).verdict not in (Verdict.OVERFITTING, Verdict.DIVERGED), (seed, done)
            assert not should_stop(seen).stop, (seed, done)
