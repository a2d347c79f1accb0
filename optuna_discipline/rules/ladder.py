"""The learning-rate ladder: what its rungs have shown, and which rung is wanted next."""

import math
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from optuna_discipline.rules.failures import what_none_did
from optuna_discipline.rules.line_search import Axis
from optuna_discipline.rules.line_search import best_point
from optuna_discipline.rules.line_search import open_points
from optuna_discipline.rules.line_search import outer_points
from optuna_discipline.rules.line_search import point_key
from optuna_discipline.rules.lr_lean import LrReading
from optuna_discipline.rules.lr_lean import climbed_by_noise
from optuna_discipline.rules.lr_lean import fell
from optuna_discipline.rules.lr_lean import is_error
from optuna_discipline.rules.lr_lean import is_readable
from optuna_discipline.rules.lr_lean import read_lr
from optuna_discipline.rules.lr_lean import samples_of
from optuna_discipline.rules.lr_words import VERDICTS
from optuna_discipline.rules.lr_words import describe_curve
from optuna_discipline.rules.lr_words import why_elsewhere
from optuna_discipline.rules.run import Run
from optuna_discipline.rules.slots import any_learned
from optuna_discipline.rules.slots import example_of
from optuna_discipline.rules.slots import hardly_differ
from optuna_discipline.rules.slots import is_running
from optuna_discipline.rules.slots import losses_of

# Where no curve says on which side a better rate lies. On surrogates one step gave .077 and .044 after five trainings
# by seven and four parameters, a decided ladder .098 and .053, no step .091 and .053; on tables .145, .162 and .138.
ENOUGH_FOR_THE_MODEL = 2
FAR_TOO_HIGH = LrReading("down", far=True)
ENOUGH_FOR_A_PLATEAU, MOST_ON_A_PLATEAU, MOST_WHERE_LONGER_ONES_FOLLOW = 3, 7, 5
# Losses no farther apart than this share of themselves, at rates that differ by 9, are not the rate's doing.
HARDLY_APART = 0.05


@dataclass(frozen=True)
class Ladder:
    """The rungs of one length.

    Attributes:
        axis: The learning rate in multiples of the ladder's first.
        slots: The runs of each rung.
        longest: Whether these are full trainings: then there are no longer ones to turn to when nothing learns, and the
            model goes on from here, so a ladder whose best curve does not say where to go ends after one step.
        usual: Where the study's optimizer usually trains, in multiples of the ladder's first, if that is known: a rate
            far too low is left for it, or by two steps, whichever is more, and a run that stands still a step or more
            above it was too high, not too low.
        sign: What turns a loss into the study's own value, for words: -1 where that is maximised.
        begins: Why it begins where it does, where that is not a range test's, in words.
    """

    axis: Axis
    slots: Mapping[float, Sequence[Run]]
    longest: bool = True
    usual: float = 0.0
    sign: float = 1.0
    begins: str = ""

    @cached_property
    def results(self) -> Mapping[float, float]:
        """The loss of each finished rung; inf for one that diverged."""
        return losses_of(self.slots)

    @cached_property
    def said(self) -> Mapping[float, LrReading]:
        """What the curves of the finished rungs say."""
        return {x: said for x, runs in self.slots.items() if (said := self._read(x, example_of(runs))) is not None}

    def _read(self, x: float, run: Run) -> LrReading | None:
        said = read_lr(run)
        dead = self._is_above_usual(x) and said == LrReading("up", far=True) and not fell(run)
        return FAR_TOO_HIGH if dead else said

    def _is_above_usual(self, x: float) -> bool:
        return 0 < self.usual * self.axis.factor <= x

    @cached_property
    def readings(self) -> Mapping[float, LrReading]:
        """What is left of that: nothing of a side, where a rung on that side was clearly worse."""
        return {x: LrReading(None) if self._is_refuted(x, reading) else reading for x, reading in self.said.items()}

    def _is_refuted(self, x: float, reading: LrReading) -> bool:
        others = {y / x: loss for y, loss in self.results.items() if y >= x or not self._broke(y)}
        samples = samples_of(example_of(self.slots[x]), *self.finished)
        return reading.is_refuted_by(others, self.results[x], samples)

    def _broke(self, x: float) -> bool:
        """Whether a rung has learned nothing, as its rate was far too high: then its loss ranks nothing."""
        return not math.isfinite(self.results[x]) or self.said.get(x) == FAR_TOO_HIGH

    @property
    def steps(self) -> Mapping[float, Sequence[float]]:
        """The steps to take from the rungs whose curves say something, or where none can; the most wanted first."""
        found = {x: self._steps_from(x, reading) for x, reading in self.readings.items()}
        if not (self.longest and self.silent and math.isfinite(self.results.get(self.first, math.inf))):
            return found
        # To a third first, as a rate too high costs more than one too low; if that is worse, three times the start; on
        # while the outermost is the best. Replayed on 42 networks from their usual rates, the regret after 2, 3, 4
        # trainings: .015 .006 .005; with one step, to twice, .061 .060 .060.
        steps = (1 / self.axis.factor, self.axis.factor)
        return {self.first: steps[::-1] if self.usual > self.axis.factor else steps}

    @property
    def first(self) -> float:
        """The rung that the ladder begins at."""
        return point_key(self.axis.candidates[0])

    @cached_property
    def silent(self) -> bool:
        """Whether nothing was reported that could say where a better rate lies."""
        return not any(is_readable(run) for run in self.finished)

    @property
    def finished(self) -> list[Run]:
        """The runs that have ended."""
        return [run for runs in self.slots.values() for run in runs if run.finished]

    @property
    def running(self) -> bool:
        """Whether a rung is under way."""
        return any(is_running(runs) for runs in self.slots.values())

    @property
    def learned(self) -> bool:
        """Whether runs of this length carry a signal."""
        return any_learned(self.finished, self.results)

    @cached_property
    def best(self) -> float | None:
        """The rung that all else is decided and said from; None before the first has ended."""
        return best_point(self.axis, self.results) if self.results else None

    def wanted(self) -> list[float]:
        """Return the rungs that must run, or run to their end, before the ladder is decided."""
        if self._far_below or self._below_what_broke:
            return self._far_below or self._below_what_broke
        if self._not_of_the_rate() and (above := self._rung(min(self.axis.factor, self.axis.high), above=1.0)):
            return above
        points = open_points(self.axis, self.results, steps=self.steps)
        if self.longest and self._left_to_the_model():
            return self._between()
        most = MOST_ON_A_PLATEAU if self.longest else MOST_WHERE_LONGER_ONES_FOLLOW
        if not self.learned and ENOUGH_FOR_A_PLATEAU <= len(self.results) < most:
            return self._on_a_plateau(points)
        return points

    def _on_a_plateau(self, points: list[float]) -> list[float]:
        """Return the wanted ones of some points: no plateau has a better side, a middle, or room above a rate too high.

        Where all were too high, the next stages move what is wrong.
        """
        too_high = [x for x, said in self.said.items() if said.lean == "down"]
        if ENOUGH_FOR_A_PLATEAU < len(self.results) == len(too_high):
            return []
        lowest, highest, top = min(self.results), max(self.results), min(too_high, default=math.inf)
        outer = [x for x in outer_points(self.axis, self.results, 3) if not lowest < x < highest]
        outer = [self._far_under(lowest) or x if x < lowest else x for x in outer]
        beyond = [x for x in points if not lowest < x < highest]
        return next(filter(None, ([x for x in of if x < top] for of in (beyond, outer[:2], points))), [])

    @cached_property
    def _far_below(self) -> list[float]:
        """The rungs under way where the best one says that a better one is, far below: nothing nearer is tried yet."""
        best = self.best
        if best is None or self.readings.get(best) != FAR_TOO_HIGH:
            return []
        far = self._far_under(best) or 0.0
        lower = (x for x in self.slots if x <= far and x not in self.results)
        return [x for x in lower if is_running(self.slots[x])]

    @cached_property
    def _below_what_broke(self) -> list[float]:
        """The rung far below all, where the lowest one broke like the best: they end at chance, or anywhere."""
        best = self.best
        if not self.longest or best is None or self.said.get(best) != FAR_TOO_HIGH or self._not_of_the_rate():
            return []
        lowest = min(self.results)
        if lowest == best or not self._broke(lowest):
            return []
        below = self._far_under(lowest)
        return [] if below is None else [below]

    def _rung(self, at: float, *, above: float = 0.0, below: float = math.inf) -> list[float]:
        """Return the rung nearest to a point within bounds, if there is one."""
        point = self.axis.nearest(at, above=above, below=below)
        return [] if point is None or not above < point < below else [point_key(point)]

    def _far_under(self, x: float) -> float | None:
        """Return the rung two steps below one, or the lowest there is; None where that is the lowest."""
        below = self._rung(max(x / self.axis.factor**2, self.axis.low), below=x)
        return below[0] if below and below[0] < x else None

    def _left_to_the_model(self) -> bool:
        """Whether the best rung has trained, clearly unlike another, and leans to no side, nor only rose."""
        losses = [loss for loss in self.results.values() if math.isfinite(loss)]
        best = self.best
        if best is None or len(self.results) < ENOUGH_FOR_THE_MODEL or not losses or not self.learned:
            return False
        alike = len(losses) > 1 and hardly_differ(losses)
        said = self.readings.get(best)
        return not alike and (said is None or (said.lean is None and not said.far)) and not self._goes_on(best)

    def _between(self) -> list[float]:
        """Return the rung half-way from the best to one that broke far above it: nobody knows what lies there."""
        best = self.best or 0.0
        above = min((x for x in self.results if x > best), default=0.0)
        told = any(run.finished and run.allowed for run in self.slots.get(above, []))  # an error says nothing of a rate
        if not 0 < best * self.axis.factor**1.5 < above or not (told and self._broke(above)):
            return []
        return self._rung(math.sqrt(best * above), above=best, below=above)

    def _goes_on(self, best: float) -> bool:
        """Whether the losses leave a side open: above the first rung, where only a lower, worse one was tried.

        Where nothing is reported, beyond the outermost rung, too, if that is the best. A curve that leans to no side
        closes the one above, unless it is an error that jumped, or climbed within its noise only.
        """
        if best == self.first:
            run = example_of(self.slots[best])
            jumped = self.readings.get(best) == LrReading(None) and (is_error(run) or climbed_by_noise(run))
            return (self.silent or jumped) and best == max(self.results)
        return self.silent and best in (min(self.results), max(self.results))

    def _not_of_the_rate(self) -> bool:
        """Whether no rung has learned, far lower ones as little as the first, and no higher one was tried.

        Then a climb says nothing against the rate: the network learns by heart at any, or needs a larger one.
        """
        losses = [loss for loss in self.results.values() if math.isfinite(loss)]
        if not self.longest or len(losses) < 2 or max(self.results) > 1:
            return False
        unlearned = all(x in self.said and self.said[x].far for x in self.results)
        return unlearned and max(losses) - min(losses) <= HARDLY_APART * max(abs(x) for x in losses)

    def open(self, wanted: Sequence[float]) -> list[float]:
        """Return the wanted rungs that nobody runs; where all run, the next outer ones, for who has nothing to do.

        Not those above a rate that was far too high, and only a lower one while the rung far below that is under way.
        """
        todo = self._idle(wanted)
        if not todo and self.running:
            outer = self._lower() if self._far_below else outer_points(self.axis, self.results, 1)
            too_high = min((x for x, said in self.said.items() if said == FAR_TOO_HIGH), default=math.inf)
            todo = self._idle([x for x in outer if x < too_high and not min(self.slots) < x < max(self.slots)])
        return todo

    def _lower(self) -> list[float]:
        """Return the rung a step below the one under way far below the best, if it has not run."""
        highest = max(self._far_below)
        found = self._rung(highest / self.axis.factor, below=highest)
        return [x for x in found if x >= self.axis.low and x not in self.results]

    def reason(self, x: float) -> str:
        """Return why a rung is run, in words."""
        best, rung = self.best, f"learning-rate ladder: {x:.3g} x the start"
        if best is None:
            start = f"learning-rate ladder: where to start{self.begins}"
            return start if x == 1 else f"{rung}; nothing has ended so far"
        if not math.isfinite(self.results[best]):
            return f"{rung}; nothing has {what_none_did(self.finished, 'ended well')} so far"
        value = self.sign * (self.results[best] - example_of(self.slots[best]).handicap)
        reason = f"{rung}; best so far {best:.3g} x with {value:.4g}"
        if x > 1 and self._not_of_the_rate():
            return f"{reason}; lower ones learn as little as the start, so a larger one"
        return reason + self._why_there(x, best)

    def _why_there(self, x: float, best: float) -> str:
        """Return in words what the best rung's curve says for another rung, or why that is run even so."""
        if self.silent:
            return ", which reported nothing that says where to go"
        run, said, reading = example_of(self.slots[best]), self.said.get(best), self.readings.get(best)
        if said == reading == LrReading(None):
            return ", which leans to no side" + "; lower was no better" * (x > best > min(self.results))
        if reading is None or reading.lean is None or (x < best) != (reading.lean == "down"):
            if not self.learned:
                return "; none is clearly better" if any(map(fell, self.finished)) else "; nothing has learned so far"
            sides = {y > best for y, runs in self.slots.items() if is_running(runs)}
            return why_elsewhere(run, said, refuted=said != reading, running=sides, sign=self.sign)
        usual = ", far above the usual rate" * (reading == FAR_TOO_HIGH and self._is_above_usual(best))
        shown = f", which {describe_curve(run, reading, sign=self.sign)}{usual}"
        if reading.far and reading.lean == "up" and (above := [y for y in self.results if y > best]):
            return f"{shown}; {min(above):.3g} x was no better, so one between them"
        return f"{shown}: {VERDICTS[reading.lean, reading.far]}"

    def _steps_from(self, x: float, reading: LrReading) -> Sequence[float]:
        up = self.axis.first_step_up if x == self.first else self.axis.factor
        if reading.lean is None:
            return (1 / up, up)
        if reading.lean == "up":
            return (max(self.axis.factor**2, self.usual / x) if reading.far else up,)
        return (1 / self.axis.factor**2 if reading.far else 1 / self.axis.factor,)

    def _idle(self, points: Sequence[float]) -> list[float]:
        return [x for x in points if not is_running(self.slots.get(x, []))]
