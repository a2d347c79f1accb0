"""What the recipe reads and writes: a `Run` for each training so far, a `Proposal` for the next."""

import math
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from functools import cached_property
from itertools import chain
from typing import Any
from typing import Literal
from typing import get_args

from optuna_discipline.rules.curve import LossCurve
from optuna_discipline.rules.divergence import is_diverged
from optuna_discipline.rules.lr_choice import LrChoice
from optuna_discipline.rules.space import Bounds
from optuna_discipline.rules.space import Role
from optuna_discipline.rules.space import default_of

RunState = Literal["running", "complete", "pruned", "failed"]
Stage = Literal["lr", "confirm", "replicate", "momentum", "weight_decay", "batch_size", "refine", "enqueued"]
RUN_STATES: tuple[RunState, ...] = get_args(RunState)
STAGE_NAMES: tuple[Stage, ...] = get_args(Stage)[:-1]
MODEL_SLOT, LADDER = "model", "lr"  # the slots of the ladder begin with the latter


@dataclass(frozen=True)
class Run:
    """One training as the rules see it.

    Attributes:
        number: Number of the trial.
        state: A running trial that is long overdue counts as failed.
        params: Values of the roles that it was given.
        loss: The objective, turned so that smaller is better; None if there is none.
        slot: Which candidate of which stage it runs, as its `Proposal` said; None if it was not proposed.
        curve: Its epochs, if it reported them.
        reports: The objective from report to report, turned so that smaller is better; empty if it reported nothing.
        seconds: How long it took.
        restarted: Whether it went on from the middle of another run, so that only its end shows its own parameters.
        others: Values of the parameters without a role, and of a second one of a role but a learning rate, by name.
        allowed: Whether it broke no constraint. One that did is like one that cannot run: its loss is infinite, and it
            has no curve and no reports, or its learning rate would be blamed.
        handicap: What is added to its loss in comparisons, because its batch size makes an epoch longer.
        smallest: Whether no size of it could be smaller, and no word another one.

    Raises:
        ValueError: If `state` is another word.
    """

    number: int
    state: RunState
    params: Mapping[Role, float]
    loss: float | None = None
    slot: str | None = None
    curve: LossCurve | None = None
    reports: tuple[float, ...] = ()
    seconds: float | None = None
    restarted: bool = False
    others: Mapping[str, Any] = field(default_factory=dict)
    allowed: bool = True
    handicap: float = 0.0
    smallest: bool = False

    def __post_init__(self) -> None:
        if self.state not in RUN_STATES:
            raise ValueError(f"`state` must be one of {RUN_STATES}, but got {self.state!r}.")

    @cached_property
    def finished(self) -> bool:
        """Whether it ended with something to learn from it; a divergence is."""
        return self.state in ("complete", "pruned") or (self.state == "failed" and self.diverged)

    @cached_property
    def trained(self) -> bool:
        """Whether it has shown anything of a training: a report, an epoch, an objective that is a number."""
        return bool(self.reports) or bool(self.curve) or (self.loss is not None and math.isfinite(self.loss))

    @cached_property
    def has_shown(self) -> bool:
        """Whether it has any parameter."""
        return bool(self.params or self.others)

    @cached_property
    def finite(self) -> bool:
        """Whether any of that is a finite number."""
        logs = () if self.curve is None else self.curve.logs
        epochs = (log.train_loss if log.val_loss is None else log.val_loss for log in logs)
        return any(loss is not None and math.isfinite(loss) for loss in chain([self.loss], self.reports, epochs))

    @cached_property
    def is_rung(self) -> bool:
        """Whether it was proposed as a rung of the ladder, and has not turned out to have no learning rate."""
        proposed = self.slot is not None and self.slot.startswith(LADDER)
        return proposed and ("lr" in self.params or not math.isfinite(self.score))

    @cached_property
    def diverged(self) -> bool:
        """Whether its training broke."""
        return self.curve is not None and len(self.curve) > 0 and is_diverged(self.curve)

    @property
    def held(self) -> bool:
        """Whether its training did not break: its last number is finite, also where it was pruned."""
        ended = self.state in ("complete", "pruned") and not self.diverged
        return ended and self.loss is not None and math.isfinite(self.loss)

    @cached_property
    def score(self) -> float:
        """Its loss for comparisons; inf for a run that did not end well."""
        if self.state != "complete" or self.loss is None or not math.isfinite(self.loss) or self.diverged:
            return math.inf
        return self.loss + self.handicap


def differ_in_rate(one: Run, other: Run) -> bool:
    """Whether two runs, both with a learning rate above 0, differ in it and in nothing else.

    >>> differ_in_rate(Run(0, "complete", {"lr": 0.1}), Run(1, "complete", {"lr": 0.3}))
    True
    """
    first, second = one.params.get("lr", 0.0), other.params.get("lr", 0.0)
    alike = {**one.params, "lr": second} == other.params and one.others == other.others
    return alike and first != second and first > 0 and second > 0


def all_within(runs: Sequence[Run], limits: Mapping[Role, tuple[float, float]]) -> Sequence[Run]:
    """Return the runs with all values within the `limits_of` a space, which may have been narrowed since.

    >>> all_within([Run(0, "complete", {"lr": 0.1})], {"lr": (0.01, 0.05)})
    []
    """
    for role, (low, high) in limits.items():
        runs = [run for run in runs if role not in run.params or low <= run.params[role] <= high]
    return runs


@dataclass(frozen=True)
class Proposal:
    """What to run next.

    Attributes:
        stage: Part of the recipe.
        slot: Which candidate, unique in the study; equal slots are one question.
        reason: Why, in words.
        values: Values of roles; a role that is missing takes its default.
        lr_multiple: Factor on the default learning rate, where `values` has none.
        fidelity: Length of the run in full trainings.
        like: Number of the run whose other parameters are held; None for the defaults.
        box: Bounds of roles for the model.
        free: Roles that the model chooses, all others held, the first moved; in the slot "model" it chooses everything.
        keep_snapshot: Whether to save the run at its plateau, because later ones may restart from it.
        restart_from: Number of the run whose snapshot it may go on from; None trains from the start.
        failures: How many runs have ended, while none has trained, or none within the constraints has held.
        drawn: Whether all but the length is drawn from all there is, because nothing has run or learned.
        any_length: Whether the number of epochs is one of the model's parameters, and a run of any length as good.
        learns: Whether the model is one that learns from the runs how much each parameter matters.
        waits_for: Stage that others must finish first, for a run of the model in the meantime.
        bound: What a sampler around this one holds, by name, as far as earlier trials show.
    """

    stage: Stage
    slot: str
    reason: str
    values: Mapping[Role, float] = field(default_factory=dict)
    lr_multiple: float = 1.0
    fidelity: float = 1.0
    like: int | None = None
    box: Mapping[Role, tuple[float, float]] = field(default_factory=dict)
    keep_snapshot: bool = False
    restart_from: int | None = None
    free: tuple[Role, ...] = ()
    waits_for: Stage | None = None
    bound: Mapping[str, Any] = field(default_factory=dict)
    failures: int = 0
    drawn: bool = False
    learns: bool = False
    any_length: bool = False

    @property
    def by_model(self) -> bool:
        """Whether a model chooses some of the values."""
        return (self.slot == MODEL_SLOT and not self.drawn) or bool(self.free)

    def value_of(self, role: Role, bounds: Bounds, choice: LrChoice | None = None) -> float:
        """Return what a role gets within a trial's own bounds."""
        if role == "epochs" and not (self.any_length and role in self.values):
            return bounds.clip(max(1.0, round(self.fidelity * bounds.high)))
        if role in self.values:
            return bounds.clip(self.values[role])
        if role == "lr":
            return bounds.clip(start_lr(bounds, choice) * self.lr_multiple)
        return default_of(role, bounds)


def start_lr(bounds: Bounds, choice: LrChoice | None) -> float:
    """Return the first learning rate: a range test's that is sure of it, or two thirds up the bounds.

    A test's guess only lowers that: it stays below the edge that was seen.
    """
    usual = default_of("lr", bounds)
    if choice is None or choice.max_lr is None:
        return usual
    return bounds.clip(choice.max_lr if choice.confident else min(usual, choice.max_lr))
