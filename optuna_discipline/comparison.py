"""The tuned configuration against an untuned default, on fresh seeds and data that no choice has seen."""

import math
import statistics
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from optuna_discipline._imports import require
from optuna_discipline.rules.schedule import OneCycle
from optuna_discipline.trainer import OptimizerName

DEFAULT = {"lr": 0.01, "momentum": 0.9, "weight_decay": 1e-4, "batch_size": 64}
EVALUATION_BATCH = 1024


@dataclass(frozen=True)
class Constant:
    """A schedule that never changes: what a user has who tunes nothing.

    Attributes:
        max_lr: The learning rate.
        total_steps: Optimizer updates of the run.
        max_momentum: The momentum.
    """

    max_lr: float
    total_steps: int
    max_momentum: float

    def lr(self, step: int) -> float:
        """Return the learning rate of any step."""
        return self.max_lr

    def momentum(self, step: int) -> float:
        """Return the momentum of any step."""
        return self.max_momentum


@dataclass(frozen=True)
class Score:
    """What several trainings of one configuration reached.

    Attributes:
        val_accuracy: One number a seed, in [0, 1]; NaN for a training that broke.
        test_accuracy: Likewise, on data that no choice has seen.
    """

    val_accuracy: tuple[float, ...]
    test_accuracy: tuple[float, ...]

    def summary(self) -> str:
        """Return mean and standard deviation over the seeds, in per cent."""

        def spread(values: Sequence[float]) -> str:
            whole = [value for value in values if math.isfinite(value)]
            if not whole:
                return "none, every training broke"
            sd = statistics.stdev(whole) if len(whole) > 1 else 0.0
            broken = f", {len(values) - len(whole)} of {len(values)} broke" if len(whole) < len(values) else ""
            return f"{100 * statistics.mean(whole):.2f} % (sd {100 * sd:.2f}{broken})"

        return f"validation {spread(self.val_accuracy)}, test {spread(self.test_accuracy)}"


def score(
    task: Any,
    params: Mapping[str, float],
    *,
    epochs: int,
    seeds: Sequence[int],
    cycle: bool,
    device: Any = None,
    optimizer: OptimizerName = "sgd",
) -> Score:
    """Train one configuration once a seed and return its accuracies.

    Args:
        task: A `Task` of `examples`.
        params: `lr`, `momentum`, `weight_decay` and `batch_size`.
        epochs: Length of each training.
        seeds: One training each: weights, order of the data.
        cycle: Whether by 1cycle or at constant learning rate and momentum.
        device: Where to train.
        optimizer: "sgd", "adamw" or "adam".
    """
    from optuna_discipline.training.batches import as_batches
    from optuna_discipline.training.loop import train_epochs
    from optuna_discipline.training.random_state import PrivateRandom
    from optuna_discipline.training.update import resolve_device

    torch = require("torch", extra="torch")
    val_accuracy, test_accuracy = [], []
    for seed in seeds:
        with PrivateRandom(seed, resolve_device(torch.nn.Identity(), device)):
            model = task.build_model()
        batches = as_batches(task.train, batch_size=int(params["batch_size"]), shuffle=True, seed=seed, device=device)
        steps, momentum = epochs * len(batches), float(params["momentum"])  # type: ignore[arg-type]
        schedule = (
            OneCycle(params["lr"], steps, max_momentum=momentum) if cycle else Constant(params["lr"], steps, momentum)
        )
        logs = list(
            train_epochs(
                model,
                torch.nn.functional.cross_entropy,
                batches,
                None,
                schedule,
                optimizer=optimizer,
                weight_decay=params["weight_decay"],
                device=device,
                seed=seed,
            )
        )
        broken = len(logs) < epochs
        val_accuracy.append(float("nan") if broken else _accuracy(model, task.val, device))
        test_accuracy.append(float("nan") if broken else _accuracy(model, task.test, device))
    return Score(tuple(val_accuracy), tuple(test_accuracy))


def _accuracy(model: Any, data: tuple[Any, Any], device: Any) -> float:
    from optuna_discipline.training.batches import as_batches
    from optuna_discipline.training.evaluation import evaluate
    from optuna_discipline.training.update import resolve_device

    def no_loss(output: Any, _: Any) -> Any:  # torch's would refuse targets that can be counted, such as int32
        return output.new_zeros(())

    batches = as_batches(data, batch_size=EVALUATION_BATCH)
    found = evaluate(model, batches, no_loss, device=resolve_device(model, device), accuracy=True).accuracy
    assert found is not None  # it was demanded
    return found
