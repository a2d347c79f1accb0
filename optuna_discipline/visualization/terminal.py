"""A study in words for a terminal: a line a trial, the stages' decisions, the best configuration and its cost."""

import math
from collections.abc import Iterator

from optuna.study import Study
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from optuna_discipline import costs
from optuna_discipline import trial_record
from optuna_discipline.printable import printable
from optuna_discipline.visualization import marks
from optuna_discipline.visualization import range_test
from optuna_discipline.visualization import stages
from optuna_discipline.visualization.marks import counted
from optuna_discipline.visualization.view import view_of


def trial_line(trial: FrozenTrial) -> str:
    """Return a trial's number, stage, parameters, loss and reason on one line."""
    p, attrs = trial.params, trial.user_attrs
    complete = trial.state == TrialState.COMPLETE and trial.value is not None
    ended = f"loss {marks.show(trial.value)}" if complete else "failed" if trial.state == TrialState.FAIL else "stopped"
    why = attrs.get(trial_record.PRUNED_KEY) or trial_record.reason_of(trial)
    epochs = p.get("epochs", "")
    length = f"{epochs!s:>3} {'epoch ' if epochs == 1 else 'epochs'}"
    line = (
        f"{trial.number:>3} {trial_record.stage_of(trial) or '':<12} {length}  "
        f"lr {p.get('lr', math.nan):<8.3g} momentum {p.get('momentum', math.nan):<6.3g} "
        f"wd {p.get('weight_decay', math.nan):<8.2g} batch {p.get('batch_size', '')!s:<4} {ended:<12} {why}"
    )
    return printable(line)


def decision_lines(study: Study) -> Iterator[str]:
    """Yield what the range test and each stage decided, in the order in which the stages began."""
    tested = range_test.read(study)
    if tested is not None:
        yield printable(f"range test    {tested.reason}")
    for row in stages.collect(study):
        decided = f"tried {row.tried}: {row.decision}" if row.tried else row.decision
        said = "; ".join(part for part in (decided, f"its best {row.best}" if row.best else row.outcome) if part)
        yield printable(f"{row.stage:<13} {counted(row.n_trials, 'trial'):<10} {said}")


def best_lines(study: Study, best: FrozenTrial) -> Iterator[str]:
    """Yield the best configuration, and what finding it cost beside a default that costs nothing to find."""
    view = view_of(study)
    yield f"Best configuration (trial {best.number}, {view.metric} {marks.show(best.value, view.figures)})"
    yield printable("  " + ", ".join(f"{name} {marks.show(value)}" for name, value in best.params.items()))
    cost = costs.total_cost(study, view.costs)
    trained = f"{counted(len(view.trials), 'trial')}{marks.of_range_test(study)}"
    yield f"  Tuning cost {cost:.1f} full trainings in {trained}; an untuned default costs one training."
