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


@pytest.mark.parametrize("stop_reason", ["end of range", "diverged", "non-finite loss"])
def test_a_validation_loss_ends_where_the_training_loss_is_no_number(stop_reason: str) -> None:
    losses = np.where(np.arange(N) < 20, np.linspace(2.3, 1.0, N), np.nan)
    val, train = read_losses(_test(losses, val_loss=losses, stop_reason=stop_reason))
    assert (val.broken, val.edge_lr) == (train.broken, train.edge_lr) == (20, pytest.approx(LRS[19]))
    assert np.isnan(val.raw[20])


@pytest.mark.parametrize(
    ("above", "held"),
    [([0, 1, 0, 0], [0, 0, 0, 0]), ([0, 1, 1, 0, 0], [0, 1, 0, 0, 0]), ([0, 1, 0, 1], [0, 1, 0, 1]), ([], [])],
)
def test_one_spike_is_no_rise_and_past_the_end_a_rise_holds(above: list[int], held: list[int]) -> None:
    assert sustained(np.array(above, dtype=bool)).tolist() == [bool(x) for x in held]


def test_a_loss_that_falls_from_its_first_evaluation_on_is_read_there() -> None:
    (loss,) = read_losses(_test(np.linspace(2.0, 0.1, N), initial_loss=2.3))
    val, _ = read_losses(_test(np.full(N, 2.3), val_loss=np.linspace(2.0, 0.1, N)))
    assert val.smooth[:3] == pytest.approx(np.linspace(2.0, 0.1, N)[:3])
    assert loss.smooth[:3] == pytest.approx(np.linspace(2.0, 0.1, N)[:3])
    assert loss.start == 2.3  # not the median of the first ten, by which it has fallen


def test_a_network_that_learns_within_ten_updates_starts_where_it_was_untrained() -> None:
    losses = [2.37, 2.33, 1.99, 1.57, 0.98, 0.67, 0.45, 0.21, 0.37, 0.42, 0.8, 0.78, *np.linspace(0.9, 5, 18)]
    (loss,) = read_losses(_test(losses, initial_loss=2.37))
    assert loss.start == pytest.approx(2.35, abs=0.05)
    assert loss.learns
    wild = np.tile([0.3, 3.4], (N - 12) // 2)  # at larger rates
    (loss,) = read_losses(_test([*losses[:12], *wild], initial_loss=2.37))
    assert loss.start == pytest.approx(2.35, abs=0.05)
    again = [2.37, 2.4, 2.1, 1.64, 1.54, 0.95, 1.12, 1.01, 2.08, 3.13, 3.65, 3.52, 6.04, 3.43]  # noise by its fall
    (loss,) = read_losses(_test(again, initial_loss=2.37))
    assert loss.start == pytest.approx(2.37)
    assert loss.learns
    unlucky = [5.0, *(2.3 + 0.02 * np.random.default_rng(0).standard_normal(N - 1))]
    (loss,) = read_losses(_test(unlucky, initial_loss=5.0))
    assert not loss.learns


def test_a_last_loss_that_jumps_up_is_an_edge_and_one_within_the_noise_is_none() -> None:
    falling = np.concatenate([np.linspace(2.3, 2.2, 20), np.linspace(2.1, 0.9, 10)])
    falling[-1] = 5.0
    (loss,) = read_losses(_test(falling))
    assert (loss.edge, loss.falls_to_its_end) == (N - 1, False)
    falling[-1] = 0.9
    (loss,) = read_losses(_test(falling))
    assert (loss.edge, loss.falls_to_its_end) == (None, True)
    rng = np.random.default_rng(0)
    plateau = np.concatenate([np.linspace(2.3, 0.8, 15), np.full(N - 15, 0.8)])
    noisy = [read_losses(_test(plateau + 0.1 * rng.standard_normal(N)))[0] for _ in range(100)]
    assert sum(loss.edge is not None for loss in noisy) <= 8


@pytest.mark.parametrize("below", [2.5, 50.0, 1000.0])
def test_a_loss_that_begins_below_0_has_learned_where_it_fell_clear_of_its_noise(below: float) -> None:
    noise = 0.01 * np.random.default_rng(0).normal(size=N)
    fell, stood = (
        read_losses(_test(losses - below + noise, initial_loss=2.3 - below))[0]
        for losses in (np.linspace(2.3, 2.0, N), np.full(N, 2.3))
    )
    assert fell.learns
    assert not stood.learns


def test_a_loss_that_has_turned_is_no_longer_falling() -> None:
    losses = [2.3] * 20 + [1.5, 1.3, 1.14, 0.96, 0.81, 0.58, 0.55, 0.72, 0.84]
    (loss,) = read_losses(_test(losses))
    assert (loss.edge, loss.falls_to_its_end) == (None, False)


def test_a_stretch_that_has_blown_up_does_not_count_as_noise() -> None:
    val = [2.28, 2.07, 1.24, 1.68, 0.44, 0.73, 0.45, 1.87, 7.9, 59.9, 37.3]
    loss, _ = read_losses(_test(val, val_loss=np.array(val), initial_loss=2.32))
    assert loss.learns
    whole = np.concatenate([np.linspace(2.3, 0.5, 20), np.tile([50.0, 5.0], 5)])
    assert read_losses(_test(whole))[0].error == pytest.approx(read_losses(_test(whole[:20]))[0].error, abs=1e-3)


def test_noise_is_that_of_neighbours_and_ends_before_what_has_blown_up() -> None:
    first = np.array([2.3, 2.9, 2.95, 2.9, 3.0, 2.9, 2.95, 3.0, 2.9, 2.9])
    alone, blown = (read_losses(_test(np.append(first, tail)))[0] for tail in ([], np.tile([400.0, 5.0], 10)))
    assert blown.start == alone.start == pytest.approx(2.9)
    assert blown.error == alone.error > 0
    gaps = np.tile([2.3, 50.0, 1.3], 10)  # of those that have not blown up only 1.3 and 2.3 are neighbours
    assert read_losses(_test(gaps))[0].error == 0


@pytest.mark.parametrize("n", [12, 20, 30])
@pytest.mark.parametrize("initial", [2.3, None])
def test_a_training_loss_that_only_rises_has_not_fallen(n: int, initial: float | None) -> None:
    for losses in (2.3 * 1.1 ** np.arange(n), [2.3, 2.35, 2.5, *np.geomspace(3, 1e4, n - 3)]):
        (loss,) = read_losses(_test(losses, initial_loss=initial, stop_reason="diverged"))
        assert 2.3 <= loss.start <= losses[1]
        assert loss.gain <= 0
        assert not loss.learns


def test_a_loss_that_falls_after_one_lucky_first_batch_has_fallen() -> None:
    losses = np.linspace(2.3, 0.8, N)
    losses[0] = 0.5
    (loss,) = read_losses(_test(losses, initial_loss=0.5))
    assert loss.start > 2
    assert loss.falls_to_its_end


def test_one_lucky_first_batch_is_neither_the_start_nor_a_gain() -> None:
    noise = 0.1 * np.random.default_rng(0).standard_normal(N)
    (loss,) = read_losses(_test([2.15, *(2.3 + noise[1:])], initial_loss=2.15))
    assert loss.start == pytest.approx(2.3, abs=0.1)
    assert not loss.learns


def test_a_loss_wanders_that_rises_before_its_best_or_falls_again_after_it_by_much_of_its_gain() -> None:
    fall, rise = np.linspace(2.3, 1.3, 15), np.linspace(1.3, 2.3, 15)
    bump, again = np.repeat([2.3, 1.6, 2.3], 5), np.repeat([2.3, 1.6, 2.3], 5)
    assert not read_losses(_test([*fall, *rise]))[0].wanders
    assert not read_losses(_test([*fall, *np.tile([50.0, 50.0, 50.0, 4.0, 4.0], 3)]))[0].wanders  # above its start
    assert read_losses(_test([*bump, *fall]))[0].wanders
    assert read_losses(_test([*fall, *again]))[0].wanders


def test_a_loss_that_has_blown_up_and_stands_on_a_plateau_below_its_start_does_not_wander() -> None:
    losses = [*np.linspace(2.3, 1.0, 15), *np.repeat([5.0, 1.4], [5, 10])]
    assert not read_losses(_test(losses))[0].wanders
    assert read_losses(_test(np.minimum(losses, 2.4)))[0].wanders  # noise lies above its start, too


WIDE = np.geomspace(1e-5, 10.0, 50)
DIES = [43, 30, 18, 8, 5, 0.5, 0.38, 0.38, 0.41, 0.45, 0.5, 0.6, *[0.69] * 36, 0.75, 1.8]  # of inputs nobody scaled


def _edge_of(losses: Any, lrs: Any = WIDE) -> float | None:
    (loss,) = read_losses(RangeTest(lrs, losses, None, "end of range", initial_loss=losses[0]))
    return None if loss.edge is None else loss.edge_lr


def test_where_a_loss_stands_still_above_its_best_to_near_the_end_its_edge_is_where_that_begins() -> None:
    assert _edge_of(DIES) == WIDE[11]
    assert _edge_of([*DIES[:12], *0.69 + 0.01 * np.random.default_rng(0).standard_normal(36), *DIES[-2:]]) == WIDE[11]


@pytest.mark.parametrize(
    ("losses", "lrs"),
    [
        (DIES, np.geomspace(1e-5, 0.01, 50)),  # for less than two decades
        ([*DIES[:12], *[0.38] * 38], WIDE),  # at its best
        ([*DIES[:12], *np.geomspace(0.69, 0.5, 38)], WIDE),  # it moves
        ([*DIES[:40], *np.geomspace(0.69, 0.1, 10)], WIDE),  # it comes back
        ([*np.linspace(2.3, 2.0, 25), *np.linspace(2.02, 2.04, 25)], WIDE),  # 5 % of it are a third of its gain
    ],
)
def test_a_loss_that_moves_or_stands_at_its_best_has_no_edge_by_standing_still(losses: Any, lrs: Any) -> None:
    assert _edge_of(losses, lrs) is None
