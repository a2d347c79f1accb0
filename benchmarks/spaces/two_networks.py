"""Three studies of two networks: adversaries, a body that knows a task already, a teacher."""

import math
from collections.abc import Iterator
from functools import cache

import torch
from optuna import Trial
from torch import nn
from torch import optim

from benchmarks.spaces.training import SpaceTask
from benchmarks.spaces.training import Trained
from benchmarks.spaces.training import finite
from benchmarks.spaces.training import load
from benchmarks.spaces.training import mlp
from benchmarks.spaces.training import optimizer_of
from benchmarks.spaces.training import reported
from benchmarks.spaces.training import shuffled
from benchmarks.spaces.training import step


def _ring(count: int) -> torch.Tensor:
    """Return points near eight places on a ring."""
    angles = torch.randint(0, 8, (count,)) * (torch.pi / 4)
    return torch.stack([angles.cos(), angles.sin()], 1) + 0.05 * torch.randn(count, 2)


def _energy_distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the energy distance of two samples (Szekely and Rizzo 2013)."""
    return float(2 * torch.cdist(a, b).mean() - torch.cdist(a, a).mean() - torch.cdist(b, b).mean())


def adversaries(task: SpaceTask, trial: Trial) -> Trained:
    """A learning rate for each; the distance of what is generated to the ring, which neither loss shows."""
    of_g, of_d = trial.suggest_float("lr_g", 1e-5, 1e-1, log=True), trial.suggest_float("lr_d", 1e-5, 1e-1, log=True)
    beta, critic = trial.suggest_float("beta1", 0.0, 0.95), trial.suggest_int("n_critic", 1, 4)
    latent, width = trial.suggest_int("latent_dim", 2, 32, log=True), trial.suggest_int("hidden", 16, 128, log=True)
    generator = mlp([latent, width, width, 2])
    discriminator = mlp([2, width, width, 1], act=nn.LeakyReLU)
    optimizer_g = optimizer_of("Adam", generator, of_g, betas=(beta, 0.99))
    optimizer_d = optimizer_of("Adam", discriminator, of_d, betas=(beta, 0.99))

    def epochs() -> Iterator[float]:
        for _ in range(task.epochs):
            for number in range(60):
                made = generator(torch.randn(64, latent))
                apart = nn.functional.softplus(discriminator(made.detach())) + nn.functional.softplus(
                    -discriminator(_ring(64))
                )
                step(optimizer_d, apart.mean(), discriminator)
                if number % critic == 0:
                    step(optimizer_g, nn.functional.softplus(-discriminator(made)).mean(), generator)
            with torch.no_grad():
                yield finite(_energy_distance(generator(torch.randn(500, latent)), _ring(500)))

    return reported(task, trial, epochs())


def _trained(sizes: list[int], x: torch.Tensor, y: torch.Tensor) -> nn.Sequential:
    """Return a perceptron trained by Adam; the caller's random numbers stay as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = mlp(sizes)
        optimizer = optimizer_of("Adam", net, 2e-3)
        for _ in range(15):
            for batch in shuffled(len(y), 32):
                step(optimizer, nn.functional.cross_entropy(net(x[batch]), y[batch]), net)
    return net


@cache
def body() -> dict[str, torch.Tensor]:
    """Return weights that know the digits below five."""
    x, y, _, _ = load("digits")
    net = _trained([64, 64, 64, 10], x[y < 5], y[y < 5])
    return {name: value.clone() for name, value in net.state_dict().items() if not name.startswith("4")}


def fine_tuning(task: SpaceTask, trial: Trial) -> Trained:
    """Few digits above five for a body that knows the others: rates that fall by layer, warm-up, frozen layers."""
    lr, head = (
        trial.suggest_float("learning_rate", 1e-6, 1e-2, log=True),
        trial.suggest_float("head_lr_multiplier", 1, 100, log=True),
    )
    decay, warm = (
        trial.suggest_float("weight_decay", 1e-4, 0.3, log=True),
        trial.suggest_float("warmup_ratio", 0.0, 0.3),
    )
    fall, frozen = trial.suggest_float("layer_decay", 0.3, 1.0), trial.suggest_int("freeze_layers", 0, 2)
    size = trial.suggest_categorical("per_device_train_batch_size", [4, 8, 16, 32])
    x, y, x_val, y_val = load("digits")
    x, y, x_val, y_val = x[y >= 5][:120], y[y >= 5][:120], x_val[y_val >= 5], y_val[y_val >= 5]
    net = mlp([64, 64, 64, 10])
    net.load_state_dict(body(), strict=False)
    layers = [net[0], net[2]]
    groups = [{"params": net[4].parameters(), "lr": lr * head}]
    groups += [{"params": layers[i].parameters(), "lr": lr * fall ** (1 - i)} for i in range(frozen, 2)]
    optimizer = optim.AdamW(groups, lr=lr, weight_decay=decay)
    steps = task.epochs * math.ceil(len(y) / size)
    scheduler = optim.lr_scheduler.LambdaLR(
        optimizer, lambda n: min((n + 1) / (warm * steps + 1), (steps - n) / max(1, steps - warm * steps))
    )

    def epochs() -> Iterator[float]:
        for _ in range(task.epochs):
            for batch in shuffled(len(y), size):
                step(optimizer, nn.functional.cross_entropy(net(x[batch]), y[batch]), net, 1.0)
                scheduler.step()
            with torch.no_grad():
                yield finite(nn.functional.cross_entropy(net(x_val), y_val).item())

    return reported(task, trial, epochs())


@cache
def teacher() -> torch.Tensor:
    """Return what a wide network that knows the digits says of the training data."""
    x, y, _, _ = load("digits")
    net = _trained([64, 256, 256, 10], x, y)
    with torch.no_grad():
        said: torch.Tensor = net(x)
    return said


def distillation(task: SpaceTask, trial: Trial) -> Trained:
    """A small network learns from a large one and from a few labels; its error, to minimise."""
    lr, momentum = trial.suggest_float("lr", 1e-4, 1.0, log=True), trial.suggest_float("momentum", 0.8, 0.99)
    warm, share = trial.suggest_float("temperature", 1.0, 20.0), trial.suggest_float("alpha", 0.0, 1.0)
    hidden, decay = trial.suggest_int("hidden", 4, 32), trial.suggest_float("weight_decay", 1e-6, 1e-2, log=True)
    x, y, x_val, y_val = load("digits")
    net = mlp([64, hidden, 10])
    optimizer = optimizer_of("SGD", net, lr, momentum=momentum, weight_decay=decay)
    told = teacher()

    def epochs() -> Iterator[float]:
        for _ in range(task.epochs):
            for batch in shuffled(len(y), 64):
                output = net(x[batch])
                soft = nn.functional.kl_div(
                    (output / warm).log_softmax(1), (told[batch] / warm).softmax(1), reduction="batchmean"
                )
                hard = nn.functional.cross_entropy(output, y[batch])
                step(optimizer, share * warm**2 * soft + (1 - share) * hard, net)
            with torch.no_grad():
                yield (net(x_val).argmax(1) != y_val).float().mean().item()

    return reported(task, trial, epochs())
