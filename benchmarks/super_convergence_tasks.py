"""What the super-convergence benchmark trains: resnets, CIFAR-10 in augmented batches, the author's step policy."""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn


@dataclass(frozen=True)
class Steps:
    """A constant learning rate that falls to a tenth at 5/8 and again at 7/8 of the run, as in the author's logs."""

    max_lr: float
    total_steps: int
    fixed_momentum: float = 0.9

    def lr(self, step: int) -> float:
        """Return the learning rate of update `step`."""
        return self.max_lr * 0.1 ** sum(step >= share * self.total_steps for share in (5 / 8, 7 / 8))

    def momentum(self, _step: int) -> float:
        """Return the momentum, which is constant."""
        return self.fixed_momentum


class Augmented:
    """Batches of images in a new order every epoch, each shifted by up to an eighth of its side and flipped or not.

    Args:
        x: Images (n, c, h, w) on the device.
        y: Targets (n,).
        batch_size: Samples of a batch; the rest of an epoch is left out.
        seed: Fixes order and augmentation.
    """

    def __init__(self, x: torch.Tensor, y: torch.Tensor, batch_size: int, seed: int) -> None:
        self.x, self.y, self.batch_size = x, y, batch_size
        self.margin = max(1, x.shape[-1] // 8)
        self.padded = nn.functional.pad(x, (self.margin,) * 4)
        self.generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return len(self.y) // self.batch_size

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        order = torch.randperm(len(self.y), generator=self.generator)
        for batch in order[: len(self) * self.batch_size].split(self.batch_size):
            shift = torch.randint(0, 2 * self.margin + 1, (2, len(batch), 1), generator=self.generator)
            side = torch.arange(self.x.shape[-1])
            flip = torch.rand(len(batch), 1, generator=self.generator) < 0.5
            rows, columns = side + shift[0], torch.where(flip, side.flip(0), side) + shift[1]
            index = (batch[:, None, None], rows[:, :, None], columns[:, None, :])
            picked = self.padded.permute(0, 2, 3, 1)[tuple(part.to(self.x.device) for part in index)]
            yield picked.permute(0, 3, 1, 2).contiguous(), self.y[batch.to(self.y.device)]


class ConvBlock(nn.Module):
    """The basic block of a resnet for small images."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False),
            nn.BatchNorm2d(n_out),
            nn.ReLU(),
            nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False),
            nn.BatchNorm2d(n_out),
        )
        same = n_in == n_out and stride == 1
        self.past = nn.Identity() if same else nn.Conv2d(n_in, n_out, 1, stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the block's output, (n, n_out, h / stride, w / stride)."""
        return torch.relu(self.past(x) + self.inner(x))


def build(depth: int, width: int, n_in: int) -> nn.Module:
    """Return a resnet of 6 n + 2 layers in three stages, as for CIFAR-10.

    Raises:
        ValueError: If there is no such depth.
    """
    if depth < 8 or (depth - 2) % 6:
        raise ValueError(f"`depth` must be 6 n + 2 (8, 20, 56, 110), but got {depth=}.")
    layers: list[nn.Module] = [nn.Conv2d(n_in, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    now = width
    for stage in range(3):
        for block in range((depth - 2) // 6):
            wide = width * 2**stage
            layers.append(ConvBlock(now, wide, 2 if stage and not block else 1))
            now = wide
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(now, 10))


def load(arguments: argparse.Namespace, device: torch.device) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return the train, validation and test parts, scaled, on the device.

    CIFAR-10 is torchvision's folder, or where that is absent the file `cifar10_small.npz`. Of the training
    images `val_samples` are cut off for validation and `samples` of the others used.
    """
    x, y, x_test, y_test = (torch.as_tensor(np.asarray(array)) for array in _cifar(arguments.data_root))
    x, x_test = (_pooled(part, arguments.pool) for part in (x, x_test))
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    val, train = order[: arguments.val_samples], order[arguments.val_samples :][: arguments.samples]
    mean, sd = x[train].mean(dim=(0, 2, 3), keepdim=True), x[train].std(dim=(0, 2, 3), keepdim=True)
    scaled = {"train": (x[train], y[train]), "val": (x[val], y[val]), "test": (x_test, y_test)}
    return {name: (((a - mean) / sd).to(device), b.long().to(device)) for name, (a, b) in scaled.items()}


def _pooled(x: torch.Tensor, side: int) -> torch.Tensor:
    return nn.functional.avg_pool2d(x.float() / 255, side) if side > 1 else x.float() / 255


def _cifar(root: Path) -> tuple[Any, ...]:
    if (Path(root) / "cifar-10-batches-py").exists() or not (Path(root) / "cifar10_small.npz").exists():
        from torchvision.datasets import CIFAR10

        train, test = (CIFAR10(str(root), train=part, download=False) for part in (True, False))
        parts = [train.data, train.targets, test.data, test.targets]
    else:
        with np.load(Path(root) / "cifar10_small.npz") as data:
            parts = [data[name] for name in ("x_train", "y_train", "x_test", "y_test")]
    return parts[0].transpose(0, 3, 1, 2), parts[1], parts[2].transpose(0, 3, 1, 2), parts[3]
