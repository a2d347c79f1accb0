"""The refinement of a study: what its trials show, and what the model may move, in a box around the best run.

Built anew at each call; nothing is kept.
"""

import math
from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
from functools import partial
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution
from optuna.samplers import BaseSampler
from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial

from optuna_discipline.parameters import allows
from optuna_discipline.parameters import as_choice
from optuna_discipline.parameters import bounds_in_role
from optuna_discipline.parameters import bounds_of
from optuna_discipline.parameters import fit_in_role
from optuna_discipline.parameters import known_distributions
from optuna_discipline.parameters import start_of
from optuna_discipline.parameters import value_in_role
from optuna_discipline.rules.conditions import added
from optuna_discipline.rules.conditions import conditions_of
from optuna_discipline.rules.conditions import existing
from optuna_discipline.rules.failures import failed_at_once
from optuna_discipline.rules.run import Run
from optuna_discipline.rules.space import Role
from optuna_discipline.rules.space import default_of
from optuna_discipline.rules.transfer import full_length_losses
from optuna_discipline.rules.usual_values import word_of
from optuna_discipline.shadow import suggest
from optuna_discipline.suggestion import Point
from optuna_discipline.suggestion import suggest_by_model
from optuna_discipline.trial_record import read_claim

WIDE = 8  # a range of lengths from which on a ratio counts
MOST_MOVES = 4  # named in a trial's reason
TRY_AGAIN = 10  # trials after which something that was held may be free again
# Of so many trials from 20 on one is the best run with its words drawn anew. Words that gain only together are found by
# no model that has tried each alone; GPSampler puts new ones together with numbers that are far, and bad with any.
WORDS_TURN = 4


def refine(
    sampler: BaseSampler | int,
    trials: Sequence[FrozenTrial],
    runs: Sequence[Run],
    space: Mapping[str, BaseDistribution],
    roles: Mapping[str, Role],
    box: Mapping[Role, tuple[float, float]],
    *,
    coupled: float | None,
    free: Sequence[Role] | None = None,
    any_length: bool = False,
    redraw: int | None = None,
) -> dict[str, Any]:
    """Return the model's next full-length parameters for a study, {} while there is nothing to model.

    What runs now is known to the model by its parameters, so that several workers do not ask for the same point.

    Args:
        sampler: What models the shadow study, or a seed for our own model.
        trials: The study's trials.
        runs: The same as runs.
        space: Every known parameter; all are modelled, the epochs with `any_length` only. A run without one counts as
            if it had the value of the best run with one. What exists for some values of another parameter only moves
            with it; where no such condition is seen, it stays while the best run lacks it: to move what a network does
            not use would be the same network again; but what every later run has moves. A sampler knows no conditions:
            where its answer has run, without what does not exist there, it is asked again with what decides held.
        roles: Roles of those names that have one.
        box: Narrower bounds of roles, in their own units.
        coupled: As in `suggest`.
        free: Roles that may move, for our own model, of which the first does; None moves everything.
        any_length: Whether the epochs are modelled as well, and runs of every length.
        redraw: A seed to draw the best run's words anew, all else as it was, where two lists of them or more are free.
            Where not, where what is drawn has run, or with None, the sampler is asked.
    """
    if any_length:
        space = {name: _in_logs(d) if roles.get(name) == "epochs" else d for name, d in space.items()}
        roles = {name: role for name, role in roles.items() if role != "epochs"}
    epochs = next((name for name, role in roles.items() if role == "epochs"), None)
    full = bounds_of(space[epochs]) if epochs is not None else None
    losses = full_length_losses(runs, None if full is None else full.high)
    losses |= dict.fromkeys(_impossible(trials, runs, losses), math.inf)
    finished = [trial for trial in trials if trial.number in losses]
    best_first = sorted(finished, key=lambda trial: losses[trial.number])
    searched = {name: d for name, d in space.items() if name != epochs and not d.single()}
    absent = {name: _value_of_best(name, d, best_first, roles.get(name)) for name, d in searched.items()}
    under_way = {run.number for run in runs if run.state == "running"}
    pending = [
        {**absent, **suggested_to(trial, space), **trial.params} for trial in trials if trial.number in under_way
    ]
    if not searched or not (finished or pending):
        return {}
    points = [Point({**absent, **trial.params}, losses[trial.number]) for trial in finished]
    points += [Point(params, None) for params in pending]
    best = dict(_best_allowed(best_first, space)) if best_first else {}
    of_one_value = {name for name, d in known_distributions(trials).items() if d.single()}
    around = {name: x for name, x in {**best, **absent, **best}.items() if name not in of_one_value}
    boxes = _by_name(box, roles, around, space)
    names = {name for name in searched if free is None or name not in roles or roles[name] in free}
    switches = _switches(searched, roles)
    later = added([trial.params for trial in finished if math.isfinite(losses[trial.number])], switches)
    of_best = names & (set(best) | later) if best else names
    conditions = conditions_of([trial.params for trial in finished], switches)
    if isinstance(sampler, BaseSampler):
        words = {name for name in of_best if name not in roles and bounds_of(searched[name]) is None}
        if redraw is not None and len(words) > 1:
            drawn = suggest(RandomSampler(redraw), points, searched, roles, boxes, coupled=coupled, free=words)
            had = existing(drawn, conditions)
            if not any(_is_like(had, point.params, searched) for point in points):
                return drawn
        ask = partial(suggest, sampler, points, searched, roles, boxes, coupled=coupled)
        answer = ask(free=of_best)
        if not conditions or not _has_run(existing(answer, conditions), searched, finished):
            return answer
        return ask(free=of_best - {condition.switch for condition in conditions.values()})
    free_names = of_best | (names & set(conditions))
    if free is not None:  # a stage is of networks that have what it moves
        free_names -= {condition.switch for name, condition in conditions.items() if roles.get(name) in free}
    return suggest_by_model(
        sampler,
        points,
        searched,
        roles,
        boxes,
        coupled=coupled,
        free=free_names,
        moving={name for name in free_names if roles.get(name) in (free or ())[:1]},
        conditions=conditions,
        absent=absent,
    )


def _is_like(one: Mapping[str, Any], other: Mapping[str, Any], space: Mapping[str, BaseDistribution]) -> bool:
    """Whether two configurations are the same, but for what logarithms round."""
    return all(
        value == other[name] or (isinstance(space[name], FloatDistribution) and math.isclose(value, other[name]))
        for name, value in one.items()
    )


def _in_logs(distribution: BaseDistribution) -> BaseDistribution:
    """Return a wide range of whole numbers in logs: 5 epochs are as far from 10 as 100 are from 200."""
    if (
        isinstance(distribution, IntDistribution)
        and distribution.step == 1
        and 0 < WIDE * distribution.low < distribution.high
    ):
        return IntDistribution(distribution.low, distribution.high, log=True)
    return distribution


def _best_allowed(best_first: Sequence[FrozenTrial], space: Mapping[str, BaseDistribution]) -> Mapping[str, Any]:
    """Return the parameters of the best trial within the bounds, which may have been narrowed since."""
    found = (t.params for t in best_first if all(n not in space or allows(space[n], x) for n, x in t.params.items()))
    return next(found, best_first[0].params)


def _impossible(trials: Sequence[FrozenTrial], runs: Sequence[Run], losses: Mapping[int, float]) -> list[int]:
    """Return the numbers of the trials that could not train, without those that others have repeated and could."""
    failed = failed_at_once(runs)
    if not failed:
        return []
    could = [trial.params for trial in trials if math.isfinite(losses.get(trial.number, math.inf))]
    return [trial.number for trial in trials if trial.number in failed and trial.params not in could]


def _has_run(params: Mapping[str, Any], names: Collection[str], trials: Sequence[FrozenTrial]) -> bool:
    """Whether a trial has had these values of some parameters, and no other of them."""
    return any({name: x for name, x in trial.params.items() if name in names} == params for trial in trials)


def _switches(space: Mapping[str, BaseDistribution], roles: Mapping[str, Role]) -> list[str]:
    """Return what may decide which parameters a network has: words before numbers, few values before many."""
    counts: dict[str, tuple[bool, int]] = {}
    for name, distribution in space.items():
        if isinstance(distribution, CategoricalDistribution):
            counts[name] = (False, len(distribution.choices))
        elif isinstance(distribution, IntDistribution):
            counts[name] = (True, distribution.high - distribution.low)
    return sorted((name for name in counts if name not in roles), key=lambda name: counts[name])


def _by_name(
    box: Mapping[Role, tuple[float, float]],
    roles: Mapping[str, Role],
    params: Mapping[str, Any],
    space: Mapping[str, BaseDistribution],
) -> dict[str, tuple[float, float]]:
    """Return the box of each parameter: of the first of a role that of the role, of a second learning rate its own.

    A second one (of the network's head, of another optimizer) may move as far from its own value as the first from its;
    one that is 0 (a frozen part) has none.
    """
    firsts: dict[Role, str] = {}
    boxes: dict[str, tuple[float, float]] = {}
    for name in params:
        role = roles.get(name)
        if role is None or role not in box:
            continue
        first = firsts.setdefault(role, name)
        if name == first:
            boxes[name] = box[role]
            continue
        own, of_first = (float(value_in_role(role, n, space[n], params[n])) for n in (name, first))
        if role == "lr" and own > 0 and of_first > 0:
            ratio = own / of_first
            boxes[name] = (box[role][0] * ratio, box[role][1] * ratio)
    return boxes


def _value_of_best(
    name: str, distribution: BaseDistribution, best_first: Sequence[FrozenTrial], role: Role | None
) -> Any:
    values = (trial.params[name] for trial in best_first if name in trial.params)
    bounds = bounds_in_role(role, name, distribution)
    first = (
        start_of(name, distribution)
        if role is None or bounds is None
        else fit_in_role(role, name, distribution, default_of(role, bounds))
    )
    return next((value for value in values if allows(distribution, value)), first)


def describe_moves(suggested: Mapping[str, Any], base: FrozenTrial, roles: Mapping[str, Role], stage: str) -> str:
    """Return in words what a suggestion changes of the trial that it starts from; "" where it suggests nothing.

    What has a role is said first, and that of the stage also where it stays; what that trial had not, last.
    """
    if not suggested:
        return ""
    moves = moves_of(suggested, base.params, roles, stage)
    return f"trial {base.number}, but {', '.join(moves)}" if moves else f"trial {base.number} again"


def moves_of(params: Mapping[str, Any], before: Mapping[str, Any], roles: Mapping[str, Role], stage: str) -> list[str]:
    """Return what some parameters change of former ones, a phrase each, and of several beyond the first how many."""
    names = sorted(params, key=lambda name: name not in roles)
    shown = [(name, _shown(before[name]), _shown(params[name])) for name in names if name in before]
    moves = [f"{name} {old} to {new}" for name, old, new in shown if old != new]
    moves += [f"{name} as it was" for name, old, new in shown if old == new and roles.get(name) == stage and moves]
    moves += [f"new {name} {_shown(params[name])}" for name in names if name not in before]
    others = len(moves) - MOST_MOVES
    return [*moves[:MOST_MOVES], f"{others} others"] if others > 1 else moves


def _shown(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else word_of(value) or str(value)


def held_by_others(trials: Sequence[FrozenTrial]) -> dict[str, Any]:
    """Return what a sampler around this one holds, by name: the latest trial that was to have another value has not.

    What nothing asked this sampler for its trial's claim says, and what it was asked for again.

    Only among the last trials: what is held is no longer moved, so now and then it is tried whether it still is.
    """
    held: dict[str, Any] = {}
    for trial in trials[-TRY_AGAIN:]:
        for name, wish in suggested_to(trial, trial.distributions).items():
            if name in trial.params and allows(trial.distributions[name], wish):
                held.pop(name, None)
                if trial.params[name] != wish:
                    held[name] = trial.params[name]
        claim = read_claim(trial) or {}
        held |= {name: trial.params[name] for name in claim.get("held", ()) if name in trial.params}
        for name in claim.get("freed", ()):
            held.pop(name, None)
    return held


def describe_held(held: Mapping[str, Any]) -> str:
    """Return in words what a sampler around this one holds.

    >>> describe_held({"lr": 1.0, "optimizer": "SGD"})
    'at lr 1 and optimizer SGD, held by another sampler'
    """
    return f"at {' and '.join(f'{name} {_shown(value)}' for name, value in held.items())}, held by another sampler"


def suggested_to(trial: FrozenTrial, space: Mapping[str, BaseDistribution] | None = None) -> Mapping[str, Any]:
    """Return the point that a trial has been given by the model, also before its objective asks for it.

    Without the distributions of its names as it was stored: tuples are lists.
    """
    space = space or {}
    suggested = (read_claim(trial) or {}).get("suggested", {})
    return {name: as_choice(space[name], value) if name in space else value for name, value in suggested.items()}
