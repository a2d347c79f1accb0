import dataclasses
import math

import pytest

from optuna_discipline import comparison
from optuna_discipline import examples

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def task() -> examples.Task:
    return examples.load_digits_task()


def test_one_cycle_at_a_fair_rate_beats_the_untuned_default(task: examples.Task) -> None:
    params = {"lr": 0.1, "momentum": 0.95, "weight_decay": 1e-4, "batch_size": 64}
    settings = {"epochs": 4, "seeds": (0, 1)}
    tuned = comparison.score(task, params, cycle=True, **settings)  # type: ignore[arg-type]
    default = comparison.score(task, comparison.DEFAULT, cycle=False, **settings)  # type: ignore[arg-type]
    assert min(tuned.test_accuracy) > max(default.test_accuracy)


def test_a_training_that_breaks_scores_nan(task: examples.Task) -> None:
    params = {"lr": 1e6, "momentum": 0.9, "weight_decay": 0.0, "batch_size": 64}
    assert math.isnan(comparison.score(task, params, epochs=2, seeds=(0,), cycle=False).test_accuracy[0])


@pytest.mark.parametrize("dtype", ["int64", "int32", "int16", "uint8"])
def test_an_accuracy_is_counted_for_targets_of_any_integers_and_a_class_beyond_the_outputs_is_wrong(
    task: examples.Task, dtype: str
) -> None:
    def narrow(part: tuple[torch.Tensor, torch.Tensor], extra: int) -> tuple[torch.Tensor, torch.Tensor]:
        inputs, targets = part[0][:100], part[1][:100].clone()
        targets[:extra] = 10  # the network has the outputs 0 to 9
        return inputs, targets.to(getattr(torch, dtype))

    own = dataclasses.replace(task, val=narrow(task.val, 0), test=narrow(task.val, 50))
    score = comparison.score(own, comparison.DEFAULT, epochs=4, seeds=(0,), cycle=False)
    assert score.val_accuracy[0] > 0.5
    assert 0 < score.test_accuracy[0] <= 0.5


def test_scores_are_repeatable_and_leave_the_callers_random_state(task: examples.Task) -> None:
    before = torch.get_rng_state()
    first, again = (comparison.score(task, comparison.DEFAULT, epochs=1, seeds=(3,), cycle=False) for _ in range(2))
    assert first == again
    assert torch.equal(torch.get_rng_state(), before)


def test_a_summary_gives_mean_and_sd_in_per_cent() -> None:
    score = comparison.Score((0.98, 0.99, 1.0), (0.5,))
    assert score.summary() == "validation 99.00 % (sd 1.00), test 50.00 % (sd 0.00)"


def test_trainings_that_broke_are_counted_not_averaged() -> None:
    score = comparison.Score((0.98, math.nan, 1.0), (math.nan,))
    assert score.summary() == "validation 99.00 % (sd 1.41, 1 of 3 broke), test none, every training broke"


def test_the_constant_schedule_is_constant() -> None:
    schedule = comparison.Constant(0.01, 10, 0.9)
    assert {(schedule.lr(step), schedule.momentum(step)) for step in range(10)} == {(0.01, 0.9)}


def test_a_comparison_on_the_cpu_asks_nothing_of_cuda(task: examples.Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.random, "fork_rng", None)  # it reads the generators of all devices
    assert comparison.score(task, comparison.DEFAULT, epochs=1, seeds=(0,), cycle=False).val_accuracy[0] > 0
