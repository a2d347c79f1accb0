"""Checks of arguments that many functions share."""

from typing import TypeVar

T = TypeVar("T")


def is_number(value: object) -> bool:
    """Return whether a value is a number, NumPy's included; a bool and a text are not.

    >>> [is_number(value) for value in (1, 0.5, float("nan"), True, "1", None)]
    [True, True, True, False, False, False]
    """
    return hasattr(value, "__float__") and not isinstance(value, bool)


def is_count(value: object) -> bool:
    """Return whether a value is an integer from 1 on, NumPy's included, and no bool."""
    return hasattr(value, "__index__") and not isinstance(value, bool) and value.__index__() >= 1


def check_type(name: str, value: object, kind: type) -> None:
    """Refuse a value of another type.

    Raises:
        TypeError: If `value` is no `kind`; the message names argument and value.
    """
    if not isinstance(value, kind):
        raise TypeError(f"`{name}` must be a {kind.__name__}, but got {type(value).__name__}: {value!r}.")
