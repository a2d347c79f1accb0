"""What the studies of this benchmark are made of: data, networks, and one training."""

import math
from collections.abc import Callable
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Literal

import numpy as np
import torch
from optuna import Trial
from sklearn import datasets
from torch import nn
from torch import optim

Parts = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]
BROKEN = 1e6  # what a network that gives no number is said to have lost
Scheduler = Callable[[optim.Optimizer, int], optim.lr_scheduler.LRScheduler]


@dataclass(frozen=True)
class Setup:
    """What one trial trains.

    Attributes:
        net: The network.
        optimizer: Its optimizer.
        batch_size: Samples of a batch.
        epochs: Epochs; None is the task's.
        scheduler: Called with the optimizer and the number of updates, None for a constant rate; stepped every update.
        clip: Largest norm of the gradient.
    """

    net: nn.Module
    optimizer: optim.Optimizer
    batch_size: int = 64
    epochs: int | None = None
    scheduler: Scheduler | None = None
    clip: float | None = None


class ImpossibleError(Exception):
    """A configuration that cannot run."""


@dataclass(frozen=True)
class Trained:
    """What came of a trial: its objective, its cost in full trainings, and whether the study's pruner stopped it."""

    objective: float
    cost: float
    stopped: bool


@dataclass(frozen=True)
class SpaceTask:
    """A study.

    Attributes:
        name: Unique.
        setup: Asks a trial for its parameters.
        training: Trains a trial in its own way, in place of `setup`.
        data: Name of the data, see `load`.
        epochs: Epochs of a full training.
        by_error: Whether the study minimises the error; else the loss.
        reports: Whether it reports every epoch.
        when_impossible: What the user's code does with a configuration that cannot run.
        maximize: Whether the study is told 1 less the objective (an accuracy, an explained variance), to maximise it.
    """

    name: str
    setup: Callable[[Trial], Setup] | None = None
    training: "Callable[[SpaceTask, Trial], Trained] | None" = None
    data: str = "digits"
    epochs: int = 8
    by_error: bool = False
    reports: bool = True
    when_impossible: Literal["never", "raise", "prune", "infinity"] = "never"
    maximize: bool = False


@cache
def load(name: str) -> Parts:
    """Return training inputs and targets and validation inputs and targets of one of scikit-learn's data sets."""
    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    x, y = x[order], y[order]
    train = round(0.6 * len(y))
    x = (x - x[:train].mean(0)) / (x[:train].std(0) + 1e-6) if name != "digits" else x / 16
    inputs = torch.tensor(x, dtype=torch.float32)
    if name == "diabetes":
        targets = torch.tensor((y - y[:train].mean()) / y[:train].std(), dtype=torch.float32)
    else:
        targets = torch.tensor(y, dtype=torch.long)
    return inputs[:train], targets[:train], inputs[train:], targets[train:]


def mlp(sizes: list[int], *, drop: list[float] | None = None, norm: bool = False, act: type = nn.ReLU) -> nn.Sequential:
    """Return a perceptron of these sizes, with a dropout after each hidden layer."""
    layers: list[nn.Module] = []
    for i, (n, m) in enumerate(pairwise(sizes[:-1])):
        layers += [nn.Linear(n, m), *([nn.BatchNorm1d(m)] if norm else []), act()]
        layers += [nn.Dropout(drop[i])] if drop else []
    return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1]))


def optimizer_of(name: str, net: nn.Module, lr: float, **more: object) -> optim.Optimizer:
    """Return torch's optimizer of a name."""
    made: optim.Optimizer = getattr(optim, name)(net.parameters(), lr=lr, **more)
    return made


def cosine(optimizer: optim.Optimizer, steps: int) -> optim.lr_scheduler.LRScheduler:
    """Return a rate that falls to zero along a cosine."""
    return optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)


def train(task: SpaceTask, trial: Trial, seed: int) -> Trained:
    """Train one trial. A loss that is not a number counts as ten untrained ones."""
    torch.manual_seed(seed)
    if task.training is not None:
        return task.training(task, trial)
    assert task.setup is not None
    x, y, x_val, y_val = load(task.data)
    setup = task.setup(trial)
    epochs, updates = setup.epochs or task.epochs, math.ceil(len(y) / setup.batch_size)
    scheduler = setup.scheduler(setup.optimizer, epochs * updates) if setup.scheduler else None
    found: list[float] = []
    for epoch in range(epochs):
        setup.net.train()
        for batch in shuffled(len(y), setup.batch_size):
            step(setup.optimizer, _loss(setup.net(x[batch]), y[batch]), setup.net, setup.clip)
            if scheduler is not None:
                scheduler.step()
        setup.net.eval()
        with torch.no_grad():
            output = setup.net(x_val)
            value = (output.argmax(1) != y_val).float().mean() if task.by_error else _loss(output, y_val)
        found.append(value.item() if math.isfinite(value.item()) else 23.0)
        if task.reports:
            trial.report(told(task, found[-1]), epoch)
            if trial.should_prune():
                return Trained(found[-1], len(found) / task.epochs, True)
    return Trained(found[-1], len(found) / task.epochs, False)


def told(task: SpaceTask, value: float) -> float:
    """Return what a study is told of an objective."""
    return 1 - value if task.maximize else value


def shuffled(n: int, size: int) -> Iterator[torch.Tensor]:
    """Return the numbers below `n` in batches of random order."""
    return iter(torch.split(torch.randperm(n), size))


def step(optimizer: optim.Optimizer, loss: torch.Tensor, net: nn.Module, clip: float | None = None) -> None:
    """Make one update."""
    optimizer.zero_grad()
    torch.autograd.backward(loss)
    if clip is not None:
        nn.utils.clip_grad_norm_(net.parameters(), clip)
    optimizer.step()


def finite(value: float) -> float:
    """Return a value, and what stands for one that is no number."""
    return min(value, BROKEN) if math.isfinite(value) else BROKEN


def reported(task: SpaceTask, trial: Trial, values: Iterator[float]) -> Trained:
    """Report every value; the objective is the last."""
    value = math.nan
    for number, value in enumerate(values):
        trial.report(told(task, value), number)
        if trial.should_prune():
            return Trained(value, (number + 1) / task.epochs, True)
    return Trained(value, 1.0, False)


def _loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    if target.is_floating_point():
        return nn.functional.mse_loss(output.squeeze(1), target)
    return nn.functional.cross_entropy(output, target)
