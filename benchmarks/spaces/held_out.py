"""Five studies that were written before any of them had run, and have changed nothing."""

from collections.abc import Callable

import torch
from optuna import Trial
from torch import nn
from torch import optim

from benchmarks.spaces.training import Setup
from benchmarks.spaces.training import SpaceTask
from benchmarks.spaces.training import cosine
from benchmarks.spaces.training import mlp
from benchmarks.spaces.training import optimizer_of


def convolution(trial: Trial) -> Setup:
    """A convolutional network: channels, kernel, blocks; the optimizer late."""
    channels, kernel = trial.suggest_int("channels", 4, 32, step=4), trial.suggest_categorical("kernel", [3, 5])
    blocks = trial.suggest_int("blocks", 1, 2)
    layers: list[nn.Module] = [nn.Unflatten(1, (1, 8, 8))]
    for i in range(blocks):
        layers += [nn.LazyConv2d(channels * (i + 1), kernel, padding=kernel // 2), nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.Flatten(), nn.Dropout(trial.suggest_float("drop_rate", 0.0, 0.6)), nn.LazyLinear(10)]
    net = nn.Sequential(*layers)
    net(torch.zeros(1, 64))
    decay = trial.suggest_float("wd", 1e-7, 1e-1, log=True)
    name = trial.suggest_categorical("optim", ["sgd", "adamw"])
    lr = trial.suggest_float("max_lr", 1e-4, 1.0, log=True)
    made = {"sgd": optim.SGD(net.parameters(), lr=lr, momentum=0.9), "adamw": optim.AdamW(net.parameters(), lr=lr)}
    for group in made[name].param_groups:
        group["weight_decay"] = decay
    return Setup(net, made[name], trial.suggest_categorical("batch_size", [32, 64, 128]), scheduler=cosine)


class Rows(nn.Module):
    """A recurrent network over the rows of an 8x8 image."""

    def __init__(self, hidden: int, layers: int, both: bool) -> None:
        super().__init__()
        self.body = nn.GRU(8, hidden, layers, batch_first=True, bidirectional=both)
        self.head = nn.Linear(hidden * (1 + both), 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits of shape (n, 10)."""
        logits: torch.Tensor = self.head(self.body(x.reshape(-1, 8, 8))[0].mean(1))
        return logits


def recurrent(trial: Trial) -> Setup:
    """A recurrent network with clipped gradients, Adam."""
    hidden, layers = trial.suggest_int("hidden_size", 8, 32, log=True), trial.suggest_int("num_layers", 1, 2)
    net = Rows(hidden, layers, trial.suggest_categorical("bidirectional", [False, True]))
    lr, clip = trial.suggest_float("lr", 1e-5, 1e-1, log=True), trial.suggest_float("clip", 0.1, 10, log=True)
    return Setup(net, optimizer_of("Adam", net, lr), trial.suggest_int("batch_size", 32, 128, log=True), clip=clip)


def regression(trial: Trial) -> Setup:
    """A regression: activation by name, layers of one width, l2 as a plain number, momentum on a grid."""
    act = {"relu": nn.ReLU, "tanh": nn.Tanh, "elu": nn.ELU}
    word = trial.suggest_categorical("activation", list(act))
    width, depth = trial.suggest_int("width", 4, 64), trial.suggest_int("depth", 0, 3)
    net = mlp([10, *[width] * depth, 1], act=act[word])
    lr = trial.suggest_float("lr", 1e-4, 1.0, log=True)
    momentum = trial.suggest_float("momentum", 0.0, 0.95, step=0.05)
    return Setup(net, optimizer_of("SGD", net, lr, momentum=momentum, weight_decay=trial.suggest_float("l2", 0, 0.1)))


def schedulers(trial: Trial) -> Setup:
    """A scheduler by name, one of which has a number of its own; nesterov as a switch."""
    word = trial.suggest_categorical("scheduler", ["none", "cosine", "exponential"])
    gamma = trial.suggest_float("gamma", 0.5, 0.99) if word == "exponential" else 1.0
    net = mlp([30, 16, 16, 2], norm=trial.suggest_categorical("norm", [False, True]))
    lr, momentum = trial.suggest_float("learning_rate", 1e-5, 10, log=True), trial.suggest_float("momentum", 0.1, 0.99)
    nesterov = trial.suggest_categorical("nesterov", [True, False])
    made: dict[str, Callable[[optim.Optimizer, int], optim.lr_scheduler.LRScheduler] | None] = {
        "none": None,
        "cosine": cosine,
        "exponential": lambda o, n: optim.lr_scheduler.ExponentialLR(o, gamma ** (8 / max(1, n))),
    }
    optimizer = optimizer_of("SGD", net, lr, momentum=momentum, nesterov=nesterov)
    return Setup(net, optimizer, 32, scheduler=made[word])


def sklearn_names(trial: Trial) -> Setup:
    """The names of scikit-learn's MLPClassifier, layers as a tuple, the learning rate first."""
    lr = trial.suggest_float("learning_rate_init", 1e-5, 1e-1, log=True)
    alpha = trial.suggest_float("alpha", 1e-7, 1e-1, log=True)
    hidden = trial.suggest_categorical("hidden_layer_sizes", ["16", "64", "32-32", "64-32-16"])
    net = mlp([64, *map(int, hidden.split("-")), 10])
    return Setup(net, optimizer_of("Adam", net, lr, weight_decay=alpha), trial.suggest_int("batch_size", 8, 256))


HELD_OUT = (
    SpaceTask("convolution", convolution, epochs=5),
    SpaceTask("recurrent", recurrent, epochs=3, by_error=True),
    SpaceTask("regression", regression, data="diabetes"),
    SpaceTask("schedulers", schedulers, data="breast_cancer"),
    SpaceTask("sklearn-names", sklearn_names, epochs=6, by_error=True),
)
