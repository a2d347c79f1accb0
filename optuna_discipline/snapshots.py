"""Snapshots of a study's trainings: saved at a plateau, restarted by any worker, removed when no longer needed."""

import dataclasses
import hashlib
import os
import tempfile
import warnings
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from typing import Any

import optuna
from optuna.artifacts import FileSystemArtifactStore
from optuna.artifacts import download_artifact
from optuna.artifacts import get_all_artifact_meta
from optuna.artifacts import upload_artifact
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.study import Study
from optuna.trial import BaseTrial
from optuna.trial import FrozenTrial
from optuna.trial import Trial
from optuna.trial import TrialState

from optuna_discipline import study_record
from optuna_discipline import trial_record
from optuna_discipline.exceptions import DisciplineError
from optuna_discipline.rules.curve import EpochLog
from optuna_discipline.rules.curve import LossCurve
from optuna_discipline.rules.plateau import is_restart_point
from optuna_discipline.rules.recipe import Recipe
from optuna_discipline.rules.recipe import restart_sources
from optuna_discipline.rules.role_names import role_said
from optuna_discipline.rules.space import Role
from optuna_discipline.study_reader import StudyReader
from optuna_discipline.study_reader import asked_distributions
from optuna_discipline.study_reader import read_trials

if TYPE_CHECKING:
    from optuna.artifacts import ArtifactMeta
    from optuna.artifacts._protocol import ArtifactStore

    from optuna_discipline.training.saved_state import SavedState

FILE_NAME = "discipline-snapshot.pt"
ARTIFACT_PREFIX = "artifacts:"  # Optuna's keys
_logger = optuna.logging.get_logger(f"optuna.{__name__}")


class SnapshotRestarts:
    """Saves and restarts the trainings of a study whose recipe says `weight_decay_search="snapshot"`.

    `of(trial)` goes to `train_epochs(..., snapshots=...)`; the object itself is a callback of `study.optimize` that
    removes what is no longer needed: all but the best three runs' before the weight decay is searched, and everything
    after it. A snapshot that is missing or damaged costs nothing but a warning and the time of a whole training.

    Args:
        artifact_store: A store of `optuna.artifacts` that every worker reaches, or a folder.

    Example:
        >>> import tempfile
        >>> from optuna_discipline import SnapshotRestarts
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     restarts = SnapshotRestarts(folder)
        ...     study = optuna.create_study()
        ...     study.optimize(lambda trial: float(restarts.of(trial).load() is None), n_trials=1, callbacks=[restarts])
        >>> study.best_value  # nothing to restart from
        1.0
    """

    def __init__(self, artifact_store: "ArtifactStore | str | os.PathLike[str]") -> None:
        if isinstance(artifact_store, str | os.PathLike):
            Path(artifact_store).mkdir(parents=True, exist_ok=True)
            artifact_store = FileSystemArtifactStore(Path(artifact_store))
        if not all(callable(getattr(artifact_store, name, None)) for name in ("open_reader", "write", "remove")):
            raise TypeError(
                f"`artifact_store` must be a store of optuna.artifacts or a folder, but got {artifact_store!r}."
            )
        self._store = artifact_store
        self._removed: set[str] = set()

    def of(self, trial: BaseTrial) -> "TrialSnapshots":
        """Return what `train_epochs` asks, for one trial.

        Raises:
            ValueError: If several processes train it: each has random states and an order of data of its own.
        """
        alone = getattr(trial, "_alone", trial)  # that of a DistributedTrial
        if alone is None:
            raise ValueError(
                "`trial` must be trained by one process, or its snapshot lacks what the other ranks have, but got a "
                f"{type(trial).__name__}: leave out `snapshots`, and search by Recipe(weight_decay_search='runs')."
            )
        return TrialSnapshots(alone, self._store)

    def __call__(self, study: Study, trial: FrozenTrial) -> None:
        """Remove the snapshots that no later trial can restart from."""
        there = {t.number: files for t in read_trials(study) if (files := self._files_of(study, t))}
        if there:
            needed = needed_snapshots(study)
            for number, files in there.items():
                if number not in needed:
                    self._remove(number, files)

    def _files_of(self, study: Study, trial: FrozenTrial) -> list[str]:
        """Return the artifacts of a trial that are snapshots, also of one that was killed while it wrote them."""
        if not any(key.startswith(ARTIFACT_PREFIX) for key in trial.system_attrs):  # spares a query of the storage
            return []
        found = [artifact.artifact_id for artifact in _artifacts_of(study, trial) if artifact.filename == FILE_NAME]
        return [artifact_id for artifact_id in found if artifact_id not in self._removed]

    def _remove(self, number: int, artifact_ids: Iterable[str]) -> None:
        for artifact_id in artifact_ids:
            self._removed.add(artifact_id)
            try:
                self._store.remove(artifact_id)
            except ArtifactNotFound:
                continue
            except Exception as error:
                warnings.warn(f"The snapshot of trial {number} cannot be removed: {error}", stacklevel=2)


class TrialSnapshots:
    """One trial's side of `SnapshotRestarts`: what its training asks at its start and after each epoch.

    Args:
        trial: The objective's trial; one without a storage neither saves nor restarts.
        artifact_store: Where the files lie.
    """

    def __init__(self, trial: BaseTrial, artifact_store: "ArtifactStore") -> None:
        self._trial = trial if isinstance(trial, Trial) else None
        self._store = artifact_store
        frozen = None if self._trial is None else self._trial.study._storage.get_trial(self._trial._trial_id)
        claim = (frozen and trial_record.read_claim(frozen)) or {}
        self._source: int | None = claim.get("restart_from")
        self._keeps = bool(claim.get("keep_snapshot"))
        self._saved = False

    def load(self) -> "SavedState | None":
        """Return the state that the trial may go on from; None if it trains from the start."""
        if self._trial is None or self._source is None:
            return None
        try:
            return self._read(self._trial, self._source)
        except Exception as error:  # whatever is wrong with a file or a store, the trial can be trained from the start
            warnings.warn(
                f"Trial {self._trial.number} trains from the start, because the snapshot of trial {self._source} "
                f"cannot be used: {error}",
                stacklevel=2,
            )
            return None

    def went_on(self, state: "SavedState") -> None:
        """Say on the trial from where it goes on: only now, since a training that begins anew may be the best."""
        if self._trial is None or self._source is None:
            return
        epochs = state.logs[-1].epoch + 1
        trial_record.write_restart(self._trial.study._storage, self._trial, self._source, epochs)
        _logger.info(f"Trial {self._trial.number} goes on from trial {self._source} at epoch {epochs}.")

    def is_wanted(self, logs: Sequence[EpochLog], n_epochs: int) -> bool:
        """Return whether the training is to be saved now."""
        return self._keeps and not self._saved and is_restart_point(LossCurve(tuple(logs), n_epochs))

    def save(self, state: "SavedState") -> None:
        """Write the snapshot and say on the trial where it lies; if that fails, warn."""
        from optuna_discipline.training.saved_state import write_state

        if self._trial is None:
            return
        self._saved = True
        storage = self._trial.study._storage
        try:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / FILE_NAME
                write_state(state, path)
                digest = _digest(path)
                artifact = upload_artifact(artifact_store=self._store, file_path=str(path), study_or_trial=self._trial)
            trial_record.write_snapshot(storage, self._trial, artifact, digest)
        except Exception as error:  # a full disk must not cost a training
            warnings.warn(f"The snapshot of trial {self._trial.number} was not saved: {error}", stacklevel=2)

    def _read(self, trial: Trial, source: int) -> "SavedState":
        from optuna_discipline.training.saved_state import read_state

        other = next((t for t in read_trials(trial.study) if t.number == source), None)
        snapshot = None if other is None else trial_record.read_snapshot(other)
        if other is None or snapshot is None:
            raise DisciplineError("it has none")
        _check_same(trial.params, other.params, study_record.told_roles(trial.study))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / FILE_NAME
            download_artifact(artifact_store=self._store, file_path=str(path), artifact_id=snapshot["artifact_id"])
            if _digest(path) != snapshot["sha256"]:
                raise DisciplineError("the file is damaged")
            return read_state(path)


def needed_snapshots(study: Study) -> set[int]:
    """Return the numbers of the trials whose snapshots may still be restarted from; those that run are among them."""
    trials = read_trials(study)
    running = [trial for trial in trials if trial.state == TrialState.RUNNING]
    claims = [claim for trial in running if (claim := trial_record.read_claim(trial)) is not None]
    sources = {claim["restart_from"] for claim in claims if isinstance(claim.get("restart_from"), int)}
    reader = StudyReader(study_record.told_roles(study))
    space = reader.space(asked_distributions(trials))
    choice = study_record.read_choice(study)
    recipe = _recipe_of(study_record.read_settings(study))
    found = restart_sources(recipe, reader.runs(study, trials), space=space, choice=choice)
    return found | sources | {trial.number for trial in running}


def _recipe_of(settings: Mapping[str, Any]) -> Recipe:
    """Return the recipe that the study was begun with; the default where it is not to be read."""
    stored, names = settings.get("recipe"), {field.name for field in dataclasses.fields(Recipe)}
    if not isinstance(stored, dict):
        return Recipe()
    known: dict[str, Any] = {
        name: tuple(x) if isinstance(x, list) else x for name, x in stored.items() if name in names
    }
    try:
        return Recipe(**known)
    except (TypeError, ValueError):
        return Recipe()


def _artifacts_of(study: Study, trial: FrozenTrial) -> "list[ArtifactMeta]":
    """Return the artifacts of a trial; none where optuna-dashboard has deleted one, which Optuna cannot read then."""
    try:
        return get_all_artifact_meta(trial, storage=study._storage)
    except (KeyError, TypeError, ValueError):
        return []


def _check_same(params: Mapping[str, Any], others: Mapping[str, Any], told: Mapping[str, Role | None]) -> None:
    """Check that two trials differ in their weight decay only."""
    different = [name for name in {*params, *others} if params.get(name) != others.get(name)]
    different = sorted(name for name in different if role_said(name, told) != "weight_decay")
    if different:
        raise DisciplineError(f"the trials differ in {', '.join(different)} too")


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
