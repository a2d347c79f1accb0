"""Real data and small networks to begin with: scikit-learn's digits and Fashion-MNIST."""

import argparse
import importlib
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from typing import Literal

import numpy as np

from optuna_discipline._imports import require
from optuna_discipline.exceptions import DisciplineError

DATA_ROOT_VARIABLE = "OPTUNA_DISCIPLINE_DATA"
FASHION_MNIST_SAMPLES = 4000
VALIDATION_SHARE = 0.2
DATA_SEED = 0


@dataclass(frozen=True)
class Task:
    """Data in three parts and a network for it.

    Attributes:
        name: What it is.
        train: Inputs (n, 1, height, width) float32 with mean 0 and sd 1, targets (n,) int64.
        val: Likewise; choices are made on it.
        test: Likewise; read once at the end. None where there is none.
        n_classes: Number of classes.
        build_model: Returns a fresh network.
    """

    name: str
    train: tuple[Any, Any]
    val: tuple[Any, Any]
    test: tuple[Any, Any] | None
    n_classes: int
    build_model: Callable[[], Any]


def load_digits_task() -> Task:
    """Return scikit-learn's 1,797 handwritten digits of 8 x 8 pixels, and a small convolutional network.

    60 % train, 20 % validation and 20 % test, the same at every call.
    """
    data = require("sklearn.datasets", extra="cli").load_digits()
    order = np.random.default_rng(DATA_SEED).permutation(len(data.target))
    images, labels = data.images[order], data.target[order]
    n_test = n_val = round(VALIDATION_SHARE * len(labels))
    parts = np.split(np.arange(len(labels)), [len(labels) - n_val - n_test, len(labels) - n_test])
    return _task("scikit-learn's digits", [(images[part], labels[part]) for part in parts], side=8)


def load_fashion_mnist_task(
    root: str | os.PathLike[str] | None = None, *, samples: int | Literal["all"] = FASHION_MNIST_SAMPLES
) -> Task:
    """Return torchvision's Fashion-MNIST of 28 x 28 pixels, and a small convolutional network.

    Args:
        root: Folder that holds `FashionMNIST/raw`, or into which it is downloaded; None is the folder of the variable
            OPTUNA_DISCIPLINE_DATA, else `~/.cache/optuna-discipline`.
        samples: Images to train and validate on (a fifth of them to validate), the same at every call; "all" is 60,000.

    Raises:
        MissingExtraError: If torchvision is absent or broken.
        DisciplineError: If the data is neither there nor to be downloaded.
        ValueError: If `samples` is not "all" or a number from 100 to 60,000.
    """
    if samples != "all" and (isinstance(samples, bool) or not isinstance(samples, int) or not 100 <= samples <= 60_000):
        raise ValueError(f"`samples` must be 'all' or an integer from 100 to 60000, but got {samples!r}.")
    train, test = (_fashion_mnist(_root(root), train=part) for part in (True, False))
    order = np.random.default_rng(DATA_SEED).permutation(len(train[1]))
    order = order if samples == "all" else order[:samples]
    n_val = round(VALIDATION_SHARE * len(order))
    parts = [(train[0][part], train[1][part]) for part in (order[n_val:], order[:n_val])]
    return _task(f"{len(order)} images of Fashion-MNIST", [*parts, test], side=28)


def load_own_task(target: str) -> Task:
    """Return the task of a function of the user's: it returns (build_model, train, val), and there is no test part.

    Args:
        target: "module:function"; the module may lie in the current folder.

    Raises:
        ValueError: If there is no such function, or it returns something else.
    """
    module_name, _, function_name = target.partition(":")
    if not module_name or not function_name:
        raise ValueError(f"--task must be MODULE:FUNCTION, such as my_module:my_task, but got {target!r}")
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except Exception as error:  # the module is the user's, and may fail in any way
        raise ValueError(f"--task must be MODULE:FUNCTION, but {target!r} failed: {_told(error)}") from error
    try:
        parts = function()
    except Exception as error:
        raise ValueError(f"--task {target!r} failed when it was called: {_told(error)}") from error
    if not isinstance(parts, tuple) or len(parts) != 3:
        raise ValueError(f"--task {target!r} must return (build_model, train, val), but returned {parts!r:.80}.")
    build_model, train, val = parts
    return Task(target, train, val, None, 0, build_model)


def _told(error: Exception) -> str:
    """Return what went wrong and where, in one line; not where in this file or in Python's import."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_import(frame.filename)]
    where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{where}"


def _is_import(filename: str) -> bool:
    return filename in (__file__, importlib.__file__) or filename.startswith("<frozen importlib")


def _root(root: str | os.PathLike[str] | None) -> Path:
    if root is not None:
        return Path(root).expanduser()
    return Path(os.environ.get(DATA_ROOT_VARIABLE) or Path.home() / ".cache" / "optuna-discipline")


def _fashion_mnist(root: Path, *, train: bool) -> tuple[Any, Any]:
    datasets = require("torchvision.datasets", extra="vision")
    try:
        data = datasets.FashionMNIST(root, train=train, download=False)
    except RuntimeError:
        try:
            data = datasets.FashionMNIST(root, train=train, download=True)
        except Exception as error:
            raise DisciplineError(
                f"Fashion-MNIST is not in {str(root)!r} and could not be downloaded ({error}). Name a folder that "
                f"holds FashionMNIST/raw with its four files by --data-root or {DATA_ROOT_VARIABLE}."
            ) from error
    return data.data.numpy(), data.targets.numpy()


def _task(name: str, parts: list[tuple[Any, Any]], *, side: int) -> Task:
    torch = require("torch", extra="torch")
    mean, sd = float(parts[0][0].mean()), float(parts[0][0].std())

    def tensors(part: tuple[Any, Any]) -> tuple[Any, Any]:
        images = torch.as_tensor((np.asarray(part[0], dtype=np.float32) - mean) / sd)[:, None]
        return images, torch.as_tensor(np.asarray(part[1]), dtype=torch.int64)

    train, val, test = (tensors(part) for part in parts)
    return Task(name, train, val, test, 10, lambda: _small_cnn(side))


def _small_cnn(side: int) -> Any:
    """Return two convolutions and two linear layers: about 40 thousand weights for digits."""
    nn = require("torch", extra="torch").nn
    stride = 1 if side < 16 else 2
    flat = 32 * (-(-side // stride) // 2) ** 2
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, stride=stride, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(flat, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


def load_task(arguments: argparse.Namespace) -> Task:
    """Return the task that a command line's `--data` or `--task` names: the same parts at every `--seed`.

    Raises:
        ValueError: If `--samples` is no number, or is given for data that it does not cut.
    """
    samples = _samples_of(arguments.samples)
    if arguments.samples is not None and (arguments.task is not None or arguments.data == "digits"):
        raise ValueError(f"--samples must go with --data fashion-mnist, but got {arguments.samples!r} without it")
    if arguments.task is not None:
        return load_own_task(arguments.task)
    if arguments.data == "digits" or samples != "all":
        # So small a net gains little from a second thread, and waits for it long when another program has the core.
        require("torch", extra="torch").set_num_threads(1)
    if arguments.data == "digits":
        return load_digits_task()
    return load_fashion_mnist_task(arguments.data_root, samples=samples)


def _samples_of(text: str | None) -> int | Literal["all"]:
    if text is None:
        return FASHION_MNIST_SAMPLES
    try:
        return "all" if text == "all" else int(text)
    except ValueError:
        raise ValueError(f"--samples must be a number or 'all', but got {text!r}") from None
