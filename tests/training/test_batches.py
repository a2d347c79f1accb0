from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset
from torch.utils.data import IterableDataset
from torch.utils.data import Subset
from torch.utils.data import TensorDataset

from optuna_discipline.exceptions import DisciplineError
from optuna_discipline.training.batches import TensorBatches
from optuna_discipline.training.batches import as_batches
from optuna_discipline.training.batches import check_batch_size_free
from optuna_discipline.training.batches import check_repeatable
from optuna_discipline.training.batches import n_batches
from optuna_discipline.training.batches import on_device


class Squares(Dataset[Any]):
    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> Any:
        return torch.tensor([float(i)]), torch.tensor([float(i * i)])


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter(torch.arange(5.0))


def order(batches: Any) -> list[int]:
    return [int(i) for batch in batches for i in batch[0].flatten()]


def test_the_order_is_fixed_by_the_seed_and_new_each_epoch() -> None:
    def make() -> TensorBatches:
        return TensorBatches(torch.arange(20), batch_size=6, shuffle=True, seed=3)

    one, two = make(), make()
    first, second = order(one), order(one)
    assert sorted(first) == list(range(20))
    assert first != second
    assert [order(two), order(two)] == [first, second]


def test_tensors_stay_aligned_when_shuffled() -> None:
    for x, y in TensorBatches(torch.arange(10), torch.arange(10) * 2, batch_size=3, shuffle=True, seed=0):
        assert torch.equal(y, 2 * x)


@pytest.mark.parametrize(
    ("n", "size", "options", "sizes"),
    [
        (5, 2, {}, [2, 2, 1]),
        (5, 2, {"drop_lone": True}, [2, 2]),
        (6, 4, {"drop_lone": True}, [4, 2]),
        (1, 8, {"drop_lone": True}, [1]),
        (3, 1, {"drop_lone": True}, [1, 1, 1]),
        (3, 100, {}, [3]),
    ],
)
def test_the_sizes_of_the_batches(n: int, size: int, options: dict[str, bool], sizes: list[int]) -> None:
    batches = TensorBatches(torch.arange(n), batch_size=size, **options)  # type: ignore[arg-type]
    assert [len(batch[0]) for batch in batches] == sizes
    assert len(batches) == len(sizes)


def test_arrays_become_what_a_loss_takes() -> None:
    x, y = np.random.rand(4, 2)[::-1], np.arange(4, dtype=np.uint16)
    x.flags.writeable = False
    bx, by = next(iter(TensorBatches(x, y, batch_size=4)))
    assert (bx.dtype, by.dtype) == (torch.float32, torch.int64)
    assert bx[0].tolist() == pytest.approx(x[0].tolist())


def test_data_sets_tuples_and_subsets_of_tensors_take_the_fast_path() -> None:
    data = TensorDataset(torch.arange(6), torch.arange(6))
    for form in (data, data.tensors, Subset(data, [5, 0, 2]), torch.arange(6)):
        assert isinstance(as_batches(form, batch_size=2), TensorBatches)
    assert order(as_batches(Subset(data, [5, 0, 2]), batch_size=2)) == [5, 0, 2]


def test_other_data_sets_take_a_loader_with_a_seeded_order() -> None:
    one, two = (as_batches(Squares(10), batch_size=3, shuffle=True, seed=1) for _ in range(2))
    assert isinstance(one, DataLoader)
    assert order(one) == order(two)
    assert n_batches(as_batches(Squares(10), batch_size=3, drop_lone=True)) == 3
    assert n_batches(as_batches(Squares(10), batch_size=64)) == 1


def test_loaders_and_iterables_are_returned_as_they_are() -> None:
    loader = DataLoader(Squares(4))
    batches = [(torch.ones(1), torch.ones(1))]
    assert as_batches(loader) is loader
    assert as_batches(batches) is batches


def test_a_stream_has_no_length() -> None:
    assert n_batches(as_batches(Stream(), batch_size=2)) is None


@pytest.mark.parametrize(
    "data", [[], (torch.ones(0, 2), torch.ones(0)), TensorDataset(torch.ones(0)), Squares(0), Subset(Squares(3), [])]
)
def test_empty_data_is_refused(data: object) -> None:
    with pytest.raises(DisciplineError, match=r"`train` (is empty|cannot be used)"):
        as_batches(data, name="train")


@pytest.mark.parametrize("size", [0, -4, 2.5, "8", True])
def test_a_bad_batch_size_is_refused(size: object) -> None:
    with pytest.raises(ValueError, match="`batch_size` must be an integer from 1 on"):
        TensorBatches(torch.ones(3), batch_size=size)  # type: ignore[arg-type]


def test_what_is_no_data_is_refused() -> None:
    with pytest.raises(ValueError, match="same number of samples"):
        as_batches((torch.ones(3), torch.ones(4)))
    with pytest.raises(ValueError, match="dtype"):
        as_batches(np.array(["a", "b"]))
    with pytest.raises(ValueError, match="first dimension"):
        as_batches(torch.tensor(1.0))
    with pytest.raises(ValueError, match="must be a tuple of tensors"):
        as_batches({"x": torch.ones(3)})
    with pytest.raises(ValueError, match="must be a tuple of tensors"):
        as_batches(7)


@pytest.mark.parametrize(
    ("data", "kinds"),
    [
        (({"a": torch.ones(4, 2)}, torch.ones(4)), "dict and Tensor"),
        (([[1.0, 2.0], [3.0, 4.0]], [0, 1]), "list"),
        ((torch.ones(2, 2), ["a", "b"]), "Tensor and list"),
    ],
)
def test_columns_that_cannot_be_cut_do_not_pass_for_batches(data: Any, kinds: str) -> None:
    message = f"`train` must be a tuple of tensors or arrays only, or a torch Dataset, but got a tuple of {kinds}: make"
    for call in (lambda: as_batches(data, name="train"), lambda: check_batch_size_free(data, 2)):
        with pytest.raises(ValueError, match=message):
            call()


def test_a_tuple_of_batches_is_one() -> None:
    pair = (torch.ones(2, 1), torch.ones(2))
    for batches in ((pair, pair), ({"x": pair[0], "y": pair[1]},), ([[pair[0]], pair[1]],), (("name", pair[0]),)):
        assert as_batches(batches) is batches


def test_a_generator_cannot_be_passed_over_twice() -> None:
    with pytest.raises(ValueError, match="must be iterable 2 times, but a generator is exhausted"):
        check_repeatable((i for i in range(3)), "train", 2)
    check_repeatable((i for i in range(3)), "train", 1)


def test_a_batch_size_for_batched_data_is_refused() -> None:
    with pytest.raises(ValueError, match="`batch_size` must be None where `train` is a loader"):
        check_batch_size_free(DataLoader(Squares(4)), 2)
    check_batch_size_free(Squares(4), 2)


def test_what_is_no_data_is_not_blamed_on_the_batch_size() -> None:
    for data in (None, 3, "ab", {"x": 1}):
        with pytest.raises(ValueError, match=f"`train` must be a tuple of tensors, .* but got {type(data).__name__}"):
            check_batch_size_free(data, 2)


def test_data_without_numbers_are_refused_by_their_name() -> None:
    with pytest.raises(ValueError, match=r"`val` cannot be used: Data .* shape \(2, 3\) is on 'meta'"):
        as_batches((torch.ones(2), torch.ones(2, 3, device="meta")), name="val")


def test_another_default_device_takes_no_part_in_the_order() -> None:
    x, subset = torch.arange(6), Subset(TensorDataset(torch.arange(9)), [5, 0, 2])
    expected = order(TensorBatches(x, batch_size=4, shuffle=True, seed=0))
    with torch.device("meta"):  # stands for a GPU: what is made there cannot be read
        assert order(TensorBatches(x, batch_size=4, shuffle=True, seed=0)) == expected
        assert sorted(order(TensorBatches(x, batch_size=4, shuffle=True))) == x.tolist()
        assert order(as_batches(subset, batch_size=2)) == [5, 0, 2]


def test_whole_tensors_move_as_they_are_and_other_data_stay() -> None:
    x, y = torch.arange(4.0), torch.arange(4)
    for data in ((x, y), TensorDataset(x, y), Subset(TensorDataset(x, y), range(4))):
        moved = on_device(data, "meta")
        assert [(part.device.type, part.shape, part.dtype) for part in moved] == [
            ("meta", (4,), torch.float32),
            ("meta", (4,), torch.int64),
        ]
    assert on_device(x.numpy(), "cpu")[0].tolist() == [0, 1, 2, 3]
    squares, batches = Squares(3), [(x, y)]
    assert on_device(squares, "meta") is squares
    assert on_device(batches, "meta") is batches
