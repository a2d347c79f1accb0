import json
import multiprocessing
import os
import pickle
import threading
import time
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.artifacts import FileSystemArtifactStore
from optuna.artifacts import get_all_artifact_meta

from optuna_discipline import DashboardCallback
from optuna_discipline import DisciplineError
from optuna_discipline import UnsupportedStudyError
from optuna_discipline import publish
from optuna_discipline.visualization import dashboard
from optuna_discipline.visualization import note

optuna_dashboard = pytest.importorskip("optuna_dashboard")
GRAPHS = (dashboard.RECIPE_ID, dashboard.COST_ID, dashboard.RANGE_TEST_ID, dashboard.CURVE_ID)


def kept(study: optuna.Study) -> dict[str, Any]:
    return study._storage.get_study_system_attrs(study._study_id)


def note_of(study: optuna.Study, trial_id: int | None = None) -> str:
    return str(optuna_dashboard._note.get_note_from_system_attrs(kept(study), trial_id)["body"])


def graphs(study: optuna.Study) -> dict[str, str]:
    return dict(optuna_dashboard._custom_plot_data.get_plotly_graph_objects(kept(study)))


def snapshots_of(study: optuna.Study) -> Callable[[int], dict[str, Any]]:
    """Return what reads as a database does: later writes are not in what was read."""
    read = study._storage.get_study_system_attrs
    return lambda study_id: dict(read(study_id))


def copy(study: optuna.Study, name: str, storage: Any = None) -> optuna.Study:
    made = optuna.create_study(study_name=name, storage=storage, directions=study.directions)
    made.add_trials(study.get_trials(deepcopy=False))
    for key, value in study.user_attrs.items():
        made.set_user_attr(key, value)
    return made


def test_the_dashboard_reads_the_notes_and_the_figures_and_they_are_replaced(study: optuna.Study) -> None:
    own = copy(study, "published")
    for _ in range(2):
        publish(own)
    assert sorted(graphs(own)) == sorted(GRAPHS)
    assert all("data" in json.loads(figure) for figure in graphs(own).values())
    assert note_of(own).startswith(note.HEADING)
    assert note_of(own, own.trials[4]._trial_id) == note.trial_note(own.trials[4])
    own.add_trial(optuna.create_trial(value=-1.0))
    publish(own)
    assert "validation loss is -1, in trial 17" in note_of(own)


def test_nothing_is_written_where_nothing_has_changed(study: optuna.Study, monkeypatch: pytest.MonkeyPatch) -> None:
    own = copy(study, "unchanged")
    publish(own)
    monkeypatch.setattr(own._storage, "set_study_system_attr", lambda *_: pytest.fail("written"))
    publish(own)


def test_what_a_user_wrote_stays(study: optuna.Study) -> None:
    own = copy(study, "edited")
    trial = own.trials[4]
    optuna_dashboard.save_note(own, "My own words. " * 200)
    optuna_dashboard._note.save_note_with_version(own._storage, own._study_id, trial._trial_id, 1, "mine")
    for _ in range(2):
        publish(own)
    assert note_of(own).startswith("My own words.")
    assert note_of(own).count(note.HEADING) == 1
    assert note_of(own, trial._trial_id) == "mine"


def test_figures_of_the_dashboards_own_function_are_replaced_whole(study: optuna.Study) -> None:
    own = copy(study, "former")
    optuna_dashboard.save_plotly_graph_object(
        own, dashboard.figures(own)[dashboard.COST_ID], graph_object_id=dashboard.COST_ID
    )
    assert len([key for key in kept(own) if dashboard.COST_ID in key]) > 1
    publish(own)
    assert json.loads(graphs(own)[dashboard.COST_ID])["layout"]["title"]["text"].startswith("2. Cost")


def test_any_study_is_published(empty: optuna.Study, plain: optuna.Study) -> None:
    publish(empty)
    publish(plain)
    with pytest.raises(UnsupportedStudyError, match="has 2: use"):
        publish(optuna.create_study(directions=["minimize", "minimize"]))


def test_a_renamed_study_is_published_again_and_its_former_self_is_named(study: optuna.Study) -> None:
    """The dashboard renames by copying trials, user attributes and notes; then it deletes the study."""
    own = copy(study, "own")
    publish(own)
    edited, bare = own.trials[4], own.trials[5]
    optuna_dashboard._note.save_note_with_version(own._storage, own._study_id, edited._trial_id, 2, "mine")
    for key in [key for key in kept(own) if key.startswith(f"dashboard:{bare._trial_id}:")]:
        del own._storage._studies[own._study_id].system_attrs[key]  # its note was not written yet
    renamed = copy(own, "renamed", own._storage)
    optuna_dashboard._note.copy_notes(own._storage, own, renamed)
    optuna.delete_study(study_name="own", storage=own._storage)
    with pytest.raises(DisciplineError, match=r"'own' is no longer in its storage: .* renamed on optuna-dashboard"):
        publish(own)
    publish(renamed)
    assert note_of(renamed, renamed.trials[4]._trial_id) == "mine"
    assert note_of(renamed, renamed.trials[5]._trial_id) == note.trial_note(renamed.trials[5])
    assert sorted(graphs(renamed)) == sorted(GRAPHS)
    assert note_of(renamed).count(note.HEADING) == 1
    assert json.loads(graphs(renamed)[dashboard.RANGE_TEST_ID])["data"]


def test_notes_that_a_copy_of_the_study_holds_under_the_ids_of_other_trials_are_written_anew(
    study: optuna.Study,
) -> None:
    source, target = optuna.storages.InMemoryStorage(), optuna.storages.InMemoryStorage()
    own = copy(study, "own", source)
    publish(own)
    optuna_dashboard._note.save_note_with_version(source, own._study_id, own.trials[9]._trial_id, 2, "mine")
    optuna.create_study(storage=target).add_trials(study.get_trials(deepcopy=False)[:5])
    optuna.copy_study(from_study_name="own", from_storage=source, to_storage=target)
    copied = optuna.load_study(study_name="own", storage=target)
    shift = copied.trials[0]._trial_id - own.trials[0]._trial_id
    assert shift > 0
    publish(copied)
    for trial in copied.trials:
        words = note_of(copied, trial._trial_id)
        assert words == ("mine" if trial.number == 9 - shift else note.trial_note(trial))


def test_what_a_user_saves_while_publish_is_at_work_stays(study: optuna.Study, monkeypatch: pytest.MonkeyPatch) -> None:
    own = copy(study, "busy")
    publish(own)
    own.add_trials(study.get_trials(deepcopy=False)[:3])
    (second, first) = own.trials[-2:]  # the newest is written first
    write, saved = own._storage.set_study_system_attr, []

    def slow(study_id: int, key: str, value: Any) -> None:
        write(study_id, key, value)
        if key.startswith(dashboard.FIGURE_PREFIX) and not saved:
            saved.append("note")
            optuna_dashboard._note.save_note_with_version(own._storage, study_id, None, 7, "My own words.")
        if key.endswith(":note_ver") and len(saved) == 1 and key != "dashboard:note_ver":
            saved.append("trial")
            optuna_dashboard._note.save_note_with_version(own._storage, study_id, second._trial_id, 1, "mine")

    monkeypatch.setattr(dashboard, "LOOKS_APART", 0)  # a look before each note
    monkeypatch.setattr(own._storage, "get_study_system_attrs", snapshots_of(own))
    monkeypatch.setattr(own._storage, "set_study_system_attr", slow)
    publish(own)
    assert saved == ["note", "trial"]
    assert note_of(own).startswith("My own words.")
    assert note_of(own).count(note.HEADING) == 1
    assert note_of(own, second._trial_id) == "mine"
    assert note_of(own, first._trial_id) == note.trial_note(first)


def test_looks_for_what_a_user_writes_meanwhile_take_a_tenth_of_the_time(
    study: optuna.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = copy(study, "long")
    own.add_trials(study.get_trials(deepcopy=False) * 2)
    read, write, clock = own._storage.get_study_system_attrs, own._storage.set_study_system_attr, []

    def look(study_id: int) -> dict[str, Any]:
        clock.append("look")
        return dict(read(study_id))

    def slow(study_id: int, key: str, value: Any) -> None:
        write(study_id, key, value)
        clock.append("write")

    monkeypatch.setattr(own._storage, "get_study_system_attrs", look)
    monkeypatch.setattr(own._storage, "set_study_system_attr", slow)
    monkeypatch.setattr(dashboard.time, "monotonic", lambda: len(clock))
    publish(own)
    assert 1 < clock.count("look") <= 2 + len(clock) / 10  # two are before the notes, of which each is two writes


def test_a_note_whose_process_died_between_its_writes_is_shown_after_the_next(study: optuna.Study) -> None:
    own = copy(study, "died")
    trial = own.trials[4]
    own._storage.set_study_system_attr(own._study_id, f"dashboard:{trial._trial_id}:note_str:0", note.trial_note(trial))
    assert note_of(own, trial._trial_id) == ""
    publish(own)
    assert note_of(own, trial._trial_id) == note.trial_note(trial)


def test_figures_are_small_enough_to_travel_in_every_poll(study: optuna.Study) -> None:
    for graph, figure in dashboard.figures(study).items():
        assert ":" not in graph
        assert len(figure.to_json()) < 30_000
        assert figure.layout.height <= 450


def test_publishing_takes_a_time_that_grows_with_the_trials_and_not_faster(study: optuna.Study) -> None:
    trials = study.get_trials(deepcopy=False)
    seconds = []
    for count in (250, 1_000):
        own = optuna.create_study(study_name=f"{count} trials")
        own.add_trials([trials[number % len(trials)] for number in range(count)])
        began = time.process_time()
        publish(own)
        seconds.append(time.process_time() - began)
    assert seconds[1] < 6 * seconds[0]
    assert all(len(figure) < 30_000 for figure in graphs(own).values())


def test_titles_are_numbered_because_the_page_shows_figures_in_any_order(study: optuna.Study) -> None:
    titles = [figure.layout.title.text for figure in dashboard.figures(study).values()]
    assert [title[:3] for title in titles] == ["1. ", "2. ", "3. ", "4. "]


def test_the_callback_writes_the_notes_of_the_best_and_newest_trials_first_and_publish_all(
    study: optuna.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dashboard, "SECONDS_FOR_NOTES", -1.0)  # one a call
    own, callback = copy(study, "long"), DashboardCallback(share=1)
    best = own.best_trial
    callback(own, best)
    assert note_of(own, best._trial_id)
    for _ in range(6):
        callback(own, best)
    noted = {trial.number for trial in own.trials if note_of(own, trial._trial_id)}
    assert len(noted) == 7
    assert {best.number, 1, 16, 15} <= noted  # 1 is the choice of its stage
    publish(own)
    assert all(note_of(own, trial._trial_id) for trial in own.trials)


def test_the_report_is_one_artifact_that_is_replaced(study: optuna.Study, tmp_path: Path) -> None:
    own = copy(study, "with artifacts")
    store = FileSystemArtifactStore(tmp_path)
    own._storage.set_study_system_attr(own._study_id, "artifacts:gone", "null")  # deleted on the page
    publish(own, artifact_store=store)
    (first,) = [path for path in tmp_path.iterdir() if path.is_file()]
    first.write_text("old")
    publish(own, artifact_store=store)
    (again,) = [path for path in tmp_path.iterdir() if path.is_file()]
    assert again == first
    assert "<html" in again.read_text(encoding="utf-8")
    del own._storage.get_study_system_attrs(own._study_id)["artifacts:gone"]
    metas = [json.loads(value) for key, value in kept(own).items() if key.startswith("artifacts:")]
    (meta,) = [meta for meta in metas if meta]
    assert (meta["filename"], meta["mimetype"]) == ("report.html", "text/html")


def _publish_often(url: str, n_trials: int) -> None:
    study = optuna.load_study(study_name="shared", storage=url)
    for number in range(n_trials):
        trial = study.ask()
        trial.suggest_float("lr", 1e-3, 1, log=True)
        study.tell(trial, 1 / (number + 1))
        publish(study)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the other process is forked")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_two_processes_that_publish_at_once_leave_whole_figures_and_notes(study: optuna.Study, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/shared.db"
    own = copy(study, "shared", url)
    other = multiprocessing.get_context("fork").Process(target=_publish_often, args=(url, 2))
    other.start()
    seen, deadline = [], time.monotonic() + 120
    try:
        while other.is_alive():
            assert time.monotonic() < deadline  # a lock that a thread held at the fork is never released there
            publish(own)
            seen.append([json.loads(figure)["data"] is not None for figure in graphs(own).values()])
    finally:
        other.kill()
        other.join()
    assert other.exitcode == 0
    assert seen
    assert all(all(whole) for whole in seen)
    publish(own)
    assert note_of(own).count(note.HEADING) == 1
    assert f"after {len(own.trials)} trials" in note_of(own)


def test_the_callback_keeps_the_page_up_to_date_at_small_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    now, calls = [0.0], []

    def slow(*_: Any, **__: Any) -> None:
        calls.append(now[0])
        now[0] += 1.0

    monkeypatch.setattr(dashboard.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(dashboard, "_publish", slow)
    callback = DashboardCallback(share=0.1)
    study = optuna.create_study()
    for _ in range(100):
        now[0] += 0.5
        callback(study, study)  # type: ignore[arg-type]
    assert calls == [0.5, 10.5, 20.5, 30.5, 40.5, 50.5]


def test_the_callback_stops_no_search(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("database is gone")

    monkeypatch.setattr(dashboard, "_publish", broken)
    optuna.logging.enable_propagation()
    study = optuna.create_study()
    study.optimize(lambda t: t.suggest_float("lr", 0, 1), n_trials=2, callbacks=[DashboardCallback()])
    optuna.logging.disable_propagation()
    assert len(study.trials) == 2
    assert "not up to date: RuntimeError('database is gone')" in caplog.text


def test_the_callback_may_be_pickled_and_copied(study: optuna.Study, tmp_path: Path) -> None:
    callback = DashboardCallback(share=1, artifact_store=FileSystemArtifactStore(tmp_path))
    for number, made in enumerate((pickle.loads(pickle.dumps(callback)), deepcopy(callback))):
        own = copy(study, f"copy {number}")
        made(own, own.best_trial)
        assert note_of(own)
        assert made._share == 1
    assert len([path for path in tmp_path.iterdir() if path.is_file()]) == 2


def test_threads_do_not_wait_for_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    inside, leave, calls = threading.Event(), threading.Event(), []

    def waiting(*_: Any, **__: Any) -> None:
        calls.append(1)
        inside.set()
        assert leave.wait(10)

    monkeypatch.setattr(dashboard, "_publish", waiting)
    callback, study = DashboardCallback(), optuna.create_study()
    thread = threading.Thread(target=callback, args=(study, study))
    thread.start()
    assert inside.wait(10)
    callback(study, study)  # type: ignore[arg-type]
    leave.set()
    thread.join()
    assert calls == [1]


@pytest.mark.parametrize("share", [0, -1, 1.5, float("nan"), "x", None])
def test_a_share_that_cannot_be_is_refused(share: Any) -> None:
    with pytest.raises(ValueError, match=r"`share` must be in \(0, 1\]"):
        DashboardCallback(share=share)


def test_artifact_metas_are_those_that_optuna_lists(study: optuna.Study, tmp_path: Path) -> None:
    own = copy(study, "listed")
    publish(own, artifact_store=FileSystemArtifactStore(tmp_path))
    assert [meta.filename for meta in get_all_artifact_meta(own)] == ["report.html"]


def test_what_is_no_artifact_store_is_refused_before_anything_is_written() -> None:
    made = optuna.create_study()
    with pytest.raises(TypeError, match=r"`artifact_store` must be a store of optuna.artifacts, .* got 'folder'"):
        publish(made, artifact_store="folder")
    assert kept(made) == {}
    with pytest.raises(TypeError, match="`artifact_store` must be a store"):
        DashboardCallback(artifact_store="folder")
