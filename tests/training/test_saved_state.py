import dataclasses
import math
import pickle
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from typing import NamedTuple

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader
from torch.utils.data import DistributedSampler
from torch.utils.data import TensorDataset

from optuna_discipline.exceptions import DisciplineError
from optuna_discipline.rules.curve import EpochLog
from optuna_discipline.rules.schedule import OneCycle
from optuna_discipline.training import saved_state
from optuna_discipline.training.loop import train_epochs
from optuna_discipline.training.saved_state import SavedState
from optuna_discipline.training.saved_state import read_state
from optuna_discipline.training.saved_state import write_state

X = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()
CYCLE = OneCycle(0.1, 6 * 4)
CONSTANT = SimpleNamespace(total_steps=6 * 4, lr=lambda step: 0.1, momentum=lambda step: 0.9)


class Net(nn.Module):
    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.Dropout(0.3), nn.Linear(width, 2))
        self.register_buffer("calls", torch.zeros(()), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.calls += 1
        out: torch.Tensor = self.layers(x) + 1e-3 * self.calls
        return out


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(output * self.scale, target)


class Keeper:
    """Saves after some epochs, and gives what it was given."""

    def __init__(self, after: int = 3, given: SavedState | None = None) -> None:
        self.after, self.given, self.saved = after, given, None
        self.noted: SavedState | None = None

    def load(self) -> SavedState | None:
        return self.given

    def went_on(self, state: SavedState) -> None:
        self.noted = state

    def is_wanted(self, logs: Sequence[EpochLog], n_epochs: int) -> bool:
        return len(logs) == self.after

    def save(self, state: SavedState) -> None:
        self.saved: SavedState | None = state


def net(seed: int = 0, width: int = 8) -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Net(width)


def loader() -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(5)
    return DataLoader(TensorDataset(X, Y), batch_size=10, shuffle=True, generator=generator)


def run(keeper: Keeper | None, model: Net | None = None, **options: Any) -> list[EpochLog]:
    train = options.pop("train", (X, Y))
    settings: dict[str, Any] = {"schedule": CYCLE, "seed": 0, "weight_decay": 1e-2, **options}
    if isinstance(train, tuple):
        settings.setdefault("batch_size", 10)
    return list(train_epochs(model or net(), nn.CrossEntropyLoss(), train, (X, Y), snapshots=keeper, **settings))


def saved(tmp_path: Path, **options: Any) -> SavedState:
    keeper = Keeper()
    run(keeper, **options)
    assert keeper.saved is not None
    write_state(keeper.saved, tmp_path / "state.pt")
    return read_state(tmp_path / "state.pt")


@pytest.mark.parametrize("options", [{}, {"optimizer": "adamw"}, {"seed": None}, {"accumulate": 1, "clip_norm": 0.1}])
@pytest.mark.parametrize("kind", ["tensors", "loader", "told the epoch"])
def test_a_restart_from_a_file_goes_on_exactly_as_the_run_that_was_saved(
    tmp_path: Path, options: Any, kind: str
) -> None:
    def data() -> Any:
        if kind == "told the epoch":
            return DataLoader(TensorDataset(X, Y), 10, sampler=DistributedSampler(X, 1, 0))  # type: ignore[arg-type]
        return loader() if kind == "loader" else (X, Y)

    torch.manual_seed(3)
    whole = run(Keeper(), train=data(), **options)
    torch.manual_seed(3)
    state = saved(tmp_path, train=data(), **options)
    torch.manual_seed(99)
    model = net(seed=7)
    keeper = Keeper(given=state)
    assert run(keeper, model, train=data(), **options) == whole
    assert keeper.noted is state
    assert model.calls == 24


def test_fp16_goes_on_with_the_scale_that_it_had(tmp_path: Path) -> None:
    if not hasattr(torch.amp, "GradScaler"):
        pytest.skip("torch 2.2 scales gradients on CUDA only")
    state = saved(tmp_path, amp="fp16")
    assert state.scaler is not None
    assert run(Keeper(given=state), amp="fp16") == run(Keeper(), amp="fp16")
    with pytest.warns(UserWarning, match="only one of them scales its gradients"):
        run(Keeper(given=state))


def test_a_restart_has_the_weight_decay_of_its_own_run(tmp_path: Path) -> None:
    state = saved(tmp_path)
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.9, nesterov=True)
    seen = []
    optimizer.register_step_pre_hook(lambda o, *_: seen.append(o.param_groups[0]["weight_decay"]))
    strong = run(Keeper(given=state), model, optimizer=optimizer, weight_decay=0.5)
    assert seen == [0.5] * 12  # the last three epochs
    assert strong[:3] == run(None)[:3]
    assert strong[3:] != run(None)[3:]


def test_groups_divided_in_another_way_keep_each_parameters_momentum(tmp_path: Path) -> None:
    state = saved(tmp_path, weight_decay=0.0)
    assert run(Keeper(given=state), weight_decay=0.0, decay_bias_and_norm=False) == run(None, weight_decay=0.0)


def test_an_optimizer_that_keeps_more_than_a_state_of_each_parameter_begins_anew(tmp_path: Path) -> None:
    class Counting(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            self.state["calls"] = {"n": 1}  # type: ignore[index]
            return super().step(closure)

    state = saved(tmp_path, optimizer=Counting)
    with pytest.warns(UserWarning, match="begins anew: its optimizer holds calls, this one does not"):
        run(Keeper(given=state), optimizer=Counting)


def test_a_loss_with_parameters_of_its_own_goes_on_too() -> None:
    def trained(keeper: Keeper) -> tuple[list[EpochLog], torch.Tensor]:
        model, loss = net(), Scaled()
        optimizer = torch.optim.SGD([*loss.parameters(), *model.parameters()], lr=0.1, momentum=0.9)
        logs = train_epochs(model, loss, (X, Y), None, CYCLE, optimizer=optimizer, batch_size=10, snapshots=keeper)
        return list(logs), loss.scale.detach()

    torch.manual_seed(0)
    keeper = Keeper()
    whole = trained(keeper)
    assert keeper.saved is not None
    assert "loss_fn:scale" in keeper.saved.optimizer
    assert trained(Keeper(given=keeper.saved)) == whole


class Rotary(nn.Module):
    """Keeps the angles of the last length: numbers that vouch for a tensor, neither of which is saved."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.length = nn.Linear(4, 2), 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.length != x.shape[1]:
            self.length = x.shape[1]
            self.cosines = torch.arange(self.length).cos()
        out: torch.Tensor = self.head(x * self.cosines)
        return out


def test_a_cache_behind_a_number_is_made_anew_where_a_training_goes_on() -> None:
    def trained(keeper: Keeper) -> list[EpochLog]:
        torch.manual_seed(0)
        logs = train_epochs(Rotary(), nn.CrossEntropyLoss(), (X, Y), None, CYCLE, batch_size=10, snapshots=keeper)
        return list(logs)

    keeper = Keeper()
    whole = trained(keeper)
    again = Keeper(given=keeper.saved)
    assert trained(again) == whole
    assert again.noted is keeper.saved is not None


def test_restarts_from_one_state_do_not_disturb_each_other(tmp_path: Path) -> None:
    state = saved(tmp_path)
    first = run(Keeper(given=state), weight_decay=1e-3)
    run(Keeper(given=state), weight_decay=1.0)
    assert run(Keeper(given=state), weight_decay=1e-3) == first


def test_saving_changes_nothing_and_happens_when_asked() -> None:
    assert run(Keeper(after=2)) == run(None)
    keeper = Keeper(after=6)  # the end of the run
    run(keeper)
    assert keeper.saved is None


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_callers_random_state_is_left_alone_by_a_restart(tmp_path: Path, optimizer: str) -> None:
    state = saved(tmp_path, optimizer=optimizer, train=loader())
    torch.manual_seed(11)
    before = torch.get_rng_state()
    run(Keeper(given=state), optimizer=optimizer, seed=None, train=loader())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"model": net(width=9)}, "size mismatch"),
        ({"schedule": OneCycle(0.1, 28)}, "its schedule has 24 updates, this one 28"),
        ({"batch_size": 20}, "its epochs have 4 updates, these 2: keep `batch_size`"),
        ({"batch_size": 4}, "its epochs have 4 updates, these 10"),
        ({"accumulate": 4}, "its epochs have 4 updates, these 1"),
        ({"schedule": CONSTANT, "n_epochs": 2}, "it has 3 epochs behind it, this one 2 in all"),
        ({"optimizer": "adam"}, "its optimizer is SGD, this one Adam"),
        ({"train": [(X, Y)] * 4}, "its loaders have 2 random generators, these 1"),
        (
            {"optimizer": lambda p: torch.optim.SGD(list(p[0]["params"])[:2], lr=0.1)},
            "its optimizer holds layers.1.bias, layers.1.weight, layers.3.bias, layers.3.weight, this one does not",
        ),
    ],
)
def test_a_state_that_does_not_fit_is_left_with_a_warning(tmp_path: Path, options: Any, why: str) -> None:
    state = saved(tmp_path)
    fresh = run(None, **{**options, **({"model": net(width=9)} if "model" in options else {})})
    keeper = Keeper(given=state)
    with pytest.warns(UserWarning, match=rf"(?s)does not fit this one, which begins anew: .*{why}"):
        assert run(keeper, **options) == fresh
    assert keeper.noted is None


def test_no_memory_to_try_a_state_in_costs_the_state_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    keeper, fresh = Keeper(given=saved(tmp_path)), run(None)
    monkeypatch.setattr(saved_state.Snapshot, "capture", fail)
    with pytest.warns(UserWarning, match="begins anew: CUDA out of memory"):
        assert run(keeper) == fresh
    assert keeper.noted is None


def adam(amsgrad: bool) -> Any:
    return {"optimizer": lambda p: torch.optim.Adam(p, lr=0.1, amsgrad=amsgrad)}


def rmsprop(momentum: float, centered: bool = False) -> Any:
    schedule = SimpleNamespace(total_steps=6 * 4, lr=lambda step: 0.01, momentum=lambda step: momentum)
    return {"schedule": schedule, "optimizer": lambda p: torch.optim.RMSprop(p, lr=0.01, centered=centered)}


@pytest.mark.parametrize(
    ("there", "here", "why"),
    [
        (adam(False), adam(True), "its optimizer was without amsgrad, this one is not"),
        (rmsprop(0.0), rmsprop(0.9, centered=True), "its optimizer was without centered, momentum, this one is not"),
        (
            {"optimizer": lambda p: torch.optim.SGD(list(p[0]["params"])[2:], lr=0.1)},
            {"optimizer": lambda p: torch.optim.SGD(p, lr=0.1)},
            "its optimizer does not train layers.0.bias, layers.0.weight, this one does",
        ),
    ],
)
def test_an_optimizer_that_asks_for_what_was_not_kept_begins_anew(
    tmp_path: Path, there: Any, here: Any, why: str
) -> None:
    state = saved(tmp_path, **there)
    with pytest.warns(UserWarning, match=f"which begins anew: .*{why}"):
        assert run(Keeper(given=state), **here) == run(None, **here)
    assert run(Keeper(given=state), **there) == run(None, **there)


def test_a_momentum_that_rises_from_0_goes_on() -> None:
    rising = SimpleNamespace(total_steps=24, lr=lambda step: 0.1, momentum=lambda step: step / 30)
    keeper = Keeper()
    whole = run(keeper, schedule=rising)
    assert run(Keeper(given=keeper.saved), schedule=rising) == whole


def test_parameters_without_a_gradient_or_thawed_on_the_way_are_no_reason_to_begin_anew() -> None:
    def trained(keeper: Keeper) -> list[EpochLog]:
        model = net()
        model.unused = nn.Linear(1, 1)
        model.layers[0].requires_grad_(False)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        logs = []
        for log in train_epochs(
            model,
            nn.CrossEntropyLoss(),
            (X, Y),
            None,
            CYCLE,
            optimizer=optimizer,
            seed=0,
            batch_size=10,
            snapshots=keeper,
        ):
            logs.append(log)
            model.layers[0].requires_grad_(log.epoch > 0)
        return logs

    keeper = Keeper()
    whole = trained(keeper)
    assert keeper.saved is not None
    assert trained(Keeper(given=keeper.saved)) == whole


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_what_is_trained_outside_of_model_and_loss_cannot_go_on(momentum: float) -> None:
    def trained(keeper: Keeper) -> list[EpochLog]:
        model, scale = net(), nn.Parameter(torch.ones(()))
        optimizer = torch.optim.SGD([*model.parameters(), scale], lr=0.1)
        schedule = SimpleNamespace(total_steps=24, lr=lambda step: 0.1, momentum=lambda step: momentum)

        def loss_fn(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            return nn.functional.cross_entropy(output * scale, target)

        settings: Any = {"optimizer": optimizer, "batch_size": 10, "seed": 0, "snapshots": keeper}
        return list(train_epochs(model, loss_fn, (X, Y), None, schedule, **settings))

    keeper = Keeper()
    whole = trained(keeper)
    with pytest.warns(UserWarning, match="begins anew: an optimizer trains parameters of neither model nor loss"):
        assert trained(Keeper(given=keeper.saved)) == whole


@pytest.mark.parametrize("damage", ["cut", "text", "empty", "absent", "other", "code"])
def test_a_damaged_file_is_told_and_nothing_in_it_is_executed(tmp_path: Path, damage: str) -> None:
    saved(tmp_path)
    path = tmp_path / "state.pt"
    content = path.read_bytes()
    if damage == "absent":
        path.unlink()
    elif damage == "other":
        torch.save({"format": 99}, path)
    elif damage == "code":
        path.write_bytes(pickle.dumps(_Executed(), protocol=2))
    else:
        path.write_bytes({"cut": content[: len(content) // 2], "text": b"hello", "empty": b""}[damage])
    with pytest.raises(DisciplineError, match="cannot be read"):
        read_state(path)
    assert not _Executed.ran


class _Executed:
    ran = False

    def __reduce__(self) -> Any:
        return setattr, (_Executed, "ran", True)


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = saved(tmp_path)
    path = tmp_path / "state.pt"
    before = path.read_bytes()

    def die(content: object, target: Path) -> None:
        Path(target).write_bytes(b"half")
        raise OSError("the disk is full")

    monkeypatch.setattr(torch, "save", die)
    with pytest.raises(OSError, match="the disk is full"):
        write_state(state, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["state.pt"]


class Moments(NamedTuple):
    mean: torch.Tensor
    count: int


def test_a_state_is_a_copy_of_its_tensors_in_containers_of_any_kind() -> None:
    tensor = torch.ones(2, requires_grad=True)
    given = OrderedDict(state=[Moments(tensor, 3), (tensor, None)], groups={"lr": 0.1, "more": [{"beta": tensor}]})
    kept = saved_state._to_cpu(given)
    assert type(kept) is dict
    copies = [kept["state"][0].mean, kept["state"][1][0], kept["groups"]["more"][0]["beta"]]
    with torch.no_grad():
        tensor.zero_()
    assert [copy.tolist() for copy in copies] == [[1, 1]] * 3
    assert not any(copy.requires_grad for copy in copies)
    assert isinstance(kept["state"][0], Moments)
    assert (kept["state"][0].count, kept["state"][1][1], kept["groups"]["lr"]) == (3, None, 0.1)


def test_a_state_without_a_past_or_a_future_is_refused(tmp_path: Path) -> None:
    state = saved(tmp_path)
    with pytest.raises(ValueError, match="has epochs behind it and steps before it"):
        dataclasses.replace(state, steps=24)
    broken = dataclasses.replace(state, logs=(EpochLog(0, 0.1, math.nan, math.nan),))
    with pytest.warns(UserWarning, match="its loss is not a number"):
        run(Keeper(given=broken))
