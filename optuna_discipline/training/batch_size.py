"""Batch sizes (Smith 2018, section 4.1): the largest that fits the device, and how fast each one is."""

import math
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from optuna_discipline.exceptions import DisciplineError
from optuna_discipline.training.arguments import as_count
from optuna_discipline.training.arguments import as_number
from optuna_discipline.training.memory import free_memory
from optuna_discipline.training.memory import try_in_child
from optuna_discipline.training.optimizers import OptimizerKind
from optuna_discipline.training.ranks import of_each_rank
from optuna_discipline.training.ranks import without_ranks
from optuna_discipline.training.sized_step import UPDATES
from optuna_discipline.training.sized_step import SizedStep
from optuna_discipline.training.sized_step import load_all_of_torch
from optuna_discipline.training.sized_step import wait_for
from optuna_discipline.training.step import LossFn
from optuna_discipline.training.step import Step
from optuna_discipline.training.update import Amp


def largest_batch_size(
    model: nn.Module,
    sample: Any,
    loss_fn: LossFn | None = None,
    *,
    low: int = 2,
    high: int = 65_536,
    tolerance: float = 0.05,
    memory_limit: int | None = None,
    optimizer: OptimizerKind = "sgd",
    amp: Amp = None,
    channels_last: bool = False,
    step: Step | None = None,
    device: torch.device | str | None = None,
) -> int:
    """Return the largest batch size with which a training step fits into the device's memory.

    The paper takes the largest one that fits, because a 1cycle of a large learning rate regularises enough already
    (section 4.1); whether it is the best at equal time is another question, see `samples_per_second`. Sizes are doubled
    until one fails and then bisected; each is tried by two updates of an optimizer of its own. To find n takes some
    log2(n) + 4 sizes and as long as a training on 15 n samples, on a CPU by one thread: minutes for a large model; a
    lower `high` saves most. The model, a given optimizer, all buffers, modes and random generators are left exactly as
    they are, and the memory is given back. Of a DistributedDataParallel (called on every rank) each rank tries the
    module inside, and the least of their answers is that of all.

    On a CPU (Linux) every size is tried in a child process under a memory limit, so that neither an allocation that
    fails nor the kernel can hurt this one. No other thread should train meanwhile, since a fork copies only the
    calling one, and torch refuses to train in such a child after a training on a GPU or a backward pass of a compiled
    model in this process: search before it. On a GPU the sizes are tried here and the device's own out-of-memory error
    counts.

    Args:
        model: Any module, on the device or not.
        sample: A batch of one sample or more, such as `next(iter(loader))`; its samples are repeated. Tensors whose
            first dimension are the samples, and lists of one each (texts, images, dicts), in any tuple or dict; what
            holds no tensor and is of another length stays as it is.
        loss_fn: Called as `loss_fn(output, target)`; None squares the output, which has to be one tensor.
        low: Size to start with; 2, because BatchNorm cannot train on one sample.
        high: Largest size to try, at least `low`.
        tolerance: The bisection ends when the next failing size is at most this share larger; 0 is exact.
        memory_limit: Bytes that the training may take beyond what is in use now; None is nine tenths of what is free:
            of the GPU, or the least of machine, control group and RLIMIT_AS. Watched on CPU and CUDA; on a CPU by
            address space, where what this process has freed but not given back counts as in use and may be taken too.
        optimizer: What the training will use, see
            `optuna_discipline.training.optimizers.build_optimizer`; its buffers count.
        amp: "bf16" or "fp16" mixed precision.
        channels_last: Whether the model and its images take torch's channels_last layout.
        step: A hook that knows what a batch is, see `optuna_discipline.training.step.default_step`.
        device: Where to train; None is where the model is. The model goes back to where it was.

    Raises:
        ValueError: If an argument breaks its rule, or the sample cannot be repeated.
        DisciplineError: If not even `low` fits, nothing can be trained, a step crashes the child or takes it more than
            10 minutes, or the CPU search runs on another system than Linux, after a training that keeps torch from
            training in a child, or under a limit that leaves torch itself no room.

    >>> model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))
    >>> sample = (torch.randn(1, 64), torch.tensor([3]))
    >>> largest_batch_size(model, sample, nn.CrossEntropyLoss(), high=64)
    64
    """
    low = as_count("low", low)
    high = as_count("high", high, low=low, cure="It is the largest size to try.")
    tolerance = as_number("tolerance", tolerance)
    if memory_limit is not None:
        memory_limit = as_count("memory_limit", memory_limit, cure="It counts bytes.")
    alone = without_ranks(model)  # ranks try different sizes: none may wait for another
    trial = SizedStep.of(alone, sample, loss_fn, optimizer, amp, channels_last, step, device)
    load_all_of_torch()
    free = free_memory(trial.device) if memory_limit is None else memory_limit
    if trial.device.type != "cpu":
        found = search_largest(lambda size: trial.fits_here(size, free, smaller_fits=size > low), low, high, tolerance)
    elif sys.platform != "linux" or free is None:
        raise DisciplineError(
            f"The search for a batch size on a CPU needs Linux, which can limit a child's memory, not {sys.platform}."
        )
    else:
        found = search_largest(_fits_in_child(trial, free), low, high, tolerance)
    found = int(min(of_each_rank(model, found or 0, trial.device)))
    if found == 0:
        room = "" if free is None else f" into {free / 2**20:,.0f} MiB"
        raise DisciplineError(f"Not even a batch of `low` = {low} fits{room}: make the model or `low` smaller.")
    return found


def samples_per_second(
    model: nn.Module,
    sample: Any,
    batch_size: int,
    loss_fn: LossFn | None = None,
    *,
    seconds: float = 0.5,
    optimizer: OptimizerKind = "sgd",
    amp: Amp = None,
    channels_last: bool = False,
    step: Step | None = None,
    device: torch.device | str | None = None,
) -> float:
    """Return how many samples a training processes in a second at a batch size, data loading and evaluation left out.

    Batch sizes are compared at equal time: `epochs_at_equal_time(epochs, 1 / fast, 1 / slow)` of two of these. The
    model, a given optimizer, all buffers, modes and random generators are left exactly as they are. They are copied
    first, what the model keeps as attributes too: a large table or a list of many tensors costs its memory once more.
    With a DistributedDataParallel (called on every rank) it is one rank's samples, at the mean time of all.

    Args:
        model: Any module, on the device or not.
        sample: A batch of one sample or more; its samples are repeated.
        batch_size: Samples of a batch.
        loss_fn: As in `largest_batch_size`.
        seconds: How long to measure, after two updates to warm up; above 0. The median of at least three updates
            counts.
        optimizer: What the training will use, see `optuna_discipline.training.optimizers.build_optimizer`.
        amp: "bf16" or "fp16" mixed precision.
        channels_last: Whether the model and its images take torch's channels_last layout.
        step: A hook that knows what a batch is, see `optuna_discipline.training.step.default_step`.
        device: Where to train; None is where the model is. The model goes back to where it was.

    Raises:
        ValueError: If an argument breaks its rule, or the sample cannot be repeated.
        DisciplineError: If nothing can be trained.

    >>> model = nn.Linear(64, 10)
    >>> sample = (torch.randn(1, 64), torch.tensor([3]))
    >>> samples_per_second(model, sample, 64, nn.CrossEntropyLoss(), seconds=0.01) > 0
    True
    """
    batch_size = as_count("batch_size", batch_size)
    seconds = as_number("seconds", seconds, low_open=True)
    trial = SizedStep.of(model, sample, loss_fn, optimizer, amp, channels_last, step, device)
    durations: list[float] = []

    def timed(update: Callable[[], object]) -> None:
        for _ in range(UPDATES):
            update()
        wait_for(trial.device)
        while len(durations) < 3 or sum(durations) < seconds:
            start = time.perf_counter()
            update()
            wait_for(trial.device)
            times = of_each_rank(model, time.perf_counter() - start, trial.device)
            durations.append(sum(times) / len(times))

    with trial.everything_kept():
        trial.run(batch_size, timed)
    return batch_size / sorted(durations)[len(durations) // 2]


def _fits_in_child(trial: SizedStep, limit: int) -> Callable[[int], bool]:
    """Return what tells whether a size fits, and if its step does not end, which one has fitted."""
    fitted = 0

    def fits(size: int) -> bool:
        nonlocal fitted
        cure = (
            f"lower `high`, for instance to {fitted}, which fits" if fitted else "lower `low`, or take a faster model"
        )
        if try_in_child(lambda: trial.run(size), limit, cure=cure, smaller_fits=fitted > 0) != "fits":
            return False
        fitted = size
        return True

    return fits


def search_largest(fits: Callable[[int], bool], low: int, high: int, tolerance: float) -> int | None:
    """Return the largest size from `low` to `high` that fits, by doubling and then bisection; None if `low` does not.

    >>> search_largest(lambda size: size <= 1000, low=2, high=65_536, tolerance=0)
    1000
    """
    if not fits(low):
        return None
    good, bad = low, high + 1
    while good < high and bad > high:
        size = min(2 * good, high)
        if fits(size):
            good = size
        else:
            bad = size
    while bad - good > max(1, math.floor(tolerance * good)):
        middle = (good + bad) // 2
        if fits(middle):
            good = middle
        else:
            bad = middle
    return good
