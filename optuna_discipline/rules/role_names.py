"""Which role a parameter has by its name: the usual names, and those that say the same with a group or an optimizer."""

import re
from collections.abc import Mapping
from functools import cache

from optuna_discipline.rules.space import Bounds
from optuna_discipline.rules.space import Role

ROLE_NAMES: Mapping[str, Role] = {
    **dict.fromkeys(("lr", "max_lr", "learning_rate", "learning_rate_init"), "lr"),
    **dict.fromkeys(("momentum", "max_momentum", "beta1", "adam_beta1"), "momentum"),
    **dict.fromkeys(("weight_decay", "wd", "l2"), "weight_decay"),
    **dict.fromkeys(("batch_size", "train_batch_size", "per_device_train_batch_size"), "batch_size"),
    **dict.fromkeys(("epochs", "n_epochs", "num_epochs", "max_epochs", "num_train_epochs"), "epochs"),
}
# What a name may end with, word by word, and the words before it that make something else of it.
_ENDS: Mapping[str, Role] = {
    **dict.fromkeys(("lr", "lr0", "learning rate"), "lr"),
    **dict.fromkeys(("momentum", "beta1", "beta 1"), "momentum"),
    **dict.fromkeys(("weight decay", "wd", "l2", "l2 reg", "l2 regularization", "l2 penalty"), "weight_decay"),
    **dict.fromkeys(("batch size", "batchsize"), "batch_size"),
    "epochs": "epochs",
}
EXPONENT_WORDS = frozenset({"log", "log2", "log10", "ln", "exp", "exponent", "pow", "power"})
_ELSE = frozenset({"min", "final", "end", "last", "use"}) | EXPONENT_WORDS
_SOMETHING_ELSE: Mapping[Role, frozenset[str]] = {
    "lr": _ELSE | {"warmup", "eta"},
    "momentum": _ELSE | {"bn", "batchnorm", "norm", "batch", "ema", "teacher", "target", "base"},
    "weight_decay": _ELSE | {"bias", "bn", "norm"},
    "batch_size": _ELSE | {"eval", "val", "valid", "validation", "test", "inference", "predict"},
}
# What may precede a mere "l2"; behind anything else it counts layers: `n_units_l2`.
_OF_L2 = frozenset(
    {"lambda", "reg", "regularization", "regularizer", "weight", "weights", "kernel", "penalty", "alpha"}
)
_COUNT = frozenset({"n", "num", "nb", "number", "of", "max", "total", "train", "training"})  # what may precede "epochs"
# What may follow a learning rate: a part of the network, an optimizer.
_PARTS = frozenset(
    {"body", "head", "backbone", "encoder", "decoder", "classifier", "features", "generator", "discriminator", "g", "d"}
    | {"actor", "critic", "policy", "value", "base", "init", "initial", "max", "peak", "all"}
    | {"sgd", "adam", "adamw", "rmsprop"}
)
# Of the groups that a parameter is in, those that make something else of it.
_GROUPS = _SOMETHING_ELSE["batch_size"] - _ELSE | {"min", "final", "warmup"}
_GROUPS |= {"bn", "batchnorm", "norm", "ema", "teacher", "target"}
_BREAK = re.compile(r"[./:]|__")
_WORDS = re.compile(r"[A-Z]+(?![a-z])[0-9]*|[A-Z]?[a-z]+[0-9]*|[0-9]+")


def role_of_name(name: str, told: Mapping[str, Role | None] | None = None) -> Role | None:
    """Return the role that a name says, None where it says none; what the user has told of it comes first.

    Beside the usual names those of a group, an optimizer or a part of the network, in any spelling: what stands behind
    the last dot, slash or double underscore counts, and there how it ends, unless the group makes it something else.

    >>> [role_of_name(name) for name in ("optimizer.lr", "lr_head", "sgd_momentum", "batchSize")]
    ['lr', 'lr', 'momentum', 'batch_size']
    >>> [role_of_name(name) for name in ("lr_decay", "min_lr", "bn.momentum", "n_units_l2", "warmup_epochs")]
    [None, None, None, None, None]
    """
    return told[name] if told is not None and name in told else _role_of_name(name)


@cache
def _role_of_name(name: str) -> Role | None:
    if name in ROLE_NAMES:
        return ROLE_NAMES[name]
    *groups, _ = _BREAK.split(name)
    role = _role_of_words(words_of(name))
    of_groups = {word for group in groups for word in words_of(group)} & _GROUPS
    return role if role is None or not of_groups & _SOMETHING_ELSE.get(role, frozenset()) else None


def role_said(name: str, told: Mapping[str, Role | None] | None = None) -> Role | None:
    """Return the role that a name says, of numbers or of exponents; what the user has told of it comes first."""
    role = role_of_name(name, told)
    return role if role is not None or (told is not None and name in told) else role_of_exponent(name)


def role_of_exponent(name: str) -> Role | None:
    """Return the role whose numbers a name says to be written as exponents, None where it says no such thing.

    >>> [role_of_exponent(name) for name in ("log_lr", "batchSizeExponent", "log10_weight_decay", "lr", "log_loss")]
    ['lr', 'batch_size', 'weight_decay', None, None]
    """
    words = words_of(name)
    rest = [word for word in words if word not in EXPONENT_WORDS]
    role = _role_of_words(rest) if len(rest) < len(words) else None
    return role if role in ("lr", "weight_decay", "batch_size") else None


def _role_of_words(words: list[str]) -> Role | None:
    for size in (2, 1):
        role = _ENDS.get(" ".join(words[-size:])) if len(words) >= size else None
        before = set(words[:-size])
        if role is not None:
            fits = before <= _COUNT if role == "epochs" else not before & _SOMETHING_ELSE[role]
            if words[-size:] == ["l2"]:
                fits = before <= _OF_L2 | _PARTS
            return role if fits else None
    after = set(words[1:] if words[:1] == ["lr"] else words[2:] if words[:2] == ["learning", "rate"] else ())
    return "lr" if after and after <= _PARTS else None


def is_cyclical(name: str) -> bool:
    """Whether a momentum of this name is cycled against the learning rate: the largest one of a cycle, a beta of Adam.

    >>> [is_cyclical(name) for name in ("momentum", "sgd_momentum", "max_momentum", "adam_beta1")]
    [False, False, True, True]
    """
    return any(word == "max" or word.startswith("beta") for word in words_of(name))


def can_be(role: Role, bounds: Bounds) -> bool:
    """Whether numbers between such bounds can be of a role: a logarithm of the learning rate cannot."""
    least = 1.0 if role in ("batch_size", "epochs") else 0.0
    if role == "weight_decay" and bounds.low >= 1:
        return False  # a count of something
    return bounds.low >= least and bounds.high > 0 and (role != "momentum" or bounds.high <= 1)


def words_of(name: str) -> list[str]:
    """Return the words of a name, or of what stands behind its last dot or slash, in lower case.

    >>> words_of("optimizer.sgdLearning_rate0")
    ['sgd', 'learning', 'rate0']
    """
    return [word.lower() for word in _WORDS.findall(_BREAK.split(name)[-1])]
