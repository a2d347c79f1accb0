from pathlib import Path

import optuna
import pytest

from optuna_discipline import DisciplineError
from optuna_discipline import storages


def test_a_password_is_not_shown() -> None:
    assert "secret" not in storages.shown("mysql+pymysql://me:secret@host:3306/studies")
    assert storages.shown("postgresql://me@corp:sec:r@et@host/x") == "postgresql://me@corp:***@host/x"


@pytest.mark.parametrize(
    "url", ["sqlite:///study.db", "sqlite:///é @1: x.db?timeout=20", "postgresql://me@host:5432/studies", "nonsense"]
)
def test_a_storage_is_shown_as_it_was_given(url: str) -> None:
    assert storages.shown(url) == url


@pytest.mark.parametrize("form", ["sqlite:///{}", "sqlite:///{}?timeout=20", "sqlite+pysqlite:///{}"])
def test_the_file_of_every_sqlite_storage_is_known(form: str, tmp_path: Path) -> None:
    url = form.format(tmp_path / "é.db")
    with pytest.raises(DisciplineError, match="there is no such file"):
        storages.load_study(url, None)
    assert list(tmp_path.iterdir()) == []
    optuna.create_study(study_name="one", storage=url)
    assert storages.load_study(url, None).study_name == "one"
    assert [storages.file_of(url)] == list(tmp_path.iterdir())


def test_a_storage_without_a_file_is_known() -> None:
    assert storages.file_of("sqlite:///file:study.db?uri=true") == Path("study.db")
    for url in ("sqlite://", "sqlite:///:memory:", "postgresql://host/studies", "non sense://"):
        assert storages.file_of(url) is None


def test_an_error_is_one_line_without_the_password() -> None:
    with (
        pytest.raises(DisciplineError, match=r"--storage postgresql://me:\*\*\*@x/y does not work") as caught,
        storages.errors_of("postgresql://me:secret@x/y"),
    ):
        raise optuna.exceptions.StorageInternalError("line one\nline two")
    assert "line one line two" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_study_is_found_by_name_or_as_the_only_one(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/s.db"
    with pytest.raises(DisciplineError, match="there is no such file"):
        storages.load_study(url, None)
    optuna.create_study(study_name="one", storage=url)
    assert [study.study_name for study in storages.load_studies(url, None)] == ["one"]
    assert storages.load_study(url, None).study_name == "one"
    optuna.create_study(study_name="two", storage=url)
    with pytest.raises(DisciplineError, match="--study-name is needed; the storage holds: one, two"):
        storages.load_study(url, None)
    assert [study.study_name for study in storages.load_studies(url, None)] == ["one", "two"]
    with pytest.raises(DisciplineError, match="'three' is unknown; the storage holds: one, two"):
        storages.load_study(url, "three")


def test_an_empty_storage_is_said_to_be_empty(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/s.db"
    optuna.delete_study(study_name=optuna.create_study(storage=url).study_name, storage=url)
    with pytest.raises(DisciplineError, match="the storage holds: no study"):
        storages.load_study(url, None)


@pytest.mark.parametrize("name", ["study.log", "study.journal"])
def test_a_journal_file_is_a_storage(name: str, tmp_path: Path) -> None:
    path = str(tmp_path / name)
    optuna.create_study(study_name="one", storage=storages.opened(path))
    assert storages.load_study(path, "one").study_name == "one"
    assert storages.file_of(path) == tmp_path / name
