"""What each of two ranks sees, as JSON in a file: a program, which loads torch once and forks into both."""

import datetime
import gc
import importlib.util
import json
import logging
import math
import os
import signal
import sys
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from optuna_discipline import DisciplinedPruner
from optuna_discipline import DisciplinedSampler
from optuna_discipline import DisciplineError
from optuna_discipline import EpochLog
from optuna_discipline import OneCycle
from optuna_discipline import RangeTest
from optuna_discipline import Recipe
from optuna_discipline import SnapshotRestarts
from optuna_discipline import TrialReporter
from optuna_discipline import find_lr
from optuna_discipline import largest_batch_size
from optuna_discipline import lr_range_test
from optuna_discipline import report_epoch
from optuna_discipline import samples_per_second
from optuna_discipline import suggest_hyperparams
from optuna_discipline import train_epochs
from optuna_discipline.integrations.distributed_trial import DistributedTrial
from optuna_discipline.integrations.torch_distributed import optimize_on_ranks
from optuna_discipline.range_test_record import has_range_test
from optuna_discipline.range_test_record import write_range_test
from optuna_discipline.training.ranks import over_ranks
from optuna_discipline.training.sized_step import load_all_of_torch
from optuna_discipline.training.sweep import Sweep
from optuna_discipline.training.update import Updater
from optuna_discipline.training.update import UpdateResult
from optuna_discipline.trial_record import read_curve

RANK = 0  # until the program forks


class DriverError(Exception):
    """An error that cannot be sent, as those of database drivers."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)


def new_study() -> optuna.Study | None:
    return optuna.create_study(sampler=DisciplinedSampler(seed=0), pruner=DisciplinedPruner()) if RANK == 0 else None


def decisions() -> list[Any]:
    """Return each trial as this rank saw it; its own losses differ from the other's."""
    seen: list[Any] = []

    def objective(trial: DistributedTrial) -> float:
        p = suggest_hyperparams(trial, epochs=3)
        seen.append([trial.number, p.max_lr, trial.params, trial.user_attrs["stage"], sorted(trial.distributions), 0])
        reporter = TrialReporter(trial, n_epochs=3, n_classes=10)
        for epoch in range(3):
            loss = math.nan if trial.number == 1 and epoch == 1 and RANK == 0 else abs(math.log(p.max_lr / 0.01)) + RANK
            seen[-1][-1] = epoch
            reporter.report(EpochLog(epoch, p.max_lr, loss, loss if RANK == 0 else None))
        return loss

    study = new_study()
    optimize_on_ranks(study, objective, n_trials=4)
    if study is not None:
        assert all(len(read_curve(trial)) for trial in study.trials)  # type: ignore[arg-type]
        assert [trial.state.name for trial in study.trials] == ["COMPLETE", "PRUNED", "COMPLETE", "COMPLETE"]
        assert [trial.params for trial in study.trials] == [entry[2] for entry in seen]
    return seen


def errors() -> list[str]:
    """Return the errors that this rank got where rank 0 alone had them."""
    seen: list[str] = []

    def objective(trial: DistributedTrial) -> float:
        def fail(live: optuna.Trial) -> float:
            raise DriverError(1, "server gone") if trial.number == 0 else OSError("disk full")

        try:
            if trial.number == 2:
                report_epoch(trial, 0)
            trial.on_first_rank(fail)
        except Exception as error:
            seen.append(f"{type(error).__name__}: {error}")
            raise
        return 0.0

    study = new_study()
    optimize_on_ranks(study, objective, n_trials=3, catch=Exception)
    if study is not None:
        assert [trial.state.name for trial in study.trials] == ["FAIL"] * 3
    return seen


def freed() -> list[bool]:
    """Return whether what an objective held is gone with its error, before any garbage is collected."""
    held: list[weakref.ref[nn.Module]] = []

    def objective(trial: DistributedTrial) -> float:
        def fail(live: optuna.Trial) -> float:
            raise OSError("disk full")

        model = nn.Linear(1, 1)
        held.append(weakref.ref(model))
        return trial.on_first_rank(fail)

    study = new_study()
    gc.disable()
    try:
        optimize_on_ranks(study, objective, n_trials=2, catch=OSError)
        trial = DistributedTrial(None if study is None else study.ask())
        try:
            objective(trial)
        except OSError:
            trial._received = None  # as the end of an objective does
        return [model() is None for model in held]
    finally:
        gc.enable()


def one_sided_nan() -> list[list[float]]:
    """Return the losses of a training whose data are broken on rank 1 only, at its last batch of the second epoch."""
    torch.manual_seed(0)
    model = DistributedDataParallel(nn.Linear(2, 1))
    x = torch.ones(8, 2) * (RANK + 1)
    batches = [(x, x.sum(1, keepdim=True))] * 3
    calls = iter(range(100))

    def loss_fn(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        broken = next(calls) == 6 and RANK == 1  # 3 updates and an evaluation an epoch
        return ((output - target) ** 2).mean() * (math.nan if broken else 1.0)

    logs = train_epochs(model, loss_fn, batches, [batches[0]] * (RANK + 1), OneCycle(0.01, 12))
    return [[log.epoch, log.train_loss or 0.0, log.val_loss or 0.0] for log in logs]


def shares() -> list[float]:
    """Return sums over the ranks, plain and compiled."""
    model = DistributedDataParallel(nn.Linear(1, 1))
    sums, count = over_ranks(model, torch.tensor([1.0, RANK]), 3 + RANK)
    alone, _ = over_ranks(nn.Linear(1, 1), torch.tensor([1.0, RANK]), 3)
    return [*sums.tolist(), count, float(alone[1]) - RANK]


def share(n: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """Return this rank's share of the data, `n` samples."""
    x = torch.randn(n, 4, generator=torch.Generator().manual_seed(RANK))
    return x, (x[:, 0] * x[:, 1] > 0).long()


def net() -> DistributedDataParallel:
    return DistributedDataParallel(nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2)))


def range_tests() -> list[Any]:
    """Return what range tests and `find_lr` without a seed answer: to far too large rates, and with NaN on rank 1."""
    torch.manual_seed(RANK)
    loss_fn, train = nn.CrossEntropyLoss(), share()
    broken = (train[0].clone(), train[1])
    broken[0][5] = math.nan if RANK == 1 else 0.0
    seen: list[Any] = []
    for data, val in ((train, None), (train, share(40 + RANK)), (broken, None)):
        test = lr_range_test(net(), loss_fn, data, val, num_steps=30, end_lr=1e4, batch_size=8)
        val_loss = [] if test.val_loss is None else test.val_loss.tolist()
        seen.append([test.lrs.tolist(), str(test.train_loss.tolist()), str(val_loss), test.stop_reason])
    return [*seen, find_lr(net, loss_fn, train, None, epochs=5, batch_size=8).max_lr]


def skipped_updates() -> list[Any]:
    """Return the rates of a sweep in which rank 1's scaler alone skipped the first update."""

    class OneSided(Updater):
        calls = 0

        def update(self, window: list[Any]) -> UpdateResult:
            self.calls += 1
            return super().update(window)

        @property
        def scale(self) -> float:
            return 0.5 if self.calls and RANK == 1 else 1.0

    model, device = net(), torch.device("cpu")
    updater = OneSided(model, nn.CrossEntropyLoss(), torch.optim.SGD(model.parameters(), lr=0.1), device)
    sweep = Sweep(updater, np.array([0.1, 0.2]), None, None, 1)
    return [sweep.run(iter([[share(8)]] * 4)), len(sweep.train_loss), updater.calls]


def batch_sizes() -> list[float]:
    """Return the largest batch size, more of which fit on rank 1, and the speed."""
    sample = (torch.zeros(1, 4), torch.tensor([1]))
    loss_fn = nn.CrossEntropyLoss()
    largest = largest_batch_size(net(), sample, loss_fn, high=8 * (1 + RANK))
    return [largest, samples_per_second(net(), sample, 4, loss_fn, seconds=0.01)]


def unequal() -> list[str]:
    """Return the errors where rank 1 has one batch more."""
    seen = []
    for call in (
        lambda: train_epochs(net(), nn.CrossEntropyLoss(), share(16 + 8 * RANK), None, OneCycle(0.1, 2), batch_size=8),
        lambda: lr_range_test(net(), nn.CrossEntropyLoss(), share(16 + 8 * RANK), batch_size=8),
    ):
        try:
            call()
        except ValueError as error:
            seen.append(str(error))
    return seen


def one_sided_ends() -> list[Any]:
    """Return how rank 0's trials and this rank's job end where rank 1's objective alone ends otherwise."""

    def objective(trial: DistributedTrial) -> float:
        x = trial.suggest_float("x", 0.0, 1.0)
        if RANK == 1 and trial.number == 0:
            raise RuntimeError("no memory")  # rank 0 ends without another call
        if RANK == 1 and trial.number == 1:
            raise optuna.TrialPruned
        if RANK == 1 and trial.number == 2:
            raise RuntimeError("no memory")  # rank 0 calls on
        if trial.number == 2:
            trial.report(x, 0)
        if RANK == 1 and trial.number == 4:
            raise OSError("disk full")
        return x

    study, error = new_study(), ""
    try:
        optimize_on_ranks(study, objective, n_trials=6, catch=RuntimeError)
    except Exception as caught:
        error = f"{type(caught).__name__}: {caught}"
    states = [] if study is None else [trial.state.name for trial in study.trials]
    return [states, error]


def unequal_calls() -> list[Any]:
    """Return the errors of trials that the ranks call in another order, and the states of all."""
    seen: list[Any] = []

    def objective(trial: DistributedTrial) -> float:
        try:
            if trial.number == 0:
                for name in ("lr", "momentum") if RANK == 0 else ("momentum", "lr"):
                    trial.suggest_float(name, 0.1, 0.9)
            if trial.number == 1 and RANK == 0:
                trial.report(0.0, 0)
            trial.should_prune()
        except DisciplineError as error:
            seen.append(str(error))
            raise
        return 0.0

    study = new_study()
    optimize_on_ranks(study, objective, n_trials=3, catch=DisciplineError)
    return [*seen, [] if study is None else [trial.state.name for trial in study.trials]]


def refused_studies() -> list[str]:
    """Return the errors where each rank has a study, where none has one, and where a sampler runs its range test.

    One whose study keeps a range test runs none.
    """
    test = lr_range_test(net(), nn.CrossEntropyLoss(), share(), batch_size=8)
    of_a_function = DisciplinedSampler(range_test=lambda: lr_range_test(net(), nn.CrossEntropyLoss(), share()))
    seen = []
    for sampler, on_ranks, is_kept in (
        (DisciplinedSampler(), [0, 1], False),
        (DisciplinedSampler(), [], False),
        (of_a_function, [0], False),
        (optuna.samplers.PartialFixedSampler({"lr": 0.1}, of_a_function), [0], False),
        (of_a_function, [0], True),
    ):
        study = optuna.create_study() if RANK in on_ranks else None
        if study is not None:
            if is_kept:
                write_range_test(study._storage, study.ask()._trial_id, test.to_dict())
            study.sampler = sampler
        try:
            optimize_on_ranks(study, lambda trial: 0.0, n_trials=1)
            seen.append("nothing")
        except ValueError as error:
            seen.append(str(error))
    return seen


def callback_error() -> str:
    """Return the error that ends this rank's job where one of rank 0's callbacks breaks."""

    def callback(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        raise OSError("disk full")

    try:
        optimize_on_ranks(new_study(), lambda trial: 0.0, n_trials=2, callbacks=[callback])
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def group_of_its_own(folder: Path) -> list[int | None]:
    """Return where each trial went on from that rank 1 runs alone, as the first of a group without rank 0.

    Nobody waits for it: its sampler may run the range test, and its trials may be saved.
    """
    alone = dist.new_group([1])
    if RANK == 0:
        return []
    restarts = SnapshotRestarts(folder / "snapshots")

    def objective(trial: DistributedTrial) -> float:
        schedule, decay = OneCycle(trial.suggest_float("lr", 0.3, 0.3), 24), trial.suggest_float("weight_decay", 0, 0.1)
        torch.manual_seed(0)
        reporter = TrialReporter(trial, n_epochs=6)
        given: dict[str, Any] = {"batch_size": 16, "weight_decay": decay, "seed": 0, "snapshots": restarts.of(trial)}
        for log in train_epochs(nn.Linear(4, 2), nn.CrossEntropyLoss(), share(), share(), schedule, **given):
            reporter.report(log)
        return log.val_loss or math.nan

    def range_test() -> RangeTest:
        return lr_range_test(nn.Linear(4, 2), nn.CrossEntropyLoss(), share(), batch_size=8)

    recipe = Recipe(stages=("weight_decay", "refine"), weight_decay_search="snapshot")
    study = optuna.create_study(sampler=DisciplinedSampler(recipe, range_test=range_test))
    optimize_on_ranks(study, objective, n_trials=2, group=alone)
    assert has_range_test(study)
    return [trial.user_attrs.get("restarted_from") for trial in study.trials]


def misuse() -> str:
    try:
        DistributedTrial(None if RANK == 0 else optuna.create_study().ask())
    except ValueError as error:
        return str(error).partition(", but")[0]
    return "nothing"


def example(url: str) -> int:
    """Run the example's objective; return the study's trials, 0 on rank 1."""
    path = Path(__file__).parents[2] / "examples" / "ddp.py"
    spec = importlib.util.spec_from_file_location("ddp", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    study = optuna.create_study(study_name="ddp", storage=url, sampler=DisciplinedSampler()) if RANK == 0 else None
    optimize_on_ranks(study, module.objective, n_trials=2)
    return 0 if study is None else len(study.trials)


def fork_ranks() -> int:
    """Return its rank in each of two processes; the one that began them ends as they do. One that breaks ends both."""
    children = []
    for rank in range(2):
        children.append(os.fork())
        if children[-1] == 0:
            os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE="2")
            return rank
    while children:
        ended, status = os.wait()
        children.remove(ended)
        if status != 0:  # the other would wait for it until the group's time is up
            for child in children:
                os.kill(child, signal.SIGKILL)
            sys.exit(1)
    sys.exit(0)


if __name__ == "__main__":
    url, folder = sys.argv[1:]
    load_all_of_torch()
    RANK = fork_ranks()
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=100))
    logging.disable()
    checks = {
        check.__name__: check()
        for check in (
            decisions,
            errors,
            freed,
            one_sided_nan,
            shares,
            misuse,
            range_tests,
            skipped_updates,
            batch_sizes,
            unequal,
            one_sided_ends,
            unequal_calls,
            refused_studies,
            callback_error,
        )
    }
    checks |= {"group_of_its_own": group_of_its_own(Path(folder)), "example": example(url)}
    Path(folder, f"{RANK}.json").write_text(json.dumps(checks), encoding="utf-8")
    dist.destroy_process_group()
    # DistributedDataParallel keeps the group alive in C++, and gloo's threads with it: one that needs the interpreter
    # while it ends aborts the process ("terminate called without an active exception", seen once in many runs).
    os._exit(0)
