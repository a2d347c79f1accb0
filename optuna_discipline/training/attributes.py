"""What modules and optimizers keep beside parameters and buffers: counters, lists, hooks, tensors of their own."""

from collections import Counter
from collections import OrderedDict
from collections import defaultdict
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

_FILLED = {dict, OrderedDict, defaultdict, Counter, list, set, deque}  # a subclass may do something else when filled
_PLAIN = (bool, int, float, str, type(None))
_OF_EVERY_MODULE = vars(nn.Module()).keys()

PlainAttributes = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Attributes:
    """The attributes of some objects, and what is in the plain containers among them.

    Every container is kept once and filled anew where it stands: two modules may hold it, or the handle of a hook.

    Attributes:
        contents: Containers, the objects' own `vars` first, each with a copy that holds the same things.
        tensors: Dense tensors in them; others are left alone, as objects of any other class are.

    >>> model = nn.Linear(2, 1)
    >>> model.seen = [1]
    >>> attributes = Attributes.of([model])
    >>> model.seen.append(2)
    >>> model.last = 2
    >>> attributes.restore()
    >>> model.seen, hasattr(model, "last")
    ([1], False)
    """

    contents: tuple[tuple[Any, Any], ...]
    tensors: tuple[torch.Tensor, ...]

    @classmethod
    def of(cls, holders: Iterable[object], known: Iterable[object] = ()) -> "Attributes":
        """Look now.

        Args:
            holders: Modules or optimizers.
            known: Tensors and containers that are taken care of elsewhere.
        """
        contents, tensors = [], []
        seen = {id(value) for value in known}
        waiting: list[Any] = [vars(holder) for holder in holders]
        for value in waiting:  # it grows on the way
            if id(value) in seen:
                continue
            seen.add(id(value))
            if isinstance(value, torch.Tensor):
                tensors += [value] if _is_dense(value) else []
                continue
            if type(value) in _FILLED:
                contents.append((value, value.copy()))
            parts = value.values() if isinstance(value, dict) else value
            waiting += [part for part in parts if type(part) in _FILLED or isinstance(part, (tuple, torch.Tensor))]
        return cls(tuple(contents), tuple(tensors))

    def restore(self) -> None:
        """Fill every container with what it held; the tensors' content is the caller's to restore."""
        for container, content in self.contents:
            container.clear()
            container.extend(content) if isinstance(container, (list, deque)) else container.update(content)


def plain_attributes(model: nn.Module, loss_fn: object = None) -> PlainAttributes:
    """Return the numbers, texts and flags that modules keep as attributes, by the module's name.

    Those of torch's own classes are left out: there they are settings, and what a wrapper knows of its own process.

    >>> class Counting(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.calls = 3
    >>> plain_attributes(Counting())
    {'model': {'calls': 3}}
    """
    return {
        name: {key: value for key, value in vars(module).items() if _is_plain(key, value)}
        for name, module in _both(model, loss_fn).named_modules()
        if not all(kind.__module__.startswith(("torch.", "builtins")) for kind in type(module).__mro__)
    }


def changed_since(start: PlainAttributes, now: PlainAttributes) -> PlainAttributes:
    """Return those that are new or have another value.

    >>> changed_since({"model": {"width": 8, "calls": 0}}, {"model": {"width": 8, "calls": 3}})
    {'model': {'calls': 3}}
    """
    return {
        name: {key: value for key, value in attributes.items() if (key, value) not in start.get(name, {}).items()}
        for name, attributes in now.items()
    }


def set_attributes(saved: PlainAttributes, model: nn.Module, loss_fn: object = None) -> None:
    """Set what `plain_attributes` returned.

    Raises:
        AttributeError: If there is no such module.
    """
    both = _both(model, loss_fn)
    for name, attributes in saved.items():
        vars(both.get_submodule(name)).update(attributes)


def _both(model: nn.Module, loss_fn: object) -> nn.ModuleDict:
    modules = {"model": model, "loss_fn": loss_fn}
    return nn.ModuleDict({name: module for name, module in modules.items() if isinstance(module, nn.Module)})


def _is_plain(name: str, value: object) -> bool:
    return type(value) in _PLAIN and name not in _OF_EVERY_MODULE


def _is_dense(tensor: torch.Tensor) -> bool:
    """Whether a tensor is of torch's own class and has memory of its own to be written."""
    own = type(tensor) in (torch.Tensor, nn.Parameter) and tensor.layout is torch.strided
    return own and not tensor.is_meta and not tensor.is_nested and 0 not in tensor.stride()
