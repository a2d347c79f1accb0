"""Data set x network pairs on which the rules for weight decay and momentum are measured.

From 2 to 42 layers with weights, and 1,000 to 18,000 samples. The rule was set on "development". Every training is a
full 1cycle, momentum 0.95 to 0.85, at a learning rate chosen once a pair (weight decay 1e-4).
"""

import dataclasses
import functools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.duel.tasks import Task
from benchmarks.duel.tasks import load_tasks
from benchmarks.duel.tasks import mlp
from benchmarks.duel.tasks import split_and_scale
from optuna_discipline import EpochLog
from optuna_discipline import OneCycle
from optuna_discipline import train_epochs

BASE_MOMENTUM, MAX_MOMENTUM = 0.85, 0.95
WORST = 2.0  # a loss above this many untrained losses counts as this
BATCH_SIZE = 64
DEVELOPMENT, HELD_OUT = "development", "held out"
# "held out" were recorded when the rule stood. A pair of the duel keeps its name there.
PARTS = {
    "mlp-256": DEVELOPMENT,
    "regression": DEVELOPMENT,
    "fashion-cnn": DEVELOPMENT,
    "batchnorm": DEVELOPMENT,
    "texture": DEVELOPMENT,
    "imbalanced": DEVELOPMENT,
    "magic": DEVELOPMENT,
    "deep": DEVELOPMENT,
    "residual": DEVELOPMENT,
    "penbased-residual": DEVELOPMENT,
    "digits-residual-26": DEVELOPMENT,
    "optdigits-residual-42": DEVELOPMENT,
    "cifar-3-layers": HELD_OUT,
    "fashion-18k-deep": HELD_OUT,
    "fashion-18k-residual-26": HELD_OUT,
}


class NormResidual(nn.Module):
    """A block of two linear layers with BatchNorm, added to its input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = [nn.Linear(width, width, bias=False), nn.BatchNorm1d(width)]
        self.inner = nn.Sequential(*half, nn.ReLU(), nn.Linear(width, width, bias=False), nn.BatchNorm1d(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return x plus what the layers make of it, shape kept."""
        return torch.relu(x + self.inner(x))


def residual_mlp(n_in: int, n_out: int, width: int, blocks: int) -> nn.Module:
    """Return a residual network of `2 * blocks + 2` linear layers with BatchNorm."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(n_in, width),
        nn.ReLU(),
        *(NormResidual(width) for _ in range(blocks)),
        nn.Linear(width, n_out),
    )


def three_layers() -> nn.Module:
    """Return a net like the paper's shallow one for CIFAR-10: three convolutions and a linear layer."""
    layers: list[nn.Module] = []
    for n_in, n_out in ((3, 16), (16, 16), (16, 32)):
        layers += [nn.Conv2d(n_in, n_out, 5, padding=2), nn.MaxPool2d(2), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(128, 10))


@functools.cache
def load_pairs(data_root: Path | None) -> dict[str, Task]:
    """Return the pairs by name, in the order of `PARTS`; validation and test part are one, to measure better.

    Raises:
        FileNotFoundError: Without a folder of the data.
    """
    if data_root is None:
        raise FileNotFoundError("--data-root (or OPTUNA_DISCIPLINE_DATA) must name the folder of the data")
    from torchvision.datasets import FashionMNIST

    duel, _ = load_tasks(data_root)
    images = FashionMNIST(str(data_root), train=True, download=False)
    small = nn.functional.avg_pool2d(images.data[:, None].float(), 2).numpy()
    many = split_and_scale(small[:30_000], images.targets[:30_000].numpy(), seed=0)
    with np.load(data_root / "cifar10_small.npz") as data:
        colour = torch.tensor(data["x_train"][:4000]).permute(0, 3, 1, 2).float()
        cifar = split_and_scale(nn.functional.avg_pool2d(colour, 2).numpy(), data["y_train"][:4000], seed=0)
    tables = {}
    for name in ("penbased", "optdigits"):
        with np.load(data_root / "tabular" / f"{name}.npz") as data:
            tables[name] = split_and_scale(data["x_train"][:2000], data["y_train"][:2000], seed=0)
    own = (
        Task("cifar-3-layers", cifar, three_layers, 10),
        Task("penbased-residual", tables["penbased"], lambda: residual_mlp(16, 10, 32, 5), 12),
        Task("digits-residual-26", duel["deep"].parts, lambda: residual_mlp(64, 10, 32, 12), 12),
        Task("optdigits-residual-42", tables["optdigits"], lambda: residual_mlp(64, 10, 32, 20), 10),
        Task("fashion-18k-deep", many, lambda: mlp(196, 10, 64, 6), 10, batch_size=128),
        Task("fashion-18k-residual-26", many, lambda: residual_mlp(196, 10, 32, 12), 8, batch_size=128),
    )
    found = {**duel, **{task.name: task for task in own}}
    return {name: _with_larger_validation(found[name]) for name in PARTS}


def build(task: Task, seed: int) -> nn.Module:
    """Return the network with the seed's weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return task.build()


def cycle_of(task: Task, lr: float, momentum: float = MAX_MOMENTUM, share: float = 1.0) -> OneCycle:
    """Return the 1cycle of a training of `share` of the task's epochs."""
    steps = math.ceil(len(task.parts[0][1]) / (task.batch_size or BATCH_SIZE))
    total = max(1, round(share * task.epochs)) * steps
    return OneCycle(lr, total, max_momentum=momentum, base_momentum=min(BASE_MOMENTUM, momentum))


def train(
    task: Task,
    *,
    lr: float,
    weight_decay: float,
    seed: int,
    momentum: float = MAX_MOMENTUM,
    share: float = 1.0,
    **options: Any,
) -> "Result":
    """Train once; return its logs."""
    logs = train_epochs(
        build(task, seed),
        task.loss,
        task.parts[0],
        task.parts[1],
        cycle_of(task, lr, momentum, share),
        optimizer=task.optimizer,  # type: ignore[arg-type]
        weight_decay=weight_decay,
        batch_size=task.batch_size or BATCH_SIZE,
        seed=seed,
        **options,
    )
    return Result(tuple(logs), worst(task))


@dataclass(frozen=True)
class Result:
    """What a training left.

    Attributes:
        logs: Its epochs.
        worst: What a loss counts at most.
    """

    logs: tuple[EpochLog, ...]
    worst: float

    @property
    def loss(self) -> float:
        """The last validation loss, `worst` for a broken run."""
        last = self.logs[-1].val_loss
        return min(last, self.worst) if last is not None and math.isfinite(last) else self.worst

    @property
    def error(self) -> float:
        """The last validation error, or the loss where nothing is classified."""
        accuracy = self.logs[-1].val_accuracy
        return self.loss if accuracy is None else 1 - accuracy


@functools.cache
def worst(task: Task) -> float:
    """Return what a diverged run counts."""
    model = build(task, 0).eval()
    with torch.no_grad():
        return WORST * float(task.loss(model(task.parts[1][0]), task.parts[1][1]))


def _with_larger_validation(task: Task) -> Task:
    _, val, test = task.parts
    both = tuple(torch.cat([a, b]) for a, b in zip(val, test, strict=True))
    return dataclasses.replace(task, parts=(task.parts[0], (both[0], both[1])))
