"""Eight studies in the search spaces of published benchmarks and examples, with their names and bounds."""

import torch
from optuna import Trial
from torch import nn
from torch import optim

from benchmarks.spaces.training import Scheduler
from benchmarks.spaces.training import Setup
from benchmarks.spaces.training import SpaceTask
from benchmarks.spaces.training import cosine
from benchmarks.spaces.training import mlp
from benchmarks.spaces.training import optimizer_of


def _falling_to(share: float) -> Scheduler:
    """Return a rate that falls to a share of itself, by one factor at every update."""
    return lambda optimizer, steps: optim.lr_scheduler.ExponentialLR(optimizer, share ** (1 / steps))


def lcbench(trial: Trial) -> Setup:
    """LCBench (Zimmer et al. 2021): a funnel trained by SGD under a cosine; weight decay and momentum as they are."""
    size, lr = (
        trial.suggest_int("batch_size", 16, 512, log=True),
        trial.suggest_float("learning_rate", 1e-4, 1e-1, log=True),
    )
    momentum, decay = trial.suggest_float("momentum", 0.1, 0.99), trial.suggest_float("weight_decay", 1e-5, 1e-1)
    layers, units = trial.suggest_int("num_layers", 1, 5), trial.suggest_int("max_units", 64, 1024, log=True)
    drop = trial.suggest_float("max_dropout", 0.0, 1.0)
    sizes = [round(units + (10 - units) * i / layers) for i in range(layers)]
    net = mlp([64, *sizes, 10], drop=[drop * (1 - i / layers) for i in range(layers)])
    return Setup(net, optimizer_of("SGD", net, lr, momentum=momentum, weight_decay=decay), size, scheduler=cosine)


def pd1(trial: Trial) -> Setup:
    """PD1 (Wang et al. 2021): a polynomial schedule; momentum as 1 less itself, on a log scale."""
    shown, lr = (
        trial.suggest_float("lr_decay_factor", 0.01, 0.99),
        trial.suggest_float("lr_initial", 1e-5, 10, log=True),
    )
    power, left = trial.suggest_float("lr_power", 0.1, 2.0), trial.suggest_float("opt_momentum", 1e-3, 1.0, log=True)
    net = mlp([64, 64, 64, 10], norm=True)

    def polynomial(optimizer: optim.Optimizer, steps: int) -> optim.lr_scheduler.LRScheduler:
        return optim.lr_scheduler.PolynomialLR(optimizer, max(1, round(shown * steps)), power)

    nesterov = optimizer_of("SGD", net, lr, momentum=1 - left, nesterov=left < 1)
    return Setup(net, nesterov, scheduler=polynomial)


def fcnet(trial: Trial) -> Setup:
    """The regressions of HPOlib (Klein and Hutter 2019): two layers, nine lists, Adam."""
    act = {"tanh": nn.Tanh, "relu": nn.ReLU}
    units, drops, acts = [], [], []
    for i in (1, 2):
        units.append(trial.suggest_categorical(f"n_units_{i}", [16, 32, 64, 128, 256, 512]))
        drops.append(trial.suggest_categorical(f"dropout_{i}", [0.0, 0.3, 0.6]))
        acts.append(act[trial.suggest_categorical(f"activation_fn_{i}", ["tanh", "relu"])])
    layers: list[nn.Module] = []
    for n, m, drop, kind in zip([10, units[0]], units, drops, acts, strict=True):
        layers += [nn.Linear(n, m), kind(), nn.Dropout(drop)]
    net = nn.Sequential(*layers, nn.Linear(units[1], 1))
    lr = trial.suggest_categorical("init_lr", [5e-4, 1e-3, 5e-3, 1e-2, 5e-2, 1e-1])
    schedule = {"cosine": cosine, "const": None}[trial.suggest_categorical("lr_schedule", ["cosine", "const"])]
    size = trial.suggest_categorical("batch_size", [8, 16, 32, 64])
    return Setup(net, optimizer_of("Adam", net, lr), size, scheduler=schedule)


def paramnet(trial: Trial) -> Setup:
    """ParamNet (Falkner et al. 2018): a shaped perceptron, a rate that falls to a fraction of itself."""
    lr, size = (
        trial.suggest_float("initial_learning_rate", 1e-6, 1e-2, log=True),
        trial.suggest_int("batch_size", 8, 256, log=True),
    )
    units = trial.suggest_int("average_units_per_layer", 16, 256, log=True)
    last = trial.suggest_float("final_learning_rate_fraction", 1e-4, 1.0, log=True)
    shape, layers = trial.suggest_float("shape_parameter_1", 0.0, 1.0), trial.suggest_int("num_layers", 1, 5)
    drops = [trial.suggest_float("dropout_0", 0.0, 0.5), trial.suggest_float("dropout_1", 0.0, 0.5)]
    sizes = [max(2, round(units * (1 + (2 * shape - 1) * (0.5 - (i + 0.5) / layers)))) for i in range(layers)]
    net = mlp([30, *sizes, 2], drop=[drops[0], *[drops[1]] * (layers - 1)])
    return Setup(net, optimizer_of("Adam", net, lr), size, scheduler=_falling_to(last))


def bohb(trial: Trial) -> Setup:
    """The convolutional network of BOHB's PyTorch example: momentum only of SGD, filters only of layers there are."""
    lr, name = trial.suggest_float("lr", 1e-6, 1e-1, log=True), trial.suggest_categorical("optimizer", ["Adam", "SGD"])
    more = {"momentum": trial.suggest_float("sgd_momentum", 0.0, 0.99)} if name == "SGD" else {}
    layers: list[nn.Module] = [nn.Unflatten(1, (1, 8, 8))]
    for i in range(trial.suggest_int("num_conv_layers", 1, 3)):
        filters = trial.suggest_int(f"num_filters_{i + 1}", 4, 64 if i == 0 else 32, log=True)
        layers += [nn.LazyConv2d(filters, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    drop, units = trial.suggest_float("dropout_rate", 0.0, 0.9), trial.suggest_int("num_fc_units", 8, 256, log=True)
    net = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(drop), nn.LazyLinear(units), nn.ReLU(), nn.LazyLinear(10))
    net(torch.zeros(1, 64))
    return Setup(net, optimizer_of(name, net, lr, **more))


class Shift(nn.Module):
    """Moves the 8x8 images of a batch by up to a pixel, in training."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return images of the same shape."""
        down, right = torch.randint(-1, 2, (2,)).tolist()
        return x.roll((down, right), (2, 3)) if self.training else x


def jahs(trial: Trial) -> Setup:
    """JAHS-Bench-201 (Bansal et al. 2022) in small: depth, width and resolution from lists, an augmentation."""
    act = {"ReLU": nn.ReLU, "Hardswish": nn.Hardswish, "Mish": nn.Mish}[
        trial.suggest_categorical("Activation", ["ReLU", "Hardswish", "Mish"])
    ]
    lr = trial.suggest_float("LearningRate", 1e-3, 1.0, log=True)
    depth, width = trial.suggest_categorical("N", [1, 3, 5]), trial.suggest_categorical("W", [4, 8, 16])
    side = round(8 * trial.suggest_categorical("Resolution", [0.25, 0.5, 1.0]))
    layers: list[nn.Module] = [nn.Unflatten(1, (1, 8, 8))]
    layers += [Shift()] if trial.suggest_categorical("TrivialAugment", [False, True]) else []
    layers += [nn.AdaptiveAvgPool2d(side), nn.Conv2d(1, width, 3, padding=1)]
    for _ in range(depth):
        layers += [nn.BatchNorm2d(width), act(), nn.Conv2d(width, width, 3, padding=1)]
    net = nn.Sequential(*layers, nn.BatchNorm2d(width), act(), nn.Flatten(), nn.Linear(width * side**2, 10))
    decay = trial.suggest_float("WeightDecay", 1e-5, 1e-2, log=True)
    return Setup(net, optimizer_of("SGD", net, lr, momentum=0.9, nesterov=True, weight_decay=decay), scheduler=cosine)


def taskset(trial: Trial) -> Setup:
    """TaskSet (Metz et al. 2020): all of Adam over many decades, 1 less its betas, a falling rate."""
    lr = trial.suggest_float("learning_rate", 1e-8, 10.0, log=True)
    left1, left2 = (
        trial.suggest_float("one_minus_beta1", 1e-4, 1.0, log=True),
        trial.suggest_float("one_minus_beta2", 1e-6, 1.0, log=True),
    )
    eps, l2 = trial.suggest_float("epsilon", 1e-10, 1e3, log=True), trial.suggest_float("l2", 1e-8, 10.0, log=True)
    falls = trial.suggest_float("exponential_decay", 1e-3, 1.0, log=True)
    net = mlp([64, 64, 64, 10])
    adam = optimizer_of("Adam", net, lr, betas=(1 - left1, 1 - left2), eps=eps, weight_decay=l2)
    return Setup(net, adam, scheduler=_falling_to(falls))


def algoperf(trial: Trial) -> Setup:
    """AlgoPerf's NAdamW (Dahl et al. 2023): 1 less beta1, lists for the rest, a cosine after a warm-up."""
    drop = trial.suggest_categorical("dropout_rate", [0.0, 0.1])
    lr = trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True)
    left = trial.suggest_float("one_minus_beta1", 1e-2, 0.5, log=True)
    beta2 = trial.suggest_categorical("beta2", [0.9, 0.99, 0.999])
    warmup = trial.suggest_categorical("warmup_factor", [0.02, 0.05, 0.1])
    decay = trial.suggest_float("weight_decay", 1e-4, 1.0, log=True)
    net = mlp([64, 64, 64, 10], drop=[drop, drop])

    def warm(optimizer: optim.Optimizer, steps: int) -> optim.lr_scheduler.LRScheduler:
        rise = max(1, round(warmup * steps))
        start = optim.lr_scheduler.LinearLR(optimizer, 1 / rise, total_iters=rise)
        return optim.lr_scheduler.SequentialLR(optimizer, [start, cosine(optimizer, steps - rise)], [rise])

    made = optimizer_of("NAdam", net, lr, betas=(1 - left, beta2), weight_decay=decay, decoupled_weight_decay=True)
    return Setup(net, made, scheduler=warm)


PUBLISHED = (
    SpaceTask("lcbench", lcbench, by_error=True, maximize=True),
    SpaceTask("pd1", pd1),
    SpaceTask("fcnet", fcnet, data="diabetes", epochs=12),
    SpaceTask("paramnet", paramnet, data="breast_cancer", epochs=12, by_error=True),
    SpaceTask("bohb", bohb, epochs=5, by_error=True),
    SpaceTask("jahs", jahs, epochs=5, by_error=True, maximize=True),
    SpaceTask("taskset", taskset),
    SpaceTask("algoperf", algoperf),
)
