"""Learning-rate finders of the field, each run from its own package with its own defaults.

`pip install torch-lr-finder fastai lightning pytorch-ignite` brings them all; a package that is not there is left out.
All sweep the training loss over 100 updates from their own smallest to their own largest rate (torch-lr-finder and
ignite start from the optimizer's, here 1e-7, as their documentation does), with the network, the data, the optimizer
and the momentum that ours gets.
"""

import contextlib
import io
import logging
import math
import os
import tempfile
import warnings
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader
from torch.utils.data import TensorDataset

from benchmarks.range_test_nets import Net
from benchmarks.range_test_nets import Part
from benchmarks.range_test_nets import loss_fn
from benchmarks.range_test_runs import MOMENTUM
from benchmarks.range_test_runs import WEIGHT_DECAY
from benchmarks.range_test_runs import build
from benchmarks.range_test_runs import total_steps
from optuna_discipline import LrChoice
from optuna_discipline import RangeTest
from optuna_discipline import find_lr
from optuna_discipline import lr_range_test

TEST_MOMENTUM, STEPS, SMALLEST = 0.9, 100, 1e-7
FIXED = {"sgd": 0.1, "adamw": 3e-3, "adam": 3e-3}
Found = dict[str, Any]


def our_curve(net: Net, data: tuple[Part, Part], seed: int) -> RangeTest:
    """Return the range test that a user would run: validation loss, 100 updates, all defaults."""
    return lr_range_test(
        build(net, seed),
        loss_fn,
        *data,
        optimizer=net.optimizer,
        batch_size=net.batch_size,
        weight_decay=WEIGHT_DECAY,
        seed=seed,
        planned_steps=total_steps(net, data),
    )


def our_probes(net: Net, data: tuple[Part, Part], seed: int) -> LrChoice:
    """Return what `find_lr` says."""
    return find_lr(
        net.build,
        loss_fn,
        *data,
        epochs=net.epochs,
        momentum=MOMENTUM,
        weight_decay=WEIGHT_DECAY,
        optimizer=net.optimizer,
        batch_size=net.batch_size,
        seed=seed,
    )


def fastai(net: Net, data: tuple[Part, Part], seed: int) -> Found:
    """Return fastai's four suggestions, all read from one curve."""
    from fastai.callback import schedule  # noqa: F401  # gives the learner `lr_find`
    from fastai.callback.schedule import minimum
    from fastai.callback.schedule import slide
    from fastai.callback.schedule import steep
    from fastai.callback.schedule import valley
    from fastai.data.core import DataLoaders
    from fastai.learner import Learner
    from fastai.optimizer import OptimWrapper

    counter = _Counter()
    loaders = DataLoaders(_loader(net, data, seed), DataLoader(TensorDataset(*data[1]), 256))
    learner = Learner(
        loaders,
        build(net, seed),
        loss_func=loss_fn,
        opt_func=lambda params, lr, **_: OptimWrapper(opt=counter.watch(_optimizer(net, _flat(params), lr))),
        path=tempfile.mkdtemp(),
    )
    with learner.no_bar():
        got = learner.lr_find(show_plot=False, suggest_funcs=(minimum, steep, valley, slide))
    return {f"fastai {name}": _found(getattr(got, name), counter.count) for name in got._fields}


def lightning(net: Net, data: tuple[Part, Part], seed: int) -> Found:
    """Return Lightning's suggestion."""
    import lightning.pytorch as pl
    from lightning.pytorch.tuner import Tuner

    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    counter = _Counter()

    class Module(pl.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.net, self.lr = build(net, seed), 1e-3

        def training_step(self, batch: Any, _: int) -> torch.Tensor:
            return loss_fn(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            return counter.watch(_optimizer(net, self.net.parameters(), self.lr))

    with tempfile.TemporaryDirectory() as folder:
        trainer = pl.Trainer(
            accelerator="cpu",
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            max_epochs=1000,
            default_root_dir=folder,
        )
        got = Tuner(trainer).lr_find(Module(), train_dataloaders=_loader(net, data, seed))
    return {"Lightning": _found(None if got is None else got.suggestion(), counter.count)}


def torch_lr_finder(net: Net, data: tuple[Part, Part], seed: int) -> Found:
    """Return torch-lr-finder's suggestion, the steepest point of the smoothed curve."""
    os.environ.setdefault("MPLBACKEND", "Agg")
    from matplotlib import pyplot
    from torch_lr_finder import LRFinder

    counter, model = _Counter(), build(net, seed)
    finder = LRFinder(model, counter.watch(_optimizer(net, model.parameters(), SMALLEST)), loss_fn, device="cpu")
    finder.range_test(_loader(net, data, seed), end_lr=10, num_iter=STEPS)
    got = finder.plot()
    pyplot.close("all")
    return {"torch-lr-finder": _found(got[1] if isinstance(got, tuple) else None, counter.count)}


def ignite(net: Net, data: tuple[Part, Part], seed: int) -> Found:
    """Return ignite's suggestion."""
    from ignite.engine import create_supervised_trainer
    from ignite.handlers import FastaiLRFinder

    counter, model = _Counter(), build(net, seed)
    optimizer = counter.watch(_optimizer(net, model.parameters(), SMALLEST))
    trainer, finder = create_supervised_trainer(model, optimizer, loss_fn), FastaiLRFinder()
    with finder.attach(trainer, to_save={"model": model, "optimizer": optimizer}, num_iter=STEPS) as attached:
        attached.run(_loader(net, data, seed))
    return {"ignite": _found(finder.lr_suggestion(), counter.count)}


PACKAGES: dict[str, Callable[[Net, tuple[Part, Part], int], Found]] = {
    "fastai": fastai,
    "lightning": lightning,
    "torch_lr_finder": torch_lr_finder,
    "ignite": ignite,
}
NAMES = {
    "fastai": ("fastai valley", "fastai slide", "fastai steep", "fastai minimum"),
    "lightning": ("Lightning",),
    "torch_lr_finder": ("torch-lr-finder",),
    "ignite": ("ignite",),
}


def foreign(package: str, net: Net, data: tuple[Part, Part], seed: int) -> Found:
    """Return the suggestions of a package: rate (None where it gave none), updates, and what went wrong."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        with torch.random.fork_rng(devices=[]), _own_folder():
            try:
                return PACKAGES[package](net, data, seed)
            except (RuntimeError, ValueError, IndexError, TypeError) as error:
                return {name: {"lr": None, "updates": STEPS, "error": str(error)[:200]} for name in NAMES[package]}


class _Counter:
    """Counts an optimizer's updates."""

    def __init__(self) -> None:
        self.count = 0

    def watch(self, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
        def add(*_: Any) -> None:
            self.count += 1

        optimizer.register_step_post_hook(add)
        return optimizer


@contextlib.contextmanager
def _own_folder() -> Iterator[None]:
    """Packages leave checkpoints where they run."""
    before = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


def _loader(net: Net, data: tuple[Part, Part], seed: int) -> Any:
    order = torch.Generator().manual_seed(seed)
    return DataLoader(TensorDataset(*data[0]), net.batch_size, shuffle=True, generator=order)


def _optimizer(net: Net, params: Any, lr: float) -> torch.optim.Optimizer:
    if net.optimizer == "sgd":
        return torch.optim.SGD(params, lr=lr, momentum=TEST_MOMENTUM, nesterov=True, weight_decay=WEIGHT_DECAY)
    kind = torch.optim.AdamW if net.optimizer == "adamw" else torch.optim.Adam
    return kind(params, lr=lr, betas=(TEST_MOMENTUM, 0.999), weight_decay=WEIGHT_DECAY)


def _flat(params: Any) -> list[Any]:
    return [p for group in params for p in (_flat(group) if isinstance(group, (list, tuple)) else [group])]


def _found(lr: Any, updates: int) -> Found:
    value = None if lr is None else float(lr)
    return {"lr": value if value is not None and math.isfinite(value) and value > 0 else None, "updates": updates}
