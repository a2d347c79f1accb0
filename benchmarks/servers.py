"""Real database servers for tests and benchmarks: started on a free port, gone with their data at the end.

>>> isinstance(free_port(), int)
True
"""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from collections.abc import Sequence
from pathlib import Path

START_SECONDS = 60.0
STOP_SECONDS = 10.0
READY = re.compile(r"ready (to accept|for) connections", re.IGNORECASE)


class ServerMissingError(RuntimeError):
    """A server's program is not installed; the message names the command that installs it."""


@contextlib.contextmanager
def postgresql(*, durable: bool = True) -> Iterator[str]:
    """Run PostgreSQL; yield the URL of an empty database.

    Args:
        durable: Whether a commit waits for the disk, as it does where data matter.
    """
    initdb, postgres = _program("initdb", "postgresql"), _program("postgres", "postgresql")
    with _home("postgres") as (home, user):
        data, port = home / "data", free_port()
        _call([initdb, "-D", str(data), "-U", "optuna", "-A", "trust", "-E", "UTF8", "--no-sync"], user)
        options = {"listen_addresses": "127.0.0.1", "unix_socket_directories": str(home), "fsync": _on(durable)}
        given = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        with _running([postgres, "-D", str(data), "-p", str(port), *given], home, user, stop=signal.SIGINT):
            yield f"postgresql+psycopg://optuna@127.0.0.1:{port}/postgres"


@contextlib.contextmanager
def mariadb() -> Iterator[str]:
    """Run MariaDB, a MySQL; yield the URL of an empty database."""
    install, server = _program("mariadb-install-db", "mariadb-server"), _program("mariadbd", "mariadb-server")
    with _home("mysql") as (home, user):
        data, port = home / "data", free_port()
        as_user = [f"--user={user}"] if user else []
        plain = ["--no-defaults", f"--datadir={data}", *as_user]
        _call([install, *plain, "--skip-test-db", "--auth-root-authentication-method=normal"], user)
        first = home / "first.sql"
        first.write_text(
            "CREATE DATABASE optuna CHARACTER SET utf8mb4;\n"
            "CREATE USER optuna@'127.0.0.1';\n"
            "GRANT ALL ON optuna.* TO optuna@'127.0.0.1';\n"
        )
        first.chmod(0o644)
        words = [f"--port={port}", "--bind-address=127.0.0.1", f"--socket={home}/socket", f"--init-file={first}"]
        command = [server, *plain, *words, "--skip-name-resolve", "--innodb-flush-log-at-trx-commit=0"]
        with _running(command, home, user, stop=signal.SIGTERM):
            yield f"mysql+pymysql://optuna@127.0.0.1:{port}/optuna"


@contextlib.contextmanager
def redis() -> Iterator[str]:
    """Run Redis in memory; yield its URL."""
    server = _program("redis-server", "redis-server")
    with _home("redis") as (home, user):
        port = free_port()
        command = [server, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(home)]
        with _running(command, home, user, stop=signal.SIGTERM):
            yield f"redis://127.0.0.1:{port}"


def free_port() -> int:
    """Return a TCP port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _program(name: str, package: str) -> str:
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", *map(str, folders)])
    found = shutil.which(name, path=path)
    if found is None:
        raise ServerMissingError(f"{name} is not installed: apt-get install {package}")
    return found


@contextlib.contextmanager
def _home(user: str) -> Iterator[tuple[Path, str | None]]:
    """Make a folder of the server's own, and its user's where we are root: PostgreSQL refuses to be that."""
    home = Path(tempfile.mkdtemp(prefix="discipline-server-"))
    try:
        if os.getuid() == 0:
            shutil.chown(home, user)
        yield home, user if os.getuid() == 0 else None
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _call(command: Sequence[str], user: str | None) -> None:
    done = subprocess.run(command, user=user, cwd="/", capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {done.stdout}{done.stderr}")


@contextlib.contextmanager
def _running(command: Sequence[str], home: Path, user: str | None, *, stop: int) -> Iterator[None]:
    log = home / "log"
    environment = {**os.environ, "LC_ALL": "C"}  # for the words of the log
    with log.open("wb") as file:
        process = subprocess.Popen(command, user=user, cwd=home, env=environment, stdout=file, stderr=subprocess.STDOUT)
    try:
        _wait_until_ready(log, process)
        yield
    finally:
        process.send_signal(stop)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(log: Path, process: "subprocess.Popen[bytes]") -> None:
    """Wait for the word of the server itself: its port is open before it can answer."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if READY.search(log.read_text(errors="replace")):
            return
        time.sleep(0.05)
    raise RuntimeError(f"{process.args[0]} did not start: {log.read_text(errors='replace')[-2000:]}")  # type: ignore[index]


def _on(value: bool) -> str:
    return "on" if value else "off"
