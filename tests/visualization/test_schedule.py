import optuna
import pytest

from optuna_discipline import DisciplinedSampler
from optuna_discipline import OneCycle
from optuna_discipline import Recipe
from optuna_discipline import Triangular
from optuna_discipline import plot_schedule
from optuna_discipline import report_epoch
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
    with pytest.raises(TypeError, match="`schedule` must be a OneCycle, a Triangular, a trial or a study"):
        plot_schedule(0.1)  # type: ignore[arg-type]


def test_what_never_changes_stands_on_an_axis_from_zero(study: optuna.Study) -> None:
    trial = plot_schedule(study)
    assert trial.layout.yaxis.range == pytest.approx((0, 2 * trial.data[0].y[0]))
    held = plot_schedule(OneCycle(1.0, 50, max_momentum=0.9, base_momentum=0.9))
    assert (held.layout.yaxis.range, held.layout.yaxis2.range) == (None, (0, 1))


def test_both_axes_make_room_for_their_titles() -> None:
    layout = plot_schedule(OneCycle(1.0, 50)).layout
    assert layout.yaxis.automargin
    assert layout.yaxis2.automargin
    assert not layout.yaxis2.showgrid
    assert layout.yaxis2.tickmode == "auto"  # not "sync", which labels it where the other axis has its ticks


def test_a_trial_shows_the_learning_rates_that_it_reported_and_a_study_those_of_its_best(
    study: optuna.Study, empty: optuna.Study
) -> None:
    plot = schedule.collect(study)
    best = study.best_trial
    assert plot is not None
    assert (plot.name, plot.unit, plot.steps) == (f"trial {best.number}", "epoch", tuple(range(8)))
    assert plot.lr == pytest.approx([best.params["lr"]] * 8, rel=1e-5)
    assert plot.max_momentum == best.params["momentum"]
    assert plot_schedule(study).data[0].name == "learning rate"
    said = schedule.style.caption(plot_schedule(study)).replace("<br>", " ")
    assert said.endswith(f"; momentum {schedule.marks.show(plot.max_momentum)}, its largest where it cycles.")
    assert schedule.collect(empty) is schedule.collect(optuna.create_trial(value=1.0)) is None
    assert "no run has ended at a number, or none has reported its learning rates" in plot_schedule(
        empty
    ).layout.annotations[0].text.replace("<br>", " ")


@pytest.mark.parametrize("cycles", [True, False, None])
def test_the_momentum_is_drawn_where_the_study_says_that_it_cycles(cycles: bool | None) -> None:
    study = optuna.create_study(sampler=DisciplinedSampler(Recipe(cyclical_momentum=cycles), seed=0))
    trial = study.ask()
    top, momentum = trial.suggest_float("lr", 1e-3, 1, log=True), trial.suggest_float("momentum", 0.8, 0.99)
    cycle = OneCycle(top, 20 * 50, max_momentum=momentum)
    ends = [(epoch + 1) * 50 - 1 for epoch in range(20)]
    for epoch, step in enumerate(ends):
        report_epoch(trial, epoch, val_loss=1.0, lr=cycle.lr(step), n_epochs=20)
    study.tell(trial, 1.0)
    figure = plot_schedule(study)
    said = "at most, drawn as OneCycle has it." if cycles else ", its largest where it cycles."
    assert schedule.style.caption(figure).endswith(said)
    drawn = [list(trace.y) for trace in figure.data if trace.name == "momentum"]
    assert drawn == ([pytest.approx([cycle.momentum(step) for step in ends], abs=1e-3)] if cycles else [])


@pytest.mark.parametrize(
    ("top", "momentum", "rates"),
    [
        (0.1, 1.0, [0.1] * 5),  # no `OneCycle` has this one, nor the next
        (0.0, 0.9, [0.0] * 5),
        (0.1, 0.9, [0.1] * 5),
        (0.1, 0.9, [0.076, 0.095, 0.061, 0.019, 0.0]),  # torch's OneCycleLR: the peak at 30 %, along a cosine
    ],
)
def test_no_momentum_is_drawn_where_the_rates_are_not_those_of_a_cycle(
    top: float, momentum: float, rates: list[float]
) -> None:
    study = optuna.create_study(sampler=DisciplinedSampler(Recipe(cyclical_momentum=True), seed=0))
    study.enqueue_trial({"lr": top, "momentum": momentum})
    trial = study.ask()
    assert (trial.suggest_float("lr", 0, 1), trial.suggest_float("momentum", 0.8, 1)) == (top, momentum)
    for epoch, lr in enumerate(rates):
        report_epoch(trial, epoch, val_loss=1.0, lr=lr, n_epochs=5)
    study.tell(trial, 1.0)
    figure = plot_schedule(study)
    assert [trace.name for trace in figure.data] == ["learning rate"]
    assert schedule.style.caption(figure).endswith(", its largest where it cycles.")


def test_a_studys_momentum_is_known_by_the_name_that_its_sampler_was_told() -> None:
    study = optuna.create_study(sampler=DisciplinedSampler(roles={"inertia": "momentum"}, seed=0))
    trial = study.ask()
    inertia = trial.suggest_float("inertia", 0.8, 0.99)
    report_epoch(trial, 0, val_loss=1.0, lr=0.1, n_epochs=1)
    study.tell(trial, 1.0)
    assert schedule.collect(study).max_momentum == inertia
    assert schedule.collect(study.trials[0]).max_momentum is None  # a trial alone does not say so
