"""The fresh duel: eleven trainings of other kinds, written when the rules stood (`python -m benchmarks.duel --fresh`).

Other losses than cross-entropy and the squared error, sequences, words, attention-free image models, few samples, wrong
labels. Like the held-out ones, every task has seeds of its own. scikit-learn's data, its descriptions' text, and made
ones; Fashion-MNIST and CIFAR-10 are skipped without `--data-root`.

No rule had seen them at first. Since then one was chosen on them, too: the first look at the weight decay
(`decay_and_rate`).
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn import datasets
from torch import nn

from benchmarks.duel.tasks import Parts
from benchmarks.duel.tasks import Task
from benchmarks.duel.tasks import mlp
from benchmarks.duel.tasks import split_and_scale
from benchmarks.range_test_nets import existing

CONTEXT = 6  # characters before the one to be told


class Adding(nn.Module):
    """An LSTM that is asked for the sum of two marked numbers of a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.LSTM(2, 24, batch_first=True), nn.Linear(24, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return shape (n, 1) for sequences of shape (n, 12, 2)."""
        found: torch.Tensor = self.head(self.body(x)[0][:, -1])
        return found


class Mixer(nn.Module):
    """Two blocks that mix first the 49 patches of 2x2 of an image, then their channels."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.embed, self.head = nn.Conv2d(1, width, 2, stride=2), nn.Linear(width, 10)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(4))
        self.places = nn.ModuleList(_mix(49, 32) for _ in range(2))
        self.channels = nn.ModuleList(_mix(width, 48) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits of shape (n, 10) for images of shape (n, 1, 14, 14)."""
        x = self.embed(x).flatten(2).transpose(1, 2)
        for i, (places, channels) in enumerate(zip(self.places, self.channels, strict=True)):
            x = x + places(self.norms[2 * i](x).transpose(1, 2)).transpose(1, 2)
            x = x + channels(self.norms[2 * i + 1](x))
        found: torch.Tensor = self.head(x.mean(dim=1))
        return found


class Sine(nn.Module):
    """A layer whose activation is a sine of a high frequency."""

    def __init__(self, n_in: int, n_out: int, frequency: float) -> None:
        super().__init__()
        self.linear, self.frequency = nn.Linear(n_in, n_out), frequency

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return shape (n, n_out)."""
        return torch.sin(self.frequency * self.linear(x))


def group_norm_cnn() -> nn.Module:
    """Return a convolutional network with GroupNorm for colour images of 16x16."""
    layers: list[nn.Module] = []
    for n_in, width in ((3, 16), (16, 24), (24, 32)):
        layers += [nn.Conv2d(n_in, width, 3, stride=2, padding=1), nn.GroupNorm(4, width), nn.SiLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))


def character_net(n_characters: int) -> nn.Module:
    """Return a perceptron on the embeddings of `CONTEXT` characters."""
    embedding = nn.Embedding(n_characters, 12)
    hidden = nn.Linear(12 * CONTEXT, 64)
    return nn.Sequential(embedding, nn.Flatten(), hidden, nn.Tanh(), nn.Linear(64, n_characters))


def gated_net(width: int, depth: int, dropout: float) -> nn.Module:
    """Return a perceptron with LayerNorm and SiLU for 30 columns and 4 classes."""
    layers: list[nn.Module] = [nn.Linear(30, width)]
    for _ in range(depth):
        layers += [nn.LayerNorm(width), nn.SiLU(), nn.Dropout(dropout), nn.Linear(width, width)]
    return nn.Sequential(*layers, nn.SiLU(), nn.Linear(width, 4))


def load_fresh_tasks(data_root: Path | None = None) -> tuple[dict[str, Task], list[str]]:
    """Return the tasks by name, and a line for each that is skipped."""
    text, n_characters = _text()
    tasks = [
        Task(
            "fresh-pixels",
            _pixels(),
            lambda: nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 12), nn.Linear(12, 64)),
            16,
            optimizer="adam",
            criterion=nn.functional.binary_cross_entropy_with_logits,
            untrained_loss=math.log(2),
        ),
        Task("fresh-adding", _adding(), Adding, 12, optimizer="adam"),
        Task(
            "fresh-labels",
            _labels(),
            lambda: mlp(30, 8, 64, 2),
            10,
            batch_size=None,
            criterion=nn.functional.binary_cross_entropy_with_logits,
            untrained_loss=math.log(2),
        ),
        Task("fresh-characters", text, lambda: character_net(n_characters), 6, batch_size=128),
        Task(
            "fresh-diabetes",
            split_and_scale(*datasets.load_diabetes(return_X_y=True), seed=1),
            lambda: mlp(10, 1, 32, 2, act=nn.Tanh),
            30,
            batch_size=16,
            criterion=lambda output, target: nn.functional.smooth_l1_loss(output[:, 0], target),
            untrained_loss=0.4,
        ),
        Task(
            "fresh-waves",
            _waves(),
            lambda: nn.Sequential(Sine(2, 48, 8.0), Sine(48, 48, 2.0), nn.Linear(48, 1)),
            16,
            64,
            "adam",
        ),
        Task("fresh-wrong-labels", _wrong_labels(), lambda: mlp(64, 10, 128), 20),
        Task(
            "fresh-counts",
            _counts(),
            lambda: mlp(12, 1, 48, 2),
            12,
            criterion=lambda output, target: nn.functional.poisson_nll_loss(output[:, 0], target, full=True),
            untrained_loss=2.0,
        ),
        Task("fresh-gated", _gated(), gated_net, 10, batch_size=None, optimizer="adamw", architecture=True),
    ]
    skipped = []
    for name, load in (("fresh-mixer", _mixer), ("fresh-groupnorm", _groupnorm)):
        try:
            tasks.append(load(data_root))
        except (OSError, RuntimeError, ImportError) as error:
            skipped.append(f"{name}: {error}")
    return {task.name: task for task in tasks}, skipped


def _mix(n: int, hidden: int) -> nn.Module:
    return nn.Sequential(nn.Linear(n, hidden), nn.GELU(), nn.Linear(hidden, n))


def _in_order(x: Any, y: Any) -> Parts:
    """Return the first 60 %, the next 20 and the last 20, as they are."""
    cuts = [int(0.6 * len(y)), int(0.8 * len(y))]
    x, y = (torch.tensor(a, dtype=None if np.issubdtype(a.dtype, np.integer) else torch.float32) for a in (x, y))
    return tuple(zip(x.tensor_split(cuts), y.tensor_split(cuts), strict=True))


def _pixels() -> Parts:
    pixels = datasets.load_digits().data[np.random.default_rng(1).permutation(1797)] / 16
    return _in_order(pixels, pixels)


def _adding() -> Parts:
    rng = np.random.default_rng(2)
    numbers, marks = rng.uniform(0, 1, (2500, 12)), np.zeros((2500, 12))
    for row, places in enumerate(rng.permuted(np.tile(np.arange(12), (2500, 1)), axis=1)[:, :2]):
        marks[row, places] = 1
    target = (numbers * marks).sum(axis=1)
    return _in_order(np.stack([numbers, marks], axis=2), (target - 1) / target.std())


def _labels() -> Parts:
    x, y = datasets.make_multilabel_classification(2400, 30, n_classes=8, n_labels=3, length=60, random_state=3)
    return _in_order((x - x.mean(axis=0)) / x.std(axis=0), y.astype(float))


def _text() -> tuple[Parts, int]:
    """Return what comes after `CONTEXT` characters in the descriptions of scikit-learn's data sets."""
    loaders = (
        datasets.load_breast_cancer,
        datasets.load_diabetes,
        datasets.load_digits,
        datasets.load_iris,
        datasets.load_wine,
    )
    text = "".join(load().DESCR for load in loaders).lower()
    letters = {letter: i for i, letter in enumerate(sorted(set(text)))}
    codes = np.array([letters[letter] for letter in text])
    rows = np.lib.stride_tricks.sliding_window_view(codes, CONTEXT + 1)
    rows = rows[np.random.default_rng(4).permutation(len(rows))[:8000]]
    return _in_order(rows[:, :-1].copy(), rows[:, -1].copy()), len(letters)


def _waves() -> Parts:
    rng = np.random.default_rng(5)
    x = rng.uniform(-1, 1, (2500, 2))
    y = np.sin(6 * x[:, 0] * x[:, 1]) + np.cos(9 * x[:, 0]) + 0.1 * rng.normal(size=2500)
    return _in_order(x, (y - y.mean()) / y.std())


def _wrong_labels() -> Parts:
    train, *rest = split_and_scale(*datasets.load_digits(return_X_y=True), seed=6)
    rng = np.random.default_rng(6)
    wrong = torch.tensor(rng.random(len(train[1])) < 0.3)
    other = torch.tensor(rng.integers(0, 10, len(train[1])))
    return (train[0], torch.where(wrong, other, train[1])), *rest


def _counts() -> Parts:
    rng = np.random.default_rng(7)
    x = rng.normal(size=(2500, 12))
    rate = np.exp(0.6 * np.sin(x[:, 0] * x[:, 1]) + 0.5 * x[:, 2] - 0.3 * np.abs(x[:, 3]) + 0.3)
    return _in_order(x, rng.poisson(rate).astype(float))


def _gated() -> Parts:
    data = datasets.make_classification(
        2600, 30, n_informative=10, n_classes=4, n_clusters_per_class=2, flip_y=0.03, random_state=8
    )
    return split_and_scale(*data, seed=8)


def _mixer(root: Path | None) -> Task:
    from torchvision.datasets import FashionMNIST

    data = FashionMNIST(str(existing(root)), train=True, download=False)
    images = nn.functional.avg_pool2d(data.data[24_000:26_000, None].float(), 2).numpy()
    parts = split_and_scale(images, data.targets[24_000:26_000].numpy(), seed=9)
    return Task("fresh-mixer", parts, Mixer, 5, batch_size=None, optimizer="adamw")


def _groupnorm(root: Path | None) -> Task:
    with np.load(existing(root) / "cifar10_small.npz") as data:
        images = torch.tensor(data["x_train"][4000:6500]).permute(0, 3, 1, 2).float()
        parts = split_and_scale(nn.functional.avg_pool2d(images, 2).numpy(), data["y_train"][4000:6500], seed=10)
    return Task("fresh-groupnorm", parts, group_norm_cnn, 8)
