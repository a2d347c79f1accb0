"""Model, loss and a given optimizer's state moved to the device of a training, and back where it is refused."""

from collections.abc import Iterator
from contextlib import ExitStack
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from optuna_discipline.training.model_tensors import tensors_of


@contextmanager
def moved(model: nn.Module, loss_fn: object, optimizer: object, device: torch.device, *, named: bool) -> Iterator[None]:
    """Move what is trained to a device; where the `with` block raises all of it goes back.

    What cannot go back (a tensor swapped for one of another kind) keeps nothing else away, and hides no error.

    A module that is there already is not asked to move, which a quantized one refuses. One that lies over several
    devices is gathered only where the caller named one.

    Args:
        model: Any module.
        loss_fn: Moved if it is a module.
        optimizer: One that was made before keeps its state beside the parameters; others are made after the move.
        device: Where to train.
        named: Whether the caller named the device.
    """
    leaving = [
        module for module in (model, loss_fn) if isinstance(module, nn.Module) and _must_move(module, device, named)
    ]
    tables: list[dict[str, Any]] = [
        table for module in leaving for part in module.modules() for table in (part._parameters, part._buffers)
    ]
    places = [(table, name, tensor) for table in tables for name, tensor in table.items() if tensor is not None]
    kept = _beside_parameters(optimizer) if leaving and isinstance(optimizer, torch.optim.Optimizer) else []
    back = ExitStack()  # none of its steps is left out where another one cannot be done
    for table, name, tensor in places:
        for part in (tensor, tensor.grad if tensor.is_leaf else None):
            if part is not None:
                back.callback(setattr, part, "data", part.data)
        back.callback(table.__setitem__, name, tensor)
    for _, values, key, tensor in kept:
        back.callback(values.__setitem__, key, tensor)
    try:
        for module in leaving:
            module.to(device)
        for parameter, values, key, tensor in kept:
            values[key] = tensor.to(parameter.device)
        yield
    except BaseException as error:
        try:
            back.close()
        finally:
            raise error


def _must_move(module: nn.Module, device: torch.device, named: bool) -> bool:
    found = {tensor.device for _, tensor in tensors_of(module)}
    return found != {device} and (named or len(found) <= 1)


def _beside_parameters(
    optimizer: torch.optim.Optimizer,
) -> list[tuple[torch.Tensor, dict[Any, Any], Any, torch.Tensor]]:
    """Return what an optimizer keeps on the device of a parameter: that, where it is kept, by which key, the tensor."""
    return [
        (parameter, values, key, value)
        for group in optimizer.param_groups
        for parameter in group["params"]
        for values in [optimizer.state.get(parameter)]
        if isinstance(values, dict)
        for key, value in values.items()
        if isinstance(value, torch.Tensor) and value.device == parameter.device
        # A count of steps stays on the CPU, unless the step is captured or fused.
        if key != "step" or group.get("capturable") or group.get("fused")
    ]
