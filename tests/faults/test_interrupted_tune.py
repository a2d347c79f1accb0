"""Ctrl-C ends `optuna-discipline tune` with what was found until then."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import optuna
import pytest

from optuna_discipline import cli
from optuna_discipline import tune_command

pytest.importorskip("torch")
pytest.importorskip("plotly")

# Ctrl-C comes while the second trial trains.
INTERRUPTED_TASK = """
import signal
import optuna
import torch
class Interrupted(torch.nn.Linear):
    def forward(self, x):
        signal.raise_signal(signal.SIGINT)
def build_model():
    (study,) = optuna.get_all_study_summaries("sqlite:///study.db") or [None]
    return torch.nn.Linear(3, 1) if study is None or study.n_trials < 2 else Interrupted(3, 1)
def make():
    x = torch.randn(64, 3)
    return build_model, (x, x[:, :1]), (x, x[:, :1])
"""


def test_ctrl_c_ends_tune_with_exit_code_130_and_a_study_that_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "interrupted_task.py").write_text(INTERRUPTED_TASK)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    search = "tune --epochs 4 --trials 500 --task interrupted_task:make --storage sqlite:///study.db"
    before = signal.getsignal(signal.SIGINT)
    assert cli.main(search.split()) == tune_command.INTERRUPTED
    assert signal.getsignal(signal.SIGINT) == before
    shown = capsys.readouterr()
    assert "Best configuration" in shown.out
    assert "Trained anew" not in shown.out
    assert "the study is kept, and the same command goes on" in shown.err
    study = optuna.load_study(study_name="discipline", storage="sqlite:///study.db")
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "FAIL"]


# The range test waits to be interrupted.
ENDLESS_TASK = INTERRUPTED_TASK.replace("< 2", "< 1").replace(
    "signal.raise_signal(signal.SIGINT)", "print('begun', file=sys.stderr, flush=True), time.sleep(600)"
)


def test_ctrl_c_before_a_first_trial_has_ended_ends_a_process_soon_with_its_json_and_its_report(tmp_path: Path) -> None:
    (tmp_path / "endless_task.py").write_text(f"import sys, time{ENDLESS_TASK}")
    search = "tune --task endless_task:make --epochs 1 --storage sqlite:///study.db --out . --json"
    command = [sys.executable, "-m", "optuna_discipline.cli", *search.split()]
    run = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert run.stderr is not None
        while "begun" not in (line := run.stderr.readline()):
            assert line, "tune ended before its range test"
        run.send_signal(signal.SIGINT)
        out, error = run.communicate(timeout=60)
    finally:
        run.kill()
    assert run.returncode == tune_command.INTERRUPTED
    assert error == "\ninterrupted after 1 trial: the study is kept, and the same command goes on\n"
    told = json.loads(out)
    assert (told["n_trials"], told["best_trial"], told["report"]) == (1, None, "report.html")
    assert (tmp_path / "report.html").is_file()
