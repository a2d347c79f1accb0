"""The record of one training: an `EpochLog` per epoch, a `LossCurve` per run, and how to smooth it."""

import math
from dataclasses import dataclass
from dataclasses import field

import numpy as np
from numpy.typing import ArrayLike
from numpy.typing import NDArray

from optuna_discipline.rules.arguments import check_type
from optuna_discipline.rules.arguments import is_count
from optuna_discipline.rules.arguments import to_float
from optuna_discipline.rules.arguments import to_int

FloatArray = NDArray[np.float64]

OVERFLOW = 1e150
"""A loss above this counts as infinite."""
MOST_GAPS = 0.1  # of the reports; or one
ROUNDING = 1e-3
"""What a mean in half precision may lie beside [0, 1]."""


@dataclass(frozen=True)
class EpochLog:
    """What one epoch of training left behind.

    Losses may be NaN or infinite: a diverged epoch is data. `None` means "not measured".

    Attributes:
        epoch: Index of the epoch, from 0. This is also Optuna's `step`.
        lr: Learning rate of the epoch's last optimizer update.
        train_loss: Mean training loss over the epoch, or None.
        val_loss: Validation loss after the epoch, or None.
        val_accuracy: Share of the validation samples classified rightly, in [0, 1], or None.

    Raises:
        ValueError: If an attribute breaks its rule.
    """

    epoch: int
    lr: float | None
    train_loss: float | None
    val_loss: float | None
    val_accuracy: float | None = None

    def __post_init__(self) -> None:
        epoch = to_int(self.epoch)
        if epoch is None or epoch < 0:
            raise ValueError(f"`epoch` must be an integer from 0 on, but got {self.epoch!r}.")
        object.__setattr__(self, "epoch", epoch)  # of NumPy's integers, which no storage takes
        for name in ("lr", "train_loss", "val_loss", "val_accuracy"):
            value = getattr(self, name)
            number = to_float(value)
            if number is None and value is not None:
                raise ValueError(f"`{name}` must be one number (NaN and inf are) or None, but got {value!r}.")
            object.__setattr__(self, name, number)  # a tensor would keep its gradient's graph
        accuracy = self.val_accuracy
        if accuracy is not None and not (math.isnan(accuracy) or -ROUNDING <= accuracy <= 1 + ROUNDING):
            raise ValueError(
                f"`val_accuracy` must be a share in [0, 1], NaN or None, but got {accuracy!r}: divide percent by 100."
            )


@dataclass(frozen=True)
class LossCurve:
    """The epochs of one run, in order, each at most once.

    Attributes:
        logs: The epochs seen so far, by rising `epoch`; of a repeated epoch the first stays, as in Optuna.
        n_epochs: Epochs of the whole run, as planned; they may count from 1, and a log farther beyond it lengthens it.
        n_classes: Classes of a classification task, which fixes the loss of chance at `ln(n_classes)`; or None.
    """

    logs: tuple[EpochLog, ...]
    n_epochs: int
    n_classes: int | None = None
    _columns: dict[str, FloatArray] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        first: dict[int, EpochLog] = {}
        for log in self.logs:
            check_type("logs", log, EpochLog)
            first.setdefault(log.epoch, log)
        logs = tuple(first[epoch] for epoch in sorted(first))
        check_plan(self.n_epochs, self.n_classes)
        object.__setattr__(self, "logs", logs)
        if logs and logs[-1].epoch > self.n_epochs:
            object.__setattr__(self, "n_epochs", logs[-1].epoch + 1)

    def __len__(self) -> int:
        return len(self.logs)

    @property
    def epochs(self) -> FloatArray:
        """Indices of the logged epochs, shape (len(self),)."""
        return self._column("epoch")

    @property
    def lr(self) -> FloatArray:
        """Learning rates, shape (len(self),); NaN where not logged."""
        return self._column("lr")

    @property
    def train_loss(self) -> FloatArray:
        """Training losses, shape (len(self),); NaN where not logged, so ask `has_train_loss` first."""
        return self._column("train_loss")

    @property
    def val_loss(self) -> FloatArray:
        """Validation losses, shape (len(self),); NaN where not logged, so ask `has_val_loss` first."""
        return self._column("val_loss")

    @property
    def has_train_loss(self) -> bool:
        """Whether any epoch measured the training loss (a NaN that was measured counts)."""
        return any(log.train_loss is not None for log in self.logs)

    @property
    def has_val_loss(self) -> bool:
        """Whether any epoch measured the validation loss (a NaN that was measured counts)."""
        return any(log.val_loss is not None for log in self.logs)

    @property
    def gap(self) -> FloatArray:
        """Generalisation gap `val_loss - train_loss`, shape (len(self),)."""
        with np.errstate(invalid="ignore"):
            return self.val_loss - self.train_loss

    @property
    def fraction(self) -> float:
        """Share of the planned run that is done, in [0, 1].

        >>> LossCurve((EpochLog(0, 0.1, 1.0, 1.0), EpochLog(1, 0.1, 0.9, 1.0)), n_epochs=8).fraction
        0.25
        """
        return min(1.0, (self.logs[-1].epoch + 1) / self.n_epochs) if self.logs else 0.0

    def _column(self, name: str) -> FloatArray:
        if name not in self._columns:
            values = [getattr(log, name) for log in self.logs]
            column = np.array([math.nan if value is None else value for value in values], dtype=np.float64)
            column[np.abs(column) > OVERFLOW] *= np.inf  # differences and means of larger numbers would overflow
            column.flags.writeable = False
            self._columns[name] = column
        return self._columns[name]


def check_plan(n_epochs: int, n_classes: int | None) -> None:
    """Refuse a length or a number of classes that no run has.

    Raises:
        ValueError: If `n_epochs` is no integer from 1 on, or `n_classes` neither one from 2 on nor None.
    """
    if not is_count(n_epochs):
        raise ValueError(f"`n_epochs` must be a positive integer, but got {n_epochs!r}.")
    if n_classes is not None and not (is_count(n_classes) and n_classes >= 2):
        raise ValueError(
            f"`n_classes` must be an integer from 2 on, or None where the task is no classification, "
            f"but got {n_classes!r}."
        )


def without_gaps(reports: tuple[float, ...]) -> tuple[float, ...]:
    """Return reports without a few NaN before the last: there a metric had no value, while the training went on.

    A network that has broken reports no number any more; where the last is none, or many are, all stay.

    >>> without_gaps((math.nan, 0.5, 0.4)), without_gaps((0.5, 0.4, math.nan))
    ((0.5, 0.4), (0.5, 0.4, nan))
    """
    known = tuple(y for y in reports if not math.isnan(y))
    few = len(reports) - len(known) <= max(1, MOST_GAPS * len(reports))
    return known if few and reports and not math.isnan(reports[-1]) else reports


def running_median(values: ArrayLike, window: int = 5) -> FloatArray:
    """Return the centred running median; at the ends the window shrinks. One spike does not move it.

    A non-finite value counts as +inf, so that a diverged stretch stays visible.

    Args:
        values: Losses, shape (n,).
        window: Number of neighbours, odd; see `range_test` rules for why 5 and why not an average.

    >>> running_median([1.0, 9.0, 1.0, 1.0, 1.0], window=3).tolist()
    [5.0, 1.0, 1.0, 1.0, 1.0]
    """
    array = np.asarray(values, dtype=np.float64)
    finite = np.where(np.isfinite(array), array, np.inf)
    half = window // 2
    return np.array([_median(finite[max(0, i - half) : i + half + 1]) for i in range(len(finite))], dtype=np.float64)


def noise_sd(values: ArrayLike) -> float:
    """Return a robust standard deviation of the noise on a slowly moving curve (0 when it cannot be told).

    The median absolute deviation of the first differences, scaled to a normal's sd and divided by sqrt(2); a trend
    that is slow against the noise does not count.

    >>> noise_sd([1.0, 1.0, 1.0, 1.0])
    0.0
    """
    array = np.asarray(values, dtype=np.float64)
    array = array[np.isfinite(array)]
    return sd_of_differences(np.diff(array))


def sd_of_differences(differences: FloatArray) -> float:
    """Return the robust standard deviation of the noise that makes these first differences (0 of fewer than two)."""
    if len(differences) < 2:
        return 0.0
    mad = np.median(np.abs(differences - np.median(differences)))
    return float(1.4826 * mad / math.sqrt(2.0))


def tail_median(values: ArrayLike, count: int = 5) -> float:
    """Return the median of the last `count` finite values, NaN when there is none."""
    array = np.asarray(values, dtype=np.float64)[-count:]
    array = array[np.isfinite(array)]
    return float(np.median(array)) if len(array) else math.nan


def _median(window: FloatArray) -> float:
    ordered = np.sort(window)
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return float(ordered[middle])
    low, high = float(ordered[middle - 1]), float(ordered[middle])
    return max(low, low / 2 + high / 2)  # half of the smallest number is zero
