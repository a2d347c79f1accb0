import optuna

from optuna_discipline import DisciplinedSampler
from optuna_discipline import Recipe
from optuna_discipline.range_test_record import RANGE_TEST_KEY
from optuna_discipline.visualization import terminal


def test_the_range_test_and_every_stage_have_a_line(study: optuna.Study) -> None:
    lines = list(terminal.decision_lines(study))
    assert lines[0].startswith("range test ")
    assert [line.split()[0] for line in lines[1:4]] == ["lr", "confirm", "replicate"]
    assert "; its best " in lines[1]


def test_the_best_configuration_is_named_with_its_cost(study: optuna.Study) -> None:
    head, params, cost = terminal.best_lines(study, study.best_trial)
    assert head.startswith(f"Best configuration (trial {study.best_trial.number}, validation loss ")
    assert "lr " in params
    assert "full trainings in 17 trials; an untuned default costs one training" in cost


def test_a_small_loss_is_told_from_0_and_from_the_next() -> None:
    study = optuna.create_study()
    study.add_trials([optuna.create_trial(value=value) for value in (1.23456e-6, 1.23457e-6)])
    assert next(terminal.best_lines(study, study.best_trial)).endswith("objective 1.23456e-06)")
    assert "loss 1.235e-06" in terminal.trial_line(study.trials[0])


def test_a_trial_that_failed_is_not_said_to_be_stopped() -> None:
    study = optuna.create_study()
    states = (optuna.trial.TrialState.FAIL, optuna.trial.TrialState.PRUNED)
    study.add_trials([optuna.create_trial(state=state) for state in states])
    failed, stopped = map(terminal.trial_line, study.trials)
    assert (failed.split()[-1], stopped.split()[-1]) == ("failed", "stopped")


def test_the_range_tests_part_of_the_cost_is_told() -> None:
    study = optuna.create_study()
    test = {"lrs": [0.1] * 20, "planned_steps": 5}
    study.add_trial(optuna.create_trial(value=1.0, system_attrs={RANGE_TEST_KEY: test}))
    *_, cost = terminal.best_lines(study, study.best_trial)
    assert "cost 5.0 full trainings in 1 trial, of which the range test 4.0; an" in cost


def test_any_study_has_lines(empty: optuna.Study, plain: optuna.Study) -> None:
    assert list(terminal.decision_lines(empty)) == []
    assert [line.split()[0] for line in terminal.decision_lines(plain)] == ["other", "<img"]


def test_a_trial_is_one_line_with_stage_numbers_and_reason() -> None:
    study = optuna.create_study(sampler=DisciplinedSampler(Recipe(short=0.25), seed=0))
    study.optimize(lambda t: t.suggest_float("lr", 1e-3, 1, log=True) + t.suggest_int("epochs", 1, 8), n_trials=1)
    line = terminal.trial_line(study.trials[0])
    assert line.startswith("  0 lr             2 epochs  lr 0.1")
    assert line.endswith("learning-rate ladder: where to start")
    assert "\n" not in line


def test_the_line_of_a_single_epoch_is_as_long_as_any() -> None:
    study = optuna.create_study()
    for epochs in (1, 2):
        study.add_trial(
            optuna.create_trial(
                value=1.0,
                params={"epochs": epochs},
                distributions={"epochs": optuna.distributions.IntDistribution(1, 2)},
            )
        )
    one, two = map(terminal.trial_line, study.trials)
    assert " 1 epoch   lr" in one
    assert one.index("lr ") == two.index("lr ")


def test_a_trial_of_another_sampler_is_a_line_too() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(lambda t: t.suggest_float("x", 0, 1), n_trials=1)
    assert "loss 0.5488" in terminal.trial_line(study.trials[0])
