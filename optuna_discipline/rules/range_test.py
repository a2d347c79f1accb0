"""The record of an LR range test, and the mean of several."""

import json
import math
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from typing import TYPE_CHECKING
from typing import Any

import numpy as np

from optuna_discipline.rules.arguments import check_type
from optuna_discipline.rules.arguments import encode
from optuna_discipline.rules.arguments import is_count
from optuna_discipline.rules.arguments import to_float
from optuna_discipline.rules.curve import FloatArray

if TYPE_CHECKING:
    from optuna_discipline.rules.lr_choice import LrChoice


@dataclass(frozen=True)
class RangeTest:
    """Curves of one LR range test: the learning rate rises every step while the losses are recorded, unsmoothed.

    Attributes:
        lrs: Learning rate of each update made, shape (n,), rising.
        train_loss: Mini-batch loss of each update, shape (n,); NaN and inf allowed.
        val_loss: Validation loss after an update, shape (n,), NaN where it was not evaluated; None if never.
        stop_reason: Why the sweep ended: "end of range", "diverged", "non-finite loss" or "no more data".
        initial_loss: Loss before any update (validation if there is one, else the first batch), or None.
        n_steps: Updates that were planned.
        planned_steps: Updates of the training that the test is for; None if not known. A test as long as the training
            needs no safety divisor.
        settings: What the test was run with (sweep, momentum, weight decay, optimizer, seed): JSON values.

    Raises:
        ValueError: If an attribute breaks its rule.
    """

    lrs: FloatArray
    train_loss: FloatArray
    val_loss: FloatArray | None
    stop_reason: str
    initial_loss: float | None = None
    n_steps: int | None = None
    planned_steps: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("lrs", "train_loss", "val_loss"):
            value = getattr(self, name)
            if value is None and name == "val_loss":
                continue
            array = _as_array(name, value)
            if len(array) != len(self.lrs):
                raise ValueError(f"`{name}` must be as long as `lrs` ({len(self.lrs)}), but has {len(array)} values.")
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        _check_rates(self.lrs)
        if not isinstance(self.stop_reason, str):
            raise ValueError(f"`stop_reason` must be a text such as 'end of range', but got {self.stop_reason!r}.")
        initial = to_float(self.initial_loss)
        if initial is None and self.initial_loss is not None:
            raise ValueError(f"`initial_loss` must be a number or None, but got {self.initial_loss!r}.")
        object.__setattr__(self, "initial_loss", initial)
        for name in ("n_steps", "planned_steps"):
            value = getattr(self, name)
            if value is not None and not is_count(value):
                raise ValueError(f"`{name}` must be a positive integer or None, but got {value!r}.")
            object.__setattr__(self, name, None if value is None else int(value))
        object.__setattr__(self, "settings", _as_json(self.settings))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RangeTest) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]  # arrays do not hash

    @property
    def choice(self) -> "LrChoice":
        """The choice that `choose_max_lr` makes of this curve; computed anew, so that a better rule re-reads it."""
        from optuna_discipline.rules.lr_choice import choose_max_lr

        return choose_max_lr(self)

    @property
    def max_lr(self) -> float | None:
        """Suggested largest learning rate, None if the curve shows none."""
        return self.choice.max_lr

    @property
    def base_lr(self) -> float | None:
        """Suggested smallest learning rate, None if the curve shows none."""
        return self.choice.base_lr

    @property
    def reason(self) -> str:
        """Why, in one sentence."""
        return self.choice.reason

    def to_dict(self) -> dict[str, Any]:
        """Return the record as JSON values; non-finite numbers become strings ("nan", "inf", "-inf")."""
        return {
            "lrs": self.lrs.tolist(),
            "train_loss": [encode(x) for x in self.train_loss],
            "val_loss": None if self.val_loss is None else [encode(x) for x in self.val_loss],
            "stop_reason": self.stop_reason,
            "initial_loss": encode(self.initial_loss),
            "n_steps": self.n_steps,
            "planned_steps": self.planned_steps,
            "settings": dict(self.settings),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "RangeTest":
        """Return the record that `to_dict` wrote.

        Raises:
            TypeError: If `data` is no dict.
            ValueError: If a required key is missing, or a value is not what `to_dict` writes.
        """
        check_type("data", data, Mapping)
        missing = {"lrs", "train_loss", "stop_reason"} - set(data)
        if missing:
            raise ValueError(f"`data` must be a dict written by `RangeTest.to_dict`, but lacks {sorted(missing)}.")
        initial = data.get("initial_loss")
        return cls(
            lrs=data["lrs"],
            train_loss=data["train_loss"],
            val_loss=data.get("val_loss"),  # a list, of texts too
            stop_reason=data["stop_reason"],
            initial_loss=float(initial) if initial in ("nan", "inf", "-inf") else initial,
            n_steps=data.get("n_steps"),
            planned_steps=data.get("planned_steps"),
            settings=data.get("settings", {}),
        )


def average_range_tests(range_tests: Sequence[RangeTest]) -> RangeTest:
    """Return the mean of range tests of the same sweep (Smith's figures are means of four runs with other seeds).

    Every learning rate gets the median over the tests, of two their mean, so that one wild run does not speak for all.
    A test that broke off counts as infinite from there on.

    Args:
        range_tests: At least one; all planned over the same learning rates, with validation at the same ones or none.

    Raises:
        TypeError: If one is not a RangeTest.
        ValueError: If there is none, or the learning rates differ, or those with a validation loss, or the optimizer,
            its momentum or its weight decay.

    >>> lrs = np.array([0.1, 1.0])
    >>> tests = [RangeTest(lrs, np.array([x, 2 * x]), None, "end of range", initial_loss=x) for x in (1.0, 2.0)]
    >>> average_range_tests(tests).train_loss.tolist()
    [1.5, 3.0]
    """
    tests = list(range_tests)
    for i, test in enumerate(tests):
        check_type(f"range_tests[{i}]", test, RangeTest)
    if not tests:
        raise ValueError("`range_tests` must hold at least one test, but is empty.")
    longest = max(tests, key=lambda test: len(test.lrs))
    for test in tests:
        same = np.array_equal(test.lrs, longest.lrs[: len(test.lrs)])
        if not same or (test.val_loss is None) != (longest.val_loss is None):
            raise ValueError("`range_tests` must share their learning rates and have validation losses, all or none.")
        if not _evaluated_alike(test, longest):
            raise ValueError(
                "`range_tests` must have their validation losses at the same learning rates, but one of them has "
                "others: run all with one `val_every`."
            )
    for name in ("optimizer", "momentum", "base_momentum", "weight_decay"):
        values = [test.settings[name] for test in tests if name in test.settings]
        if any(value != values[0] for value in values):
            raise ValueError(
                f"`range_tests` must be of one {name}, as their mean is read as one test, but got {values!r:.80}: "
                "average those of each alone."
            )
    initial = [math.nan if test.initial_loss is None else test.initial_loss for test in tests]
    return replace(
        longest,
        train_loss=_median_over([test.train_loss for test in tests], len(longest.lrs)),
        val_loss=None if longest.val_loss is None else _median_over([t.val_loss for t in tests], len(longest.lrs)),
        initial_loss=None if np.isnan(initial).all() else float(np.nanmedian(initial)),
        settings={**longest.settings, "seed": [test.settings.get("seed") for test in tests]},
    )


def _evaluated_alike(test: RangeTest, longest: RangeTest) -> bool:
    """Return whether two were evaluated after the same updates; at its last one a test may have broken before."""
    if test.val_loss is None or longest.val_loss is None:
        return True
    whole = max(0, len(test.lrs) - 1)
    return np.array_equal(np.isnan(test.val_loss[:whole]), np.isnan(longest.val_loss[:whole]))


def _median_over(curves: Sequence[FloatArray | None], length: int) -> FloatArray:
    """Return the pointwise median, infinite where a curve has ended or is no number; NaN where none was evaluated."""
    table = np.full((len(curves), length), np.inf)
    ended = np.ones((len(curves), length), dtype=np.bool_)
    for i, curve in enumerate(curves):
        assert curve is not None
        table[i, : len(curve)], ended[i, : len(curve)] = curve, False
    unseen = (np.isnan(table) | ended).all(axis=0)
    ordered = np.sort(np.where(np.isnan(table), np.inf, table), axis=0)
    middle = len(curves) // 2
    found = ordered[middle] if len(curves) % 2 else ordered[middle - 1] / 2 + ordered[middle] / 2
    return np.where(unseen, np.nan, found)


def _as_array(name: str, values: Any) -> FloatArray:
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError):  # a text, or rows of different lengths
        array = np.array(math.nan)
    if array.ndim != 1:
        raise ValueError(f"`{name}` must be a one-dimensional array of numbers, but got {values!r:.80}.")
    return array


def _check_rates(lrs: FloatArray) -> None:
    wrong = ~(np.isfinite(lrs) & (lrs > 0))
    wrong[1:] |= lrs[1:] < lrs[:-1]
    if wrong.any():
        at = int(wrong.argmax())
        after = f" after {lrs[at - 1]:g}" if at else ""
        raise ValueError(f"`lrs` must be finite, positive and rising, but got lrs[{at}]={lrs[at]:g}{after}.")


def _as_json(settings: Any) -> dict[str, Any]:
    """Return settings as JSON values, NumPy's numbers and arrays as Python's: a study keeps them as text."""
    try:
        return dict(json.loads(json.dumps(dict(settings), default=lambda value: value.tolist())))
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"`settings` must be a dict of JSON values, but got {settings!r:.80}.") from error
