"""When a training's loss has plateaued, so that it may be saved and continued in several ways (Smith 2018, 4.4)."""

import math

import numpy as np

from optuna_discipline.rules.arguments import check_type
from optuna_discipline.rules.curve import LossCurve
from optuna_discipline.rules.curve import tail_median
from optuna_discipline.rules.divergence import has_learned
from optuna_discipline.rules.divergence import is_diverged

# A tenth of the run that brought less than a twentieth of all that was won so far is a plateau.
WINDOW, GAIN = 0.1, 0.05
SMOOTHED = 3  # reports of which a level is the median
# A restart from before a quarter saves little; one from after the middle leaves a new weight decay little time to act:
# the learning rate of a cycle falls from there on.
EARLIEST, LATEST = 0.25, 0.5


def has_plateaued(curve: LossCurve) -> bool:
    """Return whether the loss has stopped falling for now, which in a cycle it does at large learning rates.

    The level of the loss (the median of three reports; validation where there is one, else training) has fallen over
    the last tenth of the planned run by less than 5 % of its whole fall so far. The paper gives no number; on its
    figure 12a, where the author restarted at learning rate 0.0033, this rule answers at 0.0036 to 0.0041.

    >>> from optuna_discipline import EpochLog
    >>> fall = [1.0, 0.6, 0.5, 0.46, 0.45, 0.45, 0.45]
    >>> [has_plateaued(LossCurve(tuple(EpochLog(i, 1.0, x, x) for i, x in enumerate(fall[:n])), 10)) for n in (4, 7)]
    [False, True]
    """
    check_type("curve", curve, LossCurve)
    losses = curve.val_loss if curve.has_val_loss else curve.train_loss
    losses = losses[np.isfinite(losses)]
    n_reports = curve.n_epochs * len(losses) / (curve.logs[-1].epoch + 1) if len(curve) else 0.0
    window = max(1, math.ceil(WINDOW * n_reports))
    if len(losses) < window + SMOOTHED:
        return False
    now, before = tail_median(losses, SMOOTHED), tail_median(losses[:-window], SMOOTHED)
    fallen = float(losses[0]) - now
    return fallen > 0 and before - now < GAIN * fallen


def is_restart_point(curve: LossCurve) -> bool:
    """Return whether a run may be saved now, to be restarted with other weight decays: save it at the first True.

    From a quarter of the run on while its loss stands on a plateau; from the middle on, where a cycle's learning rate
    is at its largest, at every epoch before the last. Never a run that diverged.
    """
    check_type("curve", curve, LossCurve)
    if not EARLIEST <= curve.fraction < 1 or is_diverged(curve):
        return False
    return curve.fraction >= LATEST or (has_learned(curve) is not False and has_plateaued(curve))
