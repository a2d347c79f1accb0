"""Ten studies as other fields write them: their names, their losses, and what they train."""

from collections.abc import Iterator
from functools import cache

import numpy as np
import torch
from optuna import Trial
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import log_loss
from torch import nn
from torch import optim

from benchmarks.spaces.training import Setup
from benchmarks.spaces.training import SpaceTask
from benchmarks.spaces.training import Trained
from benchmarks.spaces.training import finite
from benchmarks.spaces.training import load
from benchmarks.spaces.training import mlp
from benchmarks.spaces.training import optimizer_of
from benchmarks.spaces.training import reported
from benchmarks.spaces.training import shuffled
from benchmarks.spaces.training import step
from benchmarks.spaces.two_networks import adversaries
from benchmarks.spaces.two_networks import distillation
from benchmarks.spaces.two_networks import fine_tuning


def one_cycle(trial: Trial) -> Setup:
    """Every number of PyTorch's OneCycleLR."""
    lr, start = trial.suggest_float("max_lr", 1e-4, 10, log=True), trial.suggest_float("pct_start", 0.05, 0.6)
    div, final = (
        trial.suggest_float("div_factor", 2, 100, log=True),
        trial.suggest_float("final_div_factor", 10, 1e5, log=True),
    )
    low, high = trial.suggest_float("base_momentum", 0.7, 0.9), trial.suggest_float("max_momentum", 0.85, 0.99)
    decay, size = (
        trial.suggest_float("weight_decay", 1e-6, 1e-1, log=True),
        trial.suggest_categorical("batch_size", [32, 64, 128]),
    )
    net = nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(256, 10),
    )
    optimizer = optimizer_of("SGD", net, lr, momentum=high, weight_decay=decay)

    def schedule(of: optim.Optimizer, steps: int) -> optim.lr_scheduler.LRScheduler:
        return optim.lr_scheduler.OneCycleLR(
            of,
            lr,
            steps + 1,
            pct_start=start,
            div_factor=div,
            final_div_factor=final,
            base_momentum=min(low, high),
            max_momentum=high,
        )

    return Setup(net, optimizer, size, scheduler=schedule)


def plateau(task: SpaceTask, trial: Trial) -> Trained:
    """SGD whose rate falls when the validation loss stands still."""
    lr, momentum = trial.suggest_float("lr", 1e-5, 1.0, log=True), trial.suggest_float("momentum", 0.0, 0.99)
    factor, wait = trial.suggest_float("lr_factor", 0.1, 0.9), trial.suggest_int("lr_patience", 0, 5)
    least, nesterov = (
        trial.suggest_float("min_lr", 1e-8, 1e-4, log=True),
        trial.suggest_categorical("nesterov", [True, False]),
    )
    decay, size = (
        trial.suggest_float("weight_decay", 1e-6, 1e-1, log=True),
        trial.suggest_int("batch_size", 16, 256, log=True),
    )
    x, y, x_val, y_val = load("diabetes")
    net = mlp([10, 64, 64, 1])
    optimizer = optim.SGD(net.parameters(), lr, momentum, weight_decay=decay, nesterov=nesterov and momentum > 0)
    scheduler = optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=factor, patience=wait, min_lr=least)

    def epochs() -> Iterator[float]:
        for _ in range(task.epochs):
            for batch in shuffled(len(y), size):
                step(optimizer, nn.functional.mse_loss(net(x[batch]).squeeze(1), y[batch]), net)
            with torch.no_grad():
                value = finite(nn.functional.mse_loss(net(x_val).squeeze(1), y_val).item())
            scheduler.step(value)
            yield value

    return reported(task, trial, epochs())


def physics(task: SpaceTask, trial: Trial) -> Trained:
    """A differential equation, u'' = -9 sin 3x, and its ends: the distance to the solution, which no loss shows."""
    lr, weight = trial.suggest_float("lr", 1e-5, 1e-1, log=True), trial.suggest_float("lambda_bc", 1e-2, 1e3, log=True)
    act = {"tanh": nn.Tanh, "silu": nn.SiLU, "gelu": nn.GELU}[
        trial.suggest_categorical("activation", ["tanh", "silu", "gelu"])
    ]
    layers, width = trial.suggest_int("num_layers", 1, 4), trial.suggest_int("hidden_dim", 8, 64)
    count, gamma = (
        trial.suggest_int("n_collocation", 16, 128, log=True),
        trial.suggest_float("lr_decay", 0.9, 1.0),
    )
    net = mlp([1, *[width] * layers, 1], act=act)
    optimizer = optimizer_of("Adam", net, lr)
    scheduler = optim.lr_scheduler.ExponentialLR(optimizer, gamma)
    ends, asked = torch.tensor([[0.0], [2.0]]), torch.linspace(0, 2, 101)[:, None]

    def epochs() -> Iterator[float]:
        for _ in range(task.epochs):
            for _ in range(30):
                x = (2 * torch.rand(count, 1)).requires_grad_()
                (first,) = torch.autograd.grad(net(x).sum(), x, create_graph=True)
                (second,) = torch.autograd.grad(first.sum(), x, create_graph=True)
                inner = ((second + 9 * torch.sin(3 * x)) ** 2).mean()
                step(optimizer, inner + weight * ((net(ends) - torch.sin(3 * ends)) ** 2).mean(), net)
            scheduler.step()
            with torch.no_grad():
                yield finite(((net(asked) - torch.sin(3 * asked)) ** 2).mean().sqrt().item())

    return reported(task, trial, epochs())


def variational(task: SpaceTask, trial: Trial) -> Trained:
    """A variational autoencoder of digits; the evidence bound of the validation data, whatever beta trained it."""
    lr, size = (
        trial.suggest_float("lr", 1e-5, 1e-1, log=True),
        trial.suggest_categorical("batch_size", [16, 32, 64, 128]),
    )
    latent, hidden = trial.suggest_int("latent_dim", 2, 32), trial.suggest_int("hidden_dim", 32, 256, log=True)
    beta, rise = trial.suggest_float("beta", 0.1, 10, log=True), trial.suggest_int("kl_warmup_epochs", 0, 6)
    x, _, x_val, _ = load("digits")
    encoder, decoder = mlp([64, hidden, 2 * latent]), mlp([latent, hidden, 64])
    net = nn.Sequential(encoder, decoder)
    optimizer = optimizer_of("Adam", net, lr)

    def bound(inputs: torch.Tensor, of_kl: float) -> torch.Tensor:
        mean, log_var = encoder(inputs).chunk(2, 1)
        code = mean + (0.5 * log_var).exp() * torch.randn_like(mean)
        apart = nn.functional.binary_cross_entropy_with_logits(decoder(code), inputs, reduction="sum")
        return (apart + of_kl * 0.5 * (mean**2 + log_var.exp() - 1 - log_var).sum()) / len(inputs)

    def epochs() -> Iterator[float]:
        for epoch in range(task.epochs):
            for batch in shuffled(len(x), size):
                step(optimizer, bound(x[batch], beta * min(1.0, (epoch + 1) / (rise + 1))), net)
            with torch.no_grad():
                yield finite(bound(x_val, 1.0).item())

    return reported(task, trial, epochs())


@cache
def series() -> torch.Tensor:
    """Return a noisy chaotic series (Mackey and Glass 1977)."""
    rng = np.random.default_rng(0)
    values = list(1.2 + 0.1 * rng.normal(size=18))
    for _ in range(1500):
        values.append(values[-1] + 0.2 * values[-18] / (1 + values[-18] ** 10) - 0.1 * values[-1])
    return torch.tensor(np.array(values[100:]) + 0.02 * rng.normal(size=len(values) - 100), dtype=torch.float32)


def forecast(task: SpaceTask, trial: Trial) -> Trained:
    """The value six steps ahead, by a recurrent network; its window is searched, too."""
    past, hidden = trial.suggest_int("lookback", 4, 40), trial.suggest_int("hidden_size", 8, 48)
    layers, drop = trial.suggest_int("num_layers", 1, 2), trial.suggest_float("dropout", 0.0, 0.5)
    kind, lr = (
        trial.suggest_categorical("optimizer", ["Adam", "RMSprop", "SGD"]),
        trial.suggest_float("lr", 1e-5, 1e-1, log=True),
    )
    size = trial.suggest_categorical("batch_size", [16, 32, 64, 128])
    values = series()
    windows = values.unfold(0, 46, 2)
    x, y = windows[:, 40 - past : 40, None], windows[:, 45]
    share = round(0.7 * len(y))
    recurrent = nn.GRU(1, hidden, layers, batch_first=True, dropout=drop if layers > 1 else 0)
    out = nn.Linear(hidden, 1)
    net = nn.ModuleList([recurrent, out])
    optimizer = optimizer_of(kind, net, lr)

    def loss(part: torch.Tensor | slice) -> torch.Tensor:
        return nn.functional.mse_loss(out(recurrent(x[part])[0][:, -1]).squeeze(1), y[part])

    def epochs() -> Iterator[float]:
        for _ in range(task.epochs):
            net.train()
            for batch in shuffled(share, size):
                step(optimizer, loss(batch), net, 1.0)
            net.eval()
            with torch.no_grad():
                yield finite(loss(slice(share + 23, None)).sqrt().item())

    return reported(task, trial, epochs())


@cache
def ratings() -> tuple[torch.Tensor, torch.Tensor]:
    """Return pairs of user and item, and ratings of 1 to 5 from eight hidden tastes."""
    rng = np.random.default_rng(0)
    users, items = rng.normal(size=(200, 8)), rng.normal(size=(150, 8))
    pairs = np.unique(rng.integers(0, (200, 150), (9000, 2)), axis=0)
    rng.shuffle(pairs)
    score = 3.4 + 0.35 * (users[pairs[:, 0]] * items[pairs[:, 1]]).sum(1) + 0.3 * rng.normal(size=len(pairs))
    return torch.tensor(pairs), torch.tensor(np.clip(np.round(score), 1, 5), dtype=torch.float32)


def factors(task: SpaceTask, trial: Trial) -> Trained:
    """Matrix factorisation by plain SGD on single ratings' sums, names as in Surprise."""
    count, deviation = (
        trial.suggest_int("n_factors", 2, 64, log=True),
        trial.suggest_float("init_std_dev", 1e-3, 1.0, log=True),
    )
    lr, decay = trial.suggest_float("lr_all", 1e-5, 0.5, log=True), trial.suggest_float("reg_all", 1e-4, 1.0, log=True)
    pairs, y = ratings()
    share = round(0.7 * len(y))
    tables = nn.ModuleList([nn.Embedding(n, d) for n, d in ((200, count), (150, count), (200, 1), (150, 1))])
    for number, table in enumerate(tables):
        nn.init.normal_(table.weight, 0, deviation if number < 2 else 0)
    optimizer = optimizer_of("SGD", tables, lr)

    def apart(part: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        parts = [table(pairs[part, number % 2]) for number, table in enumerate(tables)]
        score = 3.4 + (parts[0] * parts[1]).sum(1) + (parts[2] + parts[3]).squeeze(1)
        return ((y[part] - score) ** 2).sum(), sum((p**2).sum() for p in parts)

    def epochs() -> Iterator[float]:
        for _ in range(task.epochs):
            for batch in shuffled(share, 16):
                errors, norms = apart(batch)
                step(optimizer, errors + decay * norms, tables)
            with torch.no_grad():
                yield finite((apart(torch.arange(share, len(y)))[0] / (len(y) - share)).sqrt().item())

    return reported(task, trial, epochs())


def boosting(_: SpaceTask, trial: Trial) -> Trained:
    """Gradient-boosted trees: no network, a learning rate of another kind, and no reports."""
    model = HistGradientBoostingClassifier(
        learning_rate=trial.suggest_float("learning_rate", 1e-3, 1.0, log=True),
        max_iter=trial.suggest_int("max_iter", 10, 100, log=True),
        max_leaf_nodes=trial.suggest_int("max_leaf_nodes", 4, 64, log=True),
        min_samples_leaf=trial.suggest_int("min_samples_leaf", 1, 50, log=True),
        l2_regularization=trial.suggest_float("l2_regularization", 1e-6, 10.0, log=True),
        max_features=trial.suggest_float("max_features", 0.2, 1.0),
        early_stopping=False,
        random_state=trial.number,
    )
    x, y, x_val, y_val = (part.numpy() for part in load("breast_cancer"))
    return Trained(finite(log_loss(y_val, model.fit(x, y).predict_proba(x_val))), 1.0, False)


FIELDS = (
    SpaceTask("one-cycle", one_cycle),
    SpaceTask("fine-tuning", training=fine_tuning),
    SpaceTask("adversaries", training=adversaries),
    SpaceTask("plateau", training=plateau, data="diabetes", epochs=20),
    SpaceTask("physics", training=physics, epochs=10),
    SpaceTask("variational", training=variational),
    SpaceTask("forecast", training=forecast, epochs=6),
    SpaceTask("factors", training=factors),
    SpaceTask("boosting", training=boosting),
    SpaceTask("distillation", training=distillation),
)
