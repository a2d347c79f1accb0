"""Which role a parameter has by its name: the usual names, and those that say the same with a group or an optimizer."""

import re
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from functools import cache
from functools import lru_cache

from optuna_discipline.rules.space import Bounds
from optuna_discipline.rules.space import Role

ROLE_NAMES: Mapping[str, Role] = {
    **dict.fromkeys(("lr", "max_lr", "learning_rate", "learning_rate_init"), "lr"),
    **dict.fromkeys(("momentum", "max_momentum", "beta1", "adam_beta1"), "momentum"),
    **dict.fromkeys(("weight_decay", "wd", "l2"), "weight_decay"),
    **dict.fromkeys(("batch_size", "train_batch_size", "per_device_train_batch_size"), "batch_size"),
    **dict.fromkeys(("epochs", "n_epochs", "num_epochs", "max_epochs", "num_train_epochs"), "epochs"),
}
# What precedes a mere "l2", or follows it; behind anything else it counts layers: `n_units_l2`.
_OF_L2 = frozenset(
    {"lambda", "reg", "regularization", "regularizer", "weight", "weights", "kernel", "penalty", "alpha"}
)
_COUNT = frozenset({"n", "num", "nb", "number", "of", "max", "total", "train", "training"})  # what may precede "epochs"
# How names of policy optimisation end: the clipping of a policy, and what else no other training has.
POLICY_CLIPS = ("cliprange", "eps clip", *(f"clip {w}" for w in ("range", "epsilon", "eps", "param", "coef", "ratio")))
_OF_A_POLICY = frozenset(
    {*POLICY_CLIPS, "gae lambda", "target kl"}
    | {f"{what} {word}" for what in ("ent", "entropy", "vf", "vloss") for word in ("coef", "coeff")}
)
# The words of a name that say a role, and those before them that make something else of it.
_SAYS: Mapping[str, Role | None] = {
    **dict.fromkeys(("lr", "blr", "lrate", "learn rate", "learning rate", "learningrate", "eta0"), "lr"),
    **dict.fromkeys(("momentum", "mom", "beta1", "beta 1"), "momentum"),
    "encoder momentum": None,  # of a moving average of its weights
    **dict.fromkeys(("weight decay", "weightdecay", "wd", "l2", *(f"l2 {word}" for word in _OF_L2)), "weight_decay"),
    **dict.fromkeys(("batch size", "batchsize", "minibatch size", "bs", "bsz"), "batch_size"),
    **dict.fromkeys(("epochs", *(f"{word} epoch" for word in _COUNT)), "epochs"),
}
EXPONENT_WORDS = frozenset({"log", "log2", "log10", "ln", "exp", "exponent", "pow", "power"})
_BATCHES = ("batch", "train batch", "minibatch", "mini batch")  # whose exponent is that of their size
_ELSE = frozenset({"min", "final", "end", "last", "use"}) | EXPONENT_WORDS
_INDEX = frozenset({"idx", "index", "id"})
_NORMS = frozenset({"bn", "batchnorm", "norm"})
_AVERAGES = frozenset({"ema", "teacher", "target", "moco", "byol", "dino", "key"})  # of weights; each has a momentum
_SOMETHING_ELSE: Mapping[Role, frozenset[str]] = {
    "lr": _ELSE | {"warmup", "eta"},
    "momentum": _ELSE | _NORMS | _AVERAGES | {"batch", "base"},
    "weight_decay": _ELSE | {"bias", "bn", "norm"},
    "batch_size": _ELSE | {"eval", "val", "valid", "validation", "test", "inference", "predict"},
}
# Whose l2 it may be: that of a part of the network, of an optimizer.
_PARTS = frozenset(
    {"body", "head", "backbone", "encoder", "decoder", "classifier", "features", "generator", "discriminator", "g", "d"}
    | {"actor", "critic", "policy", "value", "base", "init", "initial", "max", "peak", "all"}
    | {"sgd", "adam", "adamw", "rmsprop"}
)
# Whatever follows a learning rate says whose it is, `lr_unet`, or which, `lr_2`, unless it speaks of a schedule, of a
# share, or of logistic regression.
_MAY_GO_ON: tuple[Role, ...] = ("lr", "weight_decay", "batch_size")
_NOT_OF_A_PART = frozenset(
    {"decay", "gamma", "schedule", "scheduler", "sched", "type", "mode", "warmup", "cooldown", "patience", "noise"}
    | {"step", "steps", "stepsize", "every", "epoch", "epochs", "iter", "iters", "interval", "period", "freq"}
    | {"frequency", "milestone", "milestones", "cycle", "cycles", "restart", "restarts", "anneal", "annealing"}
    | {"drop", "drops", "reduce", "reduction", "growth", "plateau", "threshold", "delta", "cosine", "range", "finder"}
    | {"ratio", "factor", "mult", "multiplier", "scale", "scaling", "div", "pct", "percent", "frac", "fraction"}
    | {"low", "lower", "floor", "c", "l1", "tol", "penalty", "warm", "delay", "dropout"}
)
# Of the groups that a parameter is in, those that make something else of it.
_GROUPS = _SOMETHING_ELSE["batch_size"] - _ELSE | {"min", "final", "warmup"} | _NORMS | _AVERAGES
# Names of a penalty on weights or activations, and the words that may stand beside them. Behind other words an l1 is a
# layer's, a ratio is elastic net's, and `sparsity` alone is mostly the share of weights that are 0.
_REGULARIZATION = frozenset({"reg", "regularization", "regularizer", "regularisation", "regulariser"})
_PENALTIES = _REGULARIZATION | {"l1", "l2", "penalty"}
_SPARSE = frozenset({"sparse", "sparsity"})
_OF_A_PENALTY = _OF_L2 | _PARTS | _PENALTIES | _SPARSE | {"lam", "lambd", "lmbda", "coef", "coeff", "coefficient"}
_OF_A_PENALTY |= {"strength", "factor", "bias", "activity", "activation"}
_OF_NO_WEIGHTS = frozenset({"entropy", "ent", "kl", "box", "bbox", "loss", "mse", "iou", "dice"}) | EXPONENT_WORDS
# A momentum of an optimizer may be larger than this, unless it is 1 less itself.
MOST_SMALL_MOMENTUM = 0.5
_TURNED = frozenset({"minus", "less", "inverse", "inv"})
_SEPARATOR = re.compile(r"[./:]|__")
_NUMBERED_LR = re.compile(r"lr[0-9]+")
_SEED = re.compile(r"(?!(?:n|num|nb|number) )(?:.* )?(?:seed|randomseed|random ?state)(?: ?[0-9]+)?")
_WORDS = re.compile(r"[A-Z]+(?![a-z])[0-9]*|[A-Z]?[a-z]+[0-9]*|[0-9]+")


def role_of_name(name: str, told: Mapping[str, Role | None] | None = None) -> Role | None:
    """Return the role that a name says, None where it says none; what the user has told of it comes first.

    Beside the usual names those of a group, an optimizer or a part of the network, in any spelling: what stands behind
    the last dot, slash or double underscore counts, and there the last words that say a role, unless the group or the
    other words make it something else.

    >>> [role_of_name(name) for name in ("optimizer.lr", "lr_head", "sgd_momentum", "batchSize", "lr_2")]
    ['lr', 'lr', 'momentum', 'batch_size', 'lr']
    >>> [role_of_name(name) for name in ("lr_decay", "min_lr", "bn.momentum", "n_units_l2", "warmup_epochs")]
    [None, None, None, None, None]
    """
    return told[name] if told is not None and name in told else _role_of_name(name)


@cache
def _role_of_name(name: str) -> Role | None:
    if name in ROLE_NAMES:
        return ROLE_NAMES[name]
    *groups, _ = _SEPARATOR.split(name)
    role = _role_of_words(words_of(name))
    of_groups = {word for group in groups for word in words_of(group)} & _GROUPS
    return role if role is None or not of_groups & _SOMETHING_ELSE.get(role, frozenset()) else None


def role_said(name: str, told: Mapping[str, Role | None] | None = None) -> Role | None:
    """Return the role that a name says, of numbers or of exponents; what the user has told of it comes first."""
    role = role_of_name(name, told)
    return role if role is not None or (told is not None and name in told) else role_of_exponent(name)


@lru_cache
def role_of_exponent(name: str) -> Role | None:
    """Return the role whose numbers a name says to be written as exponents, None where it says no such thing.

    >>> [role_of_exponent(name) for name in ("log_lr", "batchSizeExponent", "log10_weight_decay", "lr", "log_loss")]
    ['lr', 'batch_size', 'weight_decay', None, None]
    >>> [role_of_exponent(name) for name in ("log2_batch", "batch_exp", "batch", "batch_norm_exp", "val_batch_exp")]
    ['batch_size', 'batch_size', None, None, None]
    """
    words = words_of(name)
    rest = [word for word in words if word not in EXPONENT_WORDS]
    role = _role_of_words([*rest, "size"] if " ".join(rest) in _BATCHES else rest) if len(rest) < len(words) else None
    return role if role in ("lr", "weight_decay", "batch_size") else None


def _role_of_words(words: Sequence[str]) -> Role | None:
    plain = ["lr" if _NUMBERED_LR.fullmatch(word) else word for word in words]
    for end in range(len(plain), 0, -1):
        for size in (2, 1):
            said = plain[max(0, end - size) : end]
            if " ".join(said) in _SAYS:
                role = _SAYS[" ".join(said)]
                return role if role and _fits(role, said, set(plain[: end - len(said)]), set(plain[end:])) else None
    return None


def _fits(role: Role, said: list[str], before: set[str], after: set[str]) -> bool:
    """Whether the other words of a name leave it the role that some say."""
    if after and (role not in _MAY_GO_ON or said == ["l2"] or after & (_SOMETHING_ELSE[role] | _NOT_OF_A_PART)):
        return False
    if role == "epochs":
        return before <= _COUNT
    return before <= _OF_L2 | _PARTS if said == ["l2"] else not before & _SOMETHING_ELSE[role]


def without_passes(
    roles: Mapping[str, Role], beside: Iterable[str], told: Mapping[str, Role | None] | None = None
) -> dict[str, Role]:
    """Return the roles of names, without those epochs that are no length of a training, unless the user has told so.

    Beside names of policy optimisation they are passes over a buffer.

    >>> without_passes({"n_epochs": "epochs", "lr": "lr"}, ["n_epochs", "lr", "ppo.clip_range"])
    {'lr': 'lr'}
    >>> without_passes({"n_epochs": "epochs", "lr": "lr"}, ["n_epochs", "lr", "grad_clip"])
    {'n_epochs': 'epochs', 'lr': 'lr'}
    """
    guessed = {name for name, role in roles.items() if role == "epochs" and name not in (told or {})}
    if not guessed or not any(end in _OF_A_POLICY for name in beside for end in ends_of(name)):
        return dict(roles)
    return {name: role for name, role in roles.items() if name not in guessed}


def is_cyclical(name: str) -> bool:
    """Whether a momentum of this name is cycled against the learning rate: the largest one of a cycle, a beta of Adam.

    >>> [is_cyclical(name) for name in ("momentum", "sgd_momentum", "max_momentum", "adam_beta1")]
    [False, False, True, True]
    """
    return any(word == "max" or word.startswith("beta") for word in words_of(name))


def says_seed(name: str) -> bool:
    """Whether a name says a random generator's seed, which is no setting: another one would be as good.

    >>> [says_seed(name) for name in ("seed", "data.randomState", "seed_2", "n_seeds", "num_seed", "seed_ratio")]
    [True, True, True, False, False, False]
    """
    return _SEED.fullmatch(" ".join(words_of(name))) is not None


def says_penalty(name: str) -> bool:
    """Whether a name says how much a penalty on weights or activations counts; the weight of another loss is none.

    >>> [says_penalty(name) for name in ("l1_lambda", "tv_reg", "lambda_sparse", "n_units_l1", "l1_ratio", "kl_weight")]
    [True, True, True, False, False, False]
    """
    words = words_of(name)
    if _REGULARIZATION.intersection(words[-1:]):
        return _OF_NO_WEIGHTS.isdisjoint(words)
    said = _PENALTIES if len(words) == 1 else _PENALTIES | _SPARSE
    return not said.isdisjoint(words) and _OF_A_PENALTY.issuperset(words)


def says_index(name: str) -> bool:
    """Whether a name says an index, if its numbers are whole: a rate of a data set with an id is none.

    >>> [says_index(name) for name in ("lr_idx", "dataset_id_lr", "lr")]
    [True, True, False]
    """
    return not _INDEX.isdisjoint(words_of(name))


def can_be(role: Role, bounds: Bounds) -> bool:
    """Whether numbers between such bounds can be of a role: a logarithm of the learning rate cannot."""
    least = 1.0 if role in ("batch_size", "epochs") else 0.0
    if role in ("lr", "weight_decay") and bounds.low >= 1:
        return False  # a count of something
    return bounds.low >= least and bounds.high > 0 and (role != "momentum" or bounds.high <= 1)


def is_small_momentum(name: str, bounds: Bounds) -> bool:
    """Whether numbers of a momentum's name are too small to trade against the learning rate, as a batch norm's are.

    >>> [is_small_momentum(name, Bounds(0.01, 0.5)) for name in ("sgd_momentum", "one_minus_momentum", "beta1")]
    [True, False, False]
    """
    words = words_of(name)
    turned = not _TURNED.isdisjoint(words) or any(word.startswith("beta") for word in words)
    return bounds.low < bounds.high <= MOST_SMALL_MOMENTUM and not turned


@lru_cache
def words_of(name: str) -> tuple[str, ...]:
    """Return the words of a name, or of what stands behind its last dot or slash, in lower case.

    >>> words_of("optimizer.sgdLearning_rate0")
    ('sgd', 'learning', 'rate0')
    """
    return tuple(word.lower() for word in _WORDS.findall(_SEPARATOR.split(name)[-1]))


def all_words_of(name: str) -> tuple[str, ...]:
    """Return the words of a name and of its groups, the nearest first, then those that capitals may have broken.

    >>> all_words_of("optim.RMSprop/lr")
    ('lr', 'sprop', 'rm', 'optim', 'lr', 'rmsprop', 'optim')
    """
    found = [*reversed(_WORDS.findall(name)), *reversed(_WORDS.findall(name.lower()))]
    return tuple(word.lower() for word in found)


def ends_of(name: str) -> tuple[str, str]:
    """Return the last two words of a name, and the last."""
    words = words_of(name)
    return " ".join(words[-2:]), " ".join(words[-1:])
