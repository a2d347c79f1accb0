import datetime
import math
import pickle

import optuna
import pytest
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from optuna.samplers import BaseSampler
from optuna.trial import TrialState

from optuna_discipline import DisciplinedSampler
from optuna_discipline import report_epoch
from optuna_discipline.rules.slots import any_learned
from optuna_discipline.rules.slots import seconds_per_epoch
from optuna_discipline.study_reader import StudyReader
from optuna_discipline.study_reader import asked_distributions
from optuna_discipline.study_reader import read_trials
from optuna_discipline.trial_record import RESTART_KEY
from optuna_discipline.trial_record import ROW_PREFIX
from tests.test_trial_record import retry_of

FLOAT = FloatDistribution(1e-3, 1)


def _ended(seconds: float) -> optuna.trial.FrozenTrial:
    start = datetime.datetime.now() - datetime.timedelta(hours=50)
    trial = optuna.create_trial(params={"lr": 0.1}, distributions={"lr": FLOAT}, value=1.0)
    trial.datetime_start, trial.datetime_complete = start, start + datetime.timedelta(seconds=seconds)
    return trial


def _study(seconds: float, complete: int = 3) -> optuna.Study:
    """Return a study whose trials have taken so long."""
    study = optuna.create_study()
    study.add_trials([_ended(seconds)] * complete)
    return study


def test_trials_become_runs_with_roles_losses_and_times() -> None:
    study = optuna.create_study(direction="maximize", sampler=DisciplinedSampler(seed=0))
    study.optimize(lambda t: t.suggest_float("max_lr", 1e-3, 1, log=True) + t.suggest_float("x", 0, 1), n_trials=2)
    runs = StudyReader().runs(study, read_trials(study))
    assert [run.slot for run in runs] == ["lr0:1", "lr0:0.3333"]
    assert set(runs[0].params) == {"lr"}
    assert runs[0].loss == -study.trials[0].value  # type: ignore[operator]
    assert runs[0].seconds is not None


def test_a_run_has_the_first_parameter_of_a_role_and_keeps_a_second_one_that_no_rate_moves() -> None:
    values = {"lr": 0.1, "lr_head": 0.2, "beta1": 0.9, "momentum": 0.8}
    study = optuna.create_study()
    study.add_trial(optuna.create_trial(params=values, distributions=dict.fromkeys(values, FLOAT), value=1.0))
    (run,) = StudyReader().runs(study, read_trials(study))
    assert run.params == {"lr": 0.1, "momentum": 0.9}
    assert run.others == {"momentum": 0.8}


@pytest.mark.parametrize("constant", [FloatDistribution(1e-3, 1e-3), CategoricalDistribution([1e-3])])
def test_what_has_one_value_is_not_the_first_of_its_role(constant: BaseDistribution) -> None:
    known = {"lr_encoder": constant, "lr": FLOAT, "nesterov_momentum": constant, "momentum": FLOAT}
    study = optuna.create_study()
    study.add_trial(
        optuna.create_trial(params=dict.fromkeys(known, 1e-3) | {"lr": 0.1}, distributions=known, value=1.0)
    )
    trials, reader = read_trials(study), StudyReader()
    assert reader.runs(study, trials)[0].params == {"lr": 0.1, "momentum": 1e-3}
    space = reader.space(asked_distributions(trials))
    assert (space["lr"].high, space["momentum"].high) == (1, 1)
    assert reader.leader_of("lr", FLOAT, trials[0]) is None
    assert reader.leader_of("lr_head", FLOAT, trials[0]) == "lr"


@pytest.mark.parametrize(("taken_over", "seconds"), [(0, 10), (3, 40), (4, None)])
def test_a_restarted_trial_took_as_long_as_a_whole_one_would_have(taken_over: int, seconds: float | None) -> None:
    trial = _ended(seconds=10)
    trial.system_attrs = {f"{ROW_PREFIX}{epoch}": [0.1, 1.0, 1.0, None, None, 0] for epoch in range(4)}
    trial.system_attrs[RESTART_KEY] = {"number": 0, "from": 0, "epochs": taken_over}
    study = optuna.create_study()
    study.add_trial(trial)
    (run,) = StudyReader().runs(study, read_trials(study))
    assert (run.seconds, run.restarted) == (seconds, taken_over > 0)


def test_reports_are_turned_so_that_smaller_is_better_and_come_in_order() -> None:
    study = optuna.create_study(direction="maximize")
    trial = study.ask()
    for step, accuracy in ((2, 0.9), (0, 0.5), (1, 0.7)):
        trial.report(accuracy, step)
    assert StudyReader().runs(study, read_trials(study))[0].reports == ()
    study.tell(trial, 0.9)
    assert StudyReader().runs(study, read_trials(study))[0].reports == (-0.5, -0.7, -0.9)


@pytest.mark.parametrize("inherits", [None, False, True])  # None: no retry
def test_a_trial_with_rows_is_read_by_them_where_a_framework_reports_by_updates_beside(inherits: bool | None) -> None:
    study = optuna.create_study()
    losses = (2.0, 1.5, 1.2, 1.1)

    def train(trial: optuna.Trial, epochs: range) -> None:
        for epoch in epochs:
            report_epoch(trial, epoch, val_loss=losses[epoch], n_epochs=4)
            trial.report(losses[epoch], (epoch + 1) * 8)  # as Hugging Face's `hyperparameter_search` does

    trial = study.ask()
    if inherits is not None:
        train(trial, range(2))
        study.tell(trial, state=TrialState.FAIL)
        trial = retry_of(study, 0, inherits=inherits)
    train(trial, range(0 if inherits is None else 2, 4))
    study.tell(trial, 1.1)
    assert StudyReader().runs(study, read_trials(study))[-1].reports == losses


@pytest.mark.parametrize("steps", [(5, 6, 7), (14, 19, 24), (0, 1, 2), (4, 9, 14), (500, 600, 700)])
@pytest.mark.parametrize("state", [TrialState.COMPLETE, TrialState.FAIL])
def test_reports_that_begin_late_are_reports_of_a_training(steps: tuple[int, ...], state: TrialState) -> None:
    study = optuna.create_study()
    trial = study.ask()
    for step in steps:
        trial.report(0.6, step)
    study.tell(trial, 0.6 if state == TrialState.COMPLETE else None, state)
    (run,) = StudyReader().runs(study, read_trials(study))
    assert (run.reports, run.trained) == ((0.6, 0.6, 0.6), True)


@pytest.mark.parametrize("inherits", [True, False])
@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("sampler", [DisciplinedSampler(seed=0), None])
def test_a_retry_that_goes_on_is_read_from_the_start_of_its_former_attempt(
    plain: bool, inherits: bool, sampler: BaseSampler | None
) -> None:
    study = optuna.create_study(sampler=sampler)
    losses = (9.0, 8.0, 7.0, 6.0, 5.0, 4.6, 4.5, 4.4)

    def train(trial: optuna.Trial, epochs: range) -> None:
        for epoch in epochs:
            if plain:
                trial.report(losses[epoch], epoch)
            else:
                report_epoch(trial, epoch, val_loss=losses[epoch], train_loss=losses[epoch], n_epochs=8)

    first = study.ask()
    train(first, range(5))
    study.tell(first, state=TrialState.FAIL)
    retry = retry_of(study, 0, inherits=inherits)
    train(retry, range(5, 8))
    study.tell(retry, 4.4)
    trials = study.trials
    assert trials[1].datetime_start is not None
    trials[1].datetime_complete = trials[1].datetime_start + datetime.timedelta(seconds=30)
    run = StudyReader().runs(study, trials)[1]
    assert run.reports == losses
    may_be_anew = sampler is None and plain and inherits
    assert run.seconds == pytest.approx(30 if may_be_anew else 80)
    if not plain:
        assert run.curve is not None
        assert run.curve.val_loss.tolist() == list(losses)
        assert any_learned([run], {})
        assert seconds_per_epoch(run) == pytest.approx(10)


def test_what_breaks_a_constraint_shows_nothing_of_its_learning_rate() -> None:
    study = optuna.create_study(direction="maximize")
    trial = study.ask()
    for step, accuracy in enumerate((0.5, 0.7, 0.9)):
        report_epoch(trial, step, val_loss=1 - accuracy, value=accuracy)
    trial.set_constraint("latency", 1.0)
    study.tell(trial, 0.9)
    (run,) = StudyReader().runs(study, read_trials(study))
    assert (run.allowed, run.loss, run.reports, run.curve, run.trained) == (False, math.inf, (), None, False)


def test_waiting_and_excepted_trials_are_no_runs() -> None:
    study = optuna.create_study()
    study.enqueue_trial({"lr": 0.1})
    study.add_trial(_ended(1))
    study.add_trial(_ended(1))
    assert [run.number for run in StudyReader().runs(study, read_trials(study), except_for=2)] == [1]


def test_a_running_trial_that_is_long_overdue_counts_as_failed() -> None:
    study = _study(seconds=40)
    study.ask().suggest_float("lr", 1e-3, 1)
    study.ask()  # still without a parameter
    trials = read_trials(study)
    reader = StudyReader()
    assert [run.state for run in reader.runs(study, trials)] == ["complete"] * 3 + ["running", "running"]
    for seconds, states in ((70, ["running", "running"]), (90, ["running", "failed"]), (210, ["failed", "failed"])):
        for trial in trials[3:]:
            trial.datetime_start = datetime.datetime.now() - datetime.timedelta(seconds=seconds)
        assert [run.state for run in reader.runs(study, trials)[3:]] == states


def test_finished_trials_are_read_once_and_the_cache_is_not_pickled() -> None:
    study = optuna.create_study()
    study.add_trial(_ended(1))
    reader = StudyReader()
    first = reader.runs(study, read_trials(study))
    assert reader.runs(study, read_trials(study))[0] is first[0]
    copy = pickle.loads(pickle.dumps(reader))
    assert copy.runs(study, read_trials(study))[0] is not first[0]


def test_how_long_an_ended_trial_was_to_be_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    study, reader = _study(seconds=40), StudyReader()
    study.ask().suggest_float("lr", 1e-3, 1)
    first = reader.runs(study, read_trials(study))
    read = []
    monkeypatch.setattr(reader, "roles", lambda known: read.append(known) or {})
    reader.runs(study, read_trials(study))
    assert (len(first), read) == (4, [read_trials(study)[3].distributions] * 2)  # its length, and its run


def test_states_are_those_of_the_rules() -> None:
    study = optuna.create_study()
    for state in (TrialState.PRUNED, TrialState.FAIL):
        study.tell(study.ask(), state=state)
    assert [run.state for run in StudyReader().runs(study, read_trials(study))] == ["pruned", "failed"]


def test_the_space_holds_roles_with_numbers_only() -> None:
    reader = StudyReader({"eta": "lr"})
    known = {"eta": FLOAT, "batch_size": optuna.distributions.CategoricalDistribution(["small", "large"])}
    assert set(reader.space(known)) == {"lr"}


def test_exponents_that_cannot_be_read_are_refused_before_anything_runs() -> None:
    study = optuna.create_study(sampler=DisciplinedSampler(roles={"neg_log10_lr": "lr"}, seed=0))
    with pytest.raises(ValueError, match=r"`roles` must give 'lr' to .* but 'neg_log10_lr' has it, from -1 to 5"):
        study.optimize(lambda t: t.suggest_float("neg_log10_lr", -1, 5), n_trials=1)
    assert not study.trials[0].params
    assert StudyReader().role_of("neg_log10_lr", FloatDistribution(-1, 5)) is None
    before = optuna.create_study()
    before.optimize(lambda t: t.suggest_float("neg_log10_lr", -1, 5), n_trials=1)
    assert len(StudyReader({"neg_log10_lr": "lr"}).runs(before, read_trials(before))) == 1  # what has run is read


def test_the_passes_of_a_policys_training_are_no_length() -> None:
    study = optuna.create_study()
    trial = study.ask()
    trial.suggest_float("lr", 1e-5, 1.0)
    epochs = optuna.distributions.IntDistribution(1, 20)
    assert StudyReader().role_in(study, "n_epochs", epochs) == "epochs"
    trial.suggest_float("clip_range", 0.1, 0.4)
    trial.suggest_int("n_epochs", 1, 20)
    known = study.trials[0].distributions
    assert StudyReader().roles(known) == {"lr": "lr"}
    assert StudyReader({"n_epochs": "epochs"}).roles(known) == {"lr": "lr", "n_epochs": "epochs"}
    assert StudyReader().role_in(study, "n_epochs", epochs) is None
    assert StudyReader().runs(study, read_trials(study))[0].others.keys() == {"clip_range", "n_epochs"}


@pytest.mark.parametrize(
    ("distribution", "expected"),
    [
        (IntDistribution(1, 40), True),
        (FloatDistribution(0, 9, step=1), True),
        (CategoricalDistribution([42]), True),
        (CategoricalDistribution(["a", None, "7"]), True),
        (FloatDistribution(0.01, 1), False),
        (FloatDistribution(0, 1, step=0.5), False),
        (CategoricalDistribution([0.5, 1]), False),
    ],
)
def test_only_whole_numbers_and_words_are_seeds(distribution: BaseDistribution, expected: bool) -> None:
    assert StudyReader().is_seed("seed", distribution) == expected
    assert StudyReader().settings({"seed": distribution, "x": FLOAT}).keys() == ({"x"} if expected else {"x", "seed"})
    assert not StudyReader({"seed": None}).is_seed("seed", distribution)


def test_without_a_finished_trial_no_running_one_is_overdue() -> None:
    study = optuna.create_study()
    study.ask()
    trials = read_trials(study)
    trials[0].datetime_start = datetime.datetime.now() - datetime.timedelta(days=9)
    assert StudyReader().runs(study, trials)[0].state == "running"


def test_a_short_longest_trial_still_grants_a_minute() -> None:
    study = _study(seconds=0.1)
    study.ask()
    trials = read_trials(study)
    reader = StudyReader()
    trials[3].datetime_start = datetime.datetime.now() - datetime.timedelta(seconds=50)
    assert reader.runs(study, trials)[3].state == "running"
    trials[3].datetime_start = datetime.datetime.now() - datetime.timedelta(seconds=70)
    assert reader.runs(study, trials)[3].state == "failed"


def test_an_overdue_trial_that_ends_after_all_is_read_anew() -> None:
    study = _study(seconds=1)
    late = study.ask()
    trials = read_trials(study)
    trials[3].datetime_start = datetime.datetime.now() - datetime.timedelta(days=1)
    reader = StudyReader()
    assert reader.runs(study, trials)[3].state == "failed"
    study.tell(late, 0.5)
    assert (reader.runs(study, read_trials(study))[3].state, reader.runs(study, read_trials(study))[3].loss) == (
        "complete",
        0.5,
    )


def test_a_start_that_a_wrong_clock_stamped_is_corrected_by_the_order_of_the_trials() -> None:
    study = _study(seconds=1)
    for _ in range(4):
        study.ask().suggest_float("lr", 1e-3, 1)
    trials = read_trials(study)
    hour, now = datetime.timedelta(hours=1), datetime.datetime.now()
    for trial, start in zip(trials[3:], (now - hour, now, now - hour, now + hour), strict=True):
        trial.datetime_start = start
    states = [run.state for run in StudyReader().runs(study, trials)]
    assert states == ["complete"] * 3 + ["failed", "running", "running", "running"]


def test_the_clock_of_the_trial_that_asks_counts() -> None:
    study = _study(seconds=1)
    study.ask().suggest_float("lr", 1e-3, 1)
    study.ask()
    trials = read_trials(study)
    assert trials[4].datetime_start is not None
    assert StudyReader().runs(study, trials, except_for=4)[3].state == "running"
    trials[4].datetime_start += datetime.timedelta(hours=1)
    assert StudyReader().runs(study, trials, except_for=4)[3].state == "failed"


def test_a_trial_failed_by_another_host_says_nothing_about_how_long_trials_take() -> None:
    study = _study(seconds=1)
    killed = optuna.create_trial(state=TrialState.FAIL)
    killed.datetime_start = datetime.datetime.now() - datetime.timedelta(days=3)
    killed.datetime_complete = datetime.datetime.now()
    study.add_trial(killed)
    study.ask()
    trials = read_trials(study)
    trials[4].datetime_start = datetime.datetime.now() + datetime.timedelta(seconds=1)
    assert StudyReader().runs(study, trials)[4].state == "running"
    trials[3].datetime_start = trials[4].datetime_start = datetime.datetime.now() - datetime.timedelta(hours=1)
    assert StudyReader().runs(study, trials)[4].state == "failed"


def _state_after(hours: float, study: optuna.Study, epochs: int | None = None) -> str:
    trial = study.ask()
    trial.suggest_float("lr", 1e-3, 1)
    if epochs is not None:
        trial.suggest_int("epochs", epochs, epochs)
    trials = read_trials(study)
    trials[-1].datetime_start = datetime.datetime.now() - datetime.timedelta(hours=hours)
    return StudyReader().runs(study, trials)[-1].state


def test_trials_that_were_added_or_stopped_say_nothing_about_how_long_a_training_takes() -> None:
    added = _study(seconds=0)
    stopped = _study(seconds=0)
    for _ in range(3):
        pruned = _ended(seconds=5)
        pruned.state = TrialState.PRUNED
        stopped.add_trial(pruned)
    assert [_state_after(3, study) for study in (added, stopped)] == ["running", "running"]


def test_a_first_short_trial_or_two_grant_a_day() -> None:
    assert [_state_after(hours, _study(seconds=5, complete=2)) for hours in (3, 25)] == ["running", "failed"]


def test_a_long_trial_may_take_as_much_longer_as_it_has_epochs() -> None:
    epochs = optuna.distributions.IntDistribution(1, 100)
    short = optuna.create_trial(params={"epochs": 10}, distributions={"epochs": epochs}, value=1.0)
    short.datetime_start = datetime.datetime.now() - datetime.timedelta(hours=50)
    short.datetime_complete = short.datetime_start + datetime.timedelta(minutes=10)
    for hours, state in ((5, "running"), (9, "failed")):
        study = optuna.create_study()
        study.add_trials([short] * 3)
        assert _state_after(hours, study, epochs=100) == state
