"""The values that the paper compares: momenta, weight decays by complexity, epochs at equal time."""

import math
from dataclasses import replace
from typing import Any

from optuna_discipline.rules.arguments import is_number
from optuna_discipline.rules.arguments import to_float
from optuna_discipline.rules.complexity import Complexity
from optuna_discipline.rules.complexity import Model
from optuna_discipline.rules.complexity import judge
from optuna_discipline.rules.complexity import sizes_of

DEFAULT_MOMENTUM = 0.95
DEFAULT_WEIGHT_DECAY = 1e-4
# At a given number of epochs small batches generalise best: 32 is the field's default (Bengio 2012, section 3.1.1;
# Masters & Luschi 2018: "2 to 32"). Four parameters on surrogates of 12 tables: first regret .058 from 32, .077 from 54
# (the middle of the usual bounds).
DEFAULT_BATCH_SIZE = 32
MOMENTA = (0.99, 0.97, 0.95, 0.9)
WEIGHT_DECAYS: dict[Complexity, tuple[float, ...]] = {
    "shallow": (1e-2, 1e-3, 1e-4),
    "moderate": (3e-4, 1e-4, 3e-5),
    "complex": (1e-4, 1e-5, 1e-6, 0.0),
}
# AdamW's is decoupled: like SGD's it takes the learning rate times itself from each weight, at rates some hundreds of
# times below SGD's lr / (1 - momentum). Of the six networks of `benchmarks.decay_and_rate` 0.3 is best on three, 0.1
# and 1 on one each, and on one none of them gains.
DECOUPLED_DECAYS: dict[Complexity, tuple[float, ...]] = {
    "shallow": (1.0, 0.3, 0.1),
    "moderate": (0.3, 0.1, 0.03),
    "complex": (0.1, 0.03, 0.01, 0.0),
}


def momentum_candidates(low: float = 0.0, high: float = 1.0) -> tuple[float, ...]:
    """Return the momenta of short runs that lie in [low, high] (Smith 2018, section 4.3).

    Raises:
        ValueError: If the bounds are not 0 <= low <= high <= 1.

    >>> momentum_candidates(0.92, 0.98)
    (0.97, 0.95)
    """
    if not (is_number(low) and is_number(high) and 0 <= low <= high <= 1):
        raise ValueError(f"`low` and `high` must satisfy 0 <= low <= high <= 1, but got {low=}, {high=}.")
    return tuple(m for m in MOMENTA if low <= m <= high)


def weight_decay_candidates(
    model: Model | None = None,
    data: Any = None,
    *,
    n_parameters: int | None = None,
    n_samples: int | None = None,
    n_classes: int | None = None,
    depth: int | None = None,
    input_size: int | None = None,
    complexity: Complexity | None = None,
    optimizer: str = "sgd",
) -> tuple[float, ...]:
    """Return the weight decays to compare, the largest first (Smith 2018, section 4.4 and its closing recipe).

    Less complex data and architectures need more regularisation. With no argument the set is the one for "unsure",
    half a decade around 1e-4. Give a model and its training data, or numbers, or the word.

    Args:
        model: A torch module; it tells parameters and depth.
        data: Its training data, a tuple (inputs, ..., targets) of tensors or arrays, a torch Dataset or a list of
            samples; they tell samples, classes, input size. For batches give `n_samples` instead.
        n_parameters: Trainable parameters.
        n_samples: Training samples.
        n_classes: Classes; many classes make data complex.
        depth: Layers with weights (matrices and kernels).
        input_size: Numbers of one input; large inputs make data complex.
        complexity: The word itself; then the numbers are not looked at.
        optimizer: What trains, by name: "adamw" decouples the weight decay, whose good values are then far larger.

    Raises:
        ValueError: If a number is below 1, or the word is unknown.
        TypeError: If `model` is no module, the data do not tell how many samples they are, or `optimizer` is no name.

    >>> weight_decay_candidates(complexity="shallow"), weight_decay_candidates(complexity="shallow", optimizer="adamw")
    ((0.01, 0.001, 0.0001), (1.0, 0.3, 0.1))
    >>> weight_decay_candidates(depth=56, n_parameters=850_000, n_samples=50_000)
    (0.0001, 1e-05, 1e-06, 0.0)
    """
    if complexity is None:
        seen = sizes_of(model, data, n_classes=n_classes, input_size=input_size, name="data")
        given = {"n_parameters": n_parameters, "n_samples": n_samples, "depth": depth}
        complexity = judge(replace(seen, **{name: x for name, x in given.items() if x is not None}))
    if complexity not in (words := tuple(WEIGHT_DECAYS)):
        raise ValueError(f"`complexity` must be one of {words} or None, but got {complexity!r}.")
    if not isinstance(optimizer, str):
        raise TypeError(f"`optimizer` must be a name such as 'sgd' or 'adamw', but got {optimizer!r:.80}.")
    return (DECOUPLED_DECAYS if optimizer.lower() == "adamw" else WEIGHT_DECAYS)[complexity]


def bisect_exponent(low: float, high: float) -> float:
    """Return the value half-way between two in the exponent (Smith 2018, section 4.4).

    Raises:
        ValueError: If a value is not a positive finite number.

    >>> round(bisect_exponent(1e-4, 1e-3), 6)
    0.000316
    """
    for name, value in (("low", low), ("high", high)):
        if not (is_number(value) and 0 < value < math.inf):
            raise ValueError(f"`{name}` must be a positive finite number, but got {value!r}.")
    return math.sqrt(low) * math.sqrt(high)


def epochs_at_equal_time(epochs: int, seconds_per_epoch: float, candidate_seconds_per_epoch: float) -> int:
    """Return how many epochs of a candidate come nearest to the time of `epochs` baseline epochs, at least 1.

    The nearest whole number may take up to half an epoch longer. Batch sizes are compared at equal time, never at equal
    epochs or by loss alone (Smith 2018, section 4.1).

    Raises:
        ValueError: If an argument is not a positive finite number, or the epochs are too many to count.

    >>> epochs_at_equal_time(10, seconds_per_epoch=2.0, candidate_seconds_per_epoch=1.0)
    20
    """
    given = {
        "epochs": epochs,
        "seconds_per_epoch": seconds_per_epoch,
        "candidate_seconds_per_epoch": candidate_seconds_per_epoch,
    }
    numbers = []
    for name, value in given.items():
        number = to_float(value)
        if number is None or not 0 < number < math.inf:
            raise ValueError(f"`{name}` must be a positive finite number, but got {value!r}.")
        numbers.append(number)
    count, pace, candidate = numbers
    found = count * pace / candidate
    if not found < math.inf:
        raise ValueError(
            f"`candidate_seconds_per_epoch` must not be so far below `seconds_per_epoch`, but got "
            f"{epochs=}, {seconds_per_epoch=}, {candidate_seconds_per_epoch=}."
        )
    return max(1, round(found))
