import optuna
import pytest

from optuna_discipline import DisciplinedSampler
from optuna_discipline.trial_record import CLAIM_KEY
from optuna_discipline.visualization import story


def test_short_cycles_are_spoken_of_only_where_there_are_some(study: optuna.Study, plain: optuna.Study) -> None:
    assert any("Short cycles" in entry for entry in story.collect(study).how_to_read)
    assert len(story.collect(plain).how_to_read) == 1


def test_what_each_recipe_does_in_its_stages_is_said_and_nothing_else(study: optuna.Study) -> None:
    compared = " ".join(story.collect(study).how_to_read)
    assert "The stage learning rate moves learning rates only" in compared
    assert "Values of momentum are compared, all else held but the learning rate" in compared
    assert "A model of all runs" not in compared
    usual = optuna.create_study(sampler=DisciplinedSampler(seed=0))
    usual.optimize(
        lambda t: abs(t.suggest_float("lr", 1e-4, 1, log=True) - 0.1) + t.suggest_float("weight_decay", 1e-6, 1e-2),
        n_trials=5,
    )
    assert "weight_decay" in {trial.user_attrs["stage"] for trial in usual.trials}
    chosen = " ".join(story.collect(usual).how_to_read)
    assert "A model of all runs chooses a value of weight decay, and a learning rate to suit it" in chosen
    assert "noise" not in chosen
    assert "anew" not in compared + chosen
    purposes = [{row.stage: row.purpose for row in story.collect(told).stages} for told in (study, usual)]
    assert purposes[0]["momentum"] == "compare momenta"
    assert purposes[1]["weight_decay"] == "try a weight decay that a model chose"


def test_plain_reports_are_what_the_cost_is_counted_by() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    assert "one a trial, as no complete trial says" in story.collect(study).how_to_read[0]
    for reports in (20, 2):
        trial = study.ask()
        for step in range(reports):
            trial.report(1.0, step)
        study.tell(trial, *((1.0,) if reports == 20 else (None, optuna.trial.TrialState.PRUNED)))
    told = story.collect(study)
    assert "by the longest complete trial (20 steps up to its last report)" in told.how_to_read[0]
    assert told.cost == pytest.approx(1.1)


def test_a_ladder_that_began_anew_says_from_where() -> None:
    study = optuna.create_study()
    for stage, claim in (
        ("lr", {"slot": "lr0:1", "like": None}),
        ("refine", {"slot": "model", "like": None, "drawn": True}),
        ("lr", {"slot": "lr0:9", "like": 1}),
    ):
        claim = {"stage": stage, **claim}
        study.add_trial(optuna.create_trial(value=1.0, user_attrs={"stage": stage}, system_attrs={CLAIM_KEY: claim}))
    assert (
        "The stage learning rate moves learning rates only, and goes on from its best run; as nothing had learned, it "
        "began anew from trial 1, which was drawn from all there is."
    ) in story.collect(study).how_to_read


def test_trials_of_another_sampler_are_in_no_stage_and_are_counted() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(lambda trial: trial.suggest_float("lr", 1e-5, 1, log=True), n_trials=3)
    study.sampler = DisciplinedSampler(seed=0)
    study.optimize(lambda trial: trial.suggest_float("lr", 1e-5, 1, log=True), n_trials=1)
    assert any(words.startswith("No stage lists 3 trials") for words in story.collect(study).how_to_read)


@pytest.mark.parametrize(("low", "lengths", "held"), [(1, (8, 8), True), (8, (8, 8), False), (1, (8, 4), False)])
def test_epochs_that_stood_still_in_a_range_have_no_importance(low: int, lengths: tuple[int, ...], held: bool) -> None:
    study = optuna.create_study(sampler=DisciplinedSampler(seed=0))
    for epochs in lengths:
        study.enqueue_trial({"lr": 0.1, "epochs": epochs})
    study.optimize(lambda t: t.suggest_float("lr", 1e-3, 1, log=True) + t.suggest_int("epochs", low, 8), n_trials=2)
    study.optimize(lambda t: t.suggest_float("lr", 1e-3, 1, log=True) + t.suggest_int("epochs", low, 8), n_trials=2)
    said = "In Hyperparameter Importance ignore the bar of epochs: every complete trial had 8."
    assert (said in story.collect(study).how_to_read) == held


def test_a_study_without_a_learning_rate_is_not_told_of_one() -> None:
    study = optuna.create_study(sampler=DisciplinedSampler(seed=0))
    study.optimize(lambda t: t.suggest_float("momentum", 0.8, 0.99) + t.suggest_int("hidden", 1, 9), n_trials=3)
    told = " ".join(story.collect(study).how_to_read)
    assert "A model of all runs chooses a value of momentum; it may keep the former value" in told
    assert "learning rate" not in told
