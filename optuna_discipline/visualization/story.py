"""What a study says, as data: the best configuration, what each stage decided, warnings, what to try next."""

import math
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from optuna.study import Study
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from optuna_discipline import trial_record
from optuna_discipline.costs import total_cost
from optuna_discipline.parameters import share_of
from optuna_discipline.parameters import value_in_role
from optuna_discipline.rules.candidates import MOMENTA
from optuna_discipline.rules.range_test import RangeTest
from optuna_discipline.rules.runs_diagnosis import advice_on_best
from optuna_discipline.rules.runs_diagnosis import advice_on_shares
from optuna_discipline.rules.space import Role
from optuna_discipline.rules.standstill import SPAN
from optuna_discipline.visualization import how_to_read
from optuna_discipline.visualization import marks
from optuna_discipline.visualization import range_test
from optuna_discipline.visualization import stages
from optuna_discipline.visualization.marks import counted
from optuna_discipline.visualization.marks import show
from optuna_discipline.visualization.stages import StageRow
from optuna_discipline.visualization.view import StudyView
from optuna_discipline.visualization.view import view_of

# A best value within this share of its range beside a bound may have its optimum beyond it.
NEAR_A_BOUND = 0.02
MOST_MOMENTUM = max(MOMENTA)  # no larger one is of use


@dataclass(frozen=True)
class Story:
    """A study in data.

    Attributes:
        headline: One sentence: what came out.
        best_params: Parameters of the best training, by name.
        best_trial: Its number.
        range_test: What the range test was and what it showed, None without one.
        stages: One row a stage, in the order in which they began; trials without one are left out.
        cost: In full trainings.
        warnings: What to mind.
        next_steps: What to try next.
        how_to_read: One sentence each for who has not read the paper; no text of the study is in them.
    """

    headline: str
    best_params: dict[str, Any]
    best_trial: int | None
    range_test: str | None
    stages: tuple[StageRow, ...]
    cost: float
    warnings: tuple[str, ...]
    next_steps: tuple[str, ...]
    how_to_read: tuple[str, ...]


def collect(source: Study | StudyView) -> Story:
    """Return what a study says; one without trials or stages says so."""
    view = view_of(source)
    best = view.best
    rows = tuple(row for row in stages.collect(view) if row.stage != marks.OTHER)
    cost = total_cost(view.study, view.costs)
    restarts, barred = _ended_better(view.trials, best, view.sign)
    among = (" of whole trainings" if restarts else "") + (" within the constraints" if barred else "")
    tested = range_test.read(view.study)
    return Story(
        headline=_headline(view, among, cost),
        best_params={} if best is None else dict(best.params),
        best_trial=None if best is None else best.number,
        range_test=None if tested is None else _range_test(tested),
        stages=rows,
        cost=cost,
        warnings=tuple(_warnings(view, restarts)),
        next_steps=tuple(_next_steps(view)),
        how_to_read=tuple(how_to_read.sentences(view, rows)),
    )


def _range_test(test: RangeTest) -> str:
    ends = [f"{rate:.2g}" for rate in (*test.lrs[:1], *test.lrs[1:][-1:])]
    rose = f"trained while the learning rate rose from {' to '.join(ends)}"
    if len(ends) < 2:
        rose = f"to be trained while the learning rate rose, but broke at once{''.join(f', at {end}' for end in ends)}"
    return (
        f"A network that was thrown away afterwards was {rose}, to see where training works and where it breaks. "
        f"{test.reason}"
    )


def _headline(view: StudyView, among: str, cost: float) -> str:
    best, begun = view.best, len(view.trials) - marks.count(view.trials, TrialState.WAITING)
    open_ones = list(_open_trials(view.trials))
    if best is None:
        finished = any(trial.state == TrialState.COMPLETE for trial in view.trials)
        nothing = "No training has ended at a number that may be chosen" if finished else "No training has finished yet"
        started = f"{counted(begun, 'trial')} {'has' if begun == 1 else 'have'} been started"
        return f"{nothing}; {', '.join([started, *open_ones])}."
    planned, reported, full = view.costs.planned[best.number], view.costs.reported[best.number], view.costs.full
    length = f"a training of {counted(planned, 'epoch')}"
    if planned < full:
        length += f" (a full one has {full:g})"
    if 0 < reported < planned:  # stopped early, or not reported each epoch
        length += f", reported for {reported:g}"
    return (
        f"The {'lowest' if view.sign > 0 else 'highest'} {view.metric}{among} is {show(best.value, view.figures)}, "
        f"in trial {best.number}, "
        + (f"{length}, " if planned else "")
        + f"after {counted(begun, 'trial')} that cost {cost:.1f} full trainings"
        + (f"; {', '.join(open_ones)}." if open_ones else ".")
    )


def _open_trials(trials: Sequence[FrozenTrial]) -> Iterator[str]:
    """Yield how many trials have begun and not ended, which a dead process may have left, and how many wait."""
    if running := marks.count(trials, TrialState.RUNNING):
        yield f"{running} {'has' if running == 1 else 'have'} not ended"
    if waiting := marks.count(trials, TrialState.WAITING):
        yield f"{waiting} wait{'s' if waiting == 1 else ''} to begin"


def _ended_better(
    trials: Sequence[FrozenTrial], best: FrozenTrial | None, sign: int
) -> tuple[list[FrozenTrial], list[FrozenTrial]]:
    """Return what ended at a better number than the best trial, which it may not be: restarts, what is not allowed."""
    if best is None:
        return [], []
    ended = (trial for trial in trials if trial.state == TrialState.COMPLETE)
    numbers = (trial for trial in ended if trial.value is not None and math.isfinite(trial.value))
    better = [trial for trial in numbers if sign * (trial.value or 0.0) < sign * (best.value or 0.0)]
    breaks = trial_record.breaks_a_constraint
    return [trial for trial in better if not breaks(trial)], [trial for trial in better if breaks(trial)]


def _warnings(view: StudyView, restarts: Sequence[FrozenTrial]) -> list[str]:
    found: list[str] = []
    trials, best, planned = view.trials, view.best, view.costs.planned
    ended, failed = sum(trial.state.is_finished() for trial in trials), marks.count(trials, TrialState.FAIL)
    if failed:
        found.append(f"{failed} of {counted(ended, 'trial')} failed.")
    if no_number := marks.count_without_number(trials):
        found.append(f"{counted(no_number, 'trial')} ended without a number.")
    if best is None and (stopped := marks.count(trials, TrialState.PRUNED)):
        found.append(f"{stopped} of {counted(ended, 'trial')} {'was' if stopped == 1 else 'were'} stopped early.")
    found += [*_nothing_to_search(trials), *_wrong_direction(view)]
    if best is None:
        return found
    if restarts:
        restart = min(restarts, key=lambda trial: view.sign * (trial.value or 0.0))
        value = show(restart.value, view.figures)
        found.append(
            f"Trial {restart.number} ended better, at {value}, but went on from the middle of "
            "another training: a whole one with its parameters may end elsewhere."
        )
    longest = max(planned[trial.number] for trial in trials if trial_record.may_be_best(trial))
    if 0 < 2 * planned[best.number] <= longest:  # a little less is luck as well
        found.append("A short training is better than every full one: the full ones overfit; regularise more.")
    for name, distribution in best.distributions.items():
        if view.roles.get(name) in (None, "epochs") or not isinstance(
            distribution, FloatDistribution | IntDistribution
        ):
            continue
        where = _beside_a_bound(distribution, best.params[name])
        if where and _may_widen(view, name, distribution, best.params[name]):
            found.append(f"The best {name}, {show(best.params[name])}, lies {where} its bound: widen the bounds.")
    return found


def _nothing_to_search(trials: Sequence[FrozenTrial]) -> Iterator[str]:
    """Yield that trials differ in nothing, where no parameter of theirs could have had another value.

    Of results that were brought in without parameters nobody knows in what they differ.
    """
    ended = [trial for trial in trials if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    begun = [trial for trial in ended if trial.params or trial_record.stage_of(trial)]
    if len(begun) > 1 and all(choice.single() for trial in begun for choice in trial.distributions.values()):
        yield "No parameter has more than one value: the trials differ by luck only."


def _wrong_direction(view: StudyView) -> Iterator[str]:
    """Yield that what is minimised may be an accuracy, where it rose in most of the runs whose validation loss fell."""
    if view.sign < 0 or view.metric == marks.METRIC_NAMES["val_loss"]:
        return
    reported = [found for trial in view.trials if (found := trial_record.read_reported(trial)) is not None]
    fell = [found for found in reported if found.curve.val_loss[-1] < found.curve.val_loss[0]]
    measured = [[value for value in found.values or () if value is not None] for found in fell]
    rose = sum(values[0] < values[-1] for values in measured if values)
    if rose > max(1, len(fell) / 2):
        yield (
            f"The objective, which is minimised, rose in {rose} of {len(fell)} runs whose validation loss fell: if "
            "more of it is better, as of an accuracy, begin a study with direction='maximize'."
        )


def _beside_a_bound(distribution: FloatDistribution | IntDistribution, value: float) -> str:
    """Return "on" or "near" for a value at the end of its range, else ""; of a linear one near its upper end only.

    A linear range that begins at or near zero has most that is worth a try, in the exponent, near its lower end.
    """
    if distribution.single():
        return ""
    if value in (distribution.low, distribution.high):
        return "on"
    share = share_of(distribution, value)
    return "near" if share >= 1 - NEAR_A_BOUND or (distribution.log and share <= NEAR_A_BOUND) else ""


def _may_widen(view: StudyView, name: str, distribution: FloatDistribution | IntDistribution, value: float) -> bool:
    """Whether to look beyond the bound beside a value: for no momentum above .99, at the edge for no higher rate."""
    role, ends = view.roles[name], sorted((distribution.low, distribution.high), key=lambda end: abs(end - value))
    bound, other = (value_in_role(role, name, distribution, end) for end in ends)
    at_edge = view.together is not None and (view.together.at_edge or view.together.worse_above)
    too_far = bound >= MOST_MOMENTUM if role == "momentum" else at_edge and role == "lr"
    return bound < other or not too_far


def _look_at_nan(trials: list[FrozenTrial], roles: Mapping[str, Role]) -> Iterator[str]:
    """Yield the advice to look at what stopped all trials at one step as NaN, if that ended them all.

    At three learning rates that differ by 9 or more that need not be their doing; an overflow (inf) is.
    """
    ended = [trial for trial in trials if trial.state.is_finished()]
    rates = {float(rate) for trial in ended if (rate := stages.value_of(trial, "lr", roles)) is not None and rate > 0}
    stopped = [t for t in ended if t.state == TrialState.PRUNED and t.last_step is not None]
    at = [t.last_step for t in stopped if math.isnan(t.intermediate_values[t.last_step or 0])]
    if len(at) == len(ended) and len(set(at)) == 1 and len(rates) >= 3 and max(rates) >= SPAN * min(rates):
        yield (
            f"Every trial was stopped as its report at step {at[0]} is NaN, at learning rates from {show(min(rates))} "
            f"to {show(max(rates))}: these may not be to blame. Look at what is reported there: if nothing was "
            "measured, leave that report out; if the training broke, run more trials, at lower rates."
        )


def _next_steps(view: StudyView) -> list[str]:
    trials, best, together = view.trials, view.best, view.together
    steps = [] if together is None else advice_on_shares(together)
    if best is None:
        steps = steps or list(_look_at_nan(trials, view.roles))
        if marks.count(trials, TrialState.FAIL):
            also = "a result of NaN or an interruption fails one, too"
            steps.append(f"Look at the error that failed trials have logged ({also}).")
        if marks.count_without_number(trials):
            steps.append("Look at why trials end without a number: the loss of their first epochs, the learning rate.")
        ended = [trial for trial in trials if trial.state.is_finished()]
        if broke := sum(map(trial_record.breaks_a_constraint, ended)):
            some = f"{broke} of {counted(len(ended), 'trial')}"
            steps.append(f"{some} broke a constraint: loosen it, move the bounds to where it holds, or run more.")
        if not steps and marks.count(trials, TrialState.PRUNED):
            steps.append(
                "Run more trials if the learning rates were too high; else look at what stops trials early: the pruner "
                "or a TrialPruned that the objective raises."
            )
        return steps or ["Run more trials: the same call goes on where the study stopped."]
    if together is not None and together.best == best.number:
        steps += advice_on_best(together)
    elif (diagnosis := trial_record.read_diagnosis(best)) is not None:
        steps.append(f"The best run looks {diagnosis.verdict}. {diagnosis.advice}")
    seen = {trial_record.stage_of(trial) for trial in trials}
    if "lr" in seen and "refine" not in seen:
        steps.append("The stages are not done: run more trials.")
    steps.append("Train the best configuration with a few fresh seeds and judge it on data that no choice has seen.")
    return steps
