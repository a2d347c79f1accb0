"""The range test as a selector: which momentum or weight decay it favours."""

import math
from collections.abc import Hashable
from collections.abc import Mapping
from typing import TypeVar

import numpy as np

from optuna_discipline.rules.arguments import check_type
from optuna_discipline.rules.curve import OVERFLOW
from optuna_discipline.rules.curve import FloatArray
from optuna_discipline.rules.curve import running_median
from optuna_discipline.rules.range_test import RangeTest
from optuna_discipline.rules.range_test_curve import has_validation

Candidate = TypeVar("Candidate", bound=Hashable)

WINDOW = 0.1  # of the curve
TIED = 0.01  # of the smallest loss: the choices of the paper's panels come out for any share from 0.005 to 0.02


def rank_by_range_test(range_tests: Mapping[Candidate, RangeTest]) -> list[Candidate]:
    """Return the candidates, best first, by their range tests (Smith 2018, figures 4 to 13; the rule is ours).

    Candidates are ordered by the smallest value of their smoothed loss (validation where there is one). Those within
    1 % of the smallest are tied; among them the one with the lower mean loss (in the log, if all are positive) at
    larger learning rates wins: it bears them better. A curve that has ended or is not a number there counts with the
    largest loss of all, and one that broke before its first evaluation comes last.
    On the 13 panels in which the paper names a best value this rule names it; the smallest raw loss does in 12. His
    tests had 5,000 updates and more: with 100 updates of small networks the rule is no better than momentum 0.95, and
    for the weight decay it does harm (benchmarks/README.md).

    The curves must come from the same network, data and sweep; at a constant learning rate, give the iterations as
    `lrs`.

    Args:
        range_tests: The test of each candidate.

    Raises:
        ValueError: If there is no candidate, or some were run with validation data and others without.
        TypeError: If a value is not a RangeTest.

    Example:
        >>> lrs = np.geomspace(1e-3, 1, 30)
        >>> bowls = {d: RangeTest(lrs, 1 + d + np.log10(lrs / 0.1) ** 2, None, "end of range") for d in (0.2, 0.1, 0.3)}
        >>> rank_by_range_test(bowls)
        [0.1, 0.2, 0.3]
    """
    check_type("range_tests", range_tests, Mapping)
    if not range_tests:
        raise ValueError("`range_tests` must hold at least one candidate, but is empty.")
    for candidate, test in range_tests.items():
        check_type(f"range_tests[{candidate!r}]", test, RangeTest)
    by_validation = any(has_validation(test) for test in range_tests.values())
    without = [candidate for candidate, test in range_tests.items() if test.val_loss is None]
    if by_validation and without:
        raise ValueError(
            "`range_tests` must have validation losses, all or none, as a training loss lies lower, but there is none "
            f"of {without!r:.80}: run these with `val`, or the others without."
        )
    curves = {candidate: _smoothed(test, by_validation) for candidate, test in range_tests.items()}
    minima = {candidate: float(loss.min(initial=math.inf)) for candidate, (_, loss) in curves.items()}
    order = sorted(curves, key=lambda candidate: minima[candidate])
    smallest = minima[order[0]]
    if not math.isfinite(smallest):
        return order
    tied = [candidate for candidate in order if minima[candidate] <= smallest + TIED * abs(smallest)]
    lowest = [curves[candidate] for candidate in order if minima[candidate] == smallest]
    start = max(float(lrs[int(np.argmin(loss))]) for lrs, loss in lowest)  # whichever of equals was given first
    grid = np.unique(np.concatenate([lrs[lrs > start] for lrs, _ in curves.values()]))
    worst = max((float(x[np.isfinite(x)].max(initial=-math.inf)) for _, x in curves.values()), default=smallest)
    above = {candidate: _above(*curves[candidate], grid, worst) for candidate in tied}
    if all(loss.min(initial=math.inf) > 0 for loss in above.values()):  # means of logs compare with none of numbers
        above = {candidate: np.log(loss) for candidate, loss in above.items()}
    if len(grid):
        tied.sort(key=lambda candidate: (float(above[candidate].mean()), minima[candidate]))
    return tied + order[len(tied) :]


def _smoothed(test: RangeTest, by_validation: bool) -> tuple[FloatArray, FloatArray]:
    """Return learning rates and the running median of the losses that were measured."""
    losses, seen = test.train_loss, np.ones(len(test.lrs), dtype=bool)
    if by_validation and test.val_loss is not None:
        losses, seen = test.val_loss, ~np.isnan(test.val_loss)
    window = max(1, int(WINDOW * seen.sum()) // 2 * 2 + 1)
    with np.errstate(invalid="ignore"):
        sane = np.where(np.abs(losses) < OVERFLOW, losses, np.inf)
    return test.lrs[seen], running_median(sane[seen], window=window)


def _above(lrs: FloatArray, loss: FloatArray, grid: FloatArray, worst: float) -> FloatArray:
    """Return the losses on the grid."""
    known = np.isfinite(loss)
    found = np.interp(grid, lrs[known], loss[known], right=worst) if known.any() else np.full(len(grid), worst)
    if np.any(~known):
        found = np.where(grid >= lrs[~known][0], worst, found)
    return np.minimum(found, worst)
