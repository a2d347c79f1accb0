"""A headless Chromium and a running dashboard, for the pictures of the README and for the tests in a browser."""

import contextlib
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

INSTALL = "pip install playwright && apt install chromium"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
START_SECONDS = 60.0


def missing() -> str | None:
    """Return the command that installs what a browser needs, None where it is there."""
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        return INSTALL
    return None if _executable() else INSTALL


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """Open a headless Chromium of the system, through Playwright."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # --no-sandbox: root, as in a container, has no other way; --disable-dev-shm-usage: /dev/shm may be tiny
        flags = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        browser = playwright.chromium.launch(executable_path=_executable(), args=flags)
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def dashboard(storage: str) -> Iterator[str]:
    """Run `optuna-discipline dashboard` on a storage; yield its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "optuna_discipline.cli", "dashboard", "--storage", storage, "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        address = f"http://127.0.0.1:{port}"
        _wait_for(f"{address}/api/studies", server)
        yield address
    finally:
        server.terminate()
        server.communicate(timeout=START_SECONDS)


def _wait_for(address: str, server: subprocess.Popen[str]) -> None:
    end = time.monotonic() + START_SECONDS
    while server.poll() is None and time.monotonic() < end:
        try:
            with urllib.request.urlopen(address):
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    server.kill()
    raise RuntimeError(f"the dashboard does not answer at {address}: {server.communicate()[1]}")


def _executable() -> str | None:
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def file_url(path: Path) -> str:
    """Return the address of a file."""
    return path.resolve().as_uri()
