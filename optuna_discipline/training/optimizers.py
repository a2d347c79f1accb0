"""Optimizers by name, and their hyper-parameters set anew at every step without losing the groups' ratios."""

import inspect
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import Literal

import torch
from torch import nn

from optuna_discipline.exceptions import DisciplineError
from optuna_discipline.rules.lr_choice import USUAL_LR
from optuna_discipline.rules.space import ADAM_RANGE
from optuna_discipline.rules.space import SGD_RANGE
from optuna_discipline.training.arguments import as_number
from optuna_discipline.training.model_tensors import bias_and_norm
from optuna_discipline.training.model_tensors import check_inference_mode_left
from optuna_discipline.training.model_tensors import check_sparse
from optuna_discipline.training.model_tensors import tensors_of

OptimizerKind = Literal["sgd", "adamw", "adam"] | Callable[..., torch.optim.Optimizer] | torch.optim.Optimizer
# Keys that we add to a parameter group; they travel with its state_dict.
_FIRST_LR, _RATIO, _DECAYS = "first_lr", "lr_ratio", "decays"
ANY_LR = 1e-6  # to make an optimizer whose rate is set before its first update; some refuse 0
_ADAM_BETA2 = 0.999
_ADAMS: Mapping[str, Any] = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}


def build_optimizer(
    model: nn.Module,
    kind: OptimizerKind = "sgd",
    *,
    lr: float,
    momentum: float | None = None,
    weight_decay: float | None = None,
    nesterov: bool = True,
    decay_bias_and_norm: bool = True,
) -> torch.optim.Optimizer:
    """Return an optimizer over the model's trainable parameters.

    Args:
        model: Any module with a parameter that requires a gradient.
        kind: "sgd", "adamw", "adam"; a callable such as `torch.optim.RMSprop` or
            `lambda groups, lr: RMSprop(groups, lr, alpha=0.9)`; or an optimizer that holds the model's parameters,
            which is set to the given values and returned itself, its groups' learning-rate ratios kept. What a callable
            gets is a list of parameter groups, with `decay_bias_and_norm` a single one: for rates per layer it may
            divide `groups[0]["params"]`, the trainable ones in the order of `model.parameters()`, the group that shall
            have `lr` itself first.
        lr: Learning rate of the first parameter group, from 0 on.
        momentum: In [0, 1); for Adam and AdamW this is beta1. None is 0.9 by name or class, else what the optimizer
            has. One that has none goes without.
        weight_decay: From 0 on. None is 0 by name or class, else what the optimizer has.
        nesterov: Nesterov's momentum for "sgd"; without momentum plain SGD is used.
        decay_bias_and_norm: False keeps the weight decay at 0 for parameters with at most one dimension, for those
            whose own name begins with "bias", and, whatever their shape, for those of torch's normalisation layers and
            the magnitudes of its `weight_norm`. A given optimizer keeps its own groups.

    Raises:
        ValueError: If an argument breaks its rule, or the optimizer has no weight decay or learning rate to set, or
            none of the model's parameters, or does not take the sparse gradients of an embedding.
        DisciplineError: If the model has no trainable parameter.

    >>> optimizer = build_optimizer(nn.Linear(2, 1), lr=0.1, weight_decay=1e-4, decay_bias_and_norm=False)
    >>> [group["weight_decay"] for group in optimizer.param_groups]
    [0.0001, 0.0]
    """
    parameters = trainable_parameters(model)
    lr = as_number("lr", lr)
    if isinstance(kind, torch.optim.Optimizer):
        optimizer = kind
        _check_fits(optimizer, parameters, "`model.parameters()`")
    else:
        groups = _groups(parameters, () if decay_bias_and_norm else bias_and_norm(model))
        beta = 0.9 if momentum is None else as_number("momentum", momentum, high=1.0)
        if isinstance(kind, (str, type)):  # a function of the user's own has set what it wants
            momentum, weight_decay = beta, 0.0 if weight_decay is None else weight_decay
        if kind == "sgd":
            optimizer = torch.optim.SGD(groups, lr=lr, momentum=beta, nesterov=nesterov and beta > 0)
        elif isinstance(kind, str) and kind in _ADAMS:
            optimizer = _ADAMS[kind](groups, lr=lr, betas=(beta, _ADAM_BETA2))
        else:
            optimizer = _call(kind, groups, lr)
        _check_fits(optimizer, parameters, "the parameters that the function is called with")
        for group in optimizer.param_groups:  # of a callable
            if "weight_decay" in group and not group.get(_DECAYS, True):
                _set(group, "weight_decay", 0.0)
    check_takes(optimizer, "weight_decay", weight_decay)
    check_sparse(model, optimizer, _decaying(optimizer, weight_decay))
    set_hyperparams(optimizer, lr=lr, momentum=momentum, weight_decay=weight_decay)
    return optimizer


def set_hyperparams(
    optimizer: torch.optim.Optimizer,
    *,
    lr: float | None = None,
    momentum: float | None = None,
    weight_decay: float | None = None,
) -> None:
    """Set an optimizer's learning rate, momentum and weight decay in place; None leaves a value as it is.

    The ratios of the groups' learning rates are those of the first call (of `initial_lr`, where a scheduler left it),
    also after a learning rate of 0; a group that is added later has the ratio that it would have had then. `momentum`
    goes to the key `momentum` or to the first of `betas`, whichever a group has. Groups without weight decay beside
    others with it stay without. Three keys are added to each group to remember this, `first_lr`, `lr_ratio` and
    `decays`; they travel with the optimizer's state_dict.

    Args:
        optimizer: Any torch optimizer.
        lr: Learning rate of the first group (the first that is not 0), from 0 on.
        momentum: In [0, 1).
        weight_decay: From 0 on.

    Raises:
        ValueError: If a value breaks its rule.
    """
    lr = None if lr is None else as_number("lr", lr)
    momentum = None if momentum is None else as_number("momentum", momentum, high=1.0)
    weight_decay = None if weight_decay is None else as_number("weight_decay", weight_decay)
    _remember_groups(optimizer)
    for group in optimizer.param_groups:
        if lr is not None:
            _set(group, "lr", lr * group[_RATIO])
        if momentum is not None and "betas" in group:
            group["betas"] = (momentum, *group["betas"][1:])
        elif momentum is not None and "momentum" in group:
            group["momentum"] = momentum
        if weight_decay is not None and "weight_decay" in group:
            _set(group, "weight_decay", weight_decay if group[_DECAYS] else 0.0)


def takes(optimizer: torch.optim.Optimizer, name: Literal["momentum", "weight_decay"]) -> bool:
    """Tell whether `set_hyperparams` has something to set: Rprop has neither, Adagrad no momentum."""
    keys = ("betas", "momentum") if name == "momentum" else (name,)
    return any(key in group for group in optimizer.param_groups for key in keys)


def check_takes(
    optimizer: torch.optim.Optimizer, name: Literal["momentum", "weight_decay"], value: float | None
) -> None:
    """Refuse what was asked of an optimizer that does not have it.

    Raises:
        ValueError: If `value` is neither None nor 0, and there is nothing to set.
    """
    if value and not takes(optimizer, name):
        raise ValueError(
            f"`{name}` must be None or 0 with {type(optimizer).__name__}, which has none, but got {value!r}: "
            "leave it out, or take another optimizer."
        )


def trainable_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Return the model's parameters that require a gradient, each once.

    Raises:
        ValueError: If `model` is no module, has lazy parameters without a shape, or holds a tensor that was made in
            `torch.inference_mode`, frozen ones and buffers among them; or if that mode is on.
        DisciplineError: If there is none.
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f"`model` must be a torch.nn.Module, but got {type(model).__name__}.")
    check_inference_mode_left()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if any(nn.parameter.is_lazy(parameter) for parameter in parameters):
        raise ValueError("`model` must have its shapes, but has lazy parameters: run one batch through it first.")
    for name, tensor in tensors_of(model):
        if not nn.parameter.is_lazy(tensor) and tensor.is_inference():
            raise ValueError(
                "`model` must be made outside of `torch.inference_mode`, whose tensors are not for training, but its "
                f"{name!r} is one of them: build it anew."
            )
    if not parameters:
        cure = "set `requires_grad` of those that shall be trained."
        if not any(parameter.is_floating_point() or parameter.is_complex() for parameter in model.parameters()):
            cure = "give it layers with floating-point parameters, or train it before it is quantised."
        raise DisciplineError(f"The model ({type(model).__name__}) has no trainable parameter: {cure}")
    return parameters


def is_adam_like(optimizer: torch.optim.Optimizer) -> bool:
    """Tell whether the optimizer scales its steps by a running second moment: its good LRs lie decades lower."""
    adaptive = (torch.optim.RMSprop, torch.optim.Adagrad)
    return isinstance(optimizer, adaptive) or any("betas" in group for group in optimizer.param_groups)


def usual_lr(optimizer: torch.optim.Optimizer) -> float:
    """Return the rate at which most networks train by the optimizer, of its kind where it is not known by name."""
    return USUAL_LR.get(type(optimizer).__name__, USUAL_LR["Adam" if is_adam_like(optimizer) else "SGD"])


def default_range(optimizer: torch.optim.Optimizer) -> tuple[float, float]:
    """Return the rates of a range test: SGD's 1e-5 to 10, Adam's 1e-6 to 1, for others as SGD's around the usual one.

    >>> default_range(torch.optim.Adadelta([torch.zeros(1)]))
    (0.0001, 100.0)
    """
    usual = usual_lr(optimizer)
    if usual == USUAL_LR["Adam"]:
        return ADAM_RANGE
    scale = usual / USUAL_LR["SGD"]
    return SGD_RANGE[0] * scale, SGD_RANGE[1] * scale


def lr_ratios(optimizer: torch.optim.Optimizer) -> list[float]:
    """Return each group's learning rate over that of the first (the first that is not 0)."""
    _remember_groups(optimizer)
    return [float(group[_RATIO]) for group in optimizer.param_groups]


def _groups(parameters: Sequence[nn.Parameter], exempt: Sequence[nn.Parameter]) -> list[dict[str, Any]]:
    ids = {id(parameter) for parameter in exempt}
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters if (id(p) not in ids) is decays], _DECAYS: decays} for decays in (True, False)
    ]
    return [group for group in groups if group["params"]]


def _decaying(optimizer: torch.optim.Optimizer, weight_decay: float | None) -> list[nn.Parameter]:
    """Return the parameters that will decay, by `weight_decay` or, where it is None, by their groups' own."""
    groups = optimizer.param_groups
    own = [group for group, decays in zip(groups, _decays(groups), strict=True) if decays]
    chosen = [group for group in own if (group.get("weight_decay") if weight_decay is None else weight_decay)]
    return [parameter for group in chosen for parameter in group["params"]]


def _call(kind: Any, groups: list[dict[str, Any]], lr: float) -> torch.optim.Optimizer:
    if not callable(kind):
        raise ValueError(
            "`optimizer` must be 'sgd', 'adamw', 'adam', a torch optimizer, or a callable that makes one from "
            f"parameters, but got {kind!r}."
        )
    optimizer = kind(groups, lr=lr) if _takes_lr(kind) else kind(groups)
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ValueError(
            f"`optimizer` must make a torch.optim.Optimizer, but {kind!r} returned {type(optimizer).__name__}."
        )
    return optimizer


def _takes_lr(kind: Callable[..., object]) -> bool:
    try:
        parameters = inspect.signature(kind).parameters.values()
    except (TypeError, ValueError):
        return True
    return any(parameter.name == "lr" or parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)


def _check_fits(optimizer: torch.optim.Optimizer, parameters: Iterable[nn.Parameter], source: str) -> None:
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    if not any(id(parameter) in held for parameter in parameters):
        raise ValueError(
            "`optimizer` must hold the model's parameters, but holds none of those that require a gradient: "
            f"make it from {source}."
        )
    if any(group.get("lr") is None for group in optimizer.param_groups):
        raise ValueError(
            "`optimizer` must have a learning rate that a schedule can set in all its groups, but "
            f"{type(optimizer).__name__} has lr=None, by which an optimizer chooses its own: make it with a number "
            "(Adafactor with relative_step=False, too)."
        )
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is closure.empty:
        raise ValueError(
            f"`optimizer` must make its step from one gradient, but {type(optimizer).__name__} asks for a closure that "
            "computes the loss again: take 'sgd', 'adamw' or 'adam'."
        )


def _remember_groups(optimizer: torch.optim.Optimizer) -> None:
    groups = optimizer.param_groups
    if not all(_RATIO in group for group in groups):
        for group in groups:
            group.setdefault(_FIRST_LR, float(group.get("initial_lr", group["lr"])))
        reference = next((group[_FIRST_LR] for group in groups if group[_FIRST_LR] > 0), None)
        for group in groups:
            group.setdefault(_RATIO, 1.0 if reference is None else group[_FIRST_LR] / reference)
    if not all(_DECAYS in group for group in groups):
        for group, decays in zip(groups, _decays(groups), strict=True):
            group[_DECAYS] = decays


def _decays(groups: list[dict[str, Any]]) -> list[bool]:
    own = [float(group.get("weight_decay", 0.0)) > 0 for group in groups]
    return [group.get(_DECAYS, decays or not any(own)) for group, decays in zip(groups, own, strict=True)]


def _set(group: dict[str, Any], key: str, value: float) -> None:
    if isinstance(group[key], torch.Tensor):  # captured or compiled steps read the tensor's place in memory
        group[key].fill_(value)
    else:
        group[key] = value
