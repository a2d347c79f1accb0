"""One trial trained by several processes (torch.distributed): rank 0 decides and stores, all ranks get the answer.

optuna-integration's TorchDistributedTrial sends floats as float32 (0.1 comes back as 0.10000000149), and an error on
rank 0 aborts or hangs the others; here numbers are exact, errors are raised on every rank, an epoch is one broadcast.
"""

import contextlib
import pickle
from collections.abc import Callable
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING
from typing import Any
from typing import TypeVar

import optuna
from optuna.distributions import BaseDistribution
from optuna.study import Study
from optuna.trial import BaseTrial
from optuna.trial import Trial

from optuna_discipline._imports import require
from optuna_discipline.exceptions import DisciplineError

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

T = TypeVar("T")


class DistributedTrial(BaseTrial):
    """A trial for every rank: each method is called by all of them, asks rank 0's trial once, and answers all alike.

    `suggest_hyperparams`, `TrialReporter` and `report_epoch` take it like any trial; that it is pruned, or an error of
    the storage, is raised on every rank at the same call. Of what the ranks report, rank 0's counts.

    Args:
        trial: The trial on rank 0, None on every other rank.
        group: Processes of the job; None is all.

    Raises:
        ValueError: If `trial` is None on rank 0, or is not elsewhere.
    """

    def __init__(self, trial: Trial | None, group: "ProcessGroup | None" = None) -> None:
        self._dist = require("torch.distributed", extra="torch")
        self._group = group
        if (trial is None) == (self._dist.get_rank(group) == 0):
            raise ValueError(f"`trial` must be a trial on rank 0 and None on the others, but got {trial!r}.")
        self._trial = trial
        self._seen: dict[str, Any] = {}
        self.on_first_rank(lambda trial: None)

    def on_first_rank(self, call: Callable[[Trial], T]) -> T:
        """Call with the trial on rank 0; return the result, or raise the error, on every rank."""
        result: Any = None
        error: Exception | None = None
        seen: dict[str, Any] = {}
        if self._trial is not None:
            try:
                result = call(self._trial)
            except Exception as caught:
                error = caught
            seen = _properties(self._trial)
        first = self._dist.get_global_rank(self._group, 0) if self._group is not None else 0
        box: list[Any] = [(result, _sendable(error), seen)]
        self._dist.broadcast_object_list(box, src=first, group=self._group)
        if error is not None:
            raise error
        result, sent, self._seen = box[0]
        if sent is not None:
            raise sent
        return result  # type: ignore[no-any-return]

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """Suggest a float, see `optuna.Trial.suggest_float`."""
        return self.on_first_rank(lambda trial: trial.suggest_float(name, low, high, step=step, log=log))

    def suggest_uniform(self, name: str, low: float, high: float) -> float:
        """Suggest a float."""
        return self.suggest_float(name, low, high)

    def suggest_loguniform(self, name: str, low: float, high: float) -> float:
        """Suggest a float on a log scale."""
        return self.suggest_float(name, low, high, log=True)

    def suggest_discrete_uniform(self, name: str, low: float, high: float, q: float) -> float:
        """Suggest a float in steps."""
        return self.suggest_float(name, low, high, step=q)

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """Suggest an integer, see `optuna.Trial.suggest_int`."""
        return self.on_first_rank(lambda trial: trial.suggest_int(name, low, high, step=step, log=log))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Suggest one of several values, see `optuna.Trial.suggest_categorical`."""
        return self.on_first_rank(lambda trial: trial.suggest_categorical(name, choices))

    def report(self, value: float, step: int) -> None:
        """Report rank 0's value."""
        self.on_first_rank(lambda trial: trial.report(value, step))

    def should_prune(self) -> bool:
        """Return what rank 0's pruner says."""
        return self.on_first_rank(lambda trial: bool(trial.should_prune()))

    def set_user_attr(self, key: str, value: Any) -> None:
        """Write rank 0's value."""
        self.on_first_rank(lambda trial: trial.set_user_attr(key, value))

    def set_system_attr(self, key: str, value: Any) -> None:
        """Write rank 0's value (Optuna below 5 has this method)."""
        self.on_first_rank(lambda trial: trial.study._storage.set_trial_system_attr(trial._trial_id, key, value))

    def set_constraint(self, key: str, value: float) -> None:
        """Write rank 0's value."""
        self.on_first_rank(lambda trial: trial.set_constraint(key, value))

    @property
    def number(self) -> int:
        """The trial's number."""
        return int(self._seen["number"])

    @property
    def params(self) -> dict[str, Any]:
        """The parameters suggested so far."""
        return dict(self._seen["params"])

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """Their distributions."""
        return dict(self._seen["distributions"])

    @property
    def user_attrs(self) -> dict[str, Any]:
        """The user attributes, `stage` and `reason` among them."""
        return dict(self._seen["user_attrs"])

    @property
    def system_attrs(self) -> dict[str, Any]:
        """No system attributes are sent (Optuna below 5 asks for this property)."""
        return {}

    @property
    def datetime_start(self) -> datetime | None:
        """When the trial began."""
        started: datetime | None = self._seen["datetime_start"]
        return started


def optimize_on_ranks(
    study: Study | None,
    objective: Callable[[DistributedTrial], float],
    *,
    catch: type[Exception] | tuple[type[Exception], ...] = (),
    group: "ProcessGroup | None" = None,
    **options: Any,
) -> None:
    """Run `study.optimize` on rank 0, and the same trials on every other rank, until rank 0 has done.

    Start the processes with torchrun. An error that `catch` does not name, on any rank, ends that rank, and torchrun
    ends the others; the study is kept, and the same command goes on.

    Args:
        study: The study on rank 0, None on every other rank.
        objective: Called on every rank with a `DistributedTrial`; what it returns on rank 0 counts.
        catch: Errors that fail the trial and not the job; they must be raised on all ranks alike.
        group: Processes of the job; None is all.
        options: Further arguments of `study.optimize`, such as `n_trials`, `timeout` or `callbacks`; one job at a time.
    """
    dist = require("torch.distributed", extra="torch")
    first = dist.get_global_rank(group, 0) if group is not None else 0

    def tell(goes_on: bool | None) -> bool:
        box = [goes_on]
        dist.broadcast_object_list(box, src=first, group=group)
        return bool(box[0])

    def begin(trial: Trial) -> float:
        tell(True)
        return objective(DistributedTrial(trial, group))

    caught = catch if isinstance(catch, tuple) else (catch,)
    if study is not None:
        study.optimize(begin, catch=caught, **{**options, "n_jobs": 1})
        tell(False)
        return
    while tell(None):
        with contextlib.suppress(optuna.TrialPruned, *caught):
            objective(DistributedTrial(None, group))


def _properties(trial: Trial) -> dict[str, Any]:
    names = ("number", "params", "distributions", "user_attrs", "datetime_start")
    return {name: getattr(trial, name) for name in names}


def _sendable(error: Exception | None) -> Exception | None:
    """Return an error that survives being sent; a database driver's often does not."""
    try:
        pickle.loads(pickle.dumps(error))  # our own error of a moment ago
    except Exception:
        return DisciplineError(f"{type(error).__name__} on rank 0: {error}")
    return error
