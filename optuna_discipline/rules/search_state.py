"""What the stages of a recipe know: the runs, the best of them, and what the model runs around it."""

import math
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from functools import cached_property
from operator import attrgetter
from statistics import median
from typing import TYPE_CHECKING

from optuna_discipline.rules.conditions import added
from optuna_discipline.rules.failures import all_in_vain
from optuna_discipline.rules.failures import drawn_first
from optuna_discipline.rules.failures import those_that_count
from optuna_discipline.rules.failures import what_none_did
from optuna_discipline.rules.lr_choice import LrChoice
from optuna_discipline.rules.lr_lean import is_readable
from optuna_discipline.rules.lr_lean import overfits
from optuna_discipline.rules.model_box import box_around
from optuna_discipline.rules.run import LADDER
from optuna_discipline.rules.run import MODEL_SLOT
from optuna_discipline.rules.run import Proposal
from optuna_discipline.rules.run import Run
from optuna_discipline.rules.run import Stage
from optuna_discipline.rules.run import all_within
from optuna_discipline.rules.slots import Slots
from optuna_discipline.rules.slots import at_equal_time
from optuna_discipline.rules.slots import has_repeated
from optuna_discipline.rules.slots import passed_over
from optuna_discipline.rules.slots import without_epochs
from optuna_discipline.rules.space import Bounds
from optuna_discipline.rules.space import Role
from optuna_discipline.rules.space import limits_of
from optuna_discipline.rules.standstill import far_slot
from optuna_discipline.rules.standstill import may_be_flat
from optuna_discipline.rules.standstill import widest_gap

if TYPE_CHECKING:
    from optuna_discipline.rules.recipe import Recipe

# What the three rules gained is in benchmarks/README.md.
# From so many runs on there is enough to learn from which parameters matter: every second trial of the refinement is
# then by a model that does (Optuna's GPSampler), the others by ours, since each finds what the other does not. It takes
# a lucky run at the edge of divergence for a better rate, so its learning rates stay near the best run's.
ENOUGH_TO_LEARN = 20
# From then on every eighth trial is the best run at the learning rate farthest from all tried, until no gap is wider
# than this factor: a second valley there would never be seen around the best run.
FAR_TURN, WIDEST_LEFT = 8, 30.0
# From so many runs on the model moves the epochs of trainings that report nothing, too. Most are best at full length,
# and its first step loses a trial: so not at once, but where shorter ones are better, never would cost more. Once the
# model has repeated a run, nothing else is new.
ENOUGH_FOR_LENGTHS = 8


@dataclass(frozen=True)
class Incumbent:
    """The best configuration so far, its loss at the stages' length, and what is not yet known (None)."""

    values: Mapping[Role, float]
    loss: float | None = None
    like: int | None = None


class SearchState:
    """What is known of a study, rebuilt from its runs at every call."""

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
        self.told, self.runs, self.limits = runs, at_equal_time(runs), limits_of(space)
        first = drawn_first(runs)
        found = None if first is None else next(run for run in self.runs if run.number == first.number)
        counted = those_that_count(self.runs, found)
        self.slots = Slots(counted)
        self.levels = self._levels()
        self.level = self.levels[0]
        self.noise = 0.0
        rung = min((run.number for run in counted if run.is_rung), default=math.inf)
        self.before = [run for run in self.runs if run.number < rung and math.isfinite(run.score) and run.has_shown]
        best = found if found is not None and math.isfinite(found.score) else self._best_before()
        self.incumbent = Incumbent({}) if best is None else Incumbent(without_epochs(best), like=best.number)
        self.known = best
        self.confirmed: list[tuple[Mapping[Role, float], str]] = []

    def model(self) -> Proposal:
        """Return the model-based refinement around the best full-length run; what is drawn where all was in vain.

        Nobody contests it: any number of workers may run the model at once.
        """
        if all_in_vain(self.told):
            return self._drawn()
        learns = self._has_ended(ENOUGH_TO_LEARN) and len(self.runs) % 2 == 1
        return self._by_model("refine", MODEL_SLOT, self._why(near=learns), learns=learns)

    def model_meanwhile(self, why: str) -> Proposal:
        """Return what the model runs for a worker who may not have what is open; no model knows a run that goes on."""
        found, is_model = self.model(), any(run.finished for run in self.runs)
        reason = f"model-based search {why}" if is_model else f"drawn {why}, as no run has ended well yet"
        return replace(found, reason=found.reason if found.drawn else reason)

    def _drawn(self) -> Proposal:
        """Return what is drawn from all there is; where runs stood still, at the rate farthest from theirs."""
        reason = "drawn from all there is, as nothing has {} so far"
        if not any(run.finite for run in self.runs) or self._fixed("lr") or "lr" not in self.space:
            return Proposal("refine", MODEL_SLOT, reason.format(what_none_did(self.runs, "run")), drawn=True)
        rate = widest_gap(self.runs, self.space["lr"])  # None where all of a list have run
        values: dict[Role, float] = {} if rate is None else {"lr": rate}
        where = ", at the learning rate farthest from all tried" if values else ""
        return Proposal("refine", MODEL_SLOT, reason.format("learned") + where, values, drawn=True)

    def _has_ended(self, count: int) -> bool:
        """Whether so many have run whole."""
        return sum(run.state == "complete" and run.trained for run in self.runs) >= count

    def _far_away(self) -> list[Proposal]:
        """Return the best full run at the learning rate farthest from all tried, if it is the turn and one is far."""
        best, bounds = self._best_full(), self.space.get("lr")
        turn = len(self.runs) % FAR_TURN == 0 if self._has_ended(ENOUGH_TO_LEARN) else may_be_flat(self.told)
        if not turn or best is None or bounds is None or self._fixed("lr") or self._lacks(best, "lr"):
            return []
        rate = widest_gap(self.runs, bounds, at_least=WIDEST_LEFT)
        if rate is None or not self.slots.is_open(slot := far_slot(rate)):
            return []
        values = {**without_epochs(best), "lr": rate}
        reason = "the best full run at the learning rate farthest from all tried"
        return [Proposal("refine", slot, reason, values, like=best.number)]

    @property
    def _why_usual(self) -> str:
        """Why the ladder begins where it usually does although a range test named a rate, in words; else ""."""
        tested = None if "lr" in self.incumbent.values or self.choice is None else self.choice.max_lr
        if tested is None or self.choice is None or self.choice.confident:
            return ""
        return f", no higher than usual, as the range test is not sure of its {tested:.3g}"

    def _why(self, *, near: bool) -> str:
        """Return what the model's search is founded on, in words."""
        if any(math.isfinite(run.score) for run in self.runs):
            passed = passed_over(self._full, self._best_full())
            return f"model-based search {'near' if near else 'around'} the best full run{passed}"
        if any(run.finished for run in self.runs):
            return f"model-based search around the start, as no run has {what_none_did(self.runs, 'ended well')}"
        return "drawn, as no run has ended well yet"

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
        decays = self.space.get("weight_decay") if free[:1] == ("weight_decay",) else None
        near = bool(free) or learns
        box = box_around(around, best, self.runs, near=near, limits=self.space.get("lr"), decays=decays)
        like = best.number if best is not None else self.incumbent.like
        return Proposal(
            stage, slot, reason, around, like=like, box=box, free=free, learns=learns, any_length=any_length
        )

    def _moves_lengths(self) -> bool:
        """Whether the number of epochs is one more parameter of the model, as nothing speaks for the longest.

        Where a recipe has short cycles, they stand for full trainings. A training that reports its epochs says itself
        whether it was too long; until the best one does, a shorter one is the best, or the model has repeated a run,
        all run in full.
        """
        if self.recipe.short < 1 or "epochs" not in self.space or self._fixed("epochs"):
            return False
        full, best = self._best_full(), self._best_of_any_length()
        if full is None or best is not full:
            return best is not None
        ended = [run for run in self.runs if run.finished and run.trained]
        enough = len(ended) >= ENOUGH_FOR_LENGTHS and not is_readable(full)
        return overfits(full) or enough or has_repeated(ended)

    # ---- what is known ----------------------------------------------------------------------------------------

    def _levels(self) -> tuple[float, ...]:
        """Return the lengths of the stages' cycles in full trainings, rising, the last one 1."""
        shares = [self.recipe.short]
        while shares[-1] * 2 < 1:
            shares.append(shares[-1] * 2)
        shares.append(1.0)
        epochs = self.space.get("epochs")
        if epochs is None:
            return (1.0,) if self._is_known else tuple(dict.fromkeys(shares))
        lengths = dict.fromkeys(epochs.clip(max(1.0, round(share * epochs.high))) for share in shares)
        return tuple(length / epochs.high for length in lengths)

    @property
    def _is_known(self) -> bool:
        """Whether any run has shown what the study asks for."""
        return bool(self.space) or any(run.finished and run.has_shown for run in self.runs)

    def _length_of(self, run: Run) -> float:
        """Return the length of a run in full trainings; 1 where it, or the study by now, has no such parameter."""
        known = "epochs" in run.params and "epochs" in self.space
        return run.params["epochs"] / self.space["epochs"].high if known else 1.0

    def _fixed(self, role: Role) -> bool:
        """Whether there is nothing to choose: the study has no such parameter, or one value of it."""
        if role in self.space:
            return self.space[role].single
        return self._is_known

    def _best_before(self) -> Run | None:
        """Return the best run from before the ladder, which is built on it; None where the ladder is the beginning.

        That is another sampler's, but where some had no learning rate: then it is the best of those that had one, or of
        all if it is new, whoever proposed it; without any the first rung itself, which began beside them. None that
        another sampler has left behind most of those without one: then the model comes back to it if it pays.
        """
        if self._is_late:
            known = [run for run in self.before if not self._lacks(run, "lr")]
            known = known or [run for run in self.slots.of(f"{LADDER}0:1") if math.isfinite(run.score)]
            best = min(known, key=attrgetter("score"), default=None)
            return None if best is None or self._is_left_behind(best) else best
        own = min((run.number for run in self.runs if run.slot is not None), default=math.inf)
        others = (run for run in self.before if run.slot is None and run.number < own)
        return min(others, key=attrgetter("score"), default=None)

    def _is_left_behind(self, best: Run) -> bool:
        """Whether the best of another sampler's runs with a learning rate is worse than most of those without one."""
        without = [run.score for run in self.before if self._lacks(run, "lr")]
        adopted = any(run.slot is None and "lr" in run.params for run in self.before)
        return adopted and bool(without) and best.score > median(without)

    @cached_property
    def _is_late(self) -> bool:
        """Whether runs without a learning rate came before the ladder."""
        return not self._fixed("lr") and not all("lr" in run.params for run in self.before)

    @property
    def _has_no_ladder(self) -> bool:
        """Whether there is no learning rate to look for, or no run to look for it around: none that has one."""
        return self._fixed("lr") or (self._is_late and (self.known is None or self._lacks(self.known, "lr")))

    def _is_lacking(self, role: Role) -> bool:
        """Whether the run that a stage would build on has no such parameter, as only other networks have it."""
        best = self._best_full() if self.level >= 1 else None
        if best is not None:
            return self._lacks(best, role)
        known = self.incumbent.values
        return (bool(known) or self._is_late) and role not in known and not self._is_new(role)

    def _lacks(self, run: Run, role: Role) -> bool:
        return role not in run.params and not self._is_new(role)

    def _is_new(self, role: Role) -> bool:
        """Whether the objective has asked for a parameter ever since it first did: every network may have it.

        A whole number of many values would explain any learning rate; it seldom decides whether there is one.
        """
        ended = [run for run in self.runs if math.isfinite(run.score)]
        values = [(name, x) for run in ended for name, x in run.others.items() if not isinstance(x, float)]
        words = dict.fromkeys(name for name, x in values if role != "lr" or type(x) is not int)
        shown = [{str(n): repr(x) for n, x in (*run.params.items(), *run.others.items())} for run in ended]
        return role in added(shown, list(words))

    def _stuck(self, role: Role, finished: Sequence[Run]) -> bool:
        """Whether somebody else sets the role: different candidates ran with one value."""
        slots = {run.slot for run in finished}
        values = {run.params.get(role) for run in finished}
        present = self.incumbent.values.get(role) if role != "lr" else None
        return (len(slots) > 1 and len(values) == 1) or (bool(slots) and values == {present})

    def _settle(self, run: Run, loss: float | None) -> None:
        values = {**self.incumbent.values, **without_epochs(run)}
        self.incumbent = Incumbent(values, loss, run.number)

    def _best_full(self, before: float = math.inf) -> Run | None:
        full = self._full if before == math.inf else self._full_before(before)
        return min(full, key=attrgetter("score"), default=None)

    @cached_property
    def _full(self) -> Sequence[Run]:
        return self._full_before(math.inf)

    def _full_before(self, number: float) -> Sequence[Run]:
        return self._that_may_be_best([run for run in self.runs if self._length_of(run) == 1 and run.number < number])

    def _best_of_any_length(self) -> Run | None:
        return min(self._that_may_be_best(self.runs), key=attrgetter("score"), default=None)

    def _that_may_be_best(self, runs: Sequence[Run]) -> Sequence[Run]:
        runs = [run for run in runs if math.isfinite(run.score) and not run.restarted]
        return all_within(runs, self.limits) or runs
