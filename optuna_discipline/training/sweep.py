"""The sweep of a range test: updates at rising rates, evaluations between them, and when to stop."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import field
from typing import Any

import numpy as np
import torch

from optuna_discipline.exceptions import RangeTestError
from optuna_discipline.rules.curve import FloatArray
from optuna_discipline.rules.curve import noise_sd
from optuna_discipline.rules.range_test import RangeTest
from optuna_discipline.training.batches import Batches
from optuna_discipline.training.batches import as_batches
from optuna_discipline.training.batches import is_one_shot
from optuna_discipline.training.evaluation import evaluate_with_batch_statistics
from optuna_discipline.training.optimizers import set_hyperparams
from optuna_discipline.training.ranks import over_ranks
from optuna_discipline.training.step import count_samples
from optuna_discipline.training.step import to_device
from optuna_discipline.training.update import Updater
from optuna_discipline.training.update import windows

_VAL_BATCH_SIZE = 256
_FIRST = 10  # updates that together say where the training loss started
_PATIENCE = 3  # evaluations in a row above the level of divergence
_MAX_SKIPS = 10  # updates in a row that the gradient scaler skipped
_LEAST_SCALE = 2.0**-16  # until the first update: a fresh scaler halves its 2**16 at every skip, some far below 1


@dataclass
class Sweep:
    """One sweep in progress: the curves so far and the level from which it counts as diverged.

    Attributes:
        updater: Makes the updates.
        lrs: Rate of each planned update, shape (n,).
        momenta: Momentum of each, shape (n,); None leaves it as it is.
        subset: Validation batches on the device, None to watch the training loss.
        val_every: Updates between two evaluations.
        train_loss: Loss of the batches of each update made.
        val_loss: Validation loss after each update made, NaN where not evaluated.
        initial_loss: Loss before any update.
    """

    updater: Updater
    lrs: FloatArray
    momenta: FloatArray | None
    subset: list[Any] | None
    val_every: int
    train_loss: list[float] = field(default_factory=list)
    val_loss: list[float] = field(default_factory=list)
    initial_loss: float | None = None
    _best: float = math.inf
    _above: int = 0

    def run(self, data: Iterator[list[Any]]) -> str:
        """Make the updates; return why they ended."""
        skips, index = 0, 0
        if self.subset is not None:
            self.initial_loss = self._evaluate()
        while index < len(self.lrs):
            window = next(data, None)
            if window is None and index == 0:
                raise RangeTestError("`train` is empty: there is no batch to train on.")
            if window is None:
                return "no more data"
            momentum = None if self.momenta is None else float(self.momenta[index])
            set_hyperparams(self.updater.optimizer, lr=float(self.lrs[index]), momentum=momentum)
            loss, skipped = self._update(window)
            if skipped and math.isfinite(loss):
                skips += 1
                searching = not self.train_loss and (self.updater.scale or 0.0) >= _LEAST_SCALE
                if skips >= _MAX_SKIPS and not searching:
                    return "diverged"
                continue
            skips = 0
            if self._note(index, loss):
                return "non-finite loss"
            if self._above >= _PATIENCE:
                return "diverged"
            index += 1
        return "end of range"

    def record(self, stop_reason: str, n_steps: int, planned_steps: int | None, settings: dict[str, Any]) -> RangeTest:
        """Return what was recorded as a frozen record."""
        done = len(self.train_loss)
        return RangeTest(
            lrs=self.lrs[:done],
            train_loss=np.array(self.train_loss),
            val_loss=None if self.subset is None else np.array(self.val_loss),
            stop_reason=stop_reason,
            initial_loss=self.initial_loss,
            n_steps=n_steps,
            planned_steps=planned_steps,
            settings=settings,
        )

    def _update(self, window: list[Any]) -> tuple[float, bool]:
        """Make one update; return the mean loss of its samples and whether the scaler skipped it, of all ranks."""
        scale = self.updater.scale
        result = self.updater.update(window)
        skipped = scale is not None and (self.updater.scale or 0.0) < scale
        sums = torch.stack([result.loss_sum, result.loss_sum.new_tensor(float(skipped))])
        sums, n_samples = over_ranks(self.updater.model, sums, result.n_samples)
        loss_sum, skips = sums.tolist()
        return loss_sum / n_samples, skips > 0

    def _note(self, index: int, loss: float) -> bool:
        """Record one update and its evaluation; return whether a loss stopped being a number."""
        self.train_loss.append(loss)
        if self.initial_loss is None:
            self.initial_loss = loss
        evaluated = math.nan
        if self.subset is None:
            self._watch(float(np.median(self.train_loss[-5:])))
        elif math.isfinite(loss) and ((index + 1) % self.val_every == 0 or index + 1 == len(self.lrs)):
            evaluated = self._evaluate()
            self._watch(evaluated)
            if not math.isfinite(evaluated):
                self.val_loss.append(evaluated)
                return True
        self.val_loss.append(evaluated)
        return not math.isfinite(loss)

    def _watch(self, loss: float) -> None:
        """Count evaluations in a row that stand clearly above the untrained loss, in units of what was gained."""
        start, noise = self.initial_loss, 0.0
        if self.subset is None:  # one batch's loss is noise: the first ones together, at rates that do nothing yet
            start, noise = float(np.median(self.train_loss[:_FIRST])), noise_sd(self.train_loss)
        if start is None or not math.isfinite(start):
            return
        self._best = min(self._best, loss)
        level = start + max(start - self._best, 0.5 * abs(start)) + 3 * noise
        self._above = 0 if loss <= level else self._above + 1

    def _evaluate(self) -> float:
        assert self.subset is not None
        updater = self.updater
        return evaluate_with_batch_statistics(
            updater.model, self.subset, updater.loss_fn, device=updater.device, step=updater.step, amp=updater.amp
        )


def fixed_subset(val: Any, max_samples: int, seed: int | None, device: torch.device) -> list[Any]:
    """Return the first validation batches, on the device, that hold `max_samples` or all there are."""
    batches = as_batches(
        val, batch_size=min(_VAL_BATCH_SIZE, max_samples), shuffle=True, seed=seed, device=device, name="val"
    )
    subset: list[Any] = []
    n_samples = 0
    for batch in batches:
        subset.append(to_device(batch, device))
        n_samples += count_samples(batch)
        if n_samples >= max_samples:
            break
    if not subset:
        raise RangeTestError("`val` is empty: there is no batch to evaluate on.")
    return subset


def endless(batches: Batches, accumulate: int) -> Iterator[list[Any]]:
    """Pass over the batches again and again until a pass brings nothing."""
    while True:
        empty = True
        for window in windows(batches, accumulate):
            empty = False
            yield window
        if empty or is_one_shot(batches):
            return
