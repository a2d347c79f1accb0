import re
from pathlib import Path

import optuna
import pytest

from optuna_discipline import DisciplineError
from optuna_discipline import storages


def test_a_password_is_not_shown() -> None:
    assert "secret" not in storages.shown("mysql+pymysql://me:secret@host:3306/studies")
    query = storages.shown("mysql://host:3306/x?charset=utf8&passwd=secret&ssl_key_Password=sec@ret&user=me")
    assert query == "mysql://host:3306/x?charset=utf8&passwd=***&ssl_key_Password=***&user=me"
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


@pytest.mark.parametrize(
    "content", [b"notes", b"notes\n", b"{broken\n{broken\n", b'{"a": 1}\n', b"[1]\n", b"1\n", b"\xff\xfe\n\xff\n"]
)
def test_a_damaged_journal_or_another_file_is_named_and_left_alone(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "study.log"
    path.write_bytes(content)
    for call in (storages.opened, lambda url: storages.load_study(url, None)):
        with pytest.raises(DisciplineError, match=r"--storage .*study\.log must be a journal of Optuna, but"):
            call(str(path))
    assert path.read_bytes() == content


@pytest.mark.parametrize("content", [None, b""])
def test_an_absent_or_empty_journal_begins(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "study.log"
    if content is not None:
        path.write_bytes(content)
    assert storages.opened(str(path)).get_all_studies() == []


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("redis://me:secret@host", "RedisStorage is removed"),
        ("oracle+cx_oracle://me:secret@host/x", "No module named 'cx_Oracle'"),
        ("foo://me:secret@host", "Can't load plugin"),
    ],
)
def test_a_storage_that_cannot_be_opened_is_named_by_its_option(url: str, reason: str) -> None:
    shown = re.escape(storages.shown(url))
    with pytest.raises(DisciplineError, match=f"--storage {shown} does not work, one such as .*: {reason}") as caught:
        storages.opened(url)
    assert "secret" not in str(caught.value)
