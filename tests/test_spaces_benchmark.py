"""Studies as users write them: every one trains, is repeatable, and is scored as the README says."""

import json
import math
from dataclasses import replace
from pathlib import Path

import optuna
import pytest

pytest.importorskip("torch")
pytest.importorskip("sklearn")

from benchmarks.spaces import __main__ as spaces
from benchmarks.spaces.training import BROKEN
from benchmarks.spaces.training import ImpossibleError
from benchmarks.spaces.training import SpaceTask
from benchmarks.spaces.training import told
from benchmarks.spaces.training import train


class StoppedTrial(optuna.trial.FixedTrial):
    """Asks to stop at its first report, so a training costs an epoch."""

    def should_prune(self) -> bool:
        return True


@pytest.mark.parametrize("task", spaces.TASKS.values(), ids=spaces.TASKS)
def test_every_study_trains_and_is_repeatable(task: SpaceTask) -> None:
    if task.name != "patience":  # which ends by itself
        task = replace(task, epochs=math.ceil(task.epochs / 3))  # schedules, costs and reports follow
    sampler = optuna.samplers.RandomSampler(seed=1)
    study = optuna.create_study(sampler=sampler)
    while True:
        trial = study.ask()
        try:
            trained = train(task, trial, 5)
        except ImpossibleError:
            assert task.when_impossible != "never"
        else:
            break
    assert not trained.stopped
    names = () if task.name == "control" else ("num_train_epochs", "n_epochs")  # PPO's are passes over its rollouts
    epochs = [trial.params[name] for name in names if name in trial.params]
    if task.name == "patience":
        assert 4 / 20 <= trained.cost <= 1.0
    else:
        assert trained.cost == (epochs[0] / task.epochs if epochs else 1.0)
    reports = study.trials[trial.number].intermediate_values
    again = train(task, StoppedTrial(trial.params), 5)
    assert told(task, again.objective) == reports[min(reports)] if again.stopped else again == trained


def test_what_cannot_run_costs_little_and_is_no_result() -> None:
    for name in ("memory", "combinations", "kernels"):
        trials = spaces.run(spaces.TASKS[name], "random", 0, 1.5)
        impossible = [i for i, (_, value, _) in enumerate(trials) if value == BROKEN]
        assert impossible
        for i in impossible:
            assert trials[i][0] - (trials[i - 1][0] if i else 0.0) == pytest.approx(spaces.COST_OF_IMPOSSIBLE)
            assert not trials[i][2]


def test_a_study_pays_for_stopped_runs_and_does_not_count_them() -> None:
    trials = spaces.run(spaces.TASKS["too-high"], "ours", 0, 5.0)
    assert trials[-1][0] >= 5.0 > trials[-2][0]
    stopped = [i for i, (_, _, whole) in enumerate(trials) if not whole]
    assert all(trials[i][0] - (trials[i - 1][0] if i else 0.0) <= 1.0 for i in stopped)
    assert len(trials) - len(stopped) >= 4


def test_a_score_is_maximised_and_its_regret_is_that_of_what_is_missing() -> None:
    trials = spaces.run(spaces.TASKS["accuracy"], "random", 0, 2.0)
    assert all(0 <= value <= 1 for _, value, _ in trials)
    study = optuna.create_study(direction="maximize")
    told_values = [told(spaces.TASKS["accuracy"], value) for value in (0.1, 0.9)]
    for value in told_values:
        study.tell(study.ask(), value)
    assert study.best_value == told_values[0] == 0.9
    assert told(spaces.TASKS["grids"], 0.1) == 0.1


def test_the_regret_is_zero_at_the_best_and_one_at_the_median_of_random() -> None:
    random = [[(1.0, 0.5, True), (2.0, 0.3, True), (3.0, 0.9, True)]]
    ours = [[(0.5, 0.01, False), (1.5, 0.4, True), (2.5, 0.1, True)]]  # what was stopped is no result
    found = spaces.regrets({"ours": ours, "random": random})
    assert found["ours"][:3].tolist() == pytest.approx([1.0, 0.75, 0.0])
    assert found["random"][:2].tolist() == pytest.approx([1.0, 0.5])


def test_what_is_there_is_not_run_again_and_the_table_reads_the_files_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for method, value in (("ours", 0.1), ("random", 0.3)):
        trials = {"0": [[1.0, value, True], [2.0, 0.4, True]]}
        (tmp_path / f"lists-{method}.json").write_text(json.dumps({"settings": {}, "trials": trials}))
    arguments = ["--out", str(tmp_path), "--tasks", "lists", "--methods", "ours", "random", "--seeds", "1"]
    monkeypatch.setattr("sys.argv", ["spaces", *arguments])
    assert spaces.main() == 0
    assert "| lists | 0.00 0.00 0.00 0.00 | 0.80 0.80 0.80 0.80 |" in capsys.readouterr().out


def test_no_two_studies_share_a_name() -> None:
    assert len(spaces.TASKS) == sum(len(group) for _, group in spaces.GROUPS)
