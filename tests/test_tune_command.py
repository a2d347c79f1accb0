import errno
import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest

from optuna_discipline import cli
from optuna_discipline import comparison
from optuna_discipline import tune
from optuna_discipline import tune_command

torch = pytest.importorskip("torch")
pytest.importorskip("plotly")


OWN_TASK = """
import torch
def make():
    x = torch.randn(64, 3)
    return lambda: torch.nn.Linear(3, 1), (x, x[:, :1]), (x, x[:, :1])
"""


@pytest.fixture
def own_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the `--task` of a user's own module in the current folder."""
    (tmp_path / "own_task.py").write_text(OWN_TASK)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return "own_task:make"


def test_a_users_own_task_is_tuned(own_task: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["tune", "--task", own_task, "--trials", "2", "--epochs", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n_trials"] == 2


def test_a_study_has_its_name_without_a_storage_too(own_task: str, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["tune", "--task", own_task, "--trials", "1", "--epochs", "1", "--json"]
    for words, name in (([], "discipline"), (["--study-name", "mine"], "mine")):
        assert cli.main([*common, *words]) == 0
        assert json.loads(capsys.readouterr().out)["study_name"] == name


def test_a_storage_that_does_not_open_is_said_before_the_search_is(
    own_task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "study.log").write_text("notes\n")
    assert cli.main(["tune", "--task", own_task, "--trials", "1", "--storage", "study.log"]) == cli.USER_ERROR
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("optuna-discipline: error: --storage study.log must be a journal of Optuna")


def test_a_disk_that_is_full_ends_the_search_in_one_line(
    own_task: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    started = tune_command._live  # the search's arguments: its storage has been opened
    monkeypatch.setattr(
        tune_command, "_live", lambda given: (monkeypatch.setattr(os, "fsync", full), started(given))[1]
    )
    common = ["tune", "--task", own_task, "--trials", "1", "--epochs", "1"]
    assert cli.main([*common, "--storage", "study.log"]) == cli.USER_ERROR
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "optuna-discipline: error: --storage study.log does not work: [Errno 28] No space left on device"


def test_a_study_of_other_data_does_not_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("first", "second"):
        (tmp_path / f"{name}_task.py").write_text(OWN_TASK)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    common = ["--trials", "1", "--epochs", "1", "--storage", "sqlite:///study.db", "--no-compare", "--json"]
    assert cli.main(["tune", "--task", "first_task:make", *common]) == 0
    assert cli.main(["tune", "--task", "first_task:make", *common]) == 0
    capsys.readouterr()
    assert cli.main(["tune", "--task", "second_task:make", *common]) == cli.USER_ERROR
    assert "was tuned on first_task:make, not on second_task:make: give another" in capsys.readouterr().err
    assert cli.main(["tune", "--task", "second_task:make", "--study-name", "other", *common]) == 0


def test_a_study_that_the_command_has_not_made_does_not_go_on_and_stays_as_it_was(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    plain = optuna.create_study(study_name="plain", storage=url)
    plain.optimize(lambda trial: trial.suggest_float("lr", 0.1, 1), n_trials=1)
    x = torch.randn(64, 3)
    data = x, x[:, :1]
    tuned = tune(lambda: torch.nn.Linear(3, 1), data, data, n_trials=1, epochs=1, storage=url, study_name="tuned")
    for study in (plain, tuned):
        before = study.user_attrs
        arguments = ["tune", "--trials", "2", "--epochs", "1", "--storage", url, "--study-name", study.study_name]
        assert cli.main(arguments) == cli.USER_ERROR
        shown = capsys.readouterr().err
        assert f"the study '{study.study_name}' was not made by `optuna-discipline tune`, and may be of other" in shown
        assert (study.user_attrs, len(study.trials)) == (before, 1)


def test_a_search_that_was_killed_has_said_what_it_is_tuned_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object) -> None:
        raise SystemExit("killed")

    url = f"sqlite:///{tmp_path / 'study.db'}"
    monkeypatch.setattr(tune_command._Progress, "__call__", killed)
    with pytest.raises(SystemExit, match="killed"):
        cli.main(["tune", "--trials", "2", "--epochs", "1", "--storage", url])
    stored = optuna.load_study(study_name="discipline", storage=url)
    assert stored.user_attrs[tune_command.TASK_KEY] == "scikit-learn's digits"


def test_a_search_with_nothing_left_to_run_says_so(own_task: str, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["tune", "--task", own_task, "--trials", "1", "--storage", "sqlite:///study.db"]
    assert cli.main([*common, "--epochs", "1"]) == 0
    assert "Nothing was left to run" not in capsys.readouterr().out
    assert cli.main([*common, "--epochs", "3"]) == 0
    assert "Nothing was left to run: the study has all its trials; raise --trials" in capsys.readouterr().out


@pytest.mark.parametrize("form", [[], ["--json"]])
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError("no memory")])
def test_a_comparison_that_is_cut_short_does_not_cost_the_search(
    error: Any, form: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def cut_short(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(comparison, "score", cut_short)
    code = cli.main(["tune", "--trials", "1", "--epochs", "1", "--out", str(tmp_path), *form])
    shown = capsys.readouterr()
    assert (tmp_path / "report.html").is_file()
    if form:
        assert json.loads(shown.out)["scores"] == {}
    else:
        assert "Best configuration" in shown.out
        assert "Trained anew" not in shown.out
    if error is KeyboardInterrupt:
        assert (code, "interrupted after 1 trial" in shown.err) == (tune_command.INTERRUPTED, True)
    else:
        assert (code, "error: no memory" in shown.err) == (cli.USER_ERROR, True)


@pytest.mark.parametrize(("name", "why"), [("file", "File exists"), ("file/folder", "Not a directory")])
def test_a_report_that_could_not_be_written_is_refused_before_the_search(
    name: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tune_command, "tune", lambda *_, **__: pytest.fail("the search has begun"))
    (tmp_path / "file").touch()
    assert cli.main(["tune", "--out", str(tmp_path / name), "--json"]) == cli.USER_ERROR
    shown = capsys.readouterr().err
    assert "--out must be a folder for report.html, but" in shown
    assert why in shown
    (tmp_path / "report.html").write_text("notes")
    assert cli.main(["tune", "--out", str(tmp_path), "--json"]) == cli.USER_ERROR
    assert "error: the report in --out must be a new file or one of HTML" in capsys.readouterr().err


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_the_result_is_told_where_its_report_cannot_be_written(
    form: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tune_command, "write_report", full)
    arguments = ["tune", "--trials", "1", "--epochs", "1", "--no-compare", "--out", str(tmp_path), *form]
    assert cli.main(arguments) == cli.USER_ERROR
    shown = capsys.readouterr()
    assert "No space left on device" in shown.err
    assert "report  " not in shown.out
    if form:
        assert json.loads(shown.out)["report"] is None
    else:
        assert "Best configuration" in shown.out


def test_a_comparison_that_broke_is_null_in_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = comparison.Score((0.5, math.nan), (math.nan, math.nan))
    monkeypatch.setattr(comparison, "score", lambda *_, **__: broken)
    assert cli.main(["tune", "--trials", "1", "--epochs", "1", "--json"]) == 0
    told = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert told["scores"]["default"] == {"val_accuracy": [0.5, None], "test_accuracy": [None, None]}


def test_a_reader_that_leaves_ends_no_search(
    own_task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    search = f"tune --task {own_task} --trials 2 --epochs 1 --storage sqlite:///study.db --out ."
    reading, writing = os.pipe()
    first: list[str] = []

    def tune_once_the_reader_has_left(*args: Any, **options: Any) -> optuna.Study:
        with open(reading, encoding="utf-8") as reader:
            first.append(reader.readline())
        return tune(*args, **options)

    with open(writing, "w", encoding="utf-8") as pipe, monkeypatch.context() as terminal:  # closing it is the last test
        terminal.setattr(sys, "stdout", pipe)
        terminal.setattr(tune_command, "tune", tune_once_the_reader_has_left)
        assert cli.main(search.split()) == 0
        assert os.path.samestat(os.fstat(writing), os.stat(os.devnull))  # the pipe broke, and its rest goes nowhere
    assert capsys.readouterr().err == ""
    assert first[0].startswith("Tuning a network on")
    assert len(optuna.load_study(study_name="discipline", storage="sqlite:///study.db").trials) == 2
    assert (tmp_path / "report.html").is_file()


BROKEN_TASK = OWN_TASK.replace("torch.randn(64, 3)", "torch.full((64, 3), float('nan'))")


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_search_in_which_nothing_trains_says_what_to_look_at_and_leaves_its_report(
    form: list[str], own_task: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken_task.py").write_text(BROKEN_TASK)
    arguments = ["tune", "--task", "broken_task:make", "--trials", "1", "--epochs", "1", "--out", "out", *form]
    assert cli.main(arguments) == cli.USER_ERROR
    shown = capsys.readouterr()
    assert shown.err == "optuna-discipline: error: no trial has trained to its end: see what to try next\n"
    assert (tmp_path / "out" / "report.html").is_file()
    if form:
        told = json.loads(shown.out)
        assert (told["best_trial"], told["report"]) == (None, "out/report.html")
        assert "look for NaN or inf in the data" in told["next_steps"][0]
    else:
        assert "  range test    The loss of the untrained model was no number" in shown.out
        assert "What to try next\n  Every run diverged" in shown.out


@pytest.mark.parametrize(
    ("limit", "tests"), [(["--budget", "90"], False), (["--budget", "110"], True), (["--trials", "1"], True)]
)
def test_a_range_test_is_left_out_where_it_takes_a_tenth_of_the_budget(
    limit: list[str], tests: bool, own_task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def noted(*_: object, **options: Any) -> optuna.Study:
        asked.append(options["range_test"])
        return tune(*_, **{**options, "budget": None, "n_trials": 1, "range_test": False})

    monkeypatch.setattr(tune_command, "tune", noted)
    assert cli.main(["tune", "--task", own_task, "--epochs", "1", *limit]) == 0  # two updates, and twenty of the test
    assert asked == [True if tests else None]


def test_with_a_budget_wrong_data_are_refused_as_without(own_task: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("five_task.py").write_text("import torch\ndef make():\n    return lambda: torch.nn.Linear(3, 1), 5, 5\n")
    for limit in (["--budget", "5"], ["--trials", "1"]):
        assert cli.main(["tune", "--task", "five_task:make", *limit]) == cli.USER_ERROR
        assert "`train` must be a tuple of tensors or arrays, a torch Dataset" in capsys.readouterr().err


def test_a_budget_of_one_is_not_spoken_of_as_several(own_task: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["tune", "--task", own_task, "--epochs", "1", "--budget", "1"]) == 0
    assert ": a budget of 1 full training, 1 epoch a full training" in capsys.readouterr().out
