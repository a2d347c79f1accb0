import math

import pytest
import torch
from torch import nn

from optuna_discipline.rules.lr_choice import USUAL_LR
from optuna_discipline.rules.lr_probing import divergence_level
from optuna_discipline.training.lr_probe import Prober
from optuna_discipline.training.random_state import RandomStates


def task() -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(320, 4, generator=torch.Generator().manual_seed(0))
    return x, (x[:, 0] > 0).long()


def prober(**options: object) -> Prober:
    arguments = {
        "build_model": lambda: nn.Linear(4, 2), "loss_fn": nn.CrossEntropyLoss(), "train": task(), "val": None,
        "epochs": 8, "momentum": 0.9, "weight_decay": 0.0, "optimizer": "sgd", "batch_size": 16, "device": None,
        "seed": 0, "step": None, "generators": RandomStates.capture(), **options,
    }  # fmt: skip
    return Prober(**arguments)  # type: ignore[arg-type]


def measured(**options: object) -> Prober:
    """Return one that knows its untrained loss, at no cost so far."""
    run = prober(**options)
    run.measure_untrained()
    run.cost = 0.0
    return run


def test_the_untrained_loss_is_measured_and_paid_for_once() -> None:
    run = prober()
    planned = run.probe_cost(0.25)
    run.probe(0.1, 0.25)
    assert run.cost == pytest.approx(planned) == pytest.approx(0.25 + 10 / 3 / 160)
    assert run.measure_untrained() == pytest.approx(math.log(2), abs=0.3)
    assert run.probe_cost(0.25) == pytest.approx(0.25)


def test_an_outlier_in_a_later_batch_breaks_no_probe() -> None:
    x = task()[0]
    heavy = torch.exp(1.5 * torch.randn(320, 1, generator=torch.Generator().manual_seed(1)))
    options = {"train": (x, heavy / heavy.std()), "loss_fn": nn.MSELoss(), "build_model": lambda: nn.Linear(4, 1)}
    for seed in range(6):
        run = prober(seed=seed, **options)
        run.range_test()
        assert math.isfinite(run.probe(1e-3, 0.25).loss), seed


def test_a_probe_is_a_complete_cycle_that_costs_its_updates() -> None:
    run = measured()
    probe = run.probe(0.1, 0.25)
    assert run.total_steps == 160
    assert run.probe_steps(0.25) == 40
    assert run.cost == pytest.approx(0.25)
    assert probe.loss < 0.4


def test_an_evaluation_costs_a_third_of_an_update_per_batch() -> None:
    run = measured(val=task())
    run.probe(0.1, 0.25)
    assert run.cost == pytest.approx(0.25 + 20 / 3 / 160)
    assert run.probe_cost(0.25) == pytest.approx(run.cost)


def test_a_diverged_probe_costs_only_the_updates_made() -> None:
    calls = 0

    def loss_fn(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return nn.functional.cross_entropy(output, target) * (math.nan if calls == 5 else 1.0)

    run = measured(loss_fn=loss_fn)
    calls = 0
    probe = run.probe(0.1, 1.0)
    assert (probe.loss, probe.learned) == (math.inf, False)
    assert run.cost == pytest.approx(5 / 160)


def test_the_same_lr_gives_the_same_probe() -> None:
    torch.manual_seed(1)
    first = prober().probe(0.1, 0.25)
    torch.manual_seed(2)
    assert prober().probe(0.1, 0.25) == first


def test_a_probe_that_hardly_moves_has_not_learned() -> None:
    run = prober()
    run.range_test()
    assert not run.probe(1e-4, 0.25).learned
    assert run.probe(0.1, 0.25).learned


def test_half_of_what_a_range_test_gained_is_enough_where_it_learned() -> None:
    run = prober(loss_fn=lambda output, target: 10 + nn.functional.cross_entropy(output, target))
    run.range_test()
    assert not run.probe(0.1, 0.25).learned
    run.learned_gain = run.gained
    assert run.probe(0.1, 0.25).learned


@pytest.mark.parametrize(("epochs", "steps"), [(1, 0), (3, 20), (8, 32), (100, 100)])
def test_a_range_test_takes_a_fifth_of_a_run_and_at_most_100_updates(epochs: int, steps: int) -> None:
    assert prober(epochs=epochs).test_steps == steps


def test_what_cannot_be_probed_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`train` must have a length, .* but generator has none: pass a list"):
        prober(train=(batch for batch in [task()]))
    with pytest.raises(ValueError, match="`build_model` must return a torch"):
        prober(build_model=lambda: None).probe(0.1, 0.25)


@pytest.mark.parametrize("name", ["SGD", "Adam", "RMSprop", "Adagrad", "Adadelta"])
def test_an_optimizer_begins_at_its_usual_rate_with_room_around_it(name: str) -> None:
    run = prober(optimizer=getattr(torch.optim, name))
    assert run.default_start == USUAL_LR[name]
    assert run.lowest < run.floor < USUAL_LR[name] / 900
    assert USUAL_LR[name] * 90 < run.ceiling < USUAL_LR[name] * 300


def test_a_start_near_zero_breaks_no_probe_whose_loss_falls_from_it() -> None:
    def shifted(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(output, target) - math.log(2) - 0.05

    run = prober(loss_fn=shifted)
    run.range_test()
    assert run.probe(0.1, 0.25).loss < run.measure_untrained()
    assert divergence_level(run.measure_untrained(), run.gained) > 0.2
