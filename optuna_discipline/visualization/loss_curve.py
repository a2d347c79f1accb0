"""Plot loss curves: training and validation loss, the gap between them, and other values, with the verdict."""

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from typing import Any

from optuna.study import Study
from optuna.trial import FrozenTrial

from optuna_discipline import trial_record
from optuna_discipline._imports import require
from optuna_discipline.lost_study import naming_a_lost_study
from optuna_discipline.rules.curve import LossCurve
from optuna_discipline.rules.diagnosis import diagnose_if_readable
from optuna_discipline.rules.runs_diagnosis import RunsDiagnosis
from optuna_discipline.visualization import style
from optuna_discipline.visualization.view import StudyView
from optuna_discipline.visualization.view import view_of

# Several runs differ in dash and colours, and in their marks, the only ones that the gap has beside the dash.
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
COLORS = ((style.TRAIN_COLOR, style.VAL_COLOR), ("#009E73", "#CC79A7"), ("#56B4E9", "#E69F00"))
SYMBOLS = ("circle", "square", "diamond", "x", "triangle-up", "cross", "star")
NO_RUN = (
    "There is no run to show: none has ended at a number, or none has reported its epochs by TrialReporter or "
    "report_epoch."
)
NO_NUMBER = "There is nothing to show: every report is NaN or infinite."
HEIGHTS = {"loss": 0.72, "gap": 0.28, "value": 0.28}  # of the panels, the first of them the largest


@dataclass(frozen=True)
class CurvePlot:
    """One run.

    Attributes:
        name: "trial 3", "run 1", or "".
        epochs: Indices of its epochs.
        train_loss: One an epoch, None where not measured or no number.
        val_loss: Likewise.
        gap: Validation minus training loss, likewise.
        value: What was reported in place of a validation loss; empty where there is one. Of a trial that reported by
            `trial.report` alone the objective at each step, the epochs being its steps.
        verdict: What the curve shows; "" for such a trial, of which nobody knows what it measures.
        advice: What that means, "" for a curve that cannot be read.
    """

    name: str
    epochs: tuple[int, ...]
    train_loss: tuple[float | None, ...]
    val_loss: tuple[float | None, ...]
    gap: tuple[float | None, ...]
    value: tuple[float | None, ...]
    verdict: str
    advice: str


Source = LossCurve | FrozenTrial | Study | Sequence[LossCurve | FrozenTrial]


def plot_loss_curve(source: Source) -> Any:
    """Plot one run, several over each other, or the best run of a study, as a plotly figure.

    The losses stand on a logarithmic axis where they can, the gap between them below, and so does the reported value of
    a trial that has no validation loss. Of a trial that reported by `trial.report` alone it stands by itself, without a
    verdict.

    Raises:
        TypeError: If `source` holds something else than curves and trials, and is no study.
        UnsupportedStudyError: If it is a study of several objectives.
        MissingExtraError: If plotly is absent.
        DisciplineError: If the study was deleted or renamed.
    """
    with naming_a_lost_study(source):
        return draw(collect(source))


def collect(source: Source | StudyView) -> tuple[CurvePlot, ...]:
    """Return the runs that have reported; of a study its best one, with what the others make of its advice."""
    if isinstance(source, Study | StudyView):
        view = view_of(source)
        best = view.best
        return () if best is None else tuple(_among_others(plot, best.number, view.together) for plot in collect(best))
    items = source if isinstance(source, list | tuple) else [source]
    plots = []
    for index, item in enumerate(items):
        if isinstance(item, FrozenTrial):
            reported = trial_record.read_reported(item)
            name = f"trial {item.number}"
            if reported is not None:
                plots.append(_of(name, reported.curve, reported.values))
            elif item.intermediate_values:
                plots.append(_of_reports(name, item.intermediate_values))
        elif isinstance(item, LossCurve):
            if len(item):
                plots.append(_of(f"run {index}" if len(items) > 1 else "", item))
        else:
            raise TypeError(
                f"`source` must hold LossCurves or trials, or be a study, but got {type(item).__name__}: {item!r}."
            )
    return tuple(plots)


def draw(plots: tuple[CurvePlot, ...]) -> Any:
    """Draw what `collect` returned."""
    title, remark = "Loss curves" if any(plot.verdict for plot in plots) or not plots else "Reports", ""
    if len(plots) == 1:
        kind, verdict = ("Loss curve", f": {plots[0].verdict}") if plots[0].verdict else ("Reports", "")
        title = f"{kind}{' of ' if plots[0].name else ''}{plots[0].name}{verdict}"
        remark = plots[0].advice
    made = style.figure(title, x="", y="loss")
    losses = [value for plot in plots for value in (*plot.train_loss, *plot.val_loss) if value is not None]
    shown = {name: any(x is not None for plot in plots for x in getattr(plot, name)) for name in ("gap", "value")}
    panels = [name for name, is_shown in (("loss", bool(losses)), *shown.items()) if is_shown]
    if not panels:
        return style.note(made, NO_NUMBER if plots else NO_RUN)
    made = require("plotly.subplots", extra="plots").make_subplots(
        len(panels),
        1,
        shared_xaxes=True,
        row_heights=[HEIGHTS[name] for name in panels],
        vertical_spacing=0.06,
        figure=made,
    )
    rows = {name: row for row, name in enumerate(panels, start=1)}
    plain = not any(plot.verdict for plot in plots)
    of_value = "objective" if plain else "value"
    _add_runs(made, plots, rows, of_value)
    style.axes(made)
    if "loss" in rows:
        log = bool(losses) and min(losses) > 0 and max(losses) > 10 * min(losses)
        ends = (min(losses), max(losses)) if log else None
        made.update_yaxes(title="loss", row=rows["loss"], **style.log_axis(log, ends=ends))
    if "gap" in rows:
        if len(plots) == 1:
            made.update_traces(showlegend=False, row=rows["gap"])
            remark += " Gap: validation loss minus training loss."
        zero = {"zeroline": True, "zerolinecolor": style.INK, "rangemode": "tozero"}
        made.update_yaxes(title="gap", nticks=4, row=rows["gap"], **zero)
    if "value" in rows:
        made.update_yaxes(title=of_value, row=rows["value"])
    made.update_yaxes(title_standoff=8)
    made.update_xaxes(**style.counting_axis([epoch for plot in plots for epoch in plot.epochs]))
    made.update_xaxes(title="step" if plain else "epoch", row=len(panels))
    return style.titled(made, title, remark)


def _add_runs(made: Any, plots: Sequence[CurvePlot], rows: Mapping[str, int], of_value: str) -> None:
    """Add the lines of each run to the panels that show them."""
    alone = len(plots) == 1
    for index, plot in enumerate(plots):
        of_train, of_val = COLORS[index // len(DASHES) % len(COLORS)]
        lines = (
            ("loss", "training", plot.train_loss, of_train),
            ("loss", "validation", plot.val_loss, of_val),
            ("gap", "gap", plot.gap, style.INK),
            ("value", of_value, plot.value, of_val),
        )
        for panel, name, values, color in lines:
            if any(value is not None for value in values):
                trace = require("plotly.graph_objects", extra="plots").Scatter(
                    x=plot.epochs,
                    y=values,
                    mode="lines+markers",
                    name=name if alone else f"{plot.name} {name}",
                    line={"color": color, "dash": DASHES[index % len(DASHES)]},
                    marker={"size": 4 if alone else 6, "symbol": SYMBOLS[index % len(SYMBOLS)]},
                )
                made.add_trace(trace, row=rows[panel], col=1)


def _among_others(plot: CurvePlot, number: int, together: RunsDiagnosis | None) -> CurvePlot:
    """Return the plot of the best run with the advice that the other runs leave."""
    if together is None or together.best != number or together.best_diagnosis is None:
        return plot
    return replace(plot, advice=together.best_diagnosis.advice)


def _of_reports(name: str, values: Mapping[int, float]) -> CurvePlot:
    steps = sorted(values)
    steps = [steps[i] for i in style.thinned(steps)]
    return CurvePlot(name, tuple(steps), (), (), (), tuple(style.finite(values[step]) for step in steps), "", "")


def _of(name: str, curve: LossCurve, values: Sequence[float | None] | None = None) -> CurvePlot:
    keep = style.thinned(curve.epochs.tolist())
    found = diagnose_if_readable(curve)
    if found is not None:
        verdict, advice = str(found.verdict), found.advice
    elif curve.has_val_loss:
        verdict, advice = "too short to read", ""
    else:
        verdict, advice = "no validation loss to read", "Report `val_loss`, and `train_loss` beside it."
    shown = () if values is None or curve.has_val_loss else values
    return CurvePlot(
        name,
        tuple(int(curve.epochs[i]) for i in keep),
        tuple(style.finite(curve.train_loss[i]) for i in keep),
        tuple(style.finite(curve.val_loss[i]) for i in keep),
        tuple(style.finite(curve.gap[i]) for i in keep),
        tuple(style.finite(shown[i]) for i in keep if shown),
        verdict,
        advice,
    )
