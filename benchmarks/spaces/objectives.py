"""Ten studies whose objectives or reports are of another kind: not one loss or error of a network after every epoch."""

from collections.abc import Iterator
from functools import cache

import numpy as np
import torch
from optuna import Trial
from sklearn import datasets
from sklearn.metrics import f1_score
from torch import nn
from torch import optim

from benchmarks.spaces.procedures import folds
from benchmarks.spaces.procedures import patience
from benchmarks.spaces.procedures import policy
from benchmarks.spaces.procedures import regularisers
from benchmarks.spaces.training import Parts
from benchmarks.spaces.training import SpaceTask
from benchmarks.spaces.training import Trained
from benchmarks.spaces.training import finite
from benchmarks.spaces.training import load
from benchmarks.spaces.training import mlp
from benchmarks.spaces.training import optimizer_of
from benchmarks.spaces.training import reported
from benchmarks.spaces.training import shuffled
from benchmarks.spaces.training import step


@cache
def waves() -> Parts:
    """Return a smooth function of two inputs, and its noise, which grows with the first."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (1500, 2))
    y = np.sin(4 * x[:, 0]) * x[:, 1] + 0.05 * (1.1 + x[:, 0]) * rng.normal(size=1500)
    inputs, targets = (torch.tensor(part, dtype=torch.float32) for part in (x, y))
    return inputs[:1000], targets[:1000], inputs[1000:], targets[1000:]


def likelihood(task: SpaceTask, trial: Trial) -> Trained:
    """A network that tells its own noise: the loss is a negative log likelihood, and below zero once it has learned."""
    lr, size = (
        trial.suggest_float("lr", 1e-5, 1.0, log=True),
        trial.suggest_categorical("batch_size", [16, 32, 64, 128]),
    )
    decay, width = (
        trial.suggest_float("weight_decay", 1e-6, 1e-1, log=True),
        trial.suggest_int("width", 8, 128, log=True),
    )
    x, y, x_val, y_val = waves()
    net = mlp([2, width, width, 2], act=nn.Tanh)
    optimizer = optimizer_of("AdamW", net, lr, weight_decay=decay)

    def loss(inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        mean, log_var = net(inputs).unbind(1)
        return nn.functional.gaussian_nll_loss(mean, targets, log_var.exp(), eps=1e-6)

    def epochs() -> Iterator[float]:
        for _ in range(task.epochs):
            for batch in shuffled(len(y), size):
                step(optimizer, loss(x[batch], y[batch]), net)
            with torch.no_grad():
                yield finite(loss(x_val, y_val).item())

    return reported(task, trial, epochs())


def decades(task: SpaceTask, trial: Trial) -> Trained:
    """A function without noise: the squared error falls over decades."""
    act = {"tanh": nn.Tanh, "relu": nn.ReLU, "silu": nn.SiLU}[
        trial.suggest_categorical("act", ["relu", "silu", "tanh"])
    ]
    layers, width = trial.suggest_int("layers", 1, 4), trial.suggest_int("width", 8, 128, log=True)
    lr, gamma = trial.suggest_float("lr", 1e-5, 1e-1, log=True), trial.suggest_float("gamma", 0.7, 1.0)
    grid = torch.linspace(-1, 1, 24)
    x = torch.cartesian_prod(grid, grid)
    y = torch.sin(3 * x[:, 0]) * torch.cos(2 * x[:, 1])
    held = torch.arange(len(y)) % 3 == 0
    net = mlp([2, *[width] * layers, 1], act=act)
    optimizer = optimizer_of("Adam", net, lr)
    scheduler = optim.lr_scheduler.ExponentialLR(optimizer, gamma)

    def epochs() -> Iterator[float]:
        for _ in range(task.epochs):
            for batch in shuffled(int((~held).sum()), 32):
                step(optimizer, nn.functional.mse_loss(net(x[~held][batch]).squeeze(1), y[~held][batch]), net)
            scheduler.step()
            with torch.no_grad():
                yield finite(nn.functional.mse_loss(net(x[held]).squeeze(1), y[held]).item())

    return reported(task, trial, epochs())


def characters(*names: str) -> tuple[torch.Tensor, int]:
    """Return scikit-learn's descriptions of data sets as numbers of characters, and how many kinds there are."""
    whole = "".join(getattr(datasets, f"load_{name}")().DESCR for name in names).lower()
    kinds = sorted(set(whole))
    return torch.tensor([kinds.index(letter) for letter in whole]), len(kinds)


@cache
def text() -> tuple[torch.Tensor, torch.Tensor, int]:
    """Return scikit-learn's descriptions of its data as characters, to train and to validate, and how many kinds."""
    codes, kinds = characters("iris", "wine", "digits", "diabetes", "breast_cancer", "linnerud")
    windows = codes.unfold(0, 9, 1)
    share = round(0.8 * len(windows))
    return windows[:share][::2], windows[share + 9 :][::2], kinds


def perplexity(task: SpaceTask, trial: Trial) -> Trained:
    """The next character from the last eight; the perplexity, which is 1 at best and has no upper end."""
    size, emb = trial.suggest_int("emb_size", 4, 64, log=True), trial.suggest_int("nhid", 16, 256, log=True)
    lr, clip = trial.suggest_float("lr", 1e-2, 20, log=True), trial.suggest_float("clip", 0.05, 5.0, log=True)
    drop, bptt = trial.suggest_float("dropout", 0.0, 0.7), trial.suggest_int("bsz", 16, 256, log=True)
    train, val, n = text()
    net = nn.Sequential(
        nn.Embedding(n, size), nn.Flatten(), nn.Linear(8 * size, emb), nn.Tanh(), nn.Dropout(drop), nn.Linear(emb, n)
    )
    optimizer = optimizer_of("SGD", net, lr)

    def epochs() -> Iterator[float]:
        for _ in range(task.epochs):
            net.train()
            for batch in shuffled(len(train), bptt):
                part = train[batch]
                step(optimizer, nn.functional.cross_entropy(net(part[:, :8]), part[:, 8]), net, clip)
            net.eval()
            with torch.no_grad():
                yield finite(nn.functional.cross_entropy(net(val[:, :8]), val[:, 8]).exp().item())

    return reported(task, trial, epochs())


def autoencoder(task: SpaceTask, trial: Trial) -> Trained:
    """Digits through a bottleneck, with noise added; the mean squared error of the clean ones."""
    code, width = trial.suggest_int("bottleneck", 2, 32), trial.suggest_categorical("hidden", [32, 64, 128, 256])
    noise, l1 = trial.suggest_float("noise_std", 0.0, 0.5), trial.suggest_float("l1_lambda", 1e-7, 1e-1, log=True)
    lr = trial.suggest_float("lr", 1e-5, 1e-1, log=True)
    x, _, x_val, _ = load("digits")
    down, up = mlp([64, width, code]), nn.Sequential(nn.ReLU(), mlp([code, width, 64]), nn.Sigmoid())
    net = nn.Sequential(down, up)
    optimizer = optimizer_of("Adam", net, lr)

    def epochs() -> Iterator[float]:
        for _ in range(task.epochs):
            for batch in shuffled(len(x), 64):
                inner = down(x[batch] + noise * torch.randn_like(x[batch]))
                step(optimizer, nn.functional.mse_loss(up(inner), x[batch]) + l1 * inner.abs().mean(), net)
            with torch.no_grad():
                yield finite(nn.functional.mse_loss(net(x_val), x_val).item())

    return reported(task, trial, epochs())


@cache
def rare() -> Parts:
    """Return a table with one positive in twenty."""
    x, y = datasets.make_classification(
        3000, 20, n_informative=8, weights=[0.95], class_sep=0.8, flip_y=0.01, random_state=0
    )
    inputs, targets = torch.tensor(x, dtype=torch.float32), torch.tensor(y)
    return inputs[:1500], targets[:1500], inputs[1500:], targets[1500:]


def f1(task: SpaceTask, trial: Trial) -> Trained:
    """The F1 of a rare class, to maximise: zero until something is learned."""
    lr, size = (
        trial.suggest_float("learning_rate", 1e-5, 1e-1, log=True),
        trial.suggest_int("batch_size", 32, 512, log=True),
    )
    weight, gamma = trial.suggest_float("pos_weight", 1.0, 50.0, log=True), trial.suggest_float("focal_gamma", 0.0, 5.0)
    width, drop = trial.suggest_int("hidden_dim", 16, 128, step=16), trial.suggest_float("dropout", 0.0, 0.6)
    x, y, x_val, y_val = rare()
    net = mlp([20, width, width, 1], drop=[drop, drop], norm=True)
    optimizer = optimizer_of("Adam", net, lr)

    def epochs() -> Iterator[float]:
        for _ in range(task.epochs):
            net.train()
            for batch in shuffled(len(y), size):
                if len(batch) < 2:
                    continue
                logit, target = net(x[batch]).squeeze(1), y[batch].float()
                bce = nn.functional.binary_cross_entropy_with_logits(
                    logit, target, reduction="none", pos_weight=torch.tensor(weight)
                )
                right = torch.where(target > 0, logit.sigmoid(), 1 - logit.sigmoid())
                step(optimizer, (bce * (1 - right) ** gamma).mean(), net)
            net.eval()
            with torch.no_grad():
                yield 1 - float(f1_score(y_val, net(x_val).squeeze(1) > 0, zero_division=0))

    return reported(task, trial, epochs())


def contrastive(task: SpaceTask, trial: Trial) -> Trained:
    """Embeddings of digits near their noisy copies: how many nearest neighbours are of another class."""
    size, temperature = (
        trial.suggest_categorical("batch_size", [32, 64, 128, 256]),
        trial.suggest_float("temperature", 0.01, 1.0, log=True),
    )
    lr, dims = trial.suggest_float("base_lr", 1e-5, 1e-1, log=True), trial.suggest_int("proj_dim", 4, 64, log=True)
    noise, decay = trial.suggest_float("noise", 0.01, 0.5), trial.suggest_float("wd", 1e-6, 1e-1, log=True)
    x, y, x_val, y_val = load("digits")
    net = mlp([64, 128, dims])
    optimizer = optimizer_of("AdamW", net, lr, weight_decay=decay)

    def epochs() -> Iterator[float]:
        for _ in range(task.epochs):
            for batch in shuffled(len(x), size):
                part, other = (
                    nn.functional.normalize(net(x[batch] + noise * torch.randn_like(x[batch]))) for _ in range(2)
                )
                step(
                    optimizer, nn.functional.cross_entropy(part @ other.T / temperature, torch.arange(len(batch))), net
                )
            with torch.no_grad():
                known, asked = nn.functional.normalize(net(x)), nn.functional.normalize(net(x_val))
                nearest = (asked @ known.T).nan_to_num(-2.0).argmax(1)
                yield (y[nearest] != y_val).float().mean().item()

    return reported(task, trial, epochs())


OBJECTIVES = (
    SpaceTask("likelihood", training=likelihood),
    SpaceTask("decades", training=decades, epochs=40),
    SpaceTask("perplexity", training=perplexity, epochs=5),
    SpaceTask("autoencoder", training=autoencoder),
    SpaceTask("folds", training=folds, epochs=5),
    SpaceTask("patience", training=patience, epochs=20),
    SpaceTask("f1", training=f1, maximize=True),
    SpaceTask("policy", training=policy, epochs=8, maximize=True),
    SpaceTask("contrastive", training=contrastive),
    SpaceTask("regularisers", training=regularisers, epochs=10),
)
