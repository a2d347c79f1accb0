"""Trainings and range tests of the range-test benchmark, each made once and kept in a file per network and seed."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.range_test_nets import Net
from benchmarks.range_test_nets import Part
from benchmarks.range_test_nets import loss_fn
from benchmarks.result_files import settings
from benchmarks.result_files import write
from optuna_discipline import OneCycle
from optuna_discipline import train_epochs

MOMENTUM, BASE_MOMENTUM, WEIGHT_DECAY = 0.95, 0.85, 1e-4


def train(net: Net, data: tuple[Part, Part], lr: float, length: float, seed: int) -> float:
    """Train one complete cycle of `length` full trainings up to `lr`; return the validation loss, inf if broken."""
    steps = max(1, round(length * total_steps(net, data)))
    model = build(net, seed)
    cycle = OneCycle(lr, steps, max_momentum=MOMENTUM, base_momentum=BASE_MOMENTUM)
    for log in train_epochs(
        model,
        loss_fn,
        data[0],
        None,
        cycle,
        optimizer=net.optimizer,
        weight_decay=WEIGHT_DECAY,
        batch_size=net.batch_size,
        seed=seed,
    ):
        if log.train_loss is None or not math.isfinite(log.train_loss):
            return math.inf
    return validate(model, data)


def validate(model: nn.Module, data: tuple[Part, Part]) -> float:
    """Return the validation loss, inf if it is no number."""
    model.eval()
    with torch.no_grad():
        loss = loss_fn(model(data[1][0]), data[1][1]).item()
    return loss if math.isfinite(loss) else math.inf


def build(net: Net, seed: int) -> nn.Module:
    """Return the network of a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return net.build()


def total_steps(net: Net, data: tuple[Part, Part]) -> int:
    """Return the updates of a full training."""
    return net.epochs * math.ceil(len(data[0][1]) / net.batch_size)


class Results:
    """What is known of one network and seed: read at the start, written after every step, so that nothing is lost."""

    def __init__(self, folder: Path, net: str, seed: int) -> None:
        self.path = folder / f"{net}-{seed}.json"
        self.known: dict[str, Any] = {"net": net, "seed": seed}
        if self.path.exists():
            self.known = json.loads(self.path.read_text(encoding="utf-8"))

    def get(self, kind: str, key: str, make: Callable[[], Any]) -> Any:
        """Return what is known under `kind` and `key`; make and keep it if nothing is."""
        table = self.known.setdefault(kind, {})
        if key not in table:
            table[key] = make()
            self.known["settings"] = settings()
            write(self.path, self.known)
        return table[key]

    def loss(self, net: Net, data: tuple[Part, Part], lr: float, length: float = 1.0) -> float:
        """Return the final loss of a cycle up to `lr`, trained once."""
        lr = float(f"{lr:.3g}")
        seed = self.known["seed"]
        return float(self.get(f"loss {length:g}", f"{lr:g}", lambda: _json(train(net, data, lr, length, seed))))


def _json(value: float) -> float | str:
    return float(f"{value:.5g}") if math.isfinite(value) else str(value)
