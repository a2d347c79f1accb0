import copy
import math
import random
from collections import Counter
from collections import deque
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from optuna_discipline.training.snapshot import Snapshot
from optuna_discipline.training.snapshot import preserved


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 4)
        self.norm = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 2)
        self.head.bias.requires_grad_(False)
        self.register_buffer("calls", torch.zeros(()), persistent=False)
        self.register_buffer("empty", None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.head(self.norm(self.linear(x)))  # type: ignore[no-any-return]


class Recurrent(nn.Module):
    """Keeps a counter, its hidden state, and what it has first seen."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRU(3, 4, batch_first=True)
        self.head = nn.Linear(4, 2)
        self.steps = 7
        self.hidden: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.steps += 1
        self.first = x
        output, hidden = self.cell(x[:, None], self.hidden)
        self.hidden = hidden.detach()
        return self.head(output[:, 0])  # type: ignore[no-any-return]


def facts(model: nn.Module, optimizer: torch.optim.Optimizer) -> Any:
    """Everything that must come back, as plain copies."""
    return copy.deepcopy(
        {
            "parameters": [(p.data, p.grad, p.requires_grad) for p in model.parameters()],
            "buffers": dict(model.named_buffers()),
            "modes": [m.training for m in model.modules()],
            "optimizer": optimizer.state_dict(),
            "rng": (random.getstate(), np.random.get_state(), torch.get_rng_state()),
        }
    )


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return bool(np.array_equal(a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 3) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(5, 3)).square().mean().backward()
        optimizer.step()


def spoil(model: Net, optimizer: torch.optim.Optimizer) -> None:
    train(model, optimizer)
    model.norm.eval()
    model.head.bias.requires_grad_(True)
    model.empty = torch.ones(2)
    model.register_buffer("late", torch.ones(1))
    optimizer.param_groups[0]["lr"] = 9.0
    optimizer.param_groups[0]["weight_decay"] = 9.0
    optimizer.param_groups[0]["extra"] = 1
    random.random(), np.random.rand(), torch.rand(3)


@pytest.fixture(params=["sgd", "adamw"])
def trained(request: pytest.FixtureRequest) -> tuple[Net, torch.optim.Optimizer]:
    model = Net()
    parameters = [{"params": model.linear.parameters(), "lr": 0.1}, {"params": model.head.parameters()}]
    if request.param == "sgd":
        optimizer: torch.optim.Optimizer = torch.optim.SGD(parameters, lr=0.01, momentum=0.9)
    else:
        optimizer = torch.optim.AdamW(parameters, lr=torch.tensor(0.01), foreach=False)
    train(model, optimizer)
    return model, optimizer


def test_everything_comes_back_exactly_and_more_than_once(trained: tuple[Net, torch.optim.Optimizer]) -> None:
    model, optimizer = trained
    before = facts(model, optimizer)
    snapshot = Snapshot.capture(model, optimizer)
    for _ in range(2):
        spoil(model, optimizer)
        assert not same(facts(model, optimizer), before)
        snapshot.restore()
        assert same(facts(model, optimizer), before)


def test_training_on_from_a_restart_repeats_itself(trained: tuple[Net, torch.optim.Optimizer]) -> None:
    model, optimizer = trained
    snapshot = Snapshot.capture(model, optimizer)
    train(model, optimizer)
    first = facts(model, optimizer)
    snapshot.restore()
    train(model, optimizer)
    assert same(facts(model, optimizer), first)


def test_identities_are_kept(trained: tuple[Net, torch.optim.Optimizer]) -> None:
    model, optimizer = trained
    moments = [value for values in optimizer.state.values() for value in values.values()]
    things = [*model.parameters(), *model.buffers(), *optimizer.param_groups, *moments]
    places = [tensor.data_ptr() for tensor in (*model.parameters(), *moments)]
    snapshot = Snapshot.capture(model, optimizer)
    spoil(model, optimizer)
    snapshot.restore()
    moments = [value for values in optimizer.state.values() for value in values.values()]
    after = [*model.parameters(), *model.buffers(), *optimizer.param_groups, *moments]
    assert all(a is b for a, b in zip(things, after, strict=True))
    assert [tensor.data_ptr() for tensor in (*model.parameters(), *moments)] == places


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
def test_nothing_is_copied_on_a_gpu() -> None:
    with FakeTensorMode():  # tensors without content, of a GPU that need not be there
        model = nn.BatchNorm1d(3, device="cuda")
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        snapshot = Snapshot.capture(model, optimizer)
        optimizer.step()
        model.zero_grad()
        snapshot.restore()
    (state,), held = snapshot._modules, snapshot._optimizer
    assert held is not None
    copies = [parameter.data for parameter in state.parameters] + [copied for _, copied in held.tensors]
    copies += [copied for _, copied in state.tensors]
    contents = [copied.content for copied in copies] + [
        p.grad_copy for p in state.parameters if p.grad_copy is not None
    ]
    assert len(contents) == 2 * 3 + 3
    assert {tensor.device.type for tensor in contents} == {"cpu"}
    moments = [value for values in optimizer.state.values() for value in values.values()]
    assert {tensor.device.type for tensor in (*model.parameters(), *model.buffers(), *moments)} == {"cuda"}
    assert all(p.grad is not None and p.grad.is_cuda for p in model.parameters())


def test_a_gradient_that_was_none_is_none_again() -> None:
    model = Net()
    snapshot = Snapshot.capture(model)
    model(torch.randn(4, 3)).sum().backward()
    snapshot.restore()
    assert all(p.grad is None for p in model.parameters())


def test_a_model_that_changed_its_dtype_comes_back_in_place() -> None:
    model = Net()
    weight, mean = model.linear.weight, model.norm.running_mean
    before = weight.detach().clone()
    snapshot = Snapshot.capture(model)
    model.double()
    snapshot.restore()
    assert model.linear.weight is weight
    assert model.norm.running_mean is mean
    assert torch.equal(weight, before)
    assert weight.dtype == torch.float32


def test_an_exception_still_gives_everything_back(trained: tuple[Net, torch.optim.Optimizer]) -> None:
    model, optimizer = trained
    before = facts(model, optimizer)

    def fail() -> None:
        with preserved(model, optimizer):
            spoil(model, optimizer)
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        fail()
    assert same(facts(model, optimizer), before)


class Locked(nn.Flatten):
    """Takes no other mode once it is locked, nor gives up its buffer's size."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("size", torch.ones(2))

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "training" and "locked" in vars(self):
            raise RuntimeError("locked")
        super().__setattr__(name, value)


def test_a_module_that_refuses_costs_no_other_its_mode_attributes_and_buffers() -> None:
    model = nn.Sequential(Locked(), Recurrent(), nn.BatchNorm1d(4))
    snapshot = Snapshot.capture(model)
    before = [dict(vars(module)) for module in model.modules()]
    model.eval()
    model[0].locked = True
    model[0].size.resize_(0)
    model[0].late = model[1].late = 1
    model[1].steps = 9
    model[2].running_mean = torch.full((4,), 9.0)
    model[2].num_batches_tracked += 5
    with pytest.raises(RuntimeError, match="locked"):
        snapshot.restore()
    assert [vars(module) for module in model.modules()] == before
    assert model[2].running_mean.tolist() == [0.0] * 4
    assert model[2].num_batches_tracked == 0


def test_what_cannot_be_given_back_costs_nothing_else() -> None:
    model = Net()
    model(torch.randn(4, 3)).sum().backward()
    grad, weight = model.linear.weight.grad, model.head.weight.detach().clone()
    state = torch.get_rng_state()
    assert grad is not None
    snapshot = Snapshot.capture(model)
    grad.resize_(0)
    model.head.weight.data.zero_()
    model.norm.running_mean = torch.full((4,), 9.0)
    model.eval()
    torch.rand(3)
    with pytest.raises(RuntimeError, match="size of tensor"):
        snapshot.restore()
    assert torch.equal(model.head.weight, weight)
    assert model.norm.running_mean.max() < 9  # type: ignore[union-attr]
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)


def test_what_cannot_be_written_in_place_comes_back_and_costs_nothing_else() -> None:
    model = Net()
    model.calls = torch.zeros(1).expand(2)
    optimizer = torch.optim.SGD(model.linear.parameters(), lr=0.1, momentum=0.9)
    optimizer.state = {
        p: {"ratio": torch.ones(1).expand(3), "momentum_buffer": p * 1} for p in model.linear.parameters()
    }
    momenta = [values["momentum_buffer"] for values in optimizer.state.values()]
    before = [(momentum.clone(), momentum.data_ptr()) for momentum in momenta]
    with preserved(model, optimizer):
        for values in optimizer.state.values():
            values["momentum_buffer"].data = torch.zeros(4, 3)
            values["ratio"].data = torch.zeros(3)
    assert [values["ratio"].tolist() for values in optimizer.state.values()] == [[1.0] * 3] * 2
    assert all(torch.equal(now, then) and now.data_ptr() == at for now, (then, at) in zip(momenta, before, strict=True))
    assert model.calls.tolist() == [0.0] * 2


def test_what_is_frozen_and_was_made_in_inference_mode_comes_back() -> None:
    model = Net()
    with torch.inference_mode():
        model.linear = nn.Linear(3, 4).requires_grad_(False)
        model.calls = torch.ones(())
    weight = model.linear.weight.clone()
    with preserved(model), torch.inference_mode():
        model.linear.weight.zero_()
        model.calls.zero_()
    assert torch.equal(model.linear.weight, weight)
    assert model.calls == 1


def test_the_loss_module_and_the_loaders_generators_come_back() -> None:
    loss_fn, generator = nn.BatchNorm1d(2), torch.Generator().manual_seed(1)
    state = generator.get_state()
    with preserved(nn.Linear(1, 1), loss_fn=loss_fn, generators=[generator]):
        loss_fn(torch.randn(4, 2))
        torch.rand(3, generator=generator)
    assert torch.equal(loss_fn.running_mean, torch.zeros(2))  # type: ignore[arg-type]
    assert torch.equal(generator.get_state(), state)


def test_the_scaler_comes_back() -> None:
    if not hasattr(torch.amp, "GradScaler"):
        pytest.skip("torch 2.2 scales gradients on CUDA only")
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    scaler.scale(torch.ones(()))
    before = Snapshot.capture(nn.Linear(1, 1), scaler=scaler)
    scaler.update(2.0)
    before.restore()
    assert scaler.get_scale() == 8.0


@pytest.mark.parametrize("begun", [False, True])
def test_a_counter_and_a_hidden_state_come_back(begun: bool) -> None:
    model = Recurrent()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    if begun:
        train(model, optimizer)
    before, hidden = dict(vars(model)), copy.deepcopy(model.hidden)
    with preserved(model, optimizer):
        train(model, optimizer)
        assert model.steps == before["steps"] + 3
    assert vars(model).keys() == before.keys()
    assert (model.steps, model.hidden) == (before["steps"], before["hidden"])
    assert hidden is None or torch.equal(model.hidden, hidden)  # type: ignore[arg-type]
    train(model, optimizer)  # the recurrent weights are still those of the cell
    assert not torch.isnan(model(torch.randn(5, 3))).any()


class Growing(nn.Module):
    """Makes a layer and a scale at its first forward pass, and keeps what it sees in containers and a tensor."""

    def __init__(self, seen: list[Any]) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.head: nn.Module | None = None
        self.register_parameter("scale", None)
        self.seen, self.counts, self.last = seen, {"train": Counter(a=1)}, deque([1], maxlen=2)
        self.mean, self.wide = torch.ones(2), torch.ones(1).expand(2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.head is None:
            self.head, self.scale = nn.Linear(2, 2), nn.Parameter(torch.ones(()))
        self.seen += [x]
        self.counts["train"]["a"] += 1
        self.last.append(2)
        self.mean.mul_(0.9)
        return self.head(self.linear(x)) * self.scale  # type: ignore[no-any-return]


def test_what_a_model_makes_at_its_first_pass_goes_and_what_its_containers_held_comes_back() -> None:
    shared = [1]
    model = nn.Sequential(Growing(shared), nn.Identity())
    model[1].seen = shared
    handle = model[0].register_forward_hook(lambda *_: handle.remove())
    things, keys = [model[0].counts["train"], model[0].last, model[0].mean], list(model.state_dict())
    with preserved(model):
        model(torch.ones(4, 3)).sum().backward()
        model[1].late = shared
    assert list(model.state_dict()) == keys
    assert [len(module._forward_hooks) for module in model.modules()] == [0, 1, 0, 0]
    assert model[0].seen is model[1].seen is shared
    assert shared == [1]
    assert all(a is b for a, b in zip(things, [model[0].counts["train"], model[0].last, model[0].mean], strict=True))
    assert (things[0], list(things[1]), things[2].tolist()) == (Counter(a=1), [1], [1.0, 1.0])
    handle.remove()  # it still knows where it is kept
    assert not model[0]._forward_hooks


class Averaging(torch.optim.SGD):
    """Counts its steps, and keeps an average of its parameters."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, lr=0.1)
        self.count, self.mean = 0, [p.detach().clone() for group in self.param_groups for p in group["params"]]

    def step(self, closure: Any = None) -> Any:
        self.count += 1
        self.late = [mean.mul_(0.9) for mean in self.mean]
        return super().step(closure)


def test_an_optimizers_own_attributes_come_back() -> None:
    model = Net()
    optimizer = Averaging(model.parameters())
    with preserved(model, optimizer):
        train(model, optimizer)
    assert (optimizer.count, hasattr(optimizer, "late")) == (0, False)
    assert all(torch.equal(mean, p) for mean, p in zip(optimizer.mean, model.parameters(), strict=True))


@pytest.mark.parametrize(
    "kept", [torch.tensor([1.0, math.nan]), torch.tensor(3), torch.ones(3).as_strided((2, 2), (1, 1))]
)
def test_a_tensor_that_has_not_changed_is_not_written_since_its_memory_may_be_read_only(kept: torch.Tensor) -> None:
    model, optimizer = nn.Linear(3, 2), Averaging(nn.Linear(3, 2).parameters())
    model.table, optimizer.table = kept, [kept.clone()]  # type: ignore[attr-defined]
    tables = [kept, *optimizer.table]  # type: ignore[attr-defined]
    before = [(table.data_ptr(), table._version) for table in tables]
    with preserved(model, optimizer):
        model.table = None  # type: ignore[assignment]
    assert model.table is kept
    assert [(table.data_ptr(), table._version) for table in tables] == before


def test_a_number_that_became_none_comes_back_where_it_was() -> None:
    model, table = nn.Linear(3, 2), torch.tensor([1.0, math.nan])
    model.table, place = table, table.data_ptr()
    with preserved(model):
        table.fill_(math.nan)
    assert (table[0], table.isnan().tolist(), table.data_ptr()) == (1.0, [False, True], place)
