import json
import warnings
from pathlib import Path

import optuna
import pytest

from optuna_discipline import publish
from optuna_discipline.visualization import dashboard
from optuna_discipline.visualization import story

optuna_dashboard = pytest.importorskip("optuna_dashboard")


def test_note_and_figures_are_published_and_replaced(study: optuna.Study) -> None:
    for _ in range(2):
        publish(study)
    attributes = study._storage.get_study_system_attrs(study._study_id)
    text = json.dumps(attributes)
    for graph in (dashboard.RECIPE_ID, dashboard.COST_ID, dashboard.RANGE_TEST_ID, dashboard.CURVE_ID):
        assert graph in text
        assert ":" not in graph
    assert "What was decided" in optuna_dashboard._note.get_note_from_system_attrs(attributes, None)["body"]


def test_any_study_is_published(empty: optuna.Study, plain: optuna.Study) -> None:
    publish(empty)
    publish(plain)


def test_figures_are_small_enough_to_travel_in_every_poll(study: optuna.Study) -> None:
    for figure in dashboard._figures(study).values():
        assert len(figure.to_json()) < 30_000


def test_text_of_a_study_is_shown_as_text(plain: optuna.Study) -> None:
    note = dashboard.as_markdown(story.collect(plain))
    assert "<" not in note.replace(r"\<", "")
    assert r"\<img src" in note
    for line in note.splitlines():
        if line.startswith("| ") and "trials" not in line and "---" not in line:
            assert line.replace(r"\|", "").count("|") in (3, 6)


def test_no_warning_leaks(study: optuna.Study, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        publish(study)


def test_titles_are_numbered_because_the_page_shows_figures_in_any_order(study: optuna.Study) -> None:
    titles = [figure.layout.title.text for figure in dashboard._figures(study).values()]
    assert [title[:3] for title in titles] == ["1. ", "2. ", "3. ", "4. "]


def test_the_note_says_what_each_stage_decided(study: optuna.Study) -> None:
    note = dashboard.as_markdown(story.collect(study))
    assert "| stage | trials | values tried | decision | best | in trial |" in note
