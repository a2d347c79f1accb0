"""Plot an LR range test: the loss while the learning rate rises, the bounds, the choice and its reason."""

import math
from dataclasses import dataclass
from typing import Any

from optuna.study import Study

from optuna_discipline._imports import require
from optuna_discipline.lost_study import naming_a_lost_study
from optuna_discipline.range_test_record import read_range_test
from optuna_discipline.rules.lr_choice import LrChoice
from optuna_discipline.rules.range_test import RangeTest
from optuna_discipline.rules.range_test_curve import read_losses
from optuna_discipline.visualization import style

NO_NUMBER = "No loss of the LR range test was a number."


@dataclass(frozen=True)
class RangeTestPlot:
    """What the plot shows.

    Attributes:
        lrs: Learning rates, shape (n,).
        raw: Losses as measured, None where they are no numbers.
        smooth: The smoothed loss that `choose_max_lr` reads.
        kind: "validation" or "training".
        choice: What the curve says.
    """

    lrs: tuple[float, ...]
    raw: tuple[float | None, ...]
    smooth: tuple[float | None, ...]
    kind: str
    choice: LrChoice


def plot_range_test(source: RangeTest | Study) -> Any:
    """Plot a range test, or that of a study, as a plotly figure.

    Raises:
        TypeError: If `source` is neither.
        MissingExtraError: If plotly is absent.
        DisciplineError: If the study was deleted or renamed.
    """
    return draw(collect(source))


def read(study: Study) -> RangeTest | None:
    """Return the range test of a study; None if there was none, or if what is stored is damaged."""
    try:
        with naming_a_lost_study(study):
            stored = read_range_test(study)
        return None if stored is None else RangeTest.from_dict(stored)
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def collect(source: RangeTest | Study) -> RangeTestPlot | None:
    """Return what there is to show, None for a study without a range test."""
    if isinstance(source, Study):
        stored = read(source)
        if stored is None:
            return None
        source = stored
    if not isinstance(source, RangeTest):
        raise TypeError(f"`source` must be a RangeTest or a study, but got {type(source).__name__}.")
    loss = read_losses(source)[0]
    keep = style.thinned(loss.lrs.tolist())
    return RangeTestPlot(
        tuple(float(f"{loss.lrs[i]:.5g}") for i in keep),
        tuple(style.finite(loss.raw[i]) for i in keep),
        tuple(style.finite(loss.smooth[i]) for i in keep),
        loss.name,
        source.choice,
    )


def draw(plot: RangeTestPlot | None) -> Any:
    """Draw what `collect` returned."""
    y = f"{plot.kind} loss" if plot is not None else "loss"
    made = style.figure("LR range test", x="learning rate", y=y, log_x=True)
    if plot is None:
        return style.note(made, "This study has no LR range test.")
    if all(value is None for value in plot.raw):
        return style.note(style.titled(made, f"LR range test: {plot.choice.status}", plot.choice.reason), NO_NUMBER)
    go = require("plotly.graph_objects", extra="plots")
    made.add_trace(
        go.Scatter(x=plot.lrs, y=plot.raw, mode="markers", name="measured", marker={"color": style.INK, "size": 4})
    )
    made.add_trace(
        go.Scatter(x=plot.lrs, y=plot.smooth, mode="lines", name="smoothed", line={"color": style.VAL_COLOR})
    )
    shown = [value for value in plot.smooth if value is not None]
    if shown:
        low = min([*shown, *(value for value in plot.raw if value is not None)])
        high = min(max(shown), 2 * abs(shown[0]) + shown[0])  # what has exploded would flatten the rest
        room = 0.08 * (high - low) + 1e-9
        made.update_yaxes(range=[low - room, high + room])
    if plot.choice.bounds is not None:
        low, high = plot.choice.bounds
        made.add_vrect(low, high, fillcolor=style.GOOD, opacity=0.15, line_width=0, layer="below")
        made.add_trace(
            go.Scatter(
                x=[None], y=[None], mode="markers", name=f"search from {low:.2g} to {high:.2g}",
                marker={"symbol": "square", "size": 12, "color": style.GOOD, "opacity": 0.3},
            )
        )  # fmt: skip
    if plot.choice.max_lr is not None:
        made.add_vline(plot.choice.max_lr, line={"color": style.GOOD, "dash": "dash", "width": 2})
        made.add_annotation(
            x=math.log10(plot.choice.max_lr), y=1, yref="paper", yanchor="bottom", showarrow=False,
            text=f"max_lr {plot.choice.max_lr:.3g}", font={"size": style.SMALL_SIZE - 1},
        )  # fmt: skip
    style.titled(made, f"LR range test: {plot.choice.status}", plot.choice.reason)
    if plot.choice.max_lr is not None:
        made.layout.margin.t += style.SMALL_LINE  # the line's own words
    return made
