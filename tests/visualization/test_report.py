import html
import os
import re
import stat
from pathlib import Path
from typing import Any

import optuna
import pytest

from optuna_discipline import DisciplineError
from optuna_discipline import trial_record
from optuna_discipline import tune
from optuna_discipline import write_report
from optuna_discipline.trainer import OPTIMIZERS
from optuna_discipline.visualization import report


def test_the_report_is_one_offline_file(study: optuna.Study, tmp_path: Path) -> None:
    path = write_report(study, tmp_path / "report.html")
    page = path.read_text(encoding="utf-8")
    assert path.stat().st_size < 6_000_000
    assert list(tmp_path.iterdir()) == [path]
    body = page[page.index("<body>") :]
    for words in ("Best configuration", "LR range test", "Stages", "full trainings", "What to try next"):
        assert words in body
    assert 'src="http' not in page
    assert 'href="http' not in body


def trained_by_tune(**settings: Any) -> tuple[optuna.Study, dict[str, Any]]:
    """A study of `tune` on 33 samples in batches of 4, whose last one is left out; and what its code asks for."""
    torch = pytest.importorskip("torch")
    x = torch.randn(33, 3, generator=torch.Generator().manual_seed(0))
    data, loss_fn = (x, x.sum(1, keepdim=True)), torch.nn.functional.mse_loss
    study = tune(lambda: torch.nn.Linear(3, 1), data, data, n_trials=1, epochs=5, batch_size=4, seed=0, **settings)
    names = {"model": torch.nn.Linear(3, 1), "loss_fn": loss_fn, "train_data": data, "val_data": data}
    return study, names


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("form", ["tuple", "data set", "loader", "accumulated"])
def test_the_printed_code_trains_as_tune_did_on_all_that_tune_takes(optimizer: str, form: str) -> None:
    options = {"accumulate": 3} if form == "accumulated" else {}
    study, names = trained_by_tune(optimizer=optimizer, train_options=options)
    if form in ("data set", "loader"):
        names["train_data"] = list_like(names["train_data"])
    if form == "loader":
        names["train_data"] = pytest.importorskip("torch").utils.data.DataLoader(names["train_data"], batch_size=7)
    code, logs = report._code(study.best_params, study.user_attrs[trial_record.TERMS_KEY]), []
    assert f"optimizer={optimizer!r}" in code
    assert "optuna_discipline." not in code  # what is printed is kept, so it names what is public
    if options:
        code = code.replace("train_options = {}", f"train_options = {options}")
    exec(code, {**names, "print": logs.append})
    lrs = [row.log.lr for row in trial_record.read_rows(study.best_trial)]
    assert [log.lr for log in logs] == pytest.approx(lrs, rel=1e-3)


def test_the_printed_code_names_the_optimizer_of_tune() -> None:
    study, _ = trained_by_tune(optimizer="adam")
    found = re.search("<pre>(.*?)</pre>", report.as_html(study), re.DOTALL)
    assert found is not None
    assert "schedule, optimizer='adam'," in html.unescape(found[1])


def list_like(data: tuple[Any, Any]) -> Any:
    torch = pytest.importorskip("torch")

    class Rows(torch.utils.data.Dataset):  # type: ignore[misc, name-defined]
        def __len__(self) -> int:
            return len(data[0])

        def __getitem__(self, index: int) -> Any:
            return data[0][index], data[1][index]

    return Rows()


def test_a_study_that_tune_did_not_train_shows_its_parameters_and_no_code(study: optuna.Study) -> None:
    """What trained it, nobody has told: an optimizer or a schedule would be invented."""
    page = report.as_html(study)
    body = page[page.index("<body>") :]
    assert "<td>momentum</td>" in body
    assert "<pre>" not in body


@pytest.mark.parametrize(
    "terms", ["sgd", {"optimizer": "sgd'); import os"}, {"optimizer": ["sgd"]}, {"metric": "val_loss"}]
)
def test_damaged_terms_give_no_code(terms: Any, study: optuna.Study) -> None:
    params = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.0, "batch_size": 4, "epochs": 2}
    assert "optimizer='sgd'" in report._code(params, {"optimizer": "sgd"})
    assert report._code(params, terms) == report._code({**params, "lr": "0.1"}, {"optimizer": "sgd"}) == ""


def test_text_of_a_study_is_shown_as_text(plain: optuna.Study) -> None:
    body = report.as_html(plain)
    body = body[body.index("<body>") :]
    assert "<script>alert(1)" not in body
    assert "&lt;script&gt;alert(1)" in body
    assert "<img" not in body


def test_a_page_without_script_says_so_and_leaves_no_holes(study: optuna.Study) -> None:
    page = report.as_html(study)
    assert "<noscript><style>.figure { display: none; }</style></noscript>" in page.partition("<body>")[0]
    assert page.partition("<body>")[2].count("<noscript><p>The pictures of this report need JavaScript.</p>") == 1


def test_a_printed_page_has_margins_and_keeps_heads_and_captions_with_what_they_head(study: optuna.Study) -> None:
    body = report.as_html(study).partition("<body>")[2]
    assert body.count("<table>") == body.count("<thead>") == 2
    assert body.count('<div class="picture"><p class="caption">') == body.count('<p class="caption">') > 0
    assert "@page { margin: 15mm; }" in report.STYLE


def test_an_empty_study_has_a_report(empty: optuna.Study, tmp_path: Path) -> None:
    assert "No training has finished yet" in write_report(empty, tmp_path / "r.html").read_text(encoding="utf-8")


def test_a_study_of_another_sampler_has_no_empty_table_of_stages() -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(lambda t: t.suggest_float("lr", 1e-3, 1), n_trials=1)
    page = report.as_html(study)
    assert "<th>stage</th>" not in page
    assert "another sampler than" in page.replace("\\u003cbr\\u003e", " ")


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


def test_a_study_that_is_gone_is_named_and_its_report_stays(tmp_path: Path) -> None:
    study = optuna.create_study(study_name="gone")
    path = write_report(study, tmp_path / "report.html")
    before = path.read_text(encoding="utf-8")
    optuna.delete_study(study_name="gone", storage=study._storage)
    with pytest.raises(DisciplineError, match="'gone' is no longer in its storage"):
        write_report(study, path)
    assert path.read_text(encoding="utf-8") == before


def test_what_is_no_file_is_not_replaced_by_one(empty: optuna.Study, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(ValueError, match=r"`path` must be a file such as report.html, but .*pipe' is no plain file"):
        write_report(empty, pipe)
    assert pipe.is_fifo()
    loop = tmp_path / "loop.html"
    loop.symlink_to(loop)
    with pytest.raises(ValueError, match=r"`path` must be a file such as .*loop.html' is a link to itself"):
        write_report(empty, loop)
    assert loop.is_symlink()


@pytest.mark.parametrize("former", ["", "\ufeff\n<!DOCTYPE html><p>mine", "<HTML>"])
def test_an_empty_file_and_a_page_are_replaced(former: str, empty: optuna.Study, tmp_path: Path) -> None:
    place = tmp_path / "report.html"
    place.write_text(former, encoding="utf-8")
    assert "No training has finished" in write_report(empty, place).read_text(encoding="utf-8")


@pytest.mark.parametrize("former", ["SQLite format 3\0", '{"op_code":0}', "notes on <html>"])
def test_a_file_that_is_no_page_is_not_replaced(former: str, empty: optuna.Study, tmp_path: Path) -> None:
    place = tmp_path / "study.db"
    place.write_text(former)
    with pytest.raises(ValueError, match=r"`path` must be a new file or one of HTML, .*study.db' holds something else"):
        write_report(empty, place)
    assert place.read_text() == former


def test_bad_places_are_refused_and_the_former_report_stays(
    study: optuna.Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="is a folder"):
        write_report(study, tmp_path)
    with pytest.raises(FileNotFoundError, match="`path` must lie in an existing folder"):
        write_report(study, tmp_path / "no" / "report.html")
    with pytest.raises(TypeError, match=r"`path` must be the name of a file .* but got None"):
        write_report(study, None)  # type: ignore[arg-type]
    former = tmp_path / "report.html"
    former.write_text("<html>former")

    def full(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(report.os, "replace", full)
    with pytest.raises(OSError, match="disk full"):
        write_report(study, former)
    assert former.read_text() == "<html>former"
    assert list(tmp_path.iterdir()) == [former]


def test_what_there_is_nothing_to_show_of_takes_one_line(empty: optuna.Study) -> None:
    body = report.as_html(empty).partition("<body>")[2]
    assert '<div class="figure">' not in body
    for words in ("This study has no LR range test.", "There is no run to show", "No trial has ended at a number."):
        assert body.count(words) == 1
