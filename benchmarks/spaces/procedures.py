"""Four studies that train or report in another way: folds, patience, a policy gradient, a settled learning rate."""

from collections.abc import Iterator

import numpy as np
import torch
from optuna import Trial
from torch import nn

from benchmarks.spaces.training import SpaceTask
from benchmarks.spaces.training import Trained
from benchmarks.spaces.training import finite
from benchmarks.spaces.training import load
from benchmarks.spaces.training import mlp
from benchmarks.spaces.training import optimizer_of
from benchmarks.spaces.training import reported
from benchmarks.spaces.training import shuffled
from benchmarks.spaces.training import step


def folds(task: SpaceTask, trial: Trial) -> Trained:
    """Cross-validation: what is reported after each fold is the mean of the folds so far."""
    drop, width = trial.suggest_float("dropout", 0.0, 0.6), trial.suggest_int("n_units", 8, 256, log=True)
    lr, decay = (
        trial.suggest_float("lr", 1e-4, 1e-1, log=True),
        trial.suggest_float("weight_decay", 1e-6, 1e-1, log=True),
    )
    size = trial.suggest_categorical("batch_size", [16, 32, 64])
    x, y, _, _ = load("breast_cancer")

    def means() -> Iterator[float]:
        found: list[float] = []
        for fold in range(task.epochs):
            held = torch.arange(len(y)) % task.epochs == fold
            net = mlp([30, width, width, 2], drop=[drop, drop])
            optimizer = optimizer_of("Adam", net, lr, weight_decay=decay)
            for _ in range(6):
                for batch in shuffled(int((~held).sum()), size):
                    step(optimizer, nn.functional.cross_entropy(net(x[~held][batch]), y[~held][batch]), net)
            net.eval()
            with torch.no_grad():
                found.append(finite(nn.functional.cross_entropy(net(x[held]), y[held]).item()))
            yield sum(found) / len(found)

    return reported(task, trial, means())


def patience(task: SpaceTask, trial: Trial) -> Trained:
    """Training stops itself after three epochs without a better loss; the objective is the best."""
    lr, momentum = trial.suggest_float("lr", 1e-4, 1.0, log=True), trial.suggest_float("momentum", 0.5, 0.99)
    decay, drop = trial.suggest_float("weight_decay", 1e-6, 1e-2, log=True), trial.suggest_float("dropout", 0.0, 0.5)
    x, y, x_val, y_val = load("digits")
    net = mlp([64, 128, 10], drop=[drop])
    optimizer = optimizer_of("SGD", net, lr, momentum=momentum, weight_decay=decay)
    values: list[float] = []
    for epoch in range(task.epochs):
        net.train()
        for batch in shuffled(len(y), 64):
            step(optimizer, nn.functional.cross_entropy(net(x[batch]), y[batch]), net)
        net.eval()
        with torch.no_grad():
            values.append(finite(nn.functional.cross_entropy(net(x_val), y_val).item()))
        trial.report(values[-1], epoch)
        if trial.should_prune():
            return Trained(min(values), (epoch + 1) / task.epochs, True)
        if epoch - int(np.argmin(values)) >= 3:
            break
    return Trained(min(values), len(values) / task.epochs, False)


def _cart_poles(state: torch.Tensor, push: torch.Tensor) -> torch.Tensor:
    """Return cart-poles a fiftieth of a second later (Barto, Sutton and Anderson 1983): (n, 4), pushes of -1 and 1."""
    x, v, angle, spin = state.unbind(1)
    sin, cos = angle.sin(), angle.cos()
    pull = (10 * push + 0.05 * spin**2 * sin) / 1.1
    turn = (9.8 * sin - cos * pull) / (0.5 * (4 / 3 - 0.1 * cos**2 / 1.1))
    speed = pull - 0.05 * turn * cos / 1.1
    return torch.stack([x + 0.02 * v, v + 0.02 * speed, angle + 0.02 * spin, spin + 0.02 * turn], 1)


def policy(task: SpaceTask, trial: Trial) -> Trained:
    """A policy gradient on cart-poles, names as in RL Zoo: the mean length of the episodes, noisy, to maximise."""
    left, lr = trial.suggest_float("gamma", 1e-4, 0.1, log=True), trial.suggest_float("lr", 1e-5, 1.0, log=True)
    entropy, norm = (
        trial.suggest_float("ent_coef", 1e-8, 0.1, log=True),
        trial.suggest_float("max_grad_norm", 0.3, 5.0, log=True),
    )
    arch = {"tiny": [16], "small": [32, 32], "medium": [64, 64]}[
        trial.suggest_categorical("net_arch", ["tiny", "small", "medium"])
    ]
    act = {"tanh": nn.Tanh, "relu": nn.ReLU}[trial.suggest_categorical("activation_fn", ["tanh", "relu"])]
    net = mlp([4, *arch, 2], act=act)
    optimizer = optimizer_of("Adam", net, lr)

    def lengths() -> Iterator[float]:
        for _ in range(task.epochs):
            found: list[float] = []
            for _ in range(3):
                state, alive = 0.1 * torch.rand(16, 4) - 0.05, torch.ones(16, dtype=torch.bool)
                logs, entropies, lived = [], [], []
                for _ in range(100):
                    choice = torch.distributions.Categorical(logits=net(state))
                    action = choice.sample()
                    logs.append(choice.log_prob(action))
                    entropies.append(choice.entropy())
                    lived.append(alive.float())
                    state = torch.where(alive[:, None], _cart_poles(state, 2.0 * action - 1), state)
                    alive = alive & (state[:, 0].abs() < 2.4) & (state[:, 2].abs() < 0.209)
                    if not alive.any():
                        break
                mask, returns, total = torch.stack(lived), torch.zeros(len(lived), 16), torch.zeros(16)
                for t in reversed(range(len(lived))):
                    total = returns[t] = mask[t] + (1 - left) * total
                gain = (returns - returns[mask > 0].mean()) / (returns[mask > 0].std() + 1e-6)
                loss = -(mask * (gain * torch.stack(logs) + entropy * torch.stack(entropies))).sum() / mask.sum()
                if not torch.isfinite(loss):
                    break
                step(optimizer, loss, net, norm)
                found.append(mask.sum().item() / 16)
            finite = all(torch.isfinite(p).all() for p in net.parameters())
            yield 1 - (sum(found) / len(found) / 100 if found and finite else 0.0)

    return reported(task, trial, lengths())


def regularisers(task: SpaceTask, trial: Trial) -> Trained:
    """The learning rate is settled: only what regularises is searched."""
    drop, smooth = trial.suggest_float("dropout", 0.0, 0.9), trial.suggest_float("label_smoothing", 0.0, 0.5)
    decay, noise = (
        trial.suggest_float("weight_decay", 1e-6, 1.0, log=True),
        trial.suggest_float("input_noise", 0.0, 1.0),
    )
    width, mixup = trial.suggest_int("width", 16, 512, log=True), trial.suggest_float("mixup_alpha", 0.0, 1.0)
    x, y, x_val, y_val = load("digits")
    x, y = x[:300], y[:300]
    net = mlp([64, width, width, 10], drop=[drop, drop])
    optimizer = optimizer_of("AdamW", net, 3e-3, weight_decay=decay)

    def epochs() -> Iterator[float]:
        for _ in range(task.epochs):
            net.train()
            for batch in shuffled(len(y), 32):
                share = torch.distributions.Beta(mixup, mixup).sample().item() if mixup > 0 else 1.0
                other = batch[torch.randperm(len(batch))]
                output = net(share * x[batch] + (1 - share) * x[other] + noise * torch.randn(len(batch), 64))
                loss, mixed = (
                    nn.functional.cross_entropy(output, y[part], label_smoothing=smooth) for part in (batch, other)
                )
                step(optimizer, share * loss + (1 - share) * mixed, net)
            net.eval()
            with torch.no_grad():
                yield finite(nn.functional.cross_entropy(net(x_val), y_val).item())

    return reported(task, trial, epochs())
