"""A study in words: a line a trial, what the stages decided, the best configuration, the comparison."""

import math
from collections.abc import Iterator
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optuna.study import Study
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from optuna_discipline import trial_record
from optuna_discipline.comparison import Score
from optuna_discipline.rules.lr_choice import RangeTest


def trial_line(trial: FrozenTrial) -> str:
    """Return a trial's number, stage, parameters, loss and reason on one line."""
    p, attrs = trial.params, trial.user_attrs
    ended = f"loss {trial.value:.4f}" if trial.state == TrialState.COMPLETE and trial.value is not None else "stopped"
    why = attrs.get(trial_record.PRUNED_KEY) or attrs.get(trial_record.REASON_KEY, "")
    return (
        f"{trial.number:>3} {attrs.get(trial_record.STAGE_KEY, ''):<12} {p.get('epochs', ''):>3} epochs  "
        f"lr {p.get('lr', math.nan):<8.3g} momentum {p.get('momentum', math.nan):<6.3g} "
        f"wd {p.get('weight_decay', math.nan):<8.2g} batch {p.get('batch_size', ''):<4} {ended:<12} {why}"
    )


def decision_lines(study: Study) -> Iterator[str]:
    """Yield what the range test and each stage decided, in the order in which the stages began."""
    stored = study.user_attrs.get(trial_record.RANGE_TEST_KEY)
    if stored is not None:
        yield f"range test    {RangeTest.from_dict(stored).reason}"
    sign = -1 if study.direction == StudyDirection.MAXIMIZE else 1
    stages: dict[str, list[FrozenTrial]] = {}
    for trial in study.trials:
        stages.setdefault(trial.user_attrs.get(trial_record.STAGE_KEY, "other"), []).append(trial)
    for stage, trials in stages.items():
        done = [t for t in trials if t.state == TrialState.COMPLETE and t.value is not None]
        if done:
            first = min(done, key=lambda t: sign * (t.value or 0.0))
            count = f"{len(trials)} trial{'s' if len(trials) > 1 else ''}"
            yield f"{stage:<13} {count:<10} best {first.value:.4f}: {params_text(first)}"


def params_text(trial: FrozenTrial) -> str:
    """Return the parameters of a trial, by name."""
    return ", ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in trial.params.items())


def as_json(study: Study, best: FrozenTrial, scores: Mapping[str, Score], report: Path | None) -> dict[str, Any]:
    """Return the result of a study as JSON values."""
    return {
        "study_name": study.study_name,
        "n_trials": len(study.trials),
        "cost_in_full_trainings": trial_record.cost_in_full_trainings(study),
        "best_trial": best.number,
        "best_value": best.value,
        "best_params": best.params,
        "scores": {name: vars(score) for name, score in scores.items()},
        "report": None if report is None else str(report),
    }
