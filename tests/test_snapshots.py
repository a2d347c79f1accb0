import dataclasses
import multiprocessing
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from typing import BinaryIO

import optuna
import pytest
from optuna.artifacts import FileSystemArtifactStore
from optuna.artifacts import get_all_artifact_meta
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from optuna_discipline import DisciplinedSampler
from optuna_discipline import DisciplineError
from optuna_discipline import DistributedTrial
from optuna_discipline import OneCycle
from optuna_discipline import Recipe
from optuna_discipline import SnapshotRestarts
from optuna_discipline import TrialReporter
from optuna_discipline import snapshots
from optuna_discipline import suggest_hyperparams
from optuna_discipline import tune
from optuna_discipline.costs import cost_in_full_trainings
from optuna_discipline.snapshots import needed_snapshots
from optuna_discipline.trial_record import may_be_best
from optuna_discipline.trial_record import read_curve
from optuna_discipline.trial_record import read_snapshot

torch = pytest.importorskip("torch")
nn = torch.nn

X = torch.randn(120, 4, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] + X[:, 1] ** 2 > 0.5).long()
RECIPE = Recipe(stages=("lr", "weight_decay", "momentum", "refine"), weight_decay_search="snapshot")
EPOCHS = 6


def build_model() -> Any:
    return nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 2))


def run(n_trials: int = 3, **settings: Any) -> optuna.Study:
    fixed: dict[str, Any] = {"lr": (0.29, 0.31), "momentum": (0.89, 0.91), "batch_size": 32, "range_test": False}
    options = {"recipe": RECIPE, "epochs": EPOCHS, "seed": 0, "device": "cpu", **fixed, **settings}
    return tune(build_model, (X, Y), (X, Y), n_trials=n_trials, **options)


def sources(study: optuna.Study) -> list[int | None]:
    return [trial.user_attrs.get("restarted_from") for trial in study.trials]


def stop_when_decided(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
    if trial.user_attrs["stage"] == "momentum":
        study.stop()


def shared(folder: Path) -> dict[str, Any]:
    """Return what two workers share: a storage and a store."""
    storage = JournalStorage(JournalFileBackend(str(folder / "journal.log")))
    return {"storage": storage, "artifact_store": folder / "store"}


def test_a_trial_of_several_processes_is_refused(tmp_path: Path) -> None:
    trial = DistributedTrial.__new__(DistributedTrial)  # needs no process group here
    trial._dist, trial._group = SimpleNamespace(get_world_size=lambda _: 2), None
    with pytest.raises(ValueError, match=r"by one process, .* got a DistributedTrial: leave out `snapshots`, and"):
        SnapshotRestarts(tmp_path).of(trial)


def stored(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_other_weight_decays_go_on_from_the_plateau_of_the_first() -> None:
    study = run()
    assert sources(study) == [None, 0, 0]
    assert len({trial.params["weight_decay"] for trial in study.trials}) == 3
    curves = [read_curve(trial) for trial in study.trials]
    assert all(curve is not None and len(curve) == EPOCHS for curve in curves)
    shared = [sum(a == b for a, b in zip(curves[0].logs, c.logs, strict=True)) for c in curves[1:]]  # type: ignore[union-attr]
    assert shared[0] == shared[1]
    assert EPOCHS // 4 <= shared[0] <= EPOCHS // 2
    assert cost_in_full_trainings(study) == pytest.approx(1 + 2 * (1 - shared[0] / EPOCHS))


@pytest.mark.parametrize("stages", [("lr", "weight_decay", "refine"), ("weight_decay", "refine")])
def test_the_first_trial_is_restarted_where_no_stage_comes_before(stages: Any) -> None:
    study = run(recipe=dataclasses.replace(RECIPE, stages=stages), lr=(0.3, 0.3))
    assert [trial.user_attrs["stage"] for trial in study.trials[1:]] == ["weight_decay"] * 2
    assert sources(study) == [None, 0, 0]


def test_runs_from_the_start_stay_the_default() -> None:
    study = run(recipe=dataclasses.replace(RECIPE, weight_decay_search="runs"))
    assert sources(study) == [None] * 3
    assert not any(get_all_artifact_meta(trial, storage=study._storage) for trial in study.trials)


def test_any_worker_restarts_and_the_last_one_clears_up(tmp_path: Path) -> None:
    place = shared(tmp_path)
    run(n_trials=1, **place)
    assert len(stored(tmp_path / "store")) == 1
    study = run(n_trials=3, **place)
    assert sources(study) == [None, 0, 0]
    assert len(stored(tmp_path / "store")) == 1
    study = run(n_trials=12, callbacks=[stop_when_decided], **place)
    assert study.trials[-1].user_attrs["stage"] == "momentum"
    assert stored(tmp_path / "store") == set()
    assert study.trials[-1].state in (TrialState.COMPLETE, TrialState.PRUNED)


@pytest.mark.parametrize("damage", ["removed", "cut", "flipped"])
def test_a_missing_or_damaged_snapshot_means_a_whole_training_and_a_warning(tmp_path: Path, damage: str) -> None:
    place = shared(tmp_path)
    run(n_trials=1, **place)
    (path,) = (tmp_path / "store").iterdir()
    content = path.read_bytes()
    if damage == "removed":
        path.unlink()
    else:
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        path.write_bytes(content[:middle] if damage == "cut" else flipped)
    why = "not found" if damage == "removed" else "the file is damaged"
    with pytest.warns(UserWarning, match=f"Trial 1 trains from the start, because the snapshot of trial 0 .*: {why}"):
        study = run(n_trials=2, **place)
    assert sources(study) == [None, None]
    assert study.trials[1].state == TrialState.COMPLETE
    assert cost_in_full_trainings(study) == 2


def test_a_training_that_a_snapshot_does_not_fit_is_a_whole_one_and_may_be_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = shared(tmp_path)
    run(n_trials=1, **place)
    monkeypatch.setattr(sys.modules[__name__], "build_model", lambda: nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2)))
    with pytest.warns(UserWarning, match="The saved training does not fit this one, which begins anew"):
        study = run(n_trials=2, **place)
    assert sources(study) == [None, None]
    assert may_be_best(study.trials[1])
    assert cost_in_full_trainings(study) == 2


def test_a_full_store_costs_no_training(tmp_path: Path) -> None:
    class Full(FileSystemArtifactStore):
        def write(self, artifact_id: str, content_body: BinaryIO) -> None:
            raise OSError("no space left")

    with (
        pytest.warns(UserWarning, match="The snapshot of trial 0 was not saved: no space left"),
        pytest.warns(UserWarning, match="the snapshot of trial 0 cannot be used: it has none"),
    ):
        study = run(n_trials=2, artifact_store=Full(tmp_path))
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 2


def test_a_weight_decay_may_be_an_exponent() -> None:
    snapshots._check_same({"log_wd": -4.0, "lr": 0.1}, {"log_wd": -5.0, "lr": 0.1}, {})
    for told in ({}, {"log_wd": None}):
        with pytest.raises(DisciplineError, match="the trials differ in"):
            snapshots._check_same({"log_wd": -4.0, "log_lr": -1}, {"log_wd": -5.0, "log_lr": -2}, told)


def test_a_trial_that_differs_in_more_than_its_weight_decay_is_trained_as_a_whole(tmp_path: Path) -> None:
    place = shared(tmp_path)
    run(n_trials=1, **place)
    with pytest.warns(UserWarning, match=r"the trials differ in momentum too"):
        study = run(n_trials=2, **place, momentum=(0.8, 0.8))
    assert sources(study) == [None, None]


def test_an_own_objective_restarts_too(tmp_path: Path) -> None:
    from optuna_discipline import train_epochs

    restarts = SnapshotRestarts(tmp_path)

    def objective(trial: optuna.Trial) -> float:
        p = suggest_hyperparams(trial, lr=(0.29, 0.31), momentum=(0.89, 0.91), batch_size=30, epochs=EPOCHS)
        schedule = OneCycle(p.max_lr, total_steps=p.epochs * 4)
        reporter = TrialReporter(trial, n_epochs=p.epochs)
        logs = train_epochs(
            build_model(),
            nn.CrossEntropyLoss(),
            (X, Y),
            (X, Y),
            schedule,
            weight_decay=p.weight_decay,
            batch_size=p.batch_size,
            seed=trial.number,
            snapshots=restarts.of(trial),
        )
        for log in logs:
            reporter.report(log)
        return log.val_loss  # type: ignore[return-value]

    study = optuna.create_study(sampler=DisciplinedSampler(RECIPE, seed=0))
    study.optimize(objective, n_trials=12, callbacks=[stop_when_decided, restarts])
    assert sources(study)[:3] == [None, 0, 0]
    assert stored(tmp_path) == set()


def test_before_the_weight_decay_is_searched_the_best_three_are_kept(tmp_path: Path) -> None:
    recipe = dataclasses.replace(RECIPE, stages=("lr", "momentum", "weight_decay"))
    study = run(n_trials=4, recipe=recipe, lr=(1e-9, 1.0), pruner=optuna.pruners.NopPruner(), artifact_store=tmp_path)
    assert {trial.user_attrs["stage"] for trial in study.trials} == {"lr"}
    finished = [t for t in study.trials if t.state == TrialState.COMPLETE and read_snapshot(t) is not None]
    assert len(finished) == 4
    best = sorted(finished, key=lambda t: t.value or 0.0)[:3]
    assert stored(tmp_path) == {read_snapshot(t)["artifact_id"] for t in best}  # type: ignore[index]


def test_the_snapshot_that_the_stage_restarts_is_needed_until_it_is_decided() -> None:
    study = optuna.create_study(sampler=DisciplinedSampler(RECIPE, seed=0))

    def ask() -> optuna.Trial:
        trial = study.ask()
        suggest_hyperparams(trial, lr=(0.29, 0.31), momentum=(0.89, 0.91), epochs=EPOCHS)
        return trial

    study.tell(ask(), 1.0)
    restarted = ask()
    assert needed_snapshots(study) == {0, restarted.number}
    study.tell(restarted, 2.0)
    while (trial := ask()).user_attrs["stage"] == "weight_decay":
        assert 0 in needed_snapshots(study)
        study.tell(trial, 2.0)
    assert needed_snapshots(study) == {trial.number}


def test_a_stored_study_needs_a_place_that_all_workers_reach(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`artifact_store` must be given where a stored study restarts"):
        run(storage=shared(tmp_path)["storage"])
    with pytest.raises(TypeError, match=r"`artifact_store` must be a store of optuna\.artifacts or a folder"):
        SnapshotRestarts(3)  # type: ignore[arg-type]


def die_while_writing(folder: str) -> None:
    """Begin a study, and be killed in the middle of its first snapshot."""
    torch.set_num_threads(1)  # a pool of threads does not survive the fork

    class Dying(FileSystemArtifactStore):
        def write(self, artifact_id: str, content_body: BinaryIO) -> None:
            content = content_body.read()
            Path(folder, "store", artifact_id).write_bytes(content[: len(content) // 2])
            os.kill(os.getpid(), signal.SIGKILL)

    Path(folder, "store").mkdir()
    run(**{**shared(Path(folder)), "artifact_store": Dying(f"{folder}/store")})


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the worker is forked")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_worker_killed_in_the_middle_of_a_snapshot_leaves_a_study_that_goes_on(tmp_path: Path) -> None:
    worker = multiprocessing.get_context("fork").Process(target=die_while_writing, args=(str(tmp_path),), daemon=True)
    worker.start()
    worker.join(60)
    assert worker.exitcode == -signal.SIGKILL
    assert len(stored(tmp_path / "store")) == 1
    place = shared(tmp_path)
    study = optuna.load_study(study_name="discipline", storage=place["storage"])
    assert [trial.state for trial in study.trials] == [TrialState.RUNNING]
    study.tell(0, state=TrialState.FAIL)  # as a heartbeat would
    study = run(n_trials=12, callbacks=[stop_when_decided], **place)
    assert study.trials[-1].user_attrs["stage"] == "momentum"
    assert {source for source in sources(study) if source is not None} == {1}
    assert sources(study)[2:4] == [1, 1]
    assert stored(tmp_path / "store") == set()  # the half one is removed too
