"""A few updates of a model with batches of any size, made from one sample: what a search for batch sizes tries."""

from collections.abc import Callable
from collections.abc import Iterator
from contextlib import ExitStack
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from optuna_discipline.training.memory import give_back
from optuna_discipline.training.memory import try_here
from optuna_discipline.training.modes import start_training
from optuna_discipline.training.optimizers import OptimizerKind
from optuna_discipline.training.optimizers import build_optimizer
from optuna_discipline.training.optimizers import trainable_parameters
from optuna_discipline.training.placement import moved
from optuna_discipline.training.snapshot import preserved
from optuna_discipline.training.step import LossFn
from optuna_discipline.training.step import Step
from optuna_discipline.training.step import are_lists_of_samples
from optuna_discipline.training.step import check_loss_fn
from optuna_discipline.training.step import map_leaves
from optuna_discipline.training.step import tensors_in
from optuna_discipline.training.step import to_device
from optuna_discipline.training.update import Amp
from optuna_discipline.training.update import Updater
from optuna_discipline.training.update import resolve_device

UPDATES = 2  # the first makes the optimizer's buffers, the second peaks


@dataclass(frozen=True)
class SizedStep:
    """A training step whose batch size is chosen at the call.

    Attributes:
        model: Any module.
        sample: A batch of one sample or more.
        loss_fn: Called as `loss_fn(output, target)`.
        optimizer: See `build_optimizer`.
        amp: "bf16", "fp16" or None.
        channels_last: Whether images take that layout.
        step: A hook that knows what a batch is, or None.
        device: Where to train.
        named: Whether the caller named the device.
    """

    model: nn.Module
    sample: Any
    loss_fn: LossFn
    optimizer: OptimizerKind
    amp: Amp
    channels_last: bool
    step: Step | None
    device: torch.device
    named: bool

    @classmethod
    def of(
        cls,
        model: nn.Module,
        sample: Any,
        loss_fn: LossFn | None,
        optimizer: OptimizerKind,
        amp: Amp,
        channels_last: bool,
        step: Step | None,
        device: torch.device | str | None,
    ) -> "SizedStep":
        """Check the arguments that a search shares with a measurement, and return the step.

        Raises:
            ValueError: If an argument breaks its rule, or the sample cannot be repeated.
            DisciplineError: If nothing can be trained.
        """
        trainable_parameters(model)
        if loss_fn is not None:
            check_loss_fn(loss_fn)
        if not tensors_in(sample):
            raise ValueError(
                "`sample` must be a batch of tensors such as `next(iter(loader))` or (x[:1], y[:1]), "
                f"but got {type(sample).__name__} without a tensor."
            )
        repeat_samples(sample, 1)
        target = resolve_device(model, device)
        return cls(
            model, sample, loss_fn or _mean_square, optimizer, amp, channels_last, step, target, device is not None
        )

    def run(self, size: int, updates: Callable[[Callable[[], object]], None] | None = None) -> None:
        """Make two updates with batches of `size`, or what `updates` makes of the update."""
        with moved(self.model, self.loss_fn, self.optimizer, self.device, named=self.named):
            self._run_here(size, updates)

    def _run_here(self, size: int, updates: Callable[[Callable[[], object]], None] | None) -> None:
        if self.channels_last:
            self.model.to(memory_format=torch.channels_last)
        start_training(self.model)
        built = build_optimizer(self.model, self.optimizer, lr=1e-6, momentum=0.9)  # a schedule sets one: its buffer
        updater = Updater(
            self.model,
            self.loss_fn,
            built,
            self.device,
            step=self.step,
            amp=self.amp,
            channels_last=self.channels_last,
        )
        batch = repeat_samples(to_device(self.sample, self.device), size)
        if updates is not None:
            updates(lambda: updater.update([batch]))
            return
        for _ in range(UPDATES):
            updater.update([batch])
        wait_for(self.device)

    def fits_here(self, size: int, limit: int | None, *, smaller_fits: bool = False) -> bool:
        """Tell whether `size` fits, tried in this process; see `is_out_of_memory` for `smaller_fits`."""
        with ExitStack() as stack:
            if try_here(lambda: stack.enter_context(self.everything_kept()), self.device, None) != "fits":
                return False
            return try_here(lambda: self.run(size), self.device, limit, smaller_fits=smaller_fits) == "fits"

    @contextmanager
    def everything_kept(self) -> Iterator[None]:
        """Give back model, optimizer, loss, random generators and memory at the end of the `with` block."""
        given = self.optimizer if isinstance(self.optimizer, torch.optim.Optimizer) else None
        with preserved(self.model, given, self.loss_fn, (), self.device):
            yield
        give_back(self.device)


def repeat_samples(batch: Any, size: int) -> Any:
    """Return a batch of `size` samples, those of `batch` in turn.

    Raises:
        ValueError: If a tensor has no dimension of samples, or none in it, or the tensors differ in it, and the batch
            is no lists of samples either.

    >>> repeat_samples((torch.tensor([1, 2]), torch.tensor([[3], [4]])), 3)[0].tolist()
    [1, 2, 1]
    """
    if are_lists_of_samples(batch):
        index = torch.arange(size, device="cpu") % len(batch[0])
        parts = [_take(p, index) if isinstance(p, torch.Tensor) else [p[i] for i in index.tolist()] for p in batch]
        return type(batch)(*parts) if hasattr(batch, "_fields") else type(batch)(parts)
    lengths = {tensor.shape[0] if tensor.ndim else 0 for tensor in tensors_in(batch)}
    if len(lengths) > 1 or 0 in lengths:
        shapes = [tuple(tensor.shape) for tensor in tensors_in(batch)]
        raise ValueError(
            "`sample` must be a batch whose tensors all have the samples as their first dimension, or lists of samples "
            f"of which one holds dicts, but has shapes {shapes}: give a single sample one with x[None]."
        )
    return _take(batch, torch.arange(size, device="cpu") % max(lengths, default=1))


def _take(batch: Any, index: torch.Tensor) -> Any:
    return map_leaves(batch, lambda part: part[index.to(part.device)] if isinstance(part, torch.Tensor) else part)


def _mean_square(output: torch.Tensor, _target: torch.Tensor) -> torch.Tensor:
    if not isinstance(output, torch.Tensor):
        raise ValueError(f"`loss_fn` must be given where the model returns no tensor, but {type(output).__name__}.")
    return output.float().square().mean()


def load_all_of_torch() -> None:
    """Make torch import what it imports at an optimizer's first step: no child shall pay for it, nor count it."""
    parameter = nn.Parameter(torch.zeros(1, device="cpu"))
    parameter.grad = torch.zeros(1, device="cpu")
    torch.optim.SGD([parameter], lr=0.0).step()


def wait_for(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
