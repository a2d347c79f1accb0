"""Three studies in which many configurations cannot run: the trial raises, is pruned, or returns infinity."""

import math

import torch
from optuna import Trial
from torch import nn

from benchmarks.spaces.training import ImpossibleError
from benchmarks.spaces.training import Setup
from benchmarks.spaces.training import SpaceTask
from benchmarks.spaces.training import mlp
from benchmarks.spaces.training import optimizer_of

MOST_WEIGHTS, MOST_OF_A_BATCH = 200_000, 80_000


def memory(trial: Trial) -> Setup:
    """A wide range of sizes, of which the larger half does not fit; the middle of the upper end does not."""
    width, layers = trial.suggest_int("width", 16, 1024, log=True), trial.suggest_int("layers", 1, 6)
    size, lr = (
        trial.suggest_categorical("batch_size", [32, 64, 128, 256]),
        trial.suggest_float("lr", 1e-5, 1e-1, log=True),
    )
    drop = trial.suggest_float("dropout", 0.0, 0.6)
    if width * width * layers > MOST_WEIGHTS or size * width * layers > MOST_OF_A_BATCH:
        raise ImpossibleError("out of memory")
    net = mlp([64, *[width] * layers, 10], drop=[drop] * layers)
    return Setup(net, optimizer_of("AdamW", net, lr), size)


class Rows(nn.Module):
    """Attention over the eight rows of an image."""

    def __init__(self, dim: int, heads: int, act: str) -> None:
        super().__init__()
        self.embed = nn.Linear(8, dim)
        self.layer = nn.TransformerEncoderLayer(dim, heads, 2 * dim, 0.0, act, batch_first=True)
        self.head = nn.Linear(8 * dim, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits of shape (n, 10)."""
        logits: torch.Tensor = self.head(self.layer(self.embed(x.view(-1, 8, 8))).flatten(1))
        return logits


def combinations(trial: Trial) -> Setup:
    """Heads that must divide the embedding, and a word that is no activation."""
    dim, heads = trial.suggest_int("embed_dim", 8, 64), trial.suggest_categorical("heads", [1, 2, 4, 8])
    act = trial.suggest_categorical("activation", ["glu", "relu", "gelu"])
    lr, decay = (
        trial.suggest_float("lr", 1e-5, 1e-1, log=True),
        trial.suggest_float("weight_decay", 1e-6, 1e-1, log=True),
    )
    if dim % heads or act == "glu":
        raise ImpossibleError("no such network")
    net = Rows(dim, heads, act)
    return Setup(net, optimizer_of("AdamW", net, lr, weight_decay=decay))


def kernels(trial: Trial) -> Setup:
    """A convolutional network whose kernels and strides leave nothing of an 8x8 image in most configurations."""
    lr, momentum = trial.suggest_float("lr", 1e-4, 1.0, log=True), trial.suggest_float("momentum", 0.5, 0.99)
    layers: list[nn.Module] = [nn.Unflatten(1, (1, 8, 8))]
    side, channels = 8, 1
    for i in range(trial.suggest_int("n_layers", 1, 4)):
        kernel, stride = trial.suggest_int(f"kernel_{i}", 2, 6), trial.suggest_int(f"stride_{i}", 1, 3)
        filters = trial.suggest_int(f"filters_{i}", 4, 32, log=True)
        layers += [nn.Conv2d(channels, filters, kernel, stride), nn.ReLU()]
        side, channels = math.floor((side - kernel) / stride) + 1, filters
        if side < 1:
            raise ImpossibleError("nothing left of the image")
    net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * side**2, 10))
    return Setup(net, optimizer_of("SGD", net, lr, momentum=momentum))


FAILING = (
    SpaceTask("memory", memory, epochs=5, when_impossible="raise"),
    SpaceTask("combinations", combinations, epochs=4, when_impossible="prune"),
    SpaceTask("kernels", kernels, epochs=5, when_impossible="infinity"),
)
