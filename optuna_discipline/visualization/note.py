"""Notes for optuna-dashboard in markdown: what a study decided and why, what a trial was for and what it shows."""

from collections.abc import Iterable
from collections.abc import Sequence
from typing import Any

from optuna.trial import FrozenTrial

from optuna_discipline import trial_record
from optuna_discipline.printable import printable
from optuna_discipline.visualization import marks
from optuna_discipline.visualization import stages
from optuna_discipline.visualization.story import Story

HEADING = "# What was decided"
ESCAPES = str.maketrans({letter: f"\\{letter}" for letter in "\\`*_{}[]<>#|~&@:"})


def study_note(told: Story) -> str:
    """Return a story as GitHub-flavoured markdown; text from the study is shown as text."""
    lines = [HEADING, "", as_text(told.headline), ""]
    if told.best_params:
        lines += ["## Best configuration", "", *_table(("parameter", "value"), told.best_params.items())]
    for title, entries in (("Mind", told.warnings), ("Next", told.next_steps)):
        if entries:
            lines += [f"## {title}", "", *(f"- {as_text(entry)}" for entry in entries), ""]
    if told.stages:
        head = ("stage", "trials", "values tried", "decision", "its best", "in trial")
        lines += ["## Stages", "", *_table(head, (_cells(row) for row in told.stages))]
    if told.range_test is not None:
        lines += ["## LR range test", "", as_text(told.range_test), ""]
    lines += ["## How to read this", "", *(f"- {entry}" for entry in told.how_to_read), ""]
    lines += [f"*Replaced at the next publication; what you write above “{HEADING[2:]}” stays.*", ""]
    return "\n".join(lines)


def trial_note(trial: FrozenTrial) -> str:
    """Return what a trial was for and what its curve shows as markdown, "" where there is nothing to say."""
    attrs = trial.user_attrs
    lines = []
    if trial_record.stage_of(trial) is not None:
        stage = marks.stage_of(trial)
        lines.append(f"**Stage:** {as_text(marks.spoken(stage))}, to {as_text(stages.purpose_of(stage, [trial]))}")
    if reason := trial_record.reason_of(trial):
        lines.append(f"**Why these numbers:** {as_text(reason)}")
    if attrs.get(trial_record.PRUNED_KEY):
        lines.append(f"**Stopped early:** {as_text(str(attrs[trial_record.PRUNED_KEY]))}")
    found = trial_record.read_diagnosis(trial)
    if found is not None:
        lines.append(f"**What its curve shows:** {found.verdict}. {as_text(found.advice)}")
    return "\n\n".join(lines)


def as_text(text: str) -> str:
    """Return text that markdown shows as it is, on one line."""
    flat = printable(" ".join(text.split()))
    return flat.translate(ESCAPES).replace("www.", "www\\.")  # which alone would make a link


def beside(former: str, note: str) -> str:
    r"""Return the new note below what a user has written above the former one, or in its place.

    >>> beside("mine\n\n# What was decided\nold", "# What was decided\nnew")
    'mine\n\n# What was decided\nnew'
    """
    lines = former.split("\n")
    ours = [place for place, line in enumerate(lines) if line.rstrip() == HEADING]  # the last: a user may head alike
    own = "\n".join(lines[: ours[-1]] if ours else lines).strip()
    return f"{own}\n\n{note}" if own else note


def _table(head: tuple[str, ...], rows: Iterable[Sequence[Any]]) -> list[str]:
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in rows:
        lines.append("| " + " | ".join(as_text(marks.show(cell)) for cell in row) + " |")
    return [*lines, ""]


def _cells(row: stages.StageRow) -> tuple[str, ...]:
    best = row.outcome if row.best_value is None else marks.show(row.best_value, row.figures)
    where = "" if row.best_trial is None else str(row.best_trial)
    return f"{marks.spoken(row.stage)}: {row.purpose}", str(row.n_trials), row.tried, row.decision, best, where
