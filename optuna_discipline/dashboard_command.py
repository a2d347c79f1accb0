"""The command `optuna-discipline dashboard`: publish the studies of a storage and serve optuna-dashboard."""

import argparse
import socket
import sys

from optuna.artifacts import FileSystemArtifactStore

from optuna_discipline import output
from optuna_discipline import storages
from optuna_discipline._imports import require
from optuna_discipline.exceptions import DisciplineError
from optuna_discipline.exceptions import UnsupportedStudyError
from optuna_discipline.printable import printable
from optuna_discipline.visualization import marks


def run(arguments: argparse.Namespace) -> int:
    """Publish and serve as the command line's arguments say, until Ctrl-C; return the exit code."""
    from optuna_discipline.visualization.dashboard import publish

    dashboard = require("optuna_dashboard", extra="dashboard")
    studies = storages.load_studies(arguments.storage, arguments.study_name)
    store = _artifact_store(arguments)
    _check_port(arguments.port)
    storages.cut_half_line(arguments.storage)
    n_trials = sum(len(study.get_trials(deepcopy=False)) for study in studies)
    with output.reader_may_leave():
        print(f"Publishing {marks.counted(n_trials, 'trial')} first; each hundred new ones take 3 to 20 seconds.")
    for study in studies:
        try:
            publish(study, artifact_store=store)
        except UnsupportedStudyError as error:
            print(f"{printable(study.study_name)} is shown without its story: {error}", file=sys.stderr)
    page = f"/studies/{studies[0]._study_id}" if len(studies) == 1 else ""
    with output.reader_may_leave():
        print(f"Open http://127.0.0.1:{arguments.port}/dashboard{page} (stop with Ctrl-C)")
    dashboard.run_server(studies[0]._storage, port=arguments.port, artifact_store=store)
    return 0


def _artifact_store(arguments: argparse.Namespace) -> FileSystemArtifactStore | None:
    """Return the store of `--artifact-dir`, or of a folder beside the storage's file; None beside a server."""
    file = storages.file_of(arguments.storage)
    folder = arguments.artifact_dir or (None if file is None else file.with_name(f"{file.stem}-artifacts"))
    if folder is None:
        return None
    output.check_folder("--artifact-dir", folder, "the studies' artifacts")
    return FileSystemArtifactStore(folder)


def _check_port(port: int) -> None:
    """Refuse a port that cannot be served now, not after the publishing of a long study."""
    try:
        socket.create_server(("localhost", port)).close()
    except OSError as error:
        raise DisciplineError(f"--port {port} cannot be served, choose another: {error}") from error
