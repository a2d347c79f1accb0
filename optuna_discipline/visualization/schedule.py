"""Plot a schedule: learning rate and momentum over the steps, planned or as a trial reported them."""

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from optuna.study import Study
from optuna.trial import FrozenTrial

from optuna_discipline import study_record
from optuna_discipline import trial_record
from optuna_discipline._imports import require
from optuna_discipline.lost_study import naming_a_lost_study
from optuna_discipline.parameters import roles_of
from optuna_discipline.rules.schedule import OneCycle
from optuna_discipline.rules.schedule import Triangular
from optuna_discipline.rules.space import Role
from optuna_discipline.visualization import marks
from optuna_discipline.visualization import stages
from optuna_discipline.visualization import style
from optuna_discipline.visualization.view import StudyView
from optuna_discipline.visualization.view import view_of

NO_RUN = (
    "There is no schedule to show: no run has ended at a number, or none has reported its learning rates by "
    "TrialReporter, or by report_epoch with lr=."
)
# No trial says how many updates an epoch has: from so many on, more would not be seen.
STEPS_AN_EPOCH = 100
# Rates this far from those of a cycle, in largest rates, are still its own: an epoch of few updates ends elsewhere.
SLACK = 0.05


@dataclass(frozen=True)
class SchedulePlot:
    """What the plot shows.

    Attributes:
        name: Whose schedule it is.
        unit: What `steps` count.
        steps: Optimizer steps, or epochs.
        lr: Learning rate at each, None where it was not reported.
        momentum: Likewise; of a trial, which does not report it, what `OneCycle` has where the study's sampler was told
            that it cycles and the learning rates are those of `OneCycle`, else empty.
        max_momentum: The trial's momentum, None for a schedule.
    """

    name: str
    unit: str
    steps: tuple[int, ...]
    lr: tuple[float | None, ...]
    momentum: tuple[float, ...] = ()
    max_momentum: float | None = None


Source = OneCycle | Triangular | FrozenTrial | Study


def plot_schedule(schedule: Source) -> Any:
    """Plot learning rate (left) and momentum (right) over the steps as a plotly figure.

    Args:
        schedule: A schedule; or a trial, or a study for its best one: then the learning rates that it reported.

    Raises:
        TypeError: If `schedule` is none of these.
        UnsupportedStudyError: If it is a study of several objectives.
        MissingExtraError: If plotly is absent.
        DisciplineError: If the study was deleted or renamed.
    """
    with naming_a_lost_study(schedule):
        return draw(collect(schedule))


def collect(schedule: Source | StudyView) -> SchedulePlot | None:
    """Return a schedule at a few hundred steps, the corners of the (first ten) cycles among them; None without one."""
    if isinstance(schedule, Study | StudyView):
        view = view_of(schedule)
        recipe = study_record.read_settings(view.study).get("recipe")
        cycles = isinstance(recipe, Mapping) and bool(recipe.get("cyclical_momentum"))
        return None if view.best is None else _of_trial(view.best, view.told, cycles=cycles)
    if isinstance(schedule, FrozenTrial):
        return _of_trial(schedule, {}, cycles=False)
    if not isinstance(schedule, OneCycle | Triangular):
        raise TypeError(
            f"`schedule` must be a OneCycle, a Triangular, a trial or a study, "
            f"but got {type(schedule).__name__}: {schedule!r}."
        )
    corners = {round(k * schedule.half) for k in range(1, 3 if isinstance(schedule, OneCycle) else 21)}
    steps = sorted({*style.thinned(range(schedule.total_steps)), *corners} & set(range(schedule.total_steps)))
    return SchedulePlot(
        "1cycle" if isinstance(schedule, OneCycle) else "triangular",
        "optimizer step",
        tuple(steps),
        tuple(float(f"{schedule.lr(step):.6g}") for step in steps),
        tuple(float(f"{schedule.momentum(step):.6g}") for step in steps),
    )


def draw(plot: SchedulePlot | None) -> Any:
    """Draw what `collect` returned."""
    made = style.figure("Schedule", x="epoch", y="learning rate")
    if plot is None:
        return style.note(made, NO_RUN)
    go = require("plotly.graph_objects", extra="plots")
    made.update_xaxes(title=plot.unit, **style.counting_axis(plot.steps))
    made.update_yaxes(**_around_constant(plot.lr))
    line = {"color": style.TRAIN_COLOR}
    mode = "lines" if plot.max_momentum is None and plot.momentum else "lines+markers"
    made.add_trace(go.Scatter(x=plot.steps, y=plot.lr, name="learning rate", line=line, mode=mode, connectgaps=True))
    if plot.momentum:
        dashed = {"color": style.VAL_COLOR, "dash": "dash"}
        made.add_trace(go.Scatter(x=plot.steps, y=plot.momentum, name="momentum", yaxis="y2", line=dashed, mode=mode))
        # An axis over another has its ticks where the other has them, which are no round numbers, but for "auto".
        right = {"title": "momentum", "overlaying": "y", "side": "right", "showgrid": False, "tickmode": "auto"}
        made.update_layout(yaxis2={**right, **_around_constant(plot.momentum, top=1.0)})
        style.axes(made)
        if plot.max_momentum is None:
            return style.titled(made, f"{plot.name} schedule")
    remark = "the learning rate at the end of each epoch, as the trial reported it"
    if plot.max_momentum is not None:
        cycles = " at most, drawn as OneCycle has it" if plot.momentum else ", its largest where it cycles"
        remark += f"; momentum {marks.show(plot.max_momentum)}{cycles}"
    return style.titled(made, f"Schedule of {plot.name}", remark)


def _around_constant(values: Sequence[float | None], *, top: float | None = None) -> dict[str, Any]:
    """Return an axis from 0 for a number that never changes: plotly's own would reach 1 below and above it."""
    known = {value for value in values if value is not None}
    return {"range": [0.0, top or 2 * known.pop() or 1.0]} if len(known) == 1 else {}


def _of_trial(trial: FrozenTrial, told: Mapping[str, Role | None], *, cycles: bool) -> SchedulePlot | None:
    curve = trial_record.read_curve(trial)
    logs = [] if curve is None else [curve.logs[i] for i in style.thinned(range(len(curve)))]
    lr = tuple(style.finite(log.lr) for log in logs)
    if curve is None or all(rate is None for rate in lr):
        return None
    roles = roles_of(trial.distributions, told)
    max_lr, momentum = (stages.value_of(trial, role, roles) for role in ("lr", "momentum"))
    epochs = tuple(log.epoch for log in logs)
    momenta: tuple[float, ...] = ()
    if cycles and max_lr is not None and momentum is not None:
        momenta = _momenta(float(max_lr), float(momentum), curve.n_epochs * STEPS_AN_EPOCH, epochs, lr)
    most = None if momentum is None else float(momentum)
    return SchedulePlot(f"trial {trial.number}", "epoch", epochs, lr, momenta, max_momentum=most)


def _momenta(
    max_lr: float, momentum: float, total_steps: int, epochs: Sequence[int], rates: Sequence[float | None]
) -> tuple[float, ...]:
    """Return the momentum that `OneCycle` has at the end of each epoch; none where the rates are not its own."""
    try:
        cycle = OneCycle(max_lr, total_steps, max_momentum=momentum)
    except ValueError:  # a rate of 0, a momentum of 1
        return ()
    steps = [min((epoch + 1) * STEPS_AN_EPOCH - 1, total_steps) for epoch in epochs]
    off = (abs(cycle.lr(step) - rate) for step, rate in zip(steps, rates, strict=True) if rate is not None)
    return tuple(float(f"{cycle.momentum(step):.6g}") for step in steps) if max(off) <= SLACK * max_lr else ()
