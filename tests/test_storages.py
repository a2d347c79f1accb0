import errno
import multiprocessing
import os
import re
import sqlite3
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from contextlib import closing
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.exceptions import StorageInternalError
from optuna.storages.journal import JournalFileSymlinkLock
from sqlalchemy.exc import OperationalError

from benchmarks import servers
from optuna_discipline import DisciplineError
from optuna_discipline import storages


def test_a_password_is_not_shown() -> None:
    assert "secret" not in storages.shown("mysql+pymysql://me:secret@host:3306/studies")
    query = storages.shown("mysql://host:3306/x?charset=utf8&passwd=secret&ssl_key_Password=sec@ret&user=me")
    assert query == "mysql://host:3306/x?charset=utf8&passwd=***&ssl_key_Password=***&user=me"
    assert storages.shown("postgresql://me@corp:sec:r@et@host/x") == "postgresql://me@corp:***@host/x"
    for slip in ("postgresql:/", "postgresql//", "postgresql:", " postgresql://"):
        assert storages.shown(f"{slip}me:secret@host/x") == f"{slip}me:***@host/x"


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///study.db",
        "sqlite:///é @1: x.db?timeout=20",
        "postgresql://me@host:5432/studies",
        "nonsense",
        "/a:b@c/s.log",
    ],
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


# Of a newer Optuna, and lines that are no entries.
UNKNOWN = [b'{"op_code":99,"worker_id":"x"}\n', b'{"op_code":0}\n3\n', b'["op_code"]\n', b'"op_code"\n']


@pytest.mark.parametrize(
    "content",
    [b"notes", b"notes\n", b"{broken\n{broken\n", b'{"a": 1}\n', b"[1]\n", b"1\n", b"\xff\n\xff\n", *UNKNOWN],
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


def journal_of_three_lines(path: Path) -> bytes:
    study = optuna.create_study(study_name="one", storage=storages.opened(str(path)))
    for key in ("first", "second"):
        study.set_user_attr(key, "value")
    return path.read_bytes()


def keys(path: Path) -> set[str]:
    return set(storages.load_study(str(path), None).user_attrs)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storages, "STILL_SECONDS", 0.01)


@pytest.mark.parametrize("lost", [1, 5, 60])
@pytest.mark.parametrize("block", [7, 65_536])
@pytest.mark.usefixtures("soon")
def test_half_a_last_line_of_a_journal_is_read_over_and_cut_off_by_who_writes(
    lost: int, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storages, "BLOCK", block)
    path = tmp_path / "study.log"
    whole = journal_of_three_lines(path)
    os.truncate(path, len(whole) - lost)
    assert keys(path) == {"first"}
    assert path.stat().st_size == len(whole) - lost
    study = optuna.load_study(study_name="one", storage=storages.opened(str(path)))
    assert path.read_bytes() == b"".join(whole.splitlines(keepends=True)[:2])
    study.set_user_attr("third", "value")
    assert keys(path) == {"first", "third"}


@pytest.mark.usefixtures("soon")
def test_half_a_first_line_is_an_empty_journal(tmp_path: Path) -> None:
    path = tmp_path / "study.log"
    whole = journal_of_three_lines(path)
    for length in (1, 5, 11, 12, 40):
        path.write_bytes(whole[:length])
        with pytest.raises(DisciplineError, match="the storage holds: no study"):
            storages.load_study(str(path), None)
        assert path.stat().st_size == length
        assert storages.opened(str(path)).get_all_studies() == []
        assert path.read_bytes() == b""


@pytest.mark.parametrize("written", [b"ker_id", b'ker_id":"x"}\n', b""])
def test_a_line_that_is_being_written_is_not_cut_off(
    written: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "study.log"
    whole = journal_of_three_lines(path) + b'{"op_code":10,"wor'
    path.write_bytes(whole)

    def write(seconds: float) -> None:
        path.write_bytes(whole + written)
        os.utime(path, ns=(0, 0))  # one that was written anew is as long as before

    monkeypatch.setattr(storages.time, "sleep", write)
    storages.opened(str(path))
    assert path.read_bytes() == whole + written


@pytest.mark.usefixtures("soon")
def test_the_names_of_one_journal_share_its_lock(tmp_path: Path) -> None:
    path, link = tmp_path / "study.log", tmp_path / "link.log"
    path.write_bytes(journal_of_three_lines(path)[:-5])
    link.symlink_to(path)
    lock = JournalFileSymlinkLock(str(path))
    lock.acquire()
    worker = threading.Thread(target=storages.opened, args=(str(link),), daemon=True)
    worker.start()
    worker.join(0.5)
    held = path.read_bytes()
    lock.release()
    worker.join(20)
    assert not held.endswith(b"\n")
    assert path.read_bytes().endswith(b"\n")


def test_a_journal_whose_last_line_is_broken_is_read_and_not_written_into(tmp_path: Path) -> None:
    path = tmp_path / "study.log"
    journal_of_three_lines(path)
    with path.open("ab") as file:
        file.write(b'{"op_co{"op_code":4}\n')
    content = path.read_bytes()
    assert keys(path) == {"first", "second"}
    with pytest.raises(DisciplineError, match=r"study\.log must be a journal of Optuna, but is damaged"):
        storages.opened(str(path))
    assert path.read_bytes() == content


def test_a_journal_that_is_damaged_during_a_search_is_named(tmp_path: Path) -> None:
    path = tmp_path / "study.log"
    journal_of_three_lines(path)
    study = storages.load_study(str(path), None)

    def objective(trial: optuna.Trial) -> float:
        with path.open("ab") as file:
            file.write(b"broken\n")
        return 1.0

    with (
        pytest.raises(DisciplineError, match=r"study\.log must be a journal of Optuna, but is damaged"),
        storages.errors_of(str(path)),
    ):
        study.optimize(objective, n_trials=1)


@pytest.mark.parametrize("entry", UNKNOWN[1:])
def test_a_line_that_comes_to_a_journal_and_is_no_entry_is_named(entry: bytes, tmp_path: Path) -> None:
    path = tmp_path / "study.log"
    journal_of_three_lines(path)
    storage = storages.opened(str(path))
    with path.open("ab") as file:
        file.write(entry.splitlines(keepends=True)[-1])
    with pytest.raises(DisciplineError, match=r"study\.log must be a journal of Optuna, but is damaged"):
        storage.get_all_studies()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes by name")
@pytest.mark.parametrize("url", ["{}", "sqlite:///{}"])
def test_what_is_no_file_is_no_storage(url: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.log")
    (tmp_path / "folder.log").mkdir()
    for name in ("pipe.log", "folder.log"):
        for only_read in (True, False):
            with pytest.raises(DisciplineError, match=rf"--storage \S*{name} must be a file, but is a"):
                storages.opened(url.format(tmp_path / name), only_read=only_read)


@pytest.mark.parametrize(
    "url",
    ["postgresql://me:sec@ret@host/x", "postgresql://me:sec@c/ret@host/x", "mysql+pymysql://me@corp:s@e:ret@host:1/x"],
)
def test_an_at_sign_in_a_password_is_refused_and_no_part_is_shown(url: str) -> None:
    for only_read in (True, False):
        with pytest.raises(DisciplineError, match="must not have an @ in its password: write it as %40") as caught:
            storages.opened(url, only_read=only_read)
        assert "ret" not in str(caught.value)


def test_a_full_disk_under_a_journal_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "study.log"
    study = optuna.create_study(storage=storages.opened(str(path)))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def objective(trial: optuna.Trial) -> float:
        monkeypatch.setattr(os, "fsync", full)
        return 1.0

    with (
        pytest.raises(DisciplineError, match=r"^--storage \S*study\.log does not work: .*No space left on device$"),
        storages.errors_of(str(path)),
    ):
        study.optimize(objective, n_trials=1)


def test_an_error_of_another_database_is_not_called_the_storages() -> None:
    error = OperationalError("SELECT", {}, sqlite3.OperationalError("no such table: images"))
    for url in ("sqlite:///study.db", None):
        with pytest.raises(OperationalError, match="no such table: images"), storages.errors_of(url):
            raise error
    with pytest.raises(StorageInternalError, match="lost"), storages.errors_of(None):
        raise StorageInternalError("lost")


def test_an_assertion_that_no_storage_caused_stays_what_it_is() -> None:
    with pytest.raises(AssertionError, match="mine"), storages.errors_of("study.log"):
        raise AssertionError("mine")


def test_a_database_that_cannot_be_written_is_not_called_a_wrong_url(tmp_path: Path) -> None:
    optuna.create_study(study_name="one", storage=f"sqlite:///{tmp_path}/study.db")
    url = f"sqlite:///file:{tmp_path}/study.db?mode=ro&uri=true"
    study = storages.load_study(url, None)
    with (
        pytest.raises(DisciplineError, match=r"does not work: .*attempt to write a readonly database$"),
        storages.errors_of(url),
    ):
        study.set_user_attr("key", "value")


def tables(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as database:
        return [name for (name,) in database.execute("SELECT name FROM sqlite_master")]


def test_another_programs_sqlite_file_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE notes (text)")
    for call in (storages.opened, lambda url: storages.load_study(url, None)):
        with pytest.raises(DisciplineError, match=r"must be a database of Optuna, but holds .* tables \(notes\): give"):
            call(f"sqlite:///{path}")
    assert tables(path) == ["notes"]


@pytest.mark.parametrize(
    ("made", "named"),
    [
        (["studies (id, title)"], "studies"),
        (["version_info (v)"], "version_info"),
        (["studies (study_id)", "patients (id)"], "patients"),
    ],
)
def test_a_name_in_common_makes_no_database_of_optuna(made: list[str], named: str, tmp_path: Path) -> None:
    path = tmp_path / "clinic.db"
    with closing(sqlite3.connect(path)) as database:
        for table in made:
            database.execute(f"CREATE TABLE {table}")
    before = path.read_bytes()
    for call in (storages.opened, lambda url: storages.load_study(url, None)):
        with pytest.raises(DisciplineError, match=rf"must be a database of Optuna, but holds .* tables \({named}\)"):
            call(f"sqlite:///{path}")
    assert path.read_bytes() == before


def test_a_database_whose_tables_others_make_just_now_and_one_that_has_more_are_optunas(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    for statement in ("DROP TABLE version_info", "CREATE TABLE mine (id)"):
        optuna.create_study(storage=url)
        with closing(sqlite3.connect(tmp_path / "study.db")) as database:
            database.execute(statement)
        assert storages.opened(url).get_all_studies() != []


def test_reading_makes_no_tables(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    path.touch()
    for url in (f"sqlite:///{path}", "sqlite://"):
        with pytest.raises(DisciplineError, match="the storage holds: no study"):
            storages.load_study(url, None)
    assert tables(path) == []
    assert storages.opened(f"sqlite:///{path}").get_all_studies() == []


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("v3.0.0.a", r"an older Optuna, .*: run `optuna storage upgrade --storage sqlite:///\S+`$"),
        ("v99.0.0.a", "a newer Optuna, .*: run `pip install -U optuna`$"),
    ],
)
def test_tables_of_another_optuna_are_refused_with_the_cure(version: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    optuna.create_study(storage=f"sqlite:///{path}")
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("UPDATE alembic_version SET version_num = ?", (version,))
    with pytest.raises(DisciplineError, match=f"^--storage sqlite:///.*study.db holds the tables of {said}"):
        storages.opened(f"sqlite:///{path}")


@pytest.mark.parametrize("statement", ["CREATE TABLE studies", "INSERT INTO version_info"])
def test_a_locked_database_is_tried_once(statement: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    def locked(url: str) -> None:
        tried.append(url)
        raise OperationalError(statement, {}, sqlite3.OperationalError("database is locked"))

    monkeypatch.setattr(storages, "get_storage", locked)
    with pytest.raises(DisciplineError, match=r"--storage sqlite:// does not work: .*database is locked"):
        storages.opened("sqlite://")
    assert tried == ["sqlite://"]


def test_tables_that_others_make_are_waited_for_as_long_as_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def made(url: str) -> None:
        raise OperationalError("CREATE TABLE studies", {}, sqlite3.OperationalError("table studies already exists"))

    monkeypatch.setattr(storages, "get_storage", made)
    monkeypatch.setattr(storages, "TABLES_SECONDS", 0.1)
    with pytest.raises(DisciplineError, match=r"--storage sqlite:// does not work: .*table studies already exists"):
        storages.opened("sqlite://")


def _begin(urls: list[str], together: Any) -> None:
    for url in urls:
        together.wait(60)
        storages.opened(url).get_all_studies()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
@pytest.mark.parametrize("server", [None, servers.postgresql])
def test_workers_that_begin_a_database_at_once_all_begin(
    server: Callable[[], AbstractContextManager[str]] | None, tmp_path: Path
) -> None:
    context = multiprocessing.get_context("fork")
    together = context.Barrier(4)
    try:
        files = ",".join(f"sqlite:///{tmp_path}/{k}.db" for k in range(5))  # one alone may meet nobody
        with nullcontext(files) if server is None else server() as urls:
            workers = [context.Process(target=_begin, args=(urls.split(","), together)) for _ in range(4)]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join(60)
    except servers.ServerMissingError as error:
        pytest.skip(str(error))
    assert [worker.exitcode for worker in workers] == [0] * 4


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("redis://me:secret@host", "RedisStorage is removed"),
        ("oracle+cx_oracle://me:secret@host/x", "No module named 'cx_Oracle'"),
        ("foo://me:secret@host", "Can't load plugin"),
        ("postgresql://me:secret@host:port/x", "invalid literal for int.*'port'"),
    ],
)
def test_a_storage_that_cannot_be_opened_is_named_by_its_option(url: str, reason: str) -> None:
    shown = re.escape(storages.shown(url))
    with pytest.raises(DisciplineError, match=f"--storage {shown} does not work, one such as .*: {reason}") as caught:
        storages.opened(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("only_read", [True, False])
def test_an_empty_storage_url_is_refused(only_read: bool) -> None:
    with pytest.raises(DisciplineError, match=r"--storage must be a URL such as sqlite:///study.db, or .* but got ''"):
        storages.opened("", only_read=only_read)
