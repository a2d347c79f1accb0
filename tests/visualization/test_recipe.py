import optuna
import pytest

from optuna_discipline import plot_recipe
from optuna_discipline.visualization import recipe


def test_every_ended_trial_stands_by_stage_and_the_best_one_is_known(study: optuna.Study) -> None:
    plot = recipe.collect(study)
    assert {"lr", "confirm", "momentum", "refine"} <= {point.stage for point in plot.points}
    assert plot.best == study.best_trial.number
    assert len({point.full for point in plot.points}) == 2


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
    assert "No trial has ended" in plot_recipe(empty).layout.annotations[0].text
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
    assert len(plot_recipe(study).to_json()) < 60_000
