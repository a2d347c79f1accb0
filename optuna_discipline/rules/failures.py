"""Runs that ended before they trained: out of memory, an impossible combination, a broken file.

Optuna's samplers forget such trials, and a study whose first configuration cannot run must not repeat it for ever.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import median

from optuna_discipline.rules.run import Run
from optuna_discipline.rules.slots import MAX_FAILURES
from optuna_discipline.rules.slots import SHORTEST_TIMED_RUN

AT_ONCE = 0.5  # of the time that a run takes which trains
# A round number as large as this, twice and without a report, is what an objective returns for what cannot run.
LEAST_PLACEHOLDER = 1e4


def without_placeholders(runs: Sequence[Run]) -> list[Run]:
    """Return the runs, with an infinite loss where an objective returned a constant such as 1e9 for what cannot run.

    Taken as a loss it would hide all differences between the others.
    """
    large = [run for run in runs if run.loss is not None and LEAST_PLACEHOLDER <= run.loss < math.inf]
    silent = [run for run in large if run.state == "complete" and not run.reports and run.curve is None]
    worst = max((run.loss or 0.0 for run in silent), default=0.0)
    alike = {run.number for run in silent if run.loss == worst}
    if worst != round(worst) or len(alike) < MAX_FAILURES:
        return list(runs)
    return [replace(run, loss=math.inf) if run.number in alike else run for run in runs]


def failures_so_far(runs: Sequence[Run]) -> int:
    """Return how many runs have ended without training, 0 once one has trained."""
    return 0 if any(run.trained for run in runs) else sum(run.state != "running" for run in runs)


def since_the_first_training(runs: Sequence[Run]) -> list[Run]:
    """Return the runs without those that failed before any had trained: they say nothing about a learning rate.

    Where none has trained and more have failed than the first configuration and another, all are returned: the learning
    rate may be to blame as well.
    """
    first = min((run.number for run in runs if run.trained), default=math.inf)
    if failures_so_far(runs) > MAX_FAILURES:
        return list(runs)
    return [run for run in runs if run.number >= first or run.trained or run.state == "running"]


def failed_at_once(runs: Sequence[Run]) -> set[int]:
    """Return the numbers of failed runs that could not train, rather than were killed.

    Those ended without a report; where runs take long enough to be timed, in less than half the time of one that
    trains. A worker that dies does so at any time, and is found out late. What failed before any had trained is left
    out: a mistake in the code, since mended, may have been to blame.
    """
    times = [run.seconds for run in runs if run.trained and run.seconds is not None]
    if not times:
        return set()
    usual = median(times)
    found = set()
    for run in since_the_first_training(runs):
        if run.state != "failed" or run.trained or run.seconds is None:
            continue
        if usual < SHORTEST_TIMED_RUN or run.seconds < AT_ONCE * usual:
            found.add(run.number)
    return found
