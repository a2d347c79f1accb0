import math
from typing import Any

import optuna
import pytest

from optuna_discipline import DisciplinedSampler
from optuna_discipline import EpochLog
from optuna_discipline import RangeTest
from optuna_discipline import Recipe
from optuna_discipline import TrialReporter
from optuna_discipline import diagnose_study
from optuna_discipline import report_epoch
from optuna_discipline.range_test_record import RANGE_TEST_KEY
from optuna_discipline.trial_record import RESTART_KEY
from optuna_discipline.visualization import loss_curve
from optuna_discipline.visualization import story

LR = {"lr": optuna.distributions.FloatDistribution(0.1, 1.0)}
OPEN: dict[str, Any] = {"params": {"lr": 0.5}, "distributions": LR}  # of trials that search something


def test_a_study_is_told_by_stage_with_its_best_and_cost(study: optuna.Study) -> None:
    told = story.collect(study)
    assert told.headline.startswith(f"The lowest validation loss is {story.show(study.best_value)}")
    assert [row.stage for row in told.stages][:4] == ["lr", "confirm", "replicate", "momentum"]
    assert told.stages[3].tried == "0.9, 0.97, 0.99"
    assert told.best_params == study.trials[told.best_trial or 0].params
    assert told.range_test is not None
    assert 2 < told.cost < 17
    assert told.next_steps


def test_a_study_of_short_cycles_only_does_not_speak_of_a_full_training() -> None:
    study = optuna.create_study(sampler=DisciplinedSampler(Recipe(short=0.25), seed=0))
    study.optimize(lambda t: t.suggest_float("lr", 1e-3, 1, log=True) + t.suggest_int("epochs", 1, 8), n_trials=2)
    told = story.collect(study)
    assert ", a training of 2 epochs (a full one has 8), after 2 trials" in told.headline


@pytest.mark.parametrize(("epochs", "said"), [(20, "20 epochs, after"), (11, "20 epochs, reported for 11, after")])
def test_a_training_that_its_user_ended_early_does_not_pass_for_a_whole_one(epochs: int, said: str) -> None:
    study = optuna.create_study()
    trial = study.ask()
    for epoch in range(epochs):
        report_epoch(trial, epoch, val_loss=1.0, n_epochs=20)
    study.tell(trial, 1.0)
    assert f"in trial 0, a training of {said} 1 trial" in story.collect(study).headline


def test_a_damaged_range_test_is_left_out() -> None:
    study = optuna.create_study()
    study.add_trial(optuna.create_trial(value=1.0, system_attrs={RANGE_TEST_KEY: {"lrs": "nonsense"}}))
    assert story.collect(study).range_test is None


def test_warnings_name_failures_and_parameters_on_their_bound() -> None:
    study = optuna.create_study()
    study.enqueue_trial({"lr": 1.0})
    study.optimize(lambda t: t.suggest_float("lr", 0.1, 1.0), n_trials=1)
    study.tell(study.ask(), state=optuna.trial.TrialState.FAIL)
    assert story.collect(study).warnings == (
        "1 of 2 trials failed.",
        "The best lr, 1, lies on its bound: widen the bounds.",
    )


@pytest.mark.parametrize(
    ("low", "high", "log", "value", "where"),
    [
        (1e-7, 1e-2, True, 0.00999, "near"),
        (1e-7, 1e-2, True, 1.1e-7, "near"),
        (1e-7, 1e-2, True, 1e-7, "on"),
        (1e-7, 1e-2, True, 1e-3, ""),
        (0.0, 1e-2, False, 0.0099, "near"),
        (0.0, 1e-2, False, 1e-4, ""),  # usual, although at a hundredth of the range
        (0.0, 1e-2, False, 0.0, "on"),
    ],
)
def test_a_bound_is_near_on_the_parameters_own_scale(
    low: float, high: float, log: bool, value: float, where: str
) -> None:
    study = optuna.create_study()
    study.enqueue_trial({"weight_decay": value})
    study.optimize(lambda t: t.suggest_float("weight_decay", low, high, log=log), n_trials=1)
    said = f"The best weight_decay, {value:.4g}, lies {where} its bound: widen the bounds."
    assert story.collect(study).warnings == ((said,) if where else ())


@pytest.mark.parametrize(
    ("name", "low", "high", "value", "widened"),
    [
        ("momentum", 0.8, 0.99, 0.989, False),
        ("momentum", 0.8, 0.95, 0.949, True),
        ("momentum", 0.8, 0.99, 0.8, True),
        ("one_minus_momentum", 0.01, 0.2, 0.01, False),
    ],
)
def test_no_momentum_above_99_hundredths_is_asked_for(
    name: str, low: float, high: float, value: float, widened: bool
) -> None:
    study = optuna.create_study()
    study.enqueue_trial({name: value})
    study.optimize(lambda t: t.suggest_float(name, low, high), n_trials=1)
    assert bool(story.collect(study).warnings) == widened


def test_where_the_best_run_may_be_luck_no_higher_rate_is_asked_for_at_its_bound_or_beside_its_curve() -> None:
    study = optuna.create_study()
    for lr, end in ((1.0, 0.1), (0.9, 1.5)):
        study.enqueue_trial({"lr": lr})
        trial = study.ask({"lr": optuna.distributions.FloatDistribution(0.1, 1.0)})
        for epoch in range(8):
            loss = 2 - (2 - end) * epoch / 7
            report_epoch(trial, epoch, val_loss=loss, train_loss=loss, lr=lr, n_epochs=8)
        study.tell(trial, end)
        told = story.collect(study)
        assert bool(told.warnings) == ("raise the learning rate" in told.next_steps[0]) == (lr == 1.0)
    assert told.next_steps[0].endswith(f" {loss_curve.collect(study)[0].advice}")


def test_waiting_trials_have_neither_been_started_nor_failed() -> None:
    study = optuna.create_study()
    for _ in range(3):
        study.enqueue_trial({})
    assert story.collect(study).headline.endswith("finished yet; 0 trials have been started, 3 wait to begin.")
    study.tell(study.ask(), state=optuna.trial.TrialState.FAIL)
    study.ask()
    told = story.collect(study)
    assert told.headline.endswith("; 2 trials have been started, 1 has not ended, 1 waits to begin.")
    assert told.warnings == ("1 of 1 trial failed.",)
    study.tell(1, 0.5)
    assert story.collect(study).headline.endswith(", after 2 trials that cost 1.0 full trainings; 1 waits to begin.")
    for _ in range(3):
        study.ask()
    assert story.collect(study).headline.endswith("after 5 trials that cost 1.0 full trainings; 3 have not ended.")


def test_a_study_whose_trials_were_all_stopped_says_so() -> None:
    study = optuna.create_study()
    for said in ("1 of 1 trial was stopped early.", "2 of 2 trials were stopped early."):
        study.tell(study.ask(LR), state=optuna.trial.TrialState.PRUNED)
        told = story.collect(study)
        assert told.warnings == (said,)
        (step,) = told.next_steps
        assert "look at what stops trials early: the pruner or a TrialPruned" in step
    study.tell(study.ask(LR), 1.0)
    assert story.collect(study).warnings == ()


def test_trainings_that_ended_without_a_number_ask_for_a_look_not_for_more() -> None:
    study = optuna.create_study()
    study.add_trial(optuna.create_trial(value=float("inf")))
    told = story.collect(study)
    assert told.headline == "No training has ended at a number that may be chosen; 1 trial has been started."
    assert told.warnings == ("1 trial ended without a number.",)
    assert told.next_steps[0].startswith("Look at why trials end without a number")
    study.tell(study.ask(), state=optuna.trial.TrialState.FAIL)
    said = "Look at the error that failed trials have logged (a result of NaN or an interruption fails one, too)."
    assert story.collect(study).next_steps[0] == said


@pytest.mark.parametrize(
    ("values", "shown"), [((1e9, 1e9 + 90), "1000000000"), ((-12345.678, -12345.62), "-12345.7"), ((0.5, 0.7), "0.5")]
)
def test_a_best_value_is_told_from_the_next(values: tuple[float, float], shown: str) -> None:
    study = optuna.create_study()
    study.add_trials([optuna.create_trial(value=value) for value in values])
    assert story.collect(study).headline.startswith(f"The lowest objective is {shown}, in trial 0")


def test_one_epoch_is_not_spoken_of_as_several() -> None:
    study = optuna.create_study()
    study.optimize(lambda t: 1.0 * t.suggest_int("epochs", 1, 1), n_trials=1)
    told = story.collect(study)
    assert "a training of 1 epoch, after 1 trial that" in told.headline
    assert "full trainings (1 epoch)" in told.how_to_read[0]


@pytest.mark.parametrize(("short", "warns"), [(2, True), (4, True), (7, False)])
def test_a_much_shorter_training_that_beats_the_full_ones_is_a_warning(short: int, warns: bool) -> None:
    study = optuna.create_study()
    for epochs, value in ((short, 0.1), (8, 0.4)):
        study.enqueue_trial({"epochs": epochs})
        study.optimize(lambda t, value=value: value + 0 * t.suggest_int("epochs", 1, 8), n_trials=1)
    said = "".join(story.collect(study).warnings)
    assert ("A short training is better than every full one" in said) is warns


def test_a_full_training_that_breaks_a_constraint_does_not_overfit() -> None:
    study = optuna.create_study()
    distributions = {"epochs": optuna.distributions.IntDistribution(1, 8)}
    for epochs, value, excess in ((2, 0.3, 0.0), (8, 0.1, 1.0)):
        trial = {"params": {"epochs": epochs}, "distributions": distributions, "value": value}
        study.add_trial(optuna.create_trial(**trial, system_attrs={"constraints": [excess]}))
    assert not story.collect(study).warnings


def test_empty_studies_say_so(empty: optuna.Study) -> None:
    told = story.collect(empty)
    assert told.headline == "No training has finished yet; 0 trials have been started."
    assert (told.best_trial, told.stages, told.cost) == (None, (), 0.0)
    with pytest.raises(TypeError, match="`study` must be a Study"):
        story.collect("study")  # type: ignore[arg-type]


def test_the_range_test_is_told_for_who_has_not_read_the_paper(study: optuna.Study) -> None:
    told = story.collect(study).range_test
    assert told is not None
    assert told.startswith("A network that was thrown away afterwards was trained while the learning rate rose from")
    assert "0.0001 to 10, to see where training works" in told


def _broken(study: optuna.Study, lr: float) -> None:
    study.enqueue_trial({"lr": lr})
    trial = study.ask()
    trial.suggest_float("lr", 0.01, 500, log=True)
    for epoch in range(4):
        report_epoch(trial, epoch, val_loss=23.0, train_loss=1.0 if epoch == 0 else float("nan"), lr=lr, n_epochs=8)
    study.tell(trial, state=optuna.trial.TrialState.PRUNED)


def test_where_runs_broke_the_next_step_is_what_diagnose_study_says() -> None:
    study = optuna.create_study()
    for lr in (5.0, 50.0, 80.0):
        _broken(study, lr)
    assert story.collect(study).next_steps == diagnose_study(study).advice
    assert story.collect(study).next_steps[0].endswith("lower both bounds of the learning rate.")
    trial = study.ask()
    for epoch in range(8):
        report_epoch(trial, epoch, val_loss=2 - epoch / 10, train_loss=2 - epoch / 10, lr=0.1, n_epochs=8)
    study.tell(trial, 1.3)
    steps = story.collect(study).next_steps
    assert steps[:2] == diagnose_study(study).advice
    assert steps[0].startswith("75% of the runs diverged: lower the upper bound")
    assert "raise the learning rate" not in " ".join(steps)


def test_a_best_run_that_never_learned_is_not_asked_for_a_longer_training() -> None:
    study = optuna.create_study()
    for end in (2.33, 2.34):
        trial = study.ask()
        reporter = TrialReporter(trial, n_epochs=4, n_classes=10)
        for epoch, loss in enumerate((2.47, 2.46, 2.43, end)):
            reporter.report(EpochLog(epoch, 5.0, 2.4, loss))
        study.tell(trial, end)
    steps = story.collect(study).next_steps
    assert steps[0].startswith("100% of the runs ended where they started")
    assert "The best run looks" not in " ".join(steps)


def test_a_lower_restart_or_one_against_a_constraint_is_not_denied() -> None:
    study = optuna.create_study()
    restart = {RESTART_KEY: {"number": 1, "from": 0, "epochs": 4}}
    restarted = optuna.create_trial(value=0.4252, system_attrs=restart, **OPEN)
    study.add_trials([optuna.create_trial(value=0.4261, **OPEN), restarted])
    told = story.collect(study)
    assert told.headline.startswith("The lowest objective of whole trainings is 0.4261, in trial 0")
    assert told.warnings == (
        "Trial 1 ended better, at 0.4252, but went on from the middle of another training: a whole one with its "
        "parameters may end elsewhere.",
    )
    study.add_trial(optuna.create_trial(value=0.4))
    assert story.collect(study).headline.startswith("The lowest objective is 0.4, in trial 2")
    study.add_trial(optuna.create_trial(value=0.3, system_attrs={"constraints": (1.0,)}))
    assert story.collect(study).headline.startswith("The lowest objective within the constraints is 0.4, in trial 2")


def test_a_restart_that_may_not_be_chosen_anyway_is_not_said_to_have_ended_better() -> None:
    restart = {RESTART_KEY: {"number": 1, "from": 0, "epochs": 4}}
    study = optuna.create_study()
    barred = optuna.create_trial(value=0.4, system_attrs={**restart, "constraints": (1.0,)}, **OPEN)
    study.add_trials([optuna.create_trial(value=0.5, **OPEN), barred])
    told = story.collect(study)
    assert told.headline.startswith("The lowest objective within the constraints is 0.5, in trial 0")
    assert told.warnings == ()
    study = optuna.create_study(direction="maximize")
    broken = optuna.create_trial(value=float("inf"), system_attrs=restart, **OPEN)
    study.add_trials([optuna.create_trial(value=0.5, **OPEN), broken])
    told = story.collect(study)
    assert told.headline.startswith("The highest objective is 0.5, in trial 0")
    assert told.warnings == ("1 trial ended without a number.",)


@pytest.mark.parametrize("low", [1e-3, 0.05])
@pytest.mark.parametrize(("n", "last"), [(3, math.nan), (2, math.nan), (3, math.inf), (3, 0.5)])
def test_reports_of_nan_at_one_step_at_three_rates_may_not_be_theirs(low: float, n: int, last: float) -> None:
    study, told = optuna.create_study(), {"distributions": {"lr": optuna.distributions.FloatDistribution(1e-5, 1)}}
    for lr in (0.1, low, 0.07)[:n]:
        stopped = {**told, "params": {"lr": lr}, "intermediate_values": {0: 0.5, 2: last if lr == 0.07 else math.nan}}
        study.add_trial(optuna.create_trial(state=optuna.trial.TrialState.PRUNED, **stopped))
    said = "report at step 2 is NaN, at learning rates from 0.001 to 0.1: these may not be to blame. Look at what"
    assert (said in story.collect(study).next_steps[0]) == (low < 0.01 and n == 3 and math.isnan(last))


def test_a_broken_constraint_hides_no_advice_on_reports_of_nan() -> None:
    def objective(trial: optuna.Trial) -> float:
        trial.suggest_float("lr", 1e-4, 1.0, log=True)
        trial.set_constraint("size", 1.0)
        trial.report(math.nan, 0)
        raise optuna.TrialPruned

    study = optuna.create_study(sampler=DisciplinedSampler(seed=0))
    study.optimize(objective, n_trials=4)
    look, loosen = story.collect(study).next_steps
    assert "report at step 0 is NaN" in look
    assert loosen.startswith("4 of 4 trials broke a constraint")


@pytest.mark.parametrize(
    ("high", "n", "said"), [(0.1, 2, True), (1.0, 2, False), (0.1, 1, False), (None, 2, True), (None, 0, False)]
)
def test_a_study_without_anything_to_search_says_so(high: float | None, n: int, said: bool) -> None:
    study = optuna.create_study(sampler=DisciplinedSampler(seed=0))
    study.add_trials([optuna.create_trial(value=value) for value in (0.3, 0.2)])  # of what, nobody knows
    study.optimize(lambda t: 0.1 * t.number if high is None else t.suggest_float("lr", 0.1, high), n_trials=n)
    warning = "No parameter has more than one value: the trials differ by luck only."
    assert (warning in story.collect(study).warnings) == said


@pytest.mark.parametrize(
    ("direction", "ends", "said"),
    [
        ("minimize", (0.9, 0.8, 0.7), True),
        ("minimize", (0.9, 0.1, 0.2), False),
        ("minimize", (0.9,), False),
        ("maximize", (0.9, 0.8, 0.7), False),
    ],
)
def test_an_accuracy_that_is_minimised_is_told(direction: Any, ends: tuple[float, ...], said: bool) -> None:
    study = optuna.create_study(direction=direction)
    for number, end in enumerate(ends):
        trial = study.ask(LR)
        for epoch, value in enumerate((0.3, end)):
            report_epoch(trial, epoch, val_loss=2.0 - epoch, value=value, n_epochs=2)
        study.tell(trial, ends[number])
    told = " ".join(story.collect(study).warnings)
    assert ("which is minimised, rose in 3 of 3 runs whose validation loss fell: if more of it" in told) == said


def test_runs_whose_validation_loss_rose_or_that_are_ranked_by_it_say_nothing_of_a_direction() -> None:
    for start, value in ((0.5, {"value": 0.3}), (2.0, {})):
        study = optuna.create_study()
        for lr in (0.4, 0.5, 0.6):
            study.enqueue_trial({"lr": lr})
            trial = study.ask(LR)
            for epoch in range(2):
                more = {name: number + epoch for name, number in value.items()}
                report_epoch(trial, epoch, val_loss=start + epoch * (1.0 if value else -1.0), n_epochs=2, **more)
            study.tell(trial, 1.0)
        assert not story.collect(study).warnings


@pytest.mark.parametrize(
    ("lrs", "said"),
    [
        ([1e-5], "was to be trained while the learning rate rose, but broke at once, at 1e-05, to see"),
        ([], "was to be trained while the learning rate rose, but broke at once, to see"),
        ([1e-5, 2e-5], "was trained while the learning rate rose from 1e-05 to 2e-05, to see"),
    ],
)
def test_a_range_test_that_broke_at_once_speaks_of_no_rise(lrs: list[float], said: str) -> None:
    study = optuna.create_study()
    test = RangeTest(lrs, [math.nan] * len(lrs), None, "non-finite loss", math.nan)
    study.add_trial(optuna.create_trial(value=1.0, system_attrs={RANGE_TEST_KEY: test.to_dict()}))
    told = story.collect(study).range_test
    assert told is not None
    assert said in told
