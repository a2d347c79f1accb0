import copy
import math
from collections.abc import Callable
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import BatchSampler
from torch.utils.data import DataLoader
from torch.utils.data import Dataset
from torch.utils.data import DistributedSampler
from torch.utils.data import IterableDataset
from torch.utils.data import TensorDataset
from torch.utils.data import default_collate

from optuna_discipline.exceptions import DisciplineError
from optuna_discipline.rules.curve import EpochLog
from optuna_discipline.rules.schedule import OneCycle
from optuna_discipline.rules.schedule import Triangular
from optuna_discipline.training.loop import train_epochs


def task(n: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(n, 4, generator=torch.Generator().manual_seed(0))
    return x, (x[:, 0] > 0).long()


def net(seed: int = 0, dropout: float = 0.0) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 2))


def run(model: nn.Module, **options: Any) -> list[EpochLog]:
    arguments: dict[str, Any] = {"val": task(), "schedule": OneCycle(0.1, 12), "batch_size": 10, "seed": 0, **options}
    return list(train_epochs(model, nn.CrossEntropyLoss(), task(), **arguments))


class Pairs(Dataset[Any]):
    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> Any:
        x, y = task()
        return x[index], y[index]


def test_data_sets_and_loaders_leave_the_callers_random_state() -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    for val in (Pairs(), DataLoader(Pairs(), 10)):
        list(train_epochs(net(), nn.CrossEntropyLoss(), Pairs(), val, OneCycle(0.1, 2), seed=0))
        assert torch.equal(torch.get_rng_state(), state)


def test_a_log_comes_per_epoch_and_the_loss_falls() -> None:
    logs = run(net(), schedule=OneCycle(0.1, 40))
    assert [log.epoch for log in logs] == list(range(10))
    assert logs[-1].val_loss < 0.5 * logs[0].train_loss  # type: ignore[operator]
    assert logs[-1].val_accuracy > 0.8  # type: ignore[operator]
    assert logs[3].lr == OneCycle(0.1, 40).lr(15)


def test_every_update_has_the_lr_and_momentum_of_its_step() -> None:
    model, cycle = net(), OneCycle(0.1, 12)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.1)
    seen: list[tuple[float, float]] = []
    optimizer.register_step_pre_hook(
        lambda o, *_: seen.append((o.param_groups[0]["lr"], o.param_groups[0]["momentum"]))
    )
    run(model, optimizer=optimizer, schedule=cycle)
    assert seen == [(cycle.lr(i), cycle.momentum(i)) for i in range(12)]


@pytest.mark.parametrize(
    ("weight_decay", "expected"),
    [
        (1e-3, [1e-3] * 12),  # constant, as the paper advises
        (Triangular(1e-3, 12, base_lr=1e-4, step_size=3).lr, [1e-4, 4e-4, 7e-4, 1e-3, 7e-4, 4e-4] * 2),
    ],
)
def test_weight_decay_is_constant_unless_it_is_a_function_of_the_update(weight_decay: Any, expected: Any) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.1)
    seen: list[float] = []
    optimizer.register_step_pre_hook(lambda o, *_: seen.append(o.param_groups[0]["weight_decay"]))
    run(model, optimizer=optimizer, weight_decay=weight_decay)
    assert seen == pytest.approx(expected)


def test_a_weight_decay_that_turns_negative_is_refused_at_its_step() -> None:
    for decay in (lambda step: 1e-3 - step, lambda step: None if step else 1e-3):
        with pytest.raises(ValueError, match="`weight_decay` must be a number in"):
            run(net(), weight_decay=decay)


def test_adams_beta1_cycles_against_the_learning_rate() -> None:
    model, cycle = net(), OneCycle(0.01, 12)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.0)
    seen: list[tuple[float, float]] = []
    optimizer.register_step_pre_hook(lambda o, *_: seen.append(o.param_groups[0]["betas"]))
    run(model, optimizer=optimizer, schedule=cycle)
    assert seen == [(cycle.momentum(i), 0.999) for i in range(12)]
    assert (max(seen)[0], min(seen)[0]) == pytest.approx((0.95, 0.85), abs=0.01)


def test_the_same_seed_gives_the_same_run_whatever_the_callers_random_state() -> None:
    results = []
    for state in (1, 2):
        torch.manual_seed(state)
        results.append(run(net(dropout=0.3)))
    assert results[0] == results[1]
    assert run(net(dropout=0.3), seed=1) != results[0]


def test_a_loss_that_turns_nan_at_step_20_ends_the_run_with_a_log() -> None:
    calls = 0

    def loss_fn(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        loss = nn.functional.cross_entropy(output, target)
        return loss * math.nan if calls == 20 else loss

    logs = list(train_epochs(net(), loss_fn, task(), None, OneCycle(0.1, 40), batch_size=10, seed=0))
    assert [log.epoch for log in logs] == [0, 1, 2, 3, 4]
    assert math.isnan(logs[-1].train_loss)  # type: ignore[arg-type]
    assert calls == 20


def test_a_diverged_epoch_has_a_nan_validation_loss_where_there_is_validation() -> None:
    logs = list(train_epochs(net(), lambda o, t: (o * math.inf).sum(), task(), task(), OneCycle(0.1, 4), batch_size=10))
    assert len(logs) == 1
    assert math.isnan(logs[0].val_loss)  # type: ignore[arg-type]


def test_modes_come_back_and_a_frozen_norm_stays_frozen() -> None:
    model = net()
    model[1].eval()
    before = copy.deepcopy(model[1].running_mean)
    modes: list[list[bool]] = []
    model[0].register_forward_pre_hook(lambda *_: modes.append([m.training for m in model.modules()]))
    run(model)
    assert [m.training for m in model.modules()] == [True, True, False, True, True, True]
    assert torch.equal(model[1].running_mean, before)
    assert modes[0] == [True, True, False, True, True, True]
    assert modes[-1] == [False] * 6


def test_a_model_in_eval_mode_is_trained_in_train_mode_and_given_back_in_eval_mode() -> None:
    model = net().eval()
    modes: list[bool] = []
    model[0].register_forward_pre_hook(lambda *_: modes.append(model.training))
    run(model, val=None)
    assert all(modes)
    assert not any(m.training for m in model.modules())


def test_leaving_the_loop_early_restores_the_modes() -> None:
    model = net().eval()
    logs = train_epochs(model, nn.CrossEntropyLoss(), task(), task(), OneCycle(0.1, 12), batch_size=10)
    next(logs)
    logs.close()
    assert not any(m.training for m in model.modules())


def test_an_exception_in_the_loss_restores_modes_and_random_state() -> None:
    model = net().eval()

    def broken(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("broken loss")

    torch.manual_seed(0)
    state = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="broken loss"):
        list(train_epochs(model, broken, task(), None, OneCycle(0.1, 4), seed=3))
    assert torch.equal(torch.get_rng_state(), state)
    assert not model.training


def test_the_epochs_must_fit_into_the_schedule_before_anything_runs() -> None:
    with pytest.raises(ValueError, match=r"4 epochs of 4 updates are 16 and got total_steps=12: .*total_steps=16\)"):
        run(net(), n_epochs=4)
    with pytest.raises(ValueError, match=r"4 epochs of 2 updates are 8 and got total_steps=6: .*total_steps=8\)"):
        run(net(), n_epochs=4, batch_size=15, accumulate=2, schedule=OneCycle(0.1, 6))
    assert len(run(net(), n_epochs=3)) == 3


def test_a_training_that_ends_above_its_schedules_end_is_warned_of() -> None:
    why = r"2 epochs of 4 updates are 8 and got total_steps=12: .* 0\.0704, not at the schedule's 1e-05\. .*=8\)"
    with pytest.warns(UserWarning, match=why):
        assert len(run(net(), n_epochs=2)) == 2
    whole_cycles = Triangular(0.3, 40, step_size=4)
    constant = SimpleNamespace(total_steps=1000, lr=lambda step: 0.1, momentum=lambda step: 0.9)
    for schedule in (whole_cycles, constant):
        assert len(run(net(), n_epochs=2, schedule=schedule)) == 2


def test_data_without_a_length_are_warned_of_once_an_epoch_is_known() -> None:
    loader = DataLoader(Stream(), batch_size=10)
    why = r"2 epochs of 4 updates are 8 and got total_steps=12: .* 0\.0704, not at the schedule's 1e-05\. .*=8\)"

    def go(n_epochs: int) -> Any:
        return train_epochs(net(), nn.CrossEntropyLoss(), loader, None, OneCycle(0.1, 12), n_epochs=n_epochs)

    for n_epochs in (3, 9):
        assert len(list(go(n_epochs))) == 3
    logs = go(2)
    with pytest.warns(UserWarning, match=why):
        next(logs)
    assert len(list(logs)) == 1


def test_what_is_unfrozen_between_two_epochs_is_trained_by_an_optimizer_that_holds_it() -> None:
    for given in (True, False):
        model = net()
        model[0].requires_grad_(False)
        before = model[0].weight.clone()
        optimizer: Any = torch.optim.SGD(model.parameters(), lr=0.1) if given else "sgd"
        for _ in train_epochs(model, nn.CrossEntropyLoss(), task(), None, OneCycle(0.1, 3), optimizer=optimizer):
            assert torch.equal(model[0].weight, before) or (given and model[0].weight.requires_grad)
            model[0].requires_grad_(True)
        assert torch.equal(model[0].weight, before) != given


def test_a_schedule_that_ends_within_an_epoch_ends_the_run() -> None:
    logs = run(net(), schedule=OneCycle(0.1, 6))
    assert len(logs) == 2
    assert logs[-1].lr == OneCycle(0.1, 6).lr(5)


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter(zip(*task(), strict=True))


def test_a_stream_needs_n_epochs_and_ends_with_the_schedule() -> None:
    loader = DataLoader(Stream(), batch_size=10)
    with pytest.raises(ValueError, match="`n_epochs` must be given where `train` has no length"):
        train_epochs(net(), nn.CrossEntropyLoss(), loader, None, OneCycle(0.1, 6))
    logs = list(train_epochs(net(), nn.CrossEntropyLoss(), loader, None, OneCycle(0.1, 6), n_epochs=9))
    assert [log.epoch for log in logs] == [0, 1]


def test_a_triangular_run_and_a_long_range_test_train_like_any_other() -> None:
    triangle = run(net(), schedule=Triangular(0.3, 40, step_size=10))
    assert triangle[-1].val_loss < 0.7 * triangle[0].train_loss  # type: ignore[operator]
    rising = run(net(), schedule=Triangular(3.0, 40, base_lr=0.0, step_size=40))
    assert [log.lr for log in rising] == pytest.approx([3.0 * (4 * epoch + 3) / 40 for epoch in range(10)])


def test_any_object_with_three_names_is_a_schedule() -> None:
    schedule = SimpleNamespace(total_steps=6, lr=lambda step: 0.01 * (step + 1), momentum=lambda step: 0.9)
    assert [log.lr for log in run(net(), schedule=schedule)] == [0.04, 0.06]


def test_regression_and_autoencoders_have_no_accuracy() -> None:
    x = task()[0]
    for data in ((x, x.sum(1, keepdim=True)), x):
        model = nn.Linear(4, 1 if isinstance(data, tuple) else 4)
        logs = list(train_epochs(model, nn.MSELoss(), data, data, OneCycle(0.01, 20), batch_size=10, seed=0))
        assert logs[-1].val_accuracy is None
        assert logs[-1].val_loss < logs[0].train_loss  # type: ignore[operator]
    with pytest.raises(ValueError, match="`accuracy=True` needs outputs"):
        list(train_epochs(nn.Linear(4, 4), nn.MSELoss(), x, x, OneCycle(0.01, 1), accuracy=True))


def test_dicts_of_any_keys_come_through_the_step_hook() -> None:
    x, y = task()
    data = [{"tokens": x, "next": y}]

    def step(model: nn.Module, batch: Any, loss_fn: Any) -> Any:
        output = model(batch["tokens"])
        return loss_fn(output, batch["next"]), output, batch["next"]

    logs = list(train_epochs(net(), nn.CrossEntropyLoss(), data, data, OneCycle(0.1, 2), step=step))
    assert logs[-1].val_accuracy is not None
    with pytest.raises(ValueError, match="take it, `step=`"):
        list(train_epochs(net(), nn.CrossEntropyLoss(), data, None, OneCycle(0.1, 2)))


@pytest.mark.parametrize("options", [{"amp": "bf16"}, {"clip_norm": 0.1}, {"optimizer": "adamw"}, {"nesterov": False}])
def test_options_train_too(options: dict[str, Any]) -> None:
    logs = run(net(), schedule=OneCycle(0.05, 40), **options)
    assert logs[-1].val_loss < logs[0].train_loss  # type: ignore[operator]


def test_channels_last_changes_layout_and_not_the_result() -> None:
    x = torch.randn(20, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    data = (x, (x.mean((1, 2, 3)) > 0).long())
    results, strides = [], []
    for flag in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(64, 2))
        logs = list(
            train_epochs(model, nn.CrossEntropyLoss(), data, data, OneCycle(0.05, 4), channels_last=flag, seed=0)
        )
        results.append(logs[-1].val_loss)
        strides.append(model[0].weight.is_contiguous(memory_format=torch.channels_last))
    assert results[0] == pytest.approx(results[1], rel=1e-4)
    assert strides == [False, True]


def test_compile_trains_the_model_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[nn.Module] = []

    def fake_compile(model: nn.Module) -> nn.Module:
        compiled.append(model)
        return nn.Sequential(model)

    monkeypatch.setattr(torch, "compile", fake_compile)
    model = net()
    assert run(model, compile=True) == run(net())
    assert compiled == [model]


def test_a_users_loader_is_not_changed() -> None:
    loader = DataLoader(TensorDataset(*task()), batch_size=10, shuffle=True)
    logs = [list(train_epochs(net(), nn.CrossEntropyLoss(), loader, loader, OneCycle(0.1, 8), seed=4)) for _ in "ab"]
    assert logs[0] == logs[1]
    assert loader.generator is None


def orders(between: Callable[[Any, int], None] = lambda sampler, epoch: None, wrapped: bool = False) -> list[list[int]]:
    """Return the samples of each of three epochs, drawn by a sampler that must be told them."""
    seen: list[int] = []
    data = TensorDataset(torch.arange(12.0)[:, None], torch.zeros(12, 1))
    sampler: Any = DistributedSampler(data, num_replicas=1, rank=0)
    how: Any = {"batch_sampler": BatchSampler(sampler, 4, drop_last=False)} if wrapped else {"sampler": sampler}

    def collated(rows: Any) -> Any:
        seen.extend(int(x) for x, _ in rows)
        return default_collate(rows)

    loader = DataLoader(data, **(how if wrapped else {**how, "batch_size": 4}), collate_fn=collated)
    for log in train_epochs(nn.Linear(1, 1), nn.MSELoss(), loader, None, OneCycle(1e-3, 9)):
        between(sampler, log.epoch)
    return [seen[start : start + 12] for start in (0, 12, 24)]


def of_sampler(*epochs: int) -> list[list[int]]:
    sampler: Any = DistributedSampler(list(range(12)), num_replicas=1, rank=0)  # type: ignore[arg-type]
    return [(sampler.set_epoch(epoch), list(sampler))[1] for epoch in epochs]


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_sampler_that_must_be_told_the_epoch_draws_another_order_in_each(wrapped: bool) -> None:
    assert orders(wrapped=wrapped) == of_sampler(0, 1, 2)


def test_an_epoch_that_the_caller_tells_the_sampler_holds() -> None:
    assert orders(lambda sampler, epoch: sampler.set_epoch(epoch)) == of_sampler(0, 0, 1)
    assert orders(lambda sampler, epoch: sampler.set_epoch(7 - epoch)) == of_sampler(0, 7, 6)


def test_a_loader_that_must_be_told_the_epoch_is_told_it_as_it_begins() -> None:
    told: list[Any] = []

    class Loader(list[Any]):
        def set_epoch(self, epoch: int) -> None:
            told.append(epoch)

        def __iter__(self) -> Iterator[Any]:
            told.append("pass")
            return super().__iter__()

    list(train_epochs(net(), nn.CrossEntropyLoss(), Loader([task()] * 2), None, OneCycle(0.1, 4)))
    assert told == [0, "pass", 1, "pass"]  # and of no third one


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_model_is_moved_to_the_gpu_with_its_data_and_loss() -> None:
    model, loss_fn = net(), nn.CrossEntropyLoss(weight=torch.ones(2))
    for amp in (None, "bf16", "fp16"):
        logs = list(
            train_epochs(model, loss_fn, task(), task(), OneCycle(0.1, 40), batch_size=10, device="cuda", amp=amp)
        )
        assert logs[-1].val_accuracy > 0.8  # type: ignore[operator]
    assert model[0].weight.is_cuda


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_optimizers_with_a_state_from_the_cpu_train_on_the_gpu() -> None:
    model = net()
    given = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(task()[0]).sum().backward()
    given.step()
    for optimizer in (torch.optim.Adagrad, given):
        logs = list(
            train_epochs(
                model, nn.CrossEntropyLoss(), task(), None, OneCycle(0.1, 4), optimizer=optimizer, device="cuda"
            )
        )
        assert math.isfinite(logs[-1].train_loss or math.nan)
        model = model.cpu()


@pytest.mark.parametrize("n", [1, 2])
def test_tiny_data_trains(n: int) -> None:
    data = task(n)
    logs = list(train_epochs(nn.Linear(4, 2), nn.CrossEntropyLoss(), data, data, OneCycle(0.1, 3), batch_size=64))
    assert len(logs) == 3


def test_a_rest_of_one_sample_does_not_break_batch_norm() -> None:
    assert len(list(train_epochs(net(), nn.CrossEntropyLoss(), task(21), None, OneCycle(0.1, 4), batch_size=10))) == 2


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"model": net}, "`model` must be a torch.nn.Module, but got function"),
        ({"schedule": None}, "`schedule` must have lr"),
        ({"n_epochs": 0}, "`n_epochs` must be an integer"),
        ({"accumulate": 0}, "`accumulate` must be an integer"),
        ({"clip_norm": 0.0}, "`clip_norm` must be a number"),
        ({"clip_norm": math.nan}, "`clip_norm` must be a number"),
        ({"amp": "fp8"}, "`amp` must be one of"),
        ({"weight_decay": -1.0}, "`weight_decay` must be a number"),
        ({"weight_decay": lambda step: None}, "`weight_decay` must be a number"),
        ({"nesterov": "False"}, "`nesterov` must be one of True, False, but got 'False'"),
        ({"decay_bias_and_norm": "False"}, "`decay_bias_and_norm` must be one of True, False"),
        ({"channels_last": "False"}, "`channels_last` must be one of True, False"),
        ({"compile": "False"}, "`compile` must be one of True, False"),
        ({"batch_size": 0}, "`batch_size` must be an integer"),
        ({"seed": -1}, "`seed` must be an integer"),
        ({"step": "abc"}, "`step` must be callable"),
        ({"accuracy": "abc"}, "`accuracy` must be one of None, True, False"),
        ({"optimizer": torch.optim.LBFGS}, "asks for a closure"),
        ({"device": "abacus"}, "`device` must be one on which torch can compute here"),
        ({"optimizer": "lion"}, "`optimizer` must be"),
        ({"train": iter([task()])}, "must be iterable 12 times"),
        ({"val": iter([task()])}, "must be iterable 3 times"),
        ({"loss_fn": None}, "`loss_fn` must be callable"),
    ],
)
def test_bad_arguments_are_refused_at_the_call(options: dict[str, Any], match: str) -> None:
    arguments: dict[str, Any] = {
        "model": net(),
        "loss_fn": nn.CrossEntropyLoss(),
        "train": task(),
        "schedule": OneCycle(0.1, 12),
        "batch_size": 10,
        **options,
    }
    if "train" in options:
        arguments["batch_size"], arguments["n_epochs"] = None, 12
    with pytest.raises(ValueError, match=match):
        train_epochs(**arguments)


def test_bad_data_and_losses_are_refused() -> None:
    with pytest.raises(DisciplineError, match="`train` is empty"):
        train_epochs(net(), nn.CrossEntropyLoss(), [], None, OneCycle(0.1, 12))
    with pytest.raises(DisciplineError, match="`train` is empty"):
        list(train_epochs(net(), nn.CrossEntropyLoss(), iter([]), None, OneCycle(0.1, 12), n_epochs=1))
    with pytest.raises(ValueError, match="average it"):
        list(train_epochs(net(), nn.CrossEntropyLoss(reduction="none"), task(), None, OneCycle(0.1, 12)))
    with pytest.raises(ValueError, match="depends on no parameter"):
        list(train_epochs(net(), lambda o, t: torch.ones(()), task(), None, OneCycle(0.1, 12)))
    with pytest.raises(DisciplineError, match="no trainable parameter"):
        train_epochs(nn.Flatten(), nn.CrossEntropyLoss(), task(), None, OneCycle(0.1, 12))


def test_a_model_tested_between_epochs_trains_on_and_frozen_parts_stay_frozen() -> None:
    plain, tested = net(dropout=0.5), net(dropout=0.5)
    for model in (plain, tested):
        model[1].eval()
    expected = run(plain)
    logs = []
    for log in train_epochs(tested, nn.CrossEntropyLoss(), task(), task(), OneCycle(0.1, 12), batch_size=10, seed=0):
        logs.append(log)
        tested.eval()
    assert logs == expected
    assert not tested[1].training
    assert tested.training


def test_snapshots_that_are_of_no_trial_are_refused_at_the_call() -> None:
    with pytest.raises(ValueError, match=r"`snapshots` must be those of a trial, such as .*of\(trial\)"):
        train_epochs(net(), nn.CrossEntropyLoss(), task(), task(), OneCycle(0.1, 12), snapshots=object())  # type: ignore[arg-type]


def test_a_callable_is_trained_with_its_own_weight_decay() -> None:
    made: list[torch.optim.Optimizer] = []

    def make(params: Any, lr: float) -> torch.optim.Optimizer:
        made.append(torch.optim.AdamW(params, lr=lr, weight_decay=0.3))
        return made[-1]

    data = (torch.ones(8, 2), torch.ones(8, 1))
    list(train_epochs(nn.Linear(2, 1), nn.MSELoss(), data, None, OneCycle(0.1, 2), optimizer=make))
    assert made[0].param_groups[0]["weight_decay"] == 0.3


def test_the_schedules_momentum_asks_nothing_of_an_optimizer_without_any() -> None:
    data = (torch.ones(8, 2), torch.ones(8, 1))
    net, cycle = nn.Linear(2, 1), OneCycle(0.1, 2)
    assert len(list(train_epochs(net, nn.MSELoss(), data, None, cycle, optimizer=torch.optim.Adagrad))) == 2
    with pytest.raises(ValueError, match="`weight_decay` must be None or 0 with Rprop"):
        train_epochs(net, nn.MSELoss(), data, None, cycle, optimizer=torch.optim.Rprop, weight_decay=1e-4)
