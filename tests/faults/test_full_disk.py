"""A disk that is full while something is written beside the search: the search goes on, what was there stays."""

import errno
import os
from pathlib import Path
from typing import Any
from typing import BinaryIO

import optuna
import pytest

from optuna_discipline import DashboardCallback
from optuna_discipline import DisciplinedSampler
from optuna_discipline import write_report

pytest.importorskip("plotly")


class FullStore:
    """An artifact store on a full disk."""

    asked = 0

    def open_reader(self, artifact_id: str) -> BinaryIO:
        raise KeyError(artifact_id)

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        self.asked += 1
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def remove(self, artifact_id: str) -> None:
        raise KeyError(artifact_id)


def new_study() -> optuna.Study:
    return optuna.create_study(sampler=DisciplinedSampler(seed=0))


def objective(trial: optuna.Trial) -> float:
    return abs(trial.suggest_float("lr", 1e-5, 10, log=True) - 0.3)


def test_a_full_artifact_store_is_said_and_costs_no_trial(caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("optuna_dashboard")
    optuna.logging.enable_propagation()
    store, study = FullStore(), new_study()
    try:
        callback = DashboardCallback(share=1.0, artifact_store=store)
        study.optimize(objective, n_trials=2, callbacks=[callback])
    finally:
        optuna.logging.disable_propagation()
    assert store.asked >= 1
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "COMPLETE"]
    assert "No space left on device" in caplog.text


def test_a_report_that_does_not_fit_leaves_the_old_one_and_no_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = new_study()
    study.optimize(objective, n_trials=1)
    report = tmp_path / "report.html"
    write_report(study, report)
    before = report.read_text(encoding="utf-8")
    opened = Path.open

    def full(*args: Any, **kwargs: Any) -> Any:
        file = opened(*args, **kwargs)

        def write(text: str) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        file.write = write
        return file

    monkeypatch.setattr(Path, "open", full)
    study.optimize(objective, n_trials=1)
    with pytest.raises(OSError, match="No space left on device"):
        write_report(study, report)
    assert report.read_text(encoding="utf-8") == before
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
