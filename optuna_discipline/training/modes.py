"""Train and eval mode of a model's modules, set by their own `train()` and `eval()`, which a class may override.

A class may keep a part frozen in its `train()`, or fold weights in `eval()` and unfold them in `train()`, as loralib
does: a flag that is written past them leaves such a module half in one mode and half in the other.
"""

from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import contextmanager

from torch import nn

Modes = Sequence[tuple[nn.Module, bool]]


def modes_of(model: nn.Module) -> Modes:
    """Return every module with its mode, True for train; parents come before their children."""
    return [(module, module.training) for module in model.modules()]


def set_modes(modes: Modes) -> None:
    """Put modules into the given modes, those that are in another one only."""
    for module, training in modes:  # a parent takes its children along; theirs come after it
        if module.training != training:
            module.train() if training else module.eval()


def start_training(model: nn.Module) -> Modes:
    """Put a model into train mode and return the modes of its modules.

    Its `train()` is called also where a new model is in train mode already: one that freezes parts there has not yet.
    Modules in eval mode stay in it (a layer frozen by hand) unless the model as a whole is.
    """
    before = modes_of(model) if model.training else []
    model.train()
    set_modes([(module, module.training and training) for module, training in before])
    return modes_of(model)


@contextmanager
def keep_modes(model: nn.Module) -> Iterator[None]:
    """Give every module its mode back, each its own, also after an exception."""
    modes = modes_of(model)
    try:
        yield
    finally:
        set_modes(modes)
