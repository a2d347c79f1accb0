"""Checks of arguments that many functions share."""

import math
import operator
from typing import Any

import numpy as np


def to_float(value: Any) -> float | None:
    """Return a number as Python's, whether NumPy's or a tensor of one; None for what is none or no float can hold.

    >>> [to_float(value) for value in (1, np.float32(0.5), True, "1", None, np.ones(2), 10**400)]
    [1.0, 0.5, None, None, None, None, None]
    """
    if isinstance(value, bool | np.bool_ | str | bytes) or not hasattr(value, "__float__"):
        return None
    try:
        return float(value.detach() if hasattr(value, "detach") else value)  # a tensor with a gradient would warn
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return None


def to_int(value: Any) -> int | None:
    """Return an integer as Python's, whether NumPy's or a tensor of one; None for what is none, as a bool or 2.0.

    >>> [to_int(value) for value in (1, np.int64(-2), True, 2.0, "1", None, np.arange(2))]
    [1, -2, None, None, None, None, None]
    """
    try:
        return None if isinstance(value, bool | np.bool_) else operator.index(value)
    except TypeError:
        return None


def is_number(value: object) -> bool:
    """Return whether a value is a number, NumPy's included; a bool and a text are not.

    >>> [is_number(value) for value in (1, 0.5, float("nan"), True, "1", None)]
    [True, True, True, False, False, False]
    """
    return to_float(value) is not None


def is_count(value: object) -> bool:
    """Return whether a value is an integer from 1 on, NumPy's included, and no bool; nor one that no float can hold."""
    number = to_int(value)
    return number is not None and number >= 1 and is_number(number)


def check_type(name: str, value: object, kind: type) -> None:
    """Refuse a value of another type.

    Raises:
        TypeError: If `value` is no `kind`; the message names argument and value.
    """
    if not isinstance(value, kind):
        raise TypeError(f"`{name}` must be a {kind.__name__}, but got {type(value).__name__}: {value!r}.")


def encode(value: float | None) -> float | str | None:
    """Return `value` as strict JSON: NaN and inf become strings, which every storage keeps."""
    if value is None:
        return None
    number = float(value)
    return number if math.isfinite(number) else str(number)
