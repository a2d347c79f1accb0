"""What to change in a range test that could not be read."""

import numpy as np

from optuna_discipline.rules.curve import OVERFLOW
from optuna_discipline.rules.range_test import RangeTest

BROKEN_VALIDATION = (
    f"The validation loss of the untrained model was no number, or above {OVERFLOW:g}, where the training loss was "
    "one: look for NaN and inf in the validation data."
)


def cannot_validate(test: RangeTest) -> bool:
    """Whether the model could train, but its validation loss was no number before any update, nor after one.

    >>> cannot_validate(RangeTest([0.1], [2.0], [np.nan], "non-finite loss", initial_loss=np.nan))
    True
    """
    if test.val_loss is None or test.initial_loss is None or not len(test.train_loss):
        return False
    known = np.abs(np.concatenate([[test.initial_loss], test.val_loss])) < OVERFLOW
    return not known.any() and bool(abs(test.train_loss[0]) < OVERFLOW)


def go_farther(test: RangeTest, otherwise: str) -> str:
    """Return how a sweep that ended too early gets farther: `otherwise`, unless its data ended.

    >>> go_farther(RangeTest([0.1], [2.0], None, "no more data"), "raise `end_lr`")
    'the data ended there: give more, or lower `num_steps`'
    """
    return "the data ended there: give more, or lower `num_steps`" if test.stop_reason == "no more data" else otherwise


def more_below(lr: float, test: RangeTest, val_every: bool = False) -> str:
    """Return how more evaluations come to lie below a rate: a linear sweep spends most of its steps above it.

    >>> more_below(0.1, RangeTest([0.1], [2.0], None, "diverged"), val_every=True)
    'lower `start_lr` or `val_every`'
    """
    steps, sweep = np.diff(test.lrs), test.settings.get("sweep")
    if sweep is None and len(steps) >= 3 and max(steps) < 1.25 * min(steps):  # above a rise by 2, exponential: 1.6
        sweep = "linear"
    reached = max(lr, float(test.lrs[:2][-1]))  # a sweep that broke at its first rate took the next in one step
    knob = "end_lr" if sweep == "linear" and test.lrs[0] < reached / 2 else "start_lr"
    return f"lower `{knob}`" + " or `val_every`" * val_every
