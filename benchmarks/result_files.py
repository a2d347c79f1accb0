"""Where benchmarks keep what they found: files that are always whole, with the settings that they were made by."""

import json
import os
import platform
import subprocess
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
    """Write a result as JSON beside its place, then rename it there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(".part")
    beside.write_text(json.dumps(result, indent=indent) + "\n", encoding="utf-8")
    os.replace(beside, path)
