"""Plot a schedule: learning rate and momentum over the optimizer steps."""

from dataclasses import dataclass
from typing import Any

from optuna_discipline._imports import require
from optuna_discipline.rules.arguments import check_type
from optuna_discipline.rules.schedule import OneCycle
from optuna_discipline.visualization import style


@dataclass(frozen=True)
class SchedulePlot:
    """What the plot shows: `lr` and `momentum` at `steps`."""

    steps: tuple[int, ...]
    lr: tuple[float, ...]
    momentum: tuple[float, ...]


def plot_schedule(schedule: OneCycle) -> Any:
    """Plot learning rate (left) and momentum (right) over the steps as a plotly figure.

    Raises:
        TypeError: If `schedule` is no `OneCycle`.
        MissingExtraError: If plotly is absent.
    """
    return draw(collect(schedule))


def collect(schedule: OneCycle) -> SchedulePlot:
    """Return the schedule at a few hundred steps, the corners of the cycle among them."""
    check_type("schedule", schedule, OneCycle)
    corners = {round(schedule.half), round(2 * schedule.half)}
    steps = sorted({*style.thinned(range(schedule.total_steps)), *corners} & set(range(schedule.total_steps)))
    return SchedulePlot(
        tuple(steps),
        tuple(float(f"{schedule.lr(step):.6g}") for step in steps),
        tuple(float(f"{schedule.momentum(step):.6g}") for step in steps),
    )


def draw(plot: SchedulePlot) -> Any:
    """Draw what `collect` returned."""
    go = require("plotly.graph_objects", extra="plots")
    made = style.figure("1cycle schedule", x="optimizer step", y="learning rate")
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
