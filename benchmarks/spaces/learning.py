"""Six studies of other ways of learning: on a graph, over clients, in private, to learn, of a density, by reward."""

import math
from collections.abc import Callable
from collections.abc import Iterator
from functools import cache
from itertools import pairwise

import numpy as np
import torch
from optuna import Trial
from sklearn.datasets import make_moons
from torch import nn
from torch import optim
from torch.optim import swa_utils

from benchmarks.spaces.reward import control
from benchmarks.spaces.training import Parts
from benchmarks.spaces.training import SpaceTask
from benchmarks.spaces.training import Trained
from benchmarks.spaces.training import finite
from benchmarks.spaces.training import load
from benchmarks.spaces.training import mlp
from benchmarks.spaces.training import reported
from benchmarks.spaces.training import shuffled
from benchmarks.spaces.training import step

CLASSES = 5
CLIENTS = 10
NOISE_MULTIPLIER = 1.0
SHOTS = 10


@cache
def citations() -> Parts:
    """Return a stochastic block model: its normalised adjacency, noisy features, classes and which 50 are labelled."""
    rng = np.random.default_rng(0)
    y = np.arange(400) % CLASSES
    linked = rng.random((400, 400)) < np.where(y[:, None] == y, 0.035, 0.007)
    adjacency = np.triu(linked, 1) + np.triu(linked, 1).T + np.eye(400)
    root = adjacency.sum(1) ** -0.5
    x = 0.45 * rng.normal(size=(CLASSES, 32))[y] + rng.normal(size=(400, 32))
    normal = torch.tensor(root[:, None] * adjacency * root, dtype=torch.float32)
    return normal, torch.tensor(x, dtype=torch.float32), torch.tensor(y), torch.arange(400) < 50


class GCN(nn.Module):
    """A graph convolutional network (Kipf and Welling 2017)."""

    def __init__(self, sizes: list[int], dropout: float, norm: str, residual: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(n, m) for n, m in pairwise(sizes)])
        kinds: dict[str, Callable[[int], nn.Module]]
        kinds = {"none": nn.Identity, "batch": nn.BatchNorm1d, "layer": nn.LayerNorm}
        self.norms = nn.ModuleList([kinds[norm](m) for m in sizes[1:-1]])
        self.dropout, self.residual = dropout, residual

    def forward(self, x: torch.Tensor, adjacency: torch.Tensor) -> torch.Tensor:
        """Return the logits of every node."""
        for layer, norm in zip(self.layers, self.norms, strict=False):
            h = norm(adjacency @ layer(x)).relu()
            x = nn.functional.dropout(h + x if self.residual and h.shape == x.shape else h, self.dropout, self.training)
        logits: torch.Tensor = adjacency @ self.layers[-1](x)
        return logits


def graph(task: SpaceTask, trial: Trial) -> Trained:
    """Classes of a graph's nodes, few of which are labelled; the loss of the validation nodes."""
    lr = trial.suggest_float("lr", 1e-5, 1.0, log=True)
    weight_decay = trial.suggest_float("weight_decay", 1e-6, 1e-1, log=True)
    hidden = trial.suggest_categorical("hidden", [16, 32, 64])
    n_layers = trial.suggest_int("n_layers", 1, 4)
    dropout = trial.suggest_float("dropout", 0.0, 0.8)
    norm = trial.suggest_categorical("norm", ["none", "batch", "layer"])
    residual = trial.suggest_categorical("residual", [True, False])
    adjacency, x, y, labelled = citations()
    net = GCN([32, *[hidden] * (n_layers - 1), CLASSES], dropout, norm, residual)
    optimizer = optim.Adam(net.parameters(), lr, weight_decay=weight_decay, fused=True)

    def epochs() -> Iterator[float]:
        for _ in range(task.epochs):
            net.train()
            for _ in range(8):
                step(optimizer, nn.functional.cross_entropy(net(x, adjacency)[labelled], y[labelled]), net)
            net.eval()
            with torch.no_grad():
                yield finite(nn.functional.cross_entropy(net(x, adjacency)[200:], y[200:]).item())

    return reported(task, trial, epochs())


@cache
def clients() -> list[torch.Tensor]:
    """Return which of the digits each client holds: shares of every class by a Dirichlet distribution."""
    rng = np.random.default_rng(0)
    _, y, _, _ = load("digits")
    held: list[list[int]] = [[] for _ in range(CLIENTS)]
    for label in range(10):
        of_label = np.flatnonzero(y.numpy() == label)
        cuts = (np.cumsum(rng.dirichlet([0.3] * CLIENTS))[:-1] * len(of_label)).astype(int)
        for client, part in zip(held, np.split(of_label, cuts), strict=True):
            client += part.tolist()
    return [torch.tensor(client) for client in held]


def federated(task: SpaceTask, trial: Trial) -> Trained:
    """FedAvg with a proximal term and a server's momentum, on clients that see different digits; the accuracy."""
    client_lr = trial.suggest_float("client_lr", 1e-3, 1.0, log=True)
    server_lr = trial.suggest_float("server_lr", 1e-2, 10.0, log=True)
    server_momentum = trial.suggest_float("server_momentum", 0.0, 0.99)
    local_epochs = trial.suggest_int("local_epochs", 1, 5)
    clients_per_round = trial.suggest_int("clients_per_round", 2, CLIENTS)
    mu = trial.suggest_float("mu", 1e-4, 1.0, log=True)
    x, y, x_val, y_val = load("digits")
    server, local = mlp([64, 32, 10]), mlp([64, 32, 10])
    of_server, of_local = list(server.parameters()), list(local.parameters())
    server_optimizer = optim.SGD(of_server, server_lr, server_momentum)

    def train_client(held: torch.Tensor) -> None:
        local.load_state_dict(server.state_dict())
        for _ in range(local_epochs):
            for batch in shuffled(len(held), 50):
                rows = held[batch]
                grads = torch.autograd.grad(nn.functional.cross_entropy(local(x[rows]), y[rows]), of_local)
                with torch.no_grad():
                    for p, q, grad in zip(of_local, of_server, grads, strict=True):
                        p.sub_(client_lr * (grad + mu * (p - q)))

    def rounds() -> Iterator[float]:
        for _ in range(task.epochs):
            chosen = [clients()[i] for i in torch.randperm(CLIENTS)[:clients_per_round]]
            for p in of_server:
                p.grad = torch.zeros_like(p)
            for held in chosen:
                train_client(held)
                for p, q in zip(of_server, of_local, strict=True):
                    assert p.grad is not None
                    p.grad += (p - q).detach() * len(held) / sum(map(len, chosen))
            server_optimizer.step()
            with torch.no_grad():
                yield (server(x_val).argmax(1) != y_val).float().mean().item()

    return reported(task, trial, rounds())


def private(task: SpaceTask, trial: Trial) -> Trained:
    """DP-SGD: gradients clipped by sample, and noise; the accuracy on digits."""
    lr = trial.suggest_float("lr", 1e-3, 10.0, log=True)
    max_grad_norm = trial.suggest_float("max_grad_norm", 1e-2, 10.0, log=True)
    batch_size = trial.suggest_categorical("batch_size", [16, 32, 64, 128, 256, 512])
    momentum = trial.suggest_float("momentum", 0.0, 0.99)
    x, y, x_val, y_val = load("digits")
    first, last = nn.Linear(64, 32), nn.Linear(32, 10)
    params = [*first.parameters(), *last.parameters()]
    optimizer = optim.SGD(params, lr, momentum)

    def update(batch: torch.Tensor) -> None:
        before = first(x[batch])
        hidden = before.relu()
        logits = last(hidden)
        loss = nn.functional.cross_entropy(logits, y[batch], reduction="sum")
        by_layer = list(zip((x[batch], hidden.detach()), torch.autograd.grad(loss, (before, logits)), strict=True))
        norms = sum(((a**2).sum(1) + 1) * (g**2).sum(1) for a, g in by_layer) ** 0.5
        factor = (max_grad_norm / (norms + 1e-6)).clamp(max=1.0)[:, None]
        clipped = [part for a, g in by_layer for part in ((factor * g).T @ a, (factor * g).sum(0))]
        for p, grad in zip(params, clipped, strict=True):
            p.grad = (grad + NOISE_MULTIPLIER * max_grad_norm * torch.randn_like(p)) / batch_size
        optimizer.step()

    def epochs() -> Iterator[float]:
        for _ in range(task.epochs):
            for batch in shuffled(len(y), batch_size):
                update(batch)
            with torch.no_grad():
                yield (last(first(x_val).relu()).argmax(1) != y_val).float().mean().item()

    return reported(task, trial, epochs())


def sinusoids(count: int, generator: torch.Generator | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Return inputs and targets of tasks: the first shots to adapt to, the others to ask for."""
    amplitude = 0.1 + 4.9 * torch.rand(count, 1, 1, generator=generator)
    phase = torch.pi * torch.rand(count, 1, 1, generator=generator)
    x = 10 * torch.rand(count, 2 * SHOTS, 1, generator=generator) - 5
    return x, amplitude * torch.sin(x - phase)


def meta(task: SpaceTask, trial: Trial) -> Trained:
    """MAML on sinusoids; the error on new ones after the inner steps."""
    inner_lr = trial.suggest_float("inner_lr", 1e-3, 1.0, log=True)
    meta_lr = trial.suggest_float("meta_lr", 1e-4, 1e-1, log=True)
    inner_steps = trial.suggest_int("inner_steps", 1, 3)
    meta_batch_size = trial.suggest_categorical("meta_batch_size", [4, 8, 16])
    hidden = trial.suggest_categorical("hidden", [16, 32, 64])
    first_order = trial.suggest_categorical("first_order", [True, False])
    net = mlp([1, hidden, hidden, 1])
    optimizer = optim.Adam(net.parameters(), meta_lr, fused=True)
    x_val, y_val = sinusoids(50, torch.Generator().manual_seed(0))

    def error(weights: list[torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        for number in range(0, len(weights), 2):
            x = torch.baddbmm(weights[number + 1], x.relu() if number else x, weights[number])
        return ((x - y) ** 2).mean((1, 2))

    def adapted(x: torch.Tensor, y: torch.Tensor, second: bool) -> torch.Tensor:
        weights = [p.T.expand(len(x), -1, -1) if p.ndim == 2 else p.expand(len(x), 1, -1) for p in net.parameters()]
        for _ in range(inner_steps):
            loss = error(weights, x[:, :SHOTS], y[:, :SHOTS]).sum()
            grads = torch.autograd.grad(loss, weights, create_graph=second)
            weights = [w - inner_lr * g for w, g in zip(weights, grads, strict=True)]
        return error(weights, x[:, SHOTS:], y[:, SHOTS:]).mean()

    def iterations() -> Iterator[float]:
        for _ in range(task.epochs):
            for _ in range(10):
                step(optimizer, adapted(*sinusoids(meta_batch_size), second=not first_order), net)
            yield finite(adapted(x_val, y_val, second=False).item())

    return reported(task, trial, iterations())


@cache
def moons() -> tuple[torch.Tensor, torch.Tensor]:
    """Return two moons to train on, and two to validate on."""
    x, _ = make_moons(1000, noise=0.06, random_state=0)
    inputs = torch.tensor((x - x.mean(0)) / x.std(0), dtype=torch.float32)
    return inputs[:500], inputs[500:]


class RealNVP(nn.Module):
    """Affine couplings (Dinh and others 2017)."""

    def __init__(self, n_flows: int, hidden_dim: int) -> None:
        super().__init__()
        self.flows = nn.ModuleList([mlp([1, hidden_dim, 2]) for _ in range(n_flows)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the negative log-likelihood of each sample."""
        kept, changed = x[:, :1], x[:, 1:]
        log_det = torch.zeros_like(kept)
        for flow in self.flows:
            scale, shift = flow(kept).chunk(2, 1)
            kept, changed = changed * scale.tanh().exp() + shift, kept
            log_det = log_det + scale.tanh()
        loss: torch.Tensor = 0.5 * (kept**2 + changed**2) + math.log(2 * math.pi) - log_det
        return loss


def flow(task: SpaceTask, trial: Trial) -> Trained:
    """A normalising flow of two moons; the negative log-likelihood by averaged weights."""
    lr = trial.suggest_float("lr", 1e-5, 1e-1, log=True)
    n_flows = trial.suggest_int("n_flows", 2, 8)
    hidden_dim = trial.suggest_categorical("hidden_dim", [16, 32, 64, 128])
    batch_size = trial.suggest_categorical("batch_size", [32, 64, 128, 256])
    weight_decay = trial.suggest_float("weight_decay", 1e-8, 1e-2, log=True)
    grad_clip = trial.suggest_float("grad_clip", 0.1, 10.0, log=True)
    ema_decay = trial.suggest_categorical("ema_decay", [0.9, 0.99, 0.999, 0.9999])
    x, x_val = moons()
    net = RealNVP(n_flows, hidden_dim)
    optimizer = optim.AdamW(net.parameters(), lr, weight_decay=weight_decay, fused=True)
    averaged = swa_utils.AveragedModel(net, avg_fn=lambda old, new, _: old.lerp(new, 1 - ema_decay))

    def epochs() -> Iterator[float]:
        for _ in range(task.epochs):
            for batch in shuffled(len(x), batch_size):
                step(optimizer, net(x[batch]).mean(), net, grad_clip)
                averaged.update_parameters(net)
            with torch.no_grad():
                yield finite(averaged(x_val).mean().item())

    return reported(task, trial, epochs())


LEARNING = (
    SpaceTask("graph", training=graph, epochs=10),
    SpaceTask("federated", training=federated, epochs=8, maximize=True),
    SpaceTask("private", training=private, epochs=10, maximize=True),
    SpaceTask("meta", training=meta, epochs=8),
    SpaceTask("flow", training=flow, epochs=10),
    SpaceTask("control", training=control, epochs=6, maximize=True),
)
