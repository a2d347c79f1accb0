"""Each trial of a study trained by several processes (torch.distributed): rank 0 decides and stores, all train."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING
from typing import Any

import optuna
from optuna.study import Study
from optuna.trial import Trial

from optuna_discipline.exceptions import DisciplineError
from optuna_discipline.integrations.distributed_trial import DistributedTrial
from optuna_discipline.integrations.distributed_trial import TrialFailedError
from optuna_discipline.integrations.distributed_trial import joined_ranks
from optuna_discipline.range_test_record import has_range_test
from optuna_discipline.sampler import DisciplinedSampler

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

_NEXT, _DONE = "next trial", "done"


def optimize_on_ranks(
    study: Study | None,
    objective: Callable[[DistributedTrial], float],
    *,
    catch: type[Exception] | tuple[type[Exception], ...] = (),
    group: "ProcessGroup | None" = None,
    **options: Any,
) -> None:
    """Run `study.optimize` on rank 0, and the same trials on every other rank, until rank 0 has done.

    Start the processes with torchrun. A trial that is pruned or fails on one rank is pruned or fails on all: at their
    next call of the trial, or at the end of the objective. An error that `catch` does not name, on any rank, ends the
    job on every rank, with a message that names the rank; the study is kept, and the same command goes on. Not seen is
    an error while other ranks wait in a collective of their own, such as the backward pass of a
    DistributedDataParallel: the error is logged at once, but they wait for the timeout of `init_process_group`.

    Args:
        study: The study on rank 0, None on every other rank.
        objective: Called on every rank with a `DistributedTrial`; what it returns on rank 0 counts.
        catch: Errors that fail the trial and not the job, if all that were raised, on whichever rank, are such.
        group: Processes of the job; None is all.
        options: Further arguments of `study.optimize`, such as `n_trials`, `timeout` or `callbacks`; one job at a time.

    Raises:
        DisciplineError: If another rank had an error that `catch` does not name, the ranks called the trial unlike each
            other, or no process group has been made.
        ValueError: On every rank, if another one than rank 0 has a study, or rank 0 has none, or, of several ranks, its
            sampler's `range_test` is a function and the study keeps no range test: rank 0 alone would run it. Run
            `lr_range_test` on every rank before, and give the sampler what it returns.
    """
    dist = joined_ranks()
    _check_study(study, dist, group)
    first = dist.get_global_rank(group, 0) if group is not None else 0

    def tell(news: str) -> str:
        box = [news]
        dist.broadcast_object_list(box, src=first, group=group)
        return box[0]

    def run(trial: Trial | None) -> float:
        shared = DistributedTrial(trial, group)
        try:
            value = objective(shared)
        except Exception as error:
            shared._end(error, caught)
            return math.nan  # rank 0 has got over what it raised here
        shared._end(None, caught)
        return value

    def begin(trial: Trial) -> float:
        tell(_NEXT)
        return run(trial)

    caught = catch if isinstance(catch, tuple) else (catch,)
    if study is not None:
        try:
            study.optimize(begin, catch=(TrialFailedError,), **{**options, "n_jobs": 1})
        except Exception as error:
            tell(f"{type(error).__name__} on rank 0: {error}")
            raise
        tell(_DONE)
        return
    failed: Exception | None = None
    while (news := tell("")) == _NEXT:
        try:
            run(None)
        except (optuna.TrialPruned, TrialFailedError):
            pass
        except Exception as error:
            failed = error
    if news != _DONE:
        raise failed or DisciplineError(news)


def _check_study(study: Study | None, dist: Any, group: "ProcessGroup | None") -> None:
    """Check that rank 0 alone has a study, of which it does nothing alone that takes all ranks: raise on all alike."""
    told: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(told, (study is not None, _runs_range_test(study)), group=group)
    having = [rank for rank, (has_study, _) in enumerate(told) if has_study]
    if having != [0]:
        raise ValueError(
            "`study` must be a study on rank 0 and None on the others, but is one on "
            f"{'no rank' if not having else f'ranks {having}'}: create or load it where get_rank() is 0 only."
        )
    if told[0][1] and len(told) > 1:
        raise ValueError(
            "`range_test` of the study's sampler must be a RangeTest or None, but got a function, which rank 0 would "
            "run while the others wait: run lr_range_test on every rank before, and give the sampler its RangeTest."
        )


def _runs_range_test(study: Study | None) -> bool:
    sampler = getattr(study, "sampler", None)
    sampler = getattr(sampler, "_base_sampler", sampler)  # PartialFixedSampler's
    is_function = isinstance(sampler, DisciplinedSampler) and callable(sampler._decision._range_test)
    return study is not None and is_function and not has_range_test(study)
