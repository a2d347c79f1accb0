"""The networks of the duel: small enough to train in well under a second, and different in kind.

Every task is trained by 1cycle for a fixed number of epochs (a full training) and scored by its validation loss. The
data are scikit-learn's own; `--data-root` adds Fashion-MNIST and two tables.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn import datasets
from torch import nn

Parts = tuple[tuple[torch.Tensor, torch.Tensor], ...]


@dataclass(frozen=True)
class Task:
    """A network, its data, and how long a full training is.

    Attributes:
        name: Unique.
        parts: Train, validation and test data as (input, target).
        build: Makes the network from the architecture's parameters (none for most tasks).
        epochs: Epochs of a full training.
        batch_size: Fixed, or None where it is searched in [16, 256].
        optimizer: "sgd", "adamw" or "adam".
        architecture: Whether width, depth and dropout are searched too.
        criterion: The mean loss of (output, target); None is the cross-entropy, or the mean squared error.
        untrained_loss: What an untrained network has; None where the loss says it.
    """

    name: str
    parts: Parts
    build: Callable[..., nn.Module]
    epochs: int
    batch_size: int | None = 64
    optimizer: str = "sgd"
    architecture: bool = False
    criterion: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None
    untrained_loss: float | None = None

    @property
    def n_classes(self) -> int | None:
        """Number of classes, None for a regression."""
        target = self.parts[0][1]
        return None if target.is_floating_point() else int(target.max()) + 1

    @property
    def untrained(self) -> float:
        """Loss of an untrained network."""
        if self.untrained_loss is not None:
            return self.untrained_loss
        return 1.0 if self.n_classes is None else math.log(self.n_classes)

    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Return the mean loss of a batch."""
        if self.criterion is not None:
            return self.criterion(output, target)
        if target.is_floating_point():
            return nn.functional.mse_loss(output[:, 0], target)
        return nn.functional.cross_entropy(output, target)


class Residual(nn.Module):
    """A block that adds two linear layers to its input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return x plus what the layers make of it, shape kept."""
        found: torch.Tensor = torch.relu(x + self.inner(x))
        return found


def mlp(
    n_in: int, n_out: int, width: int = 64, depth: int = 1, *, act: Any = nn.ReLU, norm: bool = False, drop: float = 0.0
) -> nn.Module:
    """Return a multi-layer perceptron with `depth` hidden layers."""
    layers: list[nn.Module] = [nn.Flatten()]
    for i in range(depth):
        layers.append(nn.Linear(n_in if i == 0 else width, width))
        layers += [nn.BatchNorm1d(width)] * norm + [act()] + [nn.Dropout(drop)] * (drop > 0)
    return nn.Sequential(*layers, nn.Linear(width, n_out))


def cnn(n_out: int) -> nn.Module:
    """Return a small convolutional network for one-channel images."""
    return nn.Sequential(
        nn.Conv2d(1, 12, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(12, 24, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(96, n_out),
    )


def residual_net(n_in: int, n_out: int) -> nn.Module:
    """Return a network of three residual blocks."""
    return nn.Sequential(mlp(n_in, 48, 48), *(Residual(48) for _ in range(3)), nn.Linear(48, n_out))


def any_mlp(width: int, depth: int, dropout: float) -> nn.Module:
    """Return the network of an architecture."""
    return mlp(64, 10, width, depth, drop=dropout)


def load_tasks(data_root: Path | None = None) -> tuple[dict[str, Task], list[str]]:
    """Return the tasks by name, and a line for each that is skipped."""
    digits = split_and_scale(*datasets.load_digits(return_X_y=True), seed=0)
    friedman = split_and_scale(*datasets.make_friedman1(1600, n_features=10, noise=1.0, random_state=0), seed=0)
    rare = split_and_scale(
        *datasets.make_classification(
            2400, 20, n_informative=8, weights=[0.95], flip_y=0.02, n_clusters_per_class=4, random_state=0
        ),
        seed=0,
    )
    tasks = [
        Task("mlp-16", digits, lambda: mlp(64, 10), 6, batch_size=16),
        Task("mlp-batch", digits, lambda: mlp(64, 10), 8, batch_size=None),
        Task("mlp-256", digits, lambda: mlp(64, 10, 128), 32, batch_size=256),
        Task("deep", digits, lambda: mlp(64, 10, 64, 6), 16),
        Task("batchnorm", digits, lambda: mlp(64, 10, 64, 2, norm=True), 12),
        Task("dropout", digits, lambda: mlp(64, 10, 128, 2, drop=0.3), 12, batch_size=None),
        Task("residual", digits, lambda: residual_net(64, 10), 12),
        Task("regression", friedman, lambda: mlp(10, 1, 64, 2, act=nn.Tanh), 16, batch_size=32),
        Task("imbalanced", rare, lambda: mlp(20, 2, 64, 2), 12),
        Task("adamw", digits, lambda: mlp(64, 10, 64, 2), 12, optimizer="adamw"),
        Task("seven", digits, any_mlp, 8, batch_size=None, architecture=True),
    ]
    skipped = []
    for name, load in (("fashion-cnn", _fashion_cnn), ("texture", _texture), ("magic", _magic)):
        try:
            if data_root is None:
                raise FileNotFoundError("no --data-root")
            tasks.append(load(data_root))
        except (OSError, RuntimeError, ImportError) as error:
            skipped.append(f"{name}: {error}")
    return {task.name: task for task in tasks}, skipped


def _fashion_cnn(root: Path) -> Task:
    from torchvision.datasets import FashionMNIST

    data = FashionMNIST(str(root), train=True, download=False)
    images = nn.functional.avg_pool2d(data.data[:4000, None].float(), 2).numpy()
    return Task("fashion-cnn", split_and_scale(images, data.targets[:4000].numpy(), seed=0), lambda: cnn(10), 8)


def _texture(root: Path) -> Task:
    x, y = _table(root, "texture", 2000)
    return Task("texture", split_and_scale(x, y, seed=0), lambda: mlp(40, 11, 64, 2, act=nn.Tanh), 8, batch_size=32)


def _magic(root: Path) -> Task:
    x, y = _table(root, "magic", 4000)
    return Task("magic", split_and_scale(x, y, seed=0), lambda: mlp(10, 2, 64, 3, norm=True), 6, batch_size=None)


def _table(root: Path, name: str, n: int) -> tuple[Any, Any]:
    with np.load(root / "tabular" / f"{name}.npz") as data:
        order = np.random.default_rng(0).permutation(len(data["y_train"]))[:n]
        return data["x_train"][order], data["y_train"][order]


def split_and_scale(x: Any, y: Any, *, seed: int) -> Parts:
    """Return data in three parts of 60, 20 and 20 %, scaled by the first."""
    order = np.random.default_rng(seed).permutation(len(y))
    x, y = np.asarray(x, dtype=np.float32)[order], np.asarray(y)[order]
    cuts = [int(0.6 * len(y)), int(0.8 * len(y))]
    axis = 0 if x.ndim == 2 else None
    mean, sd = x[: cuts[0]].mean(axis=axis), x[: cuts[0]].std(axis=axis) + 1e-3
    x = (x - mean) / sd
    if np.issubdtype(y.dtype, np.floating):
        y = ((y - y[: cuts[0]].mean()) / y[: cuts[0]].std()).astype(np.float32)
    else:
        y = np.unique(y, return_inverse=True)[1].astype(np.int64)
    return tuple((torch.tensor(a), torch.tensor(b)) for a, b in zip(np.split(x, cuts), np.split(y, cuts), strict=True))
