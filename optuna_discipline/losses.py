"""What targets and losses say: the loss that suits a target, the number of classes, what a loss compares."""

import copy
import math
import warnings
from collections.abc import Iterable
from itertools import chain
from typing import Any

from optuna_discipline._imports import require

# The loss of a classification is lower by more than this share of itself, which is more than rounding, where the
# target's class has the largest score than where any other has it, of so many that are tried.
LOWER_BY, MOST_TRIED = 1e-6, 8


def default_loss(target: Any) -> Any:
    """Return the loss that suits a target: cross-entropy for integers, else the squared error.

    Raises:
        ValueError: If neither does.
    """
    torch = require("torch", extra="torch")
    if not isinstance(target, torch.Tensor):
        raise ValueError(f"`loss_fn` must be given where the target is no tensor, but it is {kind_of(target)}.")
    if target.dtype == torch.bool or target.is_complex():
        raise ValueError(
            f"`loss_fn` must be given for targets of {target.dtype}: make them integers (classes), or floats."
        )
    return torch.nn.functional.mse_loss if target.is_floating_point() else torch.nn.functional.cross_entropy


def is_cross_entropy(loss_fn: Any) -> bool:
    """Whether a network that knows nothing has the loss ln(classes): torch's cross-entropy, averaged."""
    torch = require("torch", extra="torch")
    reduction = getattr(loss_fn, "keywords", {}).get("reduction", getattr(loss_fn, "reduction", "mean"))
    function = getattr(loss_fn, "func", loss_fn)  # of a partial
    known = function in (torch.nn.functional.cross_entropy, torch.nn.functional.nll_loss)
    return reduction == "mean" and (known or isinstance(loss_fn, torch.nn.CrossEntropyLoss | torch.nn.NLLLoss))


def compares_each(loss_fn: Any) -> bool:
    """Whether a loss compares number by number, and shapes that differ are stretched with no more than a warning."""
    nn = require("torch.nn", extra="torch")
    kinds = ("MSE", "L1", "SmoothL1", "Huber", "PoissonNLL", "KLDiv", "HingeEmbedding", "MultiLabelSoftMargin")
    names = ["mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "poisson_nll_loss", "kl_div"]
    names += ["hinge_embedding_loss", "multilabel_soft_margin_loss"]
    called = getattr(loss_fn, "func", loss_fn)  # of a partial
    called = getattr(called, "forward", called)  # of a module; a subclass may have its own
    known = (*(getattr(nn, f"{kind}Loss").forward for kind in kinds), *(getattr(nn.functional, x) for x in names))
    return getattr(called, "__func__", called) in known


def favours_target(loss_fn: Any, output: Any, target: Any) -> bool:
    """Whether a loss is lowest where the target's own score is the largest, as the accuracy counts them.

    A loss of embeddings, which labels only tell apart, is as low where each stands at the place of another class. Tried
    are made-up outputs of 0 and 1, of which embeddings are told apart without rounding, with two targets of each class:
    the first samples may be ignored, or have no pair. What raises for these, is not finite, or cannot be copied (it may
    have a state) does not say.

    Args:
        loss_fn: Any loss; a function is called, anything else is copied before.
        output: Of shape (n, classes).
        target: Integers of shape (n,); only their type is asked.
    """
    torch = require("torch", extra="torch")
    from optuna_discipline.training.random_state import PrivateRandom

    if is_cross_entropy(loss_fn):
        return True
    n_classes = output.shape[1]
    n_tried = min(n_classes, 1 + MOST_TRIED)
    classes = torch.arange(n_tried, device=target.device).repeat(2)

    def loss_at(shift: int) -> float:
        made_up = torch.nn.functional.one_hot((classes + shift) % n_classes, n_classes).to(output)
        with PrivateRandom(0, output.device):  # a loss with noise in it has the same at each class
            return float(copy.deepcopy(loss_fn)(made_up, classes.to(target)))

    try:
        right, *others = (loss_at(shift) for shift in range(n_tried))
    except Exception:  # the loss is the user's, and may fail in any way
        return True
    least = min(filter(math.isfinite, others), default=math.inf)
    return not math.isfinite(right) or right + LOWER_BY * abs(right) < least


def count_classes(target: Any, batches: Iterable[Any]) -> int | None:
    """Return the number of classes where a target is indices; one class alone is no classification.

    Args:
        target: One of the targets.
        batches: The validation data, read where the target is indices of shape (n,).
    """
    torch = require("torch", extra="torch")
    from optuna_discipline.training.step import inputs_and_target

    if not isinstance(target, torch.Tensor) or target.ndim != 1:
        return None
    if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
        return None
    highest = max(int(inputs_and_target(batch)[1].max()) for batch in batches)
    return highest + 1 if highest >= 1 else None


def warn_of_multi_hot(target: Any, batches: Iterable[Any]) -> None:
    """Warn of floats in several columns that are all 0 or 1, which the default loss compares by their squares.

    Args:
        target: One of the targets, a tensor.
        batches: The validation data, read as long as all its targets are such.
    """
    from optuna_discipline.training.step import inputs_and_target

    any_label = False
    for labels in chain([target], (inputs_and_target(batch)[1] for batch in batches)):
        if not _is_multi_hot(labels):
            return
        any_label = any_label or bool(labels.any())
    if any_label:
        warnings.warn(
            "All targets are 0 or 1 in several columns, and trained by the squared error, as no `loss_fn` was given: "
            "pass loss_fn=torch.nn.BCEWithLogitsLoss() where each column is a label of its own, integer targets (n,) "
            "where a row names one class, or torch.nn.MSELoss() where the squared error is meant.",
            stacklevel=4,
        )


def kind_of(data: Any) -> str:
    """Return what something is in words: its type, of a tuple those of its parts."""
    if isinstance(data, tuple) and data:
        return f"a tuple of {' and '.join(dict.fromkeys(type(part).__name__ for part in data))}"
    return type(data).__name__


def _is_multi_hot(target: Any) -> bool:
    columns = target.is_floating_point() and target.ndim == 2 and target.shape[1] > 1
    return columns and bool(((target == 0) | (target == 1)).all())
