"""Leslie Smith's discipline for learning rate, momentum, weight decay and batch size, in Optuna.

The names below are the whole public interface; those that need torch or plotly load it on first use,
and without it their call names the extra to install.
"""

from importlib import import_module
from typing import TYPE_CHECKING
from typing import Any

from optuna_discipline._imports import require
from optuna_discipline._imports import stand_in
from optuna_discipline.exceptions import DisciplineError
from optuna_discipline.exceptions import MissingExtraError
from optuna_discipline.exceptions import RangeTestError
from optuna_discipline.exceptions import UnsupportedStudyError
from optuna_discipline.objective import HyperParams
from optuna_discipline.objective import TrialReporter
from optuna_discipline.objective import report_epoch
from optuna_discipline.objective import suggest_hyperparams
from optuna_discipline.pruner import DisciplinedPruner
from optuna_discipline.rules.candidates import bisect_exponent
from optuna_discipline.rules.candidates import epochs_at_equal_time
from optuna_discipline.rules.candidates import momentum_candidates
from optuna_discipline.rules.candidates import weight_decay_candidates
from optuna_discipline.rules.complexity import complexity_of
from optuna_discipline.rules.curve import EpochLog
from optuna_discipline.rules.curve import LossCurve
from optuna_discipline.rules.diagnosis import Diagnosis
from optuna_discipline.rules.diagnosis import Verdict
from optuna_discipline.rules.diagnosis import diagnose
from optuna_discipline.rules.lr_choice import LrChoice
from optuna_discipline.rules.lr_choice import choose_max_lr
from optuna_discipline.rules.plateau import is_restart_point
from optuna_discipline.rules.pruning import StopDecision
from optuna_discipline.rules.pruning import should_stop
from optuna_discipline.rules.range_test import RangeTest
from optuna_discipline.rules.range_test import average_range_tests
from optuna_discipline.rules.range_test_ranking import rank_by_range_test
from optuna_discipline.rules.recipe import Recipe
from optuna_discipline.rules.recipe import next_params
from optuna_discipline.rules.run import Proposal
from optuna_discipline.rules.run import Run
from optuna_discipline.rules.runs_diagnosis import RunsDiagnosis
from optuna_discipline.rules.schedule import OneCycle
from optuna_discipline.rules.schedule import Triangular
from optuna_discipline.rules.space import Bounds
from optuna_discipline.sampler import DisciplinedSampler
from optuna_discipline.snapshots import SnapshotRestarts
from optuna_discipline.study_diagnosis import diagnose_study

if TYPE_CHECKING:
    from optuna_discipline.integrations.distributed_trial import DistributedTrial
    from optuna_discipline.integrations.torch_distributed import optimize_on_ranks
    from optuna_discipline.training.batch_size import largest_batch_size
    from optuna_discipline.training.batch_size import samples_per_second
    from optuna_discipline.training.find_lr import find_lr
    from optuna_discipline.training.loaders import cut_anew
    from optuna_discipline.training.loop import train_epochs
    from optuna_discipline.training.lr_range_test import lr_range_test
    from optuna_discipline.tuning import tune
    from optuna_discipline.visualization.cost import plot_cost
    from optuna_discipline.visualization.dashboard import DashboardCallback
    from optuna_discipline.visualization.dashboard import publish
    from optuna_discipline.visualization.loss_curve import plot_loss_curve
    from optuna_discipline.visualization.range_test import plot_range_test
    from optuna_discipline.visualization.recipe import plot_recipe
    from optuna_discipline.visualization.report import write_report
    from optuna_discipline.visualization.schedule import plot_schedule

__version__ = "0.1.0"

_LAZY = {
    "DashboardCallback": "visualization.dashboard",
    "DistributedTrial": "integrations.distributed_trial",
    "cut_anew": "training.loaders",
    "find_lr": "training.find_lr",
    "largest_batch_size": "training.batch_size",
    "lr_range_test": "training.lr_range_test",
    "optimize_on_ranks": "integrations.torch_distributed",
    "plot_cost": "visualization.cost",
    "plot_loss_curve": "visualization.loss_curve",
    "plot_range_test": "visualization.range_test",
    "plot_recipe": "visualization.recipe",
    "plot_schedule": "visualization.schedule",
    "publish": "visualization.dashboard",
    "samples_per_second": "training.batch_size",
    "train_epochs": "training.loop",
    "tune": "tuning",
    "write_report": "visualization.report",
}

__all__ = [
    "Bounds",
    "DashboardCallback",
    "Diagnosis",
    "DisciplineError",
    "DisciplinedPruner",
    "DisciplinedSampler",
    "DistributedTrial",
    "EpochLog",
    "HyperParams",
    "LossCurve",
    "LrChoice",
    "MissingExtraError",
    "OneCycle",
    "Proposal",
    "RangeTest",
    "RangeTestError",
    "Recipe",
    "Run",
    "RunsDiagnosis",
    "SnapshotRestarts",
    "StopDecision",
    "TrialReporter",
    "Triangular",
    "UnsupportedStudyError",
    "Verdict",
    "average_range_tests",
    "bisect_exponent",
    "choose_max_lr",
    "complexity_of",
    "cut_anew",
    "diagnose",
    "diagnose_study",
    "epochs_at_equal_time",
    "find_lr",
    "is_restart_point",
    "largest_batch_size",
    "lr_range_test",
    "momentum_candidates",
    "next_params",
    "optimize_on_ranks",
    "plot_cost",
    "plot_loss_curve",
    "plot_range_test",
    "plot_recipe",
    "plot_schedule",
    "publish",
    "rank_by_range_test",
    "report_epoch",
    "samples_per_second",
    "should_stop",
    "suggest_hyperparams",
    "train_epochs",
    "tune",
    "weight_decay_candidates",
    "write_report",
]


if not TYPE_CHECKING:  # a checker that saw it would take any misspelt name for one of these

    def __getattr__(name: str) -> Any:
        if name not in _LAZY:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module = f"{__name__}.{_LAZY[name]}"
        if _LAZY[name].startswith("training."):
            try:
                require("torch", extra="torch")
            except MissingExtraError:
                return stand_in(f"{module}.{name}", needs="torch", extra="torch")
        value = getattr(import_module(module), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted([*__all__, *(name for name in globals() if name.startswith("__"))])
