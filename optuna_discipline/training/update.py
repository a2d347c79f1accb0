"""One optimizer update from one or more batches: mixed precision, accumulation, clipping."""

import itertools
import math
from collections.abc import Iterable
from collections.abc import Iterator
from contextlib import AbstractContextManager
from contextlib import nullcontext
from typing import Any
from typing import Literal
from typing import NamedTuple

import torch
from torch import nn

from optuna_discipline.training.arguments import as_choice
from optuna_discipline.training.arguments import as_number
from optuna_discipline.training.batches import Batches
from optuna_discipline.training.batches import n_batches
from optuna_discipline.training.model_tensors import check_inference_mode_left
from optuna_discipline.training.model_tensors import tensors_of
from optuna_discipline.training.step import LossFn
from optuna_discipline.training.step import Step
from optuna_discipline.training.step import check_step
from optuna_discipline.training.step import count_samples
from optuna_discipline.training.step import default_step
from optuna_discipline.training.step import run_step
from optuna_discipline.training.step import samples_of
from optuna_discipline.training.step import to_device

Amp = Literal["bf16", "fp16"] | None


class UpdateResult(NamedTuple):
    """What one update saw.

    Attributes:
        loss_sum: Sum over the samples of the mean loss of their batch, shape (), float32 or wider, on the device.
        n_samples: Number of samples.
    """

    loss_sum: torch.Tensor
    n_samples: int


class Updater:
    """Takes batches and moves the model by one step of its optimizer.

    Args:
        model: The module that is called; a compiled one is allowed.
        loss_fn: Called as `loss_fn(output, target)`.
        optimizer: Its parameters are those that are clipped.
        device: Where batches go.
        step: The forward hook, see `default_step`; None for the default.
        amp: "bf16" or "fp16" (with a gradient scaler), None for full precision.
        clip_norm: Largest norm of the whole gradient, None for no limit.
        channels_last: Whether images are handed over in channels_last.

    Raises:
        ValueError: If an argument breaks its rule.
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fn: LossFn,
        optimizer: torch.optim.Optimizer,
        device: torch.device,
        *,
        step: Step | None = None,
        amp: Amp = None,
        clip_norm: float | None = None,
        channels_last: bool = False,
    ) -> None:
        as_choice("amp", amp, (None, "bf16", "fp16"))
        check_step(step)
        self.model = model
        self.loss_fn = loss_fn
        self.optimizer = optimizer
        self.device = device
        self.step = default_step if step is None else step
        self.amp = amp
        self.clip_norm = None if clip_norm is None else as_number("clip_norm", clip_norm, low_open=True)
        self.channels_last = channels_last
        self.scaler = _new_scaler(device) if amp == "fp16" else None
        self._parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def update(self, window: list[Any]) -> UpdateResult:
        """Make one update from the mean gradient over all samples of `window`, a list of batches.

        With a gradient scaler the update is skipped where a gradient overflowed; `scale` tells.

        Raises:
            ValueError: If the loss is not a single number that depends on the parameters, or nothing has gradients.
        """
        self.optimizer.zero_grad(set_to_none=True)
        sizes = [count_samples(batch) for batch in window]
        loss_sum: torch.Tensor | None = None
        n_samples = 0
        for batch, size in zip(window, sizes, strict=True):
            moved = to_device(batch, self.device, channels_last=self.channels_last)
            with torch.enable_grad(), autocast(self.device, self.amp):
                result = run_step(self.step, self.model, moved, self.loss_fn)
            loss = result.loss
            if not loss.requires_grad:
                check_inference_mode_left()
                raise ValueError("`loss_fn` must return a loss with a gradient: this one depends on no parameter.")
            self._backward(loss if len(window) == 1 else loss * (size / sum(sizes)))
            seen = samples_of(batch, result)
            part = widen(loss.detach()).to(self.device) * seen
            loss_sum = part if loss_sum is None else loss_sum + part
            n_samples += seen
        assert loss_sum is not None
        self._apply()
        return UpdateResult(loss_sum, n_samples)

    @property
    def scale(self) -> float | None:
        """The gradient scaler's factor, which falls when an update was skipped; None without one."""
        return None if self.scaler is None else float(self.scaler.get_scale())

    def _backward(self, loss: torch.Tensor) -> None:
        scaled = loss if self.scaler is None else self.scaler.scale(loss)
        scaled.backward()

    def _apply(self) -> None:
        if self.scaler is not None and self.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
        if self.clip_norm is not None:
            nn.utils.clip_grad_norm_(self._parameters, self.clip_norm)
        if self.scaler is None:
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()


def autocast(device: torch.device, amp: Amp) -> AbstractContextManager[Any]:
    """Return torch's autocast for the device; without `amp` one that does nothing."""
    if amp is None:
        return nullcontext()  # autocast does not know every device, not even when it is off
    return torch.autocast(device.type, dtype=torch.float16 if amp == "fp16" else torch.bfloat16)


def windows(batches: Iterable[Any], accumulate: int) -> Iterator[list[Any]]:
    """Group batches into lists of `accumulate`; the last of a pass may be shorter.

    >>> list(windows("abcde", 2))
    [['a', 'b'], ['c', 'd'], ['e']]
    """
    iterator = iter(batches)
    while window := list(itertools.islice(iterator, accumulate)):
        yield window


def n_updates(batches: Batches, accumulate: int) -> int | None:
    """Return the updates of one pass, None where the number of batches cannot be known beforehand.

    >>> n_updates("abcde", 2)
    3
    """
    length = n_batches(batches)
    return None if length is None else math.ceil(length / accumulate)


def widen(loss: torch.Tensor) -> torch.Tensor:
    """Return the loss in float32 or wider, so that a sum of many does not saturate."""
    return loss.float() if loss.dtype in (torch.float16, torch.bfloat16) else loss


def resolve_device(model: nn.Module, device: torch.device | str | None) -> torch.device:
    """Return the device to train on: the given one, else that of the model's first parameter.

    Raises:
        ValueError: If there is no such device, or it or that of any tensor of the model's is one that does not compute.
    """
    for name, tensor in tensors_of(model):
        if tensor.is_meta:
            raise ValueError(
                f"`model` must be on a device that computes, but its {name!r} is on 'meta': "
                "build all of it on another, as 'cpu'."
            )
    if device is None:
        return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    try:
        one = torch.zeros(1, device=device)
        one.item()
    except (RuntimeError, AssertionError, TypeError, ImportError) as error:
        raise ValueError(
            f"`device` must be one on which torch can compute here, such as 'cpu', but got {device!r}: {error}"
        ) from error
    return one.device


def _new_scaler(device: torch.device) -> Any:
    if hasattr(torch.amp, "GradScaler"):
        return torch.amp.GradScaler(device.type)
    return torch.cuda.amp.GradScaler()  # torch 2.2
