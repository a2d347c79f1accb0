"""The small trainings whose whole curves `benchmarks.pruner_replay record` keeps, and how they are drawn.

Fourteen tasks (network and data): five for choosing rules, five held out, and four more recorded when the rule stood
("fresh"). Four schedules, two boxes of configurations. A *group* is one task, schedule and box: the trainings of one
imagined study.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from optuna_discipline import OneCycle
from optuna_discipline import train_epochs
from optuna_discipline.examples import load_fashion_mnist_task

SCHEDULES = ("1cycle", "cosine", "constant", "step")
# Box: (lr low, lr high, smallest and largest momentum, weight decay low, high); "wide" is that of the sampler's duel.
BOXES = {"wide": (1e-5, 10.0, 0.8, 0.99, 1e-7, 1e-1), "narrow": (3e-3, 1.0, 0.8, 0.99, 1e-6, 1e-2)}
ADAM_FACTOR = 0.03  # the narrow box's learning rates for Adam
RUNS = {"wide": 32, "narrow": 24}
DEVELOPMENT, HELD_OUT, FRESH = "development", "held out", "fresh"


@dataclass(frozen=True)
class SmallTask:
    """One network on one small data set.

    Attributes:
        name: As in the file names.
        data: "digits", "wine", "cancer" or "fashion".
        net: "mlp", "deep", "batchnorm" or "cnn".
        n_epochs: Length of every run.
        batch_size: Samples of one update.
        part: "development", "held out" or "fresh".
        optimizer: "sgd" or "adamw".
    """

    name: str
    data: str
    net: str
    n_epochs: int
    batch_size: int
    part: str
    optimizer: str = "sgd"


TASKS = (
    SmallTask("digits-mlp", "digits", "mlp", 24, 64, DEVELOPMENT),
    SmallTask("digits-cnn", "digits", "cnn", 16, 64, DEVELOPMENT),
    SmallTask("digits-batchnorm", "digits", "batchnorm", 30, 64, DEVELOPMENT),
    SmallTask("wine-mlp", "wine", "mlp", 40, 16, DEVELOPMENT),
    SmallTask("fashion-deep", "fashion", "deep", 20, 50, DEVELOPMENT),
    SmallTask("digits-deep", "digits", "deep", 24, 32, HELD_OUT),
    SmallTask("cancer-batchnorm", "cancer", "batchnorm", 30, 32, HELD_OUT),
    SmallTask("fashion-mlp", "fashion", "mlp", 30, 50, HELD_OUT),
    SmallTask("fashion-cnn", "fashion", "cnn", 16, 50, HELD_OUT),
    SmallTask("digits-adamw", "digits", "mlp", 20, 64, HELD_OUT, "adamw"),
    SmallTask("digits-deep16", "digits", "deep", 20, 16, FRESH),
    SmallTask("wine-batchnorm", "wine", "batchnorm", 32, 16, FRESH),
    SmallTask("cancer-mlp", "cancer", "mlp", 40, 16, FRESH),
    SmallTask("fashion-batchnorm", "fashion", "batchnorm", 24, 50, FRESH),
)


@dataclass(frozen=True)
class Anneal:
    """A learning rate that only falls, at one momentum: "constant", "cosine", or "step" (a tenth at 50 % and 75 %)."""

    kind: str
    max_lr: float
    total_steps: int
    max_momentum: float

    def lr(self, step: int) -> float:
        """Return the learning rate of update `step`."""
        done = step / self.total_steps
        if self.kind == "cosine":
            return self.max_lr * (0.5 + 0.5 * math.cos(math.pi * done))
        return self.max_lr * (0.1 ** ((done >= 0.5) + (done >= 0.75)) if self.kind == "step" else 1.0)

    def momentum(self, step: int) -> float:
        """Return the momentum, the same for each update."""
        return self.max_momentum


def draw(task: SmallTask, schedule: str, box: str) -> np.ndarray:
    """Return the configurations of a group, shape (runs, 3): learning rate, momentum, weight decay."""
    low, high, low_m, high_m, low_wd, high_wd = BOXES[box]
    if box == "narrow" and task.optimizer != "sgd":
        low, high = low * ADAM_FACTOR, high * ADAM_FACTOR
    seed = [[t.name for t in TASKS].index(task.name), SCHEDULES.index(schedule), list(BOXES).index(box)]
    unit = np.random.default_rng(seed).random((RUNS[box], 3))
    lr, wd = (a * (b / a) ** u for a, b, u in ((low, high, unit[:, 0]), (low_wd, high_wd, unit[:, 2])))
    return np.stack([lr, low_m + (high_m - low_m) * unit[:, 1], wd], axis=1)


def train(task: SmallTask, schedule: str, config: np.ndarray, seed: int) -> np.ndarray:
    """Train once; return learning rate, training loss, validation loss and accuracy by epoch, shape (4, n_epochs).

    A run that broke stays at NaN to its end, as its network would.
    """
    lr, momentum, weight_decay = (float(x) for x in config)
    (x, y), val, n_classes = load(task.data, flat=task.net != "cnn")
    torch.manual_seed(seed)
    model = NETS[task.net](x.shape[1:], n_classes)
    steps = task.n_epochs * math.ceil(len(x) / task.batch_size)
    if schedule == "1cycle":
        plan: Any = OneCycle(lr, steps, max_momentum=momentum, base_momentum=min(momentum, 0.85))
    else:
        plan = Anneal(schedule, lr, steps, momentum)
    rows = np.full((4, task.n_epochs), np.nan)
    settings: dict[str, Any] = dict(weight_decay=weight_decay, batch_size=task.batch_size, optimizer=task.optimizer)
    for log in train_epochs(model, nn.CrossEntropyLoss(), (x, y), val, plan, seed=seed, **settings):
        rows[:, log.epoch] = [log.lr, log.train_loss, log.val_loss, log.val_accuracy]
    done = int(np.isfinite(rows[0]).sum())
    per_epoch = steps // task.n_epochs
    rows[0, done:] = [plan.lr((epoch + 1) * per_epoch - 1) for epoch in range(done, task.n_epochs)]
    return rows


@functools.cache
def load(name: str, *, flat: bool) -> tuple[tuple[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor], int]:
    """Return training and validation part of a data set, scaled by the training part, and its number of classes."""
    if name == "fashion":
        task = load_fashion_mnist_task(samples=2500)
        pool = nn.AvgPool2d(2)
        x, y = pool(torch.cat([task.train[0], task.val[0]]))[:2000], torch.cat([task.train[1], task.val[1]])[:2000]
    else:
        from sklearn import datasets

        data = {"digits": datasets.load_digits, "wine": datasets.load_wine, "cancer": datasets.load_breast_cancer}
        bunch = data[name]()
        order = np.random.default_rng(0).permutation(len(bunch.target))
        x = torch.tensor(bunch.data[order], dtype=torch.float32)
        x, y = x.reshape(-1, 1, 8, 8) if name == "digits" else x, torch.tensor(bunch.target[order])
    half = {"digits": 1200, "wine": 96, "cancer": 320, "fashion": 1000}[name]
    axes = (0,) if x.ndim == 2 else (0, 1, 2, 3)
    x = (x - x[:half].mean(axes, keepdim=True)) / x[:half].std(axes, keepdim=True)
    x = x.flatten(1) if flat else x
    return (x[:half], y[:half]), (x[half:], y[half:]), int(y.max()) + 1


def _mlp(shape: Any, n_classes: int) -> nn.Module:
    return nn.Sequential(nn.Linear(shape[0], 64), nn.ReLU(), nn.Linear(64, n_classes))


def _deep(shape: Any, n_classes: int) -> nn.Module:
    hidden = [layer for _ in range(4) for layer in (nn.Linear(48, 48), nn.ReLU())]
    return nn.Sequential(nn.Linear(shape[0], 48), nn.ReLU(), *hidden, nn.Linear(48, n_classes))


def _batchnorm(shape: Any, n_classes: int) -> nn.Module:
    first = (nn.Linear(shape[0], 48), nn.BatchNorm1d(48), nn.ReLU())
    return nn.Sequential(*first, nn.Linear(48, 48), nn.BatchNorm1d(48), nn.ReLU(), nn.Linear(48, n_classes))


def _cnn(shape: Any, n_classes: int) -> nn.Module:
    stride = 1 if shape[-1] < 10 else 2
    flat = 16 * (math.ceil(shape[-1] / stride) // 2) ** 2
    first = (nn.Conv2d(1, 8, 3, stride=stride, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU())
    return nn.Sequential(*first, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(flat, n_classes))


NETS: dict[str, Callable[[Any, int], nn.Module]] = {"mlp": _mlp, "deep": _deep, "batchnorm": _batchnorm, "cnn": _cnn}
