"""The stages of the recipe: each reads the runs of its slots and says what is open; their state is never stored.

Longer than most files, because the stages share one incumbent and are read best in their order.
"""

import math
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from typing import TYPE_CHECKING
from typing import Literal

from optuna_discipline.rules.candidates import WEIGHT_DECAYS
from optuna_discipline.rules.failures import all_in_vain
from optuna_discipline.rules.failures import drawn_first
from optuna_discipline.rules.failures import since_the_first_training
from optuna_discipline.rules.ladder import Ladder
from optuna_discipline.rules.ladder import ladder_axis
from optuna_discipline.rules.line_search import Axis
from optuna_discipline.rules.line_search import best_point
from optuna_discipline.rules.line_search import open_points
from optuna_discipline.rules.line_search import point_key
from optuna_discipline.rules.lr_choice import USUAL_LR
from optuna_discipline.rules.lr_choice import LrChoice
from optuna_discipline.rules.lr_lean import is_readable
from optuna_discipline.rules.lr_lean import overfits
from optuna_discipline.rules.model_box import box_around
from optuna_discipline.rules.run import LADDER
from optuna_discipline.rules.run import MODEL_SLOT
from optuna_discipline.rules.run import Proposal
from optuna_discipline.rules.run import Run
from optuna_discipline.rules.run import Stage
from optuna_discipline.rules.run import start_lr
from optuna_discipline.rules.slots import SMALLEST_NOISE
from optuna_discipline.rules.slots import Slots
from optuna_discipline.rules.slots import at_equal_time
from optuna_discipline.rules.slots import example_of
from optuna_discipline.rules.slots import is_running
from optuna_discipline.rules.slots import loss_of
from optuna_discipline.rules.slots import without_epochs
from optuna_discipline.rules.space import Bounds
from optuna_discipline.rules.space import Role
from optuna_discipline.rules.space import default_of

if TYPE_CHECKING:
    from optuna_discipline.rules.recipe import Recipe

ComparedRole = Literal["momentum", "weight_decay", "batch_size"]
# A larger batch takes a larger learning rate at as many epochs: on 8 small nets of batch 16 to 256 the best one grew as
# batch ** 0.55 (0 to 1), and the square root lost least: 19 % of the loss at a factor of 4 (median 3 %), against 44 %
# unchanged, 37 % linear, 26 % by a range test there. At equal time it should stay as it is (batch ** 0.25).
LR_BY_BATCH = 0.5
# From so many runs on there is enough to learn from which parameters matter: every second trial of the refinement is
# then by a model that does (Optuna's GPSampler), the others still by ours, since each finds what the other does not. On
# smooth functions (`benchmarks.smooth`) the regret after 60 trials fell from .096 to .020. With every trial its own it
# fell to .010, but on surrogates of 12 tables the regret after 50 trainings rose from .0027 to .0042 (four parameters)
# and from .0031 to .0057 (seven); so .0016 and .0035. It takes a lucky run at the edge of divergence for a better
# rate, so its learning rates stay near the best run's.
ENOUGH_TO_LEARN = 20
# From so many runs on the model moves the epochs of trainings that report nothing, too. Most are best at full length,
# and its first step loses a trial: at once, Hugging Face's names (`benchmarks.spaces`) had an incumbent of .157, .079
# after 8 and 10 trials, from 8 runs on .075 and .069, never .075 and .066. An objective that overfits beyond 25 of 200
# epochs had .41 and .32 after 10 and 20 at once, .53 and .31 so, .63 and .58 never.
ENOUGH_FOR_LENGTHS = 8


@dataclass(frozen=True)
class _Incumbent:
    """The best configuration so far, its loss at the stages' length, and what is not yet known (None)."""

    values: Mapping[Role, float]
    loss: float | None = None
    like: int | None = None


class Search:
    """The state of the recipe, rebuilt from the runs at every call."""

    def __init__(
        self,
        recipe: "Recipe",
        runs: Sequence[Run],
        space: dict[Role, Bounds],
        choice: LrChoice | None,
        *,
        maximize: bool = False,
    ) -> None:
        self.recipe, self.space, self.choice, self.sign = recipe, space, choice, -1.0 if maximize else 1.0
        self.runs = at_equal_time(runs)
        found = drawn_first(self.runs)  # what ran before says nothing of where this one lies
        counted = since_the_first_training(self.runs) if found is None else self.runs
        self.slots = Slots([run for run in counted if found is None or run.number >= found.number])
        self.levels = self._levels()
        self.level = self.levels[0]
        self.noise = 0.0
        earlier = min((run.number for run in runs if run.slot is not None), default=math.inf)
        known = [run for run in self.runs if run.slot is None and run.number < earlier and math.isfinite(run.score)]
        if found is not None and math.isfinite(found.score):
            known = [found]
        best = min(known, key=lambda run: run.score, default=None)
        self.incumbent = _Incumbent({}) if best is None else _Incumbent(without_epochs(best), like=best.number)
        self.known = best
        self.confirmed: list[tuple[Mapping[Role, float], str]] = []

    def plan(self, stage: Stage, index: int) -> list[Proposal]:
        """Return the open proposals of a stage; [] moves on to the next stage."""
        if stage == "lr":
            return self._lr()
        if stage == "confirm":
            return self._confirm(index)
        if stage == "replicate":
            return self._replicate()
        if stage in ("momentum", "weight_decay", "batch_size"):
            return self._compare(stage)
        return self._refit_lr()

    def model(self) -> Proposal:
        """Return the model-based refinement around the best full-length run."""
        if all_in_vain(self.runs):
            return Proposal("refine", MODEL_SLOT, "drawn from all there is, as nothing has run so far", drawn=True)
        whole = sum(run.state == "complete" and run.trained for run in self.runs)
        learns = whole >= ENOUGH_TO_LEARN and len(self.runs) % 2 == 1
        return self._by_model("refine", MODEL_SLOT, self._why(near=learns), learns=learns)

    def _why(self, *, near: bool) -> str:
        """Return what the model's search is founded on, in words."""
        if any(math.isfinite(run.score) for run in self.runs):
            return f"model-based search {'near' if near else 'around'} the best full run"
        if any(run.finished for run in self.runs):
            return "model-based search around the start, as no run has ended well"
        return "drawn, as no run has ended yet"

    def _by_model(
        self, stage: Stage, slot: str, reason: str, free: tuple[Role, ...] = (), *, learns: bool = False
    ) -> Proposal:
        any_length = slot == MODEL_SLOT and self._moves_lengths()
        best = self._best_of_any_length() if any_length else self._best_full()
        around: Mapping[Role, float] = best.params if best is not None else self.incumbent.values
        if not around:
            around = {
                role: Proposal("refine", MODEL_SLOT, "").value_of(role, b, self.choice)
                for role, b in self.space.items()
            }
        box = box_around(around, best, self.runs, near=bool(free) or learns, limits=self.space.get("lr"))
        like = best.number if best is not None else self.incumbent.like
        return Proposal(
            stage, slot, reason, around, like=like, box=box, free=free, learns=learns, any_length=any_length
        )

    def _moves_lengths(self) -> bool:
        """Whether the number of epochs is one more parameter of the model, as nothing speaks for the longest.

        Where a recipe has short cycles, they stand for full trainings. A training that reports its epochs says itself
        whether it was too long; until the best one does, or a shorter one is the best, all run in full.
        """
        if self.recipe.short < 1 or "epochs" not in self.space or self._fixed("epochs"):
            return False
        full, best = self._best_full(), self._best_of_any_length()
        if full is None or best is not full:
            return best is not None
        ended = sum(run.finished and run.trained for run in self.runs)
        return overfits(full) or (not is_readable(full) and ended >= ENOUGH_FOR_LENGTHS)

    # ---- the stages -------------------------------------------------------------------------------------------

    def _lr(self) -> list[Proposal]:
        if self._fixed("lr"):
            return []
        for rank, level in enumerate(self.levels):
            self.level = level
            options = self._lr_at(rank, level)
            if options or self._learned or level == self.levels[-1]:
                return options
        return []

    def _lr_at(self, rank: int, level: float) -> list[Proposal]:
        start, tested = self._start_of_ladder()
        axis = ladder_axis(self.recipe.lr_factor, start or 1.0, self.space.get("lr"), tested)
        slots, longest = self.slots.points(f"{LADDER}{rank}"), level == self.levels[-1]
        if self.known is not None and self.known.params.get("lr") == start and self._length_of(self.known) == level:
            slots = {1.0: [self.known], **slots}  # it has run already
        ladder = Ladder(axis, slots, longest, self._usual_lr() / start if start else 0.0, self.sign)
        self._learned = ladder.learned
        wanted = [] if self._stuck("lr", ladder.finished) else ladder.wanted()
        todo = ladder.open(wanted)
        if todo:
            return [self._rung(ladder, x, rank) for x in todo]
        if wanted or ladder.running:
            return [self._meanwhile("lr")]
        if ladder.best is not None:
            loss = ladder.results[best_point(axis, ladder.results)]
            self._settle(ladder.best, loss if math.isfinite(loss) else None)
        return []

    def _usual_lr(self) -> float:
        """Return where SGD trains, if a momentum that is not cycled says that this is SGD; else 0."""
        return USUAL_LR["SGD"] if "momentum" in self.space and not self.recipe.cyclical_momentum else 0.0

    def _start_of_ladder(self) -> tuple[float | None, LrChoice | None]:
        """Return the learning rate of its first rung, if that is known, and the range test that its top obeys."""
        bounds = self.space.get("lr")
        if "lr" in self.incumbent.values:
            known = self.incumbent.values["lr"]
            return (known if bounds is None else bounds.clip(known)), None
        start = self._first_lr() or (None if bounds is None else start_lr(bounds, self.choice))
        return start, None if bounds is None else self.choice

    def _first_lr(self) -> float | None:
        """Return what the ladder's first run was given, which its trial's own bounds and words may have changed.

        Where that failed before any had trained, it is what the first run that counts makes of it.
        """
        rungs = [rung for rank in range(len(self.levels)) for rung in self.slots.points(f"{LADDER}{rank}").items()]
        runs = [
            (x != 1, run.number, run.params["lr"] / x) for x, of_rung in rungs for run in of_rung if "lr" in run.params
        ]
        return min(runs)[2] if runs else None

    def _rung(self, ladder: Ladder, x: float, rank: int) -> Proposal:
        values = dict(self.incumbent.values)
        start = self._start_of_ladder()[0] if "lr" in values else self._first_lr()
        if start:
            values["lr"] = start * x
        reason = ladder.reason(x)
        if rank:
            reason += f"; cycles of {self.level:.3g} training, as nothing had learned in shorter ones"
        slot = f"{LADDER}{rank}:{x:g}"
        return Proposal("lr", slot, reason, values, lr_multiple=x, fidelity=self.level, like=self.incumbent.like)

    def _confirm(self, index: int) -> list[Proposal]:
        if self.level >= 1 or self.incumbent.like is None or self._same_as_confirmed():
            return []
        slot = f"confirm:{sum(stage == 'confirm' for stage in self.recipe.stages[:index]) + 1}"
        self.confirmed.append((self.incumbent.values, slot))
        if not self.slots.is_open(slot):
            return []
        reason = "the best configuration of the short cycles, at full length"
        return [Proposal("confirm", slot, reason, self.incumbent.values, like=self.incumbent.like)]

    def _replicate(self) -> list[Proposal]:
        """Measure the noise, where a run is cheap: the best configuration once more."""
        if self.incumbent.loss is None:
            return []
        self.noise = SMALLEST_NOISE * abs(self.incumbent.loss)
        if self.level >= 1:
            return []
        same = [run for run in self.slots.replicates() if without_epochs(run) == self.incumbent.values]
        runs = [run for run in same if math.isfinite(run.score)]
        if not runs and self.slots.is_open("replicate:1"):
            return [self._repeat(self.level)]
        if not runs and is_running(self.slots.of("replicate:1")):
            return [self._meanwhile("replicate")]
        losses = [self.incumbent.loss, *(run.score for run in runs)]
        self.noise = max(self.noise, max(losses) - min(losses)) if len(losses) > 1 else self.noise
        self.incumbent = replace(self.incumbent, loss=sum(losses) / len(losses))
        return []

    def _compare(self, role: ComparedRole) -> list[Proposal]:
        """Compare the candidates of one role, everything else held.

        Where each run is a full training, the model looks for the best value in one run, instead of candidates; but for
        weight decays that restart from a snapshot, which must differ in nothing else.
        """
        if self._fixed(role):
            return []
        restarted = role == "weight_decay" and self.recipe.weight_decay_search == "snapshot"
        if self.level >= 1:
            if not restarted:
                return self._look(role)
            self._settle_best_before(role)
        axis = self._axis(role)
        if axis is None:
            return []
        default = axis.candidates[0]
        slots = self.slots.points(role)
        results = {x: loss for x, runs in slots.items() if (loss := loss_of(runs)) is not None}
        if self.incumbent.loss is not None:
            results[default] = min(self.incumbent.loss, results.get(default, math.inf))
        finished = [run for runs in slots.values() for run in runs if run.finished]
        points = [] if self._stuck(role, finished) else open_points(axis, results, noise=self.noise)
        todo = [x for x in points if not is_running(slots.get(x, []))]
        if todo:
            return [self._comparison(role, x, default) for x in todo]
        if points or any(is_running(runs) for runs in slots.values()):
            return [self._meanwhile(role)]
        best = best_point(axis, results, noise=self.noise)
        if best in slots and best != default and math.isfinite(results[best]):
            if any(run.restarted for run in slots[best]):
                return self._train_whole(role, best, default)
            self._settle(example_of(slots[best]), results[best])
        return []

    def _look(self, role: ComparedRole) -> list[Proposal]:
        """Return one full run with the value of the role that the model finds most promising, and its learning rate."""
        slot = f"{role}:{MODEL_SLOT}"
        if is_running(self.slots.of(slot)):
            return [self._meanwhile(role)]
        if not self.slots.is_open(slot):
            return []
        reason = f"the model's choice of {role.replace('_', ' ')}, with a learning rate that suits it"
        free: tuple[Role, ...] = (role,) if self._fixed("lr") else (role, "lr")
        return [self._by_model(role, slot, reason, free)]

    def _settle_best_before(self, role: ComparedRole) -> None:
        """Take the best full run from before the stage, which the model may have found, to restart it."""
        first = min((run.number for runs in self.slots.points(role).values() for run in runs), default=math.inf)
        best = self._best_full(before=first)
        if best is not None:
            self._settle(best, best.score)

    def _train_whole(self, role: ComparedRole, best: float, default: float) -> list[Proposal]:
        """Train the best restart from the start before it is taken: a strong decay may work late in a run only."""
        slot = f"whole:{best:g}"
        runs = self.slots.of(slot)
        loss = loss_of(runs)
        if loss is None and is_running(runs):
            return [self._meanwhile(role)]
        if loss is None:
            reason = f"{role.replace('_', ' ')} {best:g} against {default:g}, the best restart, as a whole training"
            values = {**self.incumbent.values, role: best}
            return [Proposal(role, slot, reason, values, fidelity=self.level, like=self.incumbent.like)]
        if self.incumbent.loss is None or loss < self.incumbent.loss - self.noise:
            self._settle(example_of(runs), loss)
        return []

    def _axis(self, role: ComparedRole) -> Axis | None:
        """Return the candidates of a role, the present value first; None if there is nothing to compare."""
        bounds = self.space.get(role)
        if bounds is None:
            return None
        now = self.incumbent.values.get(role, default_of(role, bounds))
        wanted: tuple[float, ...]
        if role == "momentum":
            wanted = tuple(m for m in self.recipe.momenta if bounds.low <= m <= bounds.high)
            axis = Axis((), bounds.low, bounds.high)
        elif role == "weight_decay":
            cheap = self.level < 1 or self.recipe.weight_decay_search == "snapshot"
            wanted = WEIGHT_DECAYS[self.recipe.complexity or "moderate"] if cheap else (now * 10, now / 10)
            factor = 10.0 if cheap else 1.0
            axis = Axis((), bounds.low, bounds.high, factor=factor, bisect=cheap, max_points=7, figures=1)
        else:
            wanted = (now * 2, now / 2)
            axis = Axis((), bounds.low, bounds.high, factor=2.0, max_points=6)
        candidates = dict.fromkeys(point_key(bounds.clip(x)) for x in (now, *wanted))
        return replace(axis, candidates=tuple(candidates)) if len(candidates) > 1 else None

    def _comparison(self, role: ComparedRole, x: float, default: float) -> Proposal:
        values = {**self.incumbent.values, role: x}
        lr, momentum = values.get("lr"), self.incumbent.values.get("momentum")
        note = ""
        if role == "momentum" and lr is not None and momentum is not None and not self.recipe.cyclical_momentum:
            values["lr"] = lr * (1 - x) / (1 - momentum)
            note = " at the same lr / (1 - momentum)"
        if role == "batch_size" and lr is not None:
            values["lr"] = lr * (x / default) ** LR_BY_BATCH
            note = " with the learning rate scaled by its square root"
        reason = f"{role.replace('_', ' ')} {x:g} against {default:g}{note}"
        return Proposal(
            role,
            f"{role}:{x:g}",
            reason,
            values,
            fidelity=self.level,
            like=self.incumbent.like,
        )

    def _refit_lr(self) -> list[Proposal]:
        """Compare the learning rate again at full length, around what the stages chose."""
        best = self._best_of_confirmed()
        if self.level >= 1 or self._fixed("lr") or best is None or "lr" not in best.params:
            return []  # where the stages ran at full length, the model has moved the learning rate all along
        options = []
        for x in (0.5, 2.0):
            slot = f"refine:lr*{x:g}"
            wanted = best.params["lr"] * x
            bounds = self.space.get("lr")
            if self.slots.is_open(slot) and (bounds is None or bounds.low <= wanted <= bounds.high):
                values = {**best.params, "lr": wanted}
                reason = f"the learning rate again, at full length: {x:g} x {best.params['lr']:.3g}"
                options.append(Proposal("refine", slot, reason, values, like=best.number))
        return options

    # ---- what is known ----------------------------------------------------------------------------------------

    def _levels(self) -> tuple[float, ...]:
        """Return the lengths of the stages' cycles in full trainings, rising, the last one 1."""
        shares = [self.recipe.short]
        while shares[-1] * 2 < 1:
            shares.append(shares[-1] * 2)
        shares.append(1.0)
        epochs = self.space.get("epochs")
        if epochs is None:
            return tuple(dict.fromkeys(shares)) if not self.space else (1.0,)
        lengths = dict.fromkeys(epochs.clip(max(1.0, round(share * epochs.high))) for share in shares)
        return tuple(length / epochs.high for length in lengths)

    def _length_of(self, run: Run) -> float:
        """Return the length of a run in full trainings."""
        return run.params["epochs"] / self.space["epochs"].high if "epochs" in run.params else 1.0

    def _fixed(self, role: Role) -> bool:
        """Whether there is nothing to choose: the study has no such parameter, or one value of it."""
        return bool(self.space) and (role not in self.space or self.space[role].single)

    def _stuck(self, role: Role, finished: Sequence[Run]) -> bool:
        """Whether somebody else sets the role: different candidates ran with one value."""
        slots = {run.slot for run in finished}
        values = {run.params.get(role) for run in finished}
        present = self.incumbent.values.get(role) if role != "lr" else None
        return (len(slots) > 1 and len(values) == 1) or (bool(slots) and values == {present})

    def _settle(self, run: Run, loss: float | None) -> None:
        values = {**self.incumbent.values, **without_epochs(run)}
        self.incumbent = _Incumbent(values, loss, run.number)

    def _repeat(self, level: float) -> Proposal:
        """Return a replicate of the best configuration: noise is worth knowing, and it blocks nobody."""
        slot = f"replicate:{len({run.slot for run in self.slots.replicates() if run.state != 'failed'}) + 1}"
        reason = "the best configuration once more, to measure the noise"
        return Proposal("replicate", slot, reason, self.incumbent.values, fidelity=level, like=self.incumbent.like)

    def _meanwhile(self, stage: Stage) -> Proposal:
        """Return what a worker does while others finish a stage: never a stage that builds on it."""
        reason = f"model-based search while others finish the stage {stage}"
        found = self.model()
        return replace(found, reason=found.reason if found.drawn else reason, waits_for=stage)

    def _same_as_confirmed(self) -> bool:
        return any(values == self.incumbent.values for values, _ in self.confirmed)

    def _best_of_confirmed(self) -> Run | None:
        runs = [run for _, slot in self.confirmed for run in self.slots.of(slot) if math.isfinite(run.score)]
        return min(runs, key=lambda run: run.score, default=None)

    def _allows(self, run: Run) -> bool:
        """Whether a run lies within the bounds, which may have been narrowed since."""
        shared = ((bounds, run.params[role]) for role, bounds in self.space.items() if role in run.params)
        return all(bounds.low * (1 - 1e-9) <= x <= bounds.high * (1 + 1e-9) for bounds, x in shared)

    def _best_full(self, before: float = math.inf) -> Run | None:
        full = self.space["epochs"].high if "epochs" in self.space else None
        return self._best([run for run in self.runs if run.params.get("epochs") == full and run.number < before])

    def _best_of_any_length(self) -> Run | None:
        return self._best(self.runs)

    def _best(self, runs: Sequence[Run]) -> Run | None:
        runs = [run for run in runs if math.isfinite(run.score) and not run.restarted]
        runs = [run for run in runs if self._allows(run)] or runs
        return min(runs, key=lambda run: run.score, default=None)
