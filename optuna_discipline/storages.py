"""Storages as the command line meets them: errors in one line, studies by name, passwords kept to ourselves."""

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage
from optuna.storages import JournalStorage
from optuna.storages import get_storage
from optuna.storages.journal import JournalFileBackend
from optuna.study import Study
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.exc import SQLAlchemyError

from optuna_discipline.exceptions import DisciplineError
from optuna_discipline.printable import printable

# Endings of the file names that are taken for journals of Optuna.
JOURNALS = (".log", ".journal")


def shown(url: str) -> str:
    """Return a storage URL that may be printed: its passwords are left out.

    >>> shown("postgresql+psycopg://me:secret@host/studies")
    'postgresql+psycopg://me:***@host/studies'
    >>> shown("postgresql+psycopg://host/studies?user=me&password=secret&sslmode=require")
    'postgresql+psycopg://host/studies?user=me&password=***&sslmode=require'
    """
    # not by SQLAlchemy, which writes the path's letters in another way than it was given
    hidden = re.sub(r"([?&]\w*(?:password|passwd|pwd)\w*)=[^&]*", r"\1=***", url, flags=re.IGNORECASE)
    return re.sub(r"(://[^:/]*):.*@", r"\1:***@", hidden)


@contextlib.contextmanager
def errors_of(url: str | None) -> Iterator[None]:
    """Say in one line which storage does not work, and how a working one is written."""
    try:
        yield
    except (SQLAlchemyError, StorageInternalError) as error:
        found = one_line(error.__cause__ or error)
        raise DisciplineError(
            f"--storage {shown(url or '')} does not work, one such as sqlite:///study.db does: {found}"
        ) from error


def opened(url: str) -> BaseStorage:
    """Return the storage of a URL, or of the path of a journal file.

    Raises:
        DisciplineError: If it does not open; the message names the option.
    """
    with errors_of(url):
        if "://" not in url and Path(url).suffix in JOURNALS:
            return _journal(url)
        try:
            return get_storage(url)
        except (ImportError, ValueError) as error:  # a driver that is absent, a form that Optuna has given up
            raise StorageInternalError(str(error)) from (error.__cause__ or error)


def _journal(path: str) -> BaseStorage:
    """Return the journal of a file, an empty or absent one too; refuse any other file, which would be written into."""
    file = Path(path)
    try:
        if file.is_file():
            with file.open("rb") as lines:
                first = lines.readline()
            if first and not (first.endswith(b"\n") and "op_code" in json.loads(first)):
                raise ValueError("its first line is no entry")
        return JournalStorage(JournalFileBackend(path))
    except (ValueError, LookupError, TypeError, AttributeError) as error:  # no JSON, or none of Optuna's
        raise DisciplineError(
            f"--storage {path} must be a journal of Optuna, but is damaged or another file: give another, or restore "
            f"it from a copy ({one_line(error)})"
        ) from error


def load_studies(url: str, study_name: str | None) -> list[Study]:
    """Return the study of that name, or all of them; raise DisciplineError with the names that there are."""
    path = file_of(url)
    if path is not None and not path.is_file():
        raise DisciplineError(f"--storage {shown(url)}: there is no such file")
    with errors_of(url):
        storage = opened(url)
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
    if "://" not in url:
        return Path(url)
    with contextlib.suppress(ArgumentError):  # is told where the storage is opened
        parts = make_url(url)
        if parts.get_backend_name() == "sqlite" and parts.database not in (None, "", ":memory:"):
            return Path(str(parts.database).removeprefix("file:"))
    return None


def one_line(error: BaseException) -> str:
    """Return what an error says on one line, without the SQL and the links."""
    text = str(error).partition("\n[SQL")[0].partition("\n(Background")[0]
    return printable(" ".join(text.split())) or type(error).__name__
