"""The tables of `benchmarks.weight_decay`, from its files."""

from typing import Any


def show(results: dict[str, dict[str, Any]]) -> None:
    """Print."""
    print(results)
