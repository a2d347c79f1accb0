"""Data as an iterable of batches: tensors moved to the device once, data sets, loaders as they are."""

import math
from collections.abc import Iterable
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset
from torch.utils.data import IterableDataset
from torch.utils.data import Subset
from torch.utils.data import TensorDataset

from optuna_discipline.exceptions import DisciplineError
from optuna_discipline.training.arguments import as_count
from optuna_discipline.training.arguments import as_seed
from optuna_discipline.training.random_state import draw_seed
from optuna_discipline.training.random_state import loaders_generator
from optuna_discipline.training.step import check_holds_numbers

_FALLBACK_SIZE = 64  # of batches where none is given; a search begins at its own, `DEFAULT_BATCH_SIZE`
Batches = Iterable[Any]


class TensorBatches:
    """Batches cut from tensors that are moved to the device once: no worker, no copy per batch.

    The order comes from a generator of its own, on the CPU: it is the same for the same seed on every device, and
    differs from epoch to epoch.

    Args:
        tensors: One or more tensors or NumPy arrays with the same first dimension (n, ...). Arrays of float64 become
            torch's default dtype, one-dimensional integer arrays int64 (class labels); tensors keep their dtype.
        batch_size: Samples of a batch; more than n gives one batch of n.
        shuffle: Whether each epoch has a new order.
        seed: Start of the order; None draws one from torch's global generator.
        device: Where the tensors go; None leaves them.
        drop_lone: Whether a last batch of a single sample is left out (normalisation cannot train on one); with
            `shuffle` it is another sample each epoch.

    Raises:
        ValueError: If an argument breaks its rule.
        DisciplineError: If there is no sample.

    >>> batches = TensorBatches(torch.arange(5), batch_size=2)
    >>> len(batches), [batch[0].tolist() for batch in batches]
    (3, [[0, 1], [2, 3], [4]])
    """

    def __init__(
        self,
        *tensors: torch.Tensor | np.ndarray[Any, Any],
        batch_size: int,
        shuffle: bool = False,
        seed: int | None = None,
        device: torch.device | str | None = None,
        drop_lone: bool = False,
    ) -> None:
        self.batch_size = as_count("batch_size", batch_size)
        converted = _as_tensors(tensors)
        self.n_samples = len(converted[0])
        self.tensors = tuple(tensor.to(device) if device is not None else tensor for tensor in converted)
        self.shuffle = shuffle
        self.generator = torch.Generator()
        if shuffle:
            seed = as_seed(seed)
            self.generator.manual_seed(draw_seed() if seed is None else seed)
        rest = self.n_samples % self.batch_size
        lone = drop_lone and rest == 1 and self.n_samples > 1
        self._used = self.n_samples - rest if lone else self.n_samples

    def __len__(self) -> int:
        return math.ceil(self._used / self.batch_size)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, ...]]:
        order = None
        if self.shuffle:
            order = torch.randperm(self.n_samples, generator=self.generator, device="cpu").to(self.tensors[0].device)
        for start in range(0, self._used, self.batch_size):
            end = min(start + self.batch_size, self._used)
            if order is None:
                yield tuple(tensor[start:end] for tensor in self.tensors)
            else:
                yield tuple(tensor[order[start:end]] for tensor in self.tensors)


def as_batches(
    data: Any,
    *,
    batch_size: int | None = None,
    shuffle: bool = False,
    seed: int | None = None,
    device: torch.device | str | None = None,
    drop_lone: bool = False,
    name: str = "data",
) -> Batches:
    """Return an iterable of batches over `data`.

    Args:
        data: One of
            a tuple of tensors or NumPy arrays, or one of them: cut by `TensorBatches`;
            a torch `TensorDataset`, or a `Subset` of one: likewise;
            any other torch `Dataset`: wrapped by a `DataLoader`;
            a `DataLoader`, a list of batches or any other iterable of batches: returned as it is.
        batch_size: Samples of a batch, None for 64; of no effect on data that comes in batches.
        shuffle: Whether each epoch has a new order; of no effect on data that comes in batches.
        seed: Start of that order; None draws one from torch's global generator.
        device: Where whole tensors go; batches of a loader are moved when they are used.
        drop_lone: As in `TensorBatches`.
        name: Name of the argument, for messages.

    Raises:
        ValueError: If `data` cannot be cut into batches, or an argument breaks its rule.
        DisciplineError: If there is no sample.
    """
    size = _FALLBACK_SIZE if batch_size is None else as_count("batch_size", batch_size)
    check_columns(name, data)
    tensors = _whole_tensors(data)
    try:
        if tensors is not None:
            return TensorBatches(
                *tensors, batch_size=size, shuffle=shuffle, seed=seed, device=device, drop_lone=drop_lone
            )
        batches = _loader(data, size, shuffle, as_seed(seed), drop_lone) if isinstance(data, Dataset) else data
    except (ValueError, DisciplineError) as error:
        raise type(error)(f"`{name}` cannot be used: {error}") from error
    _check_iterable(name, batches)
    if n_batches(batches) == 0:
        raise DisciplineError(f"`{name}` is empty: there is no batch to train or evaluate on.")
    return batches


def on_device(data: Any, device: torch.device | str) -> Any:
    """Return data that are whole tensors or arrays as a tuple of tensors on a device; all other data as they are."""
    tensors = _whole_tensors(data)
    return data if tensors is None else tuple(tensor.to(device) for tensor in _as_tensors(tensors))


def is_batched(data: Any) -> bool:
    """Tell whether `data` comes in batches already, so that a batch size cannot be chosen."""
    return _whole_tensors(data) is None and not isinstance(data, Dataset)


def check_columns(name: str, data: Any) -> None:
    """Check that a tuple which is meant as whole columns, inputs and targets, can be cut into batches.

    Raises:
        ValueError: If such a tuple holds something else than tensors and arrays: it would pass for a list of batches.
    """
    if not isinstance(data, tuple):
        return
    whole = [isinstance(part, (torch.Tensor, np.ndarray)) for part in data]
    if any(map(_holds_plain, data)) or (any(whole) and not all(whole)):
        kinds = " and ".join(dict.fromkeys(type(part).__name__ for part in data))
        raise ValueError(
            f"`{name}` must be a tuple of tensors or arrays only, or a torch Dataset, but got a tuple of {kinds}: make "
            "arrays of them, or a Dataset that yields (input, target) pairs."
        )


def check_batch_size_free(data: Any, batch_size: int | None) -> None:
    """Check that a chosen batch size has an effect.

    Raises:
        ValueError: If `batch_size` is given for data that comes in batches, or `data` is none.
    """
    check_columns("train", data)
    if batch_size is not None and is_batched(data):
        _check_iterable("train", data)
        raise ValueError(
            f"`batch_size` must be None where `train` is a loader of batches, but got {batch_size!r}: "
            "pass a Dataset or tensors, or make the loader with that batch size."
        )


def n_batches(batches: Batches) -> int | None:
    """Return the number of batches of one pass, None if it cannot be known beforehand."""
    try:
        return len(batches)  # type: ignore[arg-type]
    except (TypeError, NotImplementedError):
        return None


def begin_epoch(batches: Batches, epoch: int) -> None:
    """Tell a loader, or what draws its samples, the number of the epoch that comes next, where it asks for that.

    A `DistributedSampler` that is told none draws the same order each time.
    """
    batch_sampler = getattr(batches, "batch_sampler", None)
    parts = (batches, getattr(batches, "sampler", None), batch_sampler, getattr(batch_sampler, "sampler", None))
    for part in {id(part): part for part in parts}.values():  # a loader's sampler is that of its batch sampler
        set_epoch = getattr(part, "set_epoch", None)
        if callable(set_epoch):
            set_epoch(epoch)


def is_one_shot(batches: Batches) -> bool:
    """Tell whether the iterable can be passed over only once (an iterator or a generator)."""
    return isinstance(batches, Iterator)


def check_repeatable(batches: Batches, name: str, n_passes: int) -> None:
    """Check that `batches` can be passed over `n_passes` times.

    Raises:
        ValueError: If it is an iterator, which is exhausted after one pass.
    """
    if n_passes > 1 and is_one_shot(batches):
        raise ValueError(
            f"`{name}` must be iterable {n_passes} times, but a {type(batches).__name__} is exhausted after one "
            "epoch: pass a DataLoader, a Dataset, tensors or a list of batches."
        )


def _check_iterable(name: str, data: Any) -> None:
    if isinstance(data, (dict, str, bytes)) or not hasattr(data, "__iter__"):
        raise ValueError(
            f"`{name}` must be a tuple of tensors, a torch Dataset or an iterable of batches, "
            f"but got {type(data).__name__}."
        )


def _loader(
    dataset: Dataset[Any], batch_size: int, shuffle: bool, seed: int | None, drop_lone: bool
) -> DataLoader[Any]:
    generator = loaders_generator(seed)
    if isinstance(dataset, IterableDataset):
        return DataLoader(dataset, batch_size=batch_size, generator=generator)
    n_samples = len(dataset)  # type: ignore[arg-type]
    if n_samples == 0:
        raise DisciplineError("the data set has no sample.")
    lone = drop_lone and n_samples > 1 and n_samples % batch_size == 1
    return DataLoader(
        dataset, batch_size=batch_size, shuffle=shuffle, generator=generator, drop_last=lone and batch_size > 1
    )


def _whole_tensors(data: Any) -> tuple[torch.Tensor | np.ndarray[Any, Any], ...] | None:
    """Return the tensors of which `data` consists as a whole, None for data sets and batches."""
    if isinstance(data, (torch.Tensor, np.ndarray)):
        return (data,)
    if isinstance(data, tuple) and data and all(isinstance(part, (torch.Tensor, np.ndarray)) for part in data):
        return data
    if type(data) is TensorDataset:
        return data.tensors
    if type(data) is Subset:
        whole = _whole_tensors(data.dataset)
        indices = torch.as_tensor(data.indices, dtype=torch.long, device="cpu")
        return None if whole is None else tuple(tensor[indices] for tensor in whole)
    return None


def _holds_plain(part: Any) -> bool:
    """Return whether a part is a list of numbers or texts, or a list of such lists."""
    while isinstance(part, (list, tuple)) and part and isinstance(part[0], (list, tuple)):
        part = part[0]
    return isinstance(part, (list, tuple)) and bool(part) and all(isinstance(x, (int, float, str)) for x in part)


def _as_tensors(parts: tuple[torch.Tensor | np.ndarray[Any, Any], ...]) -> list[torch.Tensor]:
    if not parts:
        raise ValueError("`tensors` must hold at least one tensor, but got none.")
    tensors = [_as_tensor(part) for part in parts]
    sizes = [tensor.shape[0] if tensor.ndim else None for tensor in tensors]
    if None in sizes:
        raise ValueError("`tensors` must have a first dimension of samples, but one is a single number.")
    if len(set(sizes)) > 1:
        raise ValueError(f"`tensors` must have the same number of samples, but got {sizes}.")
    if sizes[0] == 0:
        raise DisciplineError("the data has no sample.")
    return tensors


def _as_tensor(part: torch.Tensor | np.ndarray[Any, Any]) -> torch.Tensor:
    if isinstance(part, torch.Tensor):
        check_holds_numbers(part)
        return part.detach()
    if not isinstance(part, np.ndarray) or part.dtype.kind not in "biuf":
        raise ValueError(
            "`tensors` must be tensors or numeric NumPy arrays, "
            f"but got {type(part).__name__}{f' of dtype {part.dtype}' if isinstance(part, np.ndarray) else ''}."
        )
    wide = part.astype(np.int64) if part.dtype.kind == "u" and part.dtype.itemsize > 1 else part
    tensor = torch.from_numpy(np.array(wide, order="C"))  # a copy: read-only and reversed arrays come here too
    if tensor.dtype == torch.float64:
        return tensor.to(torch.get_default_dtype())
    return tensor.long() if tensor.ndim == 1 and part.dtype.kind in "iu" else tensor
