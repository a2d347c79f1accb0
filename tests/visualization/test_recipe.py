import optuna
import pytest

from optuna_discipline import DisciplinedSampler
from optuna_discipline import Recipe
from optuna_discipline import plot_recipe
from optuna_discipline.visualization import recipe


def test_every_ended_trial_stands_by_stage_and_the_best_one_is_known(study: optuna.Study) -> None:
    plot = recipe.collect(study)
    assert {"lr", "confirm", "momentum", "refine"} <= {point.stage for point in plot.points}
    assert plot.best == study.best_trial.number
    assert len({point.kind for point in plot.points}) >= 2
    assert plot.metric == "validation loss"
    assert {p.stage for p in plot.points if p.chosen} >= {"lr"}


def test_short_cycles_are_not_shown_as_full_trainings() -> None:
    study = optuna.create_study(sampler=DisciplinedSampler(Recipe(short=0.25), seed=0))
    study.optimize(lambda t: t.suggest_float("lr", 1e-3, 1, log=True) + t.suggest_int("epochs", 1, 8), n_trials=2)
    plot = recipe.collect(study)
    assert {point.kind for point in plot.points} == {"short"}


def test_a_few_huge_values_stand_at_the_top_and_it_is_said() -> None:
    study = optuna.create_study()
    values = iter([0.1, 0.2, 0.15, 0.12, 1e9])
    study.optimize(lambda t: t.suggest_float("lr", 0, 1) * 0 + next(values), n_trials=5)
    plot = recipe.collect(study)
    assert plot.ceiling is not None
    assert plot.ceiling < 1
    figure = plot_recipe(study)
    assert max(figure.data[0].y) == plot.ceiling
    assert "stand at the top" in figure.layout.title.text


def test_any_study_is_shown(empty: optuna.Study, plain: optuna.Study) -> None:
    assert "No trial has ended" in plot_recipe(empty).layout.annotations[0].text.replace("<br>", " ")
    plot = recipe.collect(plain)
    assert (len(plot.points), plot.left_out) == (4, 2)
    assert "<img" not in plot_recipe(plain).to_json()
    with pytest.raises(TypeError, match="`study` must be a Study"):
        plot_recipe(3)  # type: ignore[arg-type]


def test_a_thousand_trials_fit_on_the_dashboard() -> None:
    study = optuna.create_study()
    distributions = {"lr": optuna.distributions.FloatDistribution(0, 1)}
    study.add_trials(
        [optuna.create_trial(params={"lr": 0.5}, distributions=distributions, value=i / 1000) for i in range(1000)]
    )
    figure = plot_recipe(study)
    assert len(figure.to_json()) < 30_000
    assert sum(len(trace.x) for trace in figure.data) <= 1000
    assert "100 trials not shown" in figure.layout.title.text


@pytest.mark.parametrize("n_trials", [recipe.HOVER_TRIALS, recipe.HOVER_TRIALS + 1])
def test_long_parameters_do_not_make_it_heavy(n_trials: int) -> None:
    study = optuna.create_study()
    distributions = {f"a rather long name {i}": optuna.distributions.FloatDistribution(0, 1) for i in range(20)}
    params = dict.fromkeys(distributions, 1 / 3)
    study.add_trials([optuna.create_trial(params=params, distributions=distributions, value=1 / 3)] * n_trials)
    assert len(plot_recipe(study).to_json()) < 30_000
