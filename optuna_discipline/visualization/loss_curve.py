"""Plot loss curves: training and validation loss and the gap between them, with the verdict."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial

from optuna_discipline._imports import require
from optuna_discipline.exceptions import DisciplineError
from optuna_discipline.rules.curve import LossCurve
from optuna_discipline.rules.diagnosis import diagnose
from optuna_discipline.trial_record import read_curve
from optuna_discipline.visualization import style


@dataclass(frozen=True)
class CurvePlot:
    """One run: epochs, losses (None where not measured or no number), and what the curve shows."""

    name: str
    epochs: tuple[int, ...]
    train_loss: tuple[float | None, ...]
    val_loss: tuple[float | None, ...]
    gap: tuple[float | None, ...]
    verdict: str


def plot_loss_curve(source: LossCurve | FrozenTrial | Sequence[LossCurve | FrozenTrial]) -> Any:
    """Plot one run, or several over each other, as a plotly figure.

    Raises:
        TypeError: If `source` holds something else than curves and trials.
        MissingExtraError: If plotly is absent.
    """
    return draw(collect(source))


def collect(source: LossCurve | FrozenTrial | Sequence[LossCurve | FrozenTrial]) -> tuple[CurvePlot, ...]:
    """Return the runs that have epochs to show."""
    items = source if isinstance(source, list | tuple) else [source]
    plots = []
    for index, item in enumerate(items):
        if isinstance(item, FrozenTrial):
            name, curve = f"trial {item.number}", read_curve(item)
        elif isinstance(item, LossCurve):
            name, curve = f"run {index}" if len(items) > 1 else "", item
        else:
            raise TypeError(f"`source` must hold LossCurves or trials, but got {type(item).__name__}.")
        if curve is not None and len(curve):
            plots.append(_of(name, curve))
    return tuple(plots)


def draw(plots: tuple[CurvePlot, ...]) -> Any:
    """Draw what `collect` returned."""
    title = "Loss curves"
    if len(plots) == 1:
        title = " ".join(part for part in ("Loss curve", plots[0].name, f"({plots[0].verdict})") if part)
    made = style.figure(title, x="epoch", y="loss")
    if not plots:
        return style.note(made, "No epochs were reported: use TrialReporter or report_epoch.")
    go = require("plotly.graph_objects", extra="plots")
    for plot in plots:
        lines = (
            ("training", plot.train_loss, style.TRAIN_COLOR, "solid"),
            ("validation", plot.val_loss, style.VAL_COLOR, "solid"),
            ("gap", plot.gap, style.GAP_COLOR, "dot"),
        )
        for kind, values, color, dash in lines:
            if any(value is not None for value in values):
                name = f"{plot.name} {kind}".strip() if len(plots) > 1 else kind
                line = {"color": color, "dash": dash}
                made.add_trace(go.Scatter(x=plot.epochs, y=values, mode="lines+markers", name=name, line=line))
    made.update_traces(marker={"size": 4})
    return made


def _of(name: str, curve: LossCurve) -> CurvePlot:
    keep = style.thinned(curve.epochs.tolist())
    try:
        verdict = str(diagnose(curve).verdict)
    except DisciplineError:
        verdict = "too short to read"
    return CurvePlot(
        name,
        tuple(int(curve.epochs[i]) for i in keep),
        tuple(style.finite(curve.train_loss[i]) for i in keep),
        tuple(style.finite(curve.val_loss[i]) for i in keep),
        tuple(style.finite(curve.gap[i]) for i in keep),
        verdict,
    )
