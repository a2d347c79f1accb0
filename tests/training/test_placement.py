from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from optuna_discipline.rules.schedule import OneCycle
from optuna_discipline.training import loop
from optuna_discipline.training.batch_size import samples_per_second
from optuna_discipline.training.loop import train_epochs
from optuna_discipline.training.lr_range_test import lr_range_test
from optuna_discipline.training.placement import moved

CPU, GPU = torch.device("cpu"), torch.device("meta")  # which stands for a GPU
X = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()


class Movable(nn.Parameter):
    """A parameter that keeps its identity when it is moved, as one does from the CPU to a GPU."""

    device = property(lambda self: self.__dict__.get("where", CPU))  # type: ignore[assignment]


class MovableNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = Movable(torch.zeros(3))

    def to(self, device: Any) -> Any:  # type: ignore[override]
        self.weight.where = device
        for part in filter(lambda part: part is not None, (self.weight, self.weight.grad)):
            part.data = part.data.clone()
        return self


class Stuck(Movable):
    """Cannot be given its old memory, as one that was swapped for one of another kind."""

    @property  # type: ignore[override]
    def data(self) -> torch.Tensor:
        return self.detach()

    @data.setter
    def data(self, content: torch.Tensor) -> None:
        raise RuntimeError("stuck")


class Fixed(nn.Linear):
    """Refuses to be moved, as a quantized model does, or one that lies over several devices."""

    def to(self, *args: Any, **settings: Any) -> Any:
        raise ValueError("`.to` is not supported")


def test_an_optimizer_is_made_where_the_model_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.optim.Optimizer] = []

    def adagrad(groups: Any, lr: float) -> torch.optim.Optimizer:
        seen.append(torch.optim.Adagrad(groups, lr=lr))
        return seen[-1]

    monkeypatch.setattr(loop, "resolve_device", lambda model, device: GPU)
    model, loss_fn = nn.Linear(4, 2), nn.CrossEntropyLoss(weight=torch.ones(2))
    train_epochs(model, loss_fn, (X, Y), None, OneCycle(0.1, 1), optimizer=adagrad)
    assert {state["sum"].device for state in seen[0].state.values()} == {GPU}
    assert model.weight.device == loss_fn.weight.device == GPU  # type: ignore[union-attr]
    assert set(seen[0].state) == set(model.parameters())


def test_a_training_that_is_refused_leaves_everything_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "resolve_device", lambda model, device: GPU)
    model, loss_fn = nn.Sequential(nn.Linear(4, 2), nn.BatchNorm1d(2)), nn.CrossEntropyLoss(weight=torch.ones(2))
    model[0].weight.grad = grad = torch.ones(2, 4)
    before = [*model.parameters(), *model.buffers(), *loss_fn.buffers()]
    with pytest.raises(ValueError, match="`amp` must be one of"):
        train_epochs(model, loss_fn, (X, Y), None, OneCycle(0.1, 1), amp="half")  # type: ignore[arg-type]
    after = [*model.parameters(), *model.buffers(), *loss_fn.buffers()]
    assert [id(tensor) for tensor in after] == [id(tensor) for tensor in before]
    assert {tensor.device for tensor in after} == {CPU}
    assert model[0].weight.grad is grad
    assert grad.tolist() == [[1.0] * 4] * 2


def test_the_state_of_a_given_optimizer_comes_along_and_its_count_stays() -> None:
    model = MovableNet()
    optimizer = torch.optim.Adam(model.parameters())
    with FakeTensorMode():
        elsewhere = torch.zeros(3, device="cuda:1")
    state = {"step": torch.zeros(()), "exp_avg": torch.zeros(3), "paged": elsewhere, "number": 1}
    optimizer.state[model.weight] = dict(state)

    def refuse() -> None:
        now = optimizer.state[model.weight]
        assert (now["step"].device, now["exp_avg"].device, now["number"]) == (CPU, GPU, 1)
        assert now["paged"] is elsewhere
        raise KeyError("refused")

    with pytest.raises(KeyError, match="refused"), moved(model, None, optimizer, GPU, named=True):
        refuse()
    assert all(optimizer.state[model.weight][key] is value for key, value in state.items())
    for flag in ("capturable", "fused"):
        model.to(CPU)
        optimizer.state[model.weight] = dict(state)
        optimizer.param_groups[0].update({"capturable": False, "fused": None, flag: True})
        with moved(model, None, optimizer, GPU, named=True):
            assert optimizer.state[model.weight]["step"].device == GPU


def test_what_a_move_put_elsewhere_stands_in_its_old_memory_again() -> None:
    model = MovableNet()
    model.weight.grad = torch.ones(3)
    parts = [model.weight, model.weight.grad]
    places = [part.data_ptr() for part in parts]

    def refuse() -> None:
        assert not set(places) & {part.data_ptr() for part in parts}
        raise KeyError("refused")

    with pytest.raises(KeyError, match="refused"), moved(model, None, None, GPU, named=True):
        refuse()
    assert [part.data_ptr() for part in parts] == places


def test_what_cannot_go_back_hides_no_error_and_keeps_nothing_else_away() -> None:
    model = nn.Sequential(nn.Linear(4, 2), nn.Linear(4, 2), nn.Linear(4, 2))
    model[1].weight = Stuck(torch.zeros(2, 4))
    before = list(model.parameters())
    with pytest.raises(KeyError, match="refused"), moved(model, None, None, GPU, named=True):
        raise KeyError("refused")
    assert all(now is then for now, then in zip(model.parameters(), before, strict=True))


def test_a_buffer_that_is_no_leaf_is_moved_without_a_warning() -> None:
    model = nn.Linear(4, 2)
    model.register_buffer("start", start := model.weight * 1)  # a forgotten detach
    assert samples_per_second(model, (X, Y), 2, nn.CrossEntropyLoss(), seconds=0.001) > 0
    with pytest.raises(KeyError, match="refused"), moved(model, None, None, GPU, named=True):
        raise KeyError("refused")
    assert model.start is start
    assert start.device == CPU


def test_a_model_that_is_there_is_not_asked_to_move() -> None:
    model, loss_fn = Fixed(4, 2), nn.CrossEntropyLoss(weight=torch.ones(2))
    for device in (None, "cpu"):
        assert len(list(train_epochs(model, loss_fn, (X, Y), None, OneCycle(0.1, 1), device=device))) == 1
        assert lr_range_test(model, loss_fn, (X, Y), num_steps=2, device=device).stop_reason == "end of range"
        assert samples_per_second(model, (X, Y), 2, loss_fn, seconds=0.001, device=device) > 0


def test_a_model_over_several_devices_is_gathered_only_on_one_that_was_named() -> None:
    model = nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 2, device=GPU))
    loss_fn = nn.CrossEntropyLoss(weight=torch.ones(2))
    with moved(model, loss_fn, None, GPU, named=False):
        assert [part.weight.device for part in model] == [CPU, GPU]
        assert loss_fn.weight.device == GPU  # type: ignore[union-attr]
    with moved(model, loss_fn, None, GPU, named=True):
        assert [part.weight.device for part in model] == [GPU, GPU]
