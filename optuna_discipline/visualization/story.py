"""What a study says, as data: the best configuration, what each stage decided, warnings, what to try next."""

from dataclasses import dataclass
from typing import Any

from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from optuna.study import Study
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from optuna_discipline import trial_record
from optuna_discipline.exceptions import DisciplineError
from optuna_discipline.rules.arguments import check_type
from optuna_discipline.rules.diagnosis import diagnose
from optuna_discipline.rules.lr_choice import RangeTest
from optuna_discipline.rules.space import ROLE_NAMES
from optuna_discipline.trial_record import RANGE_TEST_KEY

PURPOSES = {
    "lr": "find the learning rate in short complete cycles",
    "confirm": "train the best so far at full length",
    "replicate": "repeat the best to measure the noise",
    "momentum": "compare momenta",
    "weight_decay": "compare weight decays",
    "batch_size": "compare batch sizes",
    "refine": "search around the best full training",
    "enqueued": "run what the user asked for",
}
STAGE_PARAMETERS = {"lr": "lr", "momentum": "momentum", "weight_decay": "weight_decay", "batch_size": "batch_size"}


@dataclass(frozen=True)
class StageRow:
    """One stage: its purpose, how many trials, the values tried (smallest to largest), its best value and trial."""

    stage: str
    purpose: str
    n_trials: int
    tried: str
    best_value: float | None
    best_trial: int | None


@dataclass(frozen=True)
class Story:
    """A study in data.

    Attributes:
        headline: One sentence: what came out.
        best_params: Parameters of the best training, by name.
        best_trial: Its number.
        range_test: The reason of the range test's choice, None without one.
        stages: One row a stage, in the order in which they began.
        cost: In full trainings.
        warnings: What to mind.
        next_steps: What to try next.
    """

    headline: str
    best_params: dict[str, Any]
    best_trial: int | None
    range_test: str | None
    stages: tuple[StageRow, ...]
    cost: float
    warnings: tuple[str, ...]
    next_steps: tuple[str, ...]


def collect(study: Study) -> Story:
    """Return what a study says; one without trials or stages says so."""
    check_type("study", study, Study)
    trials = study.get_trials(deepcopy=False)
    best = trial_record.best_run(study)
    cost = trial_record.cost_in_full_trainings(study)
    stored = study.user_attrs.get(RANGE_TEST_KEY)
    return Story(
        headline=_headline(study, trials, best, cost),
        best_params={} if best is None else dict(best.params),
        best_trial=None if best is None else best.number,
        range_test=None if stored is None else RangeTest.from_dict(stored).reason,
        stages=_stages(study, trials),
        cost=cost,
        warnings=tuple(_warnings(trials, best)),
        next_steps=tuple(_next_steps(trials, best)),
    )


def show(value: Any) -> str:
    """Return a parameter or loss for reading."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _headline(study: Study, trials: list[FrozenTrial], best: FrozenTrial | None, cost: float) -> str:
    if best is None:
        return f"No training has finished yet; {len(trials)} trials have been started."
    metric = trial_record.read_run(best).get("metric") or "objective"
    word = "highest" if study.direction == StudyDirection.MAXIMIZE else "lowest"
    length = f", a training of {trial_record.epochs_of(best):g} epochs," if trial_record.epochs_of(best) else ","
    return (
        f"The {word} {metric.replace('_', ' ')} is {show(best.value)}, in trial {best.number}{length} "
        f"after {len(trials)} trials that cost {cost:.1f} full trainings."
    )


def _stages(study: Study, trials: list[FrozenTrial]) -> tuple[StageRow, ...]:
    sign = -1 if study.direction == StudyDirection.MAXIMIZE else 1
    by_stage: dict[str, list[FrozenTrial]] = {}
    for trial in trials:
        by_stage.setdefault(str(trial.user_attrs.get(trial_record.STAGE_KEY, "other")), []).append(trial)
    rows = []
    for stage, own in by_stage.items():
        done = [t for t in own if t.state == TrialState.COMPLETE and t.value is not None]
        first = min(done, key=lambda t: sign * (t.value or 0.0), default=None)
        role = STAGE_PARAMETERS.get(stage)
        values = sorted({v for t in own for n, v in t.params.items() if ROLE_NAMES.get(n) == role and role is not None})
        rows.append(
            StageRow(
                stage,
                PURPOSES.get(stage, "other trials"),
                len(own),
                ", ".join(show(value) for value in values),
                None if first is None else first.value,
                None if first is None else first.number,
            )
        )
    return tuple(rows)


def _warnings(trials: list[FrozenTrial], best: FrozenTrial | None) -> list[str]:
    found: list[str] = []
    failed = sum(trial.state == TrialState.FAIL for trial in trials)
    if failed:
        found.append(f"{failed} of {len(trials)} trials failed.")
    if best is None:
        return found
    longest = max(trial_record.epochs_of(trial) for trial in trials if trial.state == TrialState.COMPLETE)
    if 0 < trial_record.epochs_of(best) < longest:
        found.append("A short training is better than every full one: the full ones overfit; regularise more.")
    for name, distribution in best.distributions.items():
        if ROLE_NAMES.get(name) in (None, "epochs"):
            continue
        if not isinstance(distribution, FloatDistribution | IntDistribution):
            continue
        value = best.params[name]
        if value in (distribution.low, distribution.high) and not distribution.single():
            found.append(f"The best {name}, {show(value)}, lies on its bound: widen the bounds.")
    return found


def _next_steps(trials: list[FrozenTrial], best: FrozenTrial | None) -> list[str]:
    if best is None:
        return ["Run more trials: the same call goes on where the study stopped."]
    steps = []
    curve = trial_record.read_curve(best)
    try:
        diagnosis = None if curve is None else diagnose(curve)
    except DisciplineError:
        diagnosis = None
    if diagnosis is not None:
        steps.append(f"The best run looks {diagnosis.verdict}. {diagnosis.advice}")
    stages = {trial.user_attrs.get(trial_record.STAGE_KEY) for trial in trials}
    if "lr" in stages and "refine" not in stages:
        steps.append("The stages are not done: run more trials.")
    steps.append("Train the best configuration with a few fresh seeds and judge it on data that no choice has seen.")
    return steps
