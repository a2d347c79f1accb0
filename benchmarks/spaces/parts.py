"""Four studies of networks in parts, and one without a network: experts, pruning, a series, two stages, a kernel."""

import math
from collections.abc import Iterator
from functools import cache

import numpy as np
import torch
from optuna import Trial
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from torch import nn
from torch import optim
from torch.nn.utils import prune

from benchmarks.spaces.training import ImpossibleError
from benchmarks.spaces.training import SpaceTask
from benchmarks.spaces.training import Trained
from benchmarks.spaces.training import finite
from benchmarks.spaces.training import load
from benchmarks.spaces.training import mlp
from benchmarks.spaces.training import reported
from benchmarks.spaces.training import shuffled
from benchmarks.spaces.training import step

SPARSITY = 0.95


def _loss(net: nn.Module) -> float:
    """Return the validation loss on digits."""
    _, _, x_val, y_val = load("digits")
    net.eval()
    with torch.no_grad():
        return finite(nn.functional.cross_entropy(net(x_val), y_val).item())


class Experts(nn.Module):
    """A layer of experts of which each sample asks the first few (Shazeer and others 2017)."""

    def __init__(self, n_experts: int, top_k: int, width: int) -> None:
        super().__init__()
        self.router = nn.Linear(64, n_experts)
        self.experts = nn.ModuleList([mlp([64, width, 10]) for _ in range(n_experts)])
        self.top_k = top_k
        self.shares = torch.zeros(n_experts)

    def forward(self, x: torch.Tensor, jitter: float = 0.0) -> torch.Tensor:
        """Return the logits; `shares` are then how the load is spread."""
        scores = self.router(x * (1 + jitter * (2 * torch.rand_like(x) - 1)))
        values, chosen = scores.topk(self.top_k, 1)
        weights = torch.zeros_like(scores).scatter(1, chosen, values.softmax(1))
        self.shares = scores.softmax(1).mean(0) * (weights > 0).float().mean(0)
        answers = torch.stack([expert(x) for expert in self.experts], 1)
        logits: torch.Tensor = (weights[..., None] * answers).sum(1)
        return logits


def experts(task: SpaceTask, trial: Trial) -> Trained:
    """A mixture of experts; more asked than there are cannot be."""
    peak_lr = trial.suggest_float("peak_lr", 1e-5, 1e-1, log=True)
    warmup_steps = trial.suggest_int("warmup_steps", 0, 100)
    num_experts = trial.suggest_categorical("num_experts", [2, 4, 8])
    top_k = trial.suggest_int("top_k", 1, 4)
    aux_loss_coef = trial.suggest_float("aux_loss_coef", 1e-4, 1.0, log=True)
    router_jitter_noise = trial.suggest_float("router_jitter_noise", 0.0, 0.5)
    weight_decay = trial.suggest_float("weight_decay", 1e-4, 1.0, log=True)
    adam_beta2 = trial.suggest_float("adam_beta2", 0.9, 0.999)
    if top_k > num_experts:
        raise ImpossibleError
    x, y, _, _ = load("digits")
    net = Experts(num_experts, top_k, 16)
    optimizer = optim.AdamW(net.parameters(), peak_lr, (0.9, adam_beta2), weight_decay=weight_decay, fused=True)
    total = task.epochs * math.ceil(len(y) / 64)

    def epochs() -> Iterator[float]:
        update = 0
        for _ in range(task.epochs):
            net.train()
            for batch in shuffled(len(y), 64):
                rate = min((update + 1) / (warmup_steps + 1), (1 + math.cos(math.pi * update / total)) / 2)
                optimizer.param_groups[0]["lr"] = peak_lr * rate
                loss = nn.functional.cross_entropy(net(x[batch], router_jitter_noise), y[batch])
                step(optimizer, loss + aux_loss_coef * num_experts * net.shares.sum(), net)
                update += 1
            yield _loss(net)

    return reported(task, trial, epochs())


def pruned(task: SpaceTask, trial: Trial) -> Trained:
    """Train, take 95 % of the weights away, train on; the loss of what is left."""
    lr = trial.suggest_float("lr", 1e-4, 1.0, log=True)
    finetune_lr = trial.suggest_float("finetune_lr", 1e-5, 1.0, log=True)
    pruning_epoch = trial.suggest_int("pruning_epoch", 1, 8)
    l1_lambda = trial.suggest_float("l1_lambda", 1e-7, 1e-2, log=True)
    momentum = trial.suggest_float("momentum", 0.0, 0.99)
    x, y, _, _ = load("digits")
    net = mlp([64, 64, 64, 10])
    optimizer = optim.SGD(net.parameters(), lr, momentum)
    layers = [layer for layer in net if isinstance(layer, nn.Linear)]

    def epochs() -> Iterator[float]:
        tuned = optimizer
        for epoch in range(task.epochs):
            if epoch == pruning_epoch:
                wanted = [(layer, "weight") for layer in layers]
                prune.global_unstructured(wanted, pruning_method=prune.L1Unstructured, amount=SPARSITY)
                tuned = optim.SGD(net.parameters(), finetune_lr, momentum)
            net.train()
            for batch in shuffled(len(y), 64):
                loss = nn.functional.cross_entropy(net(x[batch]), y[batch])  # this makes the pruned weights, too
                step(tuned, loss + l1_lambda * sum(layer.weight.abs().sum() for layer in layers), net)
            yield _loss(net)

    return reported(task, trial, epochs())


@cache
def series() -> tuple[torch.Tensor, torch.Tensor]:
    """Return 900 noisy series of 96 steps and their class: frequency, trend or a bump somewhere."""
    rng = np.random.default_rng(0)
    y = np.arange(900) % 6
    t = np.arange(96) / 96
    waves = np.sin(2 * np.pi * ((3 + y % 3)[:, None] * t + rng.random((900, 1))))
    bumps = np.exp(-(((t - rng.uniform(0.2, 0.8, (900, 1))) / 0.04) ** 2)) * (y >= 3)[:, None] * 2.5
    x = waves + bumps + 1.2 * rng.normal(size=(900, 96))
    return torch.tensor(x[:, None], dtype=torch.float32), torch.tensor(y)


def convolution(task: SpaceTask, trial: Trial) -> Trained:
    """A convolutional net of series by `fit_one_cycle`, in fastai's names."""
    lr_max = trial.suggest_float("lr_max", 1e-5, 1.0, log=True)
    wd = trial.suggest_float("wd", 1e-5, 1.0, log=True)
    pct_start = trial.suggest_float("pct_start", 0.05, 0.7)
    div = trial.suggest_float("div", 2.0, 100.0, log=True)
    bs = trial.suggest_categorical("bs", [16, 32, 64, 128])
    nf = trial.suggest_categorical("nf", [4, 8, 16])
    ks = trial.suggest_categorical("ks", [3, 5, 7, 9])
    fc_dropout = trial.suggest_float("fc_dropout", 0.0, 0.7)
    x, y = series()
    layers: list[nn.Module] = []
    for wide, out in ((1, nf), (nf, 2 * nf)):
        layers += [nn.Conv1d(wide, out, ks, stride=2, padding=ks // 2), nn.BatchNorm1d(out), nn.ReLU()]
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Dropout(fc_dropout), nn.Linear(2 * nf, 6))
    optimizer = optim.AdamW(net.parameters(), lr_max, weight_decay=wd, fused=True)
    total = task.epochs * math.ceil(500 / bs)
    cycle = optim.lr_scheduler.OneCycleLR(optimizer, lr_max, total, pct_start=pct_start, div_factor=div)

    def epochs() -> Iterator[float]:
        for _ in range(task.epochs):
            net.train()
            for batch in shuffled(500, bs):
                step(optimizer, nn.functional.cross_entropy(net(x[batch]), y[batch]), net)
                cycle.step()
            net.eval()
            with torch.no_grad():
                yield finite(nn.functional.cross_entropy(net(x[500:]), y[500:]).item())

    return reported(task, trial, epochs())


def staged(task: SpaceTask, trial: Trial) -> Trained:
    """An autoencoder first, its features then; two rates, two lengths that make one training."""
    pretrain_lr = trial.suggest_float("pretrain_lr", 1e-5, 1e-1, log=True)
    pretrain_epochs = trial.suggest_int("pretrain_epochs", 1, 6)
    corruption = trial.suggest_float("corruption", 0.0, 0.9)
    code_dim = trial.suggest_int("code_dim", 4, 64)
    finetune_lr = trial.suggest_float("finetune_lr", 1e-5, 1e-1, log=True)
    freeze_encoder = trial.suggest_categorical("freeze_encoder", [True, False])
    x, y, _, _ = load("digits")
    encoder, decoder = nn.Sequential(nn.Linear(64, code_dim), nn.ReLU()), nn.Linear(code_dim, 64)
    net = nn.Sequential(encoder, nn.Linear(code_dim, 10))
    both = nn.ModuleList([encoder, decoder])
    first = optim.Adam(both.parameters(), pretrain_lr, fused=True)
    then = optim.Adam((net[1] if freeze_encoder else net).parameters(), finetune_lr, fused=True)

    def epochs() -> Iterator[float]:
        for epoch in range(task.epochs):
            for batch in shuffled(len(y), 64):
                if epoch < pretrain_epochs:
                    hidden = x[batch] * (torch.rand_like(x[batch]) >= corruption)
                    step(first, ((decoder(encoder(hidden)) - x[batch]) ** 2).mean(), both)
                else:
                    step(then, nn.functional.cross_entropy(net(x[batch][:300]), y[batch][:300]), net)
            yield _loss(net)

    return reported(task, trial, epochs())


def kernel(task: SpaceTask, trial: Trial) -> Trained:
    """A support vector machine; the mean accuracy of three folds."""
    c = trial.suggest_float("C", 1e-3, 1e3, log=True)
    gamma = trial.suggest_float("gamma", 1e-5, 1e1, log=True)
    name = trial.suggest_categorical("kernel", ["linear", "poly", "rbf", "sigmoid"])
    shrinking = trial.suggest_categorical("shrinking", [True, False])
    x, y, _, _ = load("digits")
    model = make_pipeline(StandardScaler(), SVC(C=c, gamma=gamma, kernel=name, shrinking=shrinking, max_iter=2000))
    return Trained(1 - float(cross_val_score(model, x[:400].numpy(), y[:400].numpy(), cv=3).mean()), 1.0, False)


PARTS = (
    SpaceTask("experts", training=experts, epochs=8, when_impossible="prune"),
    SpaceTask("pruned", training=pruned, epochs=10),
    SpaceTask("series", training=convolution, epochs=8),
    SpaceTask("staged", training=staged, epochs=10),
    SpaceTask("kernel", training=kernel, reports=False, maximize=True),
)
