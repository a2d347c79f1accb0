import contextlib
import gc
import sqlite3
from collections.abc import Iterator

import hypothesis
import optuna
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Engine
from sqlalchemy import event

hypothesis.settings.register_profile("same in every run", derandomize=True, deadline=None, max_examples=50)
hypothesis.settings.load_profile("same in every run")

gc.disable()  # the imports leave nothing to collect, and a look at all of them costs a third of a second


def pytest_collection_finish() -> None:
    """Collect again, but pass over all that the imports have left."""
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def _quiet_optuna() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)


@pytest.fixture(scope="session", autouse=True)
def _migrations_are_read_once() -> Iterator[None]:
    """Keep Optuna's migration files, which it runs anew at each opening of a database: most of what that costs."""
    read, known = ScriptDirectory.from_config, {}

    def read_once(config: Config) -> ScriptDirectory:
        place = config.get_main_option("script_location")
        if place not in known:
            known[place] = read(config)
        return known[place]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ScriptDirectory, "from_config", read_once)
        yield


@event.listens_for(Engine, "connect")
def _write_without_waiting(connection: object, _: object) -> None:
    """Let SQLite not wait for the disk, which guards against power cuts alone: a killed process loses nothing."""
    if isinstance(connection, sqlite3.Connection):
        with contextlib.suppress(sqlite3.Error):  # no database, or a locked one: for the test to find
            connection.execute("PRAGMA synchronous = OFF")
