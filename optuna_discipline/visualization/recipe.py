"""Plot the recipe: for each stage that settles a number its candidates, their values, the noise and the choice."""

import math
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from optuna.study import Study

from optuna_discipline._imports import require
from optuna_discipline.lost_study import naming_a_lost_study
from optuna_discipline.visualization import marks
from optuna_discipline.visualization import noise
from optuna_discipline.visualization import stages
from optuna_discipline.visualization import style
from optuna_discipline.visualization.view import StudyView
from optuna_discipline.visualization.view import view_of

# So many labels stand side by side where the dashboard is 800 pixels wide.
MAX_TICKS = 3.5
MAX_CANDIDATES = 60
NO_NUMBER = "No trial of a stage has ended at a number."
BEGAN, CHOICE = "where the stage began", "choice"


@dataclass(frozen=True)
class Candidate:
    """One value that a stage compared.

    Attributes:
        x: The value.
        number: Number of the trial that ran it.
        value: Its objective, None where that is no number.
        kind: One of `marks.KINDS`.
        stage: The stage that ran it; not the panel's own for the run that the stage began from.
        moved: What else changed, where a model chose the value; "" for any other.
    """

    x: float | str
    number: int
    value: float | None
    kind: str
    stage: str
    moved: str = ""


@dataclass(frozen=True)
class StagePanel:
    """One stage that settles a number.

    Attributes:
        stage: Its name, which is the role of the number.
        candidates: What it compared, by value; the run that it began from is one of them.
        band: Objectives that do not differ from that run, or from the mean of its repetitions, by more than the noise;
            None where none was measured and the stage does not ask for it.
        measured: Whether the noise was measured by repeated runs, or is the least that the recipe assumes.
        chosen: Number of the candidate with which the study went on, None while that is open.
        decision: The choice in words.
    """

    stage: str
    candidates: tuple[Candidate, ...]
    band: tuple[float, float] | None
    measured: bool
    chosen: int | None
    decision: str


@dataclass(frozen=True)
class RecipePlot:
    """What the plot shows: the panels in the order in which the stages began.

    Attributes:
        metric: What the values are.
        panels: One a stage.
        limit: Values beyond it stand at it; None if all are shown.
        figures: Significant figures that tell the best objectives apart.
        nothing: What to say where there is no panel.
        refined: The best that the refinement has found, in words; "" for nothing better.
    """

    metric: str
    panels: tuple[StagePanel, ...]
    limit: marks.Limit | None
    figures: int
    nothing: str
    refined: str = ""


def plot_recipe(study: Study) -> Any:
    """Plot what each stage of a study compared and chose as a plotly figure, a panel a stage.

    Raises:
        TypeError: If `study` is no study.
        UnsupportedStudyError: If it has several objectives.
        MissingExtraError: If plotly is absent.
        DisciplineError: If the study was deleted or renamed.
    """
    with naming_a_lost_study(study):
        return draw(collect(study))


def collect(source: Study | StudyView) -> RecipePlot:
    """Return the candidates of every stage that settles a number."""
    view = view_of(source)
    rows = stages.collect(view)
    best = min((row for row in rows if row.best), key=lambda row: view.sign * (row.best_value or 0.0), default=None)
    panels = tuple(panel for row in rows if row.stage in stages.DECIDING and (panel := _panel(row, view)).candidates)
    return RecipePlot(
        view.metric,
        panels,
        marks.limit_of([c for panel in panels for c in panel.candidates], view.sign),
        view.figures,
        stages.why_none(view) or "No stage has compared anything yet.",
        best.best if best is not None and best.stage == "refine" else "",
    )


def draw(plot: RecipePlot) -> Any:
    """Draw what `collect` returned."""
    title = "What each stage compared"
    made = style.figure(title, x="", y=plot.metric)
    if all(candidate.value is None for panel in plot.panels for candidate in panel.candidates):
        return style.note(made, NO_NUMBER if plot.panels else plot.nothing)
    columns = min(2, len(plot.panels))
    rows = -(-len(plot.panels) // columns)
    made = require("plotly.subplots", extra="plots").make_subplots(
        rows,
        columns,
        shared_yaxes="all",
        horizontal_spacing=0.08,
        vertical_spacing=0.26 if rows > 1 else 0.0,
        subplot_titles=[_panel_title(panel) for panel in plot.panels],
        figure=made,
    )
    made.update_annotations(font={"size": style.SMALL_SIZE - 1})
    named: set[str] = set()
    for index, panel in enumerate(plot.panels):
        _draw_panel(made, panel, plot, row=index // columns + 1, column=index % columns + 1, named=named)
    style.axes(made)
    made.update_yaxes(title=plot.metric, col=1)
    made.update_layout(height=style.HEIGHT, margin_b=80)
    candidates = [candidate for panel in plot.panels for candidate in panel.candidates]
    words = marks.legend_words(candidates, plot.limit, 0)
    bands = [panel for panel in plot.panels if panel.band is not None]
    if any(panel.measured for panel in bands):
        words.append("grey band: as far as equal runs differ, around their mean")
    elif bands:
        words.append("grey band: the least that counts as a difference")
    words += [f"the refinement has gone on since, to {plot.refined}"] if plot.refined else []
    style.titled(made, title, "; ".join(words))
    made.layout.margin.t += 2 * style.SMALL_LINE  # the panels' own titles
    return made


def _draw_panel(made: Any, panel: StagePanel, plot: RecipePlot, *, row: int, column: int, named: set[str]) -> None:
    log = panel.stage in ("lr", "weight_decay") and all(not isinstance(c.x, str) and c.x > 0 for c in panel.candidates)
    places = _places(panel, log=log)
    for kind in marks.KINDS:
        own = [c for c in panel.candidates if c.kind == kind and c.stage == panel.stage]
        _add(made, plot, places, own, marks.KINDS[kind], style.marker(panel.stage, kind), at=(row, column))
    began = [c for c in panel.candidates if c.stage != panel.stage]
    beginning = {"symbol": "diamond", "size": 12, "color": style.INK}
    _add(made, plot, places, began, BEGAN, beginning, at=(row, column), named=named)
    chosen = [c for c in panel.candidates if c.number == panel.chosen]
    ring = {"symbol": "circle-open", "size": 20, "color": style.INK, "line": {"width": 2}}
    _add(made, plot, places, chosen, CHOICE, ring, at=(row, column), named=named)
    if panel.band is not None:
        low, high = (marks.shown(edge, plot.limit) for edge in panel.band)
        edge = {"width": 1, "color": style.INK}
        made.add_hrect(low, high, fillcolor=style.INK, opacity=0.3, line=edge, layer="below", row=row, col=column)
    ticks = _ticks(list(places), places)
    made.update_xaxes(
        tickvals=[places[x] for x in ticks],
        ticktext=[style.plain(_tick(x)) for x in ticks],
        tickangle=0,
        range=style.with_room(list(places.values())),
        row=row,
        col=column,
    )


def _add(
    made: Any,
    plot: RecipePlot,
    places: Mapping[float | str, float],
    some: Sequence[Candidate],
    name: str,
    marker: dict[str, Any],
    *,
    at: tuple[int, int],
    named: set[str] | None = None,
) -> None:
    """Add candidates to a panel; a name stands in the legend once, and only if `named` keeps the names."""
    if not some:
        return
    trace = require("plotly.graph_objects", extra="plots").Scatter(
        x=[places[c.x] for c in some],
        y=[marks.shown(c.value, plot.limit) for c in some],
        mode="markers",
        name=name,
        legendgroup=name,
        showlegend=named is not None and name not in named,
        marker=marker,
        text=[style.plain(_words(c, plot.figures)) for c in some],
        hovertemplate="%{text}<extra></extra>",
    )
    made.add_trace(trace, row=at[0], col=at[1])
    if named is not None:
        named.add(name)


def _panel(row: stages.StageRow, view: StudyView) -> StagePanel:
    own = [trial for trial in view.trials if marks.stage_of(trial) == row.stage and marks.has_ended(trial)]
    base = stages.began_from(own, view.trials)
    shown = own[-MAX_CANDIDATES:] + ([base] if base is not None and base not in own else [])
    candidates = [
        Candidate(
            _rounded(x),
            trial.number,
            marks.value_of(trial),
            marks.kind_of(trial, view.costs),
            marks.stage_of(trial),
            stages.moved_in(trial, view) if marks.stage_of(trial) == row.stage else "",
        )
        for trial in shown
        if (x := stages.value_of(trial, row.stage, view.roles)) is not None
    ]
    around = noise.noise_around(base, view.trials)
    measured = around is not None and around.measured
    band = None
    if around is not None and (measured or stages.keeps_within_noise(row.stage, own)):
        band = around.mean - around.width, around.mean + around.width
    return StagePanel(
        row.stage,
        tuple(sorted(candidates, key=lambda c: marks.order(c.x))),
        band,
        measured,
        _chosen(row, candidates, view),
        row.decision,
    )


def _chosen(row: stages.StageRow, candidates: Sequence[Candidate], view: StudyView) -> int | None:
    """Return the candidate with which the study went on: that run, or one of its value (the run at full length)."""
    taken = [c for c in candidates if c.number == row.went_on_with]
    if not taken:
        run = next((trial for trial in view.trials if trial.number == row.went_on_with), None)
        value = None if run is None else stages.value_of(run, row.stage, view.roles)
        taken = [c for c in candidates if c.x == _rounded(value)]
    return taken[0].number if taken else None


def _rounded(x: Any) -> float | str:
    """Return a value without the rounding error of the model's way to it, which would be all that an axis shows."""
    return float(f"{x:.6g}") if isinstance(x, float) else x if isinstance(x, int) else str(x)


def _panel_title(panel: StagePanel) -> str:
    decision = panel.decision.partition(":")[0] or stages.OPEN
    return f"{style.plain(marks.spoken(panel.stage))}:<br>{style.plain(decision)}"  # one line is too long at 800 pixels


def _places(panel: StagePanel, *, log: bool) -> dict[float | str, float]:
    """Return where each candidate stands: by its logarithm, or one beside the other."""
    values = list(dict.fromkeys(candidate.x for candidate in panel.candidates))
    return {x: math.log10(x) if log and not isinstance(x, str) else float(place) for place, x in enumerate(values)}


def _ticks(values: list[float | str], places: dict[float | str, float]) -> list[float | str]:
    """Return values that may be labelled without touching each other."""
    span = max(places.values()) - min(places.values())
    kept: list[float | str] = []
    for x in values:
        if not kept or places[x] - places[kept[-1]] >= span / MAX_TICKS:
            kept.append(x)
    return kept


def _tick(x: float | str) -> str:
    return f"{x:.3g}" if isinstance(x, float) else str(x)[:12]


def _words(candidate: Candidate, figures: int) -> str:
    value = "broke" if candidate.value is None else marks.show(candidate.value, figures)
    beside = f", {candidate.moved}" if candidate.moved else ""
    return f"{marks.show(candidate.x)}{beside}: {value}, trial {candidate.number}"
