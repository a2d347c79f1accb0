"""Four studies of other architectures: a U-Net, an LSTM, leaky neurons that spike, a Kolmogorov-Arnold network."""

import math
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import torch
from optuna import Trial
from sklearn import datasets
from torch import nn
from torch import optim
from torch.nn import functional

from benchmarks.spaces.objectives import characters
from benchmarks.spaces.training import BROKEN
from benchmarks.spaces.training import SpaceTask
from benchmarks.spaces.training import Trained
from benchmarks.spaces.training import finite
from benchmarks.spaces.training import load
from benchmarks.spaces.training import reported
from benchmarks.spaces.training import shuffled
from benchmarks.spaces.training import step

SIGMA = 0.15  # of the noise on the patches to validate
State = tuple[torch.Tensor, torch.Tensor]


@cache
def patches() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return grey 16x16 patches of scikit-learn's two photographs: to train, to validate, and the latter with noise."""
    rng = np.random.default_rng(0)
    found = []
    for photo in datasets.load_sample_images().images:
        grey = photo[::2, ::2].mean(2) / 255
        for _ in range(120):
            i, j = rng.integers(grey.shape[0] - 16), rng.integers(grey.shape[1] - 16)
            found.append(grey[i : i + 16, j : j + 16])
    x = torch.tensor(np.array(found)[rng.permutation(240), None], dtype=torch.float32)
    noise = torch.randn(80, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    return x[:128], x[160:], x[160:] + SIGMA * noise


class UNet(nn.Module):
    """Down and up once, with or without the way across (Ronneberger and others 2015)."""

    def __init__(self, channels: int, skip: bool) -> None:
        super().__init__()
        c = channels
        self.first = nn.Sequential(nn.Conv2d(1, c, 3, padding=1), nn.ReLU())
        self.down = nn.Sequential(nn.Conv2d(c, 2 * c, 3, stride=2, padding=1), nn.ReLU())
        self.inner = nn.Sequential(nn.Conv2d(2 * c, 2 * c, 3, padding=1), nn.ReLU())
        self.up = nn.ConvTranspose2d(2 * c, c, 2, stride=2)
        self.last = nn.Conv2d(2 * c if skip else c, 1, 3, padding=1)
        self.skip = skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return an image."""
        first = self.first(x)
        up = self.up(self.inner(self.down(first))).relu()
        image: torch.Tensor = self.last(torch.cat([first, up], 1) if self.skip else up)
        return image


def unet(task: SpaceTask, trial: Trial) -> Trained:
    """A U-Net takes the noise from patches of photographs; the PSNR in decibels, to maximise."""
    learning_rate = trial.suggest_float("learning_rate", 1e-5, 1e-1, log=True)
    base_channels = trial.suggest_categorical("base_channels", [2, 4, 8])
    loss_fn = trial.suggest_categorical("loss_fn", ["mse", "l1", "charbonnier"])
    use_skip = trial.suggest_categorical("use_skip", [False, True])
    predict_noise = trial.suggest_categorical("predict_noise", [False, True])
    batch_size = trial.suggest_categorical("batch_size", [16, 32, 64])
    train_sigma = trial.suggest_float("train_sigma", 0.05, 0.5)
    x, x_val, noisy_val = patches()
    net = UNet(base_channels, use_skip)
    optimizer = optim.Adam(net.parameters(), learning_rate, fused=True)

    def clean(noisy: torch.Tensor) -> torch.Tensor:
        image: torch.Tensor = noisy - net(noisy) if predict_noise else net(noisy)
        return image

    def epochs() -> Iterator[float]:
        for _ in range(task.epochs):
            for batch in shuffled(len(x), batch_size):
                off = clean(x[batch] + train_sigma * torch.randn_like(x[batch])) - x[batch]
                by_name = {"mse": off**2, "l1": off.abs(), "charbonnier": (off**2 + 1e-6).sqrt()}
                step(optimizer, by_name[loss_fn].mean(), net)
            with torch.no_grad():
                error = ((clean(noisy_val) - x_val) ** 2).mean().item()
                yield 1 + 10 * math.log10(max(min(finite(error), 1e3), 1e-9))  # told is 1 less this: the PSNR

    return reported(task, trial, epochs())


@cache
def streams() -> tuple[torch.Tensor, torch.Tensor, int]:
    """Return scikit-learn's descriptions as 20 streams of characters to train, 10 to validate, and how many kinds."""
    codes, kinds = characters("iris", "wine")
    share = round(0.8 * len(codes))
    train, val = codes[:share], codes[share:]
    return train[: len(train) // 20 * 20].view(20, -1), val[: len(val) // 10 * 10].view(10, -1), kinds


class Lstm(nn.Module):
    """An LSTM whose last layer may be its first one, transposed."""

    def __init__(self, kinds: int, size: int, tied: bool, drops: tuple[float, float]) -> None:
        super().__init__()
        self.first = nn.Embedding(kinds, size)
        self.body = nn.LSTM(size, size, batch_first=True)
        self.last = nn.Linear(size, kinds)
        nn.init.uniform_(self.first.weight, -0.1, 0.1)
        if tied:
            self.last.weight = self.first.weight
        self.drops = drops

    def forward(self, x: torch.Tensor, state: State | None = None) -> tuple[torch.Tensor, torch.Tensor, State]:
        """Return the logits, the hidden states, and the state after the last character."""
        inner = functional.dropout(self.first(x), self.drops[0], self.training)
        hidden, state = self.body(inner, state)
        logits: torch.Tensor = self.last(functional.dropout(hidden, self.drops[1], self.training))
        return logits, hidden, state


def awd_lstm(task: SpaceTask, trial: Trial) -> Trained:
    """A language model in the words of AWD-LSTM (Merity and others 2018), SGD at rates of tens; bits per character."""
    lr = trial.suggest_float("lr", 0.1, 100.0, log=True)
    clip = trial.suggest_float("clip", 0.05, 2.0, log=True)
    nhid = trial.suggest_int("nhid", 16, 64, step=8)
    bptt = trial.suggest_int("bptt", 8, 40)
    dropouti = trial.suggest_float("dropouti", 0.0, 0.6)
    dropout = trial.suggest_float("dropout", 0.0, 0.6)
    wdecay = trial.suggest_float("wdecay", 1e-8, 1e-3, log=True)
    beta = trial.suggest_float("beta", 0.0, 3.0)
    tied = trial.suggest_categorical("tied", [True, False])
    train, val, kinds = streams()
    net = Lstm(kinds, nhid, tied, (dropouti, dropout))
    optimizer = optim.SGD(net.parameters(), lr, weight_decay=wdecay)

    def epochs() -> Iterator[float]:
        for _ in range(task.epochs):
            net.train()
            state = None
            for start in range(0, train.shape[1] - 1, bptt):
                y = train[:, start + 1 : start + bptt + 1]
                logits, hidden, (h, c) = net(train[:, start : start + y.shape[1]], state)
                state = h.detach(), c.detach()
                slow = beta * (hidden[:, 1:] - hidden[:, :-1]).pow(2).mean() if hidden.shape[1] > 1 else 0.0
                step(optimizer, functional.cross_entropy(logits.flatten(0, 1), y.flatten()) + slow, net, clip)
            net.eval()
            with torch.no_grad():
                logits = net(val[:, :-1])[0]
                yield finite(functional.cross_entropy(logits.flatten(0, 1), val[:, 1:].flatten()).item() / math.log(2))

    return reported(task, trial, epochs())


class Spike(torch.autograd.Function):
    """A step forward, a fast sigmoid's slope backward (Zenke and Ganguli 2018)."""

    @staticmethod
    def forward(ctx: Any, above: torch.Tensor, slope: float) -> torch.Tensor:
        """Return 1 where a potential is above its threshold."""
        ctx.save_for_backward(above)
        ctx.slope = slope
        return (above > 0).float()

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Return the gradient of the potential."""
        (above,) = ctx.saved_tensors
        return grad / (1 + ctx.slope * above.abs()) ** 2, None


def spiking(task: SpaceTask, trial: Trial) -> Trained:
    """A net of leaky neurons in snnTorch's words; its error."""
    num_steps = trial.suggest_int("num_steps", 2, 6)
    beta = trial.suggest_float("beta", 0.3, 0.99)
    threshold = trial.suggest_float("threshold", 0.2, 2.0)
    slope = trial.suggest_float("slope", 1.0, 100.0, log=True)
    num_hidden = trial.suggest_int("num_hidden", 32, 128, log=True)
    lr = trial.suggest_float("lr", 1e-5, 1e-1, log=True)
    encoding = trial.suggest_categorical("encoding", ["rate", "direct"])
    reset = trial.suggest_categorical("reset_mechanism", ["subtract", "zero"])
    x, y, x_val, y_val = load("digits")
    first, last = nn.Linear(64, num_hidden), nn.Linear(num_hidden, 10)
    net = nn.ModuleList([first, last])
    optimizer = optim.Adam(net.parameters(), lr, fused=True)

    def potentials(images: torch.Tensor) -> torch.Tensor:
        v, u, total = torch.zeros(len(images), num_hidden), torch.zeros(len(images), 10), torch.zeros(len(images), 10)
        for _ in range(num_steps):
            inputs = (torch.rand_like(images) < images).float() if encoding == "rate" else images
            v = beta * v + first(inputs)
            spikes = Spike.apply(v - threshold, slope)
            v = v - threshold * spikes.detach() if reset == "subtract" else v * (1 - spikes.detach())
            u = beta * u + last(spikes)
            total = total + u
        return total / num_steps

    def epochs() -> Iterator[float]:
        for _ in range(task.epochs):
            for batch in shuffled(len(y), 96):
                step(optimizer, functional.cross_entropy(potentials(x[batch]), y[batch]), net)
            with torch.no_grad():
                yield (potentials(x_val).argmax(1) != y_val).float().mean().item()

    return reported(task, trial, epochs())


@cache
def surface() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return 450 places, a function of their three coordinates there, and the same with noise."""
    rng = np.random.default_rng(0)
    x = torch.tensor(rng.uniform(-1, 1, (450, 3)), dtype=torch.float32)
    clean = torch.exp(torch.sin(math.pi * x[:, 0]) + x[:, 1] ** 2) + x[:, 2]
    y = (clean - clean.mean()) / clean.std()
    return x, y, y + torch.tensor(0.2 * rng.normal(size=450), dtype=torch.float32)


class Kan(nn.Module):
    """A layer of a Kolmogorov-Arnold network on radial bases (Li 2024)."""

    def __init__(self, n: int, m: int, grid: int) -> None:
        super().__init__()
        self.places = torch.linspace(-2, 2, grid)
        self.width = 4 / (grid - 1)
        self.spline, self.base = nn.Linear(n * grid, m, bias=False), nn.Linear(n, m)
        nn.init.normal_(self.spline.weight, std=0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return shape (k, m) for shape (k, n)."""
        bases = torch.exp(-(((x[..., None] - self.places) / self.width) ** 2)).flatten(1)
        out: torch.Tensor = self.spline(bases) + self.base(functional.silu(x))
        return out


def kan(task: SpaceTask, trial: Trial) -> Trained:
    """A KAN by L-BFGS on the whole data, as pykan does; what is no number is pruned; the root mean squared error."""
    grid = trial.suggest_int("grid", 3, 20)
    lamb = trial.suggest_float("lamb", 1e-8, 1e-1, log=True)
    lr = trial.suggest_float("lr", 1e-4, 2.0, log=True)
    x, y, noisy = surface()
    layers = Kan(3, 4, grid), Kan(4, 1, grid)
    net = nn.Sequential(*layers)
    optimizer = optim.LBFGS(net.parameters(), lr, max_iter=8, history_size=10)

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        sparse = sum(layer.spline.weight.abs().sum() for layer in layers)
        value: torch.Tensor = ((net(x[:150])[:, 0] - noisy[:150]) ** 2).mean() + lamb * sparse
        torch.autograd.backward(value)
        return value

    value = math.nan
    for number in range(task.epochs):
        optimizer.step(loss)
        with torch.no_grad():
            value = ((net(x[150:])[:, 0] - y[150:]) ** 2).mean().sqrt().item()
        if not math.isfinite(value):
            return Trained(BROKEN, (number + 1) / task.epochs, True)
        trial.report(value, number)
        if trial.should_prune():
            return Trained(value, (number + 1) / task.epochs, True)
    return Trained(value, 1.0, False)


ARCHITECTURES = (
    SpaceTask("unet", training=unet, epochs=5, maximize=True),
    SpaceTask("awd-lstm", training=awd_lstm, epochs=4),
    SpaceTask("spiking", training=spiking, epochs=4),
    SpaceTask("kan", training=kan, epochs=8),
)
