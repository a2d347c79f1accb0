"""What the processes that train one model together agree on, so that all of them see one loss and stop at one step."""

from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from optuna_discipline.exceptions import DisciplineError


def over_ranks(model: nn.Module, sums: torch.Tensor, count: int) -> tuple[torch.Tensor, int]:
    """Return sums and a count over all ranks; what it was given, unless the model is a DistributedDataParallel.

    >>> over_ranks(nn.Linear(1, 1), torch.tensor(3.0), 2)
    (tensor(3.), 2)
    """
    whole = compiled_from(model)
    if not isinstance(whole, DistributedDataParallel):
        return sums, count
    both = torch.cat([sums.detach().double().reshape(-1), sums.new_tensor([count], dtype=torch.float64)])
    torch.distributed.all_reduce(both, group=whole.process_group)
    return both[:-1].reshape(sums.shape), int(both[-1].item())


def of_each_rank(model: nn.Module, value: float, device: torch.device) -> list[float]:
    """Return the value of every rank, rank 0's first; the given one, unless the model is a DistributedDataParallel.

    >>> of_each_rank(nn.Linear(1, 1), 2.5, torch.device("cpu"))
    [2.5]
    """
    whole = compiled_from(model)
    if not isinstance(whole, DistributedDataParallel):
        return [value]
    group = whole.process_group
    values = torch.zeros(torch.distributed.get_world_size(group), dtype=torch.float64, device=device)
    values[torch.distributed.get_rank(group)] = value
    torch.distributed.all_reduce(values, group=group)
    found: list[float] = values.tolist()
    return found


def check_equal_batches(model: nn.Module, n_batches: int | None, device: torch.device) -> None:
    """Check that all ranks have as many batches: each waits for the others at every one.

    Args:
        model: The question arises with a DistributedDataParallel only.
        n_batches: Of this rank; where one does not know its number, nothing is checked.
        device: Where the model is.

    Raises:
        ValueError: On every rank, if the numbers differ.
    """
    counts = [int(count) for count in of_each_rank(model, n_batches or 0, device)]
    if len(set(counts)) > 1 and 0 not in counts:
        raise ValueError(
            f"`train` must have the same number of batches on every rank, but they have {counts}: give each rank as "
            "many samples with a DistributedSampler, or leave a last batch that is not full out with drop_last=True."
        )


def joined_ranks() -> Any:
    """Return torch.distributed to a process that has joined others.

    Raises:
        DisciplineError: If it has not.
    """
    dist = torch.distributed
    if not (dist.is_available() and dist.is_initialized()):
        raise DisciplineError(
            "This process has joined no others: start all by torchrun, and call torch.distributed.init_process_group() "
            "first."
        )
    return dist


def without_ranks(model: nn.Module) -> nn.Module:
    """Return the module that a DistributedDataParallel wraps, any other one as it is.

    Its forward pass takes part in no broadcast of buffers, so ranks may have different numbers of validation batches.
    """
    whole = compiled_from(model)
    return whole.module if isinstance(whole, DistributedDataParallel) else model


def compiled_from(model: nn.Module) -> nn.Module:
    """Return the module that `torch.compile` was given, any other one as it is."""
    original = getattr(model, "_orig_mod", model)
    return original if isinstance(original, nn.Module) else model
