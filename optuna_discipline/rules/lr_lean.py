"""Read from one whole training whether its learning rate was too high or too low."""

import numpy as np

from optuna_discipline.rules.line_search import Lean
from optuna_discipline.rules.run import Run

# Shares of the span of the reports. On 42 small networks at 3 or 4 seeds, trained by 1cycle at rates within a factor of
# 4 of the best one: of runs that overshot, or climbed by more than the larger share, the better rate lay below in .84,
# at half the rate; of those that climbed by less than the smaller one it lay above in .80, at 1.9 times the rate.
OVERSHOT, CLIMBED, LEVEL = 0.01, 0.1, 0.01
MIN_REPORTS, MOST_PARTS = 4, 16


def lr_lean(run: Run) -> Lean | None:
    """Return on which side a better learning rate is to be expected, None where the reports of a run do not say.

    Even at the top of its cycle a rate that suits lets the validation loss fall or stand. Where the loss climbs on the
    way, the steps were larger than the network bears; where it ends above its best, the data were learnt by heart;
    where it only ever falls, there was room.
    """
    reports = np.array(run.reports)
    if run.state != "complete" or len(reports) < MIN_REPORTS or not np.all(np.isfinite(reports)):
        return None
    span = float(np.ptp(reports))
    if not 0 < span < np.inf:
        return None
    parts = np.array([part.mean() for part in np.array_split(reports, min(len(reports), MOST_PARTS))])
    climb = float(np.max(np.diff(parts))) / span
    if climb > CLIMBED or (reports[-1] - reports.min()) / span > OVERSHOT:
        return "down"
    return "up" if climb <= LEVEL else None
