import subprocess
import sys

from optuna_discipline import __version__


def test_the_package_runs_as_the_command_line() -> None:
    command = [sys.executable, "-m", "optuna_discipline", "--version"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (0, f"optuna-discipline {__version__}\n")
