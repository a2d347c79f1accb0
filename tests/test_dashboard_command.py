import re
import socket
from pathlib import Path

import optuna
import pytest

from optuna_discipline import cli
from optuna_discipline import storages

pytest.importorskip("plotly")
dashboard = pytest.importorskip("optuna_dashboard")


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'several.db'}"


def test_every_study_that_can_be_is_published_and_the_others_are_named(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dashboard, "run_server", lambda storage, **options: None)
    optuna.create_study(storage=url, study_name="one").add_trial(optuna.create_trial(value=1.0))
    optuna.create_study(storage=url, study_name="two", directions=["minimize", "minimize"])
    folder = tmp_path / "store"
    assert cli.main(["dashboard", "--storage", url, "--artifact-dir", str(folder)]) == 0
    shown = capsys.readouterr()
    assert "two is shown without its story: a study must have one objective" in shown.err
    first, second = shown.out.splitlines()
    assert first.startswith("Publishing 1 trial first; ")  # before the work, which may take a minute
    assert re.search("/dashboard .stop", second)
    assert len(list(folder.iterdir())) == 1


def test_half_a_last_line_of_a_journal_is_cut_off_before_more_is_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "study.log"
    optuna.create_study(storage=storages.opened(str(path))).add_trial(optuna.create_trial(value=1.0))
    with path.open("ab") as file:
        file.write(b'{"op_code":4,"wor')
    monkeypatch.setattr(dashboard, "run_server", lambda storage, **options: None)
    monkeypatch.setattr(storages, "STILL_SECONDS", 0.01)
    assert cli.main(["dashboard", "--storage", str(path)]) == 0
    assert b"wor\n" not in path.read_bytes()
    assert len(storages.load_study(str(path), None).trials) == 1


def test_a_port_in_use_is_said_before_anything_is_published(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    study = optuna.create_study(storage=url)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert cli.main(["dashboard", "--storage", url, "--port", str(port)]) == cli.USER_ERROR
    shown = capsys.readouterr()
    assert f"--port {port} cannot be served, choose another" in shown.err
    assert shown.out == ""
    assert study._storage.get_study_system_attrs(study._study_id) == {}
