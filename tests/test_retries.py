import math
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import optuna
import pytest
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from optuna_discipline import DisciplinedSampler
from optuna_discipline import report_epoch
from optuna_discipline import retries
from optuna_discipline.costs import read_costs
from optuna_discipline.study_reader import StudyReader
from tests.test_trial_record import retry_of


def attempts_of(study: optuna.Study, number: int) -> list[FrozenTrial]:
    return retries.former_attempts(study.trials[number], {trial.number: trial for trial in study.trials})


@pytest.mark.filterwarnings("ignore:The reported value is ignored because")  # Optuna's, of an inherited step
@pytest.mark.parametrize(
    ("before", "own", "inherits", "found", "read"),
    [
        ((0, 1, 2), (3, 4), False, [3, 4], [0, 1, 2, 3, 4]),
        ((0, 1, 2), (3, 4), True, [3, 4], [0, 1, 2, 3, 4]),
        ((0, 1, 2), (2, 3), False, [2, 3], [0, 1, 2, 3]),  # from an earlier checkpoint
        ((0, 1, 2), (0, 1), False, [0, 1], [0, 1]),  # anew, and died
        ((0, 1, 2), (0, 1, 2, 3), False, [0, 1, 2, 3], [0, 1, 2, 3]),  # anew
        ((0, 1, 2), (0, 1, 2, 3), True, [3], [0, 1, 2, 3]),
        ((4, 9), (14,), False, [14], [4, 9, 14]),
        ((0, 1), (), False, [], []),
        ((0, 1), (), True, [], [0, 1]),
    ],
)
@pytest.mark.parametrize("sampler", [DisciplinedSampler(seed=0), None])
def test_a_retrys_plain_reports_follow_those_of_its_former_attempt(
    before: tuple[int, ...],
    own: tuple[int, ...],
    inherits: bool,
    found: list[int],
    read: list[int],
    sampler: BaseSampler | None,
) -> None:
    study = optuna.create_study(sampler=sampler)
    first = study.ask()
    for step in before:
        first.report(math.nan if step == 1 else 1.0, step)
    study.tell(first, state=TrialState.FAIL)
    again = retry_of(study, 0, inherits=inherits)
    for step in own:
        again.report(math.nan if step == 1 else 1.0, step)  # as from the same seed
    (trial, attempts) = study.trials[1], attempts_of(study, 1)
    assert [attempt.number for attempt in attempts] == [0]
    is_told = sampler is not None or not inherits
    assert retries.own_steps(trial) == (found if is_told else read)
    assert list(retries.read_reports(trial, attempts)) == read


def test_a_retry_keeps_once_what_it_inherited_and_no_other_trial_keeps_any() -> None:
    study = optuna.create_study(sampler=DisciplinedSampler(seed=0))
    first = study.ask()
    first.report(1.0, 0)
    study.tell(first, state=TrialState.FAIL)
    second = retry_of(study, 0, inherits=True)
    second.report(1.0, 1)
    optuna.Trial(study, second._trial_id)  # as another process of the trial does, while it runs
    study.tell(second, state=TrialState.FAIL)
    retry_of(study, 1)
    kept = [trial.system_attrs.get(retries.INHERITED_KEY) for trial in study.trials]
    assert kept == [None, {"number": 1, "steps": [0]}, {"number": 2, "steps": []}]
    assert [retries.own_steps(trial) for trial in study.trials] == [[0], [1], []]
    assert [attempt.number for attempt in attempts_of(study, 2)] == [0, 1]


def test_a_report_with_the_row_of_a_former_attempt_is_inherited_under_any_sampler() -> None:
    study = optuna.create_study()
    first = study.ask()
    report_epoch(first, 0, val_loss=1.0)
    study.tell(first, state=TrialState.FAIL)
    retry_of(study, 0, inherits=True)
    assert retries.own_steps(study.trials[1]) == []


def test_only_a_retry_follows_former_attempts() -> None:
    study = optuna.create_study()
    for steps in ((0, 1, 2), (3, 4)):
        trial = study.ask()
        for step in steps:
            trial.report(1.0, step)
        study.tell(trial, 1.0)
    assert attempts_of(study, 1) == []
    assert list(retries.read_reports(study.trials[1], [])) == [3, 4]


class Counted(list[FrozenTrial]):
    """Trials that count how often they are gone through."""

    passes = 0

    def __iter__(self) -> Iterator[FrozenTrial]:
        self.passes += 1
        return super().__iter__()


@pytest.mark.parametrize(
    "read",
    [lambda study, trials: read_costs(trials, {}).spent, lambda study, trials: StudyReader().runs(study, trials)],
)
def test_a_study_of_many_retries_is_not_gone_through_for_each(read: Callable[[optuna.Study, Counted], Any]) -> None:
    passes = []
    for n_retries in (1, 9):
        study = optuna.create_study()
        study.add_trial(optuna.create_trial(state=TrialState.FAIL, intermediate_values={0: 1.0}))
        mark = {"failed_trial": 0, "retry_history": [0]}
        retry = optuna.create_trial(state=TrialState.FAIL, intermediate_values={1: 1.0}, system_attrs=mark)
        study.add_trials([retry] * n_retries)
        trials = Counted(study.trials)
        read(study, trials)
        passes.append(trials.passes)
    assert passes[0] == passes[1]
