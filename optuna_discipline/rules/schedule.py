"""The 1cycle policy as a closed form of the optimizer step (Smith 2018, section 4.2)."""

import math
from dataclasses import dataclass
from typing import Literal

from optuna_discipline.rules.arguments import is_number

Tail = Literal["author", "paper"]
Anneal = Literal["linear", "cos"]


@dataclass(frozen=True)
class OneCycle:
    """One cycle of learning rate and momentum, then a tail far below: two pure functions of the step.

    The learning rate rises from `base_lr = max_lr / div_factor` to `max_lr` over `step_size` steps and falls again
    over as many; the momentum mirrors it and is held at `max_momentum` in the tail. Two versions of the fall:

    * `tail="author"`: down towards zero, floored at `base_lr / final_div_factor`, which is also the tail. So ran the
      author's 13 published 1cycle trainings (reproduced to 4.3e-5 relative).
    * `tail="paper"`: down to `base_lr`, then in the tail on to `base_lr / final_div_factor`, as his text says.

    Nothing is stored between calls: a resumed run asks for the step it is at, and no step is out of turn.

    Attributes:
        max_lr: Largest learning rate, above 0.
        total_steps: Optimizer updates of the whole run, at least 1.
        div_factor: `max_lr / base_lr`, above 1.
        final_div_factor: `base_lr / final_lr`, at least 1.
        step_size: Steps of half a cycle; None is `0.45 * total_steps` (the author's runs: 0.37 to 0.48).
        max_momentum: Momentum at both ends of the cycle and in the tail, in [0, 1).
        base_momentum: Momentum at `max_lr`, in [0, max_momentum]; equal to `max_momentum` it stays constant.
        tail: "author" or "paper", see above.
        anneal: Shape of the rise and fall, "linear" (the paper) or "cos" (fastai).

    Raises:
        ValueError: If an argument breaks its rule, or a step lies outside [0, total_steps).

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
    base_momentum: float = 0.85
    tail: Tail = "author"
    anneal: Anneal = "linear"

    def __post_init__(self) -> None:
        if not (is_number(self.max_lr) and 0 < self.max_lr < math.inf):
            raise ValueError(f"`max_lr` must be a finite number above 0, but got {self.max_lr!r}.")
        if isinstance(self.total_steps, bool) or not _is_integer(self.total_steps) or self.total_steps < 1:
            raise ValueError(
                f"`total_steps` must be an integer from 1 on (epochs * steps per epoch), but got {self.total_steps!r}."
            )
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
        if not (is_number(self.max_momentum) and 0 <= self.max_momentum < 1):
            raise ValueError(f"`max_momentum` must be in [0, 1), but got {self.max_momentum!r}.")
        if not (is_number(self.base_momentum) and 0 <= self.base_momentum <= self.max_momentum):
            raise ValueError(
                f"`base_momentum` must be in [0, max_momentum], "
                f"but got base_momentum={self.base_momentum!r}, max_momentum={self.max_momentum!r}."
            )
        if self.tail not in ("author", "paper"):
            raise ValueError(f"`tail` must be 'author' or 'paper', but got {self.tail!r}.")
        if self.anneal not in ("linear", "cos"):
            raise ValueError(f"`anneal` must be 'linear' or 'cos', but got {self.anneal!r}.")

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
        return 0.45 * self.total_steps if self.step_size is None else float(self.step_size)

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
        position = self._position(step)
        if position < 1:
            return self._between(self.max_momentum, self.base_momentum, position)
        if position < 2:
            return self._between(self.base_momentum, self.max_momentum, position - 1)
        return self.max_momentum

    def phase(self, step: int) -> Literal["up", "down", "tail"]:
        """Return the part of the cycle that update `step` belongs to."""
        position = self._position(step)
        return "up" if position < 1 else "down" if position < 2 else "tail"

    def _position(self, step: int) -> float:
        if isinstance(step, bool) or not _is_integer(step) or not 0 <= step < self.total_steps:
            raise ValueError(
                f"`step` must be an integer in [0, total_steps), but got {step!r} with total_steps={self.total_steps}."
            )
        return step / self.half

    def _tail_fraction(self, step: int) -> float:
        last = self.total_steps - 1
        start = 2 * self.half
        return 1.0 if last <= start else (step - start) / (last - start)

    def _between(self, start: float, end: float, fraction: float) -> float:
        if self.anneal == "cos":
            fraction = (1 - math.cos(math.pi * fraction)) / 2
        return start + (end - start) * fraction


def _is_integer(value: object) -> bool:
    return hasattr(value, "__index__")
