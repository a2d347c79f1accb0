"""Plot the recipe: every trial by stage, short cycles and full trainings told apart, what was chosen framed."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.study import Study
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from optuna_discipline import trial_record
from optuna_discipline._imports import require
from optuna_discipline.rules.arguments import check_type
from optuna_discipline.visualization import stages
from optuna_discipline.visualization import style
from optuna_discipline.visualization.story import metric_name

# Above so many trials the words shown on hovering would make the figure too heavy for the dashboard (30 kB).
HOVER_TRIALS = 80
MAX_TRIALS = 900
KINDS = {"full": "circle", "short": "circle-open", "stopped": "x"}


@dataclass(frozen=True)
class TrialPoint:
    """One trial: where it stands, what it ran, whether its stage chose it; `kind` is one of `KINDS`."""

    number: int
    stage: str
    value: float | None
    kind: str
    chosen: bool
    text: str


@dataclass(frozen=True)
class RecipePlot:
    """What the plot shows.

    Attributes:
        metric: What the values are.
        points: Trials that have ended, the latest `MAX_TRIALS`.
        best: Number of the best finished trial, None without one.
        ceiling: Values above it stand at it; None if all are shown.
        left_out: Trials that the plot does not show: running, failed without a value, or too old.
    """

    metric: str
    points: tuple[TrialPoint, ...]
    best: int | None
    ceiling: float | None
    left_out: int


def plot_recipe(study: Study) -> Any:
    """Plot the stages of a study as a plotly figure.

    Raises:
        TypeError: If `study` is no study.
        MissingExtraError: If plotly is absent.
    """
    return draw(collect(study))


def collect(study: Study) -> RecipePlot:
    """Return the ended trials by stage."""
    check_type("study", study, Study)
    trials = study.get_trials(deepcopy=False)
    full = stages.full_epochs(trials)
    chosen = {row.chosen for row in stages.collect(study)}
    ended = [t for t in trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED) and t.values is not None]
    shown = ended[-MAX_TRIALS:]
    hover = len(shown) <= HOVER_TRIALS
    points = tuple(_point(trial, full, chosen=trial.number in chosen, hover=hover) for trial in shown)
    best = trial_record.best_run(study)
    values = [p.value for p in points if p.value is not None]
    ceiling = None
    if len(values) >= 4 and min(values) >= 0:
        reach = float(
            np.quantile([p.value for p in points if p.value is not None and p.kind != "stopped"] or values, 0.75)
        )
        limit = min(values) + 4 * max(reach - min(values), 1e-12)
        ceiling = limit if max(values) > limit else None
    return RecipePlot(
        metric_name(trials),
        points,
        None if best is None else best.number,
        ceiling,
        len(trials) - len(shown),
    )


def draw(plot: RecipePlot) -> Any:
    """Draw what `collect` returned."""
    made = style.figure("Trials by stage", x="trial", y=plot.metric)
    if not plot.points:
        return style.note(made, "No trial has ended yet.")
    for stage in dict.fromkeys(point.stage for point in plot.points):
        own = [point for point in plot.points if point.stage == stage]
        for kind in KINDS:
            _add_points(made, plot, [point for point in own if point.kind == kind], first=kind == own[0].kind)
    _add_frame(made, plot, [p for p in plot.points if p.chosen], "chosen by its stage", "square-open", 18, 1)
    _add_frame(made, plot, [p for p in plot.points if p.number == plot.best], "best", "circle-open", 22, 2)
    remarks = ["filled: full trainings, open: short cycles, crosses: stopped early"]
    if plot.ceiling is not None:
        remarks.append(f"values above {plot.ceiling:.3g} stand at the top")
    if plot.left_out:
        remarks.append(f"{plot.left_out} trial{'s' if plot.left_out > 1 else ''} not shown")
    return style.titled(made, "Trials by stage", "; ".join(remarks))


def _add_points(made: Any, plot: RecipePlot, points: list[TrialPoint], *, first: bool) -> None:
    """Add the trials of one stage that ended in one way; the first way of a stage stands in the legend."""
    if not points:
        return
    stage, kind = points[0].stage, points[0].kind
    color = style.STAGE_COLORS.get(stage, style.OTHER_COLOR)
    worded = {"text": [point.text for point in points], "hovertemplate": "%{text}<extra></extra>"}
    plain = {"hovertemplate": "trial %{x}: %{y:.4g}"}
    made.add_trace(
        require("plotly.graph_objects", extra="plots").Scatter(
            x=[point.number for point in points],
            y=[_shown(point.value, plot.ceiling) for point in points],
            mode="markers",
            name=stage.replace("_", " "),
            legendgroup=stage,
            showlegend=first,
            marker={
                "color": color,
                "symbol": KINDS[kind],
                "size": 10 if kind == "full" else 8,
                "line": {"width": 2 if kind == "short" else 1, "color": color},
            },
            **(worded if points[0].text else plain),
        )
    )


def _add_frame(
    made: Any, plot: RecipePlot, points: list[TrialPoint], name: str, symbol: str, size: int, width: int
) -> None:
    if points:
        made.add_trace(
            require("plotly.graph_objects", extra="plots").Scatter(
                x=[point.number for point in points],
                y=[_shown(point.value, plot.ceiling) for point in points],
                mode="markers",
                name=name,
                hoverinfo="skip",
                marker={"symbol": symbol, "size": size, "color": style.INK, "line": {"width": width}},
            )
        )


def _point(trial: FrozenTrial, full: float, *, chosen: bool, hover: bool) -> TrialPoint:
    stage = str(trial.user_attrs.get(trial_record.STAGE_KEY, "other"))
    value = trial.values[0] if trial.values else None
    text = ""
    if hover:
        params = ", ".join(f"{name} {stages.show(value)}" for name, value in trial.params.items())
        text = f"trial {trial.number}: {'-' if value is None else f'{value:.4g}'}<br>{_plain(params[:160])}"
    kind = "full" if trial_record.epochs_of(trial) == full else "short"
    return TrialPoint(
        trial.number,
        _plain(stage[:30]),
        style.finite(value),
        "stopped" if trial.state == TrialState.PRUNED else kind,
        chosen,
        text,
    )


def _plain(text: str) -> str:
    """Return text that a figure shows as it is."""
    return text.replace("&", "&amp;").replace("<", "&lt;")


def _shown(value: float | None, ceiling: float | None) -> float | None:
    if value is None or not math.isfinite(value):
        return ceiling
    return value if ceiling is None else min(value, ceiling)
