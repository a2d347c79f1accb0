import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import optuna
import pytest

from optuna_discipline import cli
from optuna_discipline import output


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_closed_stream_ends_nothing_and_no_file_takes_its_place(closed: str, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    optuna.create_study(storage=url).add_trial(optuna.create_trial(value=1.0))
    before = (tmp_path / "study.db").read_bytes()
    script = f"{sys.executable} -m optuna_discipline diagnose --storage {url} {closed}"
    run = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    assert (tmp_path / "study.db").read_bytes() == before


def test_where_an_error_cannot_be_printed_the_exit_code_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.StringIO):
        def write(self, _: str) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(sys, "stderr", Full())
    assert cli.main(["report", "--storage", "sqlite:///none.db"]) == cli.USER_ERROR


def test_a_folder_is_made_and_a_file_is_none(tmp_path: Path) -> None:
    output.check_folder("--out", tmp_path / "new" / "folder", "a report")
    assert os.listdir(tmp_path / "new" / "folder") == []
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"--out must be a folder for a report, but '.*file' is none: File exists"):
        output.check_folder("--out", tmp_path / "file", "a report")
