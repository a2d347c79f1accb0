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

from optuna_discipline import costs
from optuna_discipline import study_record
from optuna_discipline import trial_record
from optuna_discipline.exceptions import DisciplineError
from optuna_discipline.parameters import share_of
from optuna_discipline.rules.arguments import check_type
from optuna_discipline.rules.range_test import RangeTest
from optuna_discipline.rules.runs_diagnosis import RunsDiagnosis
from optuna_discipline.rules.runs_diagnosis import advice_on_best
from optuna_discipline.rules.runs_diagnosis import advice_on_shares
from optuna_discipline.rules.space import Role
from optuna_discipline.rules.standstill import SPAN
from optuna_discipline.study_diagnosis import diagnose_study
from optuna_discipline.study_record import told_roles
from optuna_discipline.visualization import marks
from optuna_discipline.visualization import range_test
from optuna_discipline.visualization import stages
from optuna_discipline.visualization.marks import counted
from optuna_discipline.visualization.marks import metric_name
from optuna_discipline.visualization.marks import show
from optuna_discipline.visualization.stages import StageRow

# A best value within this share of its range beside a bound may have its optimum beyond it.
NEAR_A_BOUND = 0.02


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


def collect(study: Study) -> Story:
    """Return what a study says; one without trials or stages says so."""
    check_type("study", study, Study)
    rows = tuple(row for row in stages.collect(study) if row.stage != marks.OTHER)
    trials = study.get_trials(deepcopy=False)
    best = study_record.best_run(study)
    sign, cost, told = trial_record.sign_of(study), costs.cost_in_full_trainings(study), told_roles(study)
    roles = stages.role_names(study)
    restarts, barred = _ended_better(trials, best, sign)
    among = (" of whole trainings" if restarts else "") + (" within the constraints" if barred else "")
    tested = range_test.read(study)
    return Story(
        headline=_headline(trials, best, among, cost, told, sign),
        best_params={} if best is None else dict(best.params),
        best_trial=None if best is None else best.number,
        range_test=None if tested is None or not len(tested.lrs) else _range_test(tested),
        stages=rows,
        cost=cost,
        warnings=tuple(_warnings(trials, best, restarts, roles, told, sign)),
        next_steps=tuple(_next_steps(trials, best, _read_runs(study, told), roles)),
        how_to_read=tuple(_how_to_read(trials, rows, told)),
    )


def _range_test(test: RangeTest) -> str:
    low, high = min(test.lrs), max(test.lrs)
    return (
        f"A network that was thrown away afterwards was trained while the learning rate rose from {low:.2g} to "
        f"{high:.2g}, to see where training works and where it breaks. {test.reason}"
    )


def _how_to_read(trials: Sequence[FrozenTrial], rows: Sequence[StageRow], told: costs.Told) -> Iterator[str]:
    full = costs.full_epochs(trials, told)
    if full:
        yield (
            f"Cost is counted in full trainings ({counted(full, 'epoch')}): by epochs, those of stopped trials and of "
            "the range test too."
        )
    elif longest := costs.longest_reported(trials, told):
        yield (
            f"Cost is counted in full trainings: as no trial says how long one is, by the longest complete trial "
            f"({counted(longest, 'step')} up to its last report); a stopped one counts up to its last report."
        )
    else:
        yield "Cost is counted in full trainings: one a trial, as no complete trial says how many epochs it ran."
    others = sum(marks.stage_of(trial) == marks.OTHER and bool(trial.params) for trial in trials)
    if others and any(row.stage in (*stages.DECIDING, "refine") for row in rows):
        yield (
            f"No stage lists {counted(others, 'trial')} whose parameters the sampler did not choose; the cost and the "
            "best configuration are of all trials, and the search has learned from them."
        )
    if not any(row.stage in stages.DECIDING for row in rows):
        return
    yield from _how_stages_decide(trials, [row.stage for row in rows if row.stage in stages.DECIDING])
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


def _headline(
    trials: list[FrozenTrial], best: FrozenTrial | None, among: str, cost: float, told: costs.Told, sign: int
) -> str:
    waiting = marks.count(trials, TrialState.WAITING)
    begun = len(trials) - waiting
    if best is None:
        finished = any(trial.state == TrialState.COMPLETE for trial in trials)
        nothing = "No training has ended at a number that may be chosen" if finished else "No training has finished yet"
        waits = f", {waiting} wait{'s' if waiting == 1 else ''} to begin" if waiting else ""
        return f"{nothing}; {counted(begun, 'trial')} {'has' if begun == 1 else 'have'} been started{waits}."
    value = show(best.value, marks.figures_of(trials, sign))
    planned, full = costs.epochs_of(best, told), costs.full_epochs(trials, told)
    reported = costs.epochs_reported(best, told)
    length = f"a training of {counted(planned, 'epoch')}"
    if planned < full:
        length += f" (a full one has {full:g})"
    if 0 < reported < planned:  # stopped early, or not reported each epoch
        length += f", reported for {reported:g}"
    return (
        f"The {'lowest' if sign > 0 else 'highest'} {metric_name(trials)}{among} is {value}, in trial {best.number}, "
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


def _warnings(
    trials: list[FrozenTrial],
    best: FrozenTrial | None,
    restarts: Sequence[FrozenTrial],
    roles: Mapping[str, Role],
    told: costs.Told,
    sign: int,
) -> list[str]:
    found: list[str] = []
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
        restart = min(restarts, key=lambda trial: sign * (trial.value or 0.0))
        value = show(restart.value, marks.figures_of(trials, sign))
        found.append(
            f"Trial {restart.number} ended better, at {value}, but went on from the middle of "
            "another training: a whole one with its parameters may end elsewhere."
        )
    longest = max(costs.epochs_of(trial, told) for trial in trials if trial_record.may_be_best(trial))
    if 0 < 2 * costs.epochs_of(best, told) <= longest:  # a little less is luck as well
        found.append("A short training is better than every full one: the full ones overfit; regularise more.")
    for name, distribution in best.distributions.items():
        if roles.get(name) in (None, "epochs") or not isinstance(distribution, FloatDistribution | IntDistribution):
            continue
        if where := _beside_a_bound(distribution, best.params[name]):
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


def _read_runs(study: Study, told: costs.Told) -> RunsDiagnosis | None:
    """Return what the curves of a study show together, None where no trial has reported one."""
    try:
        return diagnose_study(study, roles=told)
    except DisciplineError:
        return None


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


def _next_steps(
    trials: list[FrozenTrial], best: FrozenTrial | None, together: RunsDiagnosis | None, roles: Mapping[str, Role]
) -> list[str]:
    steps = [] if together is None else advice_on_shares(together)
    if best is None:
        steps = steps or list(_look_at_nan(trials, roles))
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
