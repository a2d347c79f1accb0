"""Storages as the command line meets them: errors in one line, studies by name, passwords kept to ourselves."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import optuna
from optuna.exceptions import StorageInternalError
from optuna.study import Study
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.exc import SQLAlchemyError

from optuna_discipline.exceptions import DisciplineError
from optuna_discipline.printable import printable


def shown(url: str) -> str:
    """Return a storage URL that may be printed: its password is left out.

    >>> shown("postgresql+psycopg://me:secret@host/studies")
    'postgresql+psycopg://me:***@host/studies'
    """
    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        return url


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


def load_study(url: str, study_name: str | None) -> Study:
    """Return the study of that name, or the only one; raise DisciplineError with the names that there are."""
    if url.startswith("sqlite:///") and not Path(url.removeprefix("sqlite:///")).is_file():
        raise DisciplineError(f"--storage {shown(url)}: there is no such file")
    with errors_of(url):
        names = optuna.get_all_study_names(url)
    name = study_name or (names[0] if len(names) == 1 else None)
    if name not in names:
        wanted = "--study-name is needed" if name is None else f"--study-name {name!r} is unknown"
        raise DisciplineError(f"{wanted}; the storage holds: {', '.join(names) or 'no study'}")
    return optuna.load_study(study_name=name, storage=url)


def one_line(error: BaseException) -> str:
    """Return what an error says on one line, without the SQL and the links."""
    text = str(error).partition("\n[SQL")[0].partition("\n(Background")[0]
    return printable(" ".join(text.split())) or type(error).__name__
