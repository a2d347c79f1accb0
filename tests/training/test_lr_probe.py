import math

import numpy as np
import pytest
import torch
from torch import nn

from optuna_discipline.rules.range_test import RangeTest
from optuna_discipline.training.lr_probe import Prober
from optuna_discipline.training.lr_probe import last_stable_lr
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


def test_a_probe_is_a_complete_cycle_that_costs_its_updates() -> None:
    run = prober()
    probe = run.probe(0.1, 0.25)
    assert run.total_steps == 160
    assert run.probe_steps(0.25) == 40
    assert run.cost == pytest.approx(0.25)
    assert probe.loss < 0.4


def test_an_evaluation_costs_a_third_of_an_update_per_batch() -> None:
    run = prober(val=task())
    run.probe(0.1, 0.25)
    assert run.cost == pytest.approx(0.25 + 20 / 3 / 160)
    assert run.probe_cost(0.25) == pytest.approx(run.cost)


def test_a_diverged_probe_costs_only_the_updates_made() -> None:
    calls = 0

    def loss_fn(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return nn.functional.cross_entropy(output, target) * (math.nan if calls == 5 else 1.0)

    run = prober(loss_fn=loss_fn)
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


@pytest.mark.parametrize(("epochs", "steps"), [(1, 0), (3, 20), (8, 32), (100, 100)])
def test_a_range_test_takes_a_fifth_of_a_run_and_at_most_100_updates(epochs: int, steps: int) -> None:
    assert prober(epochs=epochs).test_steps == steps


def test_what_cannot_be_probed_is_refused() -> None:
    with pytest.raises(ValueError, match="`train` must have a length"):
        prober(train=(batch for batch in [task()]))
    with pytest.raises(ValueError, match="`build_model` must return a torch"):
        prober(build_model=lambda: None).probe(0.1, 0.25)


def curve(losses: list[float]) -> RangeTest:
    return RangeTest(
        np.geomspace(0.1, 10.0, len(losses)), np.array(losses), None, "end of range", initial_loss=losses[0]
    )


def test_the_last_stable_lr_is_the_one_before_the_first_wild_loss() -> None:
    rising = np.concatenate([np.full(20, 2.0), np.full(10, 9.0)])
    assert last_stable_lr(curve(list(rising))) == pytest.approx(curve(list(rising)).lrs[19])
    spike = np.where(np.arange(30) == 12, 9.0, 2.0)
    assert last_stable_lr(curve(list(spike))) == pytest.approx(10.0)
    assert last_stable_lr(curve([2.0, 1.0, math.nan])) == pytest.approx(1.0)
    assert last_stable_lr(curve([2.0, 1.0, 1.0])) == pytest.approx(10.0)
    assert last_stable_lr(curve([math.nan, 1.0])) == pytest.approx(0.1)
