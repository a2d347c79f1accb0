import math
import sys
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import ConcatDataset
from torch.utils.data import DataLoader
from torch.utils.data import TensorDataset

from optuna_discipline.rules.schedule import OneCycle
from optuna_discipline.training.find_lr import find_lr
from optuna_discipline.training.loop import train_epochs


def digits() -> tuple[tuple[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
    x, y = load_digits(return_X_y=True)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    inputs, targets = torch.tensor(x / 16, dtype=torch.float32)[order], torch.tensor(y)[order]
    return (inputs[:1000], targets[:1000]), (inputs[1000:1400], targets[1000:1400])


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def test_digits_trained_at_the_found_lr_are_read_well_within_the_budget() -> None:
    train, val = digits()
    choice = find_lr(mlp, nn.CrossEntropyLoss(), train, val, epochs=12, seed=0)
    assert choice.status in ("OK", "CENSORED")
    assert choice.cost <= 1.5
    assert choice.bounds is not None
    assert choice.bounds[0] < choice.max_lr < choice.bounds[1]  # type: ignore[operator]
    assert choice.base_lr == choice.max_lr / 10  # type: ignore[operator]
    torch.manual_seed(0)
    cycle = OneCycle(choice.max_lr, total_steps=12 * 16)  # type: ignore[arg-type]
    logs = list(train_epochs(mlp(), nn.CrossEntropyLoss(), train, val, cycle, weight_decay=1e-4, seed=0))
    assert logs[-1].val_accuracy > 0.94  # type: ignore[operator]


def test_the_same_seed_gives_the_same_answer_and_no_random_state_moves() -> None:
    train, val = digits()
    loader = DataLoader(TensorDataset(*train), 64, shuffle=True, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(5)
    states = torch.get_rng_state(), loader.generator.get_state()
    vals = (val, val, DataLoader(TensorDataset(*val), 64), ConcatDataset([TensorDataset(*val)]))
    choices = [find_lr(mlp, nn.CrossEntropyLoss(), loader, data, epochs=4, seed=3) for data in vals]
    assert choices == [choices[0]] * 4
    assert torch.equal(torch.get_rng_state(), states[0])
    assert torch.equal(loader.generator.get_state(), states[1])


def test_adam_is_given_smaller_rates_without_help() -> None:
    train, val = digits()
    choice = find_lr(mlp, nn.CrossEntropyLoss(), train, val, epochs=8, optimizer="adamw", momentum=0.9, seed=0)
    assert 1e-3 < choice.max_lr < 0.2  # type: ignore[operator]


@pytest.mark.parametrize("max_cost", [0.05, 0.3, 0.6, 1.0, 1.5])
def test_the_budget_is_never_exceeded(max_cost: float) -> None:
    train, val = digits()
    choice = find_lr(mlp, nn.CrossEntropyLoss(), train, val, epochs=6, max_cost=max_cost, seed=0)
    assert choice.cost <= max_cost + 1e-6
    if max_cost == 0.05:
        assert choice.max_lr is None
        assert "does not pay for one probe" in choice.reason


def test_a_net_that_learns_nothing_is_said_to() -> None:
    noise = (torch.randn(200, 3, generator=torch.Generator().manual_seed(0)), torch.arange(200) % 2)
    choice = find_lr(lambda: nn.Linear(3, 2), nn.CrossEntropyLoss(), noise, noise, epochs=8, seed=0)
    assert choice.status == "FLAT"
    assert not choice.confident
    assert "none lost a quarter of the untrained loss" in choice.reason


def test_a_loss_that_is_always_nan_is_a_refusal_not_an_exception() -> None:
    data = (torch.ones(64, 3), torch.zeros(64, dtype=torch.long))
    for epochs in (2, 64):  # without and with a range test
        choice = find_lr(lambda: nn.Linear(3, 2), lambda o, t: o.sum() * math.nan, data, data, epochs=epochs, seed=0)
        assert (choice.max_lr, choice.status, choice.confident) == (None, "DIVERGED_AT_START", False)
        assert "check the data" in choice.reason


@pytest.mark.parametrize("epochs", [2, 64])  # without and with a range test
def test_validation_data_that_give_no_number_are_named_before_anything_is_trained(epochs: int) -> None:
    x, y = digits()[0]
    broken = x[:100].clone()
    broken[70, 3] = math.nan
    choice = find_lr(mlp, nn.CrossEntropyLoss(), (x[:300], y[:300]), (broken, y[:100]), epochs=epochs, seed=0)
    assert (choice.max_lr, choice.status) == (None, "DIVERGED_AT_START")
    assert choice.cost < 0.5 / epochs
    assert choice.reason.endswith("look for NaN and inf in the validation data.")


def test_a_model_that_trains_but_gives_no_number_in_eval_mode_has_no_sure_answer() -> None:
    class Broken(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * (1.0 if self.training else math.nan)

    train, val = digits()
    for data in (val, None):
        choice = find_lr(lambda: Broken(64, 10), nn.CrossEntropyLoss(), train, data, epochs=8, seed=0)
        assert (choice.max_lr is not None, choice.confident) == (True, False)
        assert choice.reason.endswith("look at what the model does in eval mode and without gradients.")


def test_the_look_at_the_validation_data_leaves_room_for_the_range_test_and_a_probe() -> None:
    train, val = digits()
    many = (val[0].repeat(4, 1), val[1].repeat(4))
    choice = find_lr(mlp, nn.CrossEntropyLoss(), train, many, epochs=12, max_cost=0.53, seed=0)
    assert choice.reason.startswith("Of 1 probe of 0.25 of the run")
    assert choice.cost <= 0.53


@pytest.mark.parametrize("n", [1, 5])
def test_tiny_data_gives_an_answer(n: int) -> None:
    data = (torch.ones(n, 3), torch.zeros(n, dtype=torch.long))
    choice = find_lr(lambda: nn.Linear(3, 2), nn.CrossEntropyLoss(), data, None, epochs=2, seed=0)
    assert choice.cost <= 1.5


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"build_model": nn.Linear(1, 1)}, "`build_model` must be a function"),
        ({"optimizer": torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)}, "must be a name or a callable"),
        ({"epochs": 0}, "`epochs` must be an integer"),
        ({"momentum": 1.0}, "`momentum` must be a number"),
        ({"weight_decay": -1.0}, "`weight_decay` must be a number"),
        ({"max_cost": math.nan}, "`max_cost` must be a number"),
        ({"device": "abacus"}, "`device` must be one on which torch can compute here"),
        ({"step": 3}, "`step` must be callable"),
        ({"seed": -3}, "`seed` must be an integer"),
        ({"train": iter([1])}, "must be iterable 2 times"),
    ],
)
def test_bad_arguments_are_refused(options: dict[str, Any], match: str) -> None:
    data = (torch.ones(8, 3), torch.zeros(8, dtype=torch.long))
    arguments = {
        "build_model": lambda: nn.Linear(3, 2), "loss_fn": nn.CrossEntropyLoss(), "train": data, "val": data,
        "epochs": 2, "seed": 0, **options,
    }  # fmt: skip
    with pytest.raises(ValueError, match=match):
        find_lr(**arguments)


@pytest.mark.parametrize("epochs", [2, 64])  # without and with a range test
def test_a_model_that_every_probe_would_train_on_is_refused_untrained(epochs: int) -> None:
    data = (torch.ones(64, 3), torch.zeros(64, dtype=torch.long))
    model = nn.Linear(3, 2)
    before = model.weight.detach().clone()
    with pytest.raises(ValueError, match=r"`build_model` must make a new module each time, .* copy.deepcopy"):
        find_lr(lambda: model, nn.CrossEntropyLoss(), data, None, epochs=epochs, seed=0)
    assert torch.equal(model.weight, before)


@pytest.mark.parametrize("seed", [3, 6])
def test_an_exploded_network_that_is_right_by_chance_is_no_stable_one(seed: int) -> None:
    x = torch.randn(200, 6, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] + x[:, 1] > 0).long() + (x[:, 2] > 0.8).long()
    choice = find_lr(
        lambda: nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3)),
        nn.CrossEntropyLoss(),
        (x[:150], y[:150]),
        (x[150:], y[150:]),
        epochs=1,
        batch_size=1,
        seed=seed,
    )
    assert choice.max_lr is not None
    assert 0.01 < choice.max_lr < 0.2


def test_an_optimizer_without_momentum_or_weight_decay_is_searched_without() -> None:
    data = (torch.randn(64, 3, generator=torch.Generator().manual_seed(0)), torch.zeros(64, dtype=torch.long))
    choice = find_lr(
        lambda: nn.Linear(3, 2), nn.CrossEntropyLoss(), data, data, epochs=64, optimizer=torch.optim.Rprop, seed=0
    )
    assert choice.max_lr is not None


@pytest.mark.parametrize(("own", "expected"), [(None, (0.5, 0.1)), (0.8, (0.8, 0.8))])
def test_none_leaves_a_callables_own_momentum_and_weight_decay(
    own: float | None, expected: tuple[float, float]
) -> None:
    made = []

    def adamw(groups: Any, lr: float) -> torch.optim.Optimizer:
        made.append(torch.optim.AdamW(groups, lr=lr, betas=(0.5, 0.9), weight_decay=0.1))
        return made[-1]

    data = regression(1.0)
    options: Any = {"momentum": own, "weight_decay": own, "optimizer": adamw, "epochs": 12, "batch_size": 32, "seed": 0}
    find_lr(lambda: nn.Linear(4, 1), nn.MSELoss(), data, data, **options)
    used = {(group["betas"][0], group["weight_decay"]) for built in made[1:] for group in built.param_groups}
    assert used == {expected}


def regression(scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(320, 4, generator=torch.Generator().manual_seed(0))
    return x, scale * x.sum(dim=1, keepdim=True)


def test_rates_below_the_usual_range_are_looked_at_where_the_loss_rises_at_its_start() -> None:
    data = regression(1.0)
    choice = find_lr(
        lambda: nn.Linear(4, 1), lambda o, t: 1e5 * nn.functional.mse_loss(o, t), data, data, epochs=20, seed=0
    )
    assert choice.max_lr is not None
    assert 1e-8 < choice.max_lr < 1e-4 / 10
    assert choice.cost <= 1.5


def test_batches_that_are_hard_at_any_rate_ask_for_no_smaller_rates() -> None:
    updates = 0

    def build() -> nn.Module:
        nonlocal updates
        updates = 0
        return nn.Linear(4, 1)

    def loss_fn(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        nonlocal updates
        updates += output.requires_grad
        return nn.functional.mse_loss(output, target) * (3.0 if output.requires_grad and 4 <= updates <= 6 else 1.0)

    data = regression(1.0)
    choice = find_lr(build, loss_fn, data, data, epochs=12, batch_size=16, seed=0)
    assert choice.max_lr is not None
    assert choice.max_lr > 1e-4


def test_an_answer_at_the_end_of_the_range_that_was_stable_is_not_sure() -> None:
    data = regression(1e4)  # weights of 1e4, which Adam reaches at none of its rates
    choice = find_lr(lambda: nn.Linear(4, 1), nn.MSELoss(), data, data, epochs=20, optimizer="adam", seed=0)
    assert not choice.confident


def test_a_constant_in_the_loss_hides_no_probe_that_has_learned() -> None:
    train, val = digits()
    choice = find_lr(mlp, lambda o, t: 10 + nn.functional.cross_entropy(o, t), train, val, epochs=16, seed=0)
    assert choice.status in ("OK", "CENSORED", "BEST_AT_START")


def test_a_rung_above_the_stable_rates_is_tried_where_the_range_test_is_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[find_lr.__module__], "last_stable_lr", lambda *_: 0.12)
    train, val = digits()
    choice = find_lr(mlp, nn.CrossEntropyLoss(), train, val, epochs=8, seed=0)
    highest = float(choice.reason.split(" and ")[1].split(",")[0])
    assert 0.12 < highest <= 0.24


def test_where_the_loss_falls_to_the_end_of_the_range_the_first_step_up_is_larger_than_a_rung() -> None:
    data = regression(10.0)
    choice = find_lr(lambda: nn.Linear(4, 1), nn.MSELoss(), data, data, epochs=60, optimizer="adam", seed=0)
    assert choice.bounds[1] / choice.bounds[0] > 2 * 2.5**2  # type: ignore[index]
    assert "nothing between it and" in choice.reason
