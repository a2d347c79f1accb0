"""Everything that a training changes, copied in memory and given back exactly."""

import copy
from collections.abc import Iterable
from collections.abc import Iterator
from contextlib import ExitStack
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from optuna_discipline.training.attributes import Attributes
from optuna_discipline.training.random_state import RandomStates
from optuna_discipline.training.step import tensors_in


@dataclass(frozen=True)
class Snapshot:
    """The state of a training at one moment, in the CPU's memory (files of parallel runs have overwritten each other).

    `restore` writes in place, so that parameters, buffers and parameter groups keep their identity, and may be called
    more than once: nothing that it gives back shares memory with the copy.

    >>> model = nn.Linear(2, 1)
    >>> snapshot = Snapshot.capture(model)
    >>> before = model.weight.detach().clone()
    >>> _ = model.weight.data.zero_()
    >>> snapshot.restore()
    >>> torch.equal(model.weight, before)
    True
    """

    _modules: tuple["_ModuleState", ...]
    _optimizer: "_OptimizerState | None"
    _scaler: tuple[Any, dict[str, Any]] | None
    _random: RandomStates

    @classmethod
    def capture(
        cls,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | None = None,
        scaler: Any = None,
        loss_fn: object = None,
        generators: Iterable[torch.Generator] = (),
        device: torch.device | None = None,
    ) -> "Snapshot":
        """Copy now.

        Args:
            model: Its parameters, their gradients and `requires_grad`, all buffers (also those that a `state_dict`
                leaves out), each module's train or eval flag, its hooks and other attributes: a counter, a hidden
                state, dense tensors that are no buffers, lists, dicts, sets and deques of such. What is in an object of
                any other class is not copied: a NumPy array, a module in a list.
            optimizer: Its state, all values of its parameter groups, and its other attributes likewise.
            scaler: A gradient scaler.
            loss_fn: Copied like the model if it is a module.
            generators: Generators of loaders, see `generators_of`; the global ones are always kept.
            device: A CUDA device on which the training will run although nothing is on CUDA yet.
        """
        modules = [model, loss_fn] if isinstance(loss_fn, nn.Module) else [model]
        return cls(
            _modules=tuple(_ModuleState.capture(module) for module in modules),
            _optimizer=None if optimizer is None else _OptimizerState.capture(optimizer),
            _scaler=None if scaler is None else (scaler, copy.deepcopy(scaler.state_dict())),
            _random=RandomStates.capture(generators, device),
        )

    def restore(self) -> None:
        """Put everything back to what it was; what cannot be is raised once all else is back."""
        with ExitStack() as stack:  # the last is called first, and none is left out
            stack.callback(self._random.restore)
            if self._scaler is not None:
                scaler, state = self._scaler
                stack.callback(scaler.load_state_dict, copy.deepcopy(state))
            if self._optimizer is not None:
                stack.callback(self._optimizer.restore)
            for module in self._modules:
                stack.callback(module.restore)


@contextmanager
def preserved(
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None = None,
    loss_fn: object = None,
    generators: Iterable[torch.Generator] = (),
    device: torch.device | None = None,
) -> Iterator[Snapshot]:
    """Give everything back at the end of the `with` block, also after an exception; see `Snapshot.capture`."""
    snapshot = Snapshot.capture(model, optimizer, None, loss_fn, generators, device)
    try:
        yield snapshot
    finally:
        snapshot.restore()


@dataclass(frozen=True)
class _TensorCopy:
    """A tensor, the memory it stood in, and its content: on the CPU, since a GPU may have no room for both."""

    place: torch.Tensor
    content: torch.Tensor

    @classmethod
    def of(cls, tensor: torch.Tensor) -> "_TensorCopy":
        place = tensor.detach()
        return cls(place, place.to("cpu", copy=True))

    def restore(self) -> torch.Tensor:
        with torch.no_grad():
            self.place.copy_(self.content)
        return self.place


class _AttributeCopy(_TensorCopy):
    """That of an attribute, whose memory may be a file opened to be read: what has not changed is not written."""

    def restore(self) -> torch.Tensor:
        return self.place if _are_equal(self.place.cpu(), self.content) else super().restore()


def _are_equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether two tensors have the same values, NaN for NaN."""
    return torch.equal(a, b) or (not a.is_quantized and torch.allclose(a, b, rtol=0, atol=0, equal_nan=True))


def _copies(tensors: Iterable[torch.Tensor], attributes: Attributes) -> tuple[tuple[torch.Tensor, _TensorCopy], ...]:
    own = [(tensor, _TensorCopy.of(tensor)) for tensor in tensors]
    return (*own, *((tensor, _AttributeCopy.of(tensor)) for tensor in attributes.tensors))


def _give_back(tensor: torch.Tensor, saved: _TensorCopy) -> None:
    """Restore a tensor where it stood; in new memory where the old cannot be written, as that of an expanded one."""
    try:
        tensor.data = saved.restore()
    except RuntimeError:
        tensor.data = saved.content.to(saved.place.device, copy=True)


@dataclass(frozen=True)
class _ParameterState:
    parameter: nn.Parameter
    data: _TensorCopy
    requires_grad: bool
    grad: torch.Tensor | None
    grad_copy: torch.Tensor | None

    @classmethod
    def capture(cls, parameter: nn.Parameter) -> "_ParameterState":
        grad = parameter.grad
        content = None if grad is None else _TensorCopy.of(grad).content
        return cls(parameter, _TensorCopy.of(parameter), parameter.requires_grad, grad, content)

    def restore(self) -> None:
        self.parameter.grad = None  # a gradient on another device or of another layout would forbid the next line
        place = self.data.restore()
        if self.parameter.data_ptr() != place.data_ptr() or self.parameter.stride() != place.stride():
            self.parameter.data = place
        self.parameter.requires_grad_(self.requires_grad)
        if self.grad is not None and self.grad_copy is not None:
            with torch.no_grad():
                self.grad.copy_(self.grad_copy)
            self.parameter.grad = self.grad


@dataclass(frozen=True)
class _ModuleState:
    parameters: tuple[_ParameterState, ...]
    tensors: tuple[tuple[torch.Tensor, _TensorCopy], ...]
    training: tuple[tuple[nn.Module, bool], ...]
    attributes: Attributes

    @classmethod
    def capture(cls, root: nn.Module) -> "_ModuleState":
        modules, parameters, buffers = list(root.modules()), list(root.parameters()), list(root.buffers())
        attributes = Attributes.of(modules, [*parameters, *buffers])
        return cls(
            parameters=tuple(_ParameterState.capture(parameter) for parameter in parameters),
            tensors=_copies(buffers, attributes),
            training=tuple((module, module.training) for module in modules),
            attributes=attributes,
        )

    def restore(self) -> None:
        with ExitStack() as stack:
            stack.callback(self.attributes.restore)
            for module, training in reversed(self.training):  # from the root on: it may hand its mode down
                stack.callback(setattr, module, "training", training)
            for tensor, saved in self.tensors:
                stack.callback(_give_back, tensor, saved)
            for parameter in self.parameters:
                stack.callback(parameter.restore)


@dataclass(frozen=True)
class _OptimizerState:
    """An optimizer's state, copied without `state_dict`, whose loading aliases tensors and casts their dtype.

    Its tensors stay where they are and get their content back; all else in it is copied.
    """

    optimizer: torch.optim.Optimizer
    state: dict[Any, Any]
    tensors: tuple[tuple[torch.Tensor, _TensorCopy], ...]
    groups: tuple[tuple[dict[str, Any], dict[str, Any], list[Any]], ...]
    attributes: Attributes

    @classmethod
    def capture(cls, optimizer: torch.optim.Optimizer) -> "_OptimizerState":
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        attributes = Attributes.of([optimizer], [optimizer.state, optimizer.param_groups, *parameters])
        return cls(
            optimizer,
            {parameter: _copy_around_tensors(values) for parameter, values in optimizer.state.items()},
            _copies(tensors_in(optimizer.state), attributes),
            tuple((group, _copy_values(group), list(group["params"])) for group in optimizer.param_groups),
            attributes,
        )

    def restore(self) -> None:
        self.attributes.restore()
        self.optimizer.state.clear()
        for parameter, values in self.state.items():
            self.optimizer.state[parameter] = _copy_around_tensors(values)
        self.optimizer.param_groups[:] = [group for group, _, _ in self.groups]
        for group, values, parameters in self.groups:
            tensors = {key: value for key, value in group.items() if isinstance(value, torch.Tensor)}
            group.clear()
            group["params"] = list(parameters)
            for key, value in values.items():
                # A tensor (a captured learning rate) keeps its place in memory; schedulers and graphs point at it.
                if key in tensors and isinstance(value, torch.Tensor):
                    group[key] = tensors[key].copy_(value)
                else:
                    group[key] = copy.deepcopy(value)
        with ExitStack() as stack:
            for tensor, saved in self.tensors:
                stack.callback(_give_back, tensor, saved)


def _copy_around_tensors(values: Any) -> Any:
    return copy.deepcopy(values, {id(tensor): tensor for tensor in tensors_in(values)})


def _copy_values(group: dict[str, Any]) -> dict[str, Any]:
    return {key: copy.deepcopy(value) for key, value in group.items() if key != "params"}
