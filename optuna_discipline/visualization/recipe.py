"""Plot the recipe: every trial by stage, short cycles and full trainings told apart, the best one ringed."""

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
from optuna_discipline.visualization import style

HOVER_TRIALS = 200
MAX_TRIALS = 900


@dataclass(frozen=True)
class TrialPoint:
    """One trial: where it stands, what it ran, how long, how it ended."""

    number: int
    stage: str
    value: float | None
    full: bool
    stopped: bool
    text: str


@dataclass(frozen=True)
class RecipePlot:
    """What the plot shows.

    Attributes:
        points: Trials that have ended, the latest `MAX_TRIALS`.
        best: Number of the best finished trial, None without one.
        ceiling: Values above it stand at it; None if all are shown.
        left_out: Trials that the plot does not show: running, failed without a value, or too old.
    """

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
    full = max((trial_record.epochs_of(trial) for trial in trials), default=0.0)
    ended = [t for t in trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED) and t.values is not None]
    shown = ended[-MAX_TRIALS:]
    points = tuple(_point(trial, full, hover=len(shown) <= HOVER_TRIALS) for trial in shown)
    best = trial_record.best_run(study)
    values = [p.value for p in points if p.value is not None]
    ceiling = None
    if len(values) >= 4 and min(values) >= 0:
        reach = float(np.quantile([p.value for p in points if p.value is not None and not p.stopped] or values, 0.75))
        limit = min(values) + 4 * max(reach - min(values), 1e-12)
        ceiling = limit if max(values) > limit else None
    return RecipePlot(points, None if best is None else best.number, ceiling, len(trials) - len(shown))


def draw(plot: RecipePlot) -> Any:
    """Draw what `collect` returned."""
    made = style.figure("Trials by stage", x="trial", y="objective")
    if not plot.points:
        return style.note(made, "No trial has ended yet.")
    go = require("plotly.graph_objects", extra="plots")
    for stage in dict.fromkeys(point.stage for point in plot.points):
        own = [point for point in plot.points if point.stage == stage]
        made.add_trace(
            go.Scatter(
                x=[point.number for point in own],
                y=[_shown(point.value, plot.ceiling) for point in own],
                mode="markers",
                name=stage.replace("_", " "),
                text=[point.text for point in own],
                hovertemplate="%{text}<extra></extra>",
                marker={
                    "color": style.STAGE_COLORS.get(stage, style.OTHER_COLOR),
                    "symbol": ["x" if p.stopped else "circle" if p.full else "circle-open" for p in own],
                    "size": [11 if point.full else 8 for point in own],
                    "line": {"width": 2},
                },
            )
        )
    best = next((point for point in plot.points if point.number == plot.best), None)
    if best is not None:
        made.add_trace(
            go.Scatter(
                x=[best.number], y=[_shown(best.value, plot.ceiling)], mode="markers", name="best",
                hoverinfo="skip", marker={"symbol": "circle-open", "size": 20, "color": style.INK},
            )
        )  # fmt: skip
    remarks = ["filled: full trainings, open: short cycles, crosses: stopped early"]
    if plot.ceiling is not None:
        remarks.append(f"values above {plot.ceiling:.3g} stand at the top")
    if plot.left_out:
        remarks.append(f"{plot.left_out} trials not shown")
    made.update_layout(title={"text": f"Trials by stage<br><sup>{'; '.join(remarks)}</sup>"}, margin={"t": 70})
    return made


def _point(trial: FrozenTrial, full: float, *, hover: bool) -> TrialPoint:
    stage = str(trial.user_attrs.get(trial_record.STAGE_KEY, "other"))
    value = trial.values[0] if trial.values else None
    text = f"trial {trial.number}"
    if hover:
        params = ", ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in trial.params.items())
        text += f": {'-' if value is None else f'{value:.4g}'}<br>{_plain(params)[:160]}"
    return TrialPoint(
        trial.number,
        _plain(stage)[:30],
        style.finite(value),
        trial_record.epochs_of(trial) == full,
        trial.state == TrialState.PRUNED,
        text,
    )


def _plain(text: str) -> str:
    """Return text that a figure shows as it is."""
    return text.replace("&", "&amp;").replace("<", "&lt;")


def _shown(value: float | None, ceiling: float | None) -> float | None:
    if value is None or not math.isfinite(value):
        return ceiling
    return value if ceiling is None else min(value, ceiling)
