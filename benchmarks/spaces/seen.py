"""Ten studies that showed defects when they were new, and were used to mend them."""

from optuna import Trial
from torch import nn
from torch import optim

from benchmarks.spaces.training import Setup
from benchmarks.spaces.training import SpaceTask
from benchmarks.spaces.training import mlp
from benchmarks.spaces.training import optimizer_of


def example(trial: Trial, optimizers: tuple[str, ...] = ("Adam", "RMSprop", "SGD")) -> Setup:
    """Optuna's own PyTorch example: the layers first, then the optimizer by name, the learning rate last."""
    sizes, drop = [64], []
    for i in range(trial.suggest_int("n_layers", 1, 3)):
        sizes.append(trial.suggest_int(f"n_units_l{i}", 4, 128))
        drop.append(trial.suggest_float(f"dropout_l{i}", 0.2, 0.5))
    name = trial.suggest_categorical("optimizer", optimizers)
    net = mlp([*sizes, 10], drop=drop)
    return Setup(net, optimizer_of(name, net, trial.suggest_float("lr", 1e-5, 1e-1, log=True)))


def sgd_first(trial: Trial) -> Setup:
    """The example with its optimizers the other way round."""
    return example(trial, ("SGD", "RMSprop", "Adam"))


def optimizers(trial: Trial) -> Setup:
    """Optimizers with parameters of their own."""
    width = trial.suggest_int("width", 8, 128, log=True)
    name = trial.suggest_categorical("optimizer", ["Adam", "RMSprop", "SGD"])
    lr = trial.suggest_float("lr", 1e-5, 1.0, log=True)
    more: dict[str, object] = {"weight_decay": trial.suggest_float("weight_decay", 1e-6, 1e-2, log=True)}
    if name == "SGD":
        more["momentum"] = trial.suggest_float("momentum", 0.5, 0.99)
    if name == "Adam":
        more["betas"] = (trial.suggest_float("beta1", 0.8, 0.99), 0.999)
    net = mlp([64, width, width, 10])
    return Setup(net, optimizer_of(name, net, lr, **more))


def adam(trial: Trial) -> Setup:
    """All of Adam's numbers."""
    width = trial.suggest_int("width", 8, 128, log=True)
    net = mlp([64, width, width, 10])
    lr = trial.suggest_float("lr", 1e-5, 1e-1, log=True)
    betas = (trial.suggest_float("beta1", 0.8, 0.99), trial.suggest_float("beta2", 0.9, 0.9999))
    eps = trial.suggest_float("eps", 1e-10, 1e-4, log=True)
    decay = trial.suggest_float("weight_decay", 1e-6, 1e-2, log=True)
    return Setup(net, optimizer_of("Adam", net, lr, betas=betas, eps=eps, weight_decay=decay))


def transformers(trial: Trial) -> Setup:
    """The names and ranges of Hugging Face's trainer; the number of epochs is tuned, nothing is reported."""
    lr = trial.suggest_float("learning_rate", 1e-6, 1e-3, log=True)
    size = trial.suggest_categorical("per_device_train_batch_size", [8, 16, 32, 64])
    epochs = trial.suggest_int("num_train_epochs", 1, 5)
    decay, warmup = trial.suggest_float("weight_decay", 0.0, 0.3), trial.suggest_float("warmup_ratio", 0.0, 0.3)
    net = mlp([64, 64, 64, 10])

    def linear(optimizer: optim.Optimizer, steps: int) -> optim.lr_scheduler.LRScheduler:
        rise = max(1, int(warmup * steps))
        return optim.lr_scheduler.LambdaLR(optimizer, lambda k: min((k + 1) / rise, (steps - k) / max(1, steps - rise)))

    return Setup(net, optimizer_of("AdamW", net, lr, weight_decay=decay), size, epochs, linear)


def linear_scale(trial: Trial) -> Setup:
    """A learning rate that is not searched in the exponent, and momenta from 0 to almost 1."""
    lr, momentum = trial.suggest_float("lr", 1e-5, 1e-1), trial.suggest_float("momentum", 0.0, 0.999)
    net = mlp([64, 32, 32, 10])
    return Setup(net, optimizer_of("SGD", net, lr, momentum=momentum))


def lists(trial: Trial) -> Setup:
    """Everything from lists; the first entries are bad."""
    lr = trial.suggest_categorical("lr", [1e-4, 1e-3, 1e-2, 1e-1, 1.0])
    momentum = trial.suggest_categorical("momentum", [0.0, 0.5, 0.9, 0.99])
    decay = trial.suggest_categorical("weight_decay", [0.0, 1e-5, 1e-4, 1e-3, 1e-2])
    act = {"sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "relu": nn.ReLU}
    word = trial.suggest_categorical("act", list(act))
    net = mlp([64, 32, 32, 10], norm=trial.suggest_categorical("batchnorm", [False, True]), act=act[word])
    return Setup(net, optimizer_of("SGD", net, lr, momentum=momentum, weight_decay=decay))


def too_low(trial: Trial) -> Setup:
    """The best learning rate lies above the bounds."""
    return _sgd(trial, (1e-6, 1e-2), (0.5, 0.95), 2)


def too_high(trial: Trial) -> Setup:
    """Most learning rates within the bounds break the network."""
    return _sgd(trial, (1e-3, 100.0), (0.5, 0.99), 4)


def _sgd(trial: Trial, lrs: tuple[float, float], momenta: tuple[float, float], depth: int) -> Setup:
    lr, momentum = trial.suggest_float("lr", *lrs, log=True), trial.suggest_float("momentum", *momenta)
    decay = trial.suggest_float("weight_decay", 1e-6, 1e-1, log=True)
    net = mlp([64, *[32] * depth, 10])
    return Setup(net, optimizer_of("SGD", net, lr, momentum=momentum, weight_decay=decay))


def step_schedule(trial: Trial) -> Setup:
    """A step schedule with numbers of its own, a width and a dropout."""
    lr, momentum = trial.suggest_float("lr", 1e-5, 1.0, log=True), trial.suggest_float("momentum", 0.5, 0.99)
    gamma, every = trial.suggest_float("gamma", 0.1, 0.99), trial.suggest_int("step_size", 1, 8)
    hidden, drop = trial.suggest_int("hidden", 8, 128, log=True), trial.suggest_float("dropout", 0.0, 0.5)
    net = mlp([64, hidden, hidden, 10], drop=[drop, drop])
    return Setup(
        net,
        optimizer_of("SGD", net, lr, momentum=momentum),
        scheduler=lambda optimizer, steps: optim.lr_scheduler.StepLR(optimizer, every * steps // 8, gamma),
    )


SEEN = (
    SpaceTask("example", example, by_error=True),
    SpaceTask("sgd-first", sgd_first, by_error=True),
    SpaceTask("optimizers", optimizers, by_error=True),
    SpaceTask("adam", adam, by_error=True),
    SpaceTask("transformers", transformers, epochs=5, by_error=True, reports=False),
    SpaceTask("linear", linear_scale, epochs=6),
    SpaceTask("lists", lists, epochs=6),
    SpaceTask("too-low", too_low),
    SpaceTask("too-high", too_high),
    SpaceTask("step-schedule", step_schedule, by_error=True),
)
