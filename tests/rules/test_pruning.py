import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optuna_discipline import EpochLog
from optuna_discipline import LossCurve
from optuna_discipline import should_stop
from optuna_discipline.rules.curve import tail_median
from optuna_discipline.rules.pruning import as_peer
from optuna_discipline.rules.pruning import has_falling_lr
from optuna_discipline.rules.pruning import has_learned
from optuna_discipline.rules.pruning import is_diverged

ANY = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True))


def _curve(train: list[Any], n_epochs: int | None = None, n_classes: int | None = None, lr: Any = 0.1) -> LossCurve:
    logs = tuple(EpochLog(i, lr, loss, None if loss is None else loss + 0.1) for i, loss in enumerate(train))
    return LossCurve(logs, n_epochs=n_epochs or max(1, len(train)), n_classes=n_classes)


@given(st.lists(st.tuples(ANY, ANY, ANY), max_size=30), st.sampled_from([None, 2, 10]), st.integers(1, 40))
def test_any_curve_gets_an_answer(rows: Any, n_classes: int | None, n_epochs: int) -> None:
    logs = tuple(EpochLog(i, *row) for i, row in enumerate(rows))
    curve = LossCurve(logs, n_epochs=n_epochs, n_classes=n_classes)
    decision = should_stop(curve, [curve] * 5)
    assert decision.reason
    assert has_learned(curve) in (True, False, None)
    assert decision.stop or not is_diverged(curve)


@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=30), st.sampled_from([2.0**k for k in range(-20, 20)]))
def test_scaling_the_losses_changes_no_verdict_where_chance_is_not_known(losses: list[float], scale: float) -> None:
    one, other = _curve(losses), _curve([loss * scale for loss in losses])
    assert is_diverged(one) == is_diverged(other)
    assert has_learned(one) == has_learned(other)


@pytest.mark.parametrize(
    ("train", "n_classes", "diverged"),
    [
        ([2.3, 1.0, math.nan], 10, True),
        ([2.3, 1.0, math.inf], None, True),
        ([60.0], 10, True),  # at once: over ten times chance
        ([60.0], None, False),  # who knows what this loss is
        ([1.0, 4.0, 4.0], None, True),
        ([1.0, 2.0, 2.0], None, False),
        ([1.0, 9.0, 0.9], None, False),  # one spike
        ([2.0, 1.0, 2.304, 2.303, 2.304], 10, True),
        ([2.0, 1.0, 2.304, 2.303, 1.8], 10, False),
        ([2.303] * 9, 10, False),  # a slow starter never left chance
        ([-1.0, -2.0, -3.0], None, False),
        ([-1.0, 5.0, 6.0], None, True),
        ([], None, False),
    ],
)
def test_divergence_is_judged_on_the_training_loss(train: Any, n_classes: int | None, diverged: bool) -> None:
    assert is_diverged(_curve(train, n_epochs=10, n_classes=n_classes)) is diverged


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


def test_a_learning_rate_is_known_to_fall_only_when_a_cycle_would_have_shown() -> None:
    rates = {"constant": [0.1] * 8, "falling": [0.8, 0.7, 0.6, 0.5], "rising": [0.1, 0.2, 0.3], "short": [0.1, 0.1]}
    logs = {name: tuple(EpochLog(i, lr, 1.0, 1.0) for i, lr in enumerate(lrs)) for name, lrs in rates.items()}
    falls = {name: has_falling_lr(LossCurve(own, n_epochs=8)) for name, own in logs.items()}
    assert falls == {"constant": True, "falling": True, "rising": False, "short": False}
    assert not has_falling_lr(LossCurve(logs["constant"][:3], n_epochs=3))
    assert not has_falling_lr(_curve([1.0] * 8, lr=None))


def test_bad_slack_is_refused() -> None:
    with pytest.raises(ValueError, match="`slack` must be a finite number from 0 on"):
        should_stop(_curve([1.0]), slack=math.nan)


def _ramp(end: float, n: int = 20, lr: float = 0.1, **settings: Any) -> LossCurve:
    return _curve([end + 2 / (i + 1) for i in range(n)], n_epochs=20, lr=lr, **settings)


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=3, max_size=20), st.integers(0, 25))
def test_a_peer_stands_at_the_median_of_its_last_five_losses(losses: list[float], epoch: int) -> None:
    logs = tuple(EpochLog(2 * i, 0.1, None, loss) for i, loss in enumerate([*losses, 1.0]))
    peer = as_peer(LossCurve(logs, n_epochs=100))
    assert peer is not None
    level = peer.level_at(epoch, n_epochs=100)
    if epoch > logs[-1].epoch:
        assert level is None
    else:
        wanted = tail_median(LossCurve(tuple(log for log in logs if log.epoch <= epoch), n_epochs=100).val_loss)
        assert level == (pytest.approx(wanted, rel=1e-12) if math.isfinite(wanted) else None)
    assert peer.level_at(epoch, n_epochs=99) is None


def test_peers_read_once_decide_as_curves_do() -> None:
    curves = [_ramp(0.1 + 0.01 * i) for i in range(5)]
    peers = [peer for curve in curves if (peer := as_peer(curve)) is not None]
    for own in (_ramp(0.1, 8), _ramp(5.0, 8), _ramp(5.0, 3)):
        assert should_stop(own, peers) == should_stop(own, curves)
    assert should_stop(_ramp(5.0, 8), peers).stop


@pytest.mark.parametrize(
    "curve",
    [
        _curve([2.303] * 20, n_classes=10),
        _curve([1.0, *[9.0] * 19]),
        _curve([1.0] * 20, lr=None),
        _curve([1.0, 0.5, 0.1]),
        _curve([]),
    ],
    ids=["never learned", "diverged", "unknown rate", "too short", "empty"],
)
def test_runs_that_say_nothing_are_no_peers(curve: LossCurve) -> None:
    assert as_peer(curve) is None


@pytest.mark.parametrize("epochs", [[0, 3, 7, 9, 12], [9, 0, 9, 3, 12]])
def test_missing_and_unordered_epochs_are_compared_at_the_last_one_seen(epochs: list[int]) -> None:
    logs = tuple(EpochLog(epoch, 0.1, 0.4, 0.4) for epoch in epochs)
    sparse = LossCurve(logs, n_epochs=20)
    assert not should_stop(_ramp(0.05, 9), [sparse] * 5).stop
    assert should_stop(_ramp(5.0, 9), [sparse] * 5).stop
    assert not should_stop(_ramp(5.0, 9), [sparse] * 3).stop
