"""A few updates of a model with batches of any size, made from one sample: what a search for batch sizes tries."""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from contextlib import ExitStack
from contextlib import contextmanager
from dataclasses import dataclass
from operator import length_hint  # 0 of what has no length, an array () too
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

from optuna_discipline.exceptions import DisciplineError
from optuna_discipline.rules.arguments import is_number
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

    Within the batch, a list as long as there are samples holds one each, and a tuple holds parts. What has no tensor
    stays as it is where it is a text, a number, a tuple of numbers or of another length than the batch.

    Raises:
        ValueError: If a tensor has another length, samples cannot be repeated, or a list could be read both ways.

    >>> repeat_samples((torch.tensor([1, 2]), ["a", "b"]), 3)
    (tensor([1, 2, 1]), ['a', 'b', 'a'])
    """
    map_leaves(batch, _check_leaf)
    lists = are_lists_of_samples(batch)
    n = len(batch[0]) if lists else _count(batch)
    index = torch.arange(size, device="cpu") % n
    if not lists:
        return _take(batch, index, n, whole=True)
    parts = [_take(p, index, n) if isinstance(p, torch.Tensor) else [p[i] for i in index.tolist()] for p in batch]
    return type(batch)(*parts) if hasattr(batch, "_fields") else type(batch)(parts)


def _check_leaf(leaf: Any) -> Any:
    kind = "a PackedSequence" if isinstance(leaf, PackedSequence) else ""
    if isinstance(leaf, torch.Tensor) and (leaf.is_nested or leaf.layout != torch.strided):
        kind = "a nested tensor" if leaf.is_nested else f"a tensor with {leaf.layout}"
    if kind:
        raise ValueError(
            f"`sample` must hold plain tensors, whose samples can be repeated, but got {kind}: give it padded or "
            "dense, and pack or convert it in `step`."
        )
    return leaf


def _count(batch: Any) -> int:
    """Return the length of the tensors that stand in no list; of lists alone, that of all in them, or their own."""
    _check_not_zipped(batch)
    columns = _columns(batch, whole=True)
    lengths = {length_hint(part) for part in columns if isinstance(part, torch.Tensor)}
    if not lengths:
        lists = [part for part in columns if tensors_in(part)]
        own = {len(part) for part in lists}
        texts = {len(part) for part in columns if not tensors_in(part)}
        if not own & texts and not any(isinstance(x, Mapping) for part in lists for x in part):
            lengths = {length_hint(tensor) for tensor in tensors_in(lists)}
        lengths = lengths if len(lengths) == 1 else own
    if len(lengths) != 1 or 0 in lengths:
        shapes = [tuple(tensor.shape) for tensor in tensors_in(batch)]
        raise ValueError(
            "`sample` must be a batch whose tensors all have the samples as their first dimension, or lists of as many "
            f"samples, but has shapes {shapes}: give a single sample one with x[None], samples of other shapes "
            "in lists, not tuples."
        )
    return lengths.pop()


def _check_not_zipped(batch: Any) -> None:
    """Refuse a batch of tuples of one sample each, such as `tuple(zip(*samples))`: a tuple holds parts."""
    sides = [p for p in batch if isinstance(p, (tuple, list))] if isinstance(batch, (tuple, list)) else []
    with_tensors = {len(side) for side in sides if tensors_in(side)}
    without = {len(side) for side in sides if not tensors_in(side)}
    if len(sides) == len(batch) and with_tensors & without and any(isinstance(side, tuple) for side in sides):
        raise ValueError(
            "`sample` must hold lists of one sample each, not tuples, whose items are parts of the batch: give "
            "tuple(map(list, sample))."
        )


def _columns(nested: Any, *, whole: bool = False) -> list[Any]:
    """Return the tensors and lists of a batch, those in its dicts and tuples too, and its tuples of texts."""
    if isinstance(nested, Mapping) or (whole and isinstance(nested, list)) or _are_parts(nested):
        parts = nested.values() if isinstance(nested, Mapping) else nested
        return [column for part in parts for column in _columns(part)]
    return [nested] if isinstance(nested, (torch.Tensor, tuple, list)) else []


def _are_parts(nested: Any) -> bool:
    """Return whether something is a tuple, other than one of texts, each of which is a sample."""
    if not isinstance(nested, tuple):
        return False
    return hasattr(nested, "_fields") or bool(tensors_in(nested)) or all(map(is_number, nested))


def _take(part: Any, index: torch.Tensor, n_samples: int, *, whole: bool = False) -> Any:
    fits = length_hint(part) == n_samples
    if isinstance(part, torch.Tensor) and fits:
        return part[index.to(part.device)]
    if isinstance(part, Mapping):
        return {key: _take(value, index, n_samples) for key, value in part.items()}
    if not whole and fits and n_samples > 1 and type(part) is tuple and all(map(is_number, part)):
        raise ValueError(
            f"`sample` must not hold a tuple of as many numbers as its {n_samples} samples, which could be one of each "
            "as well as the batch's own: make it a list or a tensor, or give another number of samples."
        )
    if whole or _are_parts(part) or (isinstance(part, list) and tensors_in(part) and not _are_samples(part, n_samples)):
        items = [_take(item, index, n_samples) for item in part]
        return type(part)(*items) if hasattr(part, "_fields") else type(part)(items)
    if isinstance(part, (tuple, list)) and fits:
        return type(part)(part[i] for i in index.tolist())
    if isinstance(part, (str, bytes)) or not (fits or isinstance(part, torch.Tensor)):
        return part
    shape = getattr(part, "shape", None)
    cure = f"give one of {n_samples}" if not fits else "make it a list" if shape is None else "make it a tensor"
    raise ValueError(
        f"`sample` must hold its {n_samples} samples in tensors or lists of that length, but got {type(part).__name__} "
        f"of {f'length {n_samples}' if shape is None else f'shape {tuple(shape)}'}: {cure}."
    )


def _are_samples(part: list[Any], n_samples: int) -> bool:
    """Return whether a list with tensors holds one sample each, and is no parts that hold all samples each."""
    if len(part) != n_samples:
        return False
    if any(isinstance(x, Mapping) for x in part) or {length_hint(x) for x in tensors_in(part)} != {n_samples}:
        return True
    if n_samples > 1 and all(isinstance(x, torch.Tensor) for x in part):
        raise ValueError(
            f"`sample` must not hold a list of {n_samples} tensors whose length is {n_samples}, too, which could be "
            "that many samples as well as inputs of all samples: give another number of samples."
        )
    return False


def _mean_square(output: torch.Tensor, _target: torch.Tensor) -> torch.Tensor:
    if not isinstance(output, torch.Tensor):
        raise ValueError(f"`loss_fn` must be given where the model returns no tensor, but {type(output).__name__}.")
    return output.float().square().mean()


def load_all_of_torch() -> None:
    """Make torch import what it imports at an optimizer's first step: no child shall pay for it, nor count it.

    Raises:
        DisciplineError: If there is no memory for that.
    """
    parameter = nn.Parameter(torch.zeros(1, device="cpu"))
    parameter.grad = torch.zeros(1, device="cpu")
    try:
        torch.optim.SGD([parameter], lr=0.0).step()
    except MemoryError as error:
        raise DisciplineError(
            "Memory ran out as torch loaded what an optimizer needs: raise the limit of the process (`ulimit -v`, "
            "RLIMIT_AS) by 200 MiB, or begin anew without one and give `memory_limit`."
        ) from error


def wait_for(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
