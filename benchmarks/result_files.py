"""Where benchmarks keep what they found: files that are always whole, with the settings that they were made by."""

import json
import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import torch


def settings() -> dict[str, Any]:
    """Return where and with what this runs."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return {
        "machine": f"{platform.machine()} {platform.system()}, cpu, 1 thread",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "optuna": optuna.__version__,
        "commit": commit.stdout.strip(),
    }


def write(path: Path, result: Any, *, indent: int | None = None) -> None:
    """Write a result as JSON, whole or not at all."""
    with whole(path) as beside:
        beside.write_text(json.dumps(result, indent=indent) + "\n", encoding="utf-8")


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yield a path beside a file's place; what is there at the end of the `with` block is renamed to that place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".part")
    yield beside
    os.replace(beside, path)
