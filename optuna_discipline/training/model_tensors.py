"""What a training asks of a model's tensors: which there are, whether they can be trained, which decay."""

from collections.abc import Iterable
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.utils.parametrizations import _WeightNorm
from torch.nn.utils.parametrize import ParametrizationList
from torch.nn.utils.weight_norm import WeightNorm

_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, getattr(nn, "RMSNorm", nn.LayerNorm))  # torch 2.2 has no RMSNorm
_TAKE_SPARSE = (torch.optim.SGD, torch.optim.Adagrad, torch.optim.SparseAdam)


def bias_and_norm(model: nn.Module) -> list[nn.Parameter]:
    """Return the model's biases and what its normalisations scale and shift by.

    They are the parameters with at most one dimension, those whose own name begins with "bias", those of torch's
    normalisation layers, and the magnitudes of `weight_norm`.

    >>> [tuple(parameter.shape) for parameter in bias_and_norm(nn.Sequential(nn.Linear(3, 2), nn.LayerNorm((2, 2))))]
    [(2,), (2, 2), (2, 2)]
    """
    return [
        parameter
        for module in model.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if parameter.ndim <= 1
        or name.startswith("bias")
        or isinstance(module, _NORMS)
        or (name == "original0" and isinstance(module, ParametrizationList) and isinstance(module[0], _WeightNorm))
        or any(isinstance(hook, WeightNorm) and name == f"{hook.name}_g" for hook in module._forward_pre_hooks.values())
    ]


def check_sparse(model: nn.Module, optimizer: torch.optim.Optimizer, decaying: Iterable[nn.Parameter]) -> None:
    """Refuse embeddings whose sparse gradients a step of torch's does not take; a step of the user's own may take any.

    Args:
        model: Any module.
        optimizer: What trains it.
        decaying: The parameters that it lets decay, which no step of torch's does by a sparse gradient.

    Raises:
        ValueError: If there is such an embedding.
    """
    if not type(optimizer).step.__module__.startswith("torch.optim"):
        return
    takes = isinstance(optimizer, _TAKE_SPARSE)
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    refused = {id(parameter) for parameter in (decaying if takes else trained) if parameter.requires_grad}
    for name, module in model.named_modules():
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and module.sparse and id(module.weight) in refused:
            raise ValueError(
                f"`model` must not make sparse gradients, which {type(optimizer).__name__} does not take"
                f"{' with a weight decay' if takes else ''}, but its module {name or type(module).__name__!r} has "
                "sparse=True: leave that out, or take SGD ('sgd', or one of your own) with weight_decay=0 for it."
            )


def tensors_of(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the model's parameters, frozen ones too, and its buffers, each with its name."""
    yield from model.named_parameters()
    yield from model.named_buffers()


def check_inference_mode_left() -> None:
    """Refuse to train where nothing records a gradient.

    Raises:
        ValueError: If `torch.inference_mode` is on.
    """
    if torch.is_inference_mode_enabled():
        raise ValueError("A training needs gradients, which `torch.inference_mode` never records: leave it.")
