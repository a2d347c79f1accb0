"""The stages of the recipe: each reads the runs of its slots and says what is open; their state is never stored."""

import math
from dataclasses import replace
from typing import Literal

from optuna_discipline.rules.candidates import weight_decay_candidates
from optuna_discipline.rules.ladder import Ladder
from optuna_discipline.rules.line_search import Axis
from optuna_discipline.rules.line_search import best_point
from optuna_discipline.rules.line_search import open_points
from optuna_discipline.rules.line_search import point_key
from optuna_discipline.rules.lr_choice import USUAL_LR
from optuna_discipline.rules.lr_choice import LrChoice
from optuna_discipline.rules.run import LADDER
from optuna_discipline.rules.run import MODEL_SLOT
from optuna_discipline.rules.run import Proposal
from optuna_discipline.rules.run import Run
from optuna_discipline.rules.run import Stage
from optuna_discipline.rules.run import start_lr
from optuna_discipline.rules.rungs import ladder_axis
from optuna_discipline.rules.rungs import named_usual_lr
from optuna_discipline.rules.rungs import run_elsewhere
from optuna_discipline.rules.search_state import SearchState
from optuna_discipline.rules.slots import SMALLEST_NOISE
from optuna_discipline.rules.slots import example_of
from optuna_discipline.rules.slots import is_running
from optuna_discipline.rules.slots import loss_of
from optuna_discipline.rules.slots import losses_of
from optuna_discipline.rules.slots import without_epochs
from optuna_discipline.rules.space import MOST_COUPLED
from optuna_discipline.rules.space import Role
from optuna_discipline.rules.space import default_of

ComparedRole = Literal["momentum", "weight_decay", "batch_size"]
# A larger batch takes a larger learning rate at as many epochs: on 8 small nets of batch 16 to 256 the best one grew as
# batch ** 0.55 (0 to 1), and the square root lost least: 19 % of the loss at a factor of 4, against 44 % unchanged,
# 37 % linear, 26 % by a range test. The model, which moves the rate as well, expects more (`coordinates`).
LR_OF_A_COMPARED_BATCH = 0.5
# The batch size has a run of its own after so many: of 50 that followed the weight decay's at once 4 won.
ENOUGH_FOR_BATCHES = 12


class Search(SearchState):
    """The stages in turn; what they settle is the incumbent of the next."""

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
        return self._refit_lr() or self._far_away()

    def _lr(self) -> list[Proposal]:
        if self._has_no_ladder:
            return []
        for rank, level in enumerate(self.levels):
            self.level = level
            options = self._lr_at(rank, level)
            if options or self._learned:
                break
        return options

    def _lr_at(self, rank: int, level: float) -> list[Proposal]:
        start, tested = self._start_of_ladder()
        axis = ladder_axis(start or 1.0, self.space.get("lr"), tested)
        slots, longest = self.slots.points(f"{LADDER}{rank}"), level == self.levels[-1]
        if (best := self.known) and start and best.params.get("lr") == start and self._length_of(best) == level:
            slots = {1.0: [best], **slots}  # it has run already
        if start and (others := run_elsewhere(slots, self.runs, start, self.limits)):
            slots = {**slots, **others}
            axis = replace(axis, max_points=axis.max_points + len(others))
        ladder = Ladder(axis, slots, longest, self._usual_lr() / start if start else 0.0, self.sign, self._why_usual)
        self._learned = ladder.learned
        wanted = [] if self._stuck("lr", ladder.finished) else ladder.wanted()
        todo = ladder.open(wanted)
        if todo:
            return [self._rung(ladder, x, rank) for x in todo]
        if wanted or ladder.running:
            return [self._meanwhile("lr")]
        if ladder.best is not None:
            loss = ladder.results[ladder.best]
            self._settle(example_of(slots[ladder.best]), loss if math.isfinite(loss) else None)
        return []

    def _usual_lr(self) -> float:
        """Return where the optimizer trains that a run of the ladder names, or SGD, if a momentum says that; else 0."""
        named = named_usual_lr([*(run for _, run in self._rungs()), *filter(None, [self.known])])
        return named or USUAL_LR["SGD"] * ("momentum" in self.space and not self.recipe.cyclical_momentum)

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
        runs = [(x != 1, run.number, run.params["lr"] / x) for x, run in self._rungs() if "lr" in run.params]
        return min(runs)[2] if runs else None

    def _first_to_train(self) -> dict[Role, float]:
        """Return what the first rung that trained was given: not the defaults, where those did not fit into memory."""
        first = min((run for _, run in self._rungs() if run.trained), key=lambda run: run.number, default=None)
        return {} if first is None else without_epochs(first)

    def _rungs(self) -> list[tuple[float, Run]]:
        """Return the ladder's runs of all lengths, each with its multiple of the start."""
        points = [self.slots.points(f"{LADDER}{rank}") for rank in range(len(self.levels))]
        return [(x, run) for of_rank in points for x, runs in of_rank.items() for run in runs]

    def _rung(self, ladder: Ladder, x: float, rank: int) -> Proposal:
        known = self.incumbent.values
        values = dict(known or self._first_to_train())
        start = self._start_of_ladder()[0] if "lr" in known else self._first_lr()
        if start:
            values["lr"] = start * x
        reason = ladder.reason(x)
        if rank:
            reason += f"; cycles of {self.level:.3g} training, as nothing had learned in shorter ones"
        if self.known is not None:  # another sampler's, or drawn, as nothing had learned
            where, begins = f"trial {self.known.number}", ladder.best is None and x == 1
            reason += f": as {where}, the best so far" if begins else f"; the start is {where}"
        slot, like = f"{LADDER}{rank}:{x:g}", self.incumbent.like
        return Proposal("lr", slot, reason, values, lr_multiple=x, fidelity=self.level, like=like)

    def _confirm(self, index: int) -> list[Proposal]:
        known = any(values == self.incumbent.values for values, _ in self.confirmed)
        if self.level >= 1 or self.incumbent.like is None or known:
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
        slot = "replicate:1"
        same = [run for run in self.slots.of(slot) if without_epochs(run) == self.incumbent.values]
        runs = [run for run in same if math.isfinite(run.score)]
        if not runs and self.slots.is_open(slot):
            reason, best = "the best configuration once more, to measure the noise", self.incumbent
            return [Proposal("replicate", slot, reason, best.values, fidelity=self.level, like=best.like)]
        if not runs and is_running(self.slots.of(slot)):
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
        if self._fixed(role) or self._is_lacking(role):
            return []
        restarted = role == "weight_decay" and self.recipe.weight_decay_search == "snapshot"
        if self.level >= 1 and not restarted:
            return self._look(role)
        if self.level >= 1:
            self._settle_best_before(role)
        axis = self._axis(role)
        if axis is None:
            return []
        default = axis.candidates[0]
        slots = self.slots.points(role)
        results = losses_of(slots)
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
        if any(run.finished and role not in run.params for run in self.slots.of(slot)):
            slot = f"{role}:again:{MODEL_SLOT}"  # the model went to another network, which nobody knew to have none
        if is_running(self.slots.of(slot)):
            return [self._meanwhile(role)]
        if not self.slots.is_open(slot) or (role == "batch_size" and not self._has_ended(ENOUGH_FOR_BATCHES)):
            return []
        rateless = "lr" not in self.space or self._is_lacking("lr")
        suited = "" if rateless else ", with a learning rate that suits it"
        free: tuple[Role, ...] = (role,) if rateless or self._fixed("lr") else (role, "lr")
        return [self._by_model(role, slot, f"the model's choice of {role.replace('_', ' ')}{suited}", free)]

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
        wanted: tuple[float, ...] = (now * 2, now / 2)
        axis = Axis((), bounds.low, bounds.high, factor=2.0, max_points=6)
        if role == "momentum":
            wanted = tuple(m for m in self.recipe.momenta if bounds.low <= m <= bounds.high)
            axis = Axis((), bounds.low, bounds.high)
        elif role == "weight_decay":
            optimizer = "adamw" if bounds.high > MOST_COUPLED else "sgd"
            wanted = weight_decay_candidates(complexity=self.recipe.complexity, optimizer=optimizer)
            axis = Axis((), bounds.low, bounds.high, factor=10.0, bisect=True, max_points=7, figures=1)
        candidates = dict.fromkeys(point_key(bounds.clip(x)) for x in (now, *wanted))
        return replace(axis, candidates=tuple(candidates)) if len(candidates) > 1 else None

    def _comparison(self, role: ComparedRole, x: float, default: float) -> Proposal:
        values = {**self.incumbent.values, role: x}
        lr, momentum = values.get("lr"), self.incumbent.values.get("momentum")
        note = ""
        coupled = role == "momentum" and not self.recipe.cyclical_momentum
        if coupled and lr is not None and momentum is not None and momentum < 1:
            values["lr"] = lr * (1 - x) / (1 - momentum)
            note = " at the same lr / (1 - momentum)"
        if role == "batch_size" and lr is not None:
            values["lr"] = lr * (x / default) ** LR_OF_A_COMPARED_BATCH
            note = " with the learning rate scaled by its square root"
        reason = f"{role.replace('_', ' ')} {x:.15g} against {default:.15g}{note}"
        like = self.incumbent.like
        return Proposal(role, f"{role}:{x:.15g}", reason, values, fidelity=self.level, like=like)

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

    def _meanwhile(self, stage: Stage) -> Proposal:
        """Return what a worker does while others finish a stage: never a stage that builds on it."""
        return replace(self.model_meanwhile(f"while others finish the stage {stage}"), waits_for=stage)

    def _best_of_confirmed(self) -> Run | None:
        runs = [run for _, slot in self.confirmed for run in self.slots.of(slot) if math.isfinite(run.score)]
        return min(runs, key=lambda run: run.score, default=None)
