"""The slots of a study: which candidate of which stage has run, how often, and what came of it."""

import math
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import replace
from statistics import median

import numpy as np

from optuna_discipline.rules.divergence import has_learned
from optuna_discipline.rules.run import MODEL_SLOT
from optuna_discipline.rules.run import Run
from optuna_discipline.rules.space import Role

MAX_FAILURES = 2
# At equal time instead of equal epochs the loss of batch 16 over that of 64 rose by this power of an epoch's time: the
# median of 8 networks, -.02 to 1.05 (benchmarks/README.md, batch size).
LOSS_OVER_TIME = 0.25
# Two runs are never told apart below this share of the loss, however quiet the replicate was.
SMALLEST_NOISE = 0.01
SHORTEST_TIMED_RUN = 1.0
# Shorter runs are not compared at equal time: on a busy machine those of about a second decided otherwise each time.
SHORTEST_COMPARED_RUN = 10.0
# Shares of wrong answers this large are those of networks that guess, and differ by luck: by 1.7 to 4 % of themselves
# from three runs on 1,000 to 200 samples of 10 classes.
GUESSING, LUCK = 0.4, 0.05

# Samples; what a share in single precision, times those, may be off; so many numbers tell.
MOST_COUNTED, ROUNDED, MOST_READ = 10_000, 1e-3, 16
ALMOST_NONE = 2e-7  # what single precision leaves of 1 - 1, if others are far larger


class Slots:
    """The runs of a study by slot.

    Args:
        runs: Every run, by number.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        self._runs: dict[str, list[Run]] = {}
        for run in runs:
            if run.slot is not None:
                self._runs.setdefault(run.slot, []).append(run)

    def of(self, slot: str) -> list[Run]:
        """Return the runs of one slot."""
        return self._runs.get(slot, [])

    def points(self, name: str) -> dict[float, list[Run]]:
        """Return the runs of the slots `name:x`, by x."""
        found = {}
        for slot, runs in self._runs.items():
            head, _, tail = slot.partition(":")
            if head == name and (x := _number(tail)) is not None:
                found[x] = runs
        return found

    def is_open(self, slot: str) -> bool:
        """Whether nobody runs or has run a slot to its end."""
        return not is_running(self.of(slot)) and loss_of(self.of(slot)) is None


def is_running(runs: Sequence[Run]) -> bool:
    """Whether any of the runs is under way."""
    return any(run.state == "running" for run in runs)


def loss_of(runs: Sequence[Run]) -> float | None:
    """Return what a slot is worth: the mean of its finished runs; inf after too many failures; None if open."""
    scores = [run.score for run in runs if run.finished]
    if scores:
        return sum(scores) / len(scores)
    return math.inf if sum(run.state == "failed" for run in runs) >= MAX_FAILURES else None


def losses_of(slots: Mapping[float, Sequence[Run]]) -> dict[float, float]:
    """Return what the slots of one number are worth, those that are not open."""
    return {x: loss for x, runs in slots.items() if (loss := loss_of(runs)) is not None}


def any_learned(finished: Sequence[Run], results: Mapping[float, float]) -> bool:
    """Whether a fidelity carries a signal: some run has left the loss that it started from."""
    answers = [has_learned(run.curve) for run in finished if run.curve is not None and math.isfinite(run.score)]
    if any(answers):
        return True
    if any(answer is False for answer in answers):
        return False
    losses = [loss for loss in results.values() if math.isfinite(loss)]
    return len(losses) < 3 or not hardly_differ(losses)


def what_is_missing(losses: Sequence[float]) -> Sequence[float]:
    """Return what losses are compared by: they themselves, or of maximised shares, turned, what is missing to 1.

    Percentages are shares. Other numbers down to -100, such as returns and log-likelihoods, are hardly ever all counts.

    >>> [[round(x, 6) for x in what_is_missing(of)] for of in ([-0.9, -0.8], [-90.0, -80.0], [-9.1357, -8.3571, -7.91])]
    [[0.1, 0.2], [0.1, 0.2], [-9.1357, -8.3571, -7.91]]
    """
    if max(losses) <= 0 and min(losses) >= -1:
        return [1 + loss for loss in losses]
    shares = [loss / 100 for loss in losses]
    return [1 + share for share in shares] if max(losses) <= 0 and samples_counted(shares) else losses


def samples_counted(numbers: Sequence[float]) -> int:
    """Return the least n of which all of these are whole multiples of 1 / n, 0 where there is none.

    What is not 0, but for rounding, is one sample at least: small losses are no share of few.

    >>> samples_counted((0.25, 1 / 3, 0.5)), samples_counted((0.253, 0.332, 0.50001)), samples_counted((0.02, 1e-16))
    (12, 0, 50)
    """
    if not max(map(abs, numbers)) <= 1:
        return 0
    samples, none = np.arange(1, MOST_COUNTED + 1), min(ALMOST_NONE, 1e-3 * max(map(abs, numbers)))
    for number in numbers[:MOST_READ]:
        counts = abs(number) * samples
        whole = np.maximum(np.round(counts), abs(number) > none)
        samples = samples[np.abs(counts - whole) <= ROUNDED]
    return int(samples[0]) if len(samples) else 0


def hardly_differ(losses: Sequence[float]) -> bool:
    """Whether losses are no farther apart than noise; an accuracy, turned, counts by what is missing to 1.

    >>> hardly_differ([2.31, 2.30]), hardly_differ([0.50, 0.45]), hardly_differ([-0.103, -0.103, -0.088])
    (True, False, True)
    """
    missing = what_is_missing(losses)
    guesses = min(missing) >= GUESSING and max(missing) <= 1
    most = LUCK if guesses else SMALLEST_NOISE
    return max(missing) - min(missing) <= most * max(abs(x) for x in missing)


def seconds_per_epoch(run: Run) -> float | None:
    """Return the pace of a run, None for one too short to be timed."""
    if run.seconds is None or run.seconds < SHORTEST_COMPARED_RUN:
        return None
    epochs = len(run.curve) if run.curve is not None else len(run.reports) or run.params.get("epochs", 1.0)
    return run.seconds / max(1.0, epochs)


def at_equal_time(runs: Sequence[Run]) -> list[Run]:
    """Return the runs, those whose batch size makes an epoch longer with a handicap.

    Batch sizes are compared at equal time (Smith 2018, section 4.1): a smaller one whose epochs take r times as long as
    those of the first one would have had fewer of them, so its loss (of a maximised share what is missing to 1, of what
    has no zero the distance of the median from the best) counts times the fourth root of r. Powers of two and their
    halves stand for r, at most the ratio of the batch sizes, and the middle run of a size for all of it: the clock's
    noise, a run that compiles first and other programs decide little. Only networks of the same other parameters are
    compared, as a width takes its time too.
    """
    longer = _longer_epochs(runs)
    if not longer or not (losses := [x for run in runs if (x := run.loss) is not None and math.isfinite(x)]):
        return list(runs)
    best, spread = min(losses), median(losses) - min(losses)

    def missing(loss: float) -> float:
        return loss if best >= 0 else 1 + loss if best >= -1 else spread

    return [
        replace(run, handicap=(longer[run.number] ** LOSS_OVER_TIME - 1) * max(0.0, missing(run.loss)))
        if run.number in longer and run.loss is not None and math.isfinite(run.loss)
        else run
        for run in runs
    ]


def passed_over(runs: Sequence[Run], best: Run | None) -> str:
    """Return which of the runs that may be the best has a lower loss than it but for its handicap, in words."""
    if best is None or best.loss is None:
        return ""
    lower = [(run.loss, run.number) for run in runs if run.handicap and run.loss is not None and run.loss < best.loss]
    return f" at equal time, as trial {min(lower)[1]}, though better, has longer epochs" if lower else ""


def _longer_epochs(runs: Sequence[Run]) -> dict[int, float]:
    """Return how many times as long as with the first batch size an epoch of a smaller one takes, by run."""
    complete = [run for run in runs if run.state == "complete" and "batch_size" in run.params]
    timed = [(run, pace) for run in complete if (pace := seconds_per_epoch(run)) is not None]
    alike: dict[str, list[tuple[Run, float]]] = {}
    for run, pace in timed:
        alike.setdefault(repr(sorted(run.others.items(), key=lambda item: item[0])), []).append((run, pace))
    longer: dict[int, float] = {}
    for group in alike.values():
        first = group[0][0].params["batch_size"]
        sizes = {run.number: run.params["batch_size"] for run, _ in group}
        usual = {size: median(pace for run, pace in group if sizes[run.number] == size) for size in set(sizes.values())}
        ratios = {size: min(usual[size] / usual[first], first / size) for size in usual if 0 < size < first}
        octaves = {size: round(2 * math.log2(ratio)) / 2 for size, ratio in ratios.items()}
        longer |= {number: 2.0 ** octaves[size] for number, size in sizes.items() if octaves.get(size, 0) > 0}
    return longer


def has_repeated(runs: Sequence[Run]) -> bool:
    """Whether the model has run again what had run before, as it does where nothing else is left."""
    before: dict[frozenset[tuple[Role, float]], list[Mapping[str, object]]] = {}
    for run in runs:
        alike = before.setdefault(frozenset(run.params.items()), [])
        if run.slot == MODEL_SLOT and run.others in alike:
            return True
        alike.append(run.others)
    return False


def without_epochs(run: Run) -> dict[Role, float]:
    """Return what a run was given, but for its length."""
    return {role: value for role, value in run.params.items() if role != "epochs"}


def example_of(runs: Sequence[Run]) -> Run:
    """Return the best of several runs, the first of equals."""
    return min(runs, key=lambda run: (run.score, run.number))


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:  # a slot that this version did not write
        return None
