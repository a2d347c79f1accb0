"""Losses below 0: of a log likelihood of -50 a share says nothing of what was learned.

Of a loss above 0 it does: a network that has left a twentieth of it behind has hardly learned, however smoothly it
fell, be its unit that of a cross-entropy or of a squared error in the thousands.
"""

import numpy as np

from optuna_discipline.rules.slots import what_is_missing

# A fall is clear if it is so many times what the loss moves from one report to the next. Of noise alone .7 % of 5
# reports fall so far, .15 % of 10; of 1,487 recorded trainings that had learned (`benchmarks.lr_lean`) 85 %.
ENOUGH_REPORTS, CLEAR = 5, 6.0
ABOVE_ZERO = 0.25  # of the fall: where the lowest of them is put


def less_offset(reports: tuple[float, ...]) -> tuple[float, ...]:
    """Return reports that fell clearly, but reach below 0, as if they had fallen towards 0; others as they are.

    >>> less_offset((-146.0, -148.0, -149.0, -149.5, -149.8, -150.0))
    (4.975, 2.975, 1.975, 1.475, 1.175, 0.975)
    >>> less_offset((2.4, 2.32, 2.31, 2.305, 2.303, 2.302))
    (2.4, 2.32, 2.31, 2.305, 2.303, 2.302)
    """
    if len(reports) < ENOUGH_REPORTS or not np.all(np.isfinite(reports)):
        return reports
    if min(what_is_missing(reports)) >= 0:
        return reports
    fall = reports[0] - float(np.mean(reports[-(len(reports) // 3) :]))
    if not fall > CLEAR * np.median(np.abs(np.diff(reports))):
        return reports
    return tuple(round(y - min(reports) + ABOVE_ZERO * fall, 12) for y in reports)
