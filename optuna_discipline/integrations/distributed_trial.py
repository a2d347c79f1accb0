"""A trial that several processes train (torch.distributed): rank 0's answers, the same on all of them.

optuna-integration's TorchDistributedTrial sends floats as float32 (0.1 comes back as 0.10000000149), and an error on
rank 0 aborts or hangs the others; here numbers are exact, errors are raised on every rank, an epoch is one exchange.
"""

import logging
import pickle
from collections.abc import Callable
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING
from typing import Any
from typing import NamedTuple
from typing import NoReturn
from typing import TypeVar

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import BaseTrial
from optuna.trial import Trial

from optuna_discipline._imports import stand_in
from optuna_discipline.exceptions import DisciplineError

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

logger = logging.getLogger(__name__)
T = TypeVar("T")
joined_ranks = stand_in("optuna_discipline.training.ranks.joined_ranks", needs="torch.distributed", extra="torch")
_SEEN = ("number", "params", "distributions", "user_attrs", "datetime_start")


class _Answer(NamedTuple):
    """What was asked, and what it brought on rank 0; the other ranks send the question alone."""

    asked: str
    result: Any = None
    error: Exception | None = None
    seen: dict[str, Any] | None = None


class _End(NamedTuple):
    """How a rank's objective ended; `error` is its own error in words, None also for one that came from elsewhere."""

    error: str | None
    caught: bool
    pruned: bool


class TrialFailedError(DisciplineError):
    """All errors of a trial are of the classes that `catch` names."""


class DistributedTrial(BaseTrial):
    """A trial for every rank: each method asks rank 0's trial once, and answers all alike.

    All ranks call the same methods in the same order; properties are free. `suggest_hyperparams`, `TrialReporter` and
    `report_epoch` take it like any trial; that it is pruned, or an error of the storage, is raised on every rank at the
    same call. Of what the ranks report, rank 0's counts. A rank whose objective has ended under `optimize_on_ranks`
    ends it on the others at their next call.

    Args:
        trial: The trial on rank 0, None on every other rank.
        group: Processes of the job; None is all.

    Raises:
        DisciplineError: If no process group has been made; at a call, if another rank makes another one.
        ValueError: If `trial` is None on rank 0, or is not elsewhere.
    """

    def __init__(self, trial: Trial | None, group: "ProcessGroup | None" = None) -> None:
        self._dist = joined_ranks()
        self._group = group
        if (trial is None) == (self._dist.get_rank(group) == 0):
            raise ValueError(f"`trial` must be a trial on rank 0 and None on the others, but got {trial!r}.")
        self._trial = trial
        self._seen: dict[str, Any] = {}
        self._received: Exception | None = None
        self._ask("DistributedTrial", lambda trial: None)

    if not TYPE_CHECKING:  # to whom a name that is not there is none

        def __getattr__(self, name: str) -> NoReturn:
            """Say how to reach what the trial has on rank 0 alone."""
            raise AttributeError(
                f"A DistributedTrial has no {name!r}: ask rank 0's trial for what you need of it, on every rank, as in "
                "`trial.on_first_rank(lambda trial: trial.study.study_name)`."
            )

    @property
    def _alone(self) -> Trial | None:
        """Rank 0's trial where no other rank trains it, None else."""
        return self._trial if self._dist.get_world_size(self._group) == 1 else None

    def on_first_rank(self, call: Callable[[Trial], T]) -> T:
        """Call with the trial on rank 0; return the result, or raise the error, on every rank."""
        return self._ask("on_first_rank", call)

    def _ask(self, asked: str, call: Callable[[Trial], T]) -> T:
        answer, error = _Answer(asked), None
        if self._trial is not None:
            try:
                try:
                    answer = answer._replace(result=call(self._trial))
                finally:
                    answer = answer._replace(seen={name: getattr(self._trial, name) for name in _SEEN})
            except Exception as caught:
                error = caught
        answers = self._exchange(answer._replace(error=_sendable(error)))
        try:
            _check_alike(answers)
            if error is not None:
                raise error
            if ended := [other for other in answers if isinstance(other, _End)]:
                self._leave(ended)
            _, result, self._received, seen = answers[0]
            self._seen = seen or self._seen
            if self._received is not None:
                raise self._received
            return result  # type: ignore[no-any-return]
        finally:
            del error, answers  # the traceback of what is raised holds this frame: what a trial held would stay

    def _leave(self, ended: list[_End]) -> NoReturn:
        """End this objective as the one of another rank has."""
        text = next((end.error for end in ended if end.error is not None), None)
        if text is None and not any(end.pruned for end in ended):
            raise DisciplineError("An objective ended while other ranks call the trial: call it alike on all ranks.")
        self._received = optuna.TrialPruned() if text is None else DisciplineError(text)
        raise self._received

    def _end(self, error: Exception | None, catch: tuple[type[Exception], ...]) -> None:
        """Wait until the objective has ended on every rank; raise what the trial ends with, on all alike."""
        pruned = isinstance(error, optuna.TrialPruned)
        own, text = None if pruned or error is self._received else error, None
        self._received = None  # its traceback holds the objective's model
        if own is not None:
            text = f"{type(own).__name__} on rank {self._dist.get_rank(self._group)}: {own}"
            logger.error("%s. Waiting until the other ranks end the trial.", text, exc_info=own)
        end = _End(text, isinstance(own, catch), pruned)
        ends: list[Any] = [None]
        while not all(isinstance(other, _End) for other in ends):
            ends = self._exchange(end)
        errors = [other for other in ends if other.error is not None]
        if not all(other.caught for other in errors):
            if own is not None and not end.caught:
                raise own
            raise DisciplineError(next(other.error for other in errors if not other.caught)) from error
        if errors:
            raise TrialFailedError("; ".join(other.error for other in errors)) from error
        if any(other.pruned for other in ends):
            raise optuna.TrialPruned from error

    def _exchange(self, message: "_Answer | _End") -> list[Any]:
        """Return every rank's message."""
        box: list[Any] = [None] * self._dist.get_world_size(self._group)
        self._dist.all_gather_object(box, message, group=self._group)
        return box

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """Suggest a float, see `optuna.Trial.suggest_float`."""
        return self._ask(
            f"suggest_float({name!r})", lambda trial: trial.suggest_float(name, low, high, step=step, log=log)
        )

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
        return self._ask(f"suggest_int({name!r})", lambda trial: trial.suggest_int(name, low, high, step=step, log=log))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Suggest one of several values, see `optuna.Trial.suggest_categorical`."""
        return self._ask(f"suggest_categorical({name!r})", lambda trial: trial.suggest_categorical(name, choices))

    def report(self, value: float, step: int) -> None:
        """Report rank 0's value."""
        self._ask("report", lambda trial: trial.report(value, step))

    def should_prune(self) -> bool:
        """Return what rank 0's pruner says."""
        return self._ask("should_prune", lambda trial: bool(trial.should_prune()))

    def set_user_attr(self, key: str, value: Any) -> None:
        """Write rank 0's value."""
        self._ask(f"set_user_attr({key!r})", lambda trial: trial.set_user_attr(key, value))

    def set_system_attr(self, key: str, value: Any) -> None:
        """Write rank 0's value (Optuna below 5 has this method)."""
        self._ask(
            f"set_system_attr({key!r})",
            lambda trial: trial.study._storage.set_trial_system_attr(trial._trial_id, key, value),
        )

    def set_constraint(self, key: str, value: float) -> None:
        """Write rank 0's value."""
        self._ask(f"set_constraint({key!r})", lambda trial: trial.set_constraint(key, value))

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
        return self._seen["datetime_start"]  # type: ignore[no-any-return]


def _check_alike(answers: "Sequence[_Answer | _End]") -> None:
    """Check that all ranks that called the trial made the same call: one would get another's answer."""
    calls = {rank: other.asked for rank, other in enumerate(answers) if isinstance(other, _Answer)}
    first = min(calls)
    odd = next((rank for rank, asked in calls.items() if asked != calls[first]), None)
    if odd is not None:
        raise DisciplineError(
            f"All ranks must call the trial alike, but rank {first} called {calls[first]} and rank {odd} {calls[odd]}: "
            "make the same calls in the same order on every rank, none on one rank only and none in the order of a set."
        )


def _sendable(error: Exception | None) -> Exception | None:
    """Return an error that survives being sent; a database driver's often does not."""
    try:
        pickle.loads(pickle.dumps(error))  # our own error of a moment ago
    except Exception:
        return DisciplineError(f"{type(error).__name__} on rank 0: {error}")
    return error
