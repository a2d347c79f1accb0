"""Runs that ended before they trained: out of memory, an impossible combination, a broken file.

Optuna's samplers forget such trials, and a study whose first configuration cannot run must not repeat it for ever.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from operator import attrgetter
from statistics import median

from optuna_discipline.rules.run import LADDER
from optuna_discipline.rules.run import MODEL_SLOT
from optuna_discipline.rules.run import Run
from optuna_discipline.rules.run import differ_in_rate
from optuna_discipline.rules.slots import MAX_FAILURES
from optuna_discipline.rules.slots import SHORTEST_TIMED_RUN
from optuna_discipline.rules.standstill import first_to_learn
from optuna_discipline.rules.standstill import stands_still

AT_ONCE = 0.5  # of the time that a run takes which trains
# A round number as large as this, twice and without a report, is what an objective returns for what cannot run.
LEAST_PLACEHOLDER = 1e4
# So many have ended without a number, with smaller sizes, lower rates and other words each time: what runs lies
# elsewhere. Where a quarter of the rates run, all above the start, the first was drawn in trials 6 to 18 (5 seeds).
ENOUGH_IN_VAIN = 6


def without_placeholders(runs: Sequence[Run]) -> list[Run]:
    """Return the runs, with an infinite loss where an objective returned a constant such as 1e9 for what cannot run.

    Taken as a loss it would hide all differences between the others.
    """
    large = [run for run in runs if run.loss is not None and LEAST_PLACEHOLDER <= run.loss < math.inf]
    silent = [run for run in large if not run.reports and run.curve is None]
    worst = max((run.loss or 0.0 for run in silent), default=0.0)
    alike = {run.number for run in silent if run.loss == worst}
    if worst != round(worst) or len(alike) < MAX_FAILURES:
        return list(runs)
    return [replace(run, loss=math.inf) if run.number in alike else run for run in runs]


def failures_so_far(runs: Sequence[Run]) -> int:
    """Return how many runs have ended while none `those_that_fit`, 0 once one does.

    Where an objective has said so itself (it pruned, or returned infinity) one more is counted: the same again would
    end the same, while one that raised may have been killed.
    """
    if those_that_fit(runs):
        return 0
    ended = [run for run in runs if run.state != "running"]
    return len(ended) + any(run.state != "failed" for run in ended)


def those_that_fit(runs: Sequence[Run]) -> list[Run]:
    """Return the runs whose sizes may be held: those that trained; where a constraint was broken, those that held.

    There a run that diverged ends no retreat: nothing has shown yet that anything allowed trains.
    """
    met = all(run.allowed for run in runs)
    return [run for run in runs if (run.trained if met else run.held)]


def all_in_vain(runs: Sequence[Run]) -> bool:
    """Whether enough has been tried around the start, and nothing has run or learned: then it is drawn from all."""
    return nothing_ran(runs) or stands_still(runs)


def nothing_ran(runs: Sequence[Run]) -> bool:
    """Whether enough has been tried around the start without a number.

    Where neither a size nor a word nor a learning rate could be another one, the first configuration is enough.
    """
    if any(run.finite and run.state != "running" for run in runs):
        return False
    ended = [run for run in runs if run.state != "running"]
    elsewhere = any("lr" in run.params or can_be_smaller(run) for run in ended)
    return len(ended) >= ENOUGH_IN_VAIN if elsewhere else failures_so_far(ended) >= MAX_FAILURES


def drawn_first(runs: Sequence[Run]) -> Run | None:
    """Return the first run that came to a number, or that learned, if all before it was in vain; None else."""
    first = next((run for run in sorted(runs, key=attrgetter("number")) if run.finite), None)
    if first is None:
        return None
    if first.slot == MODEL_SLOT and nothing_ran([run for run in runs if run.number < first.number]):
        return first
    return first_to_learn(runs)


def since_the_first_training(runs: Sequence[Run]) -> list[Run]:
    """Return the runs without those that failed before any had trained, if they say nothing about a learning rate.

    They do say something where the first run that trained differs in the learning rate alone. Where none has trained,
    all are returned once more have failed than the first configuration and another, or there is no other.
    """
    first = min((run for run in runs if run.trained), key=attrgetter("number"), default=None)
    if first is None:
        failures = failures_so_far(runs)
        if failures > MAX_FAILURES or (failures == MAX_FAILURES and not any(map(can_be_smaller, runs))):
            return list(runs)
        return [run for run in runs if run.state == "running"]
    return [run for run in runs if run.number >= first.number or run.state == "running" or _rate_broke(run, first)]


def those_that_count(runs: Sequence[Run], found: Run | None) -> list[Run]:
    """Return the runs that the stages build on: those since the search began, or began anew with `drawn_first`.

    What ran before that one says nothing of where it lies. Nor is what turned out to have no learning rate a rung.
    """
    since = since_the_first_training(runs) if found is None else [run for run in runs if run.number >= found.number]
    return [run for run in since if run.slot is None or run.is_rung or not run.slot.startswith(LADDER)]


def what_none_did(runs: Sequence[Run], what: str) -> str:
    """Return what none of these runs has done, in words: what broke a constraint may have done it all the same."""
    return what if all(run.allowed for run in runs) else f"{what} within the constraints"


def can_be_smaller(run: Run) -> bool:
    """Whether a run that has not trained has sizes or words, of which other ones might have."""
    others = any(not isinstance(value, float) for value in run.others.values())
    return not run.smallest and ("batch_size" in run.params or others)


def _rate_broke(run: Run, trained: Run) -> bool:
    """Whether the learning rate is to blame for a run that has failed before another trained.

    One that raised may have been killed, or its code was wrong and has been mended since, unless it took as long as a
    training does: then its objective was no number.
    """
    if not differ_in_rate(run, trained):
        return False
    if run.state != "failed" or run.seconds is None or trained.seconds is None:
        return run.state != "failed"
    return trained.seconds >= SHORTEST_TIMED_RUN and run.seconds >= AT_ONCE * trained.seconds


def failed_at_once(runs: Sequence[Run]) -> set[int]:
    """Return the numbers of failed runs that could not train, rather than were killed.

    Those ended without a report; where runs take long enough to be timed, in less than half the time of one that
    trains. A worker that dies does so at any time, and is found out late. What failed before any had trained is left
    out, but where the rate was to blame: a mistake in the code may have been, since mended. While all is in vain
    nothing else is known than what failed.
    """
    if nothing_ran(runs):
        return {run.number for run in runs if run.state == "failed"}
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
