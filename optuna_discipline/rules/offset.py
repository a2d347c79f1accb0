"""Losses without a zero: of a log likelihood of -50, or a bound of 500, a share of it says nothing of what was learned.

A loss of chance is different: a network that hardly leaves it has not learned, however smoothly it falls.
"""

import numpy as np

from optuna_discipline.rules.slots import what_is_missing

MOST_OF_CHANCE = 12.0  # no cross-entropy of chance is larger: the logarithm of 160,000 classes
# A fall is clear if it is so many times what the loss moves from one report to the next. Of noise alone .7 % of 5
# reports fall so far, .15 % of 10; of 1,487 recorded trainings that had learned (`benchmarks.lr_lean`) 85 %.
ENOUGH_REPORTS, CLEAR = 5, 6.0
ABOVE_ZERO = 0.25  # of the fall: where the lowest of them is put


def less_offset(reports: tuple[float, ...]) -> tuple[float, ...]:
    """Return reports that fell clearly, but lie below 0 or far above it, as if they had fallen towards 0; others as is.

    >>> less_offset((504.0, 502.0, 501.0, 500.5, 500.2, 500.0))
    (4.975, 2.975, 1.975, 1.475, 1.175, 0.975)
    >>> less_offset((2.4, 2.32, 2.31, 2.305, 2.303, 2.302))
    (2.4, 2.32, 2.31, 2.305, 2.303, 2.302)
    """
    if len(reports) < ENOUGH_REPORTS or not np.all(np.isfinite(reports)):
        return reports
    lowest = min(reports)
    if min(what_is_missing(reports)) >= 0 and lowest <= MOST_OF_CHANCE:
        return reports
    fall = reports[0] - float(np.mean(reports[-(len(reports) // 3) :]))
    if not fall > CLEAR * np.median(np.abs(np.diff(reports))):
        return reports
    return tuple(round(y - lowest + ABOVE_ZERO * fall, 12) for y in reports)
