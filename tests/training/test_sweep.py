import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader
from torch.utils.data import IterableDataset
from torch.utils.data import TensorDataset

from optuna_discipline.exceptions import RangeTestError
from optuna_discipline.training.lr_range_test import lr_range_test
from optuna_discipline.training.sweep import Sweep
from optuna_discipline.training.sweep import endless
from optuna_discipline.training.sweep import fixed_subset
from optuna_discipline.training.update import UpdateResult

CPU = torch.device("cpu")


def task(n: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(n, 4, generator=torch.Generator().manual_seed(0))
    return x, (x[:, 0] > 0).long()


class FakeUpdater:
    """Gives the losses of a list, and skips the updates of which it is told."""

    def __init__(self, losses: list[float], skipped: set[int] | None = None) -> None:
        self.losses, self.skipped, self.calls = losses, skipped, 0
        self._scale = 2.0**16
        self.model = nn.Linear(1, 1)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1.0)
        self.rates: list[float] = []

    @property
    def scale(self) -> float | None:
        return None if self.skipped is None else self._scale

    def update(self, window: list[Any]) -> UpdateResult:
        self.rates.append(self.optimizer.param_groups[0]["lr"])
        if self.skipped is not None and self.calls in self.skipped:
            self._scale /= 2
        self.calls += 1
        return UpdateResult(torch.tensor(self.losses[self.calls - 1]), 1)


def sweep(losses: list[float], n: int, skipped: set[int] | None = None) -> tuple[Sweep, str, FakeUpdater]:
    updater = FakeUpdater(losses, skipped)
    run = Sweep(updater, np.linspace(0.1, 1.0, n), None, None, 1)  # type: ignore[arg-type]
    return run, run.run(iter([[0]] * 1000)), updater


def test_a_skipped_update_repeats_its_lr_and_leaves_no_row() -> None:
    run, reason, updater = sweep([1.0] * 12, 10, skipped={0, 1})
    assert reason == "end of range"
    assert len(run.train_loss) == 10
    assert updater.rates[:4] == pytest.approx([0.1, 0.1, 0.1, 0.2])


def test_skips_without_end_are_a_divergence() -> None:
    run, reason, _ = sweep([1.0] * 50, 10, skipped=set(range(5, 50)))
    assert (reason, len(run.train_loss)) == ("diverged", 5)


def test_one_spike_does_not_end_the_sweep_and_a_rise_for_good_does() -> None:
    assert sweep([2.0] * 10 + [50.0] + [2.0] * 9, 20)[1] == "end of range"
    run, reason, _ = sweep([2.0] * 10 + [50.0] * 10, 20)
    assert reason == "diverged"
    assert len(run.train_loss) < 17


@pytest.mark.parametrize("factor", [1e-6, 1.0, 1e6])
def test_the_scale_of_the_loss_does_not_move_the_end(factor: float) -> None:
    losses = [2.0 - 0.1 * i for i in range(10)] + [1.2**i for i in range(30)]
    assert len(sweep([factor * loss for loss in losses], 40)[0].train_loss) == len(sweep(losses, 40)[0].train_loss)


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_ends_the_sweep(broken: float) -> None:
    run, reason, _ = sweep([1.0, 1.0, broken], 10)
    assert (reason, len(run.train_loss)) == ("non-finite loss", 3)
    record = run.record(reason, 10, None, {})
    assert len(record.lrs) == 3


def test_the_subset_ends_with_the_batch_that_fills_it() -> None:
    data = [(torch.ones(4, 1), torch.ones(4))] * 5
    assert len(fixed_subset(data, 9, 0, CPU)) == 3
    assert len(fixed_subset(data, 100, 0, CPU)) == 5
    with pytest.raises(RangeTestError, match="`val` is empty"):
        fixed_subset(iter([]), 9, 0, CPU)


def test_a_list_is_passed_over_for_ever_and_an_iterator_once() -> None:
    assert [w[0] for w in itertools.islice(endless([1, 2], 1), 5)] == [1, 2, 1, 2, 1]
    assert list(endless(iter([1, 2, 3]), 2)) == [[1, 2], [3]]
    assert list(endless([], 1)) == []


def test_a_divergence_ends_the_sweep() -> None:
    x = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
    data = (x, x.sum(1, keepdim=True))
    for val in (None, data):
        test = lr_range_test(nn.Linear(2, 1), nn.MSELoss(), data, val, num_steps=100, seed=0)
        assert test.stop_reason == "diverged"
        assert len(test.lrs) < 100
        assert 0.01 < test.choice.max_lr < 2.0  # type: ignore[operator]


def test_a_negative_loss_does_not_end_the_sweep() -> None:
    test = lr_range_test(
        nn.Linear(4, 2), lambda o, t: nn.functional.cross_entropy(o, t) - 5.0, task(), num_steps=30, end_lr=0.1, seed=0
    )
    assert test.stop_reason == "end of range"


def test_a_loader_shorter_than_the_sweep_is_passed_over_again() -> None:
    loader = DataLoader(TensorDataset(*task()), 20)
    assert len(lr_range_test(nn.Linear(4, 2), nn.CrossEntropyLoss(), loader, num_steps=25, end_lr=0.1).lrs) == 25


class Stream(IterableDataset[Any]):
    def __init__(self) -> None:
        self.passes = 0

    def __iter__(self) -> Iterator[Any]:
        self.passes += 1
        return iter(zip(*task(), strict=True))


def test_streams_are_passed_over_again_and_iterators_end() -> None:
    stream = Stream()
    test = lr_range_test(nn.Linear(4, 2), nn.CrossEntropyLoss(), DataLoader(stream, 20), num_steps=7, end_lr=0.1)
    assert (test.stop_reason, stream.passes) == ("end of range", 3)
    once = iter([task()] * 7)
    test = lr_range_test(nn.Linear(4, 2), nn.CrossEntropyLoss(), once, num_steps=20, end_lr=0.1)
    assert (test.stop_reason, len(test.lrs), test.n_steps) == ("no more data", 7, 20)


def test_a_fresh_scaler_may_look_for_its_scale_far_below_one() -> None:
    run, reason, updater = sweep([1.0] * 40, 10, skipped=set(range(21)))
    assert (reason, len(run.train_loss), updater.scale) == ("end of range", 10, 2.0**-5)
    run, reason, updater = sweep([1.0] * 40, 10, skipped=set(range(40)))
    assert (reason, len(run.train_loss), updater.scale) == ("diverged", 0, 2.0**-17)
