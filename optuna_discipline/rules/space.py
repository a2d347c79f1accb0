"""What a trial may choose for one role: bounds that a wish is fitted into."""

import math
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from typing import Literal
from typing import get_args

from optuna_discipline.rules.arguments import to_float
from optuna_discipline.rules.candidates import DEFAULT_BATCH_SIZE
from optuna_discipline.rules.candidates import DEFAULT_MOMENTUM
from optuna_discipline.rules.candidates import DEFAULT_WEIGHT_DECAY

Role = Literal["lr", "momentum", "weight_decay", "batch_size", "epochs"]
ROLES: tuple[Role, ...] = get_args(Role)
# Learning rates that are searched and tested where the user says none, by optimizer.
SGD_RANGE, ADAM_RANGE = (1e-5, 10.0), (1e-6, 1.0)
# Without a range test the first learning rate lies two thirds up its bounds in the exponent: 0.1 of [1e-5, 10] for
# SGD, 2e-3 of [1e-5, 1e-1] for Adam. Users leave more room below a good learning rate than above it.
START_SHARE = 2 / 3
# No usual optimizer starts higher, whatever the bounds: of [1e-3, 100] two thirds would be 2.
MOST_START = 0.1
# Names that belong to one library, and its default: scikit-learn's MLPClassifier trains by Adam from 1e-3, Hugging
# Face's trainer by batches of 8.
START_BY_NAME: Mapping[str, float] = {"learning_rate_init": 1e-3, "per_device_train_batch_size": 8}
# Who gives a weight decay a range from 0, without logs, thinks in parts of its upper bound (Hugging Face's scripts .3).
# In logs and from 1e-4, up to nine trials were zero in effect: with the best one at .05 to .25 of .3 the loss above the
# best after 3, 5, 10 and 20 trainings was .175 .173 .110 .085, from there and as it is .080 .044 .024 .005 (a formula).
START_SHARE_FROM_ZERO = 0.1
# Weight decays that are searched where the user says none; of AdamW, which decouples it (`DECOUPLED_DECAYS` of
# `rules.candidates` says why it is so much larger). Adam does not: 0.1 ruins it.
DECAY_RANGE, DECOUPLED_RANGE = (1e-7, 1e-1), (1e-2, 1.0)
# Who lets a weight decay go beyond this decouples it: then it begins in the middle of its bounds, in the exponent.
MOST_COUPLED = 0.1
# Adam's own beta1: a study of its numbers had a regret of .11, .08 and .05 after 2, 5 and 10 trainings from there, .15,
# .11 and .08 from 0.95.
START_BETA = 0.9
# Steps that are counted; where there are more they lie near each other.
MOST_STEPS = 300


@dataclass(frozen=True)
class Bounds:
    """The numbers that one parameter may take.

    Attributes:
        low: Smallest.
        high: Largest.
        choices: The only numbers allowed, rising; None if all between are.
        start: Where to begin, if the parameter's name says it; None leaves it to the role's usual value.

    Raises:
        ValueError: If `low` and `high` are not finite numbers in this order, or there is no choice.
    """

    low: float
    high: float
    choices: tuple[float, ...] | None = None
    start: float | None = None

    def __post_init__(self) -> None:
        low, high = to_float(self.low), to_float(self.high)
        if low is None or high is None or not -math.inf < low <= high < math.inf:
            raise ValueError(
                "`low` and `high` must be finite numbers with low <= high, but got "
                f"low={self.low!r}, high={self.high!r}."
            )

    @classmethod
    def of_choices(cls, choices: Sequence[float]) -> "Bounds":
        """Return the bounds of a finite set of numbers, each once."""
        numbers = [to_float(choice) for choice in choices]
        ordered = tuple(sorted({x for x in numbers if x is not None and math.isfinite(x)}))
        if not ordered or len(ordered) < len({*numbers}):
            raise ValueError(f"`choices` must hold one finite number at least, and nothing else, but got {choices!r}.")
        return cls(ordered[0], ordered[-1], ordered)

    @property
    def single(self) -> bool:
        """Whether there is nothing to choose."""
        return self.low == self.high

    @property
    def from_zero(self) -> bool:
        """Whether this is a range that begins at 0, which has no logarithm."""
        return self.low == 0 < self.high and self.choices is None

    def clip(self, value: float) -> float:
        """Return the allowed number nearest to `value`, by ratio where the numbers are positive; NaN gives `middle`.

        >>> Bounds.of_choices([16, 64, 256]).clip(120)
        64.0
        """
        if math.isnan(value):
            return self.middle()
        if self.choices is None:
            return min(max(value, self.low), self.high)
        if self.low > 0 and value > 0 and math.isfinite(value):
            return min(self.choices, key=lambda choice: abs(math.log(choice / value)))
        inside = min(max(value, self.low), self.high)
        return min(self.choices, key=lambda choice: abs(choice - inside))

    def at(self, share: float) -> float:
        """Return the number at `share` of the way up, in the exponent where the numbers are positive."""
        if self.low > 0:
            return self.clip(math.exp(math.log(self.low) + share * (math.log(self.high) - math.log(self.low))))
        return self.clip(self.low + share * (self.high - self.low))

    def middle(self) -> float:
        """Return the middle, in the exponent where the numbers are positive."""
        if self.choices is not None:
            return self.choices[(len(self.choices) - 1) // 2]
        return self.at(0.5)


def steps_between(low: float, high: float, step: float) -> tuple[float, ...] | None:
    """Return the numbers from `low` to `high` in steps, None where there are many.

    >>> steps_between(0.0, 1.0, 0.25), steps_between(0.0, 1.0, 0.001)
    ((0.0, 0.25, 0.5, 0.75, 1.0), None)
    """
    steps = round((high - low) / step)
    return tuple(min(low + step * i, high) for i in range(steps + 1)) if steps < MOST_STEPS else None


def above_zero(bounds: Bounds, step: float | None = None) -> Bounds:
    """Return bounds without 0, which as a learning rate trains nothing, if a list or a step says what is next to it.

    >>> above_zero(Bounds.of_choices([0, 0.1, 1])).low, above_zero(Bounds(0.0, 1.0)).low
    (0.1, 0.0)
    """
    if bounds.low != 0 or bounds.high == 0:
        return bounds
    positive = None if bounds.choices is None else tuple(choice for choice in bounds.choices if choice > 0)
    low = positive[0] if positive else step
    return bounds if low is None else replace(bounds, low=float(low), choices=positive)


def limits_of(space: Mapping[Role, Bounds]) -> dict[Role, tuple[float, float]]:
    """Return the lowest and the highest value of each role that is asked, with what rounding takes off."""
    return {role: (bounds.low * (1 - 1e-9), bounds.high * (1 + 1e-9)) for role, bounds in space.items()}


def searched(optimizer: str) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the learning rates and the weight decays that are searched where the user says none."""
    return SGD_RANGE if optimizer == "sgd" else ADAM_RANGE, DECOUPLED_RANGE if optimizer == "adamw" else DECAY_RANGE


def default_of(role: Role, bounds: Bounds) -> float:
    """Return what a role starts from: what its name says, or 0.95, batches of 32, two thirds up the rates.

    A weight decay starts from 1e-4, where its bounds go beyond 0.1 from their middle in the exponent, and in a range
    from 0 from a tenth of its upper bound.

    >>> default_of("weight_decay", Bounds(0.0, 0.3)), default_of("weight_decay", Bounds(1e-7, 0.1))
    (0.03, 0.0001)
    """
    if bounds.start is not None:
        return bounds.clip(bounds.start)
    if role == "lr":
        start = bounds.at(START_SHARE)
        return bounds.clip(min(start, MOST_START)) if bounds.low < MOST_START else start
    if role == "momentum":
        return _nearest_momentum(bounds)
    if role == "weight_decay":
        if bounds.from_zero:
            return bounds.high * START_SHARE_FROM_ZERO
        return bounds.clip(DEFAULT_WEIGHT_DECAY if bounds.high <= MOST_COUPLED else bounds.at(0.5))
    if role == "epochs":
        return bounds.high
    return bounds.clip(DEFAULT_BATCH_SIZE)


def _nearest_momentum(bounds: Bounds) -> float:
    """Return the momentum nearest to the default by the ratio of 1 - momentum: of 0.9 and 0.99 it is 0.9."""
    if bounds.choices is None:
        return bounds.clip(DEFAULT_MOMENTUM)
    left = 1 - DEFAULT_MOMENTUM
    return min(bounds.choices, key=lambda choice: abs(math.log(max(1 - choice, 1e-6) / left)))
