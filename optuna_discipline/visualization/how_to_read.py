"""How to read a study's story and pictures, for who has not read the paper."""

from collections.abc import Iterator
from collections.abc import Sequence

from optuna.trial import TrialState

from optuna_discipline.visualization import marks
from optuna_discipline.visualization import stages
from optuna_discipline.visualization.marks import counted
from optuna_discipline.visualization.stages import StageRow
from optuna_discipline.visualization.view import StudyView


def sentences(view: StudyView, rows: Sequence[StageRow]) -> Iterator[str]:
    """Yield one sentence on each thing that is not to be guessed; no text of the study is in them."""
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
    yield from _how_stages_decide(view, [row.stage for row in rows if row.stage in stages.DECIDING])
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


def _how_stages_decide(view: StudyView, deciding: Sequence[str]) -> Iterator[str]:
    trials, has_rate = view.trials, "lr" in view.roles.values()
    of_stage = {stage: [trial for trial in trials if marks.stage_of(trial) == stage] for stage in deciding}
    if "lr" in deciding:
        anew = next((words for trial in of_stage["lr"] if (words := marks.began_anew(trial, trials))), "")
        anew = anew and f"; as nothing had learned, it began anew {anew}, which was drawn from all there is"
        yield f"The stage learning rate moves learning rates only, and goes on from its best run{anew}."
    chosen = [marks.spoken(stage) for stage in deciding if stage != "lr" and stages.by_model(of_stage[stage])]
    if chosen:
        fair = " at equal time" if "batch_size" in deciding else ""
        suits = ", and a learning rate to suit it" if has_rate else ""
        yield (
            f"A model of all runs chooses a value of {', '.join(chosen)}{suits}; it may keep "
            "the former value, and moves what has no stage, too. The search goes on from the best run so "
            f"far{fair}, however little better that is."
        )
    compared = [marks.spoken(stage) for stage in deciding if stages.keeps_within_noise(stage, of_stage[stage])]
    if compared:
        but = " but the learning rate, which momentum and batch size may take along" if has_rate else ""
        yield (
            f"Values of {', '.join(compared)} are compared, all else held{but}; the former value (the mean, where it "
            "was repeated) is kept unless another one is better by more than the noise."
        )
