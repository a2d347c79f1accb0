"""The command line: `optuna-discipline tune | range-test | report | diagnose | dashboard`."""

import argparse
import contextlib
import dataclasses
import functools
import json
import shutil
import sys
import textwrap
from collections.abc import Callable
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna

from optuna_discipline import __version__
from optuna_discipline import dashboard_command
from optuna_discipline import examples
from optuna_discipline import options
from optuna_discipline import output
from optuna_discipline import storages
from optuna_discipline import trial_record
from optuna_discipline import tune_command
from optuna_discipline._imports import require
from optuna_discipline.exceptions import DisciplineError
from optuna_discipline.first_look import as_device
from optuna_discipline.first_look import check_output
from optuna_discipline.first_look import first_batch
from optuna_discipline.first_look import first_target
from optuna_discipline.losses import default_loss
from optuna_discipline.rules.range_test_curve import MIN_EVALUATIONS
from optuna_discipline.study_diagnosis import diagnose_study
from optuna_discipline.trainer import OPTIMIZERS
from optuna_discipline.visualization import story

USER_ERROR = 2
NO_ANSWER = 3
MOST_EPOCHS = MOST_STEPS = 1_000_000  # more is a slip, and would only be seen after days
EXIT_CODES = (
    "exit codes: 0 done, 2 a mistake in the call or its data, 3 the range test found no learning rate, 130 interrupted"
)
EXAMPLES = {
    "tune": (
        "tune --data digits --storage sqlite:///study.db --out results",
        "tune --data fashion-mnist --data-root ~/data --samples all --device cuda --budget 20",
        "tune --task my_module:my_task --trials 30 --json > result.json",
    ),
    "range-test": ("range-test --data digits", "range-test --task my_module:my_task --optimizer adamw --json"),
    "report": (
        "report --storage sqlite:///study.db --out report.html",
        "report --storage journal.log --study-name discipline --json",
    ),
    "diagnose": ("diagnose --storage sqlite:///study.db", "diagnose --storage sqlite:///study.db --json"),
    "dashboard": (
        "dashboard --storage sqlite:///study.db",
        "dashboard --storage postgresql+psycopg://me@host/studies --artifact-dir artifacts --port 8123",
    ),
}
STORAGE_HELP = "Optuna storage: a URL such as sqlite:///study.db, or a journal file such as study.log"
ONE_STUDY = "needed where the storage holds several studies"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code (0 done, 2 a user's mistake, 3 no answer, 130 interrupted)."""
    output.make_ready()
    arguments = _parser().parse_args(argv)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with output.reader_may_leave(), storages.errors_of(getattr(arguments, "storage", None)):
            return int(arguments.run(arguments))
        return 0
    except KeyboardInterrupt:
        output.say("\ninterrupted")
        return tune_command.INTERRUPTED
    except (DisciplineError, ValueError, TypeError, OSError, KeyError, ImportError, RuntimeError) as error:
        output.say(f"optuna-discipline: error: {storages.one_line(error)}")
        return USER_ERROR


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="optuna-discipline",
        description=_wrapped("Tune learning rate, momentum, weight decay and batch size by Leslie Smith's discipline."),
        epilog=_examples(*EXAMPLES),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"optuna-discipline {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_tune(commands)
    _add_range_test(commands)
    _add_report(commands)
    _add_diagnose(commands)
    _add_dashboard(commands)
    return parser


def _add_tune(commands: Any) -> None:
    tune = _add_command(commands, "tune", "tune a network and compare it with an untuned default", tune_command.run)
    _add_task(tune)
    limit = tune.add_mutually_exclusive_group()
    limit.add_argument(
        "--trials",
        type=options.whole,
        help="trials of the whole study, not counting those that failed or were interrupted before (default 20)",
    )
    budget = "cost of the whole study in full trainings, with its range test, which is left out where it is dear"
    limit.add_argument("--budget", type=options.budget, help=budget)
    epochs = functools.partial(options.whole, most=MOST_EPOCHS)
    tune.add_argument("--epochs", type=epochs, default=16, help="epochs of a full training from now on (default 16)")
    tune.add_argument("--optimizer", choices=OPTIMIZERS, default="sgd")
    tune.add_argument("--storage", help=f"{STORAGE_HELP}; without it nothing is kept")
    name = "an existing study goes on (default discipline, or discipline-DATA)"
    tune.add_argument("--study-name", type=options.name, help=name)
    tune.add_argument("--out", type=Path, help="folder for report.html")
    tune.add_argument("--no-compare", action="store_true", help="leave the comparison with the default out")
    tune.add_argument("--json", action="store_true", help="print the result as JSON and nothing else")


def _add_range_test(commands: Any) -> None:
    range_test = _add_command(commands, "range-test", "run one LR range test", _range_test)
    _add_task(range_test)
    steps = functools.partial(options.whole, least=MIN_EVALUATIONS, most=MOST_STEPS)
    range_test.add_argument("--steps", type=steps, default=100, help="optimizer updates of the sweep (default 100)")
    range_test.add_argument("--batch-size", type=options.whole, default=64)
    range_test.add_argument("--optimizer", choices=OPTIMIZERS, default="sgd")
    range_test.add_argument("--json", action="store_true", help="print the curves and the choice as JSON")


def _add_report(commands: Any) -> None:
    report = _add_command(commands, "report", "write a study's report as one HTML file", _report)
    _add_study(report, ONE_STUDY)
    report.add_argument("--out", type=Path, default=Path("report.html"), help="file (default report.html)")
    report.add_argument("--json", action="store_true", help="print what the report says as JSON, too")


def _add_diagnose(commands: Any) -> None:
    diagnose = _add_command(commands, "diagnose", "say what the curves of a study show", _diagnose)
    _add_study(diagnose, ONE_STUDY)
    diagnose.add_argument("--json", action="store_true", help="print the verdicts as JSON")


def _add_dashboard(commands: Any) -> None:
    text = "publish a study's pictures and open optuna-dashboard"
    dashboard = _add_command(commands, "dashboard", text, dashboard_command.run)
    _add_study(dashboard, "publish only this one")
    port = functools.partial(options.whole, most=65_535)
    dashboard.add_argument("--port", type=port, default=8080, help="(default 8080)")
    dashboard.add_argument(
        "--artifact-dir",
        type=Path,
        help="folder of the studies' artifacts, the report among them (default: beside the storage's file)",
    )


def _add_command(
    commands: Any, name: str, text: str, run: Callable[[argparse.Namespace], int]
) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name,
        help=text,
        description=_wrapped(f"{text[0].upper()}{text[1:]}."),
        epilog=_examples(name),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(run=run)
    return command


def _examples(*names: str) -> str:
    lines = [f"  optuna-discipline {example}" for name in names for example in EXAMPLES[name]]
    return "\n".join(["examples:", *lines, "", _wrapped(EXIT_CODES)])


def _wrapped(text: str) -> str:
    """Return text in lines as long as argparse's own, which leaves alone what stands beside examples to copy."""
    return textwrap.fill(text, max(11, shutil.get_terminal_size().columns - 2))


def _add_task(command: argparse.ArgumentParser) -> None:
    data = command.add_mutually_exclusive_group()
    data.add_argument("--data", choices=("digits", "fashion-mnist"), default="digits", help="(default digits)")
    data.add_argument("--task", metavar="MODULE:FUNCTION", help="your own: returns build_model, train, val")
    command.add_argument("--data-root", help="folder that holds FashionMNIST/raw, or to download it into")
    samples = f"images of Fashion-MNIST, or all (default {examples.FASHION_MNIST_SAMPLES})"
    command.add_argument("--samples", help=samples)
    command.add_argument(
        "--device",
        type=lambda text: None if text == "auto" else text,
        help="auto, cpu or cuda (default auto: cuda if there is one)",
    )
    seed = "fixes weights, orders and configurations; the data stay the same (default 0)"
    command.add_argument("--seed", type=functools.partial(options.whole, least=0), default=0, help=seed)


def _add_study(command: argparse.ArgumentParser, study_name_help: str) -> None:
    command.add_argument("--storage", required=True, help=STORAGE_HELP)
    command.add_argument("--study-name", type=options.name, help=study_name_help)


def _range_test(arguments: argparse.Namespace) -> int:
    torch = require("torch", extra="torch")
    from optuna_discipline.training.lr_range_test import lr_range_test

    task, device = examples.load_task(arguments), as_device(arguments.device)
    batch = first_batch("train", task.train)
    loss_fn = default_loss(first_target(batch))
    check_output("train", task.build_model().to(device), batch, loss_fn, device, metric="val_loss", own_loss=False)
    torch.manual_seed(arguments.seed)
    test = lr_range_test(
        task.build_model().to(device),
        loss_fn,
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
    return NO_ANSWER if choice.max_lr is None else 0


def _report(arguments: argparse.Namespace) -> int:
    from optuna_discipline.visualization.report import check_place
    from optuna_discipline.visualization.report import write_report

    check_place("--out", arguments.out)
    study = storages.load_study(arguments.storage, arguments.study_name)
    try:
        path = write_report(study, arguments.out)
    except OSError as error:
        reason = error.strerror or error
        raise DisciplineError(f"--out {str(arguments.out)!r} cannot be written, choose another: {reason}") from error
    if arguments.json:
        told = dataclasses.asdict(story.collect(study))
        print(json.dumps({"report": str(path), "study_name": study.study_name, **told}, allow_nan=False))
    else:
        print(path)
    return 0


def _diagnose(arguments: argparse.Namespace) -> int:
    verdicts = []
    study = storages.load_study(arguments.storage, arguments.study_name)
    trial_record.sign_of(study)  # refuses several objectives, as the report does
    for trial in study.trials:
        found, state = trial_record.read_diagnosis(trial), trial.state.name.lower()
        verdict, advice = ("too little to read", "") if found is None else (str(found.verdict), found.advice)
        if found is None and trial.intermediate_values and trial_record.read_curve(trial) is None:
            verdict, advice = "the objective only", "report its losses, too (TrialReporter, report_epoch)"
        if state == "fail" and verdict != "diverged":
            advice = "look at the error that it has logged (a result of NaN or an interruption fails a trial, too)"
        elif trial_record.breaks_a_constraint(trial):
            advice = "it broke a constraint"
        verdicts.append({"trial": trial.number, "state": state, "verdict": verdict, "advice": advice})
    if arguments.json:
        print(json.dumps(verdicts))
        return 0
    if not verdicts:
        print("No trial has been started yet.")
    for line in verdicts:
        print(f"{line['trial']:>5}  {line['state']:<8}  {line['verdict']:<19} {line['advice']}")
    with contextlib.suppress(DisciplineError):  # nothing can be read, and every line above says so
        print("", *diagnose_study(study).advice, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
