"""What an objective calls: suggest the four numbers, report an epoch, be pruned in its own loop."""

import math
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from typing import Literal
from typing import get_args

import optuna
from optuna.trial import BaseTrial

from optuna_discipline import study_record
from optuna_discipline import trial_record
from optuna_discipline.exceptions import UnsupportedStudyError
from optuna_discipline.rules.arguments import check_type
from optuna_discipline.rules.arguments import is_count
from optuna_discipline.rules.arguments import is_number
from optuna_discipline.rules.arguments import to_float
from optuna_discipline.rules.curve import EpochLog
from optuna_discipline.rules.curve import check_plan
from optuna_discipline.rules.space import DECAY_RANGE
from optuna_discipline.rules.space import SGD_RANGE

Metric = Literal["val_loss", "val_accuracy", "train_loss"]
# A loss this many times that of chance, or of the first epoch, is reported as that much; the row keeps the number.
CLIP = 10.0
METRICS: tuple[Metric, ...] = get_args(Metric)


@dataclass(frozen=True)
class HyperParams:
    """The discipline's numbers of one trial.

    Attributes:
        max_lr: Largest learning rate of the cycle.
        momentum: Largest momentum of the cycle, or a constant one (beta1 of Adam).
        weight_decay: Weight decay, as in torch.optim.
        batch_size: Samples per optimizer update.
        epochs: Epochs of this run, a complete cycle.
    """

    max_lr: float
    momentum: float
    weight_decay: float
    batch_size: int
    epochs: int


def suggest_hyperparams(
    trial: BaseTrial,
    *,
    lr: tuple[float, float] | float = SGD_RANGE,
    momentum: tuple[float, float] | float = (0.8, 0.99),
    weight_decay: tuple[float, float] | float = DECAY_RANGE,
    batch_size: Sequence[int] | int = 64,
    epochs: tuple[int, int] | int = (1, 16),
) -> HyperParams:
    """Suggest `lr`, `momentum`, `weight_decay`, `batch_size` and `epochs` of a trial.

    Where the momentum is the largest of a cycle, as in `OneCycle(p.max_lr, ..., max_momentum=p.momentum)`, the sampler
    has to be told so, by `DisciplinedSampler(Recipe(cyclical_momentum=True))`: else it takes it for a constant one,
    since its name says no more, and compares momenta at one lr / (1 - momentum).

    Args:
        trial: A trial of any study; with another sampler these are ordinary parameters.
        lr: Bounds (low, high), searched on a log scale, or one fixed number.
        momentum: Bounds, or one fixed number.
        weight_decay: Bounds, searched on a log scale, or one fixed number.
        batch_size: Values to choose from, or one fixed number.
        epochs: Bounds (shortest cycle, full length), or one fixed number.

    Raises:
        ValueError: If a bound is not a positive finite number, or low exceeds high.
    """
    check_type("trial", trial, BaseTrial)
    low_lr, high_lr = _bounds("lr", lr)
    low_m, high_m = _bounds("momentum", momentum, zero=True)
    low_wd, high_wd = _bounds("weight_decay", weight_decay, zero=is_number(weight_decay))
    low_epochs, high_epochs = _bounds("epochs", epochs)
    if low_epochs != int(low_epochs) or high_epochs != int(high_epochs):
        raise ValueError(f"`epochs` must be whole numbers, but got {epochs!r}.")
    if high_m >= 1:
        raise ValueError(f"`momentum` must be below 1, but got {momentum!r}.")
    sizes = batch_sizes(batch_size)
    return HyperParams(
        max_lr=trial.suggest_float("lr", low_lr, high_lr, log=True),
        momentum=trial.suggest_float("momentum", low_m, high_m),
        weight_decay=trial.suggest_float("weight_decay", low_wd, high_wd, log=low_wd > 0),
        batch_size=int(trial.suggest_categorical("batch_size", sizes)),
        epochs=trial.suggest_int("epochs", int(low_epochs), int(high_epochs)),
    )


def batch_sizes(batch_size: Sequence[int] | int) -> list[int]:
    """Return the batch sizes to choose from; one fixed number is a list of one.

    Raises:
        ValueError: If there is none, or one is no positive integer.
    """
    plain: Any = batch_size.tolist() if hasattr(batch_size, "tolist") else batch_size  # NumPy's
    sizes = list(plain) if isinstance(plain, list | tuple | range) else [plain]
    if not sizes or not all(map(is_count, sizes)):
        raise ValueError(f"`batch_size` must be a positive integer or a list of them, but got {batch_size!r}.")
    return [int(size) for size in sizes]


class TrialReporter:
    """Writes each epoch into the trial, reports the metric, and raises `TrialPruned` in your loop.

    Args:
        trial: The objective's trial.
        n_epochs: Epochs of this run, as planned. The pruner compares runs at equal shares of it; reports may
            count from 1, and one farther beyond it is warned of, and is compared with none.
        metric: What `trial.report` gets, and what the study optimises: "val_loss", "val_accuracy" or "train_loss"; one
            that the study turns round is warned of.
        n_classes: Classes of a classification task; makes a run stuck at chance recognisable.

    Raises:
        ValueError: If an argument breaks its rule.
        UnsupportedStudyError: If the study has several objectives.

    Example:
        >>> import optuna
        >>> from optuna_discipline import EpochLog, TrialReporter
        >>> def objective(trial):
        ...     reporter = TrialReporter(trial, n_epochs=2)
        ...     for epoch in range(2):
        ...         log = EpochLog(epoch, lr=0.1, train_loss=0.9 - epoch / 2, val_loss=1.0 - epoch / 2)
        ...         reporter.report(log)
        ...     return log.val_loss
        >>> optuna.logging.set_verbosity(optuna.logging.WARNING)
        >>> study = optuna.create_study()
        >>> study.optimize(objective, n_trials=1)
        >>> study.best_value
        0.5
    """

    def __init__(
        self, trial: BaseTrial, *, n_epochs: int, metric: Metric = "val_loss", n_classes: int | None = None
    ) -> None:
        check_plan(n_epochs, n_classes)
        check_type("trial", trial, BaseTrial)
        if metric not in METRICS:
            raise ValueError(f"`metric` must be one of {METRICS}, but got {metric!r}.")
        self._trial, self._n_epochs, self._metric = trial, n_epochs, metric
        self._is_loss = metric != "val_accuracy"
        self._limit = CLIP * math.log(n_classes) if n_classes is not None and self._is_loss else None
        _once(trial, lambda live: _write_run(live, n_epochs, metric, n_classes, stacklevel=6))

    def report(self, log: EpochLog) -> None:
        """Write the epoch's row, report its metric, ask the pruner: two storage writes.

        A loss over ten times that of chance (of the first that is not 0, where `n_classes` is not known) is reported as
        ten times that, so that one diverged run does not flatten every plot; the row keeps the number. An accuracy is
        reported as it is.

        Raises:
            optuna.TrialPruned: If the pruner says so.
            ValueError: If the log lacks the metric.
        """
        check_type("log", log, EpochLog)
        _once(self._trial, lambda live: self._report(live, log))

    def _report(self, trial: BaseTrial, log: EpochLog) -> None:
        value = metric_of(log, self._metric)
        if self._is_loss and self._limit is None and 0 < abs(value) < math.inf:  # ten times 0 would limit all to it
            self._limit = CLIP * abs(value)
        _report(trial, log, value, self._metric, self._n_epochs, limit=self._limit)


def metric_of(log: EpochLog, metric: Metric) -> float:
    """Return a log's metric; NaN where a training that broke has none, as an accuracy.

    Raises:
        ValueError: If the log lacks the metric.
    """
    value: float | None = getattr(log, metric)
    if value is not None:
        return value
    if any(loss is not None and not math.isfinite(loss) for loss in (log.train_loss, log.val_loss)):
        return math.nan
    why = ""
    if metric == "val_accuracy":
        why = ": an accuracy needs outputs of shape (n, classes) and integer targets, which a `step` returns, too"
    raise ValueError(f"`log` must hold the reporter's metric {metric!r}, but it is None in {log!r}{why}.")


def report_epoch(
    trial: BaseTrial,
    epoch: int,
    *,
    val_loss: float | None = None,
    train_loss: float | None = None,
    lr: float | None = None,
    value: float | None = None,
    n_epochs: int | None = None,
    n_classes: int | None = None,
) -> None:
    """Report one epoch from a foreign training loop, in one line.

    Folds of a cross-validation are no epochs: report none of them, as reports are read as one training's curve.

    Args:
        trial: The objective's trial.
        epoch: Index of the epoch, from 0; one that comes again is dropped, and warned of where its numbers differ.
        val_loss: Validation loss; needed unless `value` is given.
        train_loss: Training loss; without it divergence is harder to see.
        lr: Learning rate at the end of the epoch.
        value: The study's metric, if that is not the validation loss. Given at the first report, it may be missing at
            others, whose losses are kept while `trial.report` gets nothing; where it comes later, that is warned of.
        n_epochs: Epochs of this run, as planned; they may count from 1, and a report farther beyond it is warned of.
        n_classes: Classes of a classification task; makes a run stuck at chance recognisable.

    Raises:
        optuna.TrialPruned: If the pruner says so.
        UnsupportedStudyError: If the study has several objectives.
        ValueError: If neither `val_loss` nor `value` is given, or another argument breaks its rule.
    """
    check_type("trial", trial, BaseTrial)
    log = EpochLog(epoch, lr, train_loss, val_loss)
    _once(trial, lambda live: _report_epoch(live, log, value, n_epochs, n_classes))


def _report_epoch(trial: BaseTrial, log: EpochLog, value: Any, n_epochs: int | None, n_classes: int | None) -> None:
    number = to_float(value)
    if number is None and value is not None:
        raise ValueError(f"`value` must be a number or None, but got {value!r}.")
    if number is None and log.val_loss is None:
        raise ValueError("`val_loss` or `value` must be given to report an epoch, but both are None.")
    check_plan(1 if n_epochs is None else n_epochs, n_classes)
    run = {} if log.epoch == 0 else _stored(trial).get(trial_record.RUN_KEY, {})
    metric = "val_loss" if number is None and run.get("metric") != "value" else "value"
    if not run:
        _write_run(trial, n_epochs, metric, n_classes, stacklevel=7)
    elif metric == "value" != run["metric"]:
        _write_run(trial, run["n_epochs"], metric, run["n_classes"], stacklevel=7)
        study_record.warn_of_late_value(log.epoch, stacklevel=6)
    _report(trial, log, log.val_loss if metric == "val_loss" else number, metric, n_epochs)


def _once(trial: BaseTrial, call: Callable[[BaseTrial], None]) -> None:
    """Call with the trial; with rank 0's, and there only, where several processes train it (`DistributedTrial`)."""
    on_first_rank = getattr(trial, "on_first_rank", None)
    if on_first_rank is None:
        call(trial)
    else:
        on_first_rank(call)


def _report(
    trial: BaseTrial, log: EpochLog, value: float | None, metric: str, n_epochs: int | None, limit: float | None = None
) -> None:
    """Write the row as it is; report a value beyond the limit as the limit, or one run would flatten every plot.

    Of a repeated epoch the first row stays, as the first report does in Optuna (which warns).
    """
    if isinstance(trial, optuna.Trial):
        stored, own = _stored(trial), None if metric == "val_loss" else value
        if trial_record.has_row(stored, trial.number, log.epoch):
            study_record.warn_once_of_repeat(trial, stored, log, own, stacklevel=7)
        else:
            study_record.warn_once_beyond(trial, stored, log.epoch, n_epochs, stacklevel=7)
            trial_record.write_row(trial.study._storage, trial._trial_id, trial.number, log, own)
    if value is not None:
        trial.report(float(value) if limit is None or not value > limit else limit, log.epoch)
    if trial.should_prune():
        raise optuna.TrialPruned(f"Pruned at epoch {log.epoch}.")


def _write_run(trial: BaseTrial, n_epochs: int | None, metric: str, n_classes: int | None, *, stacklevel: int) -> None:
    if isinstance(trial, optuna.Trial):
        if len(trial.study.directions) > 1:
            raise UnsupportedStudyError(
                "TrialReporter and report_epoch report one objective, by which runs are compared, but the study has "
                f"{len(trial.study.directions)}: optimise one, or report no epochs."
            )
        study_record.warn_of_direction(trial.study, metric, stacklevel=stacklevel)
        trial_record.write_run(
            trial.study._storage, trial._trial_id, n_epochs=n_epochs, metric=metric, n_classes=n_classes
        )


def _stored(trial: BaseTrial) -> Mapping[str, Any]:
    """Return what the storage holds on a live trial, {} for one that has no storage."""
    return trial.study._storage.get_trial_system_attrs(trial._trial_id) if isinstance(trial, optuna.Trial) else {}


def _bounds(name: str, bounds: tuple[float, float] | float, *, zero: bool = False) -> tuple[float, float]:
    pair: Any = (bounds, bounds) if is_number(bounds) else bounds
    try:
        low, high = map(to_float, pair)
    except (TypeError, ValueError):  # nothing to iterate over, or not two
        low = high = None
    if low is None or high is None or not low <= high < math.inf or not (low > 0 or (zero and low == 0)):
        rule = f"0 {'<=' if zero else '<'} low <= high"
        raise ValueError(f"`{name}` must be one number or (low, high) with {rule}, but got {bounds!r}.")
    return low, high
