"""The values that the paper compares: momenta, weight decays by complexity, epochs at equal time."""

import math
from collections.abc import Iterable
from typing import Any
from typing import Literal
from typing import Protocol

from optuna_discipline.rules.arguments import is_number

Complexity = Literal["shallow", "moderate", "complex"]

DEFAULT_MOMENTUM = 0.95
DEFAULT_WEIGHT_DECAY = 1e-4
MOMENTA = (0.99, 0.97, 0.95, 0.9)
WEIGHT_DECAYS: dict[Complexity, tuple[float, ...]] = {
    "shallow": (1e-2, 1e-3, 1e-4),
    "moderate": (3e-4, 1e-4, 3e-5),
    "complex": (1e-4, 1e-5, 1e-6, 0.0),
}
# The nets of the paper: 3 convolutions on CIFAR-10 (5 weight layers, .15 M parameters) and LeNet on MNIST (4, .43 M)
# want 4e-3 and 5e-4; resnet-56 (.85 M), wide resnet and densenet-40 on CIFAR (32 to 56 layers) want 1e-4 to 1e-6, and
# inception and resnet-50 on ImageNet (1.3 M samples) 3e-6. The thresholds lie between, on a log scale.
SHALLOW_DEPTH, COMPLEX_DEPTH = 5, 20
SHALLOW_PARAMETERS, COMPLEX_PARAMETERS = 500_000, 800_000
COMPLEX_SAMPLES = 300_000


class _Parameter(Protocol):
    ndim: int
    requires_grad: bool

    def numel(self) -> int: ...


class _Model(Protocol):
    def parameters(self) -> Iterable[Any]: ...


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
    *,
    n_parameters: int | None = None,
    n_samples: int | None = None,
    n_classes: int | None = None,
    depth: int | None = None,
    complexity: Complexity | None = None,
) -> tuple[float, ...]:
    """Return the weight decays to compare, the largest first (Smith 2018, section 4.4 and its closing recipe).

    Less complex data and architectures need more regularisation. With no argument the set is the one for "unsure",
    half a decade around 1e-4.

    Args:
        n_parameters: Trainable parameters.
        n_samples: Training samples.
        n_classes: Classes; many classes make data complex.
        depth: Layers with weights (matrices and kernels).
        complexity: The word itself; then the numbers are not looked at.

    Raises:
        ValueError: If a number is below 1, or the word is unknown.

    >>> weight_decay_candidates(complexity="shallow")
    (0.01, 0.001, 0.0001)
    >>> weight_decay_candidates(depth=56, n_parameters=850_000, n_samples=50_000)
    (0.0001, 1e-05, 1e-06, 0.0)
    """
    if complexity is None:
        complexity = _judge(n_parameters, n_samples, n_classes, depth)
    if complexity not in WEIGHT_DECAYS:
        raise ValueError(f"`complexity` must be one of {tuple(WEIGHT_DECAYS)} or None, but got {complexity!r}.")
    return WEIGHT_DECAYS[complexity]


def complexity_of(model: _Model, n_samples: int, n_classes: int | None = None) -> Complexity:
    """Return how complex a model and its data are, which sets the weight decays to compare.

    Depth decides where it is clear (at most 5 weight layers are shallow, 20 or more complex); more than 300,000
    samples or 500 classes are complex with any net of more than 5 layers. The thresholds lie between the paper's
    networks; how often they bracket the best weight decay is not measured yet.

    Args:
        model: A torch module, or anything whose `parameters()` have `numel()`, `ndim` and `requires_grad`.
        n_samples: Training samples.
        n_classes: Classes, or None for a regression.

    Raises:
        ValueError: If the model has no trainable parameter, or a number is below 1.
        TypeError: If `model` has no `parameters()`.
    """
    if not callable(getattr(model, "parameters", None)):
        raise TypeError(f"`model` must be a torch module with `parameters()`, but got {type(model).__name__}.")
    parameters: list[_Parameter] = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError("`model` must have trainable parameters, but none requires a gradient.")
    depth = max(1, sum(p.ndim >= 2 for p in parameters))
    return _judge(sum(p.numel() for p in parameters), n_samples, n_classes, depth)


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
    """Return how many epochs a candidate may run in the time of `epochs` baseline epochs, at least 1.

    Batch sizes are compared at equal time, never at equal epochs or by loss alone (Smith 2018, section 4.1).

    Raises:
        ValueError: If an argument is not a positive finite number.

    >>> epochs_at_equal_time(10, seconds_per_epoch=2.0, candidate_seconds_per_epoch=1.0)
    20
    """
    for name, value in (
        ("epochs", epochs),
        ("seconds_per_epoch", seconds_per_epoch),
        ("candidate_seconds_per_epoch", candidate_seconds_per_epoch),
    ):
        if not (is_number(value) and 0 < value < math.inf):
            raise ValueError(f"`{name}` must be a positive finite number, but got {value!r}.")
    return max(1, round(epochs * seconds_per_epoch / candidate_seconds_per_epoch))


def _judge(n_parameters: int | None, n_samples: int | None, n_classes: int | None, depth: int | None) -> Complexity:
    for name, value in (
        ("n_parameters", n_parameters),
        ("n_samples", n_samples),
        ("n_classes", n_classes),
        ("depth", depth),
    ):
        if value is not None and not (is_number(value) and 1 <= value < math.inf):
            raise ValueError(f"`{name}` must be a number from 1 on or None, but got {value!r}.")
    large_data = (n_samples or 0) >= COMPLEX_SAMPLES or (n_classes or 0) >= 500
    if depth is not None:
        size: Complexity = "shallow" if depth <= SHALLOW_DEPTH else "complex" if depth >= COMPLEX_DEPTH else "moderate"
    elif n_parameters is not None:
        size = (
            "shallow"
            if n_parameters <= SHALLOW_PARAMETERS
            else "complex"
            if n_parameters >= COMPLEX_PARAMETERS
            else "moderate"
        )
    else:
        size = "moderate"
    if large_data:
        return "moderate" if size == "shallow" else "complex"
    return size
