"""The 1cycle and the triangular policy as closed forms of the optimizer step (Smith 2018, sections 4.1 and 4.2)."""

import math
from dataclasses import dataclass
from typing import Literal

from optuna_discipline.rules.arguments import is_count
from optuna_discipline.rules.arguments import is_number
from optuna_discipline.rules.arguments import to_float
from optuna_discipline.rules.arguments import to_int

Tail = Literal["author", "paper"]
Anneal = Literal["linear", "cos"]
BASE_MOMENTUM = 0.85


@dataclass(frozen=True)
class OneCycle:
    """One cycle of learning rate and momentum, then a tail far below: two pure functions of the step.

    The learning rate rises from `base_lr = max_lr / div_factor` to `max_lr` over `step_size` steps and falls again
    over as many; the momentum mirrors it and is held at `max_momentum` in the tail. Two versions of the fall:

    * `tail="author"`: down towards zero, floored at `base_lr / final_div_factor`, which is also the tail. So ran the
      author's 13 published 1cycle trainings (reproduced to 4.3e-5 relative).
    * `tail="paper"`: down to `base_lr`, then in the tail on to `base_lr / final_div_factor`, as his text says.

    Nothing is stored between calls: a resumed run asks for the step it is at, and no step is out of turn. A loop of
    your own sets both before update `step`: `group["lr"], group["momentum"] = cycle.lr(step), cycle.momentum(step)`.
    So does a scheduler of torch with the rate, which it asks for once more after the last update:
    `LambdaLR(optimizer, lambda step: cycle.lr(step) / cycle.max_lr)`, for an optimizer made with `lr=cycle.max_lr`.

    Attributes:
        max_lr: Largest learning rate, above 0.
        total_steps: Optimizer updates of the whole run, at least 1.
        div_factor: `max_lr / base_lr`, above 1.
        final_div_factor: `base_lr / final_lr`, at least 1.
        step_size: Steps of half a cycle; None is `0.45 * total_steps` (the author's runs: 0.37 to 0.48).
        max_momentum: Momentum at both ends of the cycle and in the tail, in [0, 1).
        base_momentum: Momentum at `max_lr`, in [0, max_momentum]; equal to `max_momentum` it stays constant. None is
            0.85, or `max_momentum` where that is lower.
        tail: "author" or "paper", see above.
        anneal: Shape of the rise and fall, "linear" (the paper) or "cos" (fastai).

    Raises:
        ValueError: If an argument breaks its rule, or a step lies outside [0, total_steps]: that one is the end.

    >>> cycle = OneCycle(max_lr=1.0, total_steps=100)
    >>> [round(cycle.lr(step), 4) for step in (0, 45, 89, 99)]
    [0.1, 1.0, 0.0222, 0.0001]
    >>> [round(cycle.momentum(step), 3) for step in (0, 45, 90, 99)]
    [0.95, 0.85, 0.95, 0.95]
    """

    max_lr: float
    total_steps: int
    div_factor: float = 10.0
    final_div_factor: float = 1e3
    step_size: float | None = None
    max_momentum: float = 0.95
    base_momentum: float | None = None
    tail: Tail = "author"
    anneal: Anneal = "linear"

    def __post_init__(self) -> None:
        _check_run(self.max_lr, self.total_steps)
        if not (is_number(self.div_factor) and 1 < self.div_factor < math.inf):
            raise ValueError(f"`div_factor` = max_lr / base_lr must be above 1, but got {self.div_factor!r}.")
        if not (is_number(self.final_div_factor) and 1 <= self.final_div_factor < math.inf):
            raise ValueError(f"`final_div_factor` must be at least 1, but got {self.final_div_factor!r}.")
        if self.step_size is not None and not (
            is_number(self.step_size) and 0 < self.step_size <= self.total_steps / 2
        ):
            raise ValueError(
                f"`step_size` is half a cycle and must be in (0, total_steps / 2], "
                f"but got {self.step_size!r} with total_steps={self.total_steps}."
            )
        _check_momenta(self.max_momentum, self.base_momentum)
        if self.tail not in ("author", "paper"):
            raise ValueError(f"`tail` must be 'author' or 'paper', but got {self.tail!r}.")
        if self.anneal not in ("linear", "cos"):
            raise ValueError(f"`anneal` must be 'linear' or 'cos', but got {self.anneal!r}.")
        _keep_pythons(self)

    @property
    def base_lr(self) -> float:
        """Learning rate of the first step."""
        return self.max_lr / self.div_factor

    @property
    def final_lr(self) -> float:
        """Smallest learning rate, reached in the tail."""
        return self.base_lr / self.final_div_factor

    @property
    def half(self) -> float:
        """Steps of half a cycle, `step_size` or its default."""
        return 0.45 * self.total_steps if self.step_size is None else self.step_size

    def lr(self, step: int) -> float:
        """Return the learning rate of update `step`, counted from 0."""
        position = self._position(step)
        if position < 1:
            return self._between(self.base_lr, self.max_lr, position)
        if position < 2:
            if self.tail == "paper":
                return self._between(self.max_lr, self.base_lr, position - 1)
            return max(self._between(self.max_lr, 0.0, position - 1), self.final_lr)
        if self.tail == "author":
            return self.final_lr
        return self._between(self.base_lr, self.final_lr, self._tail_fraction(step))

    def momentum(self, step: int) -> float:
        """Return the momentum of update `step`, counted from 0."""
        position, low = self._position(step), _lowest(self.max_momentum, self.base_momentum)
        if position < 1:
            return self._between(self.max_momentum, low, position)
        if position < 2:
            return self._between(low, self.max_momentum, position - 1)
        return self.max_momentum

    def phase(self, step: int) -> Literal["up", "down", "tail"]:
        """Return the part of the cycle that update `step` belongs to."""
        position = self._position(step)
        return "up" if position < 1 else "down" if position < 2 else "tail"

    def _position(self, step: int) -> float:
        return _checked_step(step, self.total_steps) / self.half

    def _tail_fraction(self, step: int) -> float:
        last = self.total_steps - 1
        start = 2 * self.half
        return 1.0 if last <= start else min((step - start) / (last - start), 1.0)

    def _between(self, start: float, end: float, fraction: float) -> float:
        if self.anneal == "cos":
            fraction = (1 - math.cos(math.pi * fraction)) / 2
        return start + (end - start) * fraction


@dataclass(frozen=True)
class Triangular:
    """Smith's triangular policy: the learning rate rises and falls in straight lines, both ends at `base_lr`.

    One triangle over the whole run is how the author trained in the companion paper (arXiv 1708.07120: 0.1 to 3 and
    back in 10,000 steps); there is no tail below `base_lr`, which is what `OneCycle` added. A `step_size` as long as
    the run is half a triangle: his long LR range test, from `base_lr=0` to 3 in 5,000 to 100,000 steps (`range3` in
    his logs), trained like any other run and read by its validation loss at each rate. His resnet-56 never diverged
    up to 3, and was best (.816, .831, .865) at 1.2, 1.5 and 0.8 in 5,000, 20,000 and 100,000 steps: a long test says
    more about what a rate can reach, and its edge moves. `lr_range_test(sweep="linear")` is the same with an early
    stop, and gives the model back.

    Attributes:
        max_lr: Largest learning rate, above 0.
        total_steps: Optimizer updates of the whole run, at least 1.
        base_lr: Learning rate at both ends, in [0, max_lr); None is `max_lr / 10`. For several cycles the paper has a
            third or a quarter of `max_lr`, for one a tenth or a twentieth (section 4.1).
        step_size: Steps of half a cycle, in (0, total_steps]; None is `total_steps / 2`, one triangle.
        max_momentum: Momentum at `base_lr`, in [0, 1).
        base_momentum: Momentum at `max_lr`, in [0, max_momentum], as in `OneCycle`.

    Raises:
        ValueError: If an argument breaks its rule, or a step lies outside [0, total_steps]: that one is the end.

    >>> triangle = Triangular(max_lr=3.0, total_steps=10_000, base_lr=0.1)
    >>> [round(triangle.lr(step), 3) for step in (0, 100, 4900, 5000, 5100, 9900)]
    [0.1, 0.158, 2.942, 3.0, 2.942, 0.158]
    >>> range3 = Triangular(max_lr=3.0, total_steps=20_000, base_lr=0.0, step_size=20_000)
    >>> [round(range3.lr(step), 3) for step in (0, 100, 10_000, 19_900)]
    [0.0, 0.015, 1.5, 2.985]
    """

    max_lr: float
    total_steps: int
    base_lr: float | None = None
    step_size: float | None = None
    max_momentum: float = 0.95
    base_momentum: float | None = None

    def __post_init__(self) -> None:
        _check_run(self.max_lr, self.total_steps)
        if self.base_lr is not None and not (is_number(self.base_lr) and 0 <= self.base_lr < self.max_lr):
            raise ValueError(f"`base_lr` must be in [0, max_lr), but got {self.base_lr!r} with max_lr={self.max_lr!r}.")
        if self.step_size is not None and not (is_number(self.step_size) and 0 < self.step_size <= self.total_steps):
            raise ValueError(
                f"`step_size` is half a cycle and must be in (0, total_steps], "
                f"but got {self.step_size!r} with total_steps={self.total_steps}."
            )
        _check_momenta(self.max_momentum, self.base_momentum)
        _keep_pythons(self)

    @property
    def half(self) -> float:
        """Steps of half a cycle, `step_size` or its default."""
        return self.total_steps / 2 if self.step_size is None else self.step_size

    def lr(self, step: int) -> float:
        """Return the learning rate of update `step`, counted from 0."""
        low = self.max_lr / 10 if self.base_lr is None else self.base_lr
        return low + (self.max_lr - low) * self._height(step)

    def momentum(self, step: int) -> float:
        """Return the momentum of update `step`, counted from 0."""
        low = _lowest(self.max_momentum, self.base_momentum)
        return self.max_momentum + (low - self.max_momentum) * self._height(step)

    def phase(self, step: int) -> Literal["up", "down"]:
        """Return the part of its cycle that update `step` belongs to."""
        return "up" if self._position(step) < 1 else "down"

    def _position(self, step: int) -> float:
        return _checked_step(step, self.total_steps) % (2 * self.half) / self.half  # exact, and never inf % 2

    def _height(self, step: int) -> float:
        return 1 - abs(1 - self._position(step))


def _check_run(max_lr: float, total_steps: int) -> None:
    if not (is_number(max_lr) and 0 < max_lr < math.inf):
        raise ValueError(f"`max_lr` must be a finite number above 0, but got {max_lr!r}.")
    if not is_count(total_steps):
        raise ValueError(
            f"`total_steps` must be an integer from 1 on (epochs * steps per epoch), but got {total_steps!r}."
        )


def _keep_pythons(schedule: OneCycle | Triangular) -> None:
    """Keep NumPy's numbers and tensors as Python's: an optimizer saves what it is set to, and Adam takes no tensor."""
    for name, value in list(vars(schedule).items()):
        number = to_int(value) if name == "total_steps" else to_float(value)
        if number is not None:
            object.__setattr__(schedule, name, number)


def _lowest(max_momentum: float, base_momentum: float | None) -> float:
    """Return the momentum at the largest learning rate."""
    return min(BASE_MOMENTUM, max_momentum) if base_momentum is None else base_momentum


def _check_momenta(max_momentum: float, base_momentum: float | None) -> None:
    if not (is_number(max_momentum) and 0 <= max_momentum < 1):
        raise ValueError(f"`max_momentum` must be in [0, 1), but got {max_momentum!r}.")
    if base_momentum is not None and not (is_number(base_momentum) and 0 <= base_momentum <= max_momentum):
        raise ValueError(f"`base_momentum` must be in [0, max_momentum], but got {base_momentum=}, {max_momentum=}.")


def _checked_step(step: int, total_steps: int) -> int:
    """Return the step as an integer; the end itself is one, for which torch's schedulers ask after the last update."""
    index = to_int(step)
    if index is None or not 0 <= index <= total_steps:
        raise ValueError(f"`step` must be an integer in [0, total_steps], but got {step!r} with {total_steps=}.")
    return index
