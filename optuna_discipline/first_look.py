"""One look at what `tune` was given, before anything is stored: device, options, data, loss, the model's output."""

import functools
import re
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import optuna

from optuna_discipline._imports import require
from optuna_discipline.exceptions import DisciplineError
from optuna_discipline.losses import compares_each
from optuna_discipline.losses import favours_target
from optuna_discipline.losses import kind_of
from optuna_discipline.objective import Metric
from optuna_discipline.rules.arguments import is_count
from optuna_discipline.rules.range_test import RangeTest
from optuna_discipline.rules.recipe import Recipe

LOOK = 2  # samples
# What `tune` leaves to `train_epochs` as it is given.
TRAIN_OPTIONS = (
    *("decay_bias_and_norm", "nesterov", "amp", "clip_norm", "accumulate", "channels_last", "compile", "step"),
    "accuracy",
)


def as_device(device: Any) -> Any:
    """Return a torch device; None is CUDA's GPU if there is one, else the CPU.

    Raises:
        ValueError: If there is no such device here, or it cannot compute.
    """
    torch = require("torch", extra="torch")
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"`device` must be a torch device such as 'cpu' or 'cuda', but got {device!r}.") from error
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"`device` is {str(device)!r}, but torch sees no GPU here: use 'cpu'.")
    try:
        torch.zeros(1, device=found).item()
    except (RuntimeError, AssertionError, ImportError) as error:
        raise ValueError(
            f"`device` must be one on which torch can compute here, such as 'cpu', but got {device!r}: {error!s:.80}"
        ) from error
    return found


def check_search(recipe: Any, range_test: Any, pruner: Any, storage: Any, callbacks: Any, n_jobs: Any) -> None:
    """Check what the study would find out only once it is stored, or after its first training.

    Raises:
        ValueError: If one is not what `tune` takes.
    """
    if recipe is not None and not isinstance(recipe, Recipe):
        raise ValueError(f"`recipe` must be one such as Recipe(short=0.25), or None, but got {recipe!r:.80}.")
    if range_test is not None and not isinstance(range_test, bool | RangeTest) and not callable(range_test):
        rule = "must be True, False, None, a RangeTest or a function that returns one"
        raise ValueError(f"`range_test` {rule}, but got {range_test!r:.80}.")
    if pruner is not None and not isinstance(pruner, optuna.pruners.BasePruner):
        raise ValueError(f"`pruner` must be one of Optuna's, such as DisciplinedPruner(), or None, but got {pruner!r}.")
    if storage is not None and not isinstance(storage, str | optuna.storages.BaseStorage):
        raise ValueError(f"`storage` must be a URL such as 'sqlite:///study.db' or Optuna's, but got {storage!r:.80}.")
    if not isinstance(callbacks, Sequence) or not all(callable(callback) for callback in callbacks):
        raise ValueError(f"`callbacks` must be a list of functions of study and trial, but got {callbacks!r}.")
    if n_jobs != -1 and not is_count(n_jobs):
        raise ValueError(f"`n_jobs` must be a positive integer, or -1 for one a core, but got {n_jobs!r}.")


def check_optimizer(optimizer: Any, names: Sequence[str]) -> None:
    """Check the name of an optimizer.

    Raises:
        ValueError: If it is none of `names`.
    """
    if isinstance(optimizer, str) and optimizer in names:
        return
    meant = str(getattr(optimizer, "__name__", optimizer)).lower()
    own = "train by it in an objective of your own, by `train_epochs(..., optimizer=...)` or a loop with `report_epoch`"
    cure = f"did you mean {meant!r}?" if meant in names else f"{own} (README, 'Your own loop')."
    raise ValueError(f"`optimizer` must be one of {', '.join(map(repr, names))}, but got {optimizer!r:.80}: {cure}")


def check_options(options: Any) -> None:
    """Check the names in `train_options`; their values are checked by `train_epochs`.

    Raises:
        ValueError: If they are no dict, or one is none of `TRAIN_OPTIONS`.
    """
    if not isinstance(options, Mapping):
        raise ValueError(f"`train_options` must be a dict such as {{'amp': 'bf16'}}, but got {options!r:.80}.")
    for name in options:
        if name not in TRAIN_OPTIONS:
            raise ValueError(
                f"`train_options` may hold {', '.join(map(repr, TRAIN_OPTIONS))}, but got {name!r}: the others are "
                "arguments of `tune`, or chosen by it."
            )


def first_batch(name: str, data: Any) -> Any:
    """Return two samples of data that are cut into batches here; of validation data in batches the first.

    Raises:
        ValueError: If training data come in batches that cannot be cut anew, or the data cannot be read.
        DisciplineError: If there is no sample.
    """
    from torch.utils.data import DataLoader

    from optuna_discipline.training import batches
    from optuna_discipline.training import loaders

    batches.check_columns(name, data)
    if name == "train" and batches.is_batched(data) and not isinstance(data, DataLoader):
        raise ValueError(
            "`train` must be a tuple of tensors or arrays, a torch Dataset or a DataLoader, because the batch size is "
            f"chosen here, but got {kind_of(data)}."
        )
    batches.check_repeatable(data, name, 2)
    if name == "train":
        loaders.count_of(data)
    cut = loaders.cut_anew if name == "train" else functools.partial(batches.as_batches, name=name)
    try:
        batch = next(iter(cut(data, batch_size=LOOK)), None)
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"`{name}` must give samples that make a batch, but reading {LOOK} raised {type(error).__name__} "
            f"({error!s:.120}): where they differ in size or kind pass a DataLoader with a `collate_fn`."
        ) from error
    if batch is None:
        raise DisciplineError(f"`{name}` is empty: there is no batch to train or evaluate on.")
    return batch


def first_target(batch: Any, step: Any = None) -> Any:
    """Return the target of a batch, as `default_step` reads it; None where only a `step` of the user's can say.

    Raises:
        ValueError: If there is no such step and the batch cannot be read.
    """
    from optuna_discipline.training.step import inputs_and_target

    try:
        return inputs_and_target(batch)[1]
    except ValueError as error:
        if step is None:
            raise ValueError(
                f"`train` and `val` must yield (input, target) pairs or a `step` must read them: {error}"
            ) from error
        return None


def check_output(
    name: str,
    model: Any,
    batch: Any,
    loss_fn: Any,
    device: Any,
    *,
    metric: Metric,
    own_loss: bool,
    step: Any = None,
    accuracy: bool | None = None,
) -> None:
    """Check that the model's output fits targets and loss, where a misfit would only show after hours, or never.

    A batch of "train" is run as the training will run it, without the update: the model is not quite as before. A
    `step` of the user's is run for "val" only, since one may count its updates; what it raises is its own.

    Raises:
        ValueError: If an accuracy is wanted and cannot be counted, or means nothing to the loss and is not asked for by
            `accuracy`, if the squared error or its like would compare every output with every target, if the loss does
            not take output and target, or is not one number, or if the model fails on the first samples.
    """
    torch = require("torch", extra="torch")
    from optuna_discipline.training import modes
    from optuna_discipline.training import step as steps
    from optuna_discipline.training.random_state import kept_random

    moved = steps.to_device(batch, device)
    if step is not None and name == "train":
        return
    with modes.keep_modes(model), kept_random(), torch.set_grad_enabled(name == "train"):
        modes.start_training(model) if name == "train" else model.eval()
        if step is not None:
            _check_countable(steps.run_step(step, model, moved, loss_fn), metric=metric, by_step=True)
            return
        inputs, target = steps.inputs_and_target(moved)
        try:
            output = model(*inputs)
        except Exception as error:  # the model is the user's, and may fail in any way
            shapes = " and ".join(f"shape {tuple(x.shape)}" if hasattr(x, "shape") else kind_of(x) for x in inputs)
            raise ValueError(
                "`build_model` must return a model that takes the inputs of the data, but it failed on the first "
                f"samples of `{name}`, {shapes}: {type(error).__name__}: {error}{_cure_of_dtype(model, inputs, error)}"
            ) from error
        if name == "val":
            _check_countable(steps.StepResult(torch.zeros(()), output, target), metric=metric)
        if compares_each(loss_fn):
            _check_same_shape(output, target, name)
        steps.as_loss(_compare(loss_fn, output, target, name, own_loss=own_loss))
        if name == "val" and metric == "val_accuracy" and not accuracy and not favours_target(loss_fn, output, target):
            raise ValueError(
                "`metric='val_accuracy'` takes the largest output for the answer, but `loss_fn` is not lowest where "
                "that is the target's, as the loss of a classification is: take 'val_loss', or "
                "train_options={'accuracy': True} where the largest output is the answer all the same."
            )


def _cure_of_dtype(model: Any, inputs: Sequence[Any], error: Exception) -> str:
    """Return what to do where an error speaks of two float types, the first inputs' and the model's; else ""."""
    said = {*re.findall(r"bfloat16|half|double|float\d*|mixed dtype", str(error).lower())}
    parts: tuple[Any, Any] = (next(iter(inputs), None), next(model.parameters(), None))
    other, own = (x.dtype if hasattr(x, "is_floating_point") and x.is_floating_point() else None for x in parts)
    apart = own and other and own != other and (len(said) > 1 or "mixed dtype" in said)
    return f": make the inputs `.to({own})`, or the model `.to({other})`" if apart else ""


def _compare(loss_fn: Any, output: Any, target: Any, name: str, *, own_loss: bool) -> Any:
    """Return the loss of an output, or say what does not fit: torch's own words name no argument of `tune`."""
    try:
        return loss_fn(output, target)
    except (TypeError, ValueError, RuntimeError, IndexError, AttributeError) as error:
        cure = "let the model return what the loss takes, or pass a `step` in `train_options` that picks it"
        if hasattr(output, "shape") and own_loss:
            cure = "change the shape or dtype of one of them, or the loss"
        elif hasattr(output, "shape"):
            cure = (
                "integer targets (n,) want one score for each class; for a single score, or several labels, pass "
                "loss_fn=torch.nn.BCEWithLogitsLoss() and float targets of that shape; else the `loss_fn` that suits"
            )
        raise ValueError(
            f"`loss_fn` must take the output of `build_model`'s model and the target, but for {_shown(output)} and "
            f"{_shown(target)} of `{name}` it raised {type(error).__name__} ({error!s:.120}): {cure}."
        ) from error


def _check_same_shape(output: Any, target: Any, name: str) -> None:
    if hasattr(output, "shape") and hasattr(target, "shape") and output.shape != target.shape:
        raise ValueError(
            "`build_model` must return outputs of the targets' shape, as the loss compares number by number, but the "
            f"first samples of `{name}` have an output of {_shown(output)} and a target of {_shown(target)}: reshape "
            "one of them, or pass a function of your own as `loss_fn`."
        )


def _check_countable(result: Any, *, metric: Metric, by_step: bool = False) -> None:
    from optuna_discipline.training.step import count_answers

    if metric != "val_accuracy" or count_answers(result) is not None:
        return
    which = "a `step` that returns (loss, output, target), with outputs" if by_step else "outputs"
    found = f"an output of {_shown(result.output)} and a target of {_shown(result.target)}"
    if by_step and result.output is None:
        found = "no output"
    raise ValueError(
        f"`metric='val_accuracy'` needs {which} of shape (n, classes) and integer targets (n,), but the first samples "
        f"have {found}: return these from the model, or from a `step` in `train_options`, or take 'val_loss'."
    )


def _shown(value: Any) -> str:
    return f"{value.dtype} {tuple(value.shape)}" if hasattr(value, "shape") else kind_of(value)
