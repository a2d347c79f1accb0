"""How all figures look: readable on light and dark, told apart by colour-blind people, small."""

import math
import textwrap
from collections.abc import Sequence
from typing import Any

from optuna_discipline._imports import require

# Okabe and Ito's palette, without its black and yellow, which vanish on dark and light pages.
STAGE_COLORS = {
    "lr": "#0072B2",
    "confirm": "#009E73",
    "replicate": "#7F7F7F",
    "momentum": "#E69F00",
    "weight_decay": "#CC79A7",
    "batch_size": "#56B4E9",
    "refine": "#D55E00",
    "enqueued": "#8C6D31",
}
OTHER_COLOR = "#7F7F7F"
TRAIN_COLOR, VAL_COLOR, GAP_COLOR = "#0072B2", "#D55E00", "#7F7F7F"
INK, GRID = "#808080", "rgba(128,128,128,0.25)"
MAX_POINTS = 300
# The dashboard shows figures two abreast: on a page 800 pixels wide a line of small print holds this much.
LINE_LENGTH = 56


def figure(title: str, *, x: str, y: str, log_x: bool = False, log_y: bool = False) -> Any:
    """Return an empty figure with titled axes."""
    axis = {"gridcolor": GRID, "zerolinecolor": GRID, "linecolor": INK, "automargin": True}
    made = require("plotly.graph_objects", extra="plots").Figure()
    made.update_layout(
        template="none",
        title={"font": {"size": 15}, "x": 0.02, "xanchor": "left", "y": 0.97, "yanchor": "top"},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"color": INK, "size": 12},
        legend={
            "orientation": "h",
            "yref": "container",
            "y": 0.01,
            "yanchor": "bottom",
            "x": 0.02,
            "xref": "container",
        },
        margin={"l": 60, "r": 30, "b": 110},
        height=420,
        xaxis={**axis, "title": x, **_log(log_x)},
        yaxis={**axis, "title": y, **_log(log_y)},
    )
    return titled(made, title)


def titled(made: Any, title: str, remarks: str = "") -> Any:
    """Write title and remarks over a figure, broken into lines that a narrow page shows whole; return the figure."""
    lines = textwrap.wrap(remarks, LINE_LENGTH)
    made.layout.title.text = "<br>".join([title, *(f"<sup>{line}</sup>" for line in lines)])
    made.layout.margin.t = 50 + 19 * len(lines)
    return made


def note(made: Any, text: str) -> Any:
    """Write a remark into the middle of a figure that has nothing to show; return the figure."""
    lines = "<br>".join(textwrap.wrap(text, LINE_LENGTH // 2))
    made.add_annotation(text=lines, x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False, font={"size": 14})
    return made


def thinned(values: Sequence[float]) -> list[int]:
    """Return the indices of at most `MAX_POINTS` values, evenly spread, both ends kept."""
    if len(values) <= MAX_POINTS:
        return list(range(len(values)))
    return sorted({round(i * (len(values) - 1) / (MAX_POINTS - 1)) for i in range(MAX_POINTS)})


def finite(value: float | None) -> float | None:
    """Return `value` shortened to six figures, None for what a figure cannot show."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.6g}")


def _log(on: bool) -> dict[str, Any]:
    return {"type": "log", "exponentformat": "power", "dtick": 1} if on else {}
