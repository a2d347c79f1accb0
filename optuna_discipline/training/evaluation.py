"""Loss and accuracy on data that is not trained on; the model's modes and buffers come back as they were."""

from collections.abc import Iterable
from functools import partial
from typing import Any
from typing import NamedTuple

import torch
from torch import nn

from optuna_discipline.exceptions import DisciplineError
from optuna_discipline.training.modes import keep_modes
from optuna_discipline.training.ranks import over_ranks
from optuna_discipline.training.ranks import without_ranks
from optuna_discipline.training.step import LossFn
from optuna_discipline.training.step import Step
from optuna_discipline.training.step import count_answers
from optuna_discipline.training.step import count_samples
from optuna_discipline.training.step import default_step
from optuna_discipline.training.step import run_step
from optuna_discipline.training.step import samples_of
from optuna_discipline.training.step import to_device
from optuna_discipline.training.update import Amp
from optuna_discipline.training.update import autocast
from optuna_discipline.training.update import widen

_NORM_LAYERS = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)


class Evaluation(NamedTuple):
    """Losses of an evaluation.

    Attributes:
        loss: Mean over the samples; NaN and inf allowed.
        accuracy: Share classified rightly, in [0, 1]; None where the task is no classification. Targets of -100 do not
            count, as in torch's cross-entropy.
    """

    loss: float
    accuracy: float | None


def evaluate(
    model: nn.Module,
    batches: Iterable[Any],
    loss_fn: LossFn,
    *,
    device: torch.device,
    step: Step | None = None,
    amp: Amp = None,
    channels_last: bool = False,
    accuracy: bool | None = None,
) -> Evaluation:
    """Evaluate in eval mode and without gradients, with one synchronisation at the end.

    Args:
        model: Its modules' modes are restored, each its own.
        batches: Any iterable of batches.
        loss_fn: Called as `loss_fn(output, target)`.
        device: Where batches go.
        step: The forward hook, None for `default_step`.
        amp: As in `train_epochs`.
        channels_last: As in `train_epochs`.
        accuracy: None counts it where the task is a classification; True demands it; False leaves it out.

    Raises:
        ValueError: If the loss is no single number, or `accuracy=True` where it cannot be counted.
        DisciplineError: If there is no batch.
    """
    with keep_modes(model):
        model.eval()
        return _pass_over(model, batches, loss_fn, device, step or default_step, amp, channels_last, accuracy)


def evaluate_with_batch_statistics(
    model: nn.Module,
    batches: Iterable[Any],
    loss_fn: LossFn,
    *,
    device: torch.device,
    step: Step | None = None,
    amp: Amp = None,
) -> float:
    """Return the loss in eval mode, but with normalisation by the batch's own statistics.

    Running averages lag behind a learning rate that rises at every step: they put the edge of networks with
    BatchNorm 2.8 times lower, with 1.5 to 1.8 times the noise. Layers that were frozen (in eval mode) stay so, a batch
    of one sample uses the averages, and the averages themselves come back unchanged. A SyncBatchNorm takes this rank's
    own statistics: it would wait for ranks that may have fewer batches. One whose `forward` is not torch's (a subclass,
    a hook in its place) is called as it is.

    Raises:
        ValueError: If the loss is no single number.
        DisciplineError: If there is no batch.
    """
    norms = [module for module in model.modules() if isinstance(module, _NORM_LAYERS) and module.training]
    buffers = [(buffer, buffer.clone()) for norm in norms for buffer in norm.buffers(recurse=False)]
    synchronised = [norm for norm in norms if isinstance(norm, nn.SyncBatchNorm)]
    alone = [norm for norm in synchronised if getattr(norm.forward, "__func__", None) is nn.SyncBatchNorm.forward]
    hook = step or default_step

    def batch_step(model: nn.Module, batch: Any, loss_fn: LossFn) -> Any:
        for norm in norms:
            norm.train(count_samples(batch) > 1)
        return hook(model, batch, loss_fn)

    with keep_modes(model):
        model.eval()
        try:
            for norm in alone:
                vars(norm)["forward"] = partial(nn.modules.batchnorm._BatchNorm.forward, norm)
            return _pass_over(model, batches, loss_fn, device, batch_step, amp, False, False).loss
        finally:
            for norm in alone:
                del vars(norm)["forward"]
            with torch.no_grad():
                for buffer, before in buffers:
                    buffer.copy_(before)


def _pass_over(
    model: nn.Module,
    batches: Iterable[Any],
    loss_fn: LossFn,
    device: torch.device,
    step: Step,
    amp: Amp,
    channels_last: bool,
    accuracy: bool | None,
) -> Evaluation:
    loss_sum, answers, n_samples = torch.zeros((), device=device), torch.zeros(2, device=device), 0
    countable = accuracy is not False
    for batch in batches:
        moved = to_device(batch, device, channels_last=channels_last)
        with torch.no_grad(), autocast(device, amp):
            result = run_step(step, without_ranks(model), moved, loss_fn)
        size = samples_of(batch, result)
        loss_sum = loss_sum + widen(result.loss).to(device) * size
        n_samples += size
        found = count_answers(result) if countable else None
        if found is None and accuracy:
            raise ValueError("`accuracy=True` needs outputs of shape (n, classes) and integer targets (n,): pass None.")
        countable = countable and found is not None
        answers = answers if found is None else answers + found.to(device)
    sums, n_samples = over_ranks(model, torch.cat([loss_sum[None], answers.to(loss_sum.dtype)]), n_samples)
    if n_samples == 0:
        raise DisciplineError("There is no batch to evaluate on.")
    loss, right, asked = sums.tolist()
    return Evaluation(loss / n_samples, right / asked if countable and asked else None)
