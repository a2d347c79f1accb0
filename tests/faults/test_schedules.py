"""Hundreds of random schedules of faults on a simulated objective; the rules of the house hold after every step.

Workers are fresh samplers on one storage; every step is a decision, an end or a fault: a trial is asked, given its
parameters, told, told a number that is none, pruned, failed, left by a dead worker, failed by a heartbeat and retried,
told by a worker taken for dead; hours pass, a worker's clock is wrong, a user enqueues, the search space changes.
"""

import collections
import datetime
import functools
import json
import math
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import InMemoryStorage
from optuna.storages import JournalStorage
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from optuna_discipline import DisciplinedSampler
from optuna_discipline import Recipe
from optuna_discipline.rules.run import MODEL_SLOT
from optuna_discipline.rules.slots import MAX_FAILURES
from optuna_discipline.study_reader import StudyReader
from optuna_discipline.trial_record import read_claim

pytestmark = pytest.mark.filterwarnings(
    "ignore::optuna.exceptions.ExperimentalWarning",
    "ignore:The value nan is not acceptable",
    "ignore:Inconsistent parameter values",  # a retried trial keeps the bounds of its former self
)
PARTS, SCHEDULES, STEPS = 2, 200, 16  # a part's
ORDER = ("lr", "momentum", "weight_decay")
RECIPES = (
    Recipe(stages=(*ORDER, "refine")),
    Recipe(stages=("lr", "weight_decay", "refine"), short=0.25),
    Recipe(),
)
STEPS_AND_WEIGHTS = {
    "ask": 30,
    "suggest": 30,
    "tell": 24,
    "tell nothing": 4,
    "prune": 3,
    "fail": 5,
    "die": 5,
    "expire": 4,
    "wait": 3,
    "enqueue": 1,
    "move the bounds": 1,
}


class Clock:
    """The clock that stamps trials; each worker's differs by its skew."""

    time, skew = datetime.datetime(2030, 1, 1), datetime.timedelta(0)

    @classmethod
    def now(cls) -> datetime.datetime:
        return cls.time + cls.skew


class Schedule:
    """One study, its workers and what has happened to it."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.recipe = RECIPES[seed % len(RECIPES)]
        self.storage = InMemoryStorage()
        optuna.create_study(storage=self.storage, study_name="s")
        self.warm = self.load(DisciplinedSampler(self.recipe, seed=7))
        self.asked: list[optuna.Trial] = []
        self.training: list[optuna.Trial] = []
        self.dead: list[optuna.Trial] = []
        self.skews = [datetime.timedelta(minutes=self.random.choice((0, 0, 0, -200, 200))) for _ in range(4)]
        self.high = 10.0
        self.checked: set[int] = set()
        self.given: collections.Counter[str] = collections.Counter()
        for trial in undisturbed(seed % len(RECIPES))[: self.random.randrange(12)]:
            self.storage.create_new_trial(self.warm._study_id, template_trial=trial)

    def load(self, sampler: DisciplinedSampler | None = None) -> optuna.Study:
        fresh = sampler or DisciplinedSampler(self.recipe, seed=7)
        return optuna.load_study(storage=self.storage, study_name="s", sampler=fresh)

    def step(self) -> None:
        """Do one thing, if it can be done."""
        Clock.time += datetime.timedelta(seconds=self.random.uniform(1, 400))
        what = self.random.choices(list(STEPS_AND_WEIGHTS), list(STEPS_AND_WEIGHTS.values()))[0]
        if what == "ask":
            Clock.skew = self.random.choice(self.skews)
            study = self.warm if self.random.random() < 0.3 else self.load()
            self.asked.append(study.ask())
            Clock.skew = datetime.timedelta(0)
        elif what == "suggest" and self.asked:
            trial = self.asked.pop(self.random.randrange(len(self.asked)))
            params = suggest(trial, self.high)
            assert all(d._contains(d.to_internal_repr(params[name])) for name, d in trial.distributions.items())
            self.training.append(trial)
        elif what == "tell" and self.training:
            trial = self.pop(self.training)
            self.load().tell(trial.number, loss(trial.params), skip_if_finished=True)
        elif what in ("tell nothing", "prune", "fail") and (self.training or self.asked):
            trial = self.pop(self.training or self.asked)
            if what == "tell nothing":  # what Optuna makes of NaN, None or a word
                self.load().tell(trial.number, math.nan, state=None, skip_if_finished=True)
            else:
                state = TrialState.PRUNED if what == "prune" else TrialState.FAIL
                self.load().tell(trial.number, state=state, skip_if_finished=True)
        elif what == "die" and (self.training or self.asked):
            self.dead.append(self.pop(self.training or self.asked))
        elif what == "expire" and self.dead:
            self.expire(self.pop(self.dead))
        elif what == "wait":
            Clock.time += datetime.timedelta(hours=self.random.uniform(0.1, 3))
            if self.dead and self.random.random() < 0.5:  # it was not dead
                trial = self.pop(self.dead)
                (self.training if trial.params else self.asked).append(trial)
        elif what == "enqueue":
            self.load().enqueue_trial({"lr": 0.05})
        elif what == "move the bounds":
            self.high = self.random.choice((10.0, 0.5))

    def pop(self, trials: list[optuna.Trial]) -> optuna.Trial:
        return trials.pop(self.random.randrange(len(trials)))

    def expire(self, trial: optuna.Trial) -> None:
        """Do what Optuna does with a trial whose heartbeat has stopped."""
        study = self.load()
        study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
        if self.random.random() < 0.5:
            RetryHeartbeatStaleTrialCallback(max_retry=2)(study, self.storage.get_trial(trial._trial_id))

    def check(self) -> None:
        """Check what must hold of every trial that has been decided since the last check."""
        study = self.warm
        trials = study._storage.get_all_trials(study._study_id, deepcopy=False)
        for trial in trials:
            claim = read_claim(trial)
            if trial.state == TrialState.WAITING or claim is None or trial.number in self.checked:
                continue
            self.checked.add(trial.number)
            assert claim["number"] == trial.number
            assert trial.user_attrs["stage"] == claim["stage"]
            assert trial.user_attrs["reason"].startswith(claim["reason"])
            failed = read_claim(trials[trial.system_attrs.get("failed_trial", trial.number)])
            assert failed is None or failed["slot"] == claim["slot"], "a retried trial answers something else"
            if claim["slot"] in (MODEL_SLOT, "enqueued") or "failed_trial" in trial.system_attrs:
                continue
            others = StudyReader().runs(study, trials, except_for=trial.number)
            earlier_runs = [run for run in others if run.state != "failed" and run.number < trial.number]
            live = [run for run in earlier_runs if run.trained or run.state == "running"]
            assert claim["slot"] not in {run.slot for run in live}, "a candidate runs twice"
            self.given[claim["slot"]] += 1
            # once more while nothing has trained, with another configuration, and anew when something has
            assert self.given[claim["slot"]] <= 2 * MAX_FAILURES + 1, "a failing candidate is tried for ever"
            if claim["stage"] in ORDER:
                earlier = ORDER[: ORDER.index(claim["stage"])]
                undecided = [run for run in live if run.state == "running" and stage_of(run.slot) in earlier]
                assert not undecided, f"{claim['stage']} is built on an undecided stage"

    def decisions(self) -> list[Any]:
        """Return what a sampler that has seen everything and a fresh one would decide now."""
        asking = optuna.load_study(storage=self.storage, study_name="s", sampler=optuna.samplers.RandomSampler(seed=0))
        trial = self.storage.get_trial(asking.ask()._trial_id)
        found = []
        for study in (self.warm, self.load()):
            sampler = study.sampler
            assert isinstance(sampler, DisciplinedSampler)
            proposal = sampler._decision.propose(study, trial, 0)
            found.append((proposal, sampler._decision.model(study, trial, proposal) if proposal.by_model else {}))
        return found


@functools.cache
def undisturbed(recipe: int) -> list[optuna.trial.FrozenTrial]:
    """Return the trials of a study without faults: schedules begin somewhere in it."""
    study = optuna.create_study(sampler=DisciplinedSampler(RECIPES[recipe], seed=7))
    study.optimize(lambda trial: loss(suggest(trial, 10.0)), n_trials=12)
    return study.trials


def stage_of(slot: str | None) -> str | None:
    head = (slot or "").split(":")[0]
    return "lr" if head.startswith("lr") else head


def suggest(trial: optuna.Trial, high: float) -> dict[str, Any]:
    trial.suggest_float("lr", 1e-5, high, log=True)
    trial.suggest_float("momentum", 0.8, 0.99)
    trial.suggest_float("weight_decay", 1e-7, 1e-1, log=True)
    trial.suggest_int("epochs", 1, 16)
    return trial.params


def loss(params: dict[str, Any]) -> float:
    step = math.log10(params["lr"] / (1 - params["momentum"])) - 0.3
    return 2.3 if step > 0.9 else 0.2 + step**2 + 0.05 * (math.log10(params["weight_decay"]) + 4) ** 2


@pytest.mark.parametrize("part", range(PARTS))
def test_no_schedule_of_faults_breaks_a_rule(part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("optuna.storages._in_memory.datetime", Clock)
    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setattr("optuna_discipline.rules.model.N_CANDIDATES", 12)  # how good its points are is no rule here
    monkeypatch.setattr("optuna_discipline.rules.gaussian_process._STEPS", 2)
    reached: collections.Counter[str] = collections.Counter()
    for seed in range(part * SCHEDULES, (part + 1) * SCHEDULES):
        schedule = Schedule(seed)
        for _ in range(STEPS):
            schedule.step()
            schedule.check()
        seen, fresh = schedule.decisions()
        assert seen == fresh, seed
        trials = schedule.storage.get_all_trials(schedule.warm._study_id, deepcopy=False)
        reached.update({trial.user_attrs.get("stage", "-") for trial in trials})
    assert min(reached[stage] for stage in ("lr", "momentum", "weight_decay", "refine", "enqueued")) >= 10, reached


NEXT = """
import json, sys, optuna
from tests.faults.test_schedules import open_journal, suggest
from optuna_discipline import DisciplinedSampler
optuna.logging.set_verbosity(optuna.logging.ERROR)
study = optuna.load_study(study_name="s", storage=open_journal(sys.argv[1]), sampler=DisciplinedSampler(seed=7))
print(json.dumps([suggest(study.ask(), 10.0) for _ in range(3)]))
"""


def open_journal(path: str) -> JournalStorage:
    return JournalStorage(JournalFileBackend(path))


def test_a_fresh_process_decides_the_same_whatever_its_hashes(tmp_path: Path) -> None:
    found = []
    for seed in ("1", "2"):
        path = tmp_path / f"journal-{seed}"
        study = optuna.create_study(study_name="s", storage=open_journal(str(path)), sampler=DisciplinedSampler(seed=7))
        study.optimize(lambda trial: loss(suggest(trial, 10.0)), n_trials=5)
        root = str(Path(__file__).parents[2])
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": root}
        command = [sys.executable, "-W", "ignore", "-c", NEXT, str(path)]
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
        found.append(json.loads(run.stdout))
    assert found[0] == found[1]
