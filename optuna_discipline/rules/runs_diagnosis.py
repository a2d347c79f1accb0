"""What a set of runs says together: how many broke, how many never began, what the best one shows, what to turn."""

import math
from collections import Counter
from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace

import numpy as np

from optuna_discipline.exceptions import DisciplineError
from optuna_discipline.rules.climb import scale_of
from optuna_discipline.rules.curve import LossCurve
from optuna_discipline.rules.curve import tail_median
from optuna_discipline.rules.diagnosis import ADVICE
from optuna_discipline.rules.diagnosis import MIN_EPOCHS
from optuna_discipline.rules.diagnosis import Diagnosis
from optuna_discipline.rules.diagnosis import Verdict
from optuna_discipline.rules.diagnosis import diagnose_if_readable
from optuna_discipline.rules.divergence import chance_never_left
from optuna_discipline.rules.divergence import has_learned
from optuna_discipline.rules.divergence import stood_still
from optuna_discipline.rules.level import MOVED
from optuna_discipline.rules.level import RAN_OUT
from optuna_discipline.rules.level import has_moved
from optuna_discipline.rules.run import Run
from optuna_discipline.rules.slots import hardly_differ
from optuna_discipline.rules.space import Role

MANY = 0.5
# A run has nearly the settings of another if none of these, of a momentum 1 less it, differs by more than a factor ...
NEARLY: Mapping[Role, float] = {"lr": 1.6, "momentum": 1.6, "weight_decay": 10.0, "batch_size": 1.6, "epochs": 1.0}
# ... and ended much worse if its loss is higher by these shares of the other's last one, and of what that fell in all.
WORSE_BY, WORSE_OF_FALL = 0.5, 0.1
# A run at up to so many times the best one's rate that broke, or ended worse by more than noise, leaves no room above.
NEARBY_ABOVE = 3.01
# A metric that ends within this share of its span from its best is at its best.
AT_BEST = 0.05

TOO_SHORT = f"The runs are too short to be read: report at least {MIN_EPOCHS} epochs."
STILL_FALLS_AMONG_BROKEN = "The validation loss still falls: train longer, or regularise less."
RAN_OUT_AMONG_BROKEN = RAN_OUT.replace("a higher rate or a longer run", "a longer run")
MAY_BE_LUCK = (
    " Of {} with nearly its settings {} broke or ended much worse, so its value may be luck: train it again, which "
    "tells, and try lower learning rates."
)
STILL_BEST = " The study's metric is at its best at the end, though: judge by that, and do either only where it gains."
LEFT_OUT = "{} of {} runs broke a constraint, and {} not counted here."
NO_LOSS = (
    "The runs reported no validation loss, by which a curve is read: report `val_loss`, and `train_loss` beside it."
)


@dataclass(frozen=True)
class RunsDiagnosis:
    """What a set of runs shows.

    Attributes:
        n_runs: Started runs that reported their epochs, broke no constraint, and did not fail, unless they diverged.
        diverged: Share of them that diverged, in [0, 1]; a curve that `diagnose` calls diverged is one.
        never_learned: Share of them that ended where they started, in [0, 1]: never below nine tenths of the loss of
            chance; where that is not known, both losses have to say so. A validation loss alone that stood below chance
            counts where every run ended at the same.
        verdicts: How many of the others show what; runs too short, or without a loss, to be read are missing.
        best: Number of the best complete run, None without one.
        best_diagnosis: What that run shows, None where its curve cannot be read; its advice asks for no larger learning
            rate where most runs diverged, at the edge, or where none is left above.
        at_edge: Whether any run with nearly the settings of the best one broke or ended much worse.
        worse_above: Whether any run at up to three times its learning rate, else with nearly its settings, broke or
            ended worse by more than noise.
        highest_lr_that_held: Largest learning rate of a run that did not diverge, None if not known.
        lowest_lr_that_diverged: Smallest learning rate of a run that diverged, None if none did or it is not known.
        diverged_above: Share that diverged of the runs at learning rates above the middle one of those that never
            learned, in [0, 1]; 0 if there is none.
        advice: One sentence each, the most important first.
    """

    n_runs: int
    diverged: float
    never_learned: float
    verdicts: Mapping[Verdict, int]
    best: int | None
    best_diagnosis: Diagnosis | None
    at_edge: bool
    worse_above: bool
    highest_lr_that_held: float | None
    lowest_lr_that_diverged: float | None
    diverged_above: float
    advice: tuple[str, ...]


def diagnose_runs(runs: Sequence[Run]) -> RunsDiagnosis:
    """Return what a set of runs says (Smith 2018, section 3, read over many curves).

    Args:
        runs: Any runs; those that reported no epoch, or the objective only, broke a constraint, or failed without
            having diverged, are not read.

    Raises:
        DisciplineError: If no run that is read has reported the losses of an epoch.
    """
    shown = [(run, run.curve) for run in runs if run.curve is not None and len(run.curve)]
    found = {run.number: _with_metric(run, curve, diagnose_if_readable(curve)) for run, curve in shown}
    broken = {number for number, one in found.items() if one is not None and one.verdict == Verdict.DIVERGED}
    read = [(run, curve) for run, curve in shown if run.state != "failed" or run.number in broken]
    found = {run.number: found[run.number] for run, _ in read}
    if not read:
        raise DisciplineError(_why_none(runs))
    ended = [(run, curve) for run, curve in read if run.number not in broken and run.state == "complete"]
    alike = _end_alike([curve for _, curve in ended])
    stuck = {run.number for run, curve in ended if _never_learned(curve, found[run.number], alike=alike)}
    learned = {number: one for number, one in found.items() if number not in broken | stuck}
    best = min((run for run, _ in ended if math.isfinite(run.score)), key=lambda run: run.score, default=None)
    near, worse = (0, 0) if best is None else _count_beside(best, [run for run, _ in read], broken)
    held = [run.params["lr"] for run, _ in read if run.number not in broken and "lr" in run.params]
    fell = [run.params["lr"] for run, _ in read if run.number in broken and "lr" in run.params]
    started = sorted(run.params["lr"] for run, _ in ended if run.number in stuck and "lr" in run.params)
    middle = started[len(started) // 2] if started else math.inf
    above = [run.number in broken for run, _ in read if run.params.get("lr", 0.0) > middle and run.number not in stuck]
    together = RunsDiagnosis(
        n_runs=len(read),
        diverged=len(broken) / len(read),
        never_learned=len(stuck) / len(read),
        verdicts=dict(Counter(one.verdict for one in learned.values() if one is not None)),
        best=None if best is None else best.number,
        best_diagnosis=None if best is None else learned.get(best.number),
        at_edge=worse > 0,
        worse_above=best is not None and _is_worse_above(best, runs, broken),
        highest_lr_that_held=max(held, default=None),
        lowest_lr_that_diverged=min(fell, default=None),
        diverged_above=sum(above) / len(above) if above else 0.0,
        advice=(),
    )
    if (of_best := together.best_diagnosis) is not None:
        luck = MAY_BE_LUCK.format(f"{near} run{'s' if near > 1 else ''}", worse) if worse else ""
        of_best = replace(of_best, advice=_among_broken(of_best.advice, together) + luck)
        together = replace(together, best_diagnosis=of_best)
    advice = [*advice_on_shares(together), *advice_on_best(together), *_of_verdicts(together, learned.values())]
    if not advice:
        too_short = TOO_SHORT if any(curve.has_val_loss for _, curve in read) else NO_LOSS
        advice = [too_short if ended else "No run is complete yet: run more trials."]
    if left := sum(not run.allowed for run in runs):
        advice.append(LEFT_OUT.format(left, len(runs), "is" if left == 1 else "are"))
    return replace(together, advice=tuple(advice))


def advice_on_shares(found: RunsDiagnosis) -> list[str]:
    """Return what to turn where at least half of the runs diverged or never learned; where both, the former counts."""
    highest, lowest = found.highest_lr_that_held, found.lowest_lr_that_diverged
    advice = []
    if found.diverged == 1:
        smallest = "" if lowest is None else f", at the smallest learning rate ({lowest:.3g}) too"
        advice.append(
            f"Every run diverged{smallest}: look for NaN or inf in the data, and at the loss; where these are fine, "
            "lower both bounds of the learning rate."
        )
    elif found.diverged >= MANY:
        bound = "" if lowest is None else f" (the smallest that broke is {lowest:.3g}"
        bound += ")" if bound and highest is None else f", the largest that held {highest:.3g})" if bound else ""
        advice.append(f"{found.diverged:.0%} of the runs diverged: lower the upper bound of the learning rate{bound}.")
    elif found.never_learned >= MANY:
        raised = "" if found.diverged_above >= MANY else ", or raise the lower bound of the learning rate"
        share = f"{found.never_learned:.0%} of the runs ended where they started"
        advice.append(f"{share}: train longer{raised}; such runs rank nothing.")
    return advice


def advice_on_best(found: RunsDiagnosis) -> list[str]:
    """Return what the best run shows."""
    best = found.best_diagnosis
    return [] if best is None else [f"The best run looks {best.verdict}. {best.advice}"]


def _why_none(runs: Sequence[Run]) -> str:
    """Return why no run is read, and what cures it."""
    ended = [run for run in runs if run.state != "running"]
    rest = [run for run in ended if run.allowed and run.state != "failed"]
    plain, barred = sum(bool(run.reports) for run in rest), sum(not run.allowed for run in ended)
    only = f", and {plain} reported the objective only, which need be no loss" if plain else ""
    failed, running = len(ended) - len(rest) - barred, len(runs) - len(ended)
    counts = {"that broke a constraint": barred, "that failed": failed, "still running": running}
    left = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    cure = "report them through TrialReporter or report_epoch"
    if left and not rest:
        cure = "wait until one has ended" if running else "run more trials"
    return (
        f"A run must have reported its losses, but none of {len(rest)} did{only}"
        f"{f' (not read: {left})' if left else ''}: {cure}."
    )


def _is_worse_above(best: Run, runs: Sequence[Run], broken: Collection[int]) -> bool:
    """Whether any run at a higher learning rate, else with nearly the settings of the best one, broke or was worse."""
    rate = best.params.get("lr", math.inf)
    above = (run for run in runs if rate < run.params.get("lr", 0.0) <= NEARBY_ABOVE * rate and run.allowed)
    near = (run for run in above if _is_near(replace(run, params={**run.params, "lr": rate}), best))
    return any(
        run.number in broken or (best.score < run.score < math.inf and not hardly_differ([best.score, run.score]))
        for run in near
    )


def _count_beside(best: Run, runs: Sequence[Run], broken: Collection[int]) -> tuple[int, int]:
    """Return how many runs with nearly the settings of the best one ended, and how many broke, or much worse."""
    first, last = _first_and_last(best)
    least = last + max(WORSE_BY * abs(last), WORSE_OF_FALL * (first - last))
    near = [run for run in runs if run.number != best.number and _is_near(run, best)]
    ended = [run for run in near if run.number in broken or run.state == "complete"]
    return len(ended), sum(run.number in broken or _first_and_last(run)[1] > least for run in ended)


def _first_and_last(run: Run) -> tuple[float, float]:
    assert run.curve is not None
    losses = run.curve.val_loss if run.curve.has_val_loss else run.curve.train_loss
    known = losses[np.isfinite(losses)]
    return (float(known[0]), float(known[-1])) if len(known) else (math.nan, math.nan)


def _is_near(run: Run, other: Run) -> bool:
    if "lr" not in other.params or run.params.keys() != other.params.keys() or run.others != other.others:
        return False
    for role, factor in NEARLY.items():
        ends = sorted(abs((role == "momentum") - one.params.get(role, 0.0)) for one in (run, other))
        if not ends[1] <= factor * ends[0]:
            return False
    return True


def _end_alike(curves: Sequence[LossCurve]) -> bool:
    """Return whether several runs ended at one validation loss: of those that hardly moved, where they started."""
    ends = np.array([tail_median(curve.val_loss) for curve in curves])
    return len(ends) > 1 and bool(np.ptp(ends) <= MOVED * scale_of(ends))


def _never_learned(curve: LossCurve, found: Diagnosis | None, *, alike: bool) -> bool:
    learned = has_learned(curve)
    if learned is not None or found is None:
        known = curve.train_loss[np.isfinite(curve.train_loss)]
        return learned is False and chance_never_left(curve.n_classes, known) is not None
    is_level = (curve.n_classes is None or alike) and found.verdict in (Verdict.HORIZONTAL, Verdict.NOISY)
    return (is_level and (stood_still(curve) or not has_moved(found.evidence))) or "chance" in found.evidence


def _with_metric(run: Run, curve: LossCurve, found: Diagnosis | None) -> Diagnosis | None:
    """Return what a run's curve shows; where its loss overfits, whether its metric, if that is another, does not."""
    reports = [y for y in run.reports if math.isfinite(y)]
    if found is None or found.verdict != Verdict.OVERFITTING or not reports or reports[-1] >= reports[0]:
        return found
    if any(math.isclose(reports[-1], losses[-1], rel_tol=1e-6) for losses in (curve.val_loss, curve.train_loss)):
        return found
    at_best = reports[-1] - min(reports) <= AT_BEST * (max(reports) - min(reports))
    return replace(found, advice=found.advice + STILL_BEST) if at_best else found


def _of_verdicts(found: RunsDiagnosis, learned: Collection[Diagnosis | None]) -> list[str]:
    advice, best, verdicts = [], found.best_diagnosis, found.verdicts
    total = sum(verdicts.values())
    for verdict in (Verdict.OVERFITTING, Verdict.UNDERFITTING, Verdict.NOISY):
        count = verdicts.get(verdict, 0)
        if total and count / total >= MANY and (best is None or best.verdict != verdict):
            what = _among_broken(ADVICE[verdict], found)
            still = sum(one is not None and one.verdict == verdict and STILL_BEST in one.advice for one in learned)
            what += STILL_BEST if 2 * still >= count else ""
            advice.append(f"{count} of {total} runs that learned look {verdict}. {what}")
    ran_out = sum(one is not None and one.advice == RAN_OUT for one in learned)
    same = best is not None and best.advice.startswith((RAN_OUT, RAN_OUT_AMONG_BROKEN))
    if total and ran_out / total >= MANY and not same:
        advice.append(f"{ran_out} of {total} runs that learned look horizontal. {_among_broken(RAN_OUT, found)}")
    return advice


def _among_broken(advice: str, found: RunsDiagnosis) -> str:
    """Return an advice, without a larger rate where most runs diverged, the best is at the edge, or worse lie above."""
    if found.diverged < MANY and not found.at_edge and not found.worse_above:
        return advice
    still_falls = advice.replace(ADVICE[Verdict.UNDERFITTING], STILL_FALLS_AMONG_BROKEN)
    return still_falls.replace(RAN_OUT, RAN_OUT_AMONG_BROKEN)
