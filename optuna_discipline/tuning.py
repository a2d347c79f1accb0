"""The one call: a model and data in, a tuned study out."""

import contextlib
import dataclasses
import math
import os
import tempfile
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from typing import Any
from typing import Literal

import optuna
from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from optuna_discipline.costs import cost_in_full_trainings
from optuna_discipline.exceptions import UnsupportedStudyError
from optuna_discipline.first_look import check_search
from optuna_discipline.lost_study import naming_a_lost_study
from optuna_discipline.objective import METRICS
from optuna_discipline.objective import Metric
from optuna_discipline.objective import batch_sizes
from optuna_discipline.pruner import DisciplinedPruner
from optuna_discipline.rules.arguments import is_count
from optuna_discipline.rules.arguments import is_number
from optuna_discipline.rules.lr_choice import check_optimizer_of
from optuna_discipline.rules.range_test import RangeTest
from optuna_discipline.rules.recipe import Recipe
from optuna_discipline.rules.space import searched
from optuna_discipline.sampler import DisciplinedSampler
from optuna_discipline.snapshots import SnapshotRestarts
from optuna_discipline.trainer import OptimizerName
from optuna_discipline.trainer import Trainer
from optuna_discipline.trial_record import PRUNED_KEY
from optuna_discipline.trial_record import TERMS_KEY

if TYPE_CHECKING:
    from optuna.artifacts._protocol import ArtifactStore

# Trials that fail in a row before a study is given up: they count for no number of trials, and may cost no budget.
HOPELESS = 20
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
    lr: tuple[float, float] | float | None = None,
    momentum: tuple[float, float] | float = (0.8, 0.99),
    weight_decay: tuple[float, float] | float | None = None,
    batch_size: Sequence[int] | int = (32, 64, 128),
    recipe: Recipe | None = None,
    range_test: bool | RangeTest | Callable[[], RangeTest] | None = None,
    pruner: optuna.pruners.BasePruner | None = None,
    storage: str | BaseStorage | None = None,
    study_name: str | None = None,
    device: Any = None,
    seed: int | None = None,
    callbacks: Sequence[Callable[[Study, FrozenTrial], None]] = (),
    n_jobs: int = 1,
    catch: Iterable[type[Exception]] | type[Exception] = (),
    progress_bar: bool = False,
    train_options: Mapping[str, Any] | None = None,
    artifact_store: "ArtifactStore | str | os.PathLike[str] | None" = None,
) -> Study:
    """Tune learning rate, momentum, weight decay and batch size of a network by the discipline.

    An LR range test where it is cheap, then complete 1cycle trainings stage by stage, then a model-based refinement for
    as long as you let it. The best configuration is in `study.best_trial.params`, its `epochs` among them: where full
    trainings overfit, a short one may be best.

    Args:
        build_model: Called without arguments, or with the trial if it takes one argument (to suggest its own
            parameters; then no range test is run here). Returns a fresh torch module.
        train: Training data: a tuple of tensors or arrays (inputs, targets), a torch Dataset, or a DataLoader, which is
            made anew with each batch size: its data set, `sampler`, `collate_fn` and workers stay.
        val: Validation data, likewise; a DataLoader is used as it is.
        n_trials: Trials of the whole study; a resumed study counts those it has. Failed and interrupted ones, which
            have trained nothing to the end, do not count, but twenty in a row that fail end the study, too. One of
            `n_trials` and `budget`.
        budget: Cost of the whole study in full trainings; the trial that crosses it is the last. Twenty trials in a
            row that fail end the study, too.
        loss_fn: Called as `loss_fn(output, target)`; None is cross-entropy for integer targets, the squared error for
            floats. Only torch's own cross-entropy has a known loss of chance, by which a broken training is stopped.
        metric: What is optimised: "val_loss", "train_loss" or "val_accuracy" (maximised, by a classification's loss).
        optimizer: "sgd" (Nesterov), "adamw" or "adam", whose momentum is beta1; others train in an objective.
        epochs: Length of a full training in epochs.
        lr: Bounds of the learning rate, or one fixed number; None is (1e-5, 10) for SGD and (1e-6, 1) for the Adams.
        momentum: Bounds of the cycle's largest momentum, or one fixed number.
        weight_decay: Bounds of the weight decay, or one fixed number, such as 0 for embeddings with sparse gradients;
            None is (1e-7, 0.1), for AdamW, whose weight decay is decoupled, (0.01, 1).
        batch_size: Batch sizes to choose from, or one fixed number.
        recipe: The stages and their settings; the complexity that it leaves open is that of model and data.
        range_test: Whether to begin with an LR range test; None does where it costs a tenth of a training at most: from
            1,000 updates on. Or one of your own, or a function that runs one, as `DisciplinedSampler` takes them;
            a test of an optimizer with another usual learning rate is refused.
        pruner: None is `DisciplinedPruner()`.
        storage: Optuna storage or its URL; a study of this name that `tune` has made goes on, with the same metric,
            optimizer and batch sizes, and so does one of yours that holds no trials yet but enqueued ones.
        study_name: Name of the study; None is "discipline" in a storage.
        device: Where to train; None is CUDA's GPU if there is one, else the CPU (on a Mac, too).
        seed: Fixes everything on a CPU, where trials run one at a time, but for the clock: runs of ten seconds or more
            that take longer with a smaller batch size count. None is unrepeatable.
        callbacks: Called as `callback(study, trial)` after every trial.
        n_jobs: Trials at a time, in threads, which share torch's random numbers: weights and dropout are then not
            repeatable, and the caller's random state may have moved.
        catch: Exceptions that fail a trial instead of ending the study, as in `study.optimize`: such as
            `torch.OutOfMemoryError`, which is met by smaller batches.
        progress_bar: Whether to show Optuna's progress bar.
        train_options: Further arguments of `train_epochs`, such as `{"amp": "bf16", "clip_norm": 1.0}`. A `step` reads
            batches of any form; then `loss_fn` must be given, unless they are pairs.
        artifact_store: Where `Recipe(weight_decay_search="snapshot")` keeps its snapshots: a store of
            `optuna.artifacts` that every worker reaches, or a folder; a study in memory needs none.

    Returns:
        The study. Ctrl-C ends it early: the running trial is failed, the study is returned as it stands.

    Raises:
        ValueError: If an argument breaks its rule; nothing has been stored then, but for what only the models of a
            `build_model(trial)` show.
        DisciplineError: If the data or the model cannot be trained at all, or the study is deleted or renamed.
    """
    if (n_trials is None) == (budget is None):
        raise ValueError(f"give one of `n_trials` and `budget`, but got {n_trials=}, {budget=}.")
    if n_trials is not None and not is_count(n_trials):
        raise ValueError(f"`n_trials` must be a positive integer, but got {n_trials!r}.")
    if budget is not None and not (is_number(budget) and 0 < budget < math.inf):
        raise ValueError(f"`budget` must be a positive number of full trainings, but got {budget!r}.")
    if metric not in METRICS:
        raise ValueError(f"`metric` must be one of {METRICS}, but got {metric!r}.")
    check_search(recipe, range_test, pruner, storage, callbacks, n_jobs)
    rates, decays = searched(optimizer)
    lr, weight_decay = (rates if lr is None else lr), (decays if weight_decay is None else weight_decay)
    trainer = Trainer(
        build_model,
        train,
        val,
        loss_fn,
        metric,
        optimizer,
        epochs,
        device,
        seed,
        {} if train_options is None else train_options,
        {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "batch_size": batch_size, "epochs": (1, epochs)},
    ).checked()
    if isinstance(range_test, RangeTest):
        check_optimizer_of(range_test, optimizer)
    full_recipe = trainer.recipe(recipe)
    test = range_test
    if test is None or isinstance(test, bool):
        tested = not trainer.takes_trial and (trainer.range_test_is_cheap() if test is None else test)
        test = trainer.range_test if tested else None
    with contextlib.closing(trainer), _snapshots(full_recipe, storage, artifact_store) as snapshots:
        trainer = dataclasses.replace(trainer, snapshots=snapshots)
        direction: Literal["minimize", "maximize"] = "maximize" if metric == "val_accuracy" else "minimize"
        study = optuna.create_study(
            storage=storage,
            study_name=study_name or ("discipline" if storage is not None else None),
            direction=direction,
            load_if_exists=storage is not None,
            sampler=DisciplinedSampler(full_recipe, range_test=test, seed=seed),
            pruner=pruner or DisciplinedPruner(),
        )
        _keep_terms(study, direction, {"metric": metric, "optimizer": optimizer, "batch_size": batch_sizes(batch_size)})
        limit = _Limit(n_trials, budget)
        try:
            with naming_a_lost_study(study):
                while not (study._stop_flag or limit.reached(study)):  # Optuna counts failed trials, too
                    study.optimize(
                        trainer.objective,
                        n_trials=limit.trials_left(study),
                        callbacks=[*callbacks, limit, *([] if snapshots is None else [snapshots])],
                        n_jobs=n_jobs,
                        catch=catch,
                        gc_after_trial=trainer.device.type != "cpu",  # 0.2 s; Optuna's errors hold model and data
                        show_progress_bar=progress_bar,
                    )
        except KeyboardInterrupt:
            _logger.warning("Interrupted: the study is returned as it stands; the same call goes on with a stored one.")
    if said := _why_nothing_trained(study):
        _logger.warning(said)
    return study


def _keep_terms(study: Study, direction: str, terms: dict[str, Any]) -> None:
    """Keep on the study by what its trials are compared; refuse to go on by something else.

    Raises:
        UnsupportedStudyError: If the study has several objectives.
        ValueError: If the study was begun with another metric or optimizer, other batch sizes, or another objective.
    """
    begun = any(trial.state != TrialState.WAITING for trial in study.get_trials(deepcopy=False))  # before its terms
    cure = "its trials could not be compared. Give another `study_name` or `storage`."
    if len(study.directions) > 1:
        raise UnsupportedStudyError(
            f"`tune` optimises one objective, but the study {study.study_name!r} has {len(study.directions)}: give "
            "another `study_name` or `storage`."
        )
    if study.direction.name.lower() != direction:
        raise ValueError(
            f"`metric` must be one to {study.direction.name.lower()}, as the study {study.study_name!r} does, but got "
            f"{terms['metric']!r}: {cure}"
        )
    stored = study.user_attrs.get(TERMS_KEY)
    if stored is None and begun:
        raise ValueError(f"the study {study.study_name!r} was not made by `tune`, but has trials: {cure}")
    if stored is None:
        return study.set_user_attr(TERMS_KEY, terms)
    for name, value in terms.items():
        if stored.get(name) != value:
            raise ValueError(
                f"`{name}` must be that of the study {study.study_name!r}, {stored.get(name)!r}, but got {value!r}: "
                f"{cure}"
            )


def _why_nothing_trained(study: Study) -> str:
    """Return what to look at where no trial has trained to its end, "" where one has or none has been stopped."""
    trials = [t for t in study.get_trials(deepcopy=False) if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    complete = [t.value for t in trials if t.state == TrialState.COMPLETE]
    if not trials or any(value is not None and math.isfinite(value) for value in complete):
        return ""
    last = trials[-1]
    why = last.user_attrs.get(PRUNED_KEY, "the pruner said so")
    how = f"ended at {last.value}" if last.state == TrialState.COMPLETE else f"was stopped because {why}"
    lowest = min((trial.params["lr"] for trial in trials if "lr" in trial.params), default=math.nan)
    return (
        f"No trial has trained to its end; the last, {last.number}, {how}. Are there NaN or inf in the data, or "
        "targets of thousands, and does `loss_fn` fit the model's output? Where these are fine, lower `lr`, both "
        f"bounds of a range: the smallest that ran is {lowest:.3g}."
    )


@contextlib.contextmanager
def _snapshots(
    recipe: Recipe, storage: str | BaseStorage | None, artifact_store: "ArtifactStore | str | os.PathLike[str] | None"
) -> Iterator[SnapshotRestarts | None]:
    """Give what saves and restarts trials, None where the recipe does not ask for it."""
    if recipe.weight_decay_search == "runs":
        yield None
    elif artifact_store is not None:
        yield SnapshotRestarts(artifact_store)
    elif storage is not None:
        raise ValueError(
            "`artifact_store` must be given where a stored study restarts from snapshots, so that every worker finds "
            "them: pass a folder or a store of optuna.artifacts."
        )
    else:
        with tempfile.TemporaryDirectory() as folder:
            yield SnapshotRestarts(folder)


@dataclass(frozen=True)
class _Limit:
    """Stops the study when its trials or its budget are used up."""

    n_trials: int | None
    budget: float | None

    def __call__(self, study: Study, trial: FrozenTrial) -> None:
        if self.reached(study):
            study.stop()
        elif trial.state == TrialState.FAIL and _is_hopeless(study):
            _logger.warning(f"The last {HOPELESS} trials failed: the study is ended.")
            study.stop()

    def reached(self, study: Study) -> bool:
        if self.budget is not None:
            return cost_in_full_trainings(study) >= self.budget
        left = self.trials_left(study)
        return left is not None and left <= 0

    def trials_left(self, study: Study) -> int | None:
        """Return the trials that are still to end, None where the budget counts."""
        if self.n_trials is None:
            return None
        return self.n_trials - len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED)))


def _is_hopeless(study: Study) -> bool:
    """Whether one trial after the other has failed."""
    last = [trial.state for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()][-HOPELESS:]
    return last == [TrialState.FAIL] * HOPELESS
