"""Whether what a run reported leads to what it returned."""

import math

import numpy as np

# Of what the reports span, or of the objective: as far it may lie from the last report, or the best, of other data.
NEAR_LAST, NEAR_BEST = 0.5, 0.1
ROUNDING = 1e-6  # of a mean


def leads_to(loss: float | None, reports: tuple[float, ...]) -> bool:
    """Whether the last of the reports or the best is about what the objective returned, or they are of something else.

    An accuracy that is reported where a loss is returned climbs when all is well. Of several trainings one after the
    other, such as folds, each begins anew, and their mean is no curve's end.
    """
    if loss is None or not reports or not all(map(math.isfinite, (loss, *reports))):
        return True
    if loss not in (reports[-1], min(reports)) and _is_mean_of_trainings(loss, reports):
        return False
    size = max(max(reports) - min(reports), abs(loss))
    return abs(loss - reports[-1]) <= NEAR_LAST * size or abs(loss - min(reports)) <= NEAR_BEST * size


def _is_mean_of_trainings(loss: float, reports: tuple[float, ...]) -> bool:
    """Whether a loss is the mean of all reports, or of the ends, or the best, of equal parts that each begin anew.

    >>> _is_mean_of_trainings(0.35, (0.9, 0.4, 0.8, 0.3)), _is_mean_of_trainings(0.35, (0.9, 0.4, 0.35, 0.3))
    (True, False)
    """
    for count in (k for k in range(2, len(reports) + 1) if len(reports) % k == 0):
        parts = np.reshape(reports, (count, -1))
        last, best = parts[:, -1], parts.min(axis=1)
        anew = bool(np.all(parts[1:, 0] > last[:-1]) and np.all(parts[:, 0] > best))
        means = (float(last.mean()), float(best.mean()))
        if (anew or count == len(reports)) and any(math.isclose(loss, mean, rel_tol=ROUNDING) for mean in means):
            return True
    return False
