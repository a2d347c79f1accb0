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
SYMBOLS = {"full": "circle", "short": "circle-open", "stopped": "x"}
TRAIN_COLOR, VAL_COLOR = "#0072B2", "#D55E00"
# The grey that is read best where it is read worst: 4.06 to 1 on the dashboard's white and on its dark #1E1E1E.
INK, GRID, GOOD = "#7E7E7E", "rgba(128,128,128,0.25)", "#009E73"
MAX_POINTS = 300
# More marks than these would hide each other, and what they are drawn beside.
MANY_MARKS = 100
# The dashboard shows figures two abreast: on a page 800 pixels wide a line of small print holds this much.
LINE_LENGTH = 44
# Higher figures are cut off on the dashboard.
HEIGHT = 450
# Over more steps plotly labels whole numbers only.
FEW_STEPS = 6
# So many labels of powers have room on an axis.
MAX_DECADES = 8
# Numbers of more digits are labelled with an exponent.
MOST_DIGITS = 5
TITLE_SIZE, SMALL_SIZE, SMALL_LINE = 15, 13, 17


def figure(title: str, *, x: str, y: str, log_x: bool = False) -> Any:
    """Return an empty figure with titled axes."""
    made = require("plotly.graph_objects", extra="plots").Figure()
    made.update_layout(
        template="none",
        title={
            "font": {"size": TITLE_SIZE},
            "x": 0.02,
            "xanchor": "left",
            "y": 0.97,
            "yanchor": "top",
            "pad": {"t": 6},
        },
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
        height=HEIGHT,
        xaxis={"title": x},
        yaxis={"title": y},
    )
    axes(made).update_xaxes(**log_axis(log_x))
    return titled(made, title)


def axes(made: Any) -> Any:
    """Give all axes of a figure their colours, exponents in place of plotly's M and p, no commas; return the figure."""
    made.layout.separators = "."  # of decimals; there is none of thousands, as on a logarithmic axis
    for update in (made.update_xaxes, made.update_yaxes):
        update(gridcolor=GRID, zerolinecolor=GRID, linecolor=INK, automargin=True)
        update(exponentformat="e", minexponent=MOST_DIGITS)
    return made


def log_axis(on: bool, *, ends: tuple[float, float] | None = None) -> dict[str, Any]:
    """Return the settings of an axis that is logarithmic, or is not; below 2 decades 1, 2 and 5 of each have labels.

    >>> log_axis(True, ends=(1e-19, 10.0))["dtick"]
    3
    >>> log_axis(True, ends=(0.15, 2.3))["ticktext"][3:8]
    ['0.1', '0.2', '0.5', '1', '2']
    """
    if not on:
        return {}
    settings = {"type": "log", "exponentformat": "power"}
    low, high = (1.0, 100.0) if ends is None else ends
    decades = math.log10(high) - math.log10(low)
    if decades >= 2:
        return {**settings, "dtick": math.ceil(decades / MAX_DECADES)}
    powers = range(math.floor(math.log10(low)) - 1, math.floor(math.log10(high)) + 2)  # plotly shows those in its range
    ticks = [f"{first}e{power:+d}" for power in powers for first in (1, 2, 5)]
    whole = low >= 1e-4 and high < 10**MOST_DIGITS  # all in one form
    words = [f"{float(tick):g}" if whole else tick for tick in ticks]
    return {**settings, "tickvals": [float(tick) for tick in ticks], "ticktext": words}


def titled(made: Any, title: str, remarks: str = "") -> Any:
    """Write title and remarks over a figure, broken into lines that a narrow page shows whole; return the figure."""
    lines = [plain(line) for line in textwrap.wrap(remarks, LINE_LENGTH)]
    small = [f'<span style="font-size:{SMALL_SIZE}px">{line}</span>' for line in lines]
    made.layout.title.text = "<br>".join([title, *small])
    made.layout.margin.t = 45 + SMALL_LINE * len(lines)
    made.layout.meta = {"title": title, "remarks": remarks}
    return made


def caption(made: Any) -> str:
    """Take title and remarks out of a figure, for a page that writes them itself; return them."""
    words = [str(made.layout.meta[key]).rstrip(".") for key in ("title", "remarks") if made.layout.meta[key]]
    made.layout.title.text = None
    made.layout.margin.t = 40  # what a figure writes above its panels
    return ". ".join(part[0].upper() + part[1:] for part in words) + "."


def with_room(places: Sequence[float]) -> list[float]:
    """Return the ends of an axis that shows places with some room beside the outermost.

    >>> with_room([0.0, 2.0]), with_room([1.0])
    ([-0.3, 2.3], [0.5, 1.5])
    """
    room = 0.15 * (max(places) - min(places)) or 0.5
    return [min(places) - room, max(places) + room]


def plain(text: str) -> str:
    """Return text that a figure shows as it is."""
    return text.replace("&", "&amp;").replace("<", "&lt;")


def note(made: Any, text: str) -> Any:
    """Write a remark into the middle of a figure that has nothing to show; return the figure."""
    lines = "<br>".join(textwrap.wrap(text, LINE_LENGTH // 2))
    made.add_annotation(text=lines, x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False, font={"size": 14})
    made.update_xaxes(visible=False)
    made.update_yaxes(visible=False)
    return made


def counting_axis(values: Sequence[float]) -> dict[str, Any]:
    """Return the settings of an axis of epochs or steps: a short one has no labels between whole numbers."""
    return {"dtick": 1} if values and max(values) - min(values) <= FEW_STEPS else {}


def thinned(values: Sequence[float]) -> list[int]:
    """Return the indices of at most `MAX_POINTS` values, evenly spread, both ends kept."""
    if len(values) <= MAX_POINTS:
        return list(range(len(values)))
    return sorted({round(i * (len(values) - 1) / (MAX_POINTS - 1)) for i in range(MAX_POINTS)})


def finite(value: float | None) -> float | None:
    """Return `value` shortened to six figures, None for what a figure cannot show."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.6g}")


def marker(stage: str, kind: str, *, among: int = 0) -> dict[str, Any]:
    """Return how a trial of a stage is drawn: the colour tells the stage, the shape how it ended.

    Among many others it is small and translucent.
    """
    color, many = STAGE_COLORS.get(stage, OTHER_COLOR), among > MANY_MARKS
    return {
        "color": color,
        "symbol": SYMBOLS[kind],
        "size": (8 if kind == "short" else 10) / (2 if many else 1),
        "line": {"width": 2 if kind == "short" and not many else 1, "color": color},
        **({"opacity": 0.5} if many else {}),
    }
