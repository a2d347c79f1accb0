"""How complex a network and its data are, which sets the weight decays to compare (Smith 2018, section 4.4)."""

import math
import random
import re
import sys
from collections.abc import Iterable
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from typing import Literal
from typing import Protocol

import numpy as np

from optuna_discipline.rules.arguments import is_number

Complexity = Literal["shallow", "moderate", "complex"]

# The nets of the paper: 3 convolutions on CIFAR-10 (5 weight layers, .15 M parameters) and LeNet on MNIST (4, .43 M)
# want 4e-3 and 5e-4; resnet-56 (.85 M), wide resnet and densenet-40 on CIFAR (32 to 56 layers) want 1e-4 to 1e-6, and
# inception and resnet-50 on ImageNet (1.3 M samples) 3e-6. The thresholds lie between, on a log scale.
SHALLOW_DEPTH, COMPLEX_DEPTH = 5, 20
SHALLOW_PARAMETERS, COMPLEX_PARAMETERS = 500_000, 800_000
# Data: CIFAR has 50,000 samples, 100 classes and 3,072 numbers an image; ImageNet 1.3 M, 1,000 and 150,528. On a few
# thousand samples a deep net wants as much weight decay as a shallow one, or more (benchmarks/README.md): 26 and 42
# layers on 1,100 samples are best at 3e-2 and 1e-1, with twice the loss at 1e-4 and below.
FEW_SAMPLES = 10_000
COMPLEX_SAMPLES, COMPLEX_CLASSES, COMPLEX_INPUT = 300_000, 500, 50_000
SAMPLES_A_CLASS = 5  # integers that occur less often on average are a price or a count


class Model(Protocol):
    """A torch module, or anything whose parameters say how large they are."""

    def parameters(self) -> Iterable[Any]:
        """Return objects with `numel()`, `ndim` and `requires_grad`."""
        ...


@dataclass(frozen=True)
class Sizes:
    """What is known about a network and its data; None is unknown.

    Attributes:
        n_parameters: Trainable parameters.
        n_samples: Training samples.
        n_classes: Classes.
        depth: Layers with weights: matrices and kernels, each layer of torch's RNNs and attention as one, no norm.
        input_size: Numbers of one input, 3,072 for an image of 32 x 32 pixels in colour.
    """

    n_parameters: int | None = None
    n_samples: int | None = None
    n_classes: int | None = None
    depth: int | None = None
    input_size: int | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and not (is_number(value) and 1 <= value < math.inf):
                raise ValueError(f"`{name}` must be a number from 1 on or None, but got {value!r}.")


def complexity_of(
    model: Model, n_samples: Any, n_classes: int | None = None, *, input_size: int | None = None
) -> Complexity:
    """Return how complex a model and its data are, which sets the weight decays to compare.

    Fewer than 10,000 samples are "shallow" with any net. Beyond, depth decides (at most 5 weight layers are shallow, 20
    or more complex); 300,000 samples, 500 classes or inputs of 50,000 numbers are complex with any net of more than 5
    layers. So it is for the paper's own networks; how often the candidates hold the best weight decay of other
    pairs is in benchmarks/README.md.

    Args:
        model: A torch module, or anything whose `parameters()` have `numel()`, `ndim` and `requires_grad`.
        n_samples: Training samples; or the training data itself, a tuple (inputs, ..., targets) of tensors or arrays or
            a torch Dataset or a list of samples, which tells the other two as far as it can; for batches the number.
        n_classes: Classes, 1 for a regression. None reads them from the data, if any: from its `classes`, or
            integer targets (n,) whose values occur five times each on average.
        input_size: Numbers of one input, None if not known.

    Raises:
        ValueError: If the model has no trainable parameter, or lazy ones, or a number is below 1.
        TypeError: If `model` has no `parameters()`, or the data do not tell how many samples they are.
    """
    if model is None:
        raise TypeError("`model` must be a torch module with `parameters()`, but got None.")
    return judge(sizes_of(model, n_samples, n_classes=n_classes, input_size=input_size))


def sizes_of(
    model: Model | None,
    data: Any = None,
    *,
    n_classes: int | None = None,
    input_size: int | None = None,
    name: str = "n_samples",
) -> Sizes:
    """Return what a model and its training data (or the number of samples) tell; what is given is not looked for.

    Args:
        model: As in `complexity_of`, or None.
        data: As its `n_samples`, or None.
        n_classes: As in `complexity_of`.
        input_size: As in `complexity_of`.
        name: What the caller's argument for `data` is called.

    Raises:
        ValueError: If the model has no trainable parameter, or lazy ones, or a number is below 1.
        TypeError: If `model` has no `parameters()`, or the data do not tell how many samples they are.
    """
    depth = n_parameters = None
    if model is not None:
        parameters = _trainable(model)
        depth = max(1, _count_layers(model, parameters))
        n_parameters = sum(p.numel() for p in parameters)
    if isinstance(data, str | bytes):
        raise TypeError(f"`{name}` must be a number or training data, but got {data!r}.")
    n_samples = data
    if data is not None and (not is_number(data) or bool(getattr(data, "ndim", False))):
        n_samples, found_classes, found_size = _look_at(data, name)
        n_classes = found_classes if n_classes is None else n_classes
        input_size = found_size if input_size is None else input_size
    return Sizes(n_parameters, n_samples, n_classes, depth, input_size)


def judge(sizes: Sizes) -> Complexity:
    """Return the complexity of what is known; "moderate" where nothing is.

    >>> judge(Sizes(depth=56, n_samples=50_000)), judge(Sizes(depth=56, n_samples=1_000)), judge(Sizes())
    ('complex', 'shallow', 'moderate')
    """
    if sizes.n_samples is not None and sizes.n_samples < FEW_SAMPLES:
        return "shallow"
    if sizes.depth is not None:
        net = _between(sizes.depth, SHALLOW_DEPTH, COMPLEX_DEPTH)
    elif sizes.n_parameters is not None:
        net = _between(sizes.n_parameters, SHALLOW_PARAMETERS, COMPLEX_PARAMETERS)
    else:
        net = "moderate"
    if (
        (sizes.n_samples or 0) >= COMPLEX_SAMPLES
        or (sizes.n_classes or 0) >= COMPLEX_CLASSES
        or (sizes.input_size or 0) >= COMPLEX_INPUT
    ):
        return "moderate" if net == "shallow" else "complex"
    return net


def _between(size: int, shallow: int, deep: int) -> Complexity:
    return "shallow" if size <= shallow else "complex" if size >= deep else "moderate"


def _trainable(model: Any) -> list[Any]:
    if isinstance(model, type) or not callable(getattr(model, "parameters", None)):
        got = f"the class {model.__name__}: make one" if isinstance(model, type) else type(model).__name__
        raise TypeError(f"`model` must be a torch module with `parameters()`, but got {got}.")
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError("`model` must have trainable parameters, but none requires a gradient.")
    if any(hasattr(p, "materialize") for p in parameters):
        raise ValueError("`model` must have its shapes, but has lazy parameters: run one batch through it first.")
    return parameters


def _count_layers(model: Any, parameters: list[Any]) -> int:
    """Return how many layers have a matrix or kernel; each of these counts where they have no names."""
    if not hasattr(model, "named_modules"):
        return sum(p.ndim >= 2 for p in parameters)
    torch: Any = sys.modules.get("torch")  # not imported here, and loaded where a module is torch's
    whole = () if torch is None else (torch.nn.RNNBase, torch.nn.RNNCellBase, torch.nn.MultiheadAttention)
    modules, layers = dict(model.named_modules()), set()
    for name in [_weight_of(name) for name, p in model.named_parameters() if p.requires_grad and p.ndim >= 2]:
        owner, _, own = name.rpartition(".")
        if isinstance(modules.get(owner), whole):
            own = "".join(re.findall(r"_l\d+", own))  # gates, directions and projections are parts of a layer
        if not re.search(r"Norm(\dd)?$", type(modules.get(owner)).__name__):
            layers.add((owner, own))
    return len(layers)


def _weight_of(name: str) -> str:
    """Return the weight that a parameter is, or is a part of.

    >>> _weight_of("0.parametrizations.weight.original1"), _weight_of("0.weight_g")
    ('0.weight', '0.weight')
    """
    return re.sub(r"\bparametrizations\.(\w+)\..*|\b(weight)_[gv]$", r"\1\2", name)


def _look_at(data: Any, name: str) -> tuple[int, int | None, int | None]:
    """Return samples, classes and input size of training data, as far as one look tells."""
    columns = _are_columns(data, name)
    try:
        if isinstance(data, list) and is_number(data[0]):
            raise TypeError("a list of numbers is none of these")
        with _kept_generators():
            inputs = data[0][0] if columns else _first_input(data)
        n_samples = len(data[0] if columns else data)
    except (TypeError, IndexError, KeyError) as error:
        raise TypeError(
            f"`{name}` must be a number, a tuple (inputs, targets) or a data set with a length, but got "
            f"{type(data).__name__}: {error}"
        ) from error
    shape = getattr(inputs, "shape", None)
    return n_samples, _classes_of(data, columns), None if shape is None else max(1, math.prod(shape))


@contextmanager
def _kept_generators() -> Iterator[None]:
    """Give back the random generators, from which an item may draw."""
    torch: Any = sys.modules.get("torch")  # not imported here, and loaded where a data set is torch's
    python, numpy = random.getstate(), np.random.get_state()
    own = None if torch is None else torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        if torch is not None:
            torch.set_rng_state(own)


def _are_columns(data: Any, name: str) -> bool:
    """Return whether data are (inputs, ..., targets), each with all samples; a list of more than two is of samples."""
    shaped = isinstance(data, tuple | list) and all(hasattr(part, "shape") for part in data)
    if isinstance(data, tuple) and not shaped:
        kinds = ", ".join(type(part).__name__ for part in data)
        raise TypeError(
            f"`{name}` must be a number, a tuple of tensors or arrays (inputs, ..., targets) or a data set, but got "
            f"a tuple of {kinds}: make each part an array, or give the number."
        )
    return shaped and (isinstance(data, tuple) or len(data) == 2)


def _first_input(data: Any) -> Any:
    try:
        sample = data[0]
    except NotImplementedError:  # an iterable data set of torch's with a length
        return None
    return sample[0] if isinstance(sample, tuple | list) else sample


def _classes_of(data: Any, columns: bool) -> int | None:
    """Return the number of classes that data tell of, a torch Subset's data set for it."""
    while hasattr(data, "dataset") and hasattr(data, "indices"):
        data = data.dataset
    classes: Any = getattr(data, "classes", None)
    if hasattr(classes, "__len__"):
        return len(classes)
    parts: Any = data if columns else getattr(data, "tensors", ())  # a TensorDataset's
    return _classes_among(parts[-1] if len(parts) > 1 else getattr(data, "targets", None))


def _classes_among(targets: Any) -> int | None:
    """Return the number of classes where targets are integers (n,) that look like some."""
    if getattr(targets, "ndim", None) != 1 or "int" not in str(getattr(targets, "dtype", "")):
        return None
    n_values = len(set(targets.tolist()))
    return n_values if 2 <= n_values <= len(targets) / SAMPLES_A_CLASS else None
