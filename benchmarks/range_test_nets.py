"""The networks on which learning-rate finders are judged: small, and as different in kind as two cores allow.

Rules are chosen on the development half; the held-out half has other data, other architectures and other optimizers,
and was looked at when the rules stood. scikit-learn's data, Fashion-MNIST, tables and a part of CIFAR-10; those from
files are skipped without `--data-root`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn import datasets
from torch import nn

from benchmarks.duel.tasks import cnn
from benchmarks.duel.tasks import mlp
from benchmarks.duel.tasks import residual_net

Part = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Net:
    """A network, its data, and how long a full training is.

    Attributes:
        name: Unique.
        data: Makes (train, validation) from the data root; raises FileNotFoundError without it.
        build: Makes the network.
        epochs: Epochs of a full training.
        batch_size: Samples of a batch.
        optimizer: "sgd", "adamw" or "adam".
        center: Middle of the grid of learning rates: 15 of them, each 10 ** 0.25 times the one before.
        held_out: Whether it is kept out of the choice of rules.
    """

    name: str
    data: Callable[[Path | None], tuple[Part, Part]]
    build: Callable[[], nn.Module]
    epochs: int
    batch_size: int = 64
    optimizer: str = "sgd"
    center: float = 0.1
    held_out: bool = False

    @property
    def grid(self) -> list[float]:
        """Learning rates of the full runs that a rule is compared with."""
        return [float(f"{self.center * 10 ** (i / 4):.3g}") for i in range(-7, 8)]


def loss_fn(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the mean loss of a batch: cross-entropy, or the mean squared error."""
    if target.is_floating_point():
        return nn.functional.mse_loss(output.reshape(target.shape), target)
    return nn.functional.cross_entropy(output, target)


class Rows(nn.Module):
    """A recurrent or attention network that reads the rows of an 8x8 image as a sequence."""

    def __init__(self, attention: bool, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.position = nn.Parameter(0.02 * torch.randn(8, width))
        self.body: nn.Module = (
            nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True)
            if attention
            else nn.GRU(width, width, batch_first=True)
        )
        self.head = nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits of shape (n, 10) for images of shape (n, 64)."""
        found = self.body(self.embed(x.reshape(-1, 8, 8)) + self.position)
        found = found[0][:, -1] if isinstance(found, tuple) else found.mean(dim=1)
        logits: torch.Tensor = self.head(found)
        return logits


def norm_cnn(channels: int, n_out: int, norm: bool = True) -> nn.Module:
    """Return a convolutional network with BatchNorm for small images."""
    layers: list[nn.Module] = []
    for n_in, width in ((channels, 12), (12, 24)):
        layers += [nn.Conv2d(n_in, width, 3, stride=2, padding=1), *[nn.BatchNorm2d(width)] * norm, nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(96, n_out))


class ConvBlock(nn.Module):
    """A residual block of two 3x3 convolutions with BatchNorm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return x plus what the layers make of it, shape kept."""
        found: torch.Tensor = torch.relu(x + self.inner(x))
        return found


def conv_resnet() -> nn.Module:
    """Return a small residual network for colour images."""
    head = [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(48, 10)]
    return nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), ConvBlock(12), ConvBlock(12), *head)


def layer_norm_net() -> nn.Module:
    """Return a perceptron with LayerNorm."""
    layers = [layer for _ in range(3) for layer in (nn.Linear(64, 64), nn.LayerNorm(64), nn.GELU())]
    return nn.Sequential(*layers, nn.Linear(64, 10))


def autoencoder() -> nn.Module:
    """Return a network that gives its input of 64 numbers back through 8."""
    return nn.Sequential(nn.Linear(64, 48), nn.Tanh(), nn.Linear(48, 8), nn.Linear(8, 48), nn.Tanh(), nn.Linear(48, 64))


def load_nets(data_root: Path | None = None) -> tuple[dict[str, Net], list[str]]:
    """Return the networks whose data are there, by name, and a line for each that is skipped."""
    found, skipped = {}, []
    for net in NETS:
        try:
            net.data(data_root)
            found[net.name] = net
        except (OSError, RuntimeError, ImportError) as error:
            skipped.append(f"{net.name}: {error}")
    return found, skipped


@cache
def _digits(_: Path | None) -> tuple[Part, Part]:
    return _split(*datasets.load_digits(return_X_y=True), n_train=1000, image=True)


@cache
def _raw_digits(_: Path | None) -> tuple[Part, Part]:
    return _split(*datasets.load_digits(return_X_y=True), n_train=1000, scale=False)


@cache
def _digits_to_digits(_: Path | None) -> tuple[Part, Part]:
    (train, _y), (val, _z) = _split(*datasets.load_digits(return_X_y=True), n_train=1000, scale=False)
    return (train / 16, train / 16), (val / 16, val / 16)


@cache
def _friedman(_: Path | None) -> tuple[Part, Part]:
    return _split(*datasets.make_friedman1(3000, n_features=10, noise=1.0, random_state=0), n_train=1500)


@cache
def _raw_friedman(_: Path | None) -> tuple[Part, Part]:
    data = datasets.make_friedman1(3000, n_features=10, noise=1.0, random_state=1)
    return _split(*data, n_train=1500, scale_target=False)


@cache
def _friedman3(_: Path | None) -> tuple[Part, Part]:
    return _split(*datasets.make_friedman3(3000, noise=0.1, random_state=2), n_train=1200)


@cache
def _rare(_: Path | None) -> tuple[Part, Part]:
    data = datasets.make_classification(
        4000, 20, n_informative=8, weights=[0.95], flip_y=0.02, n_clusters_per_class=4, random_state=0
    )
    return _split(*data, n_train=1500)


@cache
def _rare_three(_: Path | None) -> tuple[Part, Part]:
    data = datasets.make_classification(
        5000, 30, n_informative=12, n_classes=3, weights=[0.9, 0.07], flip_y=0.01, random_state=3
    )
    return _split(*data, n_train=2000)


@cache
def _fashion(root: Path | None, size: int = 14, offset: int = 0) -> tuple[Part, Part]:
    from torchvision.datasets import FashionMNIST

    data = FashionMNIST(str(existing(root)), train=True, download=False)
    chosen = slice(offset, offset + 4000)
    images = nn.functional.adaptive_avg_pool2d(data.data[chosen, None].float(), size).numpy()
    return _split(images, data.targets[chosen].numpy(), n_train=2000)


@cache
def _cifar(root: Path | None) -> tuple[Part, Part]:
    with np.load(existing(root) / "cifar10_small.npz") as data:
        images = torch.tensor(data["x_train"][:4000]).permute(0, 3, 1, 2).float()
        return _split(nn.functional.avg_pool2d(images, 4).numpy(), data["y_train"][:4000], n_train=2000)


def table(name: str, n_train: int, n: int, image: bool = False) -> Callable[[Path | None], tuple[Part, Part]]:
    """Return what makes (train, validation) of `n` shuffled rows, scaled by the training part, from the data root."""

    @cache
    def load(root: Path | None) -> tuple[Part, Part]:
        with np.load(existing(root) / "tabular" / f"{name}.npz") as data:
            return _split(data["x_train"], data["y_train"], n_train=n_train, n=n, image=image)

    return load


def existing(root: Path | None) -> Path:
    """Return the data root; raise FileNotFoundError without one."""
    if root is None:
        raise FileNotFoundError("no --data-root")
    return root


def _split(
    x: Any,
    y: Any,
    *,
    n_train: int,
    n: int | None = None,
    image: bool = False,
    scale: bool = True,
    scale_target: bool = True,
) -> tuple[Part, Part]:
    """Shuffle, split, and scale by the training part."""
    order = np.random.default_rng(0).permutation(len(y))[:n]
    x, y = np.asarray(x, dtype=np.float32)[order], np.asarray(y)[order]
    if scale:
        axis = None if image or x.ndim > 2 else 0
        x = (x - x[:n_train].mean(axis=axis)) / (x[:n_train].std(axis=axis) + 1e-3)
    if not np.issubdtype(y.dtype, np.floating):
        y = np.unique(y, return_inverse=True)[1].astype(np.int64)
    elif scale_target:
        y = (y - y[:n_train].mean()) / y[:n_train].std()
    y = y.astype(np.float32) if np.issubdtype(y.dtype, np.floating) else y
    parts = [(torch.tensor(x[part]), torch.tensor(y[part])) for part in (slice(n_train), slice(n_train, None))]
    return parts[0], parts[1]


NETS = (
    Net("mlp", _digits, lambda: mlp(64, 10), 16),
    Net("mlp-batch-16", _digits, lambda: mlp(64, 10), 6, batch_size=16),
    Net("deep", _digits, lambda: mlp(64, 10, 64, 6), 20),
    Net("batchnorm", _digits, lambda: mlp(64, 10, 64, 2, norm=True), 16),
    Net("large-batch", table("penbased", 2048, 4500), lambda: mlp(16, 10, 128), 30, batch_size=256),
    Net("fashion-cnn", _fashion, lambda: cnn(10), 8),
    Net("residual", table("texture", 1500, 3500), lambda: residual_net(40, 11), 10),
    Net("tanh-regression", _friedman, lambda: mlp(10, 1, 64, 2, act=nn.Tanh), 10, batch_size=32),
    Net("imbalanced", _rare, lambda: mlp(20, 2, 64, 2), 12),
    Net("dropout", table("magic", 2000, 5000), lambda: mlp(10, 2, 128, 2, drop=0.3), 8),
    Net("raw-regression", _raw_friedman, lambda: mlp(10, 1, 64, 2), 10, center=3e-3),
    Net("autoencoder", _digits_to_digits, autoencoder, 16, center=1.0),
    Net("adamw-mlp", _digits, lambda: mlp(64, 10, 64, 2), 12, optimizer="adamw", center=5e-3),
    Net("adamw-cnn", _fashion, lambda: norm_cnn(1, 10), 6, optimizer="adamw", center=5e-3),
    Net(
        "held-mlp",
        table("optdigits", 2000, 4000, image=True),
        lambda: mlp(64, 10, 96),
        10,
        batch_size=128,
        held_out=True,
    ),
    Net("held-small-batch", table("segment", 900, 1800), lambda: mlp(19, 7, 48, 3), 7, batch_size=16, held_out=True),
    Net("held-deep", table("penbased", 1500, 4000), lambda: mlp(16, 10, 48, 5), 8, batch_size=32, held_out=True),
    Net("held-bn-cnn", lambda root: _fashion(root, 12, 8000), lambda: norm_cnn(1, 10), 12, 128, held_out=True),
    Net("held-cifar-cnn", _cifar, lambda: norm_cnn(3, 10, False), 10, held_out=True),
    Net("held-cifar-resnet", _cifar, conv_resnet, 6, held_out=True),
    Net("held-linear", table("magic", 2000, 6000), lambda: mlp(10, 2, 10, 0), 8, held_out=True),
    Net("held-gru", _digits, lambda: Rows(False), 16, 64, "adamw", 5e-3, held_out=True),
    Net("held-attention", _digits, lambda: Rows(True), 16, 64, "adamw", 5e-3, held_out=True),
    Net("held-regression", _friedman3, lambda: mlp(4, 1, 64, 3), 12, held_out=True),
    Net("held-imbalanced", _rare_three, lambda: mlp(30, 3, 64, 2), 8, 64, "adamw", 5e-3, held_out=True),
    Net("held-layernorm", table("optdigits", 1500, 4000, image=True), layer_norm_net, 10, held_out=True),
    Net(
        "held-adam-tanh",
        table("texture", 1500, 3500),
        lambda: mlp(40, 11, 64, 2, act=nn.Tanh),
        10,
        64,
        "adam",
        5e-3,
        held_out=True,
    ),
    Net("held-unscaled", _raw_digits, lambda: mlp(64, 10), 10, center=3e-3, held_out=True),
)
