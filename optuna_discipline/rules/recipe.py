"""The recipe of the discipline: its settings, and what to run next given every run so far.

A pure function of the runs: the same history gives the same proposal on every worker, today or next week.
"""

import math
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from operator import attrgetter
from typing import Literal

from optuna_discipline.rules.arguments import check_type
from optuna_discipline.rules.arguments import is_number
from optuna_discipline.rules.candidates import MOMENTA
from optuna_discipline.rules.candidates import WEIGHT_DECAYS
from optuna_discipline.rules.complexity import Complexity
from optuna_discipline.rules.failures import all_in_vain
from optuna_discipline.rules.failures import failures_so_far
from optuna_discipline.rules.lr_choice import LrChoice
from optuna_discipline.rules.run import STAGE_NAMES
from optuna_discipline.rules.run import Proposal
from optuna_discipline.rules.run import Run
from optuna_discipline.rules.run import Stage
from optuna_discipline.rules.space import ROLES
from optuna_discipline.rules.space import Bounds
from optuna_discipline.rules.space import Role
from optuna_discipline.rules.stages import Search

STAGES: tuple[Stage, ...] = (
    "lr",
    "confirm",
    "replicate",
    "momentum",
    "weight_decay",
    "batch_size",
    "confirm",
    "refine",
)


@dataclass(frozen=True)
class Recipe:
    """What the sampler follows; the defaults are the discipline.

    Attributes:
        stages: The stages in order, any of "lr", "confirm", "replicate", "momentum", "weight_decay", "batch_size" and
            "refine", which must be last, because it never ends. At full length "batch_size" waits for a dozen runs.
        short: Length of the stages' complete cycles in full trainings, in (0, 1], for studies with a parameter in the
            role `epochs`. 1 runs every stage at full length: on 14 small networks that was ahead of cycles of a
            quarter at every cost up to 15 trainings, since each run is a result too. Where a quarter has thousands
            of updates, 0.25 finds the learning rate for a quarter of the cost.
        complexity: Complexity of data and network (see `complexity_of`), which sets the weight decays that short cycles
            and restarts compare (at full length the model chooses); None is unsure.
        momenta: Momenta that short cycles compare, those within the bounds.
        cyclical_momentum: Whether the objective cycles momentum against the learning rate. If it does, candidates of
            momentum are compared at one maximal LR; else (None: unless the parameter is a beta1 or max_momentum) at one
            lr / (1 - momentum), the step that the weights really take.
        weight_decay_search: "runs" trains every weight decay from the start. "snapshot" saves the earlier runs at their
            plateau and restarts the best of them with each weight decay (Smith 2018, figure 12), for about half the
            cost; so the stage compares those of the complexity, halves and extrapolates at full length too, and trains
            the winner from the start before it is taken. For objectives that train by `tune` or by
            `train_epochs(..., snapshots=...)`; others train from the start.

    Raises:
        ValueError: If an attribute breaks its rule.
    """

    stages: tuple[Stage, ...] = STAGES
    short: float = 1.0
    complexity: Complexity | None = None
    momenta: tuple[float, ...] = MOMENTA
    cyclical_momentum: bool | None = None
    weight_decay_search: Literal["runs", "snapshot"] = "runs"

    def __post_init__(self) -> None:
        stages = tuple(self.stages) if isinstance(self.stages, Iterable) else ()
        if not stages or any(stage not in STAGE_NAMES for stage in stages) or "refine" in stages[:-1]:
            raise ValueError(f"`stages` must be of {STAGE_NAMES} with 'refine' last, but got {self.stages!r}.")
        if not (is_number(self.short) and 0 < self.short <= 1):
            raise ValueError(f"`short` must be in (0, 1], but got {self.short!r}.")
        if self.complexity is not None and self.complexity not in (words := tuple(WEIGHT_DECAYS)):
            raise ValueError(f"`complexity` must be one of {words} or None, but got {self.complexity!r}.")
        momenta = tuple(self.momenta) if isinstance(self.momenta, Iterable) else ()
        if not momenta or not all(is_number(m) and 0 <= m < 1 for m in momenta):
            raise ValueError(f"`momenta` must be a tuple of numbers in [0, 1), but got {self.momenta!r}.")
        if self.cyclical_momentum not in (True, False, None):
            raise ValueError(f"`cyclical_momentum` must be True, False or None, but got {self.cyclical_momentum!r}.")
        if self.weight_decay_search not in ("runs", "snapshot"):
            raise ValueError(
                f"`weight_decay_search` must be 'runs' or 'snapshot', but got {self.weight_decay_search!r}."
            )
        object.__setattr__(self, "short", float(self.short))  # a study keeps its recipe, and no storage takes NumPy's
        object.__setattr__(self, "stages", stages)
        object.__setattr__(self, "momenta", tuple(map(float, momenta)))
        if self.cyclical_momentum is not None:
            object.__setattr__(self, "cyclical_momentum", bool(self.cyclical_momentum))


def next_params(
    recipe: Recipe,
    runs: Sequence[Run],
    *,
    space: Mapping[Role, Bounds] | None = None,
    choice: LrChoice | None = None,
    skip: int = 0,
    maximize: bool = False,
) -> Proposal:
    """Return what to run next, given everything that has run or is running.

    Args:
        recipe: The stages.
        runs: All runs of the study, in any order.
        space: Bounds of the roles, as far as any trial has shown them; empty before the first.
        choice: What the range test says, if there was one.
        skip: Take a later one of the equally good proposals; used to get out of a rival worker's way.
        maximize: Whether the runs' losses are turned, for words.

    Raises:
        TypeError: If `recipe` or `choice` has the wrong type.
        ValueError: If `space` holds what is no role.
    """
    check_type("recipe", recipe, Recipe)
    if choice is not None:
        check_type("choice", choice, LrChoice)
    if not set(space or ()) <= set(ROLES):
        raise ValueError(f"`space` must hold the bounds of roles, of {ROLES}, but got {list(space or ())}.")
    search = Search(recipe, sorted(runs, key=attrgetter("number")), dict(space or {}), choice, maximize=maximize)
    for index, stage in enumerate(() if all_in_vain(runs) else recipe.stages):
        options = search.plan(stage, index)
        if options:
            chosen = _with_snapshot(search, index, options[skip % len(options)])
            return replace(chosen, failures=failures_so_far(runs))
    # The first trial of all, before anything is known of the study, may be what the stage restarts.
    keep = not search.space and recipe.weight_decay_search == "snapshot" and "weight_decay" in recipe.stages
    return replace(search.model(), keep_snapshot=keep, failures=failures_so_far(runs))


def restart_sources(
    recipe: Recipe,
    runs: Sequence[Run],
    *,
    space: Mapping[Role, Bounds] | None = None,
    choice: LrChoice | None = None,
) -> set[int]:
    """Return the numbers of the finished runs whose snapshots may still be restarted from.

    While the stages before the weight decay are open these are the three best whole runs, in its stage the one that is
    restarted, afterwards none. Arguments are those of `next_params`.
    """
    if recipe.weight_decay_search == "runs" or "weight_decay" not in recipe.stages:
        return set()
    search = Search(recipe, sorted(runs, key=attrgetter("number")), dict(space or {}), choice)
    last = len(recipe.stages) - 1 - recipe.stages[::-1].index("weight_decay")
    for index, stage in enumerate(recipe.stages[: last + 1]):
        if search.plan(stage, index):
            source = _source_of(search) if stage == "weight_decay" else None
            return _best_three(runs) if source is None else {source}
    return set()


def _with_snapshot(search: Search, index: int, proposal: Proposal) -> Proposal:
    """Say whether a run is saved for, or restarted in, the search for the weight decay."""
    if search.recipe.weight_decay_search == "runs" or proposal.slot.startswith("whole:"):
        return proposal
    if proposal.stage != "weight_decay":
        return replace(proposal, keep_snapshot="weight_decay" in search.recipe.stages[index + 1 :])
    source = _source_of(search)
    return replace(proposal, restart_from=source, keep_snapshot=source is None)


def _source_of(search: Search) -> int | None:
    """Return the run that the weight decays restart: the best so far, else the first of them, run as a whole."""
    if search.incumbent.like is not None:
        return search.incumbent.like
    runs = [run for runs in search.slots.points("weight_decay").values() for run in runs]
    return min((run.number for run in runs if math.isfinite(run.score)), default=None)


def _best_three(runs: Sequence[Run]) -> set[int]:
    whole = [run for run in runs if math.isfinite(run.score) and not run.restarted]
    return {run.number for run in sorted(whole, key=lambda run: run.score)[:3]}
