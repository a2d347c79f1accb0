import contextlib
import io
import json
import math
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from optuna_discipline import DisciplinedSampler
from optuna_discipline import cli
from optuna_discipline import report_epoch
from optuna_discipline import storages
from optuna_discipline import tune_command

pytest.importorskip("torch")
pytest.importorskip("plotly")
pytestmark = pytest.mark.xdist_group("command line")  # all in one process, which tunes once


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('cli') / 'study.db'}"


@pytest.fixture(scope="module")
def tuned(stored: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Run the demo in small and return what it printed."""
    out = tmp_path_factory.mktemp("out")
    arguments = ["tune", "--trials", "5", "--epochs", "2", "--storage", stored, "--out", str(out)]
    with contextlib.redirect_stdout(io.StringIO()) as printed, pytest.MonkeyPatch.context() as patch:
        patch.setattr(tune_command, "COMPARISON_SEEDS", 1)
        assert cli.main(arguments) == 0
    assert (out / "report.html").stat().st_size > 10_000
    return printed.getvalue()


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Return what writes a module of the user's, by name and code, into the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return lambda name, code: (tmp_path / f"{name}.py").write_text(code) and None


def test_tune_prints_a_line_a_trial_the_decisions_and_where_things_lie(tuned: str, stored: str) -> None:
    lines = tuned.splitlines()
    assert sum("epochs  lr" in line for line in lines) == 5
    for words in (
        "What was decided",
        "range test",
        "Best configuration",
        "the first trial, 1cycle",
        "untuned default",
    ):
        assert words in tuned
    assert f"dashboard --storage {stored} --study-name discipline" in tuned


def test_tune_goes_on_and_speaks_json(tuned: str, stored: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["tune", "--trials", "6", "--epochs", "2", "--storage", stored, "--no-compare", "--json"]
    assert cli.main(arguments) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["n_trials"] == 6
    assert set(result["best_params"]) == {"lr", "momentum", "weight_decay", "batch_size", "epochs"}


def test_report_is_written(tuned: str, stored: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["report", "--storage", stored, "--out", str(tmp_path / "r.html")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "r.html")
    assert "<html" in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_letters_that_the_terminal_lacks_are_written_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url, out = f"sqlite:///{tmp_path / 'é.db'}", tmp_path / "ré.html"
    optuna.create_study(storage=url)
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    assert (cli.main(["report", "--storage", url, "--out", str(out)]), capsys.readouterr().err) == (0, "")
    assert terminal.buffer.getvalue().strip().endswith(rb"r\xe9.html")  # type: ignore[attr-defined]
    assert out.is_file()


def test_report_speaks_json_for_scripts(
    tuned: str, stored: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["report", "--storage", stored, "--out", str(tmp_path / "r.html"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["report"] == str(tmp_path / "r.html")
    assert told["headline"].startswith("The lowest validation loss is")
    assert told["stages"][0]["stage"] == "lr"


def test_a_journal_file_is_a_storage_by_its_path(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "study.log"
    study = optuna.create_study(storage=storages.opened(str(path)), study_name="kept in a journal")
    study.add_trial(optuna.create_trial(value=1.0))
    assert cli.main(["report", "--storage", str(path), "--out", str(tmp_path / "r.html")]) == 0
    assert cli.main(["report", "--storage", str(tmp_path / "other.log")]) == cli.USER_ERROR
    assert "other.log: there is no such file" in capsys.readouterr().err


def test_a_reader_that_has_seen_enough_is_no_error(
    tuned: str, stored: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w", encoding="utf-8") as pipe, monkeypatch.context() as terminal:  # closing it is the last test
        terminal.setattr(sys, "stdout", pipe)
        assert cli.main(["diagnose", "--storage", stored]) == 0
    assert capsys.readouterr().err == ""


def test_diagnose_reads_every_trial(tuned: str, stored: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["diagnose", "--storage", stored, "--json"]) == 0
    verdicts = json.loads(capsys.readouterr().out)
    assert len(verdicts) >= 5
    assert cli.main(["diagnose", "--storage", stored]) == 0


def test_range_test_prints_its_choice(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["range-test", "--steps", "60"]) == 0
    assert capsys.readouterr().out.startswith("max_lr")


def test_range_test_takes_the_loss_that_suits_the_targets(
    own_module: Callable[[str, str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    own_module(
        "sum_of_inputs",
        "import torch\n"
        "def make():\n"
        "    x = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))\n"
        "    data = x, x.sum(1, keepdim=True)\n"
        "    return lambda: torch.nn.Linear(3, 1), data, data\n",
    )
    assert cli.main(["range-test", "--task", "sum_of_inputs:make", "--steps", "60", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["status"], len(told["lrs"]) <= 60) == ("OK", True)


def test_dashboard_publishes_and_serves(
    tuned: str, stored: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    served: list[Any] = []
    dashboard = pytest.importorskip("optuna_dashboard")
    monkeypatch.setattr(dashboard, "run_server", lambda storage, **options: served.append((storage, options)))
    assert cli.main(["dashboard", "--storage", stored, "--port", "8123"]) == 0
    ((storage, options),) = served
    assert options["port"] == 8123
    assert storage.get_all_studies()[0].study_name == "discipline"
    artifacts = Path(stored.removeprefix("sqlite:///")).with_name("study-artifacts")
    (artifact,) = artifacts.iterdir()
    with options["artifact_store"].open_reader(artifact.name) as file:
        assert file.read(15) == b"<!doctype html>"
    assert "http://127.0.0.1:8123/dashboard/studies/1" in capsys.readouterr().out


def test_too_little_to_read_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"sqlite:///{tmp_path / 'one.db'}"

    def objective(trial: optuna.Trial) -> float:
        report_epoch(trial, 0, val_loss=1.0, train_loss=1.0, n_epochs=1)
        return 1.0

    optuna.create_study(storage=url).optimize(objective, n_trials=1)
    assert cli.main(["diagnose", "--storage", url]) == 0
    assert "too little to read" in capsys.readouterr().out


def test_plain_reports_are_named_as_what_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def objective(trial: optuna.Trial) -> float:
        trial.report(0.5, 0)
        return 0.5

    url = f"sqlite:///{tmp_path / 'one.db'}"
    optuna.create_study(storage=url).optimize(objective, n_trials=1)
    assert cli.main(["diagnose", "--storage", url]) == 0
    assert "    0  complete  the objective only  report its losses, too" in capsys.readouterr().out


def test_diagnose_says_what_failed_and_what_broke_a_constraint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def objective(trial: optuna.Trial) -> float:
        for epoch in range(8):
            report_epoch(trial, epoch, val_loss=2 - epoch / 5, train_loss=2 - epoch / 5, n_epochs=8)
        trial.set_constraint("memory", 1.0 - trial.number)
        return math.nan if trial.number == 1 else 0.6

    url = f"sqlite:///{tmp_path / 'three.db'}"
    optuna.create_study(storage=url).optimize(objective, n_trials=3)
    assert cli.main(["diagnose", "--storage", url]) == 0
    first, second, third, _, *together = capsys.readouterr().out.splitlines()
    assert first == "    0  complete  underfitting        it broke a constraint"
    assert second.startswith("    1  fail      underfitting        look at the error that it has logged")
    assert second.endswith(" (a result of NaN or an interruption fails a trial, too)")
    assert third.startswith("    2  complete  underfitting        The validation loss still falls")
    assert together[1:] == ["1 of 3 runs broke a constraint, and is not counted here."]


def test_ctrl_c_is_exit_code_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_range_test", interrupted)
    assert cli.main(["range-test"]) == tune_command.INTERRUPTED
    assert "interrupted" in capsys.readouterr().err


def test_the_decisions_are_those_with_which_the_study_went_on(tuned: str) -> None:
    decided = tuned[tuned.index("What was decided") : tuned.index("Best configuration")]
    assert "lr            " in decided
    assert ": 0." in decided or "still open" in decided


def test_tune_publishes_where_there_is_a_storage(tuned: str, stored: str) -> None:
    pytest.importorskip("optuna_dashboard")
    study = optuna.load_study(study_name="discipline", storage=stored)
    assert "What was decided" in json.dumps(study._storage.get_study_system_attrs(study._study_id))


@pytest.mark.parametrize("command", [None, *cli.EXAMPLES])
def test_help_shows_examples_that_parse(command: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--help"] if command is None else [command, "--help"])
    shown = capsys.readouterr().out
    examples = re.findall(r"^  optuna-discipline (.*?)(?: >.*)?$", shown, flags=re.MULTILINE)
    assert len(examples) >= 2
    for example in examples:
        assert cli._parser().parse_args(example.split()).run


def test_a_model_that_does_not_fit_its_data_is_told_in_a_line(
    own_module: Callable[[str, str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    own_module(
        "misfit",
        "import torch\n"
        "def make():\n"
        "    data = torch.ones(20, 4), torch.zeros(20, dtype=torch.long)\n"
        "    return lambda: torch.nn.Linear(5, 2), data, data\n",
    )
    for command in (["range-test"], ["tune", "--trials", "1"]):
        assert cli.main([*command, "--task", "misfit:make"]) == cli.USER_ERROR
        (line,) = capsys.readouterr().err.splitlines()
        assert "`build_model` must return a model that takes the inputs" in line


def test_a_range_test_without_an_answer_has_an_exit_code_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "MIN_EVALUATIONS", 3)
    for form in ([], ["--json"]):
        assert cli.main(["range-test", "--steps", "3", *form]) == cli.NO_ANSWER
    assert "TOO_FEW_POINTS" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="0"):
        cli.main(["range-test", "--help"])
    assert f"{cli.NO_ANSWER} the range test found no learning rate" in " ".join(capsys.readouterr().out.split())


def test_a_report_in_json_has_no_infinity(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    study = optuna.create_study(storage=url, sampler=DisciplinedSampler(seed=0))
    study.optimize(lambda trial: math.inf * trial.suggest_float("lr", 0.01, 1.0), n_trials=2)
    assert cli.main(["report", "--storage", url, "--out", str(tmp_path / "r.html"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert told["stages"][0]["best_value"] is None
