"""How a parameter spells the number of its role: as it is, as 1 less itself, or as an exponent."""

import math
from dataclasses import dataclass
from typing import Any

from optuna_discipline.rules.role_names import EXPONENT_WORDS
from optuna_discipline.rules.role_names import words_of
from optuna_discipline.rules.space import Bounds
from optuna_discipline.rules.space import Role

# `log_lr` is a power of ten, unless it reaches down to where only a natural logarithm does: ln(1e-3) is -6.9. Powers of
# ten are searched between round numbers.
LEAST_ROUND = -6.5
# Above these a power, of ten or of two, would be of nothing that trains.
MOST_EXPONENT = {"lr": 2.0, "weight_decay": 1.0, "batch_size": 16.0}
_NEGATED = frozenset({"neg", "negative", "minus"})


@dataclass(frozen=True)
class Spelling:
    """One way to write numbers.

    Attributes:
        base: Of an exponent; None where the number is none.
        one_less: Whether 1 less the number is written.
    """

    base: float | None = None
    one_less: bool = False

    def read(self, value: float) -> float:
        """Return the number that a parameter's value says.

        >>> Spelling(base=10.0).read(-2), Spelling(one_less=True).read(0.25), Spelling().read(0.1)
        (0.01, 0.75, 0.1)
        """
        if self.base is not None:
            return float(self.base**value)
        return 1 - value if self.one_less else value

    def write(self, number: float) -> float:
        """Return the value that says a number; -inf for the exponent of what has none.

        >>> Spelling(base=2.0).write(64), Spelling(one_less=True).write(0.75)
        (6.0, 0.25)
        """
        if self.base is None:
            return 1 - number if self.one_less else number
        if not number > 0:
            return -math.inf
        return math.log2(number) if self.base == 2 else math.log(number) / math.log(self.base)

    def read_bounds(self, bounds: Bounds) -> Bounds:
        """Return the bounds of the numbers between such values."""
        if self == PLAIN:
            return bounds
        ends = sorted(self.read(value) for value in (bounds.low, bounds.high))
        choices = None if bounds.choices is None else tuple(sorted(map(self.read, bounds.choices)))
        return Bounds(ends[0], ends[1], choices, bounds.start)


PLAIN = Spelling()


def number_of(choice: Any) -> float:
    """Return the number of a choice, also of one in text; NaN for words, booleans and all else.

    >>> number_of("1e-3"), number_of(64), number_of("relu"), number_of(True)
    (0.001, 64.0, nan, nan)
    """
    try:
        return float(choice) if isinstance(choice, int | float | str) and not isinstance(choice, bool) else math.nan
    except (ValueError, OverflowError):
        return math.nan


def spelling_of(role: Role | None, name: str, bounds: Bounds, *, log: bool = False) -> Spelling:
    """Return how a parameter in a role spells its numbers, by its name and its bounds.

    Args:
        role: Its role.
        name: Its name.
        bounds: Of its values as they are.
        log: Whether they are on a log scale: from near 0 to 1, or to below 1/2, it suits 1 - momentum and nothing else.

    >>> spelling_of("momentum", "opt_momentum", Bounds(1e-3, 1.0), log=True)
    Spelling(base=None, one_less=True)
    >>> spelling_of("lr", "log_lr", Bounds(-5.0, -1.0))
    Spelling(base=10.0, one_less=False)
    """
    if role == "momentum":
        turned = log and bounds.low <= 0.1 and not 0.5 < bounds.high < 1
        return Spelling(one_less=turned or "minus" in words_of(name))
    if role == "batch_size" and is_exponent(name) and bounds.low >= 0 and bounds.high <= MOST_EXPONENT[role]:
        return Spelling(base=2.0) if "log2" in words_of(name) or _is_whole(bounds) else PLAIN
    if role in ("lr", "weight_decay") and bounds.low < 0 and not _is_negated(name):
        base = _base_of(set(words_of(name)), bounds)
        return Spelling(base=base) if bounds.high * math.log10(base) <= MOST_EXPONENT[role] + 1e-9 else PLAIN
    return PLAIN


def check_spelling(role: Role, name: str, bounds: Bounds) -> None:
    """Refuse exponents that the user has given a role and that cannot be read as its numbers.

    Raises:
        ValueError: If a learning rate or weight decay would be below 0, or its exponent is negated, as of 1 to 5.
    """
    if role not in ("lr", "weight_decay") or spelling_of(role, name, bounds) != PLAIN:
        return
    if bounds.low < 0 or _is_negated(name) or (is_exponent(name) and bounds.low >= 1):
        raise ValueError(
            f"`roles` must give {role!r} to numbers from 0 up, or to their exponents, not negated and at most "
            f"{MOST_EXPONENT[role]:g} in powers of ten, but {name!r} has it, from {bounds.low:g} to {bounds.high:g}: "
            f"suggest such an exponent (`10 ** trial.suggest_float('log_{role}', -5, -1)`), or the number itself."
        )


def is_exponent(name: str) -> bool:
    """Whether a name says that its values are exponents."""
    return bool(EXPONENT_WORDS & set(words_of(name)))


def _is_negated(name: str) -> bool:
    return is_exponent(name) and not _NEGATED.isdisjoint(words_of(name))


def _is_whole(bounds: Bounds) -> bool:
    return all(float(x).is_integer() for x in bounds.choices or (bounds.low, bounds.high))


def _base_of(words: set[str], bounds: Bounds) -> float:
    if "log2" in words:
        return 2.0
    is_round = all(2 * end == round(2 * end) for end in (bounds.low, bounds.high))
    natural = "ln" in words or (bounds.low < LEAST_ROUND and not is_round and "log10" not in words)
    return math.e if natural else 10.0
