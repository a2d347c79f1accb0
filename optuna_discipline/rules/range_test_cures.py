"""What to change in a range test that could not be read."""

import numpy as np

from optuna_discipline.rules.range_test import RangeTest


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
