import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optuna_discipline import EpochLog
from optuna_discipline import LossCurve
from optuna_discipline.rules.divergence import has_learned
from optuna_discipline.rules.divergence import is_diverged
from optuna_discipline.rules.divergence import stood_still
from optuna_discipline.rules.divergence import why_diverged


def _curve(train: list[Any], n_epochs: int | None = None, n_classes: int | None = None, lr: Any = 0.1) -> LossCurve:
    logs = tuple(EpochLog(i, lr, loss, None if loss is None else loss + 0.1) for i, loss in enumerate(train))
    return LossCurve(logs, n_epochs=n_epochs or max(1, len(train)), n_classes=n_classes)


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=30), st.sampled_from([2.0**k for k in range(-20, 20)]))
def test_scaling_the_losses_changes_no_verdict_where_chance_is_not_known(losses: list[float], scale: float) -> None:
    one, other = _curve(losses), _curve([loss * scale for loss in losses])
    assert is_diverged(one) == is_diverged(other)
    assert has_learned(one) == has_learned(other)


@pytest.mark.parametrize(
    ("train", "n_classes", "diverged"),
    [
        ([2.3, 1.0, math.nan], 10, True),
        ([2.3, 1.0, math.inf], None, True),
        ([60.0], 10, False),  # over ten times chance, as where nobody scaled the inputs
        ([300.0], 10, True),  # beyond what inputs explain
        ([900.0, 300.0], 10, True),
        ([60.0, 58.0], 10, True),
        ([1.0, 60.0, 24.6], 10, True),  # it falls, but had been lower: that is no beginning
        ([60.0, 24.6, 9.1, 3.6], 10, False),  # it falls
        ([60.0, 24.6, 26.0], 10, True),
        ([1.0, 24.6], 10, True),  # at once
        ([5.0], 10, False),  # above chance, but one epoch says nothing
        ([60.0], None, False),  # who knows what this loss is
        ([1.0, 4.0, 4.0], None, True),
        ([1.0, 2.0, 2.0], None, False),
        ([1.0, 9.0, 0.9], None, False),  # one spike
        ([2.0, 1.0, 2.304, 2.303, 2.304], 10, True),
        ([2.0, 1.0, 2.304, 2.303, 1.8], 10, False),
        ([2.0, 1.0, 2.304, 2.303], 10, True),  # flat at chance: dead
        ([2.0, 1.0, 2.6, 2.8], 10, False),  # bounces
        ([2.0, 1.0, 2.6, 2.8, 2.5], 10, True),
        ([2.0, 1.0, 2.6, 2.8, 2.5], None, True),
        ([2.0, 1.0, 1.7, 1.2, 2.0, 2.4, 2.1, 2.2], None, False),  # noise: it was no further down than it jumps
        ([8.0, 2.4, 2.35, 2.34], 10, True),  # blown up in the first epoch, and dead since
        ([8.0, 2.4, 2.1, 2.34], 10, False),
        ([8.0, 7.9, 7.9, 8.0], None, False),  # where chance is not known, that is a slow starter
        ([2.303] * 9, 10, False),  # a slow starter never left chance
        ([-1.0, -2.0, -3.0], None, False),
        ([-1.0, 5.0, 6.0], None, False),  # around 0: three epochs do not show how large these losses are
        ([-1.0, 5.0, 6.0, -2.0, 5.0, 6.0], None, False),
        ([-1.0, 50.0, 60.0, 40.0, 70.0, 50.0], None, True),
        ([1.0, 4.0, 2.0], None, False),  # it falls
        ([1.0, 0.9, 0.8, 0.7, 0.6, 6.0, 4.0], None, True),  # it falls, but had been lower for long
        ([-20.0, -80.0, -150.0, -160.0, -165.0, -19.0, -18.0, -19.0], None, True),  # back at its start
        ([-20.0, -80.0, -150.0, -160.0, -165.0, -90.0, -95.0, -90.0], None, False),
        ([-20.0, -80.0, -150.0, -160.0, -165.0, -19.0, -18.0, -150.0], None, False),
        ([-1.0, 1e9, 1e9], None, True),  # out of all proportion
        ([1.0, 0.5, 0.0, 0.3, 5.0, 5.0], None, True),  # a squared error that touched 0 is none of those
        (list(np.linspace(-10.0, -1.0, 30)), None, False),  # it only rises, as a critic's may
        ([*np.linspace(-20.0, -300.0, 10), *(-300 + 5 * 1.5 ** np.arange(20))], None, True),  # climbs by and by
        ([1.0, 500.0, 300.0], None, True),  # falls, from far beyond all
        ([1.0, 50.0, 30.0, 18.0], None, False),
        ([1.0, -0.5, -1.0, -1.1, -1.2, 700.0, 400.0, 900.0, 300.0], None, True),
        ([], None, False),
    ],
)
def test_divergence_is_judged_on_the_training_loss(train: Any, n_classes: int | None, diverged: bool) -> None:
    assert is_diverged(_curve(train, n_epochs=10, n_classes=n_classes)) is diverged


DIED = [2.6, 1.2, 0.8, *[2.303] * 5]


@pytest.mark.parametrize(
    ("train", "gap", "lr", "diverged"),
    [
        (DIED, 0.1, 0.1, True),
        ([5.0, *DIED[1:]], 0.1, 0.1, True),  # a first epoch far above chance
        ([1.9, 1.7, 1.6, 2.303, 2.31, 2.29, 2.3, 2.305], 0.1, 0.1, True),  # no twice its best, but more than its fall
        (DIED[:-1], 0.1, 0.1, False),  # four epochs are too few
        ([*DIED[:-1], 2.1], 0.1, 0.1, False),  # it still learns
        (DIED, 0.3, 0.1, False),  # a validation loss of its own: no net that always says the same
        ([2.6, 1.2, 0.8, *[1.1] * 5], 0.1, 0.1, False),  # a sixth of its fall is no death
        ([0.9, *[2.303] * 7], 0.1, 0.1, False),  # it never fell
        ([2.6, 0.8, 1.2, 1.6, 2.0, *[2.3] * 5], 0.1, 0.1, False),  # rises by and by, as at the peak of a cycle
        (DIED, 0.1, [0.1, 0.01, 0.001, *[0.1] * 5], False),  # the schedule starts again
        ([2.6, 1.2, 0.8, 0.8, math.inf, *DIED[3:]], 0.1, 0.1, True),  # back from inf
    ],
)
def test_a_net_that_stands_at_one_level_after_a_jump_is_dead_where_chance_is_not_known(
    train: list[float], gap: float, lr: Any, diverged: bool
) -> None:
    rates = lr if isinstance(lr, list) else [lr] * len(train)
    rows = enumerate(zip(rates, train, strict=True))
    curve = LossCurve(tuple(EpochLog(i, rate, loss, loss + gap) for i, (rate, loss) in rows), n_epochs=20)
    assert is_diverged(curve) is diverged


@pytest.mark.parametrize("every", [1, 5, 20])
def test_a_break_below_0_is_found_however_seldom_a_run_reports(every: int) -> None:
    epochs = range(0, 100, every)
    losses = [-20.0 - 280 * (1 - math.exp(-i / 10)) if i < 50 else 1e6 for i in epochs]
    logs = tuple(EpochLog(i, 0.1, loss, loss) for i, loss in zip(epochs, losses, strict=True))
    assert is_diverged(LossCurve(logs, n_epochs=100))
    assert not is_diverged(LossCurve(logs[: len(logs) // 2], n_epochs=100))


def test_noise_around_0_is_no_divergence() -> None:
    """As the losses of policy gradients: half of such runs were, by the size of their first loss."""
    losses = np.random.default_rng(0).normal(size=(50, 20))
    ever = [any(is_diverged(_curve(list(row[:k]), 20)) for k in range(1, 21)) for row in losses]
    assert np.mean(ever) < 0.1


def test_a_wild_validation_loss_alone_is_no_divergence() -> None:
    logs = tuple(EpochLog(i, 0.1, 1.0 / (i + 1), 19.0) for i in range(9))
    assert not is_diverged(LossCurve(logs, n_epochs=9, n_classes=10))
    assert is_diverged(LossCurve((EpochLog(0, 0.1, None, math.nan),), n_epochs=9))


@pytest.mark.parametrize(
    ("train", "n_classes", "learned"),
    [
        ([2.3, 2.29, 2.0], 10, False),
        ([2.3, 1.5, 0.4], 10, True),
        ([2.3, 1.5, 0.4], None, True),
        ([0.3, 0.29], None, None),  # learned within the first epoch, or not at all
        ([0.3], 10, True),
        ([], 10, None),
        ([2.3, math.nan], None, False),
    ],
)
def test_a_run_has_learned_when_it_left_its_start(train: Any, n_classes: int | None, learned: bool | None) -> None:
    assert has_learned(_curve(train, n_classes=n_classes)) is learned


def test_a_training_loss_of_0_from_the_first_epoch_says_nothing() -> None:
    for losses in ((0.0,) * 8, (0.0, 0.0, 0.1, 0.2, 0.1, 0.0, 0.0, 0.0)):
        curve = LossCurve(tuple(EpochLog(i, 0.1, loss, 1.0) for i, loss in enumerate(losses)), n_epochs=8)
        assert why_diverged(curve) is None
    broken = LossCurve(tuple(EpochLog(i, 0.1, loss, 1.0) for i, loss in enumerate((0.0, math.nan))), n_epochs=8)
    assert why_diverged(broken) is not None


@pytest.mark.parametrize(
    ("losses", "reason"),
    [
        ([2.0, 1.0, math.nan, math.nan], "the training loss is nan at epoch 2"),
        ([2.0, math.nan, 1.0, None, math.inf, math.nan], "the training loss is inf at epoch 4"),
        ([math.nan, math.nan], "the training loss is nan at epoch 0"),
    ],
)
def test_the_epoch_from_which_the_loss_is_no_number_is_named(losses: list[Any], reason: str) -> None:
    assert why_diverged(_curve(losses)) == reason


def test_a_run_stood_still_if_neither_loss_moved_beyond_its_noise() -> None:
    flat, moved = [0.9, 0.9, 0.899, 0.9, 0.9, 0.9], [0.9, 0.8, 0.8, 0.8, 0.8, 0.8]
    rough = [0.9, 1.03, 0.72, 0.85, 1.1, 0.95]
    still = [
        stood_still(LossCurve(tuple(EpochLog(i, 0.1, a, b) for i, (a, b) in enumerate(zip(x, y, strict=True))), 6))
        for x, y in ((flat, flat), (rough, flat), (moved, flat), (flat, moved), ([math.nan] * 6, flat))
    ]
    assert still == [True, True, False, False, False]
