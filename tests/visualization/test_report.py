import os
import stat
from pathlib import Path

import numpy as np
import optuna
import pytest

from optuna_discipline import DisciplinedSampler
from optuna_discipline import RangeTest
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
    best = report.story.collect(study).best_trial
    code = report._code(report._by_role(study, best), report._optimizer(study))
    compile(code, "report", "exec")
    assert "total_steps=8 * steps_per_epoch" in code
    assert "optimizer='sgd'" in code
    assert report._code({}, "sgd") == ""


def test_the_code_names_the_optimizer_of_the_study_and_its_own_parameter_names() -> None:
    lrs = np.geomspace(1e-6, 1, 20)
    test = RangeTest(lrs, np.linspace(2, 1, 20), None, "end of range", settings={"optimizer": "AdamW"})
    study = optuna.create_study(sampler=DisciplinedSampler(range_test=test, roles={"alpha": "lr"}, seed=0))
    study.optimize(lambda t: t.suggest_float("alpha", 1e-4, 1, log=True), n_trials=1)
    page = report.as_html(study)
    assert "optimizer=&#x27;adamw&#x27;" in page
    assert f"OneCycle({study.best_params['alpha']:.4g}" in page


def test_the_code_holds_the_momentum_itself_where_the_study_asks_for_1_less_it() -> None:
    study = optuna.create_study(sampler=DisciplinedSampler(seed=0))
    study.optimize(
        lambda t: t.suggest_float("lr", 1e-4, 1, log=True) + t.suggest_float("one_minus_momentum", 0.02, 0.5),
        n_trials=1,
    )
    assert study.best_params["one_minus_momentum"] == pytest.approx(0.05)
    assert "max_momentum=0.95, base_momentum=0.85" in report.as_html(study)


def test_text_of_a_study_is_shown_as_text(plain: optuna.Study) -> None:
    body = report.as_html(plain)
    body = body[body.index("<body>") :]
    assert "<script>alert(1)" not in body
    assert "&lt;script&gt;alert(1)" in body
    assert "<img" not in body


def test_an_empty_study_has_a_report(empty: optuna.Study, tmp_path: Path) -> None:
    assert "No training has finished yet" in write_report(empty, tmp_path / "r.html").read_text(encoding="utf-8")


def test_a_link_stays_a_link_and_a_file_keeps_who_may_read_it(study: optuna.Study, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    place, link = tmp_path / "folder" / "report.html", tmp_path / "link.html"
    link.symlink_to(place)
    for mode in (None, 0o600, 0o664):
        if mode is not None:
            place.chmod(mode)
        assert write_report(study, link) == link
        assert link.is_symlink()
        assert mode in (None, stat.S_IMODE(place.stat().st_mode))
    assert list(place.parent.iterdir()) == [place]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_a_new_report_may_be_read_by_whom_the_umask_says(
    umask: int, mode: int, empty: optuna.Study, tmp_path: Path
) -> None:
    former = os.umask(umask)
    try:
        path = write_report(empty, tmp_path / "report.html")
    finally:
        os.umask(former)
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_what_is_no_file_is_not_replaced_by_one(empty: optuna.Study, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(ValueError, match=r"`path` must be a file such as report.html, but .*pipe' is no plain file"):
        write_report(empty, pipe)
    assert pipe.is_fifo()


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
