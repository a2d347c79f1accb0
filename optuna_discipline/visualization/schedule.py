"""Plot a schedule: learning rate and momentum over the optimizer steps."""

from dataclasses import dataclass
from typing import Any

from optuna_discipline._imports import require
from optuna_discipline.rules.schedule import OneCycle
from optuna_discipline.rules.schedule import Triangular
from optuna_discipline.visualization import style


@dataclass(frozen=True)
class SchedulePlot:
    """What the plot shows: `lr` and `momentum` at `steps`, under the schedule's name."""

    name: str
    steps: tuple[int, ...]
    lr: tuple[float, ...]
    momentum: tuple[float, ...]


def plot_schedule(schedule: OneCycle | Triangular) -> Any:
    """Plot learning rate (left) and momentum (right) over the steps as a plotly figure.

    Raises:
        TypeError: If `schedule` is neither a `OneCycle` nor a `Triangular`.
        MissingExtraError: If plotly is absent.
    """
    return draw(collect(schedule))


def collect(schedule: OneCycle | Triangular) -> SchedulePlot:
    """Return the schedule at a few hundred steps, the corners of the (first ten) cycles among them."""
    if not isinstance(schedule, (OneCycle, Triangular)):
        raise TypeError(
            f"`schedule` must be a OneCycle or a Triangular, but got {type(schedule).__name__}: {schedule!r}."
        )
    corners = {round(k * schedule.half) for k in range(1, 3 if isinstance(schedule, OneCycle) else 21)}
    steps = sorted({*style.thinned(range(schedule.total_steps)), *corners} & set(range(schedule.total_steps)))
    return SchedulePlot(
        "1cycle" if isinstance(schedule, OneCycle) else "triangular",
        tuple(steps),
        tuple(float(f"{schedule.lr(step):.6g}") for step in steps),
        tuple(float(f"{schedule.momentum(step):.6g}") for step in steps),
    )


def draw(plot: SchedulePlot) -> Any:
    """Draw what `collect` returned."""
    go = require("plotly.graph_objects", extra="plots")
    made = style.figure(f"{plot.name} schedule", x="optimizer step", y="learning rate")
    made.add_trace(go.Scatter(x=plot.steps, y=plot.lr, name="learning rate", line={"color": style.TRAIN_COLOR}))
    made.add_trace(
        go.Scatter(
            x=plot.steps, y=plot.momentum, name="momentum", yaxis="y2", line={"color": style.VAL_COLOR, "dash": "dash"}
        )
    )
    made.update_layout(
        yaxis2={"title": "momentum", "overlaying": "y", "side": "right", "showgrid": False, "linecolor": style.INK}
    )
    return made
