import math

import numpy as np
import optuna
import pytest

from optuna_discipline import RangeTest
from optuna_discipline import plot_range_test
from optuna_discipline.visualization import range_test
from optuna_discipline.visualization import style


def test_the_plot_holds_curve_smoothing_and_choice(study: optuna.Study) -> None:
    plot = range_test.collect(study)
    assert plot is not None
    assert len(plot.lrs) == len(plot.raw) == len(plot.smooth) == 50
    assert plot.kind == "training"
    figure = plot_range_test(study)
    assert plot.choice.max_lr is not None
    labels = [a for a in figure.layout.annotations if "max_lr" in a.text]
    assert labels[0].x == pytest.approx(math.log10(plot.choice.max_lr))
    remarks = figure.layout.title.text.count("<br>")
    assert figure.layout.margin.t == 45 + (remarks + 1) * style.SMALL_LINE  # the label has a line of its own


def test_the_validation_loss_is_shown_where_there_is_one() -> None:
    val = np.full(40, np.nan)
    val[::4] = 1.0
    plot = range_test.collect(RangeTest(np.geomspace(1e-3, 1, 40), np.full(40, np.nan), val, "end of range"))
    assert plot is not None
    assert (plot.kind, len(plot.lrs)) == ("validation", 10)


def test_every_measured_loss_below_the_start_lies_on_the_picture() -> None:
    losses = np.concatenate([np.linspace(2.3, 1.0, 30), [0.2], np.linspace(1.1, 40.0, 9)])
    figure = plot_range_test(RangeTest(np.geomspace(1e-3, 1, 40), losses, None, "end of range", 2.3))
    low, high = figure.layout.yaxis.range
    assert low < 0.2
    assert 2.3 < high < 10


def test_the_smoothed_line_is_the_one_that_the_reason_speaks_of() -> None:
    losses = np.linspace(2.0, 0.5, 20)
    plot = range_test.collect(RangeTest(np.geomspace(1e-3, 1, 20), losses, losses, "end of range", 2.3))
    assert plot is not None
    assert plot.smooth[0] == 2.0


def test_a_validation_loss_that_a_batch_without_a_number_ended_is_drawn_to_there() -> None:
    losses, val = np.linspace(2.0, 0.5, 20), np.where(np.arange(20) % 4 == 3, 1.0, np.nan)
    losses[18:], val[18:] = np.nan, np.nan
    plot = range_test.collect(RangeTest(np.geomspace(1e-3, 1, 20)[:19], losses[:19], val[:19], "non-finite loss", 2.3))
    assert plot is not None
    assert len(plot.lrs) == len(plot.raw) == len(plot.smooth) == 5
    assert (plot.lrs[-1], plot.raw[-1], plot.smooth[-1]) == (pytest.approx(10 ** (-3 / 19), rel=1e-3), None, None)


@pytest.mark.parametrize("stop_reason", ["diverged", "non-finite loss", "no more data", "end of range"])
def test_an_empty_test_is_drawn_with_its_cure(stop_reason: str) -> None:
    figure = plot_range_test(RangeTest([], [], [], stop_reason))
    assert figure.layout.title.text.startswith("LR range test: TOO_FEW_POINTS")
    assert "No loss of the" in figure.layout.annotations[0].text


def test_a_study_without_a_range_test_says_so(empty: optuna.Study) -> None:
    assert range_test.collect(empty) is None
    assert "no LR range test" in plot_range_test(empty).layout.annotations[0].text.replace("<br>", " ")


def test_something_else_is_refused() -> None:
    with pytest.raises(TypeError, match="`source` must be a RangeTest or a study"):
        plot_range_test([1, 2])  # type: ignore[arg-type]
