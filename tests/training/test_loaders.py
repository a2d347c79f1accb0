from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.utils.data import BatchSampler
from torch.utils.data import DataLoader
from torch.utils.data import IterableDataset
from torch.utils.data import RandomSampler
from torch.utils.data import SubsetRandomSampler
from torch.utils.data import WeightedRandomSampler

from optuna_discipline.training import loaders
from optuna_discipline.training.loaders import count_of
from optuna_discipline.training.loaders import cut_anew
from optuna_discipline.training.loaders import with_batch_size

ROWS: Any = list(range(9))


def _batches(loader: Any) -> list[list[int]]:
    return [batch.tolist() for batch in loader]


def test_only_the_batch_size_changes() -> None:
    def start(worker: int) -> None: ...

    loader = DataLoader(
        ROWS, 2, num_workers=1, collate_fn=sum, timeout=5, worker_init_fn=start, prefetch_factor=3, pin_memory=False
    )
    made = with_batch_size(loader, 4)
    for name in ("dataset", "num_workers", "collate_fn", "timeout", "worker_init_fn", "prefetch_factor"):
        assert getattr(made, name) == getattr(loader, name), name
    assert (made.batch_size, len(made), made.drop_last) == (4, 3, False)


def test_a_loader_that_does_not_shuffle_still_does_not() -> None:
    assert _batches(with_batch_size(DataLoader(ROWS, 2), 4)) == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]
    assert _batches(with_batch_size(DataLoader(ROWS, 2, sampler=[5, 3, 1]), 2)) == [[5, 3], [1]]


@pytest.mark.parametrize(
    "sampler",
    [RandomSampler(ROWS), SubsetRandomSampler(ROWS[:6]), WeightedRandomSampler([0.0] * 5 + [1.0] * 4, 6)],
)
def test_a_samplers_order_follows_the_seed_and_not_its_generator(sampler: Any) -> None:
    own = torch.Generator()
    sampler.generator = own
    state, before = own.get_state(), torch.get_rng_state()
    loader = DataLoader(ROWS, 2, sampler=sampler, generator=own)
    first, again, other = (_batches(with_batch_size(loader, 4, seed=seed)) for seed in (1, 1, 2))
    assert first == again != other
    assert torch.equal(own.get_state(), state)
    assert torch.equal(torch.get_rng_state(), before)
    assert sampler.generator is own
    assert sum(map(len, first)) == len(sampler) == count_of(loader)
    if isinstance(sampler, WeightedRandomSampler):
        assert min(map(min, first)) >= 5


def test_a_last_batch_is_dropped_as_asked_but_never_the_only_one() -> None:
    assert len(with_batch_size(DataLoader(ROWS, 2), 4, drop_lone=True)) == 2
    assert len(with_batch_size(DataLoader(ROWS, 2), 1, drop_lone=True)) == 9
    assert len(with_batch_size(DataLoader(ROWS, 2, drop_last=True), 5)) == 1
    assert _batches(with_batch_size(DataLoader(ROWS, 2, drop_last=True), 16)) == [ROWS]


class _Stream(IterableDataset):  # type: ignore[type-arg]
    def __iter__(self) -> Iterator[int]:
        return iter(ROWS)


class _Counted(_Stream):
    def __len__(self) -> int:
        return len(ROWS)


class _Sharded(DataLoader):  # type: ignore[type-arg]
    def __iter__(self) -> Any:
        return iter([])


def test_a_stream_needs_a_length() -> None:
    assert _batches(with_batch_size(DataLoader(_Counted(), 2), 6)) == [ROWS[:6], ROWS[6:]]
    with pytest.raises(ValueError, match=r"`train` must have a length.* but _Stream has none: give it a `__len__`"):
        with_batch_size(DataLoader(_Stream(), 2), 6)


@pytest.mark.parametrize(
    "loader",
    [
        DataLoader(ROWS, batch_sampler=BatchSampler(RandomSampler(ROWS), 2, drop_last=False)),
        DataLoader(ROWS, batch_size=None),
        _Sharded(ROWS, 2),
    ],
)
def test_a_loader_that_makes_its_own_batches_is_refused(loader: Any) -> None:
    with pytest.raises(
        ValueError, match=r"`train` must be a DataLoader made with a `batch_size`.*makes batches of its"
    ):
        with_batch_size(loader, 4)


def test_what_is_no_loader_is_cut_as_ever() -> None:
    x = torch.arange(9)
    assert [len(batch[0]) for batch in cut_anew((x,), batch_size=4)] == [4, 4, 1]
    assert (count_of((x, x)), count_of(ROWS)) == (9, 9)


@pytest.mark.parametrize(
    ("train", "batch_size", "rule"),
    [
        ([(torch.zeros(2), torch.zeros(2))], 4, "`batch_size` must be None where `train` is a loader of batches"),
        (DataLoader(ROWS, 2), 0, "`batch_size` must be an integer from 1 on"),
        ({"x": 1}, 4, "`train` must be a tuple of tensors"),
    ],
)
def test_what_cannot_be_cut_anew_is_refused(train: Any, batch_size: int, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        cut_anew(train, batch_size=batch_size)


def test_the_generator_stays_on_the_device_of_the_loaders_own(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(loaders, "loaders_generator", lambda seed, device: asked.append(device) or torch.Generator())
    with_batch_size(DataLoader(ROWS, 2, shuffle=True, generator=torch.Generator()), 4)
    with_batch_size(DataLoader(ROWS, 2, sampler=RandomSampler(ROWS, generator=torch.Generator())), 4)
    with_batch_size(DataLoader(ROWS, 2), 4)
    assert asked == [torch.device("cpu"), torch.device("cpu"), None]
