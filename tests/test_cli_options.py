"""What the command line says where an option, a storage or a study cannot be used."""

import sys
from pathlib import Path

import optuna
import pytest

from optuna_discipline import __version__
from optuna_discipline import cli
from optuna_discipline import storages

pytest.importorskip("torch")
pytest.importorskip("plotly")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tune", "--task", "nothing:here"], "--task must be MODULE:FUNCTION"),
        (["tune", "--data", "fashion-mnist", "--samples", "many"], "--samples must be a number or 'all'"),
        (["tune", "--samples", "abc"], "--samples must be a number or 'all', but got 'abc'"),
        (["tune", "--device", "abacus", "--trials", "1"], "abacus"),
        (["report", "--storage", "sqlite:///no/such.db"], "there is no such file"),
        (["tune", "--samples", "500"], "--samples must go with --data fashion-mnist, but got '500'"),
        (["report", "--storage", "nonsense://"], "--storage nonsense:// does not work"),
        (["tune", "--storage", "study.db"], "--storage study.db does not work, one such as sqlite:///study.db does"),
        (["tune", "--storage", "sqlite:////no/such/folder/study.db"], "unable to open database file"),
        (
            ["report", "--storage", "s.db", "--out", "."],
            "--out must be a file such as report.html, but '.' is a folder",
        ),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == cli.USER_ERROR
    error = capsys.readouterr().err.strip()
    assert error.startswith("optuna-discipline: error:")
    assert message in error
    assert "\n" not in error


def test_an_unknown_study_is_answered_with_the_known_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"sqlite:///{tmp_path / 'two.db'}"
    for name in ("first", "second"):
        optuna.create_study(storage=url, study_name=name)
    assert cli.main(["report", "--storage", url, "--study-name", "third"]) == cli.USER_ERROR
    assert "--study-name 'third' is unknown; the storage holds: first, second" in capsys.readouterr().err
    assert cli.main(["report", "--storage", url]) == cli.USER_ERROR
    assert "--study-name is needed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        *(
            (["dashboard", "--storage", "sqlite:///study.db", "--port", port], f"1 to 65535, but got '{port}'")
            for port in ("0", "65536", "x")
        ),
        *((["tune", "--trials", n], f"--trials: must be a whole number from 1 on, but got '{n}'") for n in ("0", "-3")),
        *(
            (["tune", "--epochs", n], f"--epochs: must be a whole number from 1 to 1000000, but got '{n}'")
            for n in ("0", "x", "1000001", "9" * 20)
        ),
        *(
            (["range-test", "--steps", n], f"--steps: must be a whole number from 10 to 1000000, but got '{n}'")
            for n in ("9", "9" * 20)
        ),
        (["range-test", "--batch-size", "0"], "--batch-size: must be a whole number from 1 on, but got '0'"),
        (["tune", "--study-name", "\udcff"], "--study-name: must be UTF-8, but got '\\udcff': give another"),
        (["report", "--storage", "s.db", "--study-name", "\udcff"], "--study-name: must be UTF-8, but got"),
        *((["tune", "--budget", n], f"number of full trainings, but got '{n}'") for n in ("0", "nan", "inf", "x")),
        (["range-test", "--seed", "-1"], "--seed: must be a whole number from 0 on, but got '-1'"),
        (["tune", "--data", "fashion-mnist", "--task", "a:b"], "not allowed with argument"),
    ],
)
def test_a_number_that_cannot_be_is_refused_before_anything_is_said(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(arguments)
    shown = capsys.readouterr()
    assert (shown.out, message in shown.err) == ("", True)


def test_a_place_that_cannot_be_written_is_named_by_its_option(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    optuna.create_study(storage=url)
    (tmp_path / "file").touch()
    assert cli.main(["dashboard", "--storage", url, "--artifact-dir", str(tmp_path / "file")]) == cli.USER_ERROR
    assert "--artifact-dir must be a folder for the studies' artifacts, but" in capsys.readouterr().err
    out = tmp_path / "none" / "report.html"
    assert cli.main(["report", "--storage", url, "--out", str(out)]) == cli.USER_ERROR
    said = f"optuna-discipline: error: --out must lie in an existing folder, but '{out.parent}' does not exist.\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize("form", ["sqlite:///{}", "{}"])
def test_a_report_never_replaces_the_study_itself(
    form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "study.log"
    url = form.format(place)
    optuna.create_study(storage=storages.opened(url), study_name="kept")
    before = place.read_bytes()
    (tmp_path / "link.html").symlink_to(place)
    for out in (place, tmp_path / "link.html"):
        assert cli.main(["report", "--storage", url, "--out", str(out)]) == cli.USER_ERROR
        said = capsys.readouterr().err
        assert said.startswith("optuna-discipline: error: --out must be a new file or one of HTML, as a former report")
        assert said.endswith(f"'{out}' holds something else, which would be lost: give another.\n")
        assert place.read_bytes() == before


@pytest.mark.parametrize("command", [[], ["report"]])
def test_help_is_as_wide_as_the_terminal(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    with pytest.raises(SystemExit, match="0"):
        cli.main([*command, "--help"])
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line) for line in lines if not line.startswith("  optuna-discipline ")) <= 40  # examples to copy


def test_what_diagnose_cannot_read_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    optuna.create_study(storage=url, study_name="empty")
    optuna.create_study(storage=url, study_name="two", directions=["minimize", "minimize"])
    assert cli.main(["diagnose", "--storage", url, "--study-name", "empty"]) == 0
    assert capsys.readouterr().out == "No trial has been started yet.\n"
    for command in ("diagnose", "report"):
        assert cli.main([command, "--storage", url, "--study-name", "two"]) == cli.USER_ERROR
        assert "one objective, by which its trials are ranked, but 'two' has 2" in capsys.readouterr().err


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"optuna-discipline {__version__}\n"


@pytest.mark.parametrize("command", ["range-test", "tune"])
def test_without_torch_its_extra_is_named(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "optuna_discipline.training.lr_range_test", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert cli.main([command]) == cli.USER_ERROR
    assert "pip install 'optuna-discipline[torch]'" in capsys.readouterr().err
