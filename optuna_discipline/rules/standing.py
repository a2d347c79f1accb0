"""How a run stands at each of its epochs: what `should_stop` compares, read once from a curve."""

import bisect
import math
from collections.abc import Hashable
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from optuna_discipline.rules.curve import OVERFLOW
from optuna_discipline.rules.curve import FloatArray
from optuna_discipline.rules.curve import LossCurve
from optuna_discipline.rules.divergence import has_learned
from optuna_discipline.rules.divergence import start_of

# Levels are medians of the last reports: a tenth of the run's, from 2 to 5; noise is measured on the last ten.
WINDOW_SHARE, SMALLEST_WINDOW, LARGEST_WINDOW, NOISE_WINDOW = 0.1, 2, 5, 10
FEWEST_RANKED = 3  # of two the order is luck
# Two learning-rate schedules are one if they stand so near, as shares of the largest rate so far.
SAME_SCHEDULE = 0.15
PERCENT = -100.0  # the best of a maximised one, turned


@dataclass(frozen=True, eq=False, slots=True)
class Standing:
    """A run as it stood at each logged epoch. Reading one costs 0.2 ms, comparing two a microsecond.

    Attributes:
        n_epochs: Length of the run, as planned.
        label: Runs with different labels (stages of a recipe) are not compared.
        epochs: Indices of the logged epochs, rising.
        scores: Median of the last values of the study's metric, turned so that smaller is better; NaN where unknown.
        score_noise: Standard deviation of one such value.
        train: Median of the last training losses; NaN where unknown.
        gap: Median of the last generalisation gaps; NaN where unknown.
        lr_shares: Learning rate, and the first one, as shares of the largest so far, at each epoch; NaN where unknown.
        start: The training loss that it started from.
        lowest_train: Lowest of `train` so far.
        final: Last score, of the last epoch that measured it (NaN is none); inf where unknown.
        first: First score.
        best_possible: The score that cannot be beaten, None where that is not known.
        step: What one validation sample makes, where the metric is a share of them; else 0.
        maximize: Whether `scores` were turned.
    """

    n_epochs: int
    label: Hashable
    epochs: tuple[int, ...]
    scores: FloatArray
    score_noise: FloatArray
    train: FloatArray
    gap: FloatArray
    lr_shares: tuple[tuple[float, float], ...]
    start: float
    lowest_train: FloatArray
    final: float
    first: float
    best_possible: float | None
    step: float
    maximize: bool

    @property
    def fraction(self) -> float:
        """Share of the planned run that is done."""
        return (self.epochs[-1] + 1) / self.n_epochs

    @property
    def has_moved(self) -> bool:
        """Whether the scores differ: an F1 stands at 0 until the loss has fallen far."""
        known = self.scores[np.isfinite(self.scores)]
        return bool(len(known)) and bool(known.max() > known.min())

    def index_at(self, epoch: int) -> int | None:
        """Return the place of the last report up to an epoch, None before the first and after the last."""
        if not self.epochs[0] <= epoch <= self.epochs[-1]:
            return None
        return bisect.bisect_right(self.epochs, epoch) - 1

    def is_like(self, other: "Standing", own: int, others: int) -> bool:
        """Return whether two runs have followed one schedule up to these places; unknown rates are alike."""
        (one, first), (two, other_first) = self.lr_shares[own], other.lr_shares[others]
        if not (abs(one - two) <= SAME_SCHEDULE or (one != one and two != two)):  # NaN is not itself
            return False
        return abs(first - other_first) <= SAME_SCHEDULE or (first != first and other_first != other_first)


def stand(
    curve: LossCurve,
    *,
    values: Sequence[float | None] | None = None,
    maximize: bool = False,
    label: Hashable = None,
) -> Standing:
    """Read a run, finished or not.

    Args:
        curve: At least one epoch.
        values: The study's metric at each log of the curve; None is the validation loss.
        maximize: Whether larger `values` are better.
        label: See `Standing`.

    Raises:
        ValueError: If `values` has another length.
    """
    check_values(curve, values)
    raw = curve.val_loss if values is None else np.array([math.nan if v is None else v for v in values], dtype=float)
    scores = np.where(np.abs(raw) < OVERFLOW, -raw if maximize else raw, np.nan)
    train = np.where(np.isfinite(curve.train_loss), curve.train_loss, np.nan)
    n_reports = curve.n_epochs * len(curve) / (curve.logs[-1].epoch + 1)
    window = min(LARGEST_WINDOW, max(SMALLEST_WINDOW, math.ceil(WINDOW_SHARE * n_reports)))
    gap = np.where(np.isfinite(curve.gap), curve.gap, np.nan)
    levels = running_tail_median(np.stack([scores, train, gap]), window)
    known, last = scores[np.isfinite(scores)], scores[~np.isnan(raw)][-1:]
    best_possible = _best_possible(known, maximize)
    unit = 100.0 if best_possible == PERCENT else 1.0
    return Standing(
        n_epochs=curve.n_epochs,
        label=label,
        epochs=tuple(log.epoch for log in curve.logs),
        scores=levels[0],
        score_noise=_running_noise(scores),
        train=levels[1],
        gap=levels[2],
        lr_shares=_lr_shares(curve.lr),
        start=start_of(curve, train[np.isfinite(train)])[0] if np.isfinite(train).any() else math.nan,
        lowest_train=np.fmin.accumulate(levels[1]),
        final=float(last[0]) if np.isfinite(last).any() else math.inf,
        first=float(known[0]) if len(known) else math.nan,
        best_possible=best_possible,
        step=unit * _step_of_a_share(known / unit),
        maximize=maximize,
    )


def as_peer(
    curve: LossCurve,
    *,
    values: Sequence[float | None] | None = None,
    maximize: bool = False,
    label: Hashable = None,
) -> Standing | None:
    """Read a finished run that others may be compared with, None for one that diverged or never learned."""
    if not len(curve) or has_learned(curve) is False:
        return None
    return stand(curve, values=values, maximize=maximize, label=label)


def check_values(curve: LossCurve, values: Sequence[float | None] | None) -> None:
    """Refuse values that are not one for each log of a curve."""
    if values is not None and len(values) != len(curve):
        raise ValueError(
            f"`values` must hold one number or None for each log of `curve`, but got {len(values)} for {len(curve)}: "
            f"{values!r}."
        )


def rank_alike(ends: Sequence[tuple[float, float]]) -> bool:
    """Whether the values of runs rank them as their last reports do, or too few differ to tell.

    >>> rank_alike([(0.2, 0.8), (0.5, 0.5), (0.3, 0.7)]), rank_alike([(0.2, 0.3), (0.5, 0.7), (0.3, 0.3)])
    (False, True)
    """
    values, reports = (np.unique([end[i] for end in ends], return_inverse=True)[1] for i in (0, 1))
    if len(ends) < FEWEST_RANKED:
        return True
    return bool(np.mean((values - values.mean()) * (reports - reports.mean())) >= 0)


def running_tail_median(values: FloatArray, count: int) -> FloatArray:
    """Return the median of the last `count` known values at each place of the last axis, NaN where there is none.

    >>> running_tail_median(np.array([3.0, 1.0, np.nan, 5.0]), 2).tolist()
    [3.0, 2.0, 1.0, 5.0]
    """
    n = values.shape[-1]
    windows = np.full((count, values.size), np.nan)
    for back in range(min(count, n)):
        windows[back].reshape(values.shape)[..., back:] = values[..., : n - back]
    windows.sort(axis=0)  # NaN comes last
    known = np.maximum(np.isfinite(windows).sum(axis=0), 1)
    places = np.arange(values.size)
    medians: FloatArray = windows[(known - 1) // 2, places] / 2 + windows[known // 2, places] / 2
    return medians.reshape(values.shape)


def _running_noise(values: FloatArray) -> FloatArray:
    """Return a robust standard deviation of one value, from the last differences at each place."""
    differences = np.abs(np.diff(values))
    medians = running_tail_median(differences, NOISE_WINDOW)
    noise = np.concatenate([[0.0], 1.4826 * medians / math.sqrt(2.0)])
    noise[:2] = 0.0  # one difference tells nothing
    return np.where(np.isfinite(noise), noise, 0.0)


def _lr_shares(lr: FloatArray) -> tuple[tuple[float, float], ...]:
    known = np.where(np.isfinite(lr) & (lr >= 0), lr, np.nan)
    largest = np.fmax.accumulate(known)
    first = known[np.isfinite(known)][:1]
    largest = np.where(largest > 0, largest, np.nan)
    starts = (first[0] if len(first) else np.nan) / largest
    return tuple(zip((known / largest).tolist(), starts.tolist(), strict=True))


def _best_possible(known: FloatArray, maximize: bool) -> float | None:
    """Return 0 for a loss or an error, -1 or -100 for a maximised share or percentage, None for other numbers."""
    if maximize:
        fits = (top for top in (-1.0, PERCENT) if len(known) and bool(np.all((known <= 0) & (known >= top))))
        return next(fits, None)
    return 0.0 if bool(np.all(known >= 0)) else None


def _step_of_a_share(known: FloatArray) -> float:
    """Return the unit of which all differences between shares are multiples, 0 if there is none."""
    if not len(known) or np.abs(known).max() > 1:
        return 0.0
    steps = np.diff(np.sort(known))
    steps = steps[steps > 2e-6]  # beyond the rounding of float32
    if len(steps) < 2:
        return 0.0
    smallest = float(steps.min())
    whole = np.abs(steps - np.round(steps / smallest) * smallest) < 2e-6
    return smallest if smallest > 1e-5 and bool(np.all(whole)) else 0.0
