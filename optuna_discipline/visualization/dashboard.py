"""Publish a study on optuna-dashboard: notes that say what was decided and why, the pictures, the report."""

import functools
import json
import math
import tempfile
import threading
import time
from collections.abc import Collection
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.artifacts import upload_artifact
from optuna.study import Study
from optuna.trial import FrozenTrial

from optuna_discipline._imports import require
from optuna_discipline.lost_study import naming_a_lost_study
from optuna_discipline.rules.arguments import is_number
from optuna_discipline.visualization import cost
from optuna_discipline.visualization import loss_curve
from optuna_discipline.visualization import note
from optuna_discipline.visualization import range_test
from optuna_discipline.visualization import recipe
from optuna_discipline.visualization import report
from optuna_discipline.visualization import stages
from optuna_discipline.visualization import story
from optuna_discipline.visualization.view import StudyView
from optuna_discipline.visualization.view import view_of

# Fixed ids, so that a figure replaces its former self; a ":" in one breaks the study page. The page shows them in any
# order, so the titles are numbered.
RECIPE_ID, COST_ID = "discipline-1-stages", "discipline-2-cost"
RANGE_TEST_ID, CURVE_ID = "discipline-3-range-test", "discipline-4-best-run"
REPORT = "report.html"
# A trial's note is a look and two writes, of 3 to 30 ms each on SQLite: during a search a long study gets as many as
# this allows.
SECONDS_FOR_NOTES = 0.3
# A look reads all notes. So many times as long passes between two of them: a tenth of the time goes to looks, which
# keeps the work linear, and what a user writes for a trial that has no note yet may be overwritten for so long (a
# second at 1,000 trials on SQLite).
LOOKS_APART = 9
# The dashboard's own functions cut a text into parts of 2,045 letters, so that a page read meanwhile, or two processes
# that publish at once, mix old and new. One part of any length is read as well, and written whole. MySQL holds 65,535
# bytes a value, and encoding at most doubles a text.
MAX_PART = 30_000
FIGURE_PREFIX = "dashboard:plot_data:"
NOTE, VERSION = "note_str:", "note_ver"
_logger = optuna.logging.get_logger(f"optuna.{__name__}")


def publish(study: Study, *, artifact_store: Any = None) -> None:
    """Put the study's notes and pictures on optuna-dashboard; calling it again replaces them.

    The study's note stands on the note page, below what you have written there; the pictures on the history page; each
    ended trial has a note of its own (on SQLite the first call takes some seconds for a hundred trials).
    Any number of processes may publish at once. A study that was renamed on the page is loaded by its new name and
    published again: the dashboard copies it and deletes the old one.

    Args:
        study: Any study with one objective; one of another sampler has fewer things to show.
        artifact_store: Where the dashboard finds artifacts (`optuna.artifacts.FileSystemArtifactStore(...)`); the
            report goes there as one file, which replaces the former.

    Raises:
        TypeError: If `study` is no study, or `artifact_store` no store.
        UnsupportedStudyError: If it has several objectives.
        MissingExtraError: If plotly is absent.
        DisciplineError: If the study was deleted or renamed.
    """
    _publish(study, artifact_store, math.inf)


def _publish(study: Study, artifact_store: Any, seconds_for_notes: float) -> None:
    """Publish, with the notes of as many trials as the time allows, one at least."""
    _check_store(artifact_store)
    with naming_a_lost_study(study):
        view = view_of(study)
        told, drawn = story.collect(view), figures(view)
        kept = _read_attributes(study)
        for graph_id, figure in drawn.items():
            _write(study, kept, f"{FIGURE_PREFIX}{graph_id}:", figure.to_json())
        now = _read_attributes(study)  # what a user saved meanwhile stays
        _write_note(study, now, None, note.beside(_read_note(now, None), note.study_note(told)))
        _write_trial_notes(view, now, seconds_for_notes)
        if artifact_store is not None:
            _upload_report(view, kept, artifact_store)


class DashboardCallback:
    """Keeps a study's page on optuna-dashboard up to date: `study.optimize(..., callbacks=[DashboardCallback()])`.

    After a trial it publishes, but spends at most a share of the time on it: a long study gets the notes of some more
    trials each time, the best and the newest first. `publish(study)` at the end writes what is missing. An error of
    the storage is logged and stops no search.

    Args:
        share: Largest share of the time that publishing may take, in (0, 1].
        artifact_store: As for `publish`.

    Raises:
        TypeError: If `artifact_store` is no store.
        ValueError: If `share` breaks its rule.
        MissingExtraError: If plotly is absent.

    Example:
        >>> import optuna
        >>> from optuna_discipline import DashboardCallback
        >>> optuna.logging.set_verbosity(optuna.logging.WARNING)
        >>> study = optuna.create_study()
        >>> study.optimize(lambda trial: trial.suggest_float("lr", 0, 1), n_trials=2, callbacks=[DashboardCallback()])
    """

    def __init__(self, *, share: float = 0.05, artifact_store: Any = None) -> None:
        if not (is_number(share) and 0 < share <= 1):
            raise ValueError(f"`share` must be in (0, 1], but got {share!r}.")
        _check_store(artifact_store)
        require("plotly.graph_objects", extra="plots")
        self._share = share
        self._artifact_store = artifact_store
        self._next = -1.0
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle the settings: a copy, maybe in another process, has a lock and a clock of its own."""
        return functools.partial(type(self), share=self._share, artifact_store=self._artifact_store), ()

    def __call__(self, study: Study, trial: FrozenTrial) -> None:
        """Publish, unless it was done a short while ago or another thread is at it."""
        if time.monotonic() < self._next or not self._lock.acquire(blocking=False):
            return
        try:
            started = time.monotonic()
            _publish(study, self._artifact_store, SECONDS_FOR_NOTES)
        except Exception as error:  # whatever it is, the search matters more
            _logger.warning(f"The dashboard of the study is not up to date: {error!r}")
        finally:
            ended = time.monotonic()
            self._next = ended + (ended - started) * (1 / self._share - 1)
            self._lock.release()


def figures(source: Study | StudyView) -> dict[str, Any]:
    """Return the pictures of a study's history page by id, their titles numbered."""
    view = view_of(source)
    drawn = {
        RECIPE_ID: recipe.draw(recipe.collect(view)),
        COST_ID: cost.draw(cost.collect(view)),
        RANGE_TEST_ID: range_test.plot_range_test(view.study),
        CURVE_ID: loss_curve.draw(loss_curve.collect(view)),
    }
    for number, figure in enumerate(drawn.values(), start=1):
        figure.layout.title.text = f"{number}. {figure.layout.title.text}"
    return drawn


def _check_store(artifact_store: Any) -> None:
    if artifact_store is not None and not callable(getattr(artifact_store, "write", None)):
        raise TypeError(
            "`artifact_store` must be a store of optuna.artifacts, such as FileSystemArtifactStore('artifacts'), but "
            f"got {artifact_store!r}."
        )


def _write_trial_notes(view: StudyView, kept: Mapping[str, Any], seconds: float) -> None:
    """Write the notes that ended trials lack, the most telling first, until the time is over, one at least."""
    ended = {trial._trial_id: trial for trial in view.trials if trial.state.is_finished()}
    notes = {trial_id: note.trial_note(trial) for trial_id, trial in ended.items()}
    ours = set(notes.values())
    due = [trial_id for trial_id, body in notes.items() if _is_due(kept, trial_id, body, ours)]
    telling = {row.chosen for row in stages.collect(view)} | {None if view.best is None else view.best.number}
    due.sort(key=lambda trial_id: (ended[trial_id].number not in telling, -ended[trial_id].number))
    began = looked = time.monotonic()
    look = 0.0
    for trial_id in due:
        # A user may have written one meanwhile, which ours replaces if it came after the last look.
        if (now := time.monotonic()) - looked >= LOOKS_APART * look:
            kept = _read_attributes(view.study)
            looked = time.monotonic()
            look = looked - now
        if _is_due(kept, trial_id, notes[trial_id], ours):
            _write_note(view.study, kept, trial_id, notes[trial_id])
        if time.monotonic() - began > seconds:
            break


def _is_due(kept: Mapping[str, Any], trial_id: int, body: str, ours: Collection[str]) -> bool:
    """Whether a trial lacks its note: it has none yet, or ours of another trial; what a user wrote or emptied stays.

    Notes are kept by the ids of trials. `optuna.copy_study` copies them to where the trials have other ids, and the
    dashboard, when it renames a study, gives each trial without a note an empty one of version 0.
    """
    former = _read_note(kept, trial_id)
    if former:
        return former != body and former in ours
    return bool(body) and not kept.get(_note_key(trial_id, VERSION))


def _write_note(study: Study, kept: Mapping[str, Any], trial_id: int | None, body: str) -> None:
    if _read_note(kept, trial_id) != body:
        _write(study, kept, _note_key(trial_id, NOTE), body)
        version = _note_key(trial_id, VERSION)  # by which the page sees that the note has changed
        study._storage.set_study_system_attr(study._study_id, version, kept.get(version, 0) + 1)


def _read_note(kept: Mapping[str, Any], trial_id: int | None) -> str:
    """Return a note as the page shows it: none without a version, as of a process that died between its two writes."""
    return _read(kept, _note_key(trial_id, NOTE)) if _note_key(trial_id, VERSION) in kept else ""


def _note_key(trial_id: int | None, part: str) -> str:
    return f"dashboard:{part}" if trial_id is None else f"dashboard:{trial_id}:{part}"


def _read(kept: Mapping[str, Any], prefix: str) -> str:
    parts: list[str] = []
    while (part := kept.get(f"{prefix}{len(parts)}")) is not None:
        parts.append(str(part))
    return "".join(parts)


def _write(study: Study, kept: Mapping[str, Any], prefix: str, text: str) -> None:
    """Write a text as the dashboard reads it, where it is another one than before."""
    if _read(kept, prefix) == text:
        return
    parts = [text[start : start + MAX_PART] for start in range(0, len(text), MAX_PART)]
    while f"{prefix}{len(parts)}" in kept:
        parts.append("")
    for index, part in enumerate(parts):
        if kept.get(f"{prefix}{index}") != part:
            study._storage.set_study_system_attr(study._study_id, f"{prefix}{index}", part)


def _read_attributes(study: Study) -> dict[str, Any]:
    return study._storage.get_study_system_attrs(study._study_id)


def _upload_report(view: StudyView, kept: Mapping[str, Any], artifact_store: Any) -> None:
    """Write the report into the study's artifact of its name; a second upload would stand beside the first."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / REPORT
        path.write_text(report.as_html(view), encoding="utf-8")
        former = _artifact_named(REPORT, kept)
        if former is not None:
            with path.open("rb") as file:
                artifact_store.write(former, file)
        else:
            upload_artifact(
                artifact_store=artifact_store, file_path=str(path), study_or_trial=view.study, mimetype="text/html"
            )


def _artifact_named(filename: str, kept: Mapping[str, Any]) -> str | None:
    metas = (json.loads(stored) for key, stored in kept.items() if key.startswith("artifacts:"))
    for meta in metas:  # "null" where the artifact was deleted on the page
        if isinstance(meta, dict) and meta.get("filename") == filename:
            return str(meta["artifact_id"])
    return None
