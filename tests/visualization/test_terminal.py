import optuna

from optuna_discipline.visualization import terminal


def test_the_range_test_and_every_stage_have_a_line(study: optuna.Study) -> None:
    lines = list(terminal.decision_lines(study))
    assert lines[0].startswith("range test ")
    assert [line.split()[0] for line in lines[1:4]] == ["lr", "confirm", "replicate"]
    assert "best" in lines[1]


def test_the_best_configuration_is_named_with_its_cost(study: optuna.Study) -> None:
    head, params, cost = terminal.best_lines(study, study.best_trial)
    assert head.startswith(f"Best configuration (trial {study.best_trial.number}, validation loss ")
    assert "lr " in params
    assert "full trainings in 17 trials; an untuned default costs one training" in cost


def test_any_study_has_lines(empty: optuna.Study, plain: optuna.Study) -> None:
    assert list(terminal.decision_lines(empty)) == []
    assert [line.split()[0] for line in terminal.decision_lines(plain)] == ["other", "<img"]
