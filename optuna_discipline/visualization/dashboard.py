"""Publish a study on optuna-dashboard: a note that says what was decided and why, and the pictures."""

import warnings
from typing import Any

from optuna.exceptions import ExperimentalWarning
from optuna.study import Study

from optuna_discipline._imports import require
from optuna_discipline.printable import printable
from optuna_discipline.visualization import cost
from optuna_discipline.visualization import loss_curve
from optuna_discipline.visualization import marks
from optuna_discipline.visualization import range_test
from optuna_discipline.visualization import recipe
from optuna_discipline.visualization import story
from optuna_discipline.visualization.story import Story

# Fixed ids, so that a figure replaces its former self; a ":" in one breaks the study page. The page shows them in any
# order, so the titles are numbered.
RECIPE_ID, COST_ID = "discipline-1-stages", "discipline-2-cost"
RANGE_TEST_ID, CURVE_ID = "discipline-3-range-test", "discipline-4-best-run"
ESCAPED = "\\`*_{}[]<>#|~&@:"


def publish(study: Study) -> None:
    """Put the study's note and pictures on optuna-dashboard; calling it again replaces them.

    The note stands on the study's note page, the pictures on its history page.

    Raises:
        TypeError: If `study` is no study.
        MissingExtraError: If plotly or optuna-dashboard is absent.
    """
    dashboard = require("optuna_dashboard", extra="dashboard")
    figures = _figures(study)
    note = as_markdown(story.collect(study))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        for graph_id, figure in figures.items():
            dashboard.save_plotly_graph_object(study, figure, graph_object_id=graph_id)
        dashboard.save_note(study, note)


def as_markdown(told: Story) -> str:
    """Return a story as GitHub-flavoured markdown; text from the study is shown as text."""
    lines = ["# What was decided", "", _text(told.headline), ""]
    if told.best_params:
        lines += ["## Best configuration", "", "| parameter | value |", "|---|---|"]
        lines += [f"| {_text(name)} | {_text(marks.show(value))} |" for name, value in told.best_params.items()] + [""]
    if told.range_test is not None:
        lines += ["## LR range test", "", _text(told.range_test), ""]
    if told.stages:
        lines += ["## Stages", "", "| stage | trials | values tried | decision | best | in trial |"]
        lines.append("|---|---|---|---|---|---|")
        for row in told.stages:
            best = "" if row.best_value is None else marks.show(row.best_value)
            where = "" if row.best_trial is None else str(row.best_trial)
            stage = f"{row.stage.replace('_', ' ')}: {row.purpose}"
            cells = (stage, str(row.n_trials), row.tried, row.decision, best, where)
            lines.append("| " + " | ".join(_text(cell) for cell in cells) + " |")
        lines += ["", told.short_note, ""]
    for title, entries in (("Mind", told.warnings), ("Next", told.next_steps)):
        if entries:
            lines += [f"## {title}", "", *(f"- {_text(entry)}" for entry in entries), ""]
    return "\n".join(lines)


def _figures(study: Study) -> dict[str, Any]:
    figures = {
        RECIPE_ID: recipe.plot_recipe(study),
        COST_ID: cost.plot_cost(study),
        RANGE_TEST_ID: range_test.plot_range_test(study),
        CURVE_ID: loss_curve.plot_loss_curve(study),
    }
    for number, figure in enumerate(figures.values(), start=1):
        figure.layout.title.text = f"{number}. {figure.layout.title.text}"
    return figures


def _text(text: str) -> str:
    flat = printable(" ".join(text.split()))
    escaped = "".join(f"\\{letter}" if letter in ESCAPED else letter for letter in flat)
    return escaped.replace("www.", "www\\.")  # which alone would make a link
