"""Many workers, one study: a worker is this command, and Ray or SLURM keeps as many of them running as you like.

    python examples/cluster.py --storage URL --trials 60 --objective my_module:objective      one worker, here
    python examples/cluster.py ... --ray 8 --gpus 0.5 --address auto            eight on a Ray cluster, two to a GPU
    STORAGE=URL OBJECTIVE=my_module:objective sbatch examples/slurm.sh          eight on SLURM

The storage is all that workers share: kill any, start more, come back next week. It has to be a database that every
machine reaches (postgresql+psycopg://user@host/name); SQLite is for one machine. The objective is named, not sent, so
its module must be importable on every machine, from the folder where its worker starts or as installed.
"""

import argparse
import importlib
import os
import re
import sys
import time
from collections.abc import Callable

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.study import MaxTrialsCallback
from optuna.trial import TrialState
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import IntegrityError
from sqlalchemy.exc import SQLAlchemyError

from optuna_discipline import DisciplinedPruner
from optuna_discipline import DisciplinedSampler

DONE = (TrialState.COMPLETE, TrialState.PRUNED)


def work(url: str, study_name: str, n_trials: int, objective: str, heartbeat: int = 60) -> None:
    """Run trials until the study has enough; each worker may run one more that it had begun.

    The trial of a killed worker is failed after three heartbeats, and its candidate is free for the others.
    """
    storage = RDBStorage(url, heartbeat_interval=heartbeat, grace_period=3 * heartbeat)
    study = optuna.create_study(
        study_name=study_name,
        storage=storage,
        load_if_exists=True,
        sampler=DisciplinedSampler(),
        pruner=DisciplinedPruner(),
    )
    if len(study.get_trials(deepcopy=False, states=DONE)) < n_trials:
        enough = MaxTrialsCallback(n_trials, states=DONE)
        # The error of a trial that is pruned or fails holds its model; a GPU's memory does not make Python collect it.
        study.optimize(load(objective), callbacks=[enough], gc_after_trial=True)


def work_on_ray(n_workers: int, gpus: float, address: str | None, *arguments: object) -> None:
    """Start workers as Ray tasks and wait for them; Ray starts lost ones again, on another machine if need be."""
    import ray

    ray.init(address=address)
    # max_retries=-1: without end. A share of a GPU sets CUDA_VISIBLE_DEVICES; memory is for the objective to share.
    task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=-1)(work)
    ray.get([task.remote(*arguments) for _ in range(n_workers)])
    ray.shutdown()


def load(name: str) -> Callable[[optuna.Trial], float]:
    """Return the function that `module:function` names; the module may lie in the current folder."""
    module, _, function = name.partition(":")
    if not module or not function:
        raise ValueError(f"must be MODULE:FUNCTION, such as my_module:objective, but got {name!r}")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    found: Callable[[optuna.Trial], float] = getattr(importlib.import_module(module), function)
    if not callable(found):
        raise ValueError(f"must be a function, such as my_module:objective, but {name} is {found!r}")
    return found


def make_tables(url: str) -> None:
    """Make the tables of a new database: of workers that do so at once one succeeds, the others look again."""
    if "://" not in url:
        raise ValueError(f"must be the URL of a database, such as sqlite:///study.db, but got {url!r}")
    if re.match("[^:]+://[^:/]*:[^@]*@[^?]*@", url):
        raise ValueError("must not have an @ in its password: write it as %40")
    for seconds in (0.2, 0.5, 1, 2):
        try:
            return RDBStorage(url).remove_session()
        except (DBAPIError, StorageInternalError) as error:
            failed = error if isinstance(error, DBAPIError) else error.__cause__
            if not isinstance(failed, IntegrityError) and "already exists" not in str(failed):
                raise
        time.sleep(seconds)
    return RDBStorage(url).remove_session()


def main() -> None:
    """Read the command line and work."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--storage", required=True, help="URL of a database that every worker reaches")
    parser.add_argument("--study-name", default="discipline")
    parser.add_argument("--trials", type=int, required=True, help="finished trials of the whole study")
    parser.add_argument("--objective", required=True, metavar="MODULE:FUNCTION")
    parser.add_argument("--heartbeat", type=int, default=60, help="seconds (default 60)")
    parser.add_argument("--ray", type=int, default=0, metavar="N", help="workers as Ray tasks")
    parser.add_argument("--gpus", type=float, default=0.0, help="GPUs a Ray worker, such as 0.5")
    parser.add_argument("--address", help="of a running Ray cluster, or auto; without it Ray starts on this machine")
    given = parser.parse_args()
    for option, check in (("objective", load), ("storage", make_tables)):
        try:
            check(getattr(given, option))
        except (ValueError, ImportError, AttributeError, RuntimeError, SQLAlchemyError, StorageInternalError) as error:
            parser.error(f"--{option}: {str(error).splitlines()[0]}")
    arguments = (given.storage, given.study_name, given.trials, given.objective, given.heartbeat)
    if given.ray:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        work_on_ray(given.ray, given.gpus, given.address, *arguments)
    else:
        work(*arguments)


if __name__ == "__main__":
    main()
