"""What the command line's options take; argparse names the option that got something else."""

import argparse
import contextlib
import math

from optuna_discipline.printable import printable


def whole(text: str, least: int = 1, most: int | None = None) -> int:
    """Return a whole number within its bounds."""
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if number < least or (most is not None and number > most):
        rule = f"from {least} on" if most is None else f"from {least} to {most}"
        raise argparse.ArgumentTypeError(f"must be a whole number {rule}, but got {text!r}")
    return number


def budget(text: str) -> float:
    """Return a number of full trainings."""
    with contextlib.suppress(ValueError):
        if 0 < float(text) < math.inf:
            return float(text)
    raise argparse.ArgumentTypeError(f"must be a positive number of full trainings, but got {text!r}")


def name(text: str) -> str:
    """Return a name that a storage can keep: other bytes than UTF-8's would be refused only once all else is ready."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise argparse.ArgumentTypeError(f"must be UTF-8, but got '{printable(text)}': give another") from error
    return text
