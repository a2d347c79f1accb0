"""The held-out duel: networks that were written apart (`python -m benchmarks.duel --held-out`).

They are the held-out networks of the range tests, and two whose width, depth and dropout are searched too. Every task
has seeds of its own, so that a lucky sequence of random points helps a peer on one task only.

No rule of the sampler had seen them at first. Since then they were among those that were read for the ladder's steps
(`lr_lean`, `ladder_replay`) and for the first look at the weight decay (`decay_and_rate`), and some rules were judged
here, too.
"""

from pathlib import Path

from torch import nn

from benchmarks.duel.tasks import Parts
from benchmarks.duel.tasks import Task
from benchmarks.duel.tasks import mlp
from benchmarks.range_test_nets import Part
from benchmarks.range_test_nets import existing
from benchmarks.range_test_nets import load_nets
from benchmarks.range_test_nets import table

SLOW = ("held-cifar-resnet",)  # seconds a training, where the others take tenths
SEARCHED_BATCH = ("held-mlp", "held-imbalanced", "held-adam-tanh")


def any_cnn(width: int, depth: int, dropout: float) -> nn.Module:
    """Return a convolutional network of `depth` layers for one-channel images of 14x14, an eighth of `width` wide."""
    layers: list[nn.Module] = []
    channels = max(2, width // 8)
    for i in range(depth):
        layers += [nn.Conv2d(channels if i else 1, channels, 3, stride=2 if i < 2 else 1, padding=1), nn.ReLU()]
    head = [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(dropout), nn.Linear(4 * channels, 10)]
    return nn.Sequential(*layers, *head)


def any_table_net(width: int, depth: int, dropout: float) -> nn.Module:
    """Return a perceptron with BatchNorm for a table of 16 columns and 10 classes."""
    return mlp(16, 10, width, depth, norm=True, drop=dropout)


def load_held_out_tasks(data_root: Path | None = None) -> tuple[dict[str, Task], list[str]]:
    """Return the tasks by name, and a line for each that is skipped."""
    nets, skipped = load_nets(data_root)
    tasks = []
    for net in nets.values():
        if net.held_out and net.name not in SLOW:
            parts = _halved(*net.data(data_root))
            batch_size = None if net.name in SEARCHED_BATCH else net.batch_size
            tasks.append(Task(net.name, parts, net.build, net.epochs, batch_size, net.optimizer))
    for name, load in (("held-any-cnn", _any_cnn), ("held-any-table", _any_table)):
        try:
            tasks.append(load(data_root))
        except (OSError, RuntimeError, ImportError) as error:
            skipped.append(f"{name}: {error}")
    return {task.name: task for task in tasks}, [line for line in skipped if line.startswith("held-")]


def _any_cnn(root: Path | None) -> Task:
    from torchvision.datasets import FashionMNIST

    data = FashionMNIST(str(existing(root)), train=True, download=False)
    chosen = slice(16_000, 20_000)
    images = nn.functional.avg_pool2d(data.data[chosen, None].float(), 2)
    images = (images - images.mean()) / images.std()
    targets = data.targets[chosen]
    cuts = (slice(2000), slice(2000, 3000), slice(3000, None))
    parts = tuple((images[cut], targets[cut]) for cut in cuts)
    return Task("held-any-cnn", parts, any_cnn, 6, batch_size=None, architecture=True)


def _any_table(root: Path | None) -> Task:
    parts = _halved(*table("penbased", 1500, 3500)(root))
    return Task("held-any-table", parts, any_table_net, 8, batch_size=None, architecture=True)


def _halved(train: Part, rest: Part) -> Parts:
    """Return the training part and two halves of the rest, validation and test."""
    half = len(rest[1]) // 2
    return train, (rest[0][:half], rest[1][:half]), (rest[0][half:], rest[1][half:])
