"""Storages as the command line meets them: errors in one line, studies by name, passwords kept to ourselves."""

import collections
import contextlib
import json
import os
import re
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from typing import BinaryIO

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage
from optuna.storages import JournalStorage
from optuna.storages import RDBStorage
from optuna.storages import get_storage
from optuna.storages.journal import JournalFileBackend
from optuna.storages.journal import JournalFileSymlinkLock
from optuna.study import Study

from optuna_discipline.exceptions import DisciplineError
from optuna_discipline.printable import printable

# Endings of the file names that are taken for journals of Optuna.
JOURNALS = (".log", ".journal")
# Tables that every database of Optuna has, and their keys, by which they are told from another program's.
TABLES = {"studies": "study_id", "version_info": "version_info_id"}
# How long others that make the same tables at the same time are waited for.
TABLES_SECONDS = 10
# How each entry of a journal begins.
ENTRY = b'{"op_code":'
# How long half a line of a journal must have stood still: one that is being written is so for milliseconds.
STILL_SECONDS = 1.0
BLOCK = 65_536


def shown(url: str) -> str:
    """Return a storage URL that may be printed: its passwords are left out.

    >>> shown("postgresql+psycopg://me:secret@host/studies")
    'postgresql+psycopg://me:***@host/studies'
    >>> shown("postgresql+psycopg://host/studies?user=me&password=secret&sslmode=require")
    'postgresql+psycopg://host/studies?user=me&password=***&sslmode=require'
    """
    # not by SQLAlchemy, which writes the path's letters in another way than it was given
    hidden = re.sub(r"([?&]\w*(?:password|passwd|pwd)\w*)=[^&]*", r"\1=***", url, flags=re.IGNORECASE)
    return re.sub(r"^([^:/]*(?::/{0,2}|//)[^:/]*):.*@", r"\1:***@", hidden)  # a slash may be missing


@contextlib.contextmanager
def errors_of(url: str | None) -> Iterator[None]:
    """Say in one line which storage does not work, and why; errors of other databases, and without a URL, stay."""
    import sqlalchemy

    try:
        yield
    except (sqlalchemy.exc.SQLAlchemyError, StorageInternalError, AssertionError, UnboundLocalError) as error:
        found: BaseException | None = error
        while isinstance(found, (AssertionError, UnboundLocalError)):  # what Optuna makes of a lost storage
            found = found.__context__
        if isinstance(found, DisciplineError):
            raise found from error
        origins = " ".join(frame.f_globals["__name__"] for frame, _ in traceback.walk_tb(error.__traceback__))
        known = (StorageInternalError, *([sqlalchemy.exc.SQLAlchemyError] if "optuna.storages" in origins else []))
        if url is None or found is None or not isinstance(found, known):
            raise
        cause = one_line(found.__cause__ or found)
        raise DisciplineError(f"--storage {shown(url)} does not work: {cause}") from error


def opened(url: str, *, only_read: bool = False) -> BaseStorage:
    """Return the storage of a URL, or of the path of a journal file.

    Args:
        url: The value of `--storage`.
        only_read: Whether it has to be there: no file and no tables are made.

    Raises:
        DisciplineError: If it does not open; the message names the option.
    """
    import sqlalchemy

    if not url:
        raise DisciplineError("--storage must be a URL such as sqlite:///study.db, or a journal's file, but got ''")
    if re.match("[^:]+://[^:/]*:[^@]*@[^?]*@", url):  # what follows the first would be called a host, and shown
        raise DisciplineError(f"--storage {shown(url)} must not have an @ in its password: write it as %40")
    path = file_of(url)
    if path is not None and os.path.exists(path) and not os.path.isfile(path):
        raise DisciplineError(f"--storage {shown(url)} must be a file, but is a folder or a device: give another")
    if only_read and path is not None and not path.is_file():
        raise DisciplineError(f"--storage {shown(url)}: there is no such file")
    with errors_of(url):
        if _is_journal(url):
            return _journal(url, only_read)
        try:
            _check_tables(url, only_read)
            return _database(url)
        except (sqlalchemy.exc.ArgumentError, ImportError, ValueError) as error:  # no driver, a form given up
            raise DisciplineError(
                f"--storage {shown(url)} does not work, one such as sqlite:///study.db does: "
                f"{one_line(error.__cause__ or error)}"
            ) from error
        except (RuntimeError, sqlalchemy.exc.SQLAlchemyError) as error:
            if "table schema" not in str(error):
                raise StorageInternalError(str(error)) from error.__cause__ or error
            older = "storage upgrade" in str(error)
            cure = f"`optuna storage upgrade --storage {shown(url)}`" if older else "`pip install -U optuna`"
            raise DisciplineError(
                f"--storage {shown(url)} holds the tables of {'an older' if older else 'a newer'} Optuna, which Optuna "
                f"{optuna.__version__} does not read: run {cure}"
            ) from error


def _check_tables(url: str, only_read: bool) -> None:
    """Refuse another program's SQLite file, which is no place for a study, and a database to read that holds none."""
    import sqlalchemy

    file = file_of(url)
    if not only_read and (file is None or not file.is_file()):  # a server's database may serve several programs
        return
    engine = sqlalchemy.create_engine(url)
    try:
        tables = sqlalchemy.inspect(engine)
        names = set(tables.get_table_names()) if file is not None else set()
        columns = {name: [column["name"] for column in tables.get_columns(name)] for name in names & set(TABLES)}
        others = {name for name in columns if TABLES[name] not in columns[name]}
        if not set(TABLES) <= names - others:
            others |= names - _optunas_tables()
        if others:
            raise DisciplineError(
                f"--storage {shown(url)} must be a database of Optuna, but holds another program's tables "
                f"({printable(', '.join(sorted(others)[:3]))}): give another"
            )
        if only_read and not all(tables.has_table(name) for name in TABLES):
            raise DisciplineError(f"--storage {shown(url)}; the storage holds: no study")
    finally:
        engine.dispose()


def _optunas_tables() -> set[str]:
    import sqlalchemy

    engine = RDBStorage("sqlite://").engine
    names = set(sqlalchemy.inspect(engine).get_table_names())
    engine.dispose()
    return names


def _database(url: str) -> BaseStorage:
    """Return the storage of a database; where others make its tables at the same time, once they are made."""
    until = time.monotonic() + TABLES_SECONDS
    while True:
        try:
            return get_storage(url)
        except Exception as error:  # SQLAlchemy's, or Optuna's because of one
            cause = getattr(error, "orig", None) or getattr(error.__cause__, "orig", None)
            said = f"{type(cause).__name__} {cause}"  # PostgreSQL's text may be in another language
            if time.monotonic() > until or not re.search("already exists|unique|duplicate", said, re.IGNORECASE):
                raise
            time.sleep(0.2)


class _JournalFile(JournalFileBackend):
    """A journal's file whose errors are those of a storage."""

    def __init__(self, path: str) -> None:
        super().__init__(os.path.realpath(path))  # two names of one file share the lock
        self._path = path

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        with _reading(self._path):
            for entry in super().read_logs(log_number_from):
                if not isinstance(entry, dict):
                    raise TypeError("a line is no entry")
                yield entry

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        try:
            super().append_logs(logs)
        except OSError as error:
            raise StorageInternalError(str(error)) from error


@contextlib.contextmanager
def _reading(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageInternalError(str(error)) from error
    except (ValueError, LookupError, TypeError, AttributeError, AssertionError) as error:  # not Optuna's
        raise DisciplineError(
            f"--storage {path} must be a journal of Optuna, but is damaged, of a newer Optuna, or another file: give "
            f"another, restore it from a copy, or run `pip install -U optuna` ({one_line(error)})"
        ) from error


def _is_journal(url: str) -> bool:
    return "://" not in url and Path(url).suffix in JOURNALS


def _journal(path: str, only_read: bool) -> BaseStorage:
    """Return the journal of a file, an empty or absent one too; refuse any other file, which would be written into."""
    file = Path(path)
    with _reading(path):
        if file.is_file():
            with file.open("rb") as lines:
                first = lines.readline()
                last = () if only_read else collections.deque(lines, maxlen=1)
            if not ("op_code" in json.loads(first) if first.endswith(b"\n") else ENTRY.startswith(first[: len(ENTRY)])):
                raise ValueError("its first line is no entry")
            for line in last:  # Optuna reads over a broken one, but no more once another follows
                if line.endswith(b"\n"):
                    json.loads(line)
        storage = JournalStorage(_JournalFile(path))
    if not only_read:
        cut_half_line(path)
    return storage


def cut_half_line(url: str) -> None:
    """Cut off half a last line of a journal, which a crash or a full disk left, before more is written.

    Optuna reads over it, but writes the next entry behind it, and then nobody reads either. What still changes is
    another's that writes it just now, and stays.
    """
    if not _is_journal(url):
        return
    path = os.path.realpath(url)
    lock = JournalFileSymlinkLock(path)
    with _reading(url), contextlib.ExitStack() as held:
        lock.acquire()
        held.callback(lock.release)
        file = held.enter_context(open(path, "r+b"))
        before = os.fstat(file.fileno())
        end = _end_of_lines(file, before.st_size)
        if end < before.st_size:
            time.sleep(STILL_SECONDS)
            now = os.fstat(file.fileno())
            if (now.st_size, now.st_mtime_ns) == (before.st_size, before.st_mtime_ns):
                file.truncate(end)


def _end_of_lines(file: BinaryIO, size: int) -> int:
    """Return where the last whole line ends; a large journal is not read for it."""
    for start in range((size - 1) // BLOCK * BLOCK, -1, -BLOCK):
        file.seek(start)
        found = file.read(BLOCK).rfind(b"\n")
        if found >= 0:
            return start + found + 1
    return 0


def load_studies(url: str, study_name: str | None) -> list[Study]:
    """Return the study of that name, or all of them; raise DisciplineError with the names that there are."""
    with errors_of(url):
        storage = opened(url, only_read=True)
        names = optuna.get_all_study_names(storage)
        if not names or study_name not in (None, *names):
            wanted = f"--storage {shown(url)}" if study_name is None else f"--study-name {study_name!r} is unknown"
            raise DisciplineError(f"{wanted}; the storage holds: {', '.join(names) or 'no study'}")
        return [
            optuna.load_study(study_name=name, storage=storage)
            for name in ([study_name] if study_name is not None else names)
        ]


def load_study(url: str, study_name: str | None) -> Study:
    """Return the study of that name, or the only one; raise DisciplineError with the names that there are."""
    studies = load_studies(url, study_name)
    if len(studies) > 1:
        names = ", ".join(study.study_name for study in studies)
        raise DisciplineError(f"--study-name is needed; the storage holds: {names}")
    return studies[0]


def file_of(url: str) -> Path | None:
    """Return the file of a storage that is one, None for a server.

    >>> str(file_of("sqlite:///results/study.db")), file_of("postgresql://host/studies")
    ('results/study.db', None)
    """
    import sqlalchemy

    if "://" not in url:
        return Path(url)
    with contextlib.suppress(sqlalchemy.exc.ArgumentError, ValueError):  # is told where the storage is opened
        parts = sqlalchemy.engine.make_url(url)
        if parts.get_backend_name() == "sqlite" and parts.database not in (None, "", ":memory:"):
            return Path(str(parts.database).removeprefix("file:"))
    return None


def one_line(error: BaseException) -> str:
    """Return what an error says on one line, without the SQL and the links."""
    text = str(error).partition("\n[SQL")[0].partition("\n(Background")[0]
    return printable(" ".join(text.split())) or type(error).__name__
