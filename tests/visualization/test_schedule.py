import pytest

from optuna_discipline import OneCycle
from optuna_discipline import Triangular
from optuna_discipline import plot_schedule
from optuna_discipline.visualization import schedule


def test_a_long_schedule_keeps_its_corners() -> None:
    cycle = OneCycle(1.0, 100_000)
    plot = schedule.collect(cycle)
    assert len(plot.steps) < 400
    assert max(plot.lr) == 1.0
    assert min(plot.momentum) == 0.85


def test_every_corner_of_a_triangular_schedule_is_shown_under_its_name() -> None:
    plot = schedule.collect(Triangular(1.0, 100_000, base_lr=0.25, step_size=12_345))
    assert {12_345, 24_690, 37_035} <= set(plot.steps)
    assert (max(plot.lr), min(plot.lr)) == (1.0, 0.25)
    assert schedule.draw(plot).layout.title.text == "triangular schedule"


@pytest.mark.parametrize("total", [1, 2, 7])
def test_short_schedules_are_shown_whole(total: int) -> None:
    assert schedule.collect(OneCycle(1.0, total)).steps == tuple(range(total))


def test_learning_rate_and_momentum_have_axes_of_their_own() -> None:
    figure = plot_schedule(OneCycle(1.0, 50))
    assert [trace.yaxis for trace in figure.data] == [None, "y2"]
    with pytest.raises(TypeError, match="`schedule` must be a OneCycle"):
        plot_schedule(0.1)  # type: ignore[arg-type]
