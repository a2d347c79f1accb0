"""Arguments asked so that NaN, a bool or a string fails with the rule, the value and the cure."""

import math
from typing import Any
from typing import SupportsFloat
from weakref import WeakValueDictionary

from torch import nn

from optuna_discipline.rules.arguments import to_float
from optuna_discipline.rules.arguments import to_int

Seen = WeakValueDictionary[int, nn.Module]  # by id, for a module of the user's may compare itself in its own way


def as_number(
    name: str,
    value: SupportsFloat,
    *,
    high: float = math.inf,
    low_open: bool = False,
) -> float:
    """Return `value` as a float in [0, high); with `low_open` in (0, high).

    Args:
        name: Name of the argument, for the message.
        value: What the caller gave: a Python or NumPy number, or a tensor with one element.
        high: The value must stay below it; always finite.
        low_open: Whether 0 itself is refused.

    Raises:
        ValueError: If the value is no number, NaN, or outside.

    >>> as_number("lr", 1)
    1.0
    """
    number = to_float(value)
    inside = number is not None and (number > 0 if low_open else number >= 0) and number < high
    if number is None or not inside:
        bracket = "(" if low_open else "["
        raise ValueError(f"`{name}` must be a number in {bracket}0, {high:g}), but got {value!r}.")
    return number


def as_count(name: str, value: int, *, low: int = 1, cure: str = "") -> int:
    """Return `value` as an integer from `low` on.

    Raises:
        ValueError: If the value is no integer (a bool is none) or lies below `low`.

    >>> as_count("batch_size", 64)
    64
    """
    number = to_int(value)
    if number is None or number < low:
        raise ValueError(f"`{name}` must be an integer from {low} on, but got {value!r}.{_tail(cure)}")
    return number


def as_seed(seed: int | None) -> int | None:
    """Return `seed` as an integer that torch's generators take, or None.

    Raises:
        ValueError: If it is neither.
    """
    number = to_int(seed)
    if seed is not None and (number is None or not 0 <= number < 2**64):
        raise ValueError(
            f"`seed` must be an integer from 0 on, below 2**64, but got {seed!r}. "
            "None draws one from torch's global generator."
        )
    return number


def as_choice(name: str, value: object, allowed: tuple[object, ...]) -> None:
    """Check that `value` is one of `allowed`.

    Raises:
        ValueError: If it is not.
    """
    if value not in allowed:
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, allowed))}, but got {value!r}.")


def check_builder(build_model: Any) -> None:
    """Check that `build_model` can make one model after the other.

    Raises:
        ValueError: If it is a model, or cannot be called.
    """
    if not callable(build_model) or isinstance(build_model, nn.Module):
        got = (
            f"a module, {type(build_model).__name__}" if isinstance(build_model, nn.Module) else f"{build_model!r:.80}"
        )
        raise ValueError(
            "`build_model` must be a function that makes a new module for each training, but got "
            f"{got}: pass `lambda: Net(...)`, a function that makes a new one each time."
        )


def as_module(model: Any, seen: Seen) -> nn.Module:
    """Return what `build_model` made, a module that is not among those it made before; note it there.

    Raises:
        ValueError: If it is no module, or not a new one: its weights would go on from one training to the next.
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f"`build_model` must return a torch module, but returned {type(model).__name__}.")
    if seen.get(id(model)) is model:
        raise ValueError(
            "`build_model` must make a new module each time, but returned the same "
            f"{type(model).__name__} again: make it inside the function, or return a copy.deepcopy of it."
        )
    seen[id(model)] = model
    return model


def _tail(cure: str) -> str:
    return f" {cure}" if cure else ""
