"""What each stage of a study tried and decided, read back from the claims that its trials keep."""

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from optuna.study import Study
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from optuna_discipline import trial_record
from optuna_discipline.parameters import value_in_role
from optuna_discipline.refinement import moves_of
from optuna_discipline.rules.run import MODEL_SLOT
from optuna_discipline.rules.space import Role
from optuna_discipline.visualization import marks
from optuna_discipline.visualization import noise
from optuna_discipline.visualization.marks import show
from optuna_discipline.visualization.view import StudyView
from optuna_discipline.visualization.view import view_of

PURPOSES = {
    "lr": "find the learning rate in complete cycles",
    "confirm": "train the best so far at full length",
    "replicate": "repeat the best to measure the noise",
    "momentum": "compare momenta",
    "weight_decay": "compare weight decays",
    "batch_size": "compare batch sizes",
    "refine": "search around the best full training",
    "enqueued": "run what the user asked for",
}
# Stages that settle one number; their names are its role.
DECIDING = ("lr", "momentum", "weight_decay", "batch_size")
OPEN = "still open"


@dataclass(frozen=True)
class StageRow:
    """One stage.

    Attributes:
        stage: Its name.
        purpose: What it is for, in words.
        n_trials: Trials of it, however they ended.
        tried: The values that it compared, smallest to largest; of one that a model chose, what else moved with it;
            of a ladder that began anew, from where.
        decision: What the study went on with, or what a refinement has gained, in words; "" for a stage that decides
            nothing.
        chosen: Number of the trial whose value was taken; None where the former one was kept, or nothing is decided.
        went_on_with: Number of the trial on which the next stage stands, of this stage or not; None while it is open.
        best_value: Best objective of its finished trials that break no constraint, if that is a number.
        best_trial: Number of that trial.
        figures: Significant figures that tell the study's best objectives apart.
        endings: How many of its trials ended so that none of them can be its best, and how, in words.
    """

    stage: str
    purpose: str
    n_trials: int
    tried: str
    decision: str
    chosen: int | None
    went_on_with: int | None
    best_value: float | None
    best_trial: int | None
    figures: int = marks.FIGURES
    endings: str = ""

    @property
    def outcome(self) -> str:
        """The best, or without one how the trials ended, "" where none has."""
        return self.best or self.endings

    @property
    def best(self) -> str:
        """The best objective and its trial in words, "" without one."""
        return "" if self.best_value is None else f"{show(self.best_value, self.figures)} in trial {self.best_trial}"


def collect(source: Study | StudyView) -> tuple[StageRow, ...]:
    """Return one row a stage, in the order in which the stages began."""
    return view_of(source).once(_rows)


def _rows(view: StudyView) -> tuple[StageRow, ...]:
    by_stage: dict[str, list[FrozenTrial]] = {}
    for trial in view.trials:
        by_stage.setdefault(marks.stage_of(trial), []).append(trial)
    return tuple(_row(stage, own, view) for stage, own in by_stage.items())


def purpose_of(stage: str, own: Sequence[FrozenTrial]) -> str:
    """Return what a stage is for, given its trials, or what one of them is for, in words."""
    if stage in DECIDING and by_model(own):
        return f"try a {marks.spoken(stage)} that a model chose"
    drawn = ["draw from all there is"] if any(map(marks.was_drawn, own)) else []
    return " and ".join(drawn if all(map(marks.was_drawn, own)) else [*drawn, PURPOSES.get(stage, "run other trials")])


def why_none(source: Study | StudyView) -> str:
    """Return why a study with trials has no stages, "" where it has some or may still get them."""
    view = view_of(source)
    if not view.trials or trial_record.SETTINGS_KEY in view.study.user_attrs:
        return ""
    staged = any(marks.stage_of(trial) != marks.OTHER for trial in view.trials)
    return "" if staged else "There are no stages: another sampler than DisciplinedSampler chose the parameters."


def by_model(own: Sequence[FrozenTrial]) -> bool:
    """Whether a model of all runs chose what the trials of a stage ran, instead of values to compare."""
    claims = (trial_record.read_claim(trial) for trial in own)
    return any(claim is not None and claim["slot"].endswith(MODEL_SLOT) for claim in claims)


def keeps_within_noise(stage: str, own: Sequence[FrozenTrial]) -> bool:
    """Whether a stage keeps the former value unless another one is better by more than the noise."""
    return stage in DECIDING and stage != "lr" and not by_model(own)


def value_of(trial: FrozenTrial, role: str, roles: Mapping[str, Role]) -> Any:
    """Return what a trial's parameter says in a role, None without one."""
    name = next((name for name in trial.params if roles.get(name) == role), None)
    return None if name is None else value_in_role(roles[name], name, trial.distributions[name], trial.params[name])


def began_from(own: Sequence[FrozenTrial], trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
    """Return the finished run that the trials of a stage stand on, None for a stage that stands on defaults."""
    claims = [claim for trial in own if (claim := trial_record.read_claim(trial)) is not None]
    numbers = {claim.get("like") for claim in claims}
    return next((trial for trial in trials if trial.number in numbers and marks.is_comparable(trial)), None)


def moved_in(trial: FrozenTrial, view: StudyView) -> str:
    """Return what a trial whose values a model chose changed beside the number of its stage; "" for any other."""
    stage = marks.stage_of(trial)
    base = began_from([trial], view.trials) if by_model([trial]) else None
    if base is None:
        return ""
    others = {name: value for name, value in trial.params.items() if view.roles.get(name) not in (stage, "epochs")}
    return ", ".join(moves_of(others, base.params, view.roles, stage))


def _row(stage: str, own: Sequence[FrozenTrial], view: StudyView) -> StageRow:
    numbers = (trial for trial in marks.comparable(own) if marks.value_of(trial) is not None)
    best = min(numbers, key=lambda trial: view.sign * (trial.value or 0.0), default=None)
    base = _went_on_with(own, view.trials) if stage in DECIDING else None
    if stage in DECIDING:
        decision = _decision(stage, own, base, best, view)
    elif stage == "refine":
        decision = _gained(own, best, view)
    else:
        spread = noise.spread(view.trials) if stage == "replicate" else None
        decision = "" if spread is None else f"equal runs differ by {show(spread)}"
    return StageRow(
        stage,
        purpose_of(stage, own),
        len(own),
        _tried(stage, own, view) if stage in DECIDING else "",
        decision,
        base.number if base is not None and base in own else None,
        None if base is None else base.number,
        None if best is None else best.value,
        None if best is None else best.number,
        view.figures,
        _endings(own),
    )


def _decision(
    stage: str, own: Sequence[FrozenTrial], base: FrozenTrial | None, best: FrozenTrial | None, view: StudyView
) -> str:
    """Return with which value the study went on, and why with no other."""
    if base is None:
        return OPEN
    found, why = value_of(base, stage, view.roles), _why_no_other(stage, own, base, best, view)
    if found is None:
        return f"trial {base.number} kept, which has no {marks.spoken(stage)}"
    value = show(found)
    if base not in own:
        return f"{value} kept: {why or _none_better(own, best)}"
    return f"{value}: {why}" if why else value


def _endings(own: Sequence[FrozenTrial]) -> str:
    ways = (
        (marks.count(own, TrialState.PRUNED), "stopped early"),
        (marks.count(own, TrialState.FAIL), "failed"),
        (marks.count_without_number(own), "ended without a number"),
        (len(_barred(own)), "broke a constraint"),
    )
    return ", ".join(f"{number} of {len(own)} {way}" for number, way in ways if number)


def _barred(own: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Return the trials that ended at a number which a constraint keeps from being chosen."""
    complete = [trial for trial in own if trial.state == TrialState.COMPLETE and marks.value_of(trial) is not None]
    return [trial for trial in complete if trial_record.breaks_a_constraint(trial)]


def _none_better(own: Sequence[FrozenTrial], best: FrozenTrial | None) -> str:
    """Return why nothing of a stage could be taken: how its trials ended, or that none was better."""
    within = " within the constraints" if _barred(own) else ""
    return (_endings(own) if best is None else "") or f"nothing else was better{within}"


def _tried(stage: str, own: Sequence[FrozenTrial], view: StudyView) -> str:
    """Return the values that a stage has tried, each with what a model moved beside it, or where it began anew."""
    tried: dict[Any, str] = {}
    for trial in own:
        value = value_of(trial, stage, view.roles)
        if value is not None:
            moved = marks.began_anew(trial, view.trials) or moved_in(trial, view)
            tried.setdefault(value, f"{show(value)} ({moved})" if moved else show(value))
    return ", ".join(tried[value] for value in sorted(tried, key=marks.order))


def _gained(own: Sequence[FrozenTrial], best: FrozenTrial | None, view: StudyView) -> str:
    """Return from which run to which a refinement has gone, what moved and what that gained; "" without either."""
    base = _before_refining([trial for trial in own if not marks.was_drawn(trial)], view)
    if base is None or base.value is None or best is None or best.value is None:
        return ""
    if not view.sign * (base.value - best.value) > 0:
        return f"trial {base.number} kept: {_none_better(own, best)}"
    moved = ", ".join(moves_of(best.params, base.params, view.roles, "refine"))
    way = f"from trial {base.number} to trial {best.number}"
    gain = f"{show(base.value, view.figures)} to {show(best.value, view.figures)}"
    return f"{way}: {moved}; {gain}" if moved else f"nothing moved {way}: {gain} is luck"


def _before_refining(own: Sequence[FrozenTrial], view: StudyView) -> FrozenTrial | None:
    """Return the run that a refinement began from: the first of its own, where it stands on none before it."""
    base, ended = began_from(own[:1], view.trials), marks.comparable(own)
    stands = any((trial_record.read_claim(trial) or {}).get("like") is not None for trial in own[:1])
    return base if base is not None or stands or len(ended) < 2 else ended[0]


def _went_on_with(own: Sequence[FrozenTrial], trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
    """Return the run on which the trials of the next stage stand; None while there is no next stage."""
    began: dict[str, int] = {}
    for trial in trials:
        began.setdefault(_part(trial), trial.number)
    start, end = own[0].number, own[-1].number
    for trial in trials:
        claim = trial_record.read_claim(trial)
        if claim is None or claim["stage"] in ("replicate", "enqueued", _part(own[0])):
            continue
        # a refinement begins before the ladder of a study whose first runs had no learning rate
        goes_on = claim["stage"] == "refine" and trial.number > end and not claim.get("waits_for")
        if (goes_on or began[_part(trial)] > start) and isinstance(claim.get("like"), int):
            return next((run for run in trials if run.number == claim["like"]), None)
    return None


def _part(trial: FrozenTrial) -> str:
    """Return the part of the recipe; each confirmation is one of its own."""
    claim = trial_record.read_claim(trial)
    if claim is None:
        return ""
    return str(claim["slot"] if claim["stage"] == "confirm" else claim["stage"])


def _why_no_other(
    stage: str, own: Sequence[FrozenTrial], base: FrozenTrial, best: FrozenTrial | None, view: StudyView
) -> str:
    """Return why the study did not go on with the stage's best, "" where it did or there was nothing better."""
    if not marks.is_comparable(base):
        return "no run had ended well" + (" within the constraints" if trial_record.breaks_a_constraint(base) else "")
    values = {value_of(trial, stage, view.roles) for trial in (*own, base, began_from(own, view.trials) or base)}
    if by_model(own) and len(values) == 1:
        return "no other value was tried"
    within = noise.noise_around(base, view.trials) if keeps_within_noise(stage, own) else None
    former = base.value if within is None or base is best else within.mean
    if best is None or former is None or best.value is None or not view.sign * (former - best.value) > 0:
        return ""
    gain = abs(former - best.value)
    better = f"{show(value_of(best, stage, view.roles))} was better by {show(gain)}"
    if within is not None and gain <= within.width:
        return f"{better} only, and {'the noise is' if within.measured else 'what counts is'} {show(within.width)}"
    return f"{better}, but {'its epochs take longer' if stage == 'batch_size' else 'only when the study had gone on'}"
