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
        range_test=None if tested is None or not len(tested.lrs) else _range_test(tested),
        stages=rows,
        cost=cost,
        warnings=tuple(_warnings(view, restarts)),
        next_steps=tuple(_next_steps(view)),
        how_to_read=tuple(_how_to_read(view, rows)),
    )


def _range_test(test: RangeTest) -> str:
    low, high = min(test.lrs), max(test.lrs)
    return (
        f"A network that was thrown away afterwards was trained while the learning rate rose from {low:.2g} to "
        f"{high:.2g}, to see where training works and where it breaks. {test.reason}"
    )


def _how_to_read(view: StudyView, rows: Sequence[StageRow]) -> Iterator[str]:
    if view.costs.full:
        yield (
            f"Cost is counted in full trainings ({counted(view.costs.full, 'epoch')}): by epochs, those of stopped "
            "trials and of the range test too."
        )
    elif view.costs.longest:
        yield (
            f"Cost is counted in full trainings: as no trial says how long one is, by the longest complete trial "
            f"({counted(view.costs.longest, 'step')} up to its last report); a stopped one counts up to its "
            "last report."
        )
    else:
        yield "Cost is counted in full trainings: one a trial, as no complete trial says how many epochs it ran."
    others = sum(marks.stage_of(trial) == marks.OTHER and bool(trial.params) for trial in view.trials)
    if others and any(row.stage in (*stages.DECIDING, "refine") for row in rows):
        yield (
            f"No stage lists {counted(others, 'trial')} whose parameters the sampler did not choose; the cost and the "
            "best configuration are of all trials, and the search has learned from them."
        )
    if not any(row.stage in stages.DECIDING for row in rows):
        return
    yield from _how_stages_decide(view.trials, [row.stage for row in rows if row.stage in stages.DECIDING])
    if any(row.stage == "confirm" for row in rows):
        yield (
            "Short cycles are complete trainings of fewer epochs that answer one question cheaply; the best "
            "configuration was then trained at full length. Their epochs are a parameter: none passes for a full one."
        )
    yield (
        "Plots of all trials, such as the dashboard's History and Hyperparameter Importance, throw all stages "
        "together: what each stage tried is seen in the picture What each stage compared, what the search gained in "
        "Cost and best so far."
    )
    held = _held_length(view)
    if held is not None:
        yield f"In Hyperparameter Importance ignore the bar of epochs: every complete trial had {held:g}."


def _held_length(view: StudyView) -> float | None:
    """Return the epochs of all complete trials, where they could have had others; None if they differ, or say none."""
    name = next((name for name, role in view.roles.items() if role == "epochs"), "")
    complete = [t for t in view.trials if t.state == TrialState.COMPLETE and name in t.params]
    lengths = {view.costs.planned[trial.number] for trial in complete}
    return lengths.pop() if len(lengths) == 1 and not all(t.distributions[name].single() for t in complete) else None


def _how_stages_decide(trials: Sequence[FrozenTrial], deciding: Sequence[str]) -> Iterator[str]:
    of_stage = {stage: [trial for trial in trials if marks.stage_of(trial) == stage] for stage in deciding}
    if "lr" in deciding:
        anew = next((words for trial in of_stage["lr"] if (words := marks.began_anew(trial, trials))), "")
        anew = anew and f"; as nothing had learned, it began anew {anew}, which was drawn from all there is"
        yield f"The stage learning rate moves learning rates only, and goes on from its best run{anew}."
    chosen = [marks.spoken(stage) for stage in deciding if stage != "lr" and stages.by_model(of_stage[stage])]
    if chosen:
        fair = " at equal time" if "batch_size" in deciding else ""
        yield (
            f"A model of all runs chooses a value of {', '.join(chosen)}, and a learning rate to suit it; it may keep "
            "the former value, and moves what has no stage, too. The search goes on from the best run so "
            f"far{fair}, however little better that is."
        )
    compared = [marks.spoken(stage) for stage in deciding if stages.keeps_within_noise(stage, of_stage[stage])]
    if compared:
        yield (
            f"Values of {', '.join(compared)} are compared, all else held but the learning rate, which momentum and "
            "batch size may take along; the former value (the mean, where it was repeated) is kept unless another one "
            "is better by more than the noise."
        )


def _headline(view: StudyView, among: str, cost: float) -> str:
    best, waiting = view.best, marks.count(view.trials, TrialState.WAITING)
    begun = len(view.trials) - waiting
    if best is None:
        finished = any(trial.state == TrialState.COMPLETE for trial in view.trials)
        nothing = "No training has ended at a number that may be chosen" if finished else "No training has finished yet"
        waits = f", {waiting} wait{'s' if waiting == 1 else ''} to begin" if waiting else ""
        return f"{nothing}; {counted(begun, 'trial')} {'has' if begun == 1 else 'have'} been started{waits}."
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
        + f"after {counted(begun, 'trial')} that cost {cost:.1f} full trainings."
    )


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
            steps.append("Look at the error that failed trials have logged (a result of NaN fails one, too).")
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
