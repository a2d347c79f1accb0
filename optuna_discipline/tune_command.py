"""The command `optuna-discipline tune`: search, compare with an untuned default, say where everything lies."""

import argparse
import contextlib
import json
import math
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.study import Study
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from optuna_discipline import comparison
from optuna_discipline import costs
from optuna_discipline import examples
from optuna_discipline import output
from optuna_discipline import storages
from optuna_discipline import study_record
from optuna_discipline import trial_record
from optuna_discipline._imports import require
from optuna_discipline.exceptions import DisciplineError
from optuna_discipline.exceptions import MissingExtraError
from optuna_discipline.first_look import as_device
from optuna_discipline.printable import printable
from optuna_discipline.rules.candidates import DEFAULT_BATCH_SIZE
from optuna_discipline.trainer import range_test_cost
from optuna_discipline.tuning import tune
from optuna_discipline.visualization import marks
from optuna_discipline.visualization import story
from optuna_discipline.visualization import terminal
from optuna_discipline.visualization.report import check_place
from optuna_discipline.visualization.report import write_report

INTERRUPTED = 130
STUDY_NAME = "discipline"
TASK_KEY = trial_record.PREFIX + "task"
COMPARISON_SEEDS = 3
# Share of a budget above which a range test is left to `tune`, which runs none that costs over a tenth of a training.
DEAR_RANGE_TEST = 0.1


def run(arguments: argparse.Namespace) -> int:
    """Tune as the command line's arguments say; return the exit code."""
    task, device = examples.load_task(arguments), as_device(arguments.device)
    n_trials = 20 if arguments.trials is None and arguments.budget is None else arguments.trials
    if arguments.out is not None:
        require("plotly.graph_objects", extra="plots")
        output.check_folder("--out", arguments.out, "report.html")  # now, not at the end of a long search
        check_place("the report in --out", arguments.out / "report.html")
    where = _where(task, arguments)
    if not arguments.json:
        limit = (
            marks.counted(n_trials, "trial")
            if n_trials is not None
            else f"a budget of {marks.counted(arguments.budget, 'full training')}"
        )
        length = marks.counted(arguments.epochs, "epoch")
        with output.reader_may_leave():
            print(f"Tuning a network on {task.name}: {limit}, {length} a full training, on {device}.\n")
    with _noting_interruption() as interrupted, _Progress(n_trials, quiet=arguments.json) as progress:
        study = _search(task, where, device, n_trials, progress, arguments)
    if not progress.seen and not interrupted and not arguments.json:
        with output.reader_may_leave():
            print("Nothing was left to run: the study has all its trials; raise --trials or --budget to go on.")
    best = study_record.best_run(study)
    scores: dict[str, comparison.Score] = {}
    report = None
    try:
        report = None if arguments.out is None else write_report(study, arguments.out / "report.html")
        if arguments.storage:
            _publish(study)
        if best is not None and task.test is not None and not arguments.no_compare and not interrupted:
            scores = _compare(task, study, best, arguments, device)
    except KeyboardInterrupt:
        interrupted.append(True)
    finally:  # what was found is told, also where its report or the comparison breaks
        with output.reader_may_leave():
            if arguments.json:
                print(json.dumps(_as_json(study, best, scores, report), allow_nan=False))
            else:
                _print_result(study, best, scores, report, arguments)
    if interrupted:
        return _interrupted(study, arguments)
    if best is None:
        raise DisciplineError("no trial has trained to its end: see what to try next")
    return 0


def _where(task: examples.Task, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the storage of the study, None for none, and its name."""
    name = arguments.study_name or (STUDY_NAME if arguments.data == "digits" else f"{STUDY_NAME}-{arguments.data}")
    storage = None if arguments.storage is None else storages.opened(arguments.storage)
    if storage is not None:
        _check_same_task(storage, name, task.name)
    return {"storage": storage, "study_name": name}


def _search(
    task: examples.Task, where: Any, device: Any, n_trials: int | None, progress: "_Progress", arguments: Any
) -> Study:
    return tune(
        task.build_model,
        task.train,
        task.val,
        n_trials=n_trials,
        budget=arguments.budget,
        optimizer=arguments.optimizer,
        epochs=arguments.epochs,
        range_test=_range_test(task, arguments),
        **where,
        device=device,
        seed=arguments.seed,
        callbacks=[
            lambda study, _: study.set_user_attr(TASK_KEY, task.name),  # at once: the search may be killed
            progress,
            *_live(arguments),
        ],
    )


def _range_test(task: examples.Task, arguments: argparse.Namespace) -> bool | None:
    """Return whether to run a range test: for the report, but as `tune` decides where it takes much of a budget."""
    from optuna_discipline.training.loaders import count_of

    if arguments.budget is None:
        return True
    with contextlib.suppress(ValueError):  # of data that cannot be counted `tune` says what is wrong
        updates = max(1, arguments.epochs * math.ceil(count_of(task.train) / DEFAULT_BATCH_SIZE))
        return True if range_test_cost(updates) <= DEAR_RANGE_TEST * arguments.budget else None
    return None


def _compare(task: Any, study: Study, best: FrozenTrial, arguments: Any, device: Any) -> dict[str, comparison.Score]:
    """Return the scores of the best trial, of the first complete one, as the start has its share, and of a default."""
    first = next(trial for trial in study.trials if trial.state == TrialState.COMPLETE)
    seeds = range(10_000 + arguments.seed, 10_000 + arguments.seed + COMPARISON_SEEDS)
    settings: dict[str, Any] = {"epochs": best.params["epochs"], "seeds": seeds, "device": device}
    ours: dict[str, Any] = {**settings, "cycle": True, "optimizer": arguments.optimizer}
    tuned = comparison.score(task, best.params, **ours)
    begun = tuned if first.number == best.number else comparison.score(task, first.params, **ours)
    default = comparison.score(task, comparison.DEFAULT, cycle=False, **settings)
    return {"tuned": tuned, "first": begun, "default": default}


def _check_same_task(storage: BaseStorage, study_name: str, task_name: str) -> None:
    """Refuse to go on with a study of other data: its best configuration would be passed off as that of these."""
    if study_name not in optuna.get_all_study_names(storage):
        return
    study_id = storage.get_study_id_from_name(study_name)
    ended = storage.get_all_trials(study_id, deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
    earlier = storage.get_study_user_attrs(study_id).get(TASK_KEY)  # read after the trials, which it is older than
    cure = "give another --study-name, or another --storage"
    if earlier is None and ended:
        raise DisciplineError(
            f"the study {study_name!r} was not made by `optuna-discipline tune`, and may be of other data than "
            f"{task_name}: {cure}"
        )
    if earlier not in (None, task_name):
        raise DisciplineError(
            f"the study {study_name!r} was tuned on {printable(str(earlier))}, not on {task_name}: {cure}"
        )


def _interrupted(study: Study, arguments: argparse.Namespace) -> int:
    kept = (
        "the study is kept, and the same command goes on" if arguments.storage else "without --storage nothing is kept"
    )
    output.say(f"\ninterrupted after {marks.counted(len(study.trials), 'trial')}: {kept}")
    return INTERRUPTED


@contextlib.contextmanager
def _noting_interruption() -> Iterator[list[bool]]:
    """Note a Ctrl-C, which `tune` answers by returning the study as it stands."""
    seen: list[bool] = []

    def note(*_: object) -> None:
        seen.append(True)
        raise KeyboardInterrupt

    former = signal.signal(signal.SIGINT, note)
    try:
        yield seen
    finally:
        signal.signal(signal.SIGINT, former)


class _Progress:
    """One line a trial, under a progress bar where there is a terminal."""

    def __init__(self, n_trials: int | None, *, quiet: bool) -> None:
        self._quiet = quiet
        self.seen = 0
        hidden = quiet or not sys.stderr.isatty()
        self._bar = require("tqdm", extra="cli").tqdm(total=n_trials, unit="trial", disable=hidden, leave=False)

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def __call__(self, study: Study, trial: FrozenTrial) -> None:
        self.seen += 1
        self._bar.update()
        if not self._quiet:
            with output.reader_may_leave():
                self._bar.write(terminal.trial_line(trial), file=sys.stdout)


def _print_result(
    study: Study, best: FrozenTrial | None, scores: dict[str, comparison.Score], report: Path | None, arguments: Any
) -> None:
    print("\nWhat was decided")
    for line in terminal.decision_lines(study):
        print(f"  {line}")
    if best is None:
        print("\nWhat to try next", *(f"  {printable(step)}" for step in story.collect(study).next_steps), sep="\n")
    else:
        print("", *terminal.best_lines(study, best), sep="\n")
    if best is not None and scores:
        print(f"\nTrained anew, {COMPARISON_SEEDS} fresh seeds each, {best.params['epochs']} epochs a training")
        print(f"  tuned, 1cycle                      {scores['tuned'].summary()}")
        print(f"  the first trial, 1cycle            {scores['first'].summary()}")
        print(f"  untuned default, constant lr 0.01  {scores['default'].summary()}")
    if arguments.storage or report is not None:
        print("\nWhere it lies")
    if arguments.storage:
        print(f"  study   {storages.shown(arguments.storage)}, name {study.study_name!r}")
    if report is not None:
        print(f"  report  {report}")
    if arguments.storage:
        shown = storages.shown(arguments.storage)
        words = [_program(), "dashboard", "--storage", shown, "--study-name", study.study_name]
        print(f"  look    {printable(shlex.join(words))}")


def _live(arguments: argparse.Namespace) -> list[Callable[[Study, FrozenTrial], None]]:
    """Return what keeps the dashboard up to date during the search; nothing without a storage or plotly."""
    if arguments.storage is None:
        return []
    from optuna_discipline.visualization.dashboard import DashboardCallback

    try:
        return [DashboardCallback()]
    except MissingExtraError:
        return []


def _publish(study: Study) -> None:
    """Put note and pictures into the storage, so that any optuna-dashboard shows them; without it, do without."""
    from optuna_discipline.visualization.dashboard import publish

    with contextlib.suppress(MissingExtraError):
        publish(study)


def _program() -> str:
    """Return how to call this program again: by name if it is on the path, else by where it lies."""
    if shutil.which("optuna-discipline") is not None:
        return "optuna-discipline"
    beside = Path(sys.executable).with_name("optuna-discipline")
    return min(os.path.relpath(beside), str(beside), key=len)


def _as_json(
    study: Study, best: FrozenTrial | None, scores: dict[str, comparison.Score], report: Path | None
) -> dict[str, Any]:
    """Return the result of a study as JSON values."""
    return {
        "study_name": study.study_name,
        "n_trials": len(study.trials),
        "cost_in_full_trainings": costs.cost_in_full_trainings(study),
        "best_trial": None if best is None else best.number,
        "best_value": None if best is None else best.value,
        "best_params": {} if best is None else best.params,
        "next_steps": story.collect(study).next_steps,
        "scores": {name: _finite(score) for name, score in scores.items()},
        "report": None if report is None else str(report),
    }


def _finite(score: comparison.Score) -> dict[str, list[float | None]]:
    """Return a score as JSON, which has no NaN: None for a training that broke."""
    return {part: [x if math.isfinite(x) else None for x in values] for part, values in vars(score).items()}
