"""Sums over the processes that train one model together, so that all of them see one loss and stop at one step."""

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel


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
