"""Data whose batch size is chosen: a DataLoader is made anew, all else stays, and its order comes from a seed."""

import copy
from typing import Any

from torch.utils.data import DataLoader
from torch.utils.data import IterableDataset

from optuna_discipline.training.arguments import as_count
from optuna_discipline.training.arguments import as_seed
from optuna_discipline.training.batches import Batches
from optuna_discipline.training.batches import as_batches
from optuna_discipline.training.batches import check_batch_size_free
from optuna_discipline.training.random_state import generators_of
from optuna_discipline.training.random_state import loaders_generator

_KEPT = (
    *("num_workers", "collate_fn", "pin_memory", "timeout", "worker_init_fn", "multiprocessing_context"),
    *("prefetch_factor", "persistent_workers", "pin_memory_device", "in_order"),  # some in newer versions only
)


def cut_anew(
    train: Any, *, batch_size: int, shuffle: bool = False, seed: int | None = None, drop_lone: bool = False
) -> Batches:
    """Return training data in batches of a chosen size, as `tune` makes them; their `len` is the batches of an epoch.

    Args:
        train: Tensors, arrays or a torch Dataset; or a DataLoader that was made with a batch size: it is made anew over
            the same data set, with the same sampler, `collate_fn` and workers.
        batch_size: Samples of a batch.
        shuffle: Whether each epoch has a new order; a loader keeps its sampler.
        seed: Start of the order; None draws one from torch's global generator.
        drop_lone: Whether a last batch of a single sample is left out, as `tune` does.

    Raises:
        ValueError: If an argument breaks its rule, or `train` comes in other batches.
        DisciplineError: If there is no sample.

    >>> import torch
    >>> [len(inputs) for inputs, _ in cut_anew((torch.zeros(5, 3), torch.zeros(5)), batch_size=2)]
    [2, 2, 1]
    """
    batch_size, seed = as_count("batch_size", batch_size), as_seed(seed)
    if isinstance(train, DataLoader):
        return with_batch_size(train, batch_size, seed=seed, drop_lone=drop_lone)
    check_batch_size_free(train, batch_size)
    return as_batches(train, batch_size=batch_size, shuffle=shuffle, seed=seed, drop_lone=drop_lone, name="train")


def with_batch_size(
    loader: DataLoader[Any], batch_size: int, *, seed: int | None = None, drop_lone: bool = False
) -> DataLoader[Any]:
    """Return a loader of other batches over the same data set, with the same sampler, `collate_fn` and workers.

    Args:
        loader: A DataLoader that was made with a batch size, and has a length.
        batch_size: Samples of a batch; more than there are give one batch, also where the loader drops the last one.
        seed: Start of the order and of the workers' random numbers, in place of the loader's generator; None draws one.
        drop_lone: As in `TensorBatches`.

    Raises:
        ValueError: If the loader makes its batches in another way.

    >>> loader = DataLoader(list(range(5)), batch_size=1, collate_fn=sum)
    >>> list(with_batch_size(loader, 2))
    [1, 5, 4]
    """
    if loader.batch_size is None or type(loader).__iter__ is not DataLoader.__iter__:
        raise ValueError(
            "`train` must be a DataLoader made with a `batch_size`, in place of which others are chosen here, but got "
            f"a {type(loader).__name__} that makes batches of its own: pass its dataset, or a loader with a `sampler`."
        )
    n_samples = count_of(loader)
    own = next(iter(generators_of(loader)), None)
    generator = loaders_generator(seed, None if own is None else own.device)
    settings = {name: getattr(loader, name) for name in _KEPT if hasattr(loader, name)}
    if not isinstance(loader.dataset, IterableDataset):
        settings["sampler"] = sampler = copy.copy(loader.sampler)
        if hasattr(sampler, "generator"):
            sampler.generator = generator
    lone = drop_lone and 1 < batch_size < n_samples and n_samples % batch_size == 1
    drop_last = lone or (loader.drop_last and batch_size <= n_samples)
    return DataLoader(loader.dataset, batch_size=batch_size, drop_last=drop_last, generator=generator, **settings)


def count_of(data: Any) -> int:
    """Return the samples of one pass over data that are cut anew: of a loader as many as its sampler draws.

    Raises:
        ValueError: If they cannot be counted.
    """
    source = data[0] if isinstance(data, tuple) else data
    if isinstance(data, DataLoader):
        source = data.dataset if isinstance(data.dataset, IterableDataset) else data.sampler
    try:
        return len(source)
    except (TypeError, NotImplementedError) as error:
        raise ValueError(
            "`train` must have a length, which counts the updates of a training, but "
            f"{type(source).__name__} has none: give it a `__len__`."
        ) from error
