"""The scripts without their downloads: a stamp stands for a finished installation."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPTS = [*sorted((ROOT / "scripts").glob("*")), ROOT / ".ci" / "run"]


def call(script: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **variables}
    return subprocess.run(
        [ROOT / "scripts" / script, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_every_script_is_executable_stops_at_errors_and_parses(script: Path) -> None:
    text = script.read_text(encoding="utf-8")
    assert script.stat().st_mode & 0o111
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "set -euo pipefail" in text
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0


def test_an_old_or_absent_python_is_named(tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    for python in (str(old), "no-such-python"):
        run = call("setup", PYTHON=python, VENV=str(tmp_path / "venv"))
        assert run.returncode == 1
        assert f"Python 3.10 or newer is needed; '{python}' is not that" in run.stderr


def test_a_python_without_venv_names_the_package_to_install(tmp_path: Path) -> None:
    bare = tmp_path / "python3"
    bare.write_text('#!/bin/sh\nif [ "$1" = -m ]; then exit 1; fi\nexit 0\n')
    bare.chmod(0o755)
    run = call("setup", PYTHON=str(bare), VENV=str(tmp_path / "venv"))
    assert run.returncode == 1
    assert "apt install python3-venv" in run.stderr


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """Return an environment that scripts/setup takes for finished, with a program that prints its arguments."""
    folder = tmp_path / "venv"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").write_text(f'#!/bin/sh\n[ "$2" = pip ] && exit 0\nexec {sys.executable} "$@"\n')
    (folder / "bin" / "python").chmod(0o755)
    program = folder / "bin" / "optuna-discipline"
    program.write_text('#!/bin/sh\necho "$@"\n')
    program.chmod(0o755)
    assert call("setup", VENV=str(folder)).returncode == 0
    return folder


def test_setup_is_silent_the_second_time(installed: Path) -> None:
    run = call("setup", VENV=str(installed))
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_the_demo_passes_its_options_on_and_takes_an_environment_anywhere(installed: Path, tmp_path: Path) -> None:
    run = subprocess.run(
        [ROOT / "scripts" / "demo", "--data", "fashion-mnist"],
        env={**os.environ, "VENV": str(installed)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.split()[-2:] == ["--data", "fashion-mnist"]
    assert "--storage sqlite:///discipline-demo/study.db --out discipline-demo" in run.stdout
    assert (tmp_path / "discipline-demo").is_dir()


def test_servers_that_cannot_be_installed_are_named_and_fail_nothing(tmp_path: Path) -> None:
    for name, code in (("bash", "exec /bin/bash"), ("id", "echo 1000; exit"), ("ls", "exit 2")):
        (tmp_path / name).write_text(f'#!/bin/sh\n{code} "$@"\n')
        (tmp_path / name).chmod(0o755)
    run = subprocess.run(
        ["/bin/bash", "-c", 'sed "s|:/usr/sbin||" "$0" | PATH=$1 /bin/bash', ROOT / "scripts" / "servers", tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0
    assert "Not tested, because not installed: postgresql mariadb-server redis-server" in run.stderr
