from pathlib import Path

import optuna
import pytest

from optuna_discipline import write_report
from optuna_discipline.visualization import report


def test_the_report_is_one_offline_file(study: optuna.Study, tmp_path: Path) -> None:
    path = write_report(study, tmp_path / "report.html")
    page = path.read_text(encoding="utf-8")
    assert path.stat().st_size < 6_000_000
    assert list(tmp_path.iterdir()) == [path]
    body = page[page.index("<body>") :]
    for words in ("Best configuration", "LR range test", "Stages", "OneCycle(", "full trainings", "What to try next"):
        assert words in body
    assert 'src="http' not in page
    assert 'href="http' not in body


def test_the_code_in_the_report_runs(study: optuna.Study) -> None:
    code = report._code(report.story.collect(study).best_params)
    compile(code, "report", "exec")
    assert "total_steps=8 * steps_per_epoch" in code
    assert report._code({"x": 1}) == ""


def test_text_of_a_study_is_shown_as_text(plain: optuna.Study) -> None:
    body = report.as_html(plain)
    body = body[body.index("<body>") :]
    assert "<script>alert(1)" not in body
    assert "&lt;script&gt;alert(1)" in body
    assert "<img" not in body


def test_an_empty_study_has_a_report(empty: optuna.Study, tmp_path: Path) -> None:
    assert "No training has finished yet" in write_report(empty, tmp_path / "r.html").read_text(encoding="utf-8")


def test_bad_places_are_refused_and_the_former_report_stays(
    study: optuna.Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="is a folder"):
        write_report(study, tmp_path)
    with pytest.raises(FileNotFoundError, match="`path` must lie in an existing folder"):
        write_report(study, tmp_path / "no" / "report.html")
    former = tmp_path / "report.html"
    former.write_text("former")

    def full(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(report.os, "replace", full)
    with pytest.raises(OSError, match="disk full"):
        write_report(study, former)
    assert former.read_text() == "former"
    assert list(tmp_path.iterdir()) == [former]
