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


def _is_dense(tensor: torch.Tensor) -> bool:
    """Whether a tensor is of torch's own class and has memory of its own to be written."""
    own = type(tensor) in (torch.Tensor, nn.Parameter) and tensor.layout is torch.strided
    return own and not tensor.is_meta and not tensor.is_nested and 0 not in tensor.stride()
