"""`find_lr`: a range test for the ceiling, then a few short complete cycles below it."""

import itertools
import logging
import math
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from optuna_discipline.rules.lr_choice import LrChoice
from optuna_discipline.rules.lr_choice import LrStatus
from optuna_discipline.rules.lr_choice import choose_max_lr
from optuna_discipline.training.arguments import as_count
from optuna_discipline.training.arguments import as_number
from optuna_discipline.training.arguments import as_seed
from optuna_discipline.training.batches import check_batch_size_free
from optuna_discipline.training.batches import check_repeatable
from optuna_discipline.training.lr_probe import Probe
from optuna_discipline.training.lr_probe import Prober
from optuna_discipline.training.lr_probe import last_stable_lr
from optuna_discipline.training.optimizers import OptimizerKind
from optuna_discipline.training.random_state import RandomStates
from optuna_discipline.training.random_state import draw_seed
from optuna_discipline.training.random_state import generators_of
from optuna_discipline.training.step import LossFn
from optuna_discipline.training.step import Step

logger = logging.getLogger(__name__)

FACTOR = 3.0  # between two rungs of the ladder
ABOVE_CURVE = 4.0  # how far above the range test's suggestion a probe may go
_LENGTHS = (0.25, 0.5, 1.0)  # of the full run; a length at which nothing learns is left for the next
_DEAF = 2  # probes that did not learn, after which longer ones are tried


def next_probe(
    probes: Sequence[Probe], *, start: float, floor: float, ceiling: float, factor: float = FACTOR
) -> float | None:
    """Return the learning rate to try next, None when the walk is over.

    From `start` down by `factor` while that is better, up only if the best stands at the top of what was tried and
    the next rung lies below `ceiling`; then once between the best and its better neighbour. Diverged probes count as
    infinitely bad; the answer depends on nothing but the history.

    >>> tried = [Probe(0.3, 0.5, 0.4, True), Probe(0.1, 0.2, 0.1, True), Probe(0.1 / 3, 0.4, 0.3, True)]
    >>> round(next_probe(tried, start=0.3, floor=1e-4, ceiling=1.0), 3)  # between 0.1 and 0.033
    0.058
    """
    if not probes:
        return start
    ordered = sorted(probes, key=lambda probe: probe.lr)
    best = min(range(len(ordered)), key=lambda i: (_rank(ordered[i]), ordered[i].lr))
    lr = ordered[best].lr
    if best == 0:
        below = ordered[0].lr / factor
        if below >= floor:
            return below
    if not math.isfinite(ordered[best].loss):
        return None
    if best == len(ordered) - 1 and lr * factor <= ceiling:
        return lr * factor
    gaps = [high.lr / low.lr for low, high in itertools.pairwise(ordered)]
    if any(gap < 0.9 * factor for gap in gaps):
        return None
    neighbours = [ordered[i] for i in (best - 1, best + 1) if 0 <= i < len(ordered)]
    neighbours = [probe for probe in neighbours if math.isfinite(probe.loss)]
    return math.sqrt(lr * min(neighbours, key=_rank).lr) if neighbours else None


def find_lr(
    build_model: Callable[[], nn.Module],
    loss_fn: LossFn,
    train: Any,
    val: Any,
    *,
    epochs: int,
    momentum: float = 0.95,
    weight_decay: float = 1e-4,
    optimizer: OptimizerKind = "sgd",
    batch_size: int | None = None,
    device: torch.device | str | None = None,
    seed: int | None = None,
    max_cost: float = 1.5,
    step: Step | None = None,
) -> LrChoice:
    """Find the largest learning rate of a 1cycle run by trying a few, shortened.

    A range test gives the ceiling, cheaply and roughly; complete cycles of a quarter of the run, on a ladder by a
    factor of 3 below it, choose. Where none of them learns, cycles of half and of the whole length are tried while the
    budget lasts: a network that has not left its untrained loss gives no signal at any learning rate (measured on a
    6-layer network, where quarter cycles cost 3.7 times the best loss and half cycles 1.00 times).

    Args:
        build_model: Makes the model, anew for every probe, from the same random numbers.
        loss_fn: Called as `loss_fn(output, target)`.
        train: A tuple of tensors, a torch Dataset or a loader with a length, see `as_batches`.
        val: Likewise, for the final loss of each probe; None compares training losses.
        epochs: Length of the run that the learning rate is for.
        momentum: Largest momentum of the cycle, in [0, 1); for Adam beta1.
        weight_decay: From 0 on.
        optimizer: "sgd", "adamw", "adam" or a callable, see `build_optimizer`.
        batch_size: Samples of a batch for data that is not batched yet, None for 64.
        device: Where to train; None is where `build_model` puts the model.
        seed: Fixes weights, order and dropout, hence the answer; None draws anew.
        max_cost: Budget in full runs, never exceeded; early stops count what they took, evaluations a third.
        step: A hook that knows what a batch is, see `default_step`.

    Returns:
        The choice: the best probe's rate, a tenth of it, the interval between its neighbours, and its cost. Not
        `confident` where no probe learned, or the budget ended before both sides of the best were seen. `max_lr` is
        None, with the reason, where every probe diverged or the budget pays for none.

    Raises:
        ValueError: If an argument breaks its rule.
        DisciplineError: If there is no data or no trainable parameter.
    """
    if not callable(build_model) or isinstance(build_model, nn.Module):
        raise ValueError(f"`build_model` must be a function that makes a new model, but got {build_model!r:.80}.")
    if isinstance(optimizer, torch.optim.Optimizer):
        raise ValueError("`optimizer` must be a name or a callable: an optimizer holds the weights of one model only.")
    check_batch_size_free(train, batch_size)
    for name, data in (("train", train), ("val", val)):
        check_repeatable(data, name, 2)
    seed = as_seed(seed)
    states = RandomStates.capture(generators_of(train, val))
    prober = Prober(
        build_model=build_model,
        loss_fn=loss_fn,
        train=train,
        val=val,
        epochs=as_count("epochs", epochs),
        momentum=as_number("momentum", momentum, high=1.0),
        weight_decay=as_number("weight_decay", weight_decay),
        optimizer=optimizer,
        batch_size=batch_size,
        device=device,
        seed=draw_seed() if seed is None else seed,
        step=step,
        generators=states,
    )
    max_cost = as_number("max_cost", max_cost, low_open=True)
    try:
        return _search(prober, max_cost)
    finally:
        for generator, state in states.generators:
            generator.set_state(state)


def choose_from_probes(
    probes: Sequence[Probe], *, finished: bool, length: float, ceiling: float, cost: float
) -> LrChoice:
    """Return the choice that the probes of one length allow.

    Args:
        probes: At least one probe.
        finished: Whether the walk came to its end within the budget.
        length: Length of the probes, in full runs.
        ceiling: Largest rate that may be probed.
        cost: What was spent, in full runs.

    >>> probes = [Probe(0.3, 0.5, 0.4, True), Probe(0.1, 0.2, 0.1, True), Probe(0.03, 0.4, 0.3, True)]
    >>> choice = choose_from_probes(probes, finished=True, length=0.25, ceiling=1.0, cost=1.0)
    >>> choice.max_lr, choice.bounds, choice.confident
    (0.1, (0.03, 0.3), True)
    """
    ordered = sorted(probes, key=lambda probe: probe.lr)
    count = f"{len(probes)} probe{'s' if len(probes) > 1 else ''} of {length:g} of the run"
    best = min(range(len(ordered)), key=lambda i: (_rank(ordered[i]), ordered[i].lr))
    chosen, lr = ordered[best], ordered[best].lr
    span = f"at lr {lr:.3g}" if len(probes) == 1 else f"between lr {ordered[0].lr:.3g} and {ordered[-1].lr:.3g}"
    if not math.isfinite(chosen.loss):
        reason = f"Of {count} {span} none kept a finite loss: check the data, the loss and the model's initialisation."
        return LrChoice(None, None, None, "DIVERGED_AT_START", reason, confident=False, cost=cost)
    if not chosen.learned:  # losses near the untrained one rank nothing: stay with the first guess
        lr = next(probe.lr for probe in probes if math.isfinite(probe.loss))
        reason = (
            f"Of {count} {span} none clearly left the untrained loss, so {lr:.3g} is only the first guess: "
            "train longer or check the model."
        )
        bounds = (lr / FACTOR, lr * FACTOR)
        return LrChoice(lr, lr / 10, bounds, "FLAT", reason, confident=False, cost=cost)
    low = ordered[best - 1].lr if best > 0 else lr / FACTOR
    high = ordered[best + 1].lr if best + 1 < len(ordered) else lr * FACTOR
    status: LrStatus = "OK"
    care = ""
    if not finished and best == 0:
        status, care = "BEST_AT_START", ", but the budget ended before a smaller one was tried"
    elif not finished and best == len(ordered) - 1 and lr * FACTOR <= ceiling:
        status, care = "CENSORED", ", but the budget ended before a larger one was tried"
    reason = f"Of {count} {span}, {lr:.3g} had the lowest final loss ({chosen.loss:.3g}){care}."
    return LrChoice(lr, lr / 10, (low, high), status, reason, confident=status == "OK", cost=cost)


def _search(prober: Prober, max_cost: float) -> LrChoice:
    """Run the range test, then the probes of each length in turn, while the budget lasts."""
    start, edge, patience = prober.default_start, prober.default_ceiling, 1
    if 0 < prober.test_steps <= max_cost / 2 * prober.total_steps:
        test = prober.range_test()
        curve, edge = choose_max_lr(test), last_stable_lr(test)
        if test.initial_loss is None or not math.isfinite(test.initial_loss):
            reason = "The loss of the untrained model is not a finite number: check the data and the loss."
            return LrChoice(None, None, None, "DIVERGED_AT_START", reason, confident=False, cost=prober.cost)
        logger.info("find_lr: %s Stable up to lr %.3g.", curve.reason, edge)
        start = min(start, edge / 2)
        if curve.max_lr is not None and curve.status != "NO_GAIN_THEN_DIVERGED":
            start, patience = curve.max_lr, 2
            edge = min(
                edge, ABOVE_CURVE * curve.max_lr
            )  # short probes err upwards: what is too much takes time to tell
    choice = None
    for length in _LENGTHS:
        probes, finished = _walk(prober, length, start, 0.8 * edge, max_cost, patience)
        if not probes:
            break
        choice = choose_from_probes(probes, finished=finished, length=length, ceiling=0.8 * edge, cost=prober.cost)
        logger.info("find_lr: %s Cost so far %.2f.", choice.reason, prober.cost)
        if finished or choice.max_lr is None or any(probe.learned for probe in probes):
            break
        start = choice.max_lr
        edge = min([edge, *(probe.lr for probe in probes if not math.isfinite(probe.loss))])
    if choice is None:
        reason = f"`max_cost` of {max_cost:g} full runs does not pay for one probe: raise it."
        return LrChoice(None, None, None, "TOO_FEW_POINTS", reason, confident=False, cost=prober.cost)
    return replace(choice, cost=prober.cost)


def _walk(
    prober: Prober, length: float, start: float, ceiling: float, max_cost: float, patience: int
) -> tuple[list[Probe], bool]:
    """Try one learning rate after the other; return the probes and whether the walk came to its end."""
    probes: list[Probe] = []
    while prober.cost + prober.probe_cost(length) <= max_cost + 1e-9:
        lr = next_probe(probes, start=start, floor=prober.floor, ceiling=ceiling)
        if lr is None:
            return probes, True
        probes.append(prober.probe(lr, length))
        logger.info("find_lr: %s of %g of the run; cost %.2f so far", probes[-1], length, prober.cost)
        finite = [probe for probe in probes if math.isfinite(probe.loss)]
        deaf = len(finite) >= patience and not any(probe.learned for probe in finite)
        if deaf and any(prober.cost + prober.probe_cost(n) <= max_cost for n in _LENGTHS if n > length):
            break
    return probes, False


def _rank(probe: Probe) -> tuple[bool, float]:
    """Order probes: those that learned by their loss, then the others by their training loss."""
    if not math.isfinite(probe.loss):
        return (True, math.inf)
    return (not probe.learned, probe.loss if probe.learned else probe.train_loss)
