"""A training saved at the end of an epoch, so that it goes on elsewhere: in another process, on another device."""

import copy
import dataclasses
import math
import os
import pickle
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from typing import Protocol

import torch
from torch import nn

from optuna_discipline.exceptions import DisciplineError
from optuna_discipline.rules.curve import EpochLog
from optuna_discipline.training.random_state import RandomStates
from optuna_discipline.training.random_state import generators_of
from optuna_discipline.training.snapshot import Snapshot
from optuna_discipline.training.step import map_leaves
from optuna_discipline.training.update import Updater

FORMAT = 3
_KEEPING = ("amsgrad", "centered", "momentum")  # by these values of a group an optimizer keeps more or less
_OUTSIDE = "place "  # what is trained and belongs to neither model nor loss
_FIT_ERRORS = (RuntimeError, ValueError, TypeError, KeyError, AttributeError)
_READ_ERRORS = (*_FIT_ERRORS, OSError, EOFError, pickle.UnpicklingError)


@dataclass(frozen=True, eq=False)
class SavedState:
    """Where a training stood at the end of an epoch: tensors on the CPU, numbers and texts, nothing else.

    The values of the optimizer's parameter groups are left out on purpose: learning rate and momentum are those of the
    step, the weight decay is that of the run that goes on.

    Attributes:
        logs: The epochs so far; the next one follows the last.
        steps: Optimizer updates done, the position in the schedule.
        total_steps: Updates of the whole schedule.
        updates_per_epoch: Updates of one pass over the data, None where it has no length.
        model: `state_dict` of the model.
        buffers: All buffers by name, those too that a `state_dict` leaves out.
        loss_fn: `state_dict` of a loss that is a module, else None.
        optimizer_name: The optimizer's class, since another one keeps something else.
        optimizer: Momentum buffers and the like, by the name of their parameter.
        kept: For each parameter that the optimizer trains, the settings that make it keep more: amsgrad, for instance.
        scaler: State of the gradient scaler, None without one.
        random: Global random generators, see `RandomStates.to_dict`.
        generators: Generators of the loaders, in their order: with the end of an epoch they are the loaders' position.
    """

    logs: tuple[EpochLog, ...]
    steps: int
    total_steps: int
    updates_per_epoch: int | None
    model: dict[str, Any]
    buffers: dict[str, torch.Tensor]
    loss_fn: dict[str, Any] | None
    optimizer_name: str
    optimizer: dict[str, Any]
    kept: dict[str, list[str]]
    scaler: dict[str, Any] | None
    random: dict[str, Any]
    generators: tuple[torch.Tensor, ...]

    def __post_init__(self) -> None:
        if not self.logs or not 0 < self.steps < self.total_steps:
            raise ValueError(
                f"a saved training has epochs behind it and steps before it, but got {len(self.logs)} epochs, "
                f"{self.steps=}, {self.total_steps=}."
            )


class Snapshots(Protocol):
    """Where a training is saved and from where it goes on, such as `SnapshotRestarts.of(trial)`."""

    def load(self) -> SavedState | None:
        """Return the state to go on from, None to begin anew."""
        ...

    def went_on(self, state: SavedState, /) -> None:
        """Note that the loaded state fits and the training goes on from it; not called where it begins anew."""
        ...

    def is_wanted(self, logs: Sequence[EpochLog], n_epochs: int, /) -> bool:
        """Return whether to save now, after the epochs so far; asked after every epoch but the last."""
        ...

    def save(self, state: SavedState, /) -> None:
        """Keep a state."""
        ...


def check_snapshots(snapshots: object) -> None:
    """Check that these are `Snapshots`, or None.

    Raises:
        ValueError: If they are neither.
    """
    if snapshots is not None and not all(hasattr(snapshots, name) for name in ("load", "went_on", "is_wanted", "save")):
        raise ValueError(
            "`snapshots` must be those of a trial, such as SnapshotRestarts(folder).of(trial), but got "
            f"{snapshots!r:.80}."
        )


def capture_state(
    model: nn.Module,
    updater: Updater,
    logs: tuple[EpochLog, ...],
    steps: int,
    total_steps: int,
    updates_per_epoch: int | None,
    *loaders: object,
) -> SavedState:
    """Copy a training as it stands now, to the CPU; call it where its random generators are the global ones."""
    random = RandomStates.capture(generators_of(*loaders), updater.device)
    return SavedState(
        logs=logs,
        steps=steps,
        total_steps=total_steps,
        updates_per_epoch=updates_per_epoch,
        model=_to_cpu(model.state_dict()),
        buffers=_to_cpu(dict(model.named_buffers())),
        loss_fn=_to_cpu(updater.loss_fn.state_dict()) if isinstance(updater.loss_fn, nn.Module) else None,
        optimizer_name=type(updater.optimizer).__name__,
        optimizer=_to_cpu(_optimizer_state(model, updater)),
        kept=_kept(model, updater),
        scaler=None if updater.scaler is None else _to_cpu(updater.scaler.state_dict()),
        random=random.to_dict(),
        generators=tuple(state for _, state in random.generators),
    )


def apply_state(
    state: SavedState,
    model: nn.Module,
    updater: Updater,
    n_epochs: int,
    total_steps: int,
    updates_per_epoch: int | None,
    *loaders: object,
) -> RandomStates | None:
    """Put a saved training into a fresh one; on any error nothing is changed, and a warning says why.

    Returns:
        The random states with which the training goes on; None if it has to begin anew.
    """
    generators = generators_of(*loaders)
    before = None
    try:
        before = Snapshot.capture(model, updater.optimizer, updater.scaler, updater.loss_fn, generators, updater.device)
        _check_plan_fits(state, n_epochs, total_steps, updates_per_epoch)
        _check_fits(state, generators, updater)
        model.load_state_dict(state.model)
        _load_buffers(model, state.buffers)
        if state.loss_fn is not None and isinstance(updater.loss_fn, nn.Module):
            updater.loss_fn.load_state_dict(state.loss_fn)
        _check_kept(state.kept, _kept(model, updater))
        _load_optimizer(model, updater, state.optimizer)
        if updater.scaler is not None and state.scaler is not None:
            updater.scaler.load_state_dict(copy.deepcopy(state.scaler))
        random = RandomStates.from_dict(state.random)
        for generator, saved in zip(generators, state.generators, strict=True):
            generator.set_state(saved)
    except _FIT_ERRORS as error:
        if before is not None:
            before.restore()
        warnings.warn(f"The saved training does not fit this one, which begins anew: {error}", stacklevel=2)
        return None
    return random


def write_state(state: SavedState, path: str | os.PathLike[str]) -> None:
    """Write a file beside its place and rename it there, so that nobody ever reads half of one."""
    target = Path(path)
    beside = target.with_name(f"{target.name}.{os.getpid()}.tmp")
    content = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    content["logs"] = [list(dataclasses.astuple(log)) for log in state.logs]
    try:
        torch.save({"format": FORMAT, **content}, beside)
        os.replace(beside, target)
    finally:
        beside.unlink(missing_ok=True)


def read_state(path: str | os.PathLike[str]) -> SavedState:
    """Read what `write_state` wrote, onto the CPU; nothing in the file is executed.

    Raises:
        DisciplineError: If the file is absent, damaged, or of another version.
    """
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
        if stored.pop("format") != FORMAT:
            raise ValueError("another version wrote it")
        stored["logs"] = tuple(EpochLog(*row) for row in stored["logs"])
        return SavedState(**stored)
    except _READ_ERRORS as error:
        raise DisciplineError(f"The saved training {os.fspath(path)!r} cannot be read: {error}") from error


def _check_plan_fits(state: SavedState, n_epochs: int, total_steps: int, updates_per_epoch: int | None) -> None:
    """Check that as many epochs and updates lie behind and ahead here as they did there."""
    if state.total_steps != total_steps:
        raise ValueError(f"its schedule has {state.total_steps} updates, this one {total_steps}")
    if state.updates_per_epoch != updates_per_epoch:
        raise ValueError(
            f"its epochs have {state.updates_per_epoch} updates, these {updates_per_epoch}: keep `batch_size` and "
            "`accumulate` as they were"
        )
    if len(state.logs) > n_epochs:
        raise ValueError(f"it has {len(state.logs)} epochs behind it, this one {n_epochs} in all")


def _check_fits(state: SavedState, generators: tuple[torch.Generator, ...], updater: Updater) -> None:
    if state.optimizer_name != (own := type(updater.optimizer).__name__):
        raise ValueError(f"its optimizer is {state.optimizer_name}, this one {own}")
    if len(state.generators) != len(generators):
        raise ValueError(f"its loaders have {len(state.generators)} random generators, these {len(generators)}")
    if (state.scaler is None) != (updater.scaler is None):
        raise ValueError("only one of them scales its gradients (amp='fp16')")
    if not all(math.isfinite(x) for x in (state.logs[-1].train_loss, state.logs[-1].val_loss) if x is not None):
        raise ValueError("its loss is not a number")


def _load_buffers(model: nn.Module, buffers: dict[str, torch.Tensor]) -> None:
    own = dict(model.named_buffers())
    if own.keys() != buffers.keys():
        raise ValueError(f"its buffers are {sorted(buffers)}, these {sorted(own)}")
    with torch.no_grad():
        for name, buffer in own.items():
            buffer.copy_(buffers[name])


def _optimizer_state(model: nn.Module, updater: Updater) -> dict[str, Any]:
    names = dict(enumerate(_names_of_parameters(model, updater)))  # some optimizers keep more than what is of a place
    return {names.get(place, place): part for place, part in updater.optimizer.state_dict()["state"].items()}


def _kept(model: nn.Module, updater: Updater) -> dict[str, list[str]]:
    """Return by parameter that is trained which of `_KEEPING` are on."""
    groups = updater.optimizer.param_groups
    settings = [(p, [name for name in _KEEPING if group.get(name)]) for group in groups for p in group["params"]]
    named = zip(_names_of_parameters(model, updater), settings, strict=True)
    return {name: kept for name, (parameter, kept) in named if parameter.requires_grad}


def _check_kept(saved: dict[str, list[str]], own: dict[str, list[str]]) -> None:
    """Check that for what trains here all is there that the optimizer's next step asks for."""
    if any(name.startswith(_OUTSIDE) for name in (*saved, *own)):
        raise ValueError("an optimizer trains parameters of neither model nor loss, whose values are not saved")
    if new := sorted(own.keys() - saved.keys()):
        raise ValueError(f"its optimizer does not train {', '.join(new)}, this one does")
    if missing := sorted({setting for name, kept in own.items() for setting in kept if setting not in saved[name]}):
        raise ValueError(f"its optimizer was without {', '.join(missing)}, this one is not")


def _load_optimizer(model: nn.Module, updater: Updater, state: dict[str, Any]) -> None:
    """Load the state alone: the groups keep what they are given, above all their weight decay."""
    places = {name: place for place, name in enumerate(_names_of_parameters(model, updater))}
    if unknown := sorted(state.keys() - places.keys()):
        raise ValueError(f"its optimizer holds {', '.join(unknown)}, this one does not")
    # A copy, since `load_state_dict` keeps the very tensors that it is given.
    by_place = {places[name]: copy.deepcopy(part) for name, part in state.items()}
    groups = updater.optimizer.state_dict()["param_groups"]
    updater.optimizer.load_state_dict({"state": by_place, "param_groups": groups})


def _names_of_parameters(model: nn.Module, updater: Updater) -> list[str]:
    """Return a name for each place in the optimizer, whose groups may be divided in another way when it goes on."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    if isinstance(updater.loss_fn, nn.Module):
        names = {id(parameter): f"loss_fn:{name}" for name, parameter in updater.loss_fn.named_parameters()} | names
    parameters = [parameter for group in updater.optimizer.param_groups for parameter in group["params"]]
    return [names.get(id(parameter), f"{_OUTSIDE}{place}") for place, parameter in enumerate(parameters)]


def _to_cpu(value: Any) -> Any:
    """Return plain containers with detached copies of all tensors on the CPU."""
    return map_leaves(
        value, lambda part: part.detach().to("cpu", copy=True) if isinstance(part, torch.Tensor) else part
    )
