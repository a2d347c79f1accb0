import copy
import json
import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader
from torch.utils.data import TensorDataset

from optuna_discipline.exceptions import RangeTestError
from optuna_discipline.rules.range_test import RangeTest
from optuna_discipline.training.lr_range_test import lr_range_test
from tests.training.test_snapshot import same


def task(n: int = 60) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(n, 4, generator=torch.Generator().manual_seed(0))
    return x, (x[:, 0] > 0).long()


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2))
        self.head = nn.Linear(8, 2)
        self.register_buffer("calls", torch.zeros(()), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return self.head(self.body(x))  # type: ignore[no-any-return]


@pytest.fixture
def net() -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Net()


def facts(model: nn.Module, optimizer: torch.optim.Optimizer, loader: DataLoader[Any]) -> Any:
    return copy.deepcopy(
        {
            "parameters": [(p.data, p.grad, p.requires_grad) for p in model.parameters()],
            "buffers": dict(model.named_buffers()),
            "modes": [m.training for m in model.modules()],
            "optimizer": optimizer.state_dict(),
            "rng": (random.getstate(), np.random.get_state(), torch.get_rng_state()),
            "loader": loader.generator.get_state(),
        }
    )


def failing(at: int, fail: Callable[[torch.Tensor], torch.Tensor]) -> Callable[..., torch.Tensor]:
    calls = 0

    def loss_fn(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += output.requires_grad
        loss = nn.functional.cross_entropy(output, target)
        return fail(loss) if calls == at and output.requires_grad else loss

    return loss_fn


def explode(loss: torch.Tensor) -> torch.Tensor:
    raise RuntimeError("broken loss")


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("case", ["success", "exception", "nan"])
def test_everything_comes_back_exactly(net: Net, case: str, mode: bool) -> None:
    optimizer = torch.optim.SGD(
        [{"params": net.body.parameters(), "lr": 0.1}, {"params": net.head.parameters()}], lr=0.01, momentum=0.9
    )
    loader = DataLoader(TensorDataset(*task()), 10, shuffle=True, generator=torch.Generator().manual_seed(3))
    net(task()[0]).sum().backward()
    optimizer.step()
    net.train(mode)
    net.body[1].eval()
    before = facts(net, optimizer, loader)

    def test(loss_fn: Any) -> RangeTest:
        return lr_range_test(net, loss_fn, loader, task(), optimizer=optimizer, num_steps=30, base_momentum=0.8, seed=1)

    if case == "exception":
        with pytest.raises(RuntimeError, match="broken loss"):
            test(failing(12, explode))
    elif case == "nan":
        assert test(failing(12, lambda loss: loss * math.nan)).stop_reason == "non-finite loss"
    else:
        assert test(nn.CrossEntropyLoss()).stop_reason == "end of range"
    assert same(facts(net, optimizer, loader), before)
    assert optimizer.param_groups[0]["params"][0] is net.body[0].weight


def test_both_ends_are_visited_and_the_steps_have_one_ratio(net: Net) -> None:
    test = lr_range_test(net, nn.CrossEntropyLoss(), task(), num_steps=31, start_lr=1e-4, end_lr=1e-1, seed=0)
    assert (test.lrs[0], test.lrs[-1], len(test.lrs)) == (1e-4, 1e-1, 31)
    assert np.diff(np.log(test.lrs)) == pytest.approx(math.log(10) / 10)
    linear = lr_range_test(net, nn.CrossEntropyLoss(), task(), num_steps=11, end_lr=1e-1, sweep="linear", seed=0)
    assert np.diff(linear.lrs) == pytest.approx((1e-1 - 1e-5) / 10)


def test_every_update_has_its_lr_and_the_momentum_falls_against_it(net: Net) -> None:
    optimizer = torch.optim.SGD(net.parameters(), lr=1.0, momentum=0.95)
    seen: list[tuple[float, float]] = []
    optimizer.register_step_pre_hook(
        lambda o, *_: seen.append((o.param_groups[0]["lr"], o.param_groups[0]["momentum"]))
    )
    test = lr_range_test(
        net, nn.CrossEntropyLoss(), task(), optimizer=optimizer, num_steps=11, end_lr=0.1, base_momentum=0.85
    )
    assert [lr for lr, _ in seen] == test.lrs.tolist()
    assert [momentum for _, momentum in seen] == pytest.approx(np.linspace(0.95, 0.85, 11))


def test_the_groups_of_an_optimizer_keep_their_ratios_and_what_is_not_given(net: Net) -> None:
    optimizer = torch.optim.SGD(
        [{"params": net.body.parameters(), "lr": 0.1}, {"params": net.head.parameters(), "lr": 1.0}],
        lr=1.0,
        momentum=0.5,
        weight_decay=1e-3,
    )
    seen: list[list[float]] = []
    optimizer.register_step_pre_hook(lambda o, *_: seen.append([g["lr"] for g in o.param_groups]))
    test = lr_range_test(net, nn.CrossEntropyLoss(), task(), optimizer=optimizer, num_steps=10, end_lr=0.01)
    assert [lr for lr, _ in seen] == test.lrs.tolist()
    assert [b / a for a, b in seen] == pytest.approx([10.0] * 10)
    assert (test.settings["momentum"], test.settings["weight_decay"]) == (0.5, 1e-3)


def test_adam_has_a_range_of_its_own(net: Net) -> None:
    assert lr_range_test(net, nn.CrossEntropyLoss(), task(), optimizer="adamw", num_steps=5).lrs[0] == 1e-6
    planned = lr_range_test(net, nn.CrossEntropyLoss(), task(), optimizer="adamw", num_steps=5).settings["end_lr"]
    assert planned == 1.0


def test_validation_is_evaluated_about_50_times_and_at_the_end(net: Net) -> None:
    test = lr_range_test(net, nn.CrossEntropyLoss(), task(), task(), num_steps=101, end_lr=0.1, seed=0)
    assert test.val_loss is not None
    assert 50 <= np.isfinite(test.val_loss).sum() <= 51
    assert math.isfinite(test.val_loss[-1])
    every = lr_range_test(net, nn.CrossEntropyLoss(), task(), task(), num_steps=10, end_lr=0.1, val_every=4)
    assert every.val_loss is not None
    assert np.flatnonzero(np.isfinite(every.val_loss)).tolist() == [3, 7, 9]


def test_only_a_fixed_subset_is_evaluated(net: Net) -> None:
    seen: list[torch.Tensor] = []

    def step(model: nn.Module, batch: Any, loss_fn: Any) -> Any:
        if not torch.is_grad_enabled():
            seen.append(batch[0])
        return loss_fn(model(batch[0]), batch[1])

    test = lr_range_test(
        net, nn.CrossEntropyLoss(), task(), task(), num_steps=6, end_lr=0.1, max_val_samples=16, step=step, seed=0
    )
    assert test.settings["val_samples"] == 16
    assert len(seen) == 7
    assert all(torch.equal(x, seen[0]) for x in seen)


def test_the_same_seed_gives_the_same_curve(net: Net) -> None:
    def test(seed: int) -> RangeTest:
        torch.rand(seed + 1)
        return lr_range_test(net, nn.CrossEntropyLoss(), task(), task(), num_steps=20, batch_size=8, seed=seed)

    assert test(0) == test(0)
    assert test(0) != test(1)


def test_a_loss_that_turns_nan_at_step_20_ends_the_sweep_there(net: Net) -> None:
    test = lr_range_test(net, failing(20, lambda loss: loss * math.nan), task(), num_steps=50, seed=0)
    assert test.stop_reason == "non-finite loss"
    assert len(test.lrs) == 20
    assert math.isnan(test.train_loss[-1])


@pytest.mark.parametrize("options", [{"amp": "bf16"}, {"clip_norm": 0.5}, {"accumulate": 3}, {"batch_size": 1000}])
def test_options_of_the_loop_work(options: dict[str, Any]) -> None:
    model = nn.Linear(4, 2)
    test = lr_range_test(model, nn.CrossEntropyLoss(), task(), task(), num_steps=30, seed=0, **options)
    assert len(test.lrs) == 30
    assert test.train_loss[-5:].mean() < test.train_loss[0]


def test_tiny_data_gives_a_curve() -> None:
    one = (torch.ones(1, 4), torch.zeros(1, dtype=torch.long))
    test = lr_range_test(nn.Linear(4, 2), nn.CrossEntropyLoss(), one, one, num_steps=20, seed=0)
    assert len(test.lrs) == 20
    single_class = (task()[0], torch.zeros(60, dtype=torch.long))
    assert lr_range_test(Net(), nn.CrossEntropyLoss(), single_class, single_class, num_steps=20, seed=0).lrs.size == 20


def test_validation_of_one_sample_does_not_break_batch_norm(net: Net) -> None:
    one = (torch.ones(1, 4), torch.zeros(1, dtype=torch.long))
    assert lr_range_test(net, nn.CrossEntropyLoss(), task(), one, num_steps=5, seed=0).stop_reason == "end of range"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_model_tested_on_the_gpu_comes_back_to_where_it_was(net: Net) -> None:
    before = copy.deepcopy(net.state_dict())
    places = [p.data_ptr() for p in net.parameters()]
    lr_range_test(net, nn.CrossEntropyLoss(), task(), task(), num_steps=10, device="cuda", seed=0)
    assert [p.data_ptr() for p in net.parameters()] == places
    assert same(dict(net.state_dict()), dict(before))


def test_the_record_knows_what_it_was_run_with(net: Net) -> None:
    test = lr_range_test(net, nn.CrossEntropyLoss(), task(), num_steps=12, end_lr=0.1, seed=5, planned_steps=99)
    assert (test.planned_steps, test.n_steps, test.settings["seed"]) == (99, 12, 5)
    assert RangeTest.from_dict(test.to_dict()) == test


def test_the_record_of_a_test_with_numpys_numbers_is_json(net: Net) -> None:
    options: dict[str, Any] = {"clip_norm": np.float32(1), "weight_decay": np.float32(0.5), "seed": np.int64(0)}
    test = lr_range_test(net, nn.CrossEntropyLoss(), task(), num_steps=5, **options)
    assert json.loads(json.dumps(test.to_dict()))["settings"]["clip_norm"] == 1.0


def test_the_record_of_a_callable_has_its_own_settings_and_is_refused_what_it_lacks(net: Net) -> None:
    def make(params: Any, lr: float) -> torch.optim.Optimizer:
        return torch.optim.AdamW(params, lr=lr, weight_decay=0.3, betas=(0.8, 0.99))

    settings = lr_range_test(net, nn.CrossEntropyLoss(), task(), optimizer=make, num_steps=2).settings
    assert (settings["weight_decay"], settings["momentum"]) == (0.3, 0.8)
    for options in (
        {"optimizer": torch.optim.Adagrad, "momentum": 0.9},
        {"optimizer": torch.optim.Rprop, "weight_decay": 1.0},
    ):
        with pytest.raises(ValueError, match="which has none, but got"):
            lr_range_test(net, nn.CrossEntropyLoss(), task(), **options)


def test_gradients_may_be_switched_off_outside(net: Net) -> None:
    with torch.no_grad():
        assert len(lr_range_test(net, nn.CrossEntropyLoss(), task(), num_steps=5, end_lr=0.1).lrs) == 5
        assert not torch.is_grad_enabled()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"start_lr": 1.0, "end_lr": 0.1}, "`start_lr` must be below `end_lr`"),
        ({"start_lr": 0.1, "end_lr": 0.1}, "`start_lr` must be below `end_lr`"),
        ({"start_lr": 0.0}, "`start_lr` must be a number"),
        ({"start_lr": math.nan}, "`start_lr` must be a number"),
        ({"end_lr": math.inf}, "`end_lr` must be a number"),
        ({"end_lr": "1"}, "`end_lr` must be a number"),
        ({"num_steps": 1}, "`num_steps` must be an integer from 2 on"),
        ({"sweep": "log"}, "`sweep` must be one of"),
        ({"momentum": 1.0}, "`momentum` must be a number"),
        ({"momentum": 0.8, "base_momentum": 0.9}, "`base_momentum` must be at most `momentum`"),
        ({"weight_decay": math.nan}, "`weight_decay` must be a number"),
        ({"val_every": 0}, "`val_every` must be"),
        ({"max_val_samples": 0}, "`max_val_samples` must be"),
        ({"planned_steps": 0}, "`planned_steps` must be"),
        ({"batch_size": -1}, "`batch_size` must be"),
        ({"seed": 1.5}, "`seed` must be"),
        ({"device": "abacus"}, "`device` must be"),
        ({"optimizer": "lion"}, "`optimizer` must be"),
        ({"amp": "int4"}, "`amp` must be one of"),
        ({"loss_fn": 3}, "`loss_fn` must be callable"),
        ({"loss_fn": nn.CrossEntropyLoss(reduction="none")}, "average it"),
    ],
)
def test_bad_arguments_are_refused(net: Net, options: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        lr_range_test(net, **{"loss_fn": nn.CrossEntropyLoss(), "train": task(), **options})


def test_what_cannot_be_tested_is_a_range_test_error(net: Net) -> None:
    for empty in ([], iter([]), (torch.ones(0, 4), torch.ones(0))):
        with pytest.raises(RangeTestError, match="`train`"):
            lr_range_test(net, nn.CrossEntropyLoss(), empty)
    with pytest.raises(RangeTestError, match="`val`"):
        lr_range_test(net, nn.CrossEntropyLoss(), task(), [])
    with pytest.raises(RangeTestError, match="no trainable parameter"):
        lr_range_test(net.requires_grad_(False), nn.CrossEntropyLoss(), task())


def test_an_optimizer_that_refuses_a_rate_of_0_is_tested_like_any_other() -> None:
    class Strict(torch.optim.SGD):
        def __init__(self, params: Any, lr: float) -> None:
            assert lr > 0.0
            super().__init__(params, lr)

    test = lr_range_test(nn.Linear(4, 2), nn.CrossEntropyLoss(), task(), optimizer=Strict, num_steps=10, seed=0)
    assert test.lrs[0] == 1e-5


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_a_scripted_module_comes_back_as_it_was() -> None:
    model = torch.jit.script(nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)))
    before = copy.deepcopy({name: tensor.clone() for name, tensor in model.state_dict().items()})
    lr_range_test(model, nn.CrossEntropyLoss(), task(), num_steps=10, seed=0)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model.training
