"""The one call: a model and data in, a tuned study out."""

import inspect
import math
import sys
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from typing import Literal

import numpy as np
import optuna
from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import FrozenTrial
from optuna.trial import Trial
from optuna.trial import TrialState

from optuna_discipline._imports import require
from optuna_discipline.objective import METRICS
from optuna_discipline.objective import Metric
from optuna_discipline.objective import TrialReporter
from optuna_discipline.objective import suggest_hyperparams
from optuna_discipline.pruner import DisciplinedPruner
from optuna_discipline.rules.candidates import DEFAULT_WEIGHT_DECAY
from optuna_discipline.rules.candidates import complexity_of
from optuna_discipline.rules.lr_choice import RangeTest
from optuna_discipline.rules.recipe import Recipe
from optuna_discipline.rules.schedule import OneCycle
from optuna_discipline.sampler import DisciplinedSampler
from optuna_discipline.trial_record import cost_in_full_trainings

OptimizerName = Literal["sgd", "adamw", "adam"]
RANGE_TEST_STEPS = 100
RANGE_TEST_MOMENTUM = 0.9  # the middle of a cycle between 0.95 and 0.85
BASE_MOMENTUM = 0.85
VALIDATION_BATCH = 1024
_logger = optuna.logging.get_logger(f"optuna.{__name__}")


def tune(
    build_model: Callable[..., Any],
    train: Any,
    val: Any,
    *,
    n_trials: int | None = None,
    budget: float | None = None,
    loss_fn: Callable[[Any, Any], Any] | None = None,
    metric: Metric = "val_loss",
    optimizer: OptimizerName = "sgd",
    epochs: int = 16,
    lr: tuple[float, float] | None = None,
    momentum: tuple[float, float] = (0.8, 0.99),
    weight_decay: tuple[float, float] = (1e-7, 1e-1),
    batch_size: Sequence[int] | int = (32, 64, 128),
    recipe: Recipe | None = None,
    range_test: bool = True,
    pruner: optuna.pruners.BasePruner | None = None,
    storage: str | BaseStorage | None = None,
    study_name: str | None = None,
    device: Any = None,
    seed: int | None = None,
    callbacks: Sequence[Callable[[Study, FrozenTrial], None]] = (),
    n_jobs: int = 1,
    progress_bar: bool = False,
    train_options: Mapping[str, Any] | None = None,
) -> Study:
    """Tune learning rate, momentum, weight decay and batch size of a network by the discipline.

    One LR range test, then short complete 1cycle trainings stage by stage, full-length ones to confirm, then a
    model-based refinement for as long as you let it. The best configuration is in `study.best_trial.params`; the runs
    at full length are those whose `epochs` is the largest.

    Args:
        build_model: Called without arguments, or with the trial if it takes one argument (to suggest its own
            parameters; then there is no range test). Returns a fresh torch module.
        train: Training data: a tuple of tensors or arrays (inputs, targets), or a torch Dataset.
        val: Validation data, likewise.
        n_trials: Trials of the whole study; a resumed study counts those it has. One of `n_trials` and `budget`.
        budget: Cost of the whole study in full trainings; the trial that crosses it is the last.
        loss_fn: Called as `loss_fn(output, target)`; None is cross-entropy for integer targets, else the squared error.
        metric: What is optimised: "val_loss", "val_accuracy" (maximised) or "train_loss".
        optimizer: "sgd" (Nesterov), "adamw" or "adam", whose momentum is beta1.
        epochs: Length of a full training in epochs.
        lr: Bounds of the learning rate; None is (1e-5, 10) for SGD and (1e-6, 1) for the Adams.
        momentum: Bounds of the cycle's largest momentum.
        weight_decay: Bounds of the weight decay.
        batch_size: Batch sizes to choose from, or one fixed number.
        recipe: The stages and their settings; None judges the complexity of model and data.
        range_test: Whether to begin with an LR range test.
        pruner: None is `DisciplinedPruner()`.
        storage: Optuna storage or its URL; an existing study of this name goes on.
        study_name: Name of the study; None is "discipline" in a storage.
        device: Where to train; None is the GPU if there is one, else the CPU.
        seed: Fixes everything on a CPU; None is unrepeatable.
        callbacks: Called as `callback(study, trial)` after every trial.
        n_jobs: Trials at a time, in threads.
        progress_bar: Whether to show Optuna's progress bar.
        train_options: Further arguments of `train_epochs`, such as `{"amp": "bf16", "clip_norm": 1.0}`.

    Returns:
        The study. Ctrl-C ends it early: the running trial is failed, the study is returned as it stands.

    Raises:
        ValueError: If an argument breaks its rule; nothing has been stored then.
        DisciplineError: If the data or the model cannot be trained at all.
    """
    if (n_trials is None) == (budget is None):
        raise ValueError(f"give one of `n_trials` and `budget`, but got {n_trials=}, {budget=}.")
    if n_trials is not None and (isinstance(n_trials, bool) or not isinstance(n_trials, int) or n_trials < 1):
        raise ValueError(f"`n_trials` must be a positive integer, but got {n_trials!r}.")
    if budget is not None and not 0 < budget < math.inf:
        raise ValueError(f"`budget` must be a positive number of full trainings, but got {budget!r}.")
    if metric not in METRICS:
        raise ValueError(f"`metric` must be one of {METRICS}, but got {metric!r}.")
    lr = lr or ((1e-5, 10.0) if optimizer == "sgd" else (1e-6, 1.0))
    task = _Task(
        build_model,
        train,
        val,
        loss_fn,
        metric,
        optimizer,
        epochs,
        device,
        seed,
        dict(train_options or {}),
        {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "batch_size": batch_size, "epochs": (1, epochs)},
    ).checked()
    study = optuna.create_study(
        storage=storage,
        study_name=study_name or ("discipline" if storage is not None else None),
        direction="maximize" if metric == "val_accuracy" else "minimize",
        load_if_exists=storage is not None,
        sampler=DisciplinedSampler(
            recipe or task.recipe(),
            range_test=task.range_test if range_test and not task.takes_trial else None,
            seed=seed,
        ),
        pruner=pruner or DisciplinedPruner(),
    )
    limit = _Limit(n_trials, budget)
    if limit.reached(study):
        return study
    try:
        study.optimize(
            task.objective,
            n_trials=None if n_trials is None else limit.trials_left(study),
            callbacks=[*callbacks, limit],
            n_jobs=n_jobs,
            show_progress_bar=progress_bar,
        )
    except KeyboardInterrupt:
        _logger.warning("Interrupted: the study is returned as it stands; the same call goes on with a stored one.")
    return study


@dataclass(frozen=True)
class _Limit:
    """Stops the study when its trials or its budget are used up."""

    n_trials: int | None
    budget: float | None

    def __call__(self, study: Study, trial: FrozenTrial) -> None:
        if self.reached(study):
            study.stop()

    def reached(self, study: Study) -> bool:
        if self.budget is not None:
            return cost_in_full_trainings(study) >= self.budget
        return self.trials_left(study) <= 0

    def trials_left(self, study: Study) -> int:
        ended = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
        return (self.n_trials or sys.maxsize) - len(ended)


@dataclass(frozen=True)
class _Task:
    """What is trained, and how one trial trains it."""

    build_model: Callable[..., Any]
    train: Any
    val: Any
    loss_fn: Callable[[Any, Any], Any] | None
    metric: Metric
    optimizer: OptimizerName
    epochs: int
    device: Any
    seed: int | None
    options: dict[str, Any]
    space: dict[str, Any]

    def checked(self) -> "_Task":
        """Return the task with its defaults filled in, after one look at model, data and search space."""
        torch = require("torch", extra="torch")
        if not callable(self.build_model):
            raise ValueError(f"`build_model` must be a function that returns a module, but got {self.build_model!r}.")
        if isinstance(self.epochs, bool) or not isinstance(self.epochs, int) or self.epochs < 1:
            raise ValueError(f"`epochs` must be a positive integer, but got {self.epochs!r}.")
        if self.optimizer not in ("sgd", "adamw", "adam"):
            raise ValueError(f"`optimizer` must be 'sgd', 'adamw' or 'adam', but got {self.optimizer!r}.")
        device = torch.device(self.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        if device.type == "cuda" and not torch.cuda.is_available():
            raise ValueError(f"`device` is {str(self.device)!r}, but torch sees no GPU here: use device='cpu'.")
        suggest_hyperparams(optuna.trial.FixedTrial(self._lowest()), **self.space)
        task = _replace(self, device=device)
        target = task._first_target()
        if self.loss_fn is None:
            functional = torch.nn.functional
            default = functional.mse_loss if target.is_floating_point() else functional.cross_entropy
            task = _replace(task, loss_fn=default)
        return task

    @property
    def takes_trial(self) -> bool:
        """Whether `build_model` wants the trial."""
        try:
            needed = inspect.signature(self.build_model).parameters.values()
        except (TypeError, ValueError):
            return False
        return any(p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in needed)

    def recipe(self) -> Recipe:
        """Return the recipe for the complexity of model and data; our loop cycles the momentum."""
        if self.takes_trial:
            return Recipe(cyclical_momentum=True)
        complexity = complexity_of(self._model(None, 0), max(1, self._n_samples()), self.n_classes)
        return Recipe(complexity=complexity, cyclical_momentum=True)

    @property
    def n_classes(self) -> int | None:
        """Number of classes, where the first validation batch shows integer targets."""
        target = self._first_target()
        if target.is_floating_point() or target.is_complex() or target.ndim != 1:
            return None
        highest = max(int(batch[1].max()) for batch in self._batches(self.val, VALIDATION_BATCH))
        return highest + 1 if highest >= 1 else None

    def objective(self, trial: Trial) -> float:
        """Train once as the trial says, report every epoch, return the metric."""
        from optuna_discipline.training.loop import train_epochs

        params = suggest_hyperparams(trial, **self.space)
        seed = None if self.seed is None else self._seed_of(trial.number)
        model = self._model(trial, seed)
        batches = self._batches(self.train, params.batch_size, shuffle=True, seed=seed)
        schedule = OneCycle(
            params.max_lr,
            total_steps=params.epochs * len(batches),
            max_momentum=params.momentum,
            base_momentum=min(BASE_MOMENTUM, params.momentum),
        )
        reporter = TrialReporter(trial, n_epochs=params.epochs, metric=self.metric, n_classes=self.n_classes)
        value = math.nan
        for log in train_epochs(
            model,
            self.loss_fn,  # type: ignore[arg-type]
            batches,
            self._batches(self.val, VALIDATION_BATCH),
            schedule,
            optimizer=self.optimizer,
            weight_decay=params.weight_decay,
            device=self.device,
            seed=seed,
            **self.options,
        ):
            reporter.report(log)
            value = getattr(log, self.metric)
        return value

    def range_test(self) -> RangeTest:
        """Run the LR range test of the study."""
        from optuna_discipline.training.lr_range_test import lr_range_test

        sizes = self.space["batch_size"]
        size = sizes if isinstance(sizes, int) else sorted(sizes)[(len(sizes) - 1) // 2]
        batches = self._batches(self.train, size, shuffle=True, seed=self.seed)
        names = ("amp", "clip_norm", "accumulate", "step")
        return lr_range_test(
            self._model(None, self.seed),
            self.loss_fn,  # type: ignore[arg-type]
            batches,
            self._batches(self.val, VALIDATION_BATCH),
            optimizer=self.optimizer,
            num_steps=RANGE_TEST_STEPS,
            momentum=RANGE_TEST_MOMENTUM,
            weight_decay=DEFAULT_WEIGHT_DECAY,
            device=self.device,
            seed=self.seed,
            planned_steps=self.epochs * len(batches),
            **{name: self.options[name] for name in names if name in self.options},
        )

    def _model(self, trial: Trial | None, seed: int | None) -> Any:
        """Return a fresh model whose weights the seed fixes; the caller's random state stays."""
        torch = require("torch", extra="torch")
        with torch.random.fork_rng(enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed)
            model = self.build_model(trial) if self.takes_trial else self.build_model()
        if not isinstance(model, torch.nn.Module):
            raise ValueError(f"`build_model` must return a torch module, but returned {type(model).__name__}.")
        return model

    def _batches(self, data: Any, batch_size: int, *, shuffle: bool = False, seed: int | None = None) -> Any:
        from optuna_discipline.training.batches import as_batches

        return as_batches(data, batch_size=batch_size, shuffle=shuffle, seed=seed, device=self.device)

    def _first_target(self) -> Any:
        for name, data in (("train", self.train), ("val", self.val)):
            batch = next(iter(self._batches(data, 2)), None)
            if not (isinstance(batch, tuple | list) and len(batch) == 2):
                raise ValueError(f"`{name}` must yield (input, target) pairs, but yields {type(batch).__name__}.")
        return batch[1]  # type: ignore[index]

    def _n_samples(self) -> int:
        return len(self.train[0]) if isinstance(self.train, tuple) else len(self.train)

    def _seed_of(self, number: int) -> int:
        return int(np.random.default_rng([self.seed or 0, number]).integers(2**31))

    def _lowest(self) -> dict[str, Any]:
        def first(bounds: Any) -> Any:
            return bounds[0] if isinstance(bounds, list | tuple) and bounds else bounds

        return {name: first(bounds) for name, bounds in self.space.items()}


def _replace(task: _Task, **changes: Any) -> _Task:
    import dataclasses

    return dataclasses.replace(task, **changes)
