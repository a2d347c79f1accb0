"""Ten studies more, written later: other names, scores to maximise, grids, groups of parameters."""

import torch
from optuna import Trial
from torch import nn
from torch import optim

from benchmarks.spaces.training import Setup
from benchmarks.spaces.training import SpaceTask
from benchmarks.spaces.training import cosine
from benchmarks.spaces.training import mlp
from benchmarks.spaces.training import optimizer_of


def accuracy(trial: Trial) -> Setup:
    """An accuracy to maximise; layers and dropouts before the learning rate."""
    sizes, drop = [64], []
    for i in range(trial.suggest_int("layers", 1, 3)):
        sizes.append(trial.suggest_categorical(f"units_{i}", [16, 32, 64, 128]))
        drop.append(trial.suggest_float(f"dropout_{i}", 0.0, 0.6, step=0.1))
    net = mlp([*sizes, 10], drop=drop)
    return Setup(net, optimizer_of("Adam", net, trial.suggest_float("learning_rate", 1e-5, 1e-1, log=True)), 32)


def dotted(trial: Trial) -> Setup:
    """The names of a configuration file, with their groups."""
    width = trial.suggest_int("model.width", 16, 128, log=True)
    lr = trial.suggest_float("optimizer.lr", 1e-4, 1.0, log=True)
    momentum = trial.suggest_float("optimizer.momentum", 0.0, 0.99)
    decay = trial.suggest_float("optimizer.weight_decay", 1e-6, 1e-1, log=True)
    net = mlp([64, width, width, 10])
    size = trial.suggest_categorical("data.batch_size", [16, 32, 64, 128])
    return Setup(net, optimizer_of("SGD", net, lr, momentum=momentum, weight_decay=decay), size, scheduler=cosine)


def own_rates(trial: Trial) -> Setup:
    """Every optimizer has parameters of its own name."""
    width = trial.suggest_int("n_units", 16, 128, log=True)
    net = mlp([64, width, 10])
    if trial.suggest_categorical("optimizer", ["RMSprop", "Adam", "SGD"]) == "RMSprop":
        lr, decay = (
            trial.suggest_float("rmsprop_lr", 1e-5, 1e-1, log=True),
            trial.suggest_float("rmsprop_alpha", 0.8, 0.99),
        )
        return Setup(net, optimizer_of("RMSprop", net, lr, alpha=decay))
    if trial.params["optimizer"] == "Adam":
        return Setup(net, optimizer_of("Adam", net, trial.suggest_float("adam_lr", 1e-5, 1e-1, log=True)))
    lr, momentum = trial.suggest_float("sgd_lr", 1e-4, 1.0, log=True), trial.suggest_float("sgd_momentum", 0.0, 0.99)
    return Setup(net, optimizer_of("SGD", net, lr, momentum=momentum))


def two_rates(trial: Trial) -> Setup:
    """A learning rate for the body of a network and one for its head."""
    body, head = mlp([64, 64, 64, 32]), nn.Linear(32, 10)
    groups = [
        {"params": body.parameters(), "lr": trial.suggest_float("lr_body", 1e-5, 1e-2, log=True)},
        {"params": head.parameters(), "lr": trial.suggest_float("lr_head", 1e-4, 1e-1, log=True)},
    ]
    decay = trial.suggest_float("weight_decay", 1e-5, 1.0, log=True)
    return Setup(nn.Sequential(body, nn.ReLU(), head), optim.AdamW(groups, weight_decay=decay), 32, scheduler=cosine)


def lengths(trial: Trial) -> Setup:
    """The number of epochs is tuned as well, under a cosine, and reported."""
    epochs = trial.suggest_int("n_epochs", 2, 10)
    lr, decay = (
        trial.suggest_float("lr", 1e-5, 1e-1, log=True),
        trial.suggest_float("weight_decay", 1e-6, 1e-2, log=True),
    )
    drop = trial.suggest_float("dropout", 0.0, 0.5)
    net = mlp([64, 64, 64, 10], drop=[drop, drop])
    return Setup(net, optimizer_of("Adam", net, lr, weight_decay=decay), 64, epochs, cosine)


def grids(trial: Trial) -> Setup:
    """Everything on a grid of equal steps."""
    lr, momentum = (
        trial.suggest_float("lr", 0.01, 0.5, step=0.01),
        trial.suggest_float("momentum", 0.5, 0.95, step=0.05),
    )
    size, width = trial.suggest_int("batch_size", 16, 128, step=16), trial.suggest_int("hidden", 16, 128, step=16)
    net = mlp([64, width, width, 10])
    return Setup(net, optimizer_of("SGD", net, lr, momentum=momentum), size)


def many(trial: Trial) -> Setup:
    """Eight numbers and words of architecture and training, no momentum."""
    act = {"relu": nn.ReLU, "gelu": nn.GELU, "tanh": nn.Tanh}
    width, depth = trial.suggest_int("width", 16, 128, log=True), trial.suggest_int("depth", 1, 4)
    word, norm = trial.suggest_categorical("activation", list(act)), trial.suggest_categorical("norm", [True, False])
    drop, size = (
        trial.suggest_float("dropout", 0.0, 0.5),
        trial.suggest_categorical("batch_size", [16, 32, 64, 128, 256]),
    )
    lr, decay = trial.suggest_float("lr", 1e-4, 10.0, log=True), trial.suggest_float("wd", 1e-6, 1e-1, log=True)
    net = mlp([64, *[width] * depth, 10], drop=[drop] * depth, norm=norm, act=act[word])
    return Setup(net, optimizer_of("SGD", net, lr, weight_decay=decay), size, scheduler=cosine)


def plain(trial: Trial) -> Setup:
    """Plain SGD at a constant rate, twenty epochs, two numbers."""
    net = mlp([30, 32, 32, 2])
    lr, decay = (
        trial.suggest_float("lr", 1e-5, 1.0, log=True),
        trial.suggest_float("weight_decay", 1e-6, 1e-1, log=True),
    )
    return Setup(net, optimizer_of("SGD", net, lr, weight_decay=decay), 32)


class Attention(nn.Module):
    """A transformer's encoder over the rows of an 8x8 image."""

    def __init__(self, width: int, heads: int, layers: int, drop: float) -> None:
        super().__init__()
        self.into = nn.Linear(8, width)
        self.place = nn.Parameter(0.02 * torch.randn(8, width))
        layer = nn.TransformerEncoderLayer(width, heads, 2 * width, drop, batch_first=True, norm_first=True)
        self.body = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits of shape (n, 10)."""
        logits: torch.Tensor = self.head(self.body(self.into(x.reshape(-1, 8, 8)) + self.place).mean(1))
        return logits


def attention(trial: Trial) -> Setup:
    """A small transformer by AdamW."""
    heads, layers = trial.suggest_categorical("n_heads", [1, 2, 4]), trial.suggest_int("n_layers", 1, 2)
    net = Attention(
        trial.suggest_categorical("d_model", [8, 16, 32]), heads, layers, trial.suggest_float("dropout", 0, 0.3)
    )
    lr, decay = (
        trial.suggest_float("lr", 1e-6, 1e-1, log=True),
        trial.suggest_float("weight_decay", 1e-4, 1.0, log=True),
    )
    beta2 = trial.suggest_float("beta2", 0.9, 0.9999)
    return Setup(net, optimizer_of("AdamW", net, lr, weight_decay=decay, betas=(0.9, beta2)), 32, scheduler=cosine)


def explained(trial: Trial) -> Setup:
    """A regression whose explained variance is maximised; it may be far below zero."""
    width, drop = trial.suggest_int("width", 4, 64, log=True), trial.suggest_float("dropout", 0.0, 0.5)
    net = mlp([10, width, width, 1], drop=[drop, drop])
    lr, momentum = trial.suggest_float("lr", 1e-5, 1.0, log=True), trial.suggest_float("momentum", 0.0, 0.99)
    return Setup(net, optimizer_of("SGD", net, lr, momentum=momentum), 32)


FRESH = (
    SpaceTask("accuracy", accuracy, by_error=True, maximize=True),
    SpaceTask("dotted", dotted),
    SpaceTask("own-rates", own_rates, by_error=True),
    SpaceTask("two-rates", two_rates),
    SpaceTask("lengths", lengths, epochs=10),
    SpaceTask("grids", grids, by_error=True),
    SpaceTask("many", many),
    SpaceTask("plain", plain, data="breast_cancer", epochs=20),
    SpaceTask("attention", attention, epochs=6),
    SpaceTask("explained", explained, data="diabetes", maximize=True),
)
