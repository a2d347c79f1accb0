"""Where a number without a role begins whose name says what it is: usual values of the literature and of libraries."""

import math
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from optuna_discipline.rules.candidates import DEFAULT_WEIGHT_DECAY
from optuna_discipline.rules.lr_choice import USUAL_LR
from optuna_discipline.rules.role_names import POLICY_CLIPS
from optuna_discipline.rules.role_names import all_words_of
from optuna_discipline.rules.role_names import ends_of
from optuna_discipline.rules.role_names import says_penalty
from optuna_discipline.rules.role_names import words_of
from optuna_discipline.rules.space import Bounds
from optuna_discipline.rules.space import default_of

# A dropout's range ends where it hurts, and its middle is more than most networks bear: on surrogates of 12 tables
# trained by a perceptron (seven parameters, dropout 0 to 0.8) the regret of a study that began at 0.4, 0.1 and 0 was
# .20, .11 and .10 after three trainings, .04 after ten from all three.
START_DROPOUT = 0.1
# What drops something else than units: a learning rate, at an epoch.
_DROPS_ELSE = frozenset({"lr", "learning", "factor", "every", "epoch", "epochs", "step", "steps", "last"})
# A wide layer is seldom worse than a narrow one, and its training is what the learning rate is found for; the middle of
# a width's range in the exponent is narrow. On surrogates of 12 tables (seven parameters) the first regret from 1/2,
# 2/3, 3/4 and 9/10 of the range was .18, .16, .16 and .15, on four other tables .22, .17, .14 and .20.
WIDTH_WORDS = (
    "width",
    "units",
    "hidden",
    "channels",
    "filters",
    "neurons",
    "nodes",
    "features",
    "embed",
    "d_model",
    "dim",
)
START_WIDTH, LEAST_WIDTH = 0.75, 16
# Adam's own; an epsilon of something else (a policy's, a label's smoothing) may be larger. A study of Adam's numbers
# had a regret of .12 after two trainings from there, .15 from the middle of their ranges, and .05 and .08 after ten.
BETA2, EPS, MOST_EPS = 0.999, 1e-8, 1e-2
# Heads must divide the width: a power of two divides nearly every one, the middle of a range (5 of 1 to 8) hardly any.
HEADS = 4.0
_HEADS = frozenset({"heads", "nheads", "nhead", "n head", "num head"})
# A penalty begins where a weight decay does, but in a range from 0 lower: an L1 of .05, the middle of 0 to .1, leaves a
# network dead at every learning rate. The loss of two public studies after 3 trainings was 1.13 and .45 from there, .49
# and .05 from here. What goes beyond 1 belongs to another kind of model.
MOST_PENALTY, PENALTY_SHARE, MOST_FROM_ZERO = 1.0, 0.01, 1e-3
# What a name may end with, word by word. Label smoothing: Szegedy et al. 2016. Mixup: Zhang et al. 2018 (0.1 to 0.4).
# CutMix: Yun et al. 2019. Focal loss: Lin et al. 2017. Temperature of a contrastive loss: Chen et al. 2020. Generalised
# advantages and the clipping of a policy: Schulman et al. 2016 and 2017.
_USUAL: Mapping[str, float] = {
    **dict.fromkeys(("label smoothing", "smoothing"), 0.1),
    **dict.fromkeys(("mixup", "mixup alpha"), 0.2),
    **dict.fromkeys(("cutmix", "cutmix alpha"), 1.0),
    "focal gamma": 2.0,
    "temperature": 0.1,
    **dict.fromkeys(("grad norm", "clip norm", "clipnorm", "grad clip", "gradient clip", "clip val", "clip"), 1.0),
    "gae lambda": 0.95,
    **dict.fromkeys(POLICY_CLIPS, 0.2),
    "discount": 0.99,
    "ema decay": 0.99,
}
# A gamma is a discount where its bounds say so and its name does not speak of a rate's schedule; a temperature from 1
# on softens a teacher's answers (Hinton et al. 2015: 2.5 to 4), a larger T counts steps.
LEAST_DISCOUNT, DISCOUNT = 0.8, 0.99
_OF_A_RATE = ("lr", "rate", "sched", "decay")
LEAST_SOFT, MOST_SOFT, SOFT = 1.0, 100.0, 4.0

_OPTIMIZER = ("opt", "solver", "algorithm")
_UNSATURATED = ("lu", "swish", "mish", "softplus", "snake")
_SINES = ("sin", "sine", "siren")  # as whole words: a cosine is a schedule
_USUAL_LR = {name.lower(): lr for name, lr in USUAL_LR.items()}


def usual_value(name: str, bounds: Bounds) -> float | None:
    """Return the usual value of a number that its name says, None for others; a dropout's may lie beyond its bounds.

    >>> [usual_value(name, Bounds(0.0, 0.5)) for name in ("drop_rate", "aux.label_smoothing", "alpha")]
    [0.1, 0.1, None]
    """
    for known in (_adams_own(name, bounds), _dropped(name, bounds), _heads(name), _penalty(name, bounds)):
        if known is not None:
            return known
    usual = _told_by_bounds(name, bounds) or next((_USUAL[end] for end in ends_of(name) if end in _USUAL), None)
    return usual if usual is not None and bounds.low < usual <= bounds.high else None


def is_width(name: str, bounds: Bounds) -> bool:
    """Whether a parameter counts the units of a layer: `hidden_layers` and a list of 1 to 4 do not."""
    word = name.lower()
    return "layers" not in word and bounds.high >= LEAST_WIDTH and any(part in word for part in WIDTH_WORDS)


def _told_by_bounds(name: str, bounds: Bounds) -> float | None:
    """Return the usual value of a name that means several things, where its bounds say which."""
    _, last = ends_of(name)
    if last == "gamma" and bounds.low >= LEAST_DISCOUNT and bounds.high <= 1:
        return None if any(part in name.lower() for part in _OF_A_RATE) else DISCOUNT
    softens = last in ("temperature", "t") and bounds.low >= LEAST_SOFT and bounds.high <= MOST_SOFT
    return SOFT if softens else None


def word_of(value: object) -> str | None:
    """Return a word as it is, the name of a class or a function, None for what is neither.

    >>> word_of("SGD"), word_of(dict), word_of(0.1)
    ('SGD', 'dict', None)
    """
    word = getattr(value, "__name__", value)
    return word if isinstance(word, str) else None


def usual_lr_of(choice: object) -> float | None:
    """Return the usual learning rate of the optimizer that a word or a class names, None for what names none.

    >>> usual_lr_of("adamw"), usual_lr_of("tanh"), usual_lr_of(0.1)
    (0.005, None, None)
    """
    return _USUAL_LR.get((word_of(choice) or "").lower())


def usual_lr(params: Mapping[str, Any], momentum: float = 0.0) -> float | None:
    """Return the usual learning rate of the optimizer that some parameter names, None where none does; see `adds_up`.

    >>> usual_lr({"width": 64, "optimizer": "adam"}), round(usual_lr({"optimizer": "rmsprop"}, momentum=0.9), 6)
    (0.005, 0.0005)
    """
    usual = next((usual for value in params.values() if (usual := usual_lr_of(value)) is not None), None)
    return usual * (1 - momentum) if usual is not None and adds_up(params) else usual


def adds_up(params: Mapping[str, Any]) -> bool:
    """Whether the optimizer that some parameter names is RMSprop: it has no momentum unless told, and adds its up."""
    return any((word_of(value) or "").lower() == "rmsprop" for value in params.values())


def usual_word(name: str, choices: Sequence[Any]) -> Any:
    """Return the first optimizer of a list that adapts its steps, activation that does not saturate, or word at all.

    A list that also holds none is of no optimizer, unless its name says so.

    >>> usual_word("opt", ["sgd", "adam"]), usual_word("act", ["tanh", "relu"]), usual_word("mode", ["none", "adam"])
    ('adam', 'relu', 'none')
    """
    may_be_none = any(choice is None or choice is False or word_of(choice) in ("none", "None") for choice in choices)
    optimizes = not may_be_none or any(word.startswith(_OPTIMIZER) for word in all_words_of(name))
    wishes = (adapts_steps, stays_steep) if optimizes else (stays_steep,)
    return next((choice for wish in wishes for choice in choices if wish(choice)), choices[0])


def adapts_steps(choice: object) -> bool:
    """Whether a choice names an optimizer that is at home in whatever bounds users give the learning rate."""
    return usual_lr_of(choice) == USUAL_LR["Adam"]


def stays_steep(choice: object) -> bool:
    """Whether a word or a class names an activation that does not saturate for large inputs: relu, swish, sine, ...

    >>> [stays_steep(word) for word in ("LeakyReLU", "sine", "cosine", "tanh")]
    [True, True, False, False]
    """
    word = (word_of(choice) or "").lower()
    return word.endswith(_UNSATURATED) or word in _SINES


def _heads(name: str) -> float | None:
    """Return where a count of attention's heads begins."""
    return HEADS if _HEADS & set(ends_of(name)) else None


def _penalty(name: str, bounds: Bounds) -> float | None:
    """Return where a penalty on weights or activations begins."""
    if not 0 <= bounds.low < bounds.high <= MOST_PENALTY or not says_penalty(name):
        return None
    if bounds.choices is not None:
        above_zero = [choice for choice in bounds.choices if choice > 0]
        return min(above_zero, key=lambda choice: abs(math.log(choice / DEFAULT_WEIGHT_DECAY)))
    return min(bounds.high * PENALTY_SHARE, MOST_FROM_ZERO) if bounds.from_zero else default_of("weight_decay", bounds)


def _adams_own(name: str, bounds: Bounds) -> float | None:
    """Return Adam's own default of a number that is named after it, None for others."""
    ends = set(ends_of(name))
    if ends & {"beta2", "beta 2"}:
        return BETA2
    is_adams = bounds.high <= MOST_EPS or 0 < bounds.low <= EPS
    return EPS if ends & {"eps", "epsilon"} and is_adams else None


def _dropped(name: str, bounds: Bounds) -> float | None:
    """Return where a dropout begins, or the share that it keeps; None for what is neither."""
    words = set(words_of(name))
    if "keep" in words:
        return 1 - START_DROPOUT
    drops = any(word.startswith("drop") for word in words) and not words & _DROPS_ELSE and bounds.high <= 1
    return START_DROPOUT if drops or "dropout" in name.lower() else None
