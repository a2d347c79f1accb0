"""`find_lr`: a range test for the ceiling, then a few short complete cycles below it."""

import logging
import math
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from optuna_discipline.rules.lr_choice import LrChoice
from optuna_discipline.rules.lr_choice import choose_max_lr
from optuna_discipline.rules.lr_choice import refusal
from optuna_discipline.rules.lr_probing import FACTOR
from optuna_discipline.rules.lr_probing import Probe
from optuna_discipline.rules.lr_probing import choose_from_probes
from optuna_discipline.rules.lr_probing import first_step_up
from optuna_discipline.rules.lr_probing import highest_to_probe
from optuna_discipline.rules.lr_probing import last_stable_lr
from optuna_discipline.rules.lr_probing import next_probe
from optuna_discipline.rules.range_test import RangeTest
from optuna_discipline.rules.range_test_cures import BROKEN_VALIDATION
from optuna_discipline.training.arguments import as_count
from optuna_discipline.training.arguments import as_number
from optuna_discipline.training.arguments import as_seed
from optuna_discipline.training.arguments import check_builder
from optuna_discipline.training.batches import check_batch_size_free
from optuna_discipline.training.batches import check_repeatable
from optuna_discipline.training.lr_probe import Prober
from optuna_discipline.training.optimizers import OptimizerKind
from optuna_discipline.training.random_state import RandomStates
from optuna_discipline.training.random_state import draw_seed
from optuna_discipline.training.random_state import generators_of
from optuna_discipline.training.step import LossFn
from optuna_discipline.training.step import Step
from optuna_discipline.training.step import check_step

logger = logging.getLogger(__name__)

# Of the full run; a length at which nothing learns is left for the next. Replayed on 28 networks x 3 seeds two cycles
# of half the run came within 1.25 times the best loss on .89 (worst 1.6), three or four of a quarter on .86 (worst:
# slow starters, which show nothing by then).
_LENGTHS = (0.25, 0.5, 1.0)
_NEAR_FLOOR = 10.0  # times the smallest rate: an instability so low asks for a range test below it
_UNUSUAL = 5.0  # times below the usual rate's draw
_BROKEN_EVALUATION = (
    "No probe was run to correct it, as the loss of the untrained model was no number once it was evaluated: look at "
    "what the model does in eval mode and without gradients."
)


def find_lr(
    build_model: Callable[[], nn.Module],
    loss_fn: LossFn,
    train: Any,
    val: Any,
    *,
    epochs: int,
    momentum: float | None = 0.95,
    weight_decay: float | None = 1e-4,
    optimizer: OptimizerKind = "sgd",
    batch_size: int | None = None,
    device: torch.device | str | None = None,
    seed: int | None = None,
    max_cost: float = 1.5,
    step: Step | None = None,
) -> LrChoice:
    """Find the largest learning rate of a 1cycle run by trying a few, shortened.

    A range test says where to start and where to stop; two complete cycles of half the run, on a ladder by a factor of
    2.5, correct it (the first step up is larger, to 10, where the loss fell to the end of the range), or three of a
    quarter where `max_cost` does not pay for those. Where the cycles do not learn, longer ones are tried while the
    budget lasts: a network that has not left its untrained loss gives no signal at any learning rate. Where
    `build_model` makes a DistributedDataParallel (called on every rank, each its share of the data, the same number of
    batches) losses are those of all ranks, and so is the answer.

    Args:
        build_model: Makes the model, anew for every probe, from the same random numbers.
        loss_fn: Called as `loss_fn(output, target)`.
        train: A tuple of tensors, a torch Dataset or a loader with a length, see
            `optuna_discipline.training.batches.as_batches`.
        val: Likewise, for the final loss of each probe; None compares training losses. Before anything is trained it is
            evaluated once, if the budget pays for that, and refused where it gives no number then.
        epochs: Length of the run that the learning rate is for.
        momentum: Largest momentum of the cycle, in [0, 1); for Adam beta1; left out where the optimizer has none. None
            is 0.9 by name or class, else what the optimizer has.
        weight_decay: From 0 on, also for a callable that has set its own; left out likewise. None is 0 by name or
            class, else what the optimizer has.
        optimizer: "sgd", "adamw", "adam" or a callable, see `optuna_discipline.training.optimizers.build_optimizer`.
        batch_size: Samples of a batch for data that is not batched yet, None for 64.
        device: Where to train; None is where `build_model` puts the model.
        seed: Fixes weights, order and dropout, hence the answer; None draws anew.
        max_cost: Budget in full runs, never exceeded; early stops count what they took, evaluations a third.
        step: A hook that knows what a batch is, see `optuna_discipline.training.step.default_step`.

    Returns:
        The choice: the rate, a tenth of it, the interval between the neighbours of the best probe, and its cost. Not
        `confident` where no probe learned or only one ran (or none, as a model that trains gives no number in eval
        mode), where a rung beside the best was left out, where the loss still fell clearly towards the largest rate
        that the budget or the range test allowed, where larger rates than are looked at may be better, or where the
        budget ended before both sides of the best were seen and the range test was not sure of the start either.
        `max_lr` is None, with the reason, where every probe diverged or the budget pays for none.

    Raises:
        ValueError: If an argument breaks its rule.
        DisciplineError: If there is no data or no trainable parameter.
    """
    check_builder(build_model)
    if isinstance(optimizer, torch.optim.Optimizer):
        raise ValueError("`optimizer` must be a name or a callable: an optimizer holds the weights of one model only.")
    check_batch_size_free(train, batch_size)
    for name, data in (("train", train), ("val", val)):
        check_repeatable(data, name, 2)
    check_step(step)
    seed = as_seed(seed)
    states = RandomStates.capture(generators_of(train, val))
    prober = Prober(
        build_model=build_model,
        loss_fn=loss_fn,
        train=train,
        val=val,
        epochs=as_count("epochs", epochs),
        momentum=None if momentum is None else as_number("momentum", momentum, high=1.0),
        weight_decay=None if weight_decay is None else as_number("weight_decay", weight_decay),
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


def _search(prober: Prober, max_cost: float) -> LrChoice:
    """Run the range test, then the probes of each length in turn, while the budget lasts."""
    start, ceiling, patience, down_first = prober.default_start, prober.ceiling, 1, False
    sure, open_end, up = False, True, FACTOR
    lengths: Sequence[float] = _LENGTHS
    tests = 0 < prober.test_steps <= max_cost / 2 * prober.total_steps
    first = prober.probe_cost(_LENGTHS[0]) + (prober.test_steps / prober.total_steps if tests else 0.0)
    if first + prober.validation_cost <= max_cost and prober.cannot_validate():
        return replace(refusal("DIVERGED_AT_START", BROKEN_VALIDATION), cost=prober.cost)
    if tests:
        test = prober.range_test()
        if _breaks_at_start(test, prober) and prober.cost + prober.test_steps / prober.total_steps <= max_cost / 2:
            prober.deeper = True
            below = prober.range_test()
            prober.deeper = not _breaks_at_start(below, prober)  # at any rate: then it is the data's noise
            test = below if prober.deeper else test
        curve, own, untrained = choose_max_lr(test), choose_max_lr(test, trust=1.0), prober.measure_untrained()
        edge = last_stable_lr(test, untrained)
        if not math.isfinite(untrained):
            reason = curve.reason if curve.max_lr is None else f"{curve.reason} {_BROKEN_EVALUATION}"
            return replace(curve, reason=reason, confident=False, cost=prober.cost)
        logger.info("find_lr: %s Stable up to lr %.3g.", curve.reason, edge)
        start = min(curve.max_lr or start, edge if curve.max_lr else edge / 2)
        patience = 1 if curve.max_lr is None else 2
        # a network that starts slowly, or one for which the usual rate may be far too much, is tried lower first
        unusual = own.max_lr is not None and own.max_lr < start / _UNUSUAL
        down_first = curve.status == "NO_GAIN_THEN_DIVERGED" or unusual
        ceiling = highest_to_probe(edge, start, clear=curve.status == "OK" and not unusual)
        if own.max_lr is not None and own.status == "CENSORED":  # its own rate is the end, drawn far down to the usual
            up = first_step_up(own.max_lr, start)
        prober.learned_gain = prober.gained if curve.status in ("OK", "NO_RISE", "CENSORED") else 0.0
        sure, open_end = curve.confident, edge >= test.settings["end_lr"]
    if prober.cost + 2 * prober.probe_cost(_LENGTHS[1]) <= max_cost:
        lengths = _LENGTHS[1:]
    choice = None
    for length in lengths:
        probes, finished = _walk(prober, length, start, ceiling, max_cost, patience, down_first, up)
        if not probes:
            break
        choice = choose_from_probes(
            probes,
            start=start,
            finished=finished,
            length=length,
            ceiling=ceiling,
            untrained=prober.untrained_loss,
            gained=prober.learned_gain,
            sure=sure,
            open_end=open_end,
        )
        logger.info("find_lr: %s Cost so far %.2f.", choice.reason, prober.cost)
        if finished or choice.max_lr is None or any(probe.learned for probe in probes):
            break
        start = choice.max_lr
        broken = [probe.lr for probe in probes if not math.isfinite(probe.loss)]
        ceiling, open_end = min([ceiling, *broken]), open_end and not broken
    if choice is None:
        reason = f"`max_cost` of {max_cost:g} full runs does not pay for one probe: raise it."
        choice = refusal("TOO_FEW_POINTS", reason)
    return replace(choice, cost=prober.cost)


def _breaks_at_start(test: RangeTest, prober: Prober) -> bool:
    return last_stable_lr(test, prober.measure_untrained()) < _NEAR_FLOOR * prober.floor


def _walk(
    prober: Prober,
    length: float,
    start: float,
    ceiling: float,
    max_cost: float,
    patience: int,
    down_first: bool,
    up: float,
) -> tuple[list[Probe], bool]:
    """Try one learning rate after the other; return the probes and whether the walk came to its end."""
    probes: list[Probe] = []
    ceiling = max(ceiling, start)
    while prober.cost + prober.probe_cost(length) <= max_cost + 1e-9:
        lr = next_probe(probes, start=start, floor=prober.lowest, ceiling=ceiling, down_first=down_first, up=up)
        if lr is None:
            return probes, True
        probes.append(prober.probe(lr, length))
        logger.info("find_lr: %s of %g of the run; cost %.2f so far", probes[-1], length, prober.cost)
        finite = [probe for probe in probes if math.isfinite(probe.loss)]
        deaf = len(finite) >= patience and not any(probe.learned for probe in finite)
        if deaf and any(prober.cost + prober.probe_cost(n) <= max_cost for n in _LENGTHS if n > length):
            break
    return probes, False
