"""Plot what the search cost and what it brought: every trial and the best so far over the cost in full trainings."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from optuna.study import Study
from optuna.trial import FrozenTrial

from optuna_discipline import costs
from optuna_discipline import trial_record
from optuna_discipline._imports import require
from optuna_discipline.lost_study import naming_a_lost_study
from optuna_discipline.visualization import marks
from optuna_discipline.visualization import stages
from optuna_discipline.visualization import style
from optuna_discipline.visualization.view import StudyView
from optuna_discipline.visualization.view import view_of

# Above so many trials the words shown on hovering would make the figure too heavy for the dashboard (30 kB).
HOVER_TRIALS = 60
MAX_TRIALS = 600


@dataclass(frozen=True)
class TrialPoint:
    """One trial that has ended.

    Attributes:
        number: Its number.
        stage: Its stage, "other" without one.
        cost: What the search had cost when it ended, in full trainings.
        value: Its objective, None where that is no number.
        kind: One of `marks.KINDS`.
        chosen: Whether its stage went on with it.
        text: Its parameters in words, "" in a large study.
    """

    number: int
    stage: str
    cost: float
    value: float | None
    kind: str
    chosen: bool
    text: str


@dataclass(frozen=True)
class CostPlot:
    """What the plot shows.

    Attributes:
        metric: What the values are.
        points: Trials by the time at which they ended, the latest `MAX_TRIALS`.
        incumbent: (cost, best value so far) wherever it changed, and at the end.
        best: Number of the best finished trial, None without one.
        limit: Values beyond it stand at it; None if all are shown.
        left_out: Trials that the plot does not show: running, failed without a value, or too old.
        figures: Significant figures that tell the best objectives apart.
    """

    metric: str
    points: tuple[TrialPoint, ...]
    incumbent: tuple[tuple[float, float], ...]
    best: int | None
    limit: marks.Limit | None
    left_out: int
    figures: int = marks.FIGURES


def plot_cost(study: Study) -> Any:
    """Plot the objective of every trial, and the best so far, over the cost of the search, as a plotly figure.

    Raises:
        TypeError: If `study` is no study.
        UnsupportedStudyError: If it has several objectives.
        MissingExtraError: If plotly is absent.
        DisciplineError: If the study was deleted or renamed.
    """
    with naming_a_lost_study(study):
        return draw(collect(study))


def collect(source: Study | StudyView) -> CostPlot:
    """Return the ended trials in the order in which they ended, with what the search had cost by then."""
    view = view_of(source)
    chosen = {row.chosen for row in stages.collect(view)}
    ended = sorted((t for t in view.trials if t.state.is_finished()), key=_end)
    spent = costs.cost_of_range_test(view.study)
    points: list[TrialPoint] = []
    incumbent: list[tuple[float, float]] = []
    for trial in ended:
        spent += view.costs.spent.get(trial.number, 0.0)
        if not marks.has_ended(trial):
            continue
        text = _words(trial, view.figures) if len(ended) <= HOVER_TRIALS else ""
        point = TrialPoint(
            trial.number,
            marks.stage_of(trial),
            _short(spent),
            marks.value_of(trial),
            marks.kind_of(trial, view.costs),
            trial.number in chosen,
            text,
        )
        points.append(point)
        if point.value is None or not trial_record.may_be_best(trial):
            continue
        if not incumbent or view.sign * point.value < view.sign * incumbent[-1][1]:
            incumbent.append((point.cost, point.value))
    if incumbent:
        incumbent.append((_short(spent), incumbent[-1][1]))
        incumbent = [incumbent[i] for i in style.thinned(range(len(incumbent)))]
    return CostPlot(
        view.metric,
        tuple(points[-MAX_TRIALS:]),
        tuple(incumbent),
        None if view.best is None else view.best.number,
        marks.limit_of(points, view.sign),
        len(view.trials) - len(points[-MAX_TRIALS:]),
        view.figures,
    )


def draw(plot: CostPlot) -> Any:
    """Draw what `collect` returned."""
    made = style.figure("Cost and best so far", x="cost of the search, in full trainings", y=plot.metric)
    if all(point.value is None for point in plot.points):
        return style.note(made, "No trial has ended at a number.")
    for stage in dict.fromkeys(point.stage for point in plot.points):
        own = [point for point in plot.points if point.stage == stage]
        for kind in marks.KINDS:
            _add_points(made, plot, [point for point in own if point.kind == kind], first=kind == own[0].kind)
    _add_incumbent(made, plot)  # on top of the trials
    chosen = [point for point in plot.points if point.chosen]
    _add_frame(made, plot, chosen, "its stage went on with it", "square-open", 17, 1)
    _add_frame(made, plot, [p for p in plot.points if p.number == plot.best], "best", "circle-open", 20, 2)
    return style.titled(
        made, "Cost and best so far", "; ".join(marks.legend_words(plot.points, plot.limit, plot.left_out))
    )


def _add_incumbent(made: Any, plot: CostPlot) -> None:
    if plot.incumbent:
        spent, values = zip(*plot.incumbent, strict=True)
        made.add_trace(
            require("plotly.graph_objects", extra="plots").Scatter(
                x=spent,
                y=[marks.shown(value, plot.limit) for value in values],
                mode="lines",
                name="best so far",
                line={"color": style.INK, "width": 2, "shape": "hv"},
                hovertemplate=f"best so far %{{y:.{plot.figures}g}}<extra></extra>",
            )
        )


def _add_points(made: Any, plot: CostPlot, points: Sequence[TrialPoint], *, first: bool) -> None:
    """Add the trials of one stage that ended in one way; the first way of a stage stands in the legend."""
    if not points:
        return
    stage, kind = points[0].stage, points[0].kind
    words = {"text": [point.text for point in points], "hovertemplate": "%{text}<extra></extra>"}
    plain = {
        "customdata": [point.number for point in points],
        "hovertemplate": f"trial %{{customdata}}: %{{y:.{plot.figures}g}}",
    }
    made.add_trace(
        require("plotly.graph_objects", extra="plots").Scatter(
            x=[point.cost for point in points],
            y=[marks.shown(point.value, plot.limit) for point in points],
            mode="markers",
            name=style.plain(marks.spoken(stage)),
            legendgroup=style.plain(stage),
            showlegend=first,
            marker=style.marker(stage, kind, among=len(plot.points)),
            **(words if points[0].text else plain),
        )
    )


def _add_frame(
    made: Any, plot: CostPlot, points: Sequence[TrialPoint], name: str, symbol: str, size: int, width: int
) -> None:
    if points:
        made.add_trace(
            require("plotly.graph_objects", extra="plots").Scatter(
                x=[point.cost for point in points],
                y=[marks.shown(point.value, plot.limit) for point in points],
                mode="markers",
                name=name,
                hoverinfo="skip",
                marker={"symbol": symbol, "size": size, "color": style.INK, "line": {"width": width}},
            )
        )


def _words(trial: FrozenTrial, figures: int) -> str:
    value = marks.value_of(trial)
    params = ", ".join(f"{name} {marks.show(value)}" for name, value in trial.params.items())
    ended = "broke" if value is None else marks.show(value, figures)
    return f"trial {trial.number}: {ended}<br>{style.plain(params[:160])}"


def _end(trial: FrozenTrial) -> tuple[float, int]:
    ended = trial.datetime_complete
    return 0.0 if ended is None else ended.timestamp(), trial.number


def _short(cost: float) -> float:
    return float(f"{cost:.4g}")
