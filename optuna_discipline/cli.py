"""The command line: `optuna-discipline tune | range-test | report | diagnose | dashboard`."""

import argparse
import contextlib
import json
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Iterator
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import StorageInternalError
from optuna.study import Study
from optuna.trial import FrozenTrial
from sqlalchemy.exc import SQLAlchemyError

from optuna_discipline import comparison
from optuna_discipline import examples
from optuna_discipline import summary
from optuna_discipline import trial_record
from optuna_discipline._imports import require
from optuna_discipline.exceptions import DisciplineError
from optuna_discipline.exceptions import MissingExtraError
from optuna_discipline.rules.diagnosis import diagnose
from optuna_discipline.trainer import as_device
from optuna_discipline.visualization import terminal

USER_ERROR, INTERRUPTED = 2, 130
COMPARISON_SEEDS = 3
EXAMPLES = """examples:
  optuna-discipline tune --data digits --storage sqlite:///study.db --out results
  optuna-discipline tune --data fashion-mnist --data-root ~/data --samples all --device cuda --budget 20
  optuna-discipline tune --task my_module:my_task --trials 30
  optuna-discipline report --storage sqlite:///study.db --study-name discipline --out report.html
  optuna-discipline dashboard --storage sqlite:///study.db
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code (0 done, 2 a user's mistake, 130 interrupted)."""
    arguments = _parser().parse_args(argv)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        return int(arguments.run(arguments))
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return INTERRUPTED
    except (DisciplineError, ValueError, TypeError, OSError, KeyError, ImportError) as error:
        print(f"optuna-discipline: error: {_one_line(error)}", file=sys.stderr)
        return USER_ERROR


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="optuna-discipline",
        description="Tune learning rate, momentum, weight decay and batch size by Leslie Smith's discipline.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    tune = commands.add_parser("tune", help="tune a network and compare it with an untuned default")
    _add_task(tune)
    limit = tune.add_mutually_exclusive_group()
    limit.add_argument("--trials", type=int, help="trials of the whole study (default 20)")
    limit.add_argument("--budget", type=float, help="cost of the whole study in full trainings")
    tune.add_argument("--epochs", type=int, default=16, help="epochs of a full training (default 16)")
    tune.add_argument("--optimizer", choices=("sgd", "adamw", "adam"), default="sgd")
    tune.add_argument("--storage", help="Optuna storage, such as sqlite:///study.db; without it nothing is kept")
    tune.add_argument("--study-name", default="discipline", help="an existing study goes on (default discipline)")
    tune.add_argument("--out", type=Path, help="folder for report.html")
    tune.add_argument("--no-compare", action="store_true", help="leave the comparison with the default out")
    tune.add_argument("--json", action="store_true", help="print the result as JSON and nothing else")
    tune.set_defaults(run=_tune)

    range_test = commands.add_parser("range-test", help="run one LR range test")
    _add_task(range_test)
    range_test.add_argument("--steps", type=int, default=100, help="optimizer updates of the sweep (default 100)")
    range_test.add_argument("--batch-size", type=int, default=64)
    range_test.add_argument("--optimizer", choices=("sgd", "adamw", "adam"), default="sgd")
    range_test.add_argument("--json", action="store_true", help="print the curves and the choice as JSON")
    range_test.set_defaults(run=_range_test)

    for name, run, text in (
        ("report", _report, "write a study's report as one HTML file"),
        ("diagnose", _diagnose, "say what the curves of a study show"),
        ("dashboard", _dashboard, "publish a study's pictures and open optuna-dashboard"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("--storage", required=True, help="Optuna storage, such as sqlite:///study.db")
        command.add_argument("--study-name", help="needed where the storage holds several studies")
        command.set_defaults(run=run)
        if name == "report":
            command.add_argument("--out", type=Path, default=Path("report.html"), help="file (default report.html)")
        if name == "diagnose":
            command.add_argument("--json", action="store_true", help="print the verdicts as JSON")
        if name == "dashboard":
            command.add_argument("--port", type=_port, default=8080, help="(default 8080)")
    return parser


def _add_task(command: argparse.ArgumentParser) -> None:
    command.add_argument("--data", choices=("digits", "fashion-mnist"), default="digits", help="(default digits)")
    command.add_argument("--task", metavar="MODULE:FUNCTION", help="your own: returns build_model, train, val")
    command.add_argument("--data-root", help="folder that holds FashionMNIST/raw, or to download it into")
    command.add_argument("--samples", default=str(examples.FASHION_MNIST_SAMPLES), help="Fashion-MNIST images, or all")
    command.add_argument("--device", default="auto", help="auto, cpu or cuda (default auto: the GPU if there is one)")
    command.add_argument("--seed", type=int, default=0)


def _load_task(arguments: argparse.Namespace) -> examples.Task:
    if arguments.task is not None:
        return examples.load_own_task(arguments.task)
    if arguments.data == "digits":
        # So small a net gains little from a second thread, and waits for it long when another program has the core.
        require("torch", extra="torch").set_num_threads(1)
        return examples.load_digits_task(seed=arguments.seed)
    samples = arguments.samples if arguments.samples == "all" else _integer("--samples", arguments.samples)
    return examples.load_fashion_mnist_task(arguments.data_root, samples=samples, seed=arguments.seed)


def _tune(arguments: argparse.Namespace) -> int:
    from optuna_discipline.tuning import tune

    task, device = _load_task(arguments), as_device(None if arguments.device == "auto" else arguments.device)
    n_trials = 20 if arguments.trials is None and arguments.budget is None else arguments.trials
    _check_out(arguments.out)
    if not arguments.json:
        limit = (
            terminal.counted(n_trials) if n_trials is not None else f"a budget of {arguments.budget:g} full trainings"
        )
        print(f"Tuning a network on {task.name}: {limit}, {arguments.epochs} epochs a full training, on {device}.\n")
    with (
        _storage_errors(arguments.storage),
        _noting_interruption() as interrupted,
        _Progress(n_trials, quiet=arguments.json) as progress,
    ):
        study = tune(
            task.build_model,
            task.train,
            task.val,
            n_trials=n_trials,
            budget=arguments.budget,
            optimizer=arguments.optimizer,
            epochs=arguments.epochs,
            storage=arguments.storage,
            study_name=arguments.study_name if arguments.storage else None,
            device=device,
            seed=arguments.seed,
            callbacks=[progress],
        )
    best = trial_record.best_run(study)
    if best is None:
        if interrupted:
            return _interrupted(study, arguments)
        raise DisciplineError("no trial has finished: nothing to report")
    scores = {}
    if task.test is not None and not arguments.no_compare and not interrupted:
        seeds = range(10_000 + arguments.seed, 10_000 + arguments.seed + COMPARISON_SEEDS)
        settings: dict[str, Any] = {"epochs": best.params["epochs"], "seeds": seeds, "device": device}
        scores["tuned"] = comparison.score(task, best.params, cycle=True, optimizer=arguments.optimizer, **settings)
        scores["default"] = comparison.score(task, comparison.DEFAULT, cycle=False, **settings)
    report = _write_report(study, arguments.out)
    if arguments.storage:
        _publish(study)
    if arguments.json:
        print(json.dumps(summary.as_json(study, best, scores, report)))
    else:
        _print_result(study, best, scores, report, arguments)
    return _interrupted(study, arguments) if interrupted else 0


def _interrupted(study: Study, arguments: argparse.Namespace) -> int:
    kept = (
        "the study is kept, and the same command goes on" if arguments.storage else "without --storage nothing is kept"
    )
    print(f"\ninterrupted after {terminal.counted(len(study.trials))}: {kept}", file=sys.stderr)
    return INTERRUPTED


def _range_test(arguments: argparse.Namespace) -> int:
    from optuna_discipline.training.lr_range_test import lr_range_test

    task, device = _load_task(arguments), as_device(None if arguments.device == "auto" else arguments.device)
    torch = require("torch", extra="torch")
    torch.manual_seed(arguments.seed)
    test = lr_range_test(
        task.build_model().to(device),
        torch.nn.functional.cross_entropy,
        task.train,
        task.val,
        optimizer=arguments.optimizer,
        num_steps=arguments.steps,
        batch_size=arguments.batch_size,
        seed=arguments.seed,
    )
    choice = test.choice
    if arguments.json:
        print(json.dumps({**test.to_dict(), "max_lr": choice.max_lr, "status": choice.status, "reason": choice.reason}))
    else:
        print(f"max_lr  {'none' if choice.max_lr is None else f'{choice.max_lr:.3g}'}   ({choice.status})")
        if choice.bounds is not None:
            print(f"search  {choice.bounds[0]:.3g} to {choice.bounds[1]:.3g}")
        print(choice.reason)
    return 0


def _report(arguments: argparse.Namespace) -> int:
    from optuna_discipline.visualization.report import write_report

    print(write_report(_load_study(arguments), arguments.out))
    return 0


def _diagnose(arguments: argparse.Namespace) -> int:
    verdicts = []
    for trial in _load_study(arguments).trials:
        curve = trial_record.read_curve(trial)
        try:
            found = diagnose(curve) if curve is not None else None
        except DisciplineError:
            found = None
        verdict = "too little to read" if found is None else str(found.verdict)
        advice = "" if found is None else found.advice
        verdicts.append({"trial": trial.number, "verdict": verdict, "advice": advice})
    if arguments.json:
        print(json.dumps(verdicts))
    for line in [] if arguments.json else verdicts:
        print(f"{line['trial']:>5}  {line['verdict']:<19} {line['advice']}")
    return 0


def _dashboard(arguments: argparse.Namespace) -> int:
    from optuna_discipline.visualization.dashboard import publish

    publish(_load_study(arguments))
    print(f"Open http://127.0.0.1:{arguments.port}/dashboard (stop with Ctrl-C)", flush=True)
    try:
        require("optuna_dashboard", extra="dashboard").run_server(arguments.storage, port=arguments.port)
    except OSError as error:
        raise DisciplineError(f"--port {arguments.port} cannot be served, choose another: {error}") from error
    return 0


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


@contextlib.contextmanager
def _storage_errors(url: str | None) -> Iterator[None]:
    """Say in one line which storage does not work, and how a working one is written."""
    try:
        yield
    except (SQLAlchemyError, StorageInternalError) as error:
        found = _one_line(error.__cause__ or error)
        raise DisciplineError(f"--storage {url} does not work, one such as sqlite:///study.db does: {found}") from error


class _Progress:
    """One line a trial, under a progress bar where there is a terminal."""

    def __init__(self, n_trials: int | None, *, quiet: bool) -> None:
        self._quiet = quiet
        hidden = quiet or not sys.stderr.isatty()
        self._bar = require("tqdm", extra="cli").tqdm(total=n_trials, unit="trial", disable=hidden, leave=False)

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def __call__(self, study: Study, trial: FrozenTrial) -> None:
        self._bar.update()
        if not self._quiet:
            self._bar.write(summary.trial_line(trial), file=sys.stdout)


def _print_result(
    study: Study, best: FrozenTrial, scores: dict[str, comparison.Score], report: Path | None, arguments: Any
) -> None:
    print("\nWhat was decided")
    for line in terminal.decision_lines(study):
        print(f"  {line}")
    print("", *terminal.best_lines(study, best), sep="\n")
    if scores:
        print(f"\nTrained anew, {COMPARISON_SEEDS} fresh seeds each, {best.params['epochs']} epochs a training")
        print(f"  tuned, 1cycle                      {scores['tuned'].summary()}")
        print(f"  untuned default, constant lr 0.01  {scores['default'].summary()}")
    if arguments.storage or report is not None:
        print("\nWhere it lies")
    if arguments.storage:
        print(f"  study   {arguments.storage}, name {study.study_name!r}")
    if report is not None:
        print(f"  report  {report}")
    if arguments.storage:
        words = [_program(), "dashboard", "--storage", arguments.storage, "--study-name", study.study_name]
        print(f"  look    {shlex.join(words)}")


def _check_out(out: Path | None) -> None:
    """Refuse now what would lose the report at the end of a long search."""
    if out is not None:
        if out.exists() and not out.is_dir():
            raise ValueError(f"--out must be a folder for report.html, but {str(out)!r} is a file")
        require("plotly.graph_objects", extra="plots")


def _write_report(study: Study, out: Path | None) -> Path | None:
    if out is None:
        return None
    from optuna_discipline.visualization.report import write_report

    out.mkdir(parents=True, exist_ok=True)
    report: Path = write_report(study, out / "report.html")
    return report


def _publish(study: Study) -> None:
    """Put note and pictures into the storage, so that any optuna-dashboard shows them; without it, do without."""
    from optuna_discipline.visualization.dashboard import publish

    with contextlib.suppress(MissingExtraError):
        publish(study)


def _load_study(arguments: argparse.Namespace) -> Study:
    url = arguments.storage
    if url.startswith("sqlite:///") and not Path(url.removeprefix("sqlite:///")).is_file():
        raise DisciplineError(f"--storage {url}: there is no such file")
    with _storage_errors(url):
        names = optuna.get_all_study_names(url)
    name = arguments.study_name or (names[0] if len(names) == 1 else None)
    if name not in names:
        wanted = "--study-name is needed" if name is None else f"--study-name {name!r} is unknown"
        raise DisciplineError(f"{wanted}; the storage holds: {', '.join(names) or 'no study'}")
    return optuna.load_study(study_name=name, storage=url)


def _program() -> str:
    """Return how to call this program again: by name if it is on the path, else by where it lies."""
    if shutil.which("optuna-discipline") is not None:
        return "optuna-discipline"
    beside = Path(sys.executable).with_name("optuna-discipline")
    return min(os.path.relpath(beside), str(beside), key=len)


def _integer(option: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{option} must be a number or 'all', but got {text!r}") from None


def _port(text: str) -> int:
    port = int(text)
    if not 1 <= port <= 65_535:
        raise argparse.ArgumentTypeError(f"must be from 1 to 65535, but got {port}")
    return port


def _one_line(error: BaseException) -> str:
    text = str(error).partition("\n[SQL")[0].partition("\n(Background")[0]
    return " ".join(text.split()) or type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
