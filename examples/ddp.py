"""Each trial trained by several processes.

    torchrun --nproc-per-node 2 examples/ddp.py --storage sqlite:///ddp.db

Rank 0 holds the study; all ranks see the same parameters, and are pruned at the same epoch. They train on GPUs where a
machine has one for each of its ranks, else on CPUs.
"""

import argparse
import os

import optuna
import torch
from optuna.storages import RDBStorage
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from optuna_discipline import DisciplinedPruner
from optuna_discipline import DisciplinedSampler
from optuna_discipline import DistributedTrial
from optuna_discipline import OneCycle
from optuna_discipline import Recipe
from optuna_discipline import TrialReporter
from optuna_discipline import optimize_on_ranks
from optuna_discipline import suggest_hyperparams
from optuna_discipline import train_epochs

EPOCHS, BATCH = 4, 32  # a batch of each rank


def objective(trial: DistributedTrial) -> float:
    """Train on this rank's share of the data; the losses are those of all ranks."""
    rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    p = suggest_hyperparams(trial, batch_size=BATCH, epochs=EPOCHS)
    x = torch.randn(1024, 16, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] * x[:, 1] > 0).long()
    train, val = (x[rank:768:world], y[rank:768:world]), (x[768 + rank :: world], y[768 + rank :: world])
    torch.manual_seed(0)
    model = DistributedDataParallel(
        nn.Sequential(nn.Linear(16, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 2)).to(own_device())
    )
    steps = EPOCHS * -(-len(train[0]) // BATCH)
    reporter = TrialReporter(trial, n_epochs=EPOCHS, n_classes=2)
    schedule = OneCycle(p.max_lr, steps, max_momentum=p.momentum, base_momentum=min(0.85, p.momentum))
    for log in train_epochs(
        model, nn.CrossEntropyLoss(), train, val, schedule, weight_decay=p.weight_decay, batch_size=BATCH, seed=rank
    ):
        reporter.report(log)
    assert log.val_loss is not None
    return log.val_loss


def own_device() -> torch.device:
    """Return this rank's GPU, the CPU where not every rank of this machine has one."""
    if torch.cuda.device_count() < int(os.environ["LOCAL_WORLD_SIZE"]):
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ["LOCAL_RANK"]))


def main() -> None:
    """Join the other ranks and tune."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--storage", help="SQL URL such as sqlite:///ddp.db; without it nothing is kept")
    parser.add_argument("--trials", type=int, default=6)
    given = parser.parse_args()
    if own_device().type == "cuda":
        torch.cuda.set_device(own_device())  # else what the ranks tell each other goes through the first one's
    torch.distributed.init_process_group()  # gloo for what is on the CPU, NCCL for what is on GPUs
    study = None
    if torch.distributed.get_rank() == 0:
        study = optuna.create_study(
            study_name="ddp",
            storage=given.storage and RDBStorage(given.storage, heartbeat_interval=60),  # fails what a killed job ran
            load_if_exists=True,
            sampler=DisciplinedSampler(Recipe(cyclical_momentum=True)),  # as the 1cycle above
            pruner=DisciplinedPruner(),
        )
    # The error by which a trial is pruned holds its model; a GPU's memory does not make Python collect it.
    optimize_on_ranks(study, objective, n_trials=given.trials, gc_after_trial=True)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
