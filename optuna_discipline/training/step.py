"""One forward pass: the `step` hook that knows what a batch is, and the check of what it returns."""

from collections.abc import Callable
from collections.abc import Mapping
from typing import Any
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

LossFn = Callable[..., torch.Tensor]
Step = Callable[[nn.Module, Any, LossFn], Any]
MOST_NAMED = 8  # tensors of a batch, in a message
IGNORED = -100  # the label that torch's cross-entropy leaves out
_PASS_A_STEP = (
    "pass a function that says how the model and the loss take it, `step=` (to `tune` train_options={'step': ...})"
)
_INPUT_KEYS, _TARGET_KEYS = ("input", "inputs", "x", "image"), ("target", "targets", "y", "label", "labels")


class StepResult(NamedTuple):
    """What one forward pass gives.

    Attributes:
        loss: One number, shape ().
        output: The model's output, from which the accuracy is counted; None where there is none to count.
        target: What it should have been, or None.
    """

    loss: torch.Tensor
    output: Any = None
    target: Any = None


def default_step(model: nn.Module, batch: Any, loss_fn: LossFn) -> StepResult:
    """Run the model on a batch and compare: `loss_fn(model(x), y)`.

    A batch is a pair (x, y); a longer tuple (x1, x2, ..., y), whose last part is the target; a dict with an input
    ("input", "inputs", "x", "image") and a target ("target", "targets", "y", "label", "labels"); or a lone tensor,
    which is its own target (an autoencoder). Any other batch needs a `step` of its own, which returns a loss or
    (loss, output, target):

        def step(model, batch, loss_fn):
            output = model(batch["tokens"], batch["mask"])
            return loss_fn(output, batch["next"]), output, batch["next"]

    Losses are means over the samples of all batches. A batch has as many as the first dimension of the target that the
    step returns, else of its first tensor, or as its lists are long (images beside dicts). Where the samples stand
    second (sequence, batch), a step says so by a target that has them first, such as `(loss, None, y.transpose(0, 1))`;
    with `accumulate` batches are weighed before their step, so that such ones must have one length.

    Raises:
        ValueError: If the batch has another form.
    """
    inputs, target = inputs_and_target(batch)
    output = model(*inputs)
    return StepResult(loss_fn(output, target), output, target)


def inputs_and_target(batch: Any) -> tuple[tuple[Any, ...], Any]:
    """Return what `default_step` gives the model, and what it compares with.

    Raises:
        ValueError: If the batch has another form.
    """
    if isinstance(batch, torch.Tensor):
        return (batch,), batch
    if isinstance(batch, (tuple, list)) and batch:
        return (tuple(batch[:-1]), batch[-1]) if len(batch) > 1 else ((batch[0],), batch[0])
    if isinstance(batch, Mapping):
        return (_pick(batch, _INPUT_KEYS),), _pick(batch, _TARGET_KEYS)
    raise ValueError(f"A batch of type {type(batch).__name__} cannot be read: {_PASS_A_STEP}.")


def check_loss_fn(loss_fn: Any) -> None:
    """Check that a loss can be called.

    Raises:
        ValueError: If it cannot.
    """
    if not callable(loss_fn):
        raise ValueError(f"`loss_fn` must be callable as loss_fn(output, target), but got {type(loss_fn).__name__}.")


def check_step(step: Any) -> None:
    """Check that a hook can be called, or is None.

    Raises:
        ValueError: If it is neither.
    """
    if step is not None and not callable(step):
        raise ValueError(f"`step` must be callable as step(model, batch, loss_fn), or None, but got {step!r:.80}.")


def run_step(step: Step, model: nn.Module, batch: Any, loss_fn: LossFn) -> StepResult:
    """Run a step hook and check what it returns.

    A `StepResult` is that of `default_step`, also within a hook around it: then a wrong loss is the `loss_fn`'s.

    Returns:
        The result, its loss of shape ().

    Raises:
        ValueError: If the loss is no tensor with a single number.
    """
    try:
        returned = step(model, batch, loss_fn)
    except Exception as error:
        if step is not default_step and hasattr(error, "add_note"):  # from Python 3.11 on
            parts = ", ".join(f"{str(part.dtype)[6:]} {tuple(part.shape)}" for part in tensors_in(batch)[:MOST_NAMED])
            kind = type(batch).__name__
            error.add_note(f"It was raised in `step(model, batch, loss_fn)`, for a batch that is a {kind} of {parts}.")
        raise
    own = isinstance(returned, StepResult)
    result = returned if own else StepResult(*_as_tuple(returned))
    return result._replace(loss=as_loss(result.loss, "loss_fn" if own else "step"))


def as_loss(loss: Any, name: str = "loss_fn") -> torch.Tensor:
    """Return what the function `name` gave for a batch as a loss of shape ().

    Raises:
        ValueError: If it is no tensor with a single real number.
    """
    if not isinstance(loss, torch.Tensor):
        raise ValueError(f"`{name}` must return a tensor with one number, but returned {type(loss).__name__}.")
    if loss.numel() != 1:
        raise ValueError(
            f"`loss_fn` must return one number for the batch, but returned a tensor of shape {tuple(loss.shape)}: "
            "average it, for instance with `.mean()` or reduction='mean'."
        )
    if loss.is_complex():
        raise ValueError(
            f"`{name}` must return a real number, but returned {loss.dtype}: take `.abs()`, or its `.real`."
        )
    return loss.reshape(())


def to_device(batch: Any, device: torch.device, *, channels_last: bool = False) -> Any:
    """Return the batch with every tensor in it on `device`; images (n, c, h, w) in channels_last if asked.

    Raises:
        ValueError: If a tensor is on "meta", and has nothing to move.
    """

    def moved(part: Any) -> Any:
        if not isinstance(part, torch.Tensor):
            return part.to(device) if hasattr(part, "to") else part
        check_holds_numbers(part)
        tensor = part.to(device, non_blocking=device.type == "cuda")
        return tensor.contiguous(memory_format=torch.channels_last) if channels_last and tensor.ndim == 4 else tensor

    return map_leaves(batch, moved)


def check_holds_numbers(tensor: torch.Tensor) -> None:
    """Check that a tensor of the data is on a device that holds numbers.

    Raises:
        ValueError: If it is on "meta".
    """
    if tensor.is_meta:
        shape = tuple(tensor.shape)
        raise ValueError(
            f"Data must hold numbers, but a tensor of shape {shape} is on 'meta', which holds none: make it on 'cpu'."
        )


def map_leaves(nested: Any, change: Callable[[Any], Any]) -> Any:
    """Return tuples, lists and dicts nested as they are, with `change` made to everything else in them.

    A PackedSequence is changed as a whole, since a part of it has to stay on the CPU.

    >>> map_leaves({"x": (1, [2])}, lambda leaf: 10 * leaf)
    {'x': (10, [20])}
    """
    if isinstance(nested, PackedSequence):
        return change(nested)
    if isinstance(nested, tuple) and hasattr(nested, "_fields"):
        return type(nested)(*(map_leaves(part, change) for part in nested))
    if isinstance(nested, (tuple, list)):
        return type(nested)(map_leaves(part, change) for part in nested)
    if isinstance(nested, Mapping):
        return {key: map_leaves(part, change) for key, part in nested.items()}
    return change(nested)


def tensors_in(nested: Any) -> list[torch.Tensor]:
    """Return the tensors in tuples, lists and dicts, nested or not, in their order."""
    if isinstance(nested, torch.Tensor):
        return [nested]
    parts = nested.values() if isinstance(nested, Mapping) else nested if isinstance(nested, (tuple, list)) else ()
    return [tensor for part in parts for tensor in tensors_in(part)]


def count_samples(batch: Any) -> int:
    """Return the number of samples of a batch: the first dimension of its first tensor, 1 where there is none.

    Where inputs are a list of their own (sequences of different lengths, a PackedSequence), that of the target. Lists
    of samples (see `are_lists_of_samples`) are as long as they are.
    """
    if isinstance(batch, torch.Tensor):
        return int(batch.shape[0]) if batch.ndim else 1
    if are_lists_of_samples(batch):
        return len(batch[0])
    parts = batch.values() if isinstance(batch, Mapping) else batch if isinstance(batch, (tuple, list)) else ()
    if isinstance(batch, (tuple, list)) and len(batch) > 1 and isinstance(batch[0], (tuple, list)):
        parts = (batch[-1], *batch[:-1]) if isinstance(batch[-1], torch.Tensor) and batch[-1].ndim else batch
    for part in parts:
        if isinstance(part, (torch.Tensor, tuple, list, Mapping)):
            return count_samples(part)
    return 1


def are_lists_of_samples(batch: Any) -> bool:
    """Tell whether a batch is lists or tensors of one length, a list of dicts among them, as detectors take images.

    >>> are_lists_of_samples(((torch.ones(3, 8, 8), torch.ones(3, 8, 9)), ({"boxes": 1}, {"boxes": 2})))
    True
    """
    if not isinstance(batch, (tuple, list)) or not all(_is_list(p) or isinstance(p, torch.Tensor) for p in batch):
        return False
    lengths = {len(part) if _is_list(part) or part.ndim else 0 for part in batch}
    return len(lengths) == 1 and any(isinstance(item, Mapping) for part in batch if _is_list(part) for item in part)


def samples_of(batch: Any, result: StepResult) -> int:
    """Return the number of samples of a batch: the first dimension of its target, where the step has told of one."""
    target = result.target
    return int(target.shape[0]) if isinstance(target, torch.Tensor) and target.ndim else count_samples(batch)


def count_answers(result: StepResult) -> torch.Tensor | None:
    """Return how many samples were classified rightly and how many were asked, shape (2,).

    A classification has an output of scores (n, classes) and integer targets (n,), of which -100 is not asked. None if
    this is none.
    """
    output, target = result.output, result.target
    if not (isinstance(output, torch.Tensor) and isinstance(target, torch.Tensor)):
        return None
    if output.ndim != 2 or output.shape[1] < 2 or target.shape != output.shape[:1] or _is_continuous(target):
        return None
    return torch.stack([(output.detach().argmax(dim=1) == target).sum(), (target != IGNORED).sum()])


def _is_list(part: Any) -> bool:
    return isinstance(part, (tuple, list))


def _is_continuous(target: torch.Tensor) -> bool:
    return target.dtype.is_floating_point or target.dtype.is_complex or target.dtype == torch.bool


def _as_tuple(returned: Any) -> tuple[Any, ...]:
    if not isinstance(returned, (tuple, list)):
        return (returned,)
    if not 1 <= len(returned) <= 3:
        raise ValueError(f"`step` must return a loss or (loss, output, target), but returned {len(returned)} parts.")
    return tuple(returned)


def _pick(batch: Mapping[Any, Any], keys: tuple[str, ...]) -> Any:
    for key in keys:
        if key in batch:
            return batch[key]
    raise ValueError(f"A batch with the keys {sorted(map(str, batch))} has none of {list(keys)}: {_PASS_A_STEP}.")
