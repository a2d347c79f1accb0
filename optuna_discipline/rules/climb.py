"""What rises say: of a validation loss alone, overfitting if slow, a break if sudden; of both, far above the start."""

from collections.abc import Mapping

import numpy as np

from optuna_discipline.rules.curve import FloatArray
from optuna_discipline.rules.curve import noise_sd
from optuna_discipline.rules.curve import running_median

# The end of a curve above its best by this share of the loss is a rise.
RISE = 0.05
# Without a training loss a rise must be this many times the noise, and slow: a break climbs this share of the way back
# to the start within a tenth of the curve (the paper's figure 4a: .18 to .89; its overfitting curves .04 to .11), and
# there more than this share of its whole climb (.74 to 1.06; .20 to .28).
CLEAR_OF_NOISE, BREAK, SUDDEN = 10.0, 0.15, 0.5
# Or it runs away: so many rises in a row, each larger than the one before by a factor, the last one beyond the noise
# (figure 4a from LR 0.0053: .010 .017 .035 .076, where one step of noise is .008).
RISES_IN_A_ROW, GROWTH, RUNAWAY_IN_NOISE = 4, 1.25, 5.0
# Above its first value by this share of that, or of its usual size, a loss is far above its start.
FAR_ABOVE_START = 0.5
# A validation loss as noisy as this, that ends so far above its best, each as a share of its size, and by so many times
# the noise, while the training loss keeps this share of what it was there: constant rates far too high. Of noise
# alone 1 to 5 % of the curves with so many epochs pass, and up to 9 % of shorter ones would.
JUMPY, FAR_ABOVE_BEST, FAR_IN_NOISE, TRAIN_KEPT, ENOUGH_EPOCHS = 0.1, 0.3, 1.5, 0.7, 10
# The root mean square of what a running median of three takes off noise, by the sd of that.
TAKEN_OFF = 0.88


def measure_climb(losses: FloatArray) -> dict[str, float]:
    """Return how far a loss has gone back to its start: in all, within its fastest tenth, within its last tenth."""
    smooth = smoothed(losses)
    tenth, lowest = max(2, len(smooth) // 10), smooth.min()
    fall = max(float(losses[: int(np.argmin(smooth)) + 1].max() - lowest), scale_of(losses))
    climbs = (smooth[tenth:] - smooth[:-tenth]) / fall
    return {
        "climbed": float((smooth[-1] - lowest) / fall),
        "fastest_climb": float(climbs.max()),
        "last_climb": float(climbs[-1]),
        "runs_away": float(_runs_away(losses)),
        "reports": float(len(losses)),
    }


def read_climb(evidence: Mapping[str, float]) -> tuple[bool, bool]:
    """Return whether the validation loss alone shows a break, and whether it shows overfitting.

    Args:
        evidence: What `measure_climb` returns, with `rise_from_minimum` and `val_noise` as shares of the loss.
    """
    if evidence["rise_from_minimum"] > RISE and evidence["runs_away"]:
        return True, False
    if not evidence["rise_from_minimum"] > max(RISE, CLEAR_OF_NOISE * evidence["val_noise"]):
        return False, False
    climbed, fastest = evidence["climbed"], evidence["fastest_climb"]
    broken = fastest > max(BREAK, SUDDEN * climbed) and climbed > (BREAK if evidence["reports"] >= 20 else 0.5)
    return broken, not broken and evidence["last_climb"] <= SUDDEN * climbed


def stays_above_start(val: FloatArray, train: FloatArray | None) -> bool:
    """Return whether the losses burst above their first values, and the validation loss has not come back since.

    A training loss must have burst, too: beside one that falls the validation loss may stand high for half of a run.

    >>> import numpy as np
    >>> [stays_above_start(np.array([0.5, 2.4, 0.6, last]), None) for last in (0.9, 0.4)]
    [True, False]
    """
    if not _rises_far(val) or not (train is None or _rises_far(train)):
        return False
    peak, lag = int(np.argmax(val)), max(1, len(val) // 10)
    sudden = (val[lag:] - val[:-lag]).max() > SUDDEN * (val[peak] - val[0])
    return bool(sudden and val[peak:].min() >= val[0])


def stays_above_best(val: FloatArray, train: FloatArray) -> bool:
    """Return whether the validation loss jumps about far above its best while the training loss stands or rises.

    In overfitting the training loss falls; what is noise alone has been near its best again within half of the curve.
    Fewer than ten epochs do not tell.

    >>> import numpy as np
    >>> val = np.array([1.0, 0.4, 0.4, 0.6, 0.8, 0.7, 0.7, 1.2, 0.8, 1.1, 0.7, 0.8])
    >>> [stays_above_best(val, np.linspace(0.5, end, 12)) for end in (0.4, 0.1)]
    [True, False]
    """
    if len(val) < ENOUGH_EPOCHS:
        return False
    smooth, size, fifth = running_median(val), scale_of(val), len(val) // 5
    best, noise = int(np.argmin(smooth)), noise_sd(val)
    if not noise > JUMPY * size or not val[len(val) // 2 :].min() - smooth[best] > RISE * size:
        return False
    before, after = float(running_median(train)[best]), float(np.median(train[-fifth:]))
    kept = before - after < (1 - TRAIN_KEPT) * abs(before)
    far = max(FAR_ABOVE_BEST * size, FAR_IN_NOISE * noise)
    return bool(kept and np.median(val[-fifth:]) - smooth[best] > far)


def noise_of_end(losses: FloatArray) -> float:
    """Return the noise of the second half of a loss: what goes up and down, so that a fall that bends has none.

    >>> import numpy as np
    >>> [round(noise_of_end(np.array(end)), 2) for end in ([1, 0.5, 0.25, 0.125, 0.0625], [1, 0.4, 0.3, 0.4, 0.3])]
    [0.0, 0.1]
    """
    half = len(losses) // 2
    taken_off = (losses[half - 1 :] - running_median(losses[half - 1 :], window=3))[1:-1]
    return min(noise_sd(losses[half:]), float(np.sqrt(np.mean(taken_off**2))) / TAKEN_OFF)


def smoothed(losses: FloatArray) -> FloatArray:
    """Return the running median of a loss, over five epochs, or three of a short curve."""
    return running_median(losses, window=5 if len(losses) >= 15 else 3)


def scale_of(losses: FloatArray) -> float:
    """Return the size of a loss, by which changes are told: the median of its absolute values."""
    return max(float(np.median(np.abs(losses))), 1e-12)


def _rises_far(losses: FloatArray) -> bool:
    far = FAR_ABOVE_START * max(abs(float(losses[0])), scale_of(losses))
    return bool(losses.max() - losses[0] > max(far, RUNAWAY_IN_NOISE * noise_sd(losses[len(losses) // 2 :])))


def _runs_away(losses: FloatArray) -> bool:
    rises = np.diff(losses[-RISES_IN_A_ROW - 1 :])
    if len(losses) < 3 * RISES_IN_A_ROW or not rises[0] > 0:
        return False
    return bool(np.all(rises[1:] > GROWTH * rises[:-1]) and rises[-1] > RUNAWAY_IN_NOISE * noise_sd(losses))
