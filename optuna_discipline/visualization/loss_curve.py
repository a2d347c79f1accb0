"""Plot loss curves: training and validation loss and the gap between them, with the verdict."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from optuna.study import Study
from optuna.trial import FrozenTrial

from optuna_discipline import trial_record
from optuna_discipline._imports import require
from optuna_discipline.exceptions import DisciplineError
from optuna_discipline.rules.curve import LossCurve
from optuna_discipline.rules.diagnosis import diagnose
from optuna_discipline.visualization import style

DASHES = ("solid", "dash", "dot", "dashdot")


@dataclass(frozen=True)
class CurvePlot:
    """One run.

    Attributes:
        name: "trial 3", "run 1", or "".
        epochs: Indices of its epochs.
        train_loss: One an epoch, None where not measured or no number.
        val_loss: Likewise.
        gap: Validation minus training loss, likewise.
        verdict: What the curve shows.
        advice: What that means, "" for a curve too short to read.
    """

    name: str
    epochs: tuple[int, ...]
    train_loss: tuple[float | None, ...]
    val_loss: tuple[float | None, ...]
    gap: tuple[float | None, ...]
    verdict: str
    advice: str


Source = LossCurve | FrozenTrial | Study | Sequence[LossCurve | FrozenTrial]


def plot_loss_curve(source: Source) -> Any:
    """Plot one run, several over each other, or the best run of a study, as a plotly figure.

    The losses stand on a logarithmic axis where they can, the gap between them below.

    Raises:
        TypeError: If `source` holds something else than curves and trials, and is no study.
        MissingExtraError: If plotly is absent.
    """
    return draw(collect(source))


def collect(source: Source) -> tuple[CurvePlot, ...]:
    """Return the runs that have epochs to show; of a study its best one."""
    if isinstance(source, Study):
        best = trial_record.best_run(source)
        source = [] if best is None else [best]
    items = source if isinstance(source, list | tuple) else [source]
    plots = []
    for index, item in enumerate(items):
        if isinstance(item, FrozenTrial):
            name, curve = f"trial {item.number}", trial_record.read_curve(item)
        elif isinstance(item, LossCurve):
            name, curve = f"run {index}" if len(items) > 1 else "", item
        else:
            raise TypeError(
                f"`source` must hold LossCurves or trials, or be a study, but got {type(item).__name__}: {item!r}."
            )
        if curve is not None and len(curve):
            plots.append(_of(name, curve))
    return tuple(plots)


def draw(plots: tuple[CurvePlot, ...]) -> Any:
    """Draw what `collect` returned."""
    title, remark = "Loss curves", ""
    if len(plots) == 1:
        title = f"Loss curve{' of ' if plots[0].name else ''}{plots[0].name}: {plots[0].verdict}"
        remark = plots[0].advice
    made = style.figure(title, x="", y="loss")
    if not plots:
        return style.note(made, "No epochs were reported: use TrialReporter or report_epoch.")
    losses = [value for plot in plots for value in (*plot.train_loss, *plot.val_loss) if value is not None]
    with_gap = any(value is not None for plot in plots for value in plot.gap)
    rows = 2 if with_gap else 1
    made = require("plotly.subplots", extra="plots").make_subplots(
        rows, 1, shared_xaxes=True, row_heights=[0.72, 0.28][:rows], vertical_spacing=0.06, figure=made
    )
    alone = len(plots) == 1
    for index, plot in enumerate(plots):
        dash = DASHES[index % len(DASHES)]
        _add(made, plot, "training", plot.train_loss, style.TRAIN_COLOR, row=1, dash=dash, alone=alone)
        _add(made, plot, "validation", plot.val_loss, style.VAL_COLOR, row=1, dash=dash, alone=alone)
        _add(made, plot, "gap", plot.gap, style.INK, row=2, dash=dash, alone=alone)
    if alone and with_gap:
        made.update_traces(showlegend=False, row=2)
    style.axes(made)
    log = bool(losses) and min(losses) > 0 and max(losses) > 10 * min(losses)
    decades = math.log10(max(losses) / min(losses)) if log else 0.0
    made.update_yaxes(title="loss", row=1, **style.log_axis(log, decades=decades))
    if with_gap:
        made.update_yaxes(title="gap", zeroline=True, zerolinecolor=style.INK, nticks=4, rangemode="tozero", row=2)
    made.update_xaxes(title="epoch", row=rows)
    if alone and with_gap:
        remark += " Gap: validation loss minus training loss."
    return style.titled(made, title, remark)


def _add(
    made: Any,
    plot: CurvePlot,
    name: str,
    values: Sequence[float | None],
    color: str,
    *,
    row: int,
    dash: str,
    alone: bool,
) -> None:
    if any(value is not None for value in values):
        made.add_trace(
            require("plotly.graph_objects", extra="plots").Scatter(
                x=plot.epochs,
                y=values,
                mode="lines+markers",
                name=name if alone else f"{plot.name} {name}",
                line={"color": color, "dash": dash},
                marker={"size": 4},
            ),
            row=row,
            col=1,
        )


def _of(name: str, curve: LossCurve) -> CurvePlot:
    keep = style.thinned(curve.epochs.tolist())
    try:
        found = diagnose(curve)
        verdict, advice = str(found.verdict), found.advice
    except DisciplineError:
        verdict, advice = "too short to read", ""
    return CurvePlot(
        name,
        tuple(int(curve.epochs[i]) for i in keep),
        tuple(style.finite(curve.train_loss[i]) for i in keep),
        tuple(style.finite(curve.val_loss[i]) for i in keep),
        tuple(style.finite(curve.gap[i]) for i in keep),
        verdict,
        advice,
    )
