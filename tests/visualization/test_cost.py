import optuna
import pytest

from optuna_discipline import plot_cost
from optuna_discipline.costs import cost_in_full_trainings
from optuna_discipline.visualization import cost


def test_every_trial_stands_at_its_cost_and_the_best_so_far_only_falls(study: optuna.Study) -> None:
    plot = cost.collect(study)
    assert [point.number for point in plot.points] == [t.number for t in study.trials]
    costs = [point.cost for point in plot.points]
    assert costs == sorted(costs)
    assert plot.incumbent[-1][0] == pytest.approx(cost_in_full_trainings(study), rel=1e-3)
    values = [value for _, value in plot.incumbent]
    assert values == sorted(values, reverse=True)
    assert (values[-1], plot.best) == (pytest.approx(study.best_value, rel=1e-5), study.best_trial.number)
    assert {point.kind for point in plot.points} == {"short", "full", "stopped"}
    assert {"lr", "confirm", "momentum", "refine"} <= {point.stage for point in plot.points}
    assert any(point.chosen for point in plot.points)
    assert plot.metric == "validation loss"


def test_a_maximised_objective_rises() -> None:
    study = optuna.create_study(direction="maximize")
    values = iter([0.5, 0.4, 0.9])
    study.optimize(lambda t: next(values) + 0 * t.suggest_float("lr", 0, 1), n_trials=3)
    assert [value for _, value in cost.collect(study).incumbent] == [0.5, 0.9, 0.9]


def test_what_breaks_a_constraint_is_no_best_so_far() -> None:
    study = optuna.create_study()
    for value, excess in ((0.3, 1.0), (0.5, 0.0), (0.1, 1.0), (0.4, -1.0)):
        study.add_trial(optuna.create_trial(value=value, system_attrs={"constraints": [excess]}))
    plot = cost.collect(study)
    assert ([value for _, value in plot.incumbent], plot.best) == ([0.5, 0.4, 0.4], 3)
    assert len(plot.points) == 4


def test_a_few_huge_values_stand_at_the_top_and_it_is_said() -> None:
    study = optuna.create_study()
    values = iter([0.1, 0.2, 0.15, 0.12, 1e9])
    study.optimize(lambda t: t.suggest_float("lr", 0, 1) * 0 + next(values), n_trials=5)
    figure = plot_cost(study)
    assert max(y for trace in figure.data for y in trace.y) < 1
    assert "stand at" in figure.layout.title.text


def test_many_trials_do_not_hide_the_best_so_far() -> None:
    study = optuna.create_study()
    study.add_trials([optuna.create_trial(value=1 / (i + 3)) for i in range(200)])
    names = [trace.name for trace in plot_cost(study).data]
    assert names.index("best so far") == names.index("other") + 1
    assert plot_cost(study).data[0].marker.opacity < 1


def test_any_study_is_shown(empty: optuna.Study, plain: optuna.Study) -> None:
    assert "No trial has ended" in plot_cost(empty).layout.annotations[0].text.replace("<br>", " ")
    plot = cost.collect(plain)
    assert (len(plot.points), plot.left_out) == (4, 2)
    assert "<img" not in plot_cost(plain).to_json()
    with pytest.raises(TypeError, match="`study` must be a Study"):
        plot_cost(3)  # type: ignore[arg-type]


def test_trials_that_ended_without_a_number_have_ended(empty: optuna.Study) -> None:
    empty.tell(empty.ask(), state=optuna.trial.TrialState.FAIL)
    for _ in range(2):
        assert plot_cost(empty).layout.annotations[0].text.replace("<br>", " ") == "No trial has ended at a number."
        empty.add_trial(optuna.create_trial(value=float("inf")))


def test_a_thousand_trials_fit_on_the_dashboard() -> None:
    study = optuna.create_study()
    distributions = {"lr": optuna.distributions.FloatDistribution(0, 1)}
    study.add_trials(
        [optuna.create_trial(params={"lr": 0.5}, distributions=distributions, value=1 / (i + 3)) for i in range(1000)]
    )
    figure = plot_cost(study)
    assert len(figure.to_json()) < 30_000
    assert sum(len(trace.x) for trace in figure.data) <= 1000
    assert "400 trials not shown" in figure.layout.title.text


@pytest.mark.parametrize("n_trials", [cost.HOVER_TRIALS, cost.HOVER_TRIALS + 1])
def test_long_parameters_do_not_make_it_heavy(n_trials: int) -> None:
    study = optuna.create_study()
    distributions = {f"a rather long name {i}": optuna.distributions.FloatDistribution(0, 1) for i in range(20)}
    params = dict.fromkeys(distributions, 1 / 3)
    study.add_trials([optuna.create_trial(params=params, distributions=distributions, value=1 / 3)] * n_trials)
    assert len(plot_cost(study).to_json()) < 30_000
