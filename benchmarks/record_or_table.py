"""The command line of benchmarks that record a file a task, and make their tables from the files alone."""

import argparse
import os
from collections.abc import Callable
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from benchmarks.duel.tasks import Task


def record_or_table(
    doc: str | None,
    results: Path,
    names: Iterable[str],
    load: Callable[[Path | None], dict[str, Task]],
    record: Callable[[Task, Path], Any],
    show: Callable[[Path], Any],
) -> int:
    """Run the command line; return the exit code.

    Args:
        doc: What `--help` says.
        results: Folder of the files, where the user names no other.
        names: Tasks to record, where the user names none; those that `load` has not are named and left out.
        load: From the folder of the data to the tasks by name; raises FileNotFoundError where it needs a folder.
        record: Trains what a task's file lacks.
        show: Prints the tables of a folder.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("record", "table"))
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--data-root", type=Path, default=os.environ.get("OPTUNA_DISCIPLINE_DATA"))
    parser.add_argument("--out", type=Path, default=results)
    arguments = parser.parse_args()
    if arguments.command == "table":
        show(arguments.out)
        return 0
    torch.set_num_threads(1)
    try:
        tasks = load(arguments.data_root)
    except FileNotFoundError as error:
        parser.error(str(error))
    names = tuple(names)
    if not arguments.names and (left_out := [name for name in names if name not in tasks]):
        print(f"not recorded, since their data is not there: {', '.join(left_out)}")
    for name in arguments.names or [name for name in names if name in tasks]:
        record(tasks[name], arguments.out / f"{name}.json")
    return 0
