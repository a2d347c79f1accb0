import math

import optuna
import pytest

from optuna_discipline import EpochLog
from optuna_discipline import LossCurve
from optuna_discipline import diagnose
from optuna_discipline import plot_loss_curve
from optuna_discipline import report_epoch
from optuna_discipline.trial_record import read_curve
from optuna_discipline.visualization import loss_curve


def test_a_trial_shows_its_losses_gap_and_verdict(study: optuna.Study) -> None:
    trial = next(t for t in study.trials if t.params["epochs"] == 8 and t.value is not None)
    (plot,) = loss_curve.collect(trial)
    assert plot.epochs == tuple(range(8))
    assert plot.gap == pytest.approx([0.1] * 8, abs=1e-5)
    assert plot.verdict == str(diagnose(read_curve(trial)).verdict)  # type: ignore[arg-type]
    assert [trace.name for trace in plot_loss_curve(trial).data] == ["training", "validation", "gap"]


def test_broken_numbers_leave_gaps_in_the_line() -> None:
    logs = (EpochLog(0, 0.1, 1.0, 1.0), EpochLog(1, 0.1, math.nan, math.inf))
    (plot,) = loss_curve.collect(LossCurve(logs, n_epochs=4))
    assert plot.train_loss == (1.0, None)
    assert plot.verdict == "diverged"


def test_several_runs_are_told_apart_and_trials_without_epochs_left_out(study: optuna.Study) -> None:
    bare = optuna.create_study()
    bare.optimize(lambda t: t.suggest_float("x", 0, 1), n_trials=1)
    curve = LossCurve((EpochLog(0, 0.1, 1.0, 1.0),), n_epochs=1)
    plots = loss_curve.collect([study.trials[0], curve, bare.trials[0]])
    assert [plot.name for plot in plots] == ["trial 0", "run 1"]


def test_a_dozen_runs_all_look_different() -> None:
    curve = LossCurve(tuple(EpochLog(i, 0.1, 1 / (i + 1), 1.1 / (i + 1)) for i in range(4)), n_epochs=4)
    traces = plot_loss_curve([curve] * 12).data
    assert len({(t.yaxis, t.line.color, t.line.dash, t.marker.symbol) for t in traces}) == len(traces) == 36


def test_plain_reports_are_shown_as_the_objective_by_step() -> None:
    study = optuna.create_study()
    trial = study.ask()
    for step in (0, 10, 20):
        trial.report(math.nan if step == 10 else 1.0 / (step + 1), step)
    study.tell(trial, 0.1)
    figure = plot_loss_curve(study)
    (line,) = figure.data
    assert (line.name, line.x, line.y) == ("objective", (0, 10, 20), (1.0, None, 0.047619))
    assert figure.layout.title.text == "Reports of trial 0"
    assert (figure.layout.xaxis.title.text, figure.layout.yaxis.title.text) == ("step", "objective")


def test_two_epochs_have_no_label_between_them() -> None:
    curve = LossCurve((EpochLog(0, 0.1, 2.0, 2.1), EpochLog(1, 0.1, 1.0, 1.2)), n_epochs=2)
    assert plot_loss_curve(curve).layout.xaxis.dtick == 1


def test_the_powers_of_a_loss_that_exploded_do_not_overlap() -> None:
    curve = LossCurve(tuple(EpochLog(i, 0.1, 10.0**i, None) for i in range(0, 41, 4)), n_epochs=41)
    assert plot_loss_curve(curve).layout.yaxis.dtick >= 5


def test_a_run_without_a_number_has_a_remark_in_place_of_empty_axes() -> None:
    curve = LossCurve((EpochLog(0, 0.1, math.nan, math.inf), EpochLog(1, 0.1, math.nan, math.nan)), n_epochs=4)
    figure = plot_loss_curve(curve)
    assert figure.layout.annotations[0].text.replace("<br>", " ") == loss_curve.NO_NUMBER
    assert not figure.data


def test_nothing_to_show_is_said_and_something_else_refused() -> None:
    assert "There is no run to show: none has ended at a number, or" in plot_loss_curve([]).layout.annotations[
        0
    ].text.replace("<br>", " ")
    with pytest.raises(TypeError, match="`source` must hold LossCurves or trials, or be a study"):
        plot_loss_curve("curve")  # type: ignore[arg-type]


@pytest.mark.parametrize(("train", "val"), [(None, 1.0), (1.0, None), (1.0, float("nan"))])
def test_a_curve_of_one_loss_has_a_picture_without_a_gap(train: float | None, val: float | None) -> None:
    curve = LossCurve(tuple(EpochLog(i, 0.1, train, val) for i in range(6)), n_epochs=6)
    assert len(plot_loss_curve(curve).data) == 1


@pytest.mark.parametrize("train", [None, 1.0])
def test_values_reported_without_a_validation_loss_are_drawn_and_no_run_is_called_short(train: float | None) -> None:
    study = optuna.create_study(direction="maximize")
    trial = study.ask()
    for epoch in range(8):
        report_epoch(trial, epoch, value=0.1 * epoch, train_loss=train, n_epochs=8)
    study.tell(trial, 0.7)
    figure = plot_loss_curve(study)
    assert [trace.name for trace in figure.data] == (["training"] if train else []) + ["value"]
    assert list(figure.data[-1].y) == pytest.approx([0.1 * epoch for epoch in range(8)])
    assert figure.layout.meta["title"] == "Loss curve of trial 0: no validation loss to read"
    assert "Report `val_loss`" in figure.layout.meta["remarks"]
