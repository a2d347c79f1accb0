"""Several workers in one process, at any point of a trial: asked, given its parameters, ended, dead."""

import datetime
import math
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from optuna_discipline import DisciplinedSampler
from optuna_discipline import RangeTest
from optuna_discipline import Recipe
from optuna_discipline import study_reader
from optuna_discipline.decision import Decision
from optuna_discipline.range_test_record import has_range_test
from optuna_discipline.trial_record import read_claim

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
LRS = np.geomspace(1e-4, 1, 60)
LOSSES = np.where(LRS < 0.1, 2.3 - np.linspace(0, 3, 60), 5.0)
TEST = RangeTest(LRS, LOSSES, None, "end of range", initial_loss=2.3)


class Workers:
    """Workers that share a storage in memory and nothing else."""

    def __init__(self, **settings: Any) -> None:
        recipe, model = Recipe(stages=("lr", "momentum", "refine")), optuna.samplers.RandomSampler(seed=0)
        self.settings = {"recipe": recipe, "refine_sampler": model, "seed": 0, **settings}
        self.storage = optuna.storages.InMemoryStorage()
        optuna.create_study(storage=self.storage, study_name="s")

    def new(self) -> optuna.Study:
        """Return the study as a new worker loads it."""
        return optuna.load_study(storage=self.storage, study_name="s", sampler=DisciplinedSampler(**self.settings))

    def slots(self) -> list[str | None]:
        """Return what the trials run, None for a trial that has not been told yet."""
        trials = self.new().trials
        return [claim["slot"] if (claim := read_claim(trial)) is not None else None for trial in trials]


def suggest(trial: optuna.Trial) -> tuple[float, float]:
    return trial.suggest_float("lr", 1e-5, 10, log=True), trial.suggest_float("momentum", 0.8, 0.99)


def loss(trial: optuna.Trial) -> float:
    lr, momentum = suggest(trial)
    return (math.log10(lr / (1 - momentum)) - 0.3) ** 2 + 0.1


def overdue(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("STALE_SECONDS", "FEW_SECONDS", "STALE_FACTOR"):
        monkeypatch.setattr(study_reader, name, 0.0)


def test_sixteen_workers_that_begin_at_once_run_sixteen_configurations() -> None:
    pytest.importorskip("torch")
    workers = Workers(refine_sampler=None)
    trials = [workers.new().ask() for _ in range(16)]
    assert workers.slots() == [None] * 16  # no trial has shown a parameter yet
    points = {suggest(trial)[0] for trial in trials}
    assert len(points) == 16
    assert workers.slots()[0] == "lr0:1"
    assert set(workers.slots()[1:3]) == {"lr0:2", "lr0:0.3333"}
    assert set(workers.slots()[3:]) == {"model"}


def test_sixteen_workers_that_know_no_bounds_begin_at_sixteen_rates() -> None:
    workers = Workers(range_test=lambda: TEST)
    trials = [workers.new().ask() for _ in range(2)]
    study = workers.new()
    decision = DisciplinedSampler(seed=0)._decision
    rates = {decision._blind(trial, decision.propose(study, trial, 0)).lr_multiple for trial in study.trials}
    assert len(rates) == len(trials) == 2


def test_a_dead_workers_candidate_is_run_by_another_at_once_when_it_is_overdue(monkeypatch: pytest.MonkeyPatch) -> None:
    workers = Workers()
    study = workers.new()
    study.tell(trial := study.ask(), loss(trial))
    dead = workers.new().ask()
    suggest(dead)
    assert workers.slots() == ["lr0:1", "lr0:0.3333"]
    overdue(monkeypatch)
    waits: list[float] = []
    monkeypatch.setattr("time.sleep", waits.append)
    suggest(workers.new().ask())
    assert workers.slots()[2] == "lr0:0.3333"
    assert waits == []  # the dead one is no rival to back off from


def test_who_finds_a_rival_again_and_again_searches_by_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    workers = Workers()
    study = workers.new()
    study.tell(trial := study.ask(), loss(trial))
    monkeypatch.setattr(Decision, "_has_rival", lambda *_: True)
    monkeypatch.setattr("time.sleep", lambda _: None)
    late = workers.new().ask()
    suggest(late)
    assert workers.slots()[1] == "model"
    assert late.user_attrs["reason"].startswith("model-based search while others hold what is open: trial 0, but ")


def test_a_late_result_of_an_overdue_trial_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    workers = Workers()
    study = workers.new()
    study.tell(trial := study.ask(), loss(trial))
    late = workers.new().ask()
    suggest(late)
    with monkeypatch.context() as patch:
        overdue(patch)
        again = workers.new().ask()
        suggest(again)
    assert workers.slots()[1] == workers.slots()[2] == "lr0:0.3333"
    workers.new().tell(late.number, 0.2)
    workers.new().tell(again.number, 0.3)
    study.optimize(loss, n_trials=8)
    assert workers.slots().count("lr0:0.3333") == 2


def test_a_retried_trial_answers_what_the_failed_one_was_to_answer() -> None:
    workers = Workers()
    study = workers.new()
    study.optimize(loss, n_trials=1)
    failed = study.ask()
    lr, _ = suggest(failed)
    retry = optuna.storages.RetryHeartbeatStaleTrialCallback()
    study.tell(failed, state=TrialState.FAIL)
    retry(study, study.trials[1])
    again = workers.new().ask()
    assert suggest(again)[0] == lr
    assert workers.slots() == ["lr0:1", "lr0:0.3333", "lr0:0.3333"]
    assert again.user_attrs["reason"].endswith("; again, since trial 1 failed")
    study.tell(again, state=TrialState.FAIL)
    retry(study, study.trials[2])
    assert workers.new().ask().user_attrs["reason"].count("again") == 1
    study.optimize(loss, n_trials=6)
    assert workers.slots().count("lr0:0.3333") == 3


def test_others_do_not_wait_for_the_range_test_and_the_ladder_begins_where_it_says() -> None:
    workers = Workers()
    rates = []

    def run() -> RangeTest:  # while it runs, two other workers begin
        for _ in range(2):
            other = workers.new()
            rates.append(suggest(other.ask())[0])
        return TEST

    workers.settings["range_test"] = run
    first = workers.new().ask()
    lr, _ = suggest(first)
    assert workers.slots() == ["lr0:1", "model", "model"]
    assert lr == pytest.approx(TEST.max_lr)
    assert len({*rates, lr}) == 3
    told = workers.new().trials[1].user_attrs["reason"]
    assert told == "drawn while another worker runs the range test, as no run has ended well yet"


def test_a_range_test_whose_worker_died_is_run_by_the_next_one() -> None:
    def die() -> RangeTest:
        raise KeyboardInterrupt("killed")

    with pytest.raises(KeyboardInterrupt, match="killed"):
        Workers(range_test=die).new().ask()
    workers = Workers(range_test=die)
    with pytest.raises(KeyboardInterrupt, match="killed"):
        workers.new().ask()
    workers.settings["range_test"] = lambda: TEST
    second = workers.new().ask()
    assert suggest(second)[0] == pytest.approx(TEST.max_lr)
    assert [trial.state for trial in workers.new().trials] == [TrialState.FAIL, TrialState.RUNNING]


def test_a_ladder_that_has_begun_without_a_range_test_gets_none() -> None:
    workers = Workers()
    suggest(workers.new().ask())
    workers.settings["range_test"] = lambda: pytest.fail("too late: steps are multiples of the ladder's start")
    suggest(workers.new().ask())
    assert not has_range_test(workers.new())


@pytest.mark.parametrize("hours", [-3, 3])
def test_a_host_whose_clock_is_wrong_by_hours_does_not_look_dead(hours: int, monkeypatch: pytest.MonkeyPatch) -> None:
    workers = Workers()
    here = workers.new()
    here.optimize(loss, n_trials=1)
    there = workers.new().ask()
    suggest(there)
    stored = workers.storage._get_trial(there._trial_id)
    assert stored.datetime_start is not None
    stored.datetime_start += datetime.timedelta(hours=hours)
    for _ in range(4):
        suggest(workers.new().ask())
    assert workers.slots().count("lr0:0.3333") == 1


def test_a_clock_that_runs_ahead_repeats_a_candidate_at_most_and_stops_nothing() -> None:
    workers = Workers()
    here = workers.new()
    here.optimize(loss, n_trials=1)
    for trial in workers.storage.get_all_trials(here._study_id, deepcopy=False):
        assert trial.datetime_start is not None
        assert trial.datetime_complete is not None
        trial.datetime_start -= datetime.timedelta(days=1)
        trial.datetime_complete -= datetime.timedelta(days=1)
    suggest(here.ask())
    workers.storage._get_trial(1).datetime_start -= datetime.timedelta(days=1)  # type: ignore[operator]
    suggest(workers.new().ask())  # its clock is a day ahead of both
    assert workers.slots()[1:] == ["lr0:0.3333", "lr0:0.3333"]
    here.optimize(loss, n_trials=6)
    assert workers.slots().count("lr0:0.3333") == 2
