"""Perceptrons on twelve tables, trained by SGD under a cosine: recorded once, then answered by surrogates.

430 random configurations a table: learning rate, momentum, weight decay, batch size, layers, units, dropout. Trees
fitted to the logarithm of their validation errors, epoch by epoch, stand in for the training: a study costs nothing.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer
from sklearn.datasets import load_digits
from sklearn.datasets import make_classification
from sklearn.ensemble import ExtraTreesRegressor
from torch.nn import functional

from benchmarks.result_files import settings
from optuna_discipline.rules.curve import FloatArray

Data = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]

TASKS = ("magic", "optdigits", "penbased", "segment", "texture")  # of the UCI's
TASKS += ("digits", "cancer", "fashion7", "cifar8", "rare", "noisy", "synth")
KEYS = ("lr", "momentum", "weight_decay", "batch_size", "layers", "units", "dropout")
EPOCHS, N_TRAIN, N_VAL = 50, 1500, 700
FEW = {"layers": 2.0, "units": 64.0, "dropout": 0.0}  # what the four-parameter studies hold
FLOOR = 0.002  # error below which nothing is told apart
CANDIDATES = 20_000  # random configurations that say what is best and what is usual


def draw(rng: np.random.Generator, count: int | None = None) -> FloatArray:
    """Return random configurations, shape (7,) or (count, 7), in the order of `KEYS`."""
    columns = [
        10 ** rng.uniform(-4, -1, count),
        rng.uniform(0.1, 0.99, count),
        10 ** rng.uniform(-5, -1, count),
        np.round(2 ** rng.uniform(4, 9, count)),
        rng.integers(1, 5, count),
        np.round(2 ** rng.uniform(4, 8, count)),
        rng.uniform(0, 0.8, count) * rng.choice([0.0, 1.0], count),  # half of the networks have none
    ]
    return np.array(columns, dtype=float).T


def load(name: str, root: Path) -> Data:
    """Return a table: training inputs and classes, validation inputs and classes."""
    x, y = _table(name, root)
    order = np.random.default_rng(7).permutation(len(y))
    n_val = min(N_VAL, len(y) // 3)
    n_train = min(N_TRAIN, len(y) - n_val)
    train, val = order[:n_train], order[n_train : n_train + n_val]
    mean, deviation = x[train].mean(axis=0), x[train].std(axis=0) + 1e-9

    def tensors(rows: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.tensor((x[rows] - mean) / deviation, dtype=torch.float32), torch.tensor(y[rows]).long()

    return (*tensors(train), *tensors(val))


def _table(name: str, root: Path) -> tuple[FloatArray, NDArray[np.int64]]:
    if name == "digits":
        return load_digits(return_X_y=True)  # type: ignore[no-any-return]
    if name == "cancer":
        return load_breast_cancer(return_X_y=True)  # type: ignore[no-any-return]
    if name == "synth":
        return make_classification(  # type: ignore[no-any-return]
            3000, 30, n_informative=8, n_classes=4, n_clusters_per_class=3, flip_y=0.05, random_state=3
        )
    if name == "fashion7":
        from torchvision.datasets import FashionMNIST

        found = FashionMNIST(str(root), download=False)
        images = functional.avg_pool2d(found.data[:4000, None].float(), 4)
        return images.flatten(1).numpy(), found.targets[:4000].numpy()
    if name == "cifar8":
        with np.load(root / "cifar10_small.npz") as file:
            images = torch.tensor(file["x_train"][:4000]).float().permute(0, 3, 1, 2)
            return functional.avg_pool2d(images, 4).flatten(1).numpy(), file["y_train"][:4000].astype(np.int64)
    stored = {"rare": "magic", "noisy": "penbased"}.get(name, name)
    with np.load(root / "tabular" / f"{stored}.npz") as file:
        x, y = file["x_train"], file["y_train"].astype(np.int64)
    if name == "rare":  # one in eleven
        rows = np.r_[np.where(y == 0)[0][:2500], np.where(y == 1)[0][:250]]
        return x[rows], y[rows]
    if name == "noisy":  # a fifth of the labels is drawn anew
        rng = np.random.default_rng(0)
        wrong = rng.random(len(y)) < 0.2
        y[wrong] = rng.integers(0, 10, int(wrong.sum()))
    return x, y


def train(data: Data, config: Mapping[str, float], seed: int) -> list[float]:
    """Return the validation error after each epoch; a run that breaks keeps its last one."""
    x, y, x_val, y_val = data
    draws = torch.Generator().manual_seed(seed)
    sizes = [x.shape[1], *[int(config["units"])] * int(config["layers"]), int(y.max()) + 1]
    weights: list[torch.Tensor] = []
    for n_in, n_out in pairwise(sizes):
        bound = 1 / math.sqrt(n_in)
        for shape in ((n_out, n_in), (n_out,)):
            weights.append(((torch.rand(shape, generator=draws) * 2 - 1) * bound).requires_grad_())
    optimizer = torch.optim.SGD(
        weights, lr=config["lr"], momentum=config["momentum"], weight_decay=config["weight_decay"], foreach=True
    )

    def forward(inputs: torch.Tensor, dropout: float) -> torch.Tensor:
        for i in range(0, len(weights) - 2, 2):
            inputs = functional.relu(functional.linear(inputs, weights[i], weights[i + 1]))
            if dropout > 0:
                inputs = inputs * (torch.rand(inputs.shape, generator=draws) > dropout) / (1 - dropout)
        return functional.linear(inputs, weights[-2], weights[-1])

    batch = min(int(config["batch_size"]), len(y))
    errors: list[float] = []
    for epoch in range(EPOCHS):
        optimizer.param_groups[0]["lr"] = 0.5 * config["lr"] * (1 + math.cos(math.pi * epoch / EPOCHS))
        order, total = torch.randperm(len(y), generator=draws), 0.0
        for rows in order[: len(y) // batch * batch].split(batch):
            optimizer.zero_grad(set_to_none=True)
            loss = functional.cross_entropy(forward(x[rows], config["dropout"]), y[rows])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += loss.item()
        with torch.no_grad():
            errors.append(float((forward(x_val, 0.0).argmax(1) != y_val).float().mean()))
        if not math.isfinite(total):
            return errors + [errors[-1]] * (EPOCHS - len(errors))
    return errors


def record(name: str, root: Path, out: Path, count: int) -> None:
    """Train the configurations of a table that are missing and keep them."""
    path = out / f"{name}.npz"
    configs, curves = [], []
    if path.exists():
        with np.load(path) as file:
            configs, curves = list(file["configs"]), list(file["errors"])
    data = load(name, root)
    for number in range(len(configs), count):
        config = draw(np.random.default_rng([number % 2, number // 2, len(name), ord(name[0])]))
        configs.append(config)
        curves.append(train(data, dict(zip(KEYS, config.tolist(), strict=True)), number // 2))
    out.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part.npz")
    np.savez_compressed(
        part, configs=np.array(configs), errors=np.array(curves, dtype=np.float32), settings=json.dumps(settings())
    )
    part.replace(path)


@dataclass(frozen=True)
class Surrogate:
    """The trees of one table.

    Attributes:
        name: Of the table.
        few: Whether only four parameters are searched, the others held at `FEW`.
        best: Smallest error of 20,000 random configurations.
        middle: Their median error.
    """

    name: str
    few: bool
    trees: Any
    best: float
    middle: float

    def errors(self, config: Mapping[str, float]) -> FloatArray:
        """Return the expected validation error after each epoch, shape (50,)."""
        row = np.array([config[key] for key in KEYS], dtype=float)
        found: FloatArray = np.exp(self.trees.predict(_features(row[None]))[0])
        return found

    def regret(self, error: float) -> float:
        """Return the normalised regret: 0 the best, 1 the median of random configurations."""
        return (error - self.best) / (self.middle - self.best)


def surrogates(name: str, out: Path) -> dict[bool, Surrogate]:
    """Return a table's surrogates: searched by four parameters (True) and by seven (False)."""
    with np.load(out / f"{name}.npz") as file:
        configs, curves = file["configs"], file["errors"].astype(float)
    trees = ExtraTreesRegressor(200, min_samples_leaf=2, max_features=0.7, random_state=0)
    trees.fit(_features(configs), np.log(curves + FLOOR))
    found = {}
    for few in (True, False):
        candidates = draw(np.random.default_rng(1), CANDIDATES)
        if few:
            candidates[:, 4:] = list(FEW.values())
        errors = np.exp(trees.predict(_features(candidates))[:, -1])
        found[few] = Surrogate(name, few, trees, float(errors.min()), float(np.median(errors)))
    return found


def _features(configs: FloatArray) -> FloatArray:
    lr, momentum, decay, batch, layers, units, dropout = configs.T
    rate = np.log(lr / (1 - momentum))
    columns = [np.log(lr), np.log(1 - momentum), rate, rate - np.log(batch), np.log(decay), np.log(batch)]
    return np.column_stack([*columns, layers, np.log(units), dropout])
