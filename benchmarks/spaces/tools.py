"""Six studies in the words of well-known tools: scikit-learn, Lightning, PEFT, gensim, and an image recipe."""

import copy
import math
import warnings
from collections.abc import Iterator

import numpy as np
import torch
from optuna import Trial
from sklearn.linear_model import SGDClassifier
from sklearn.neural_network import MLPClassifier
from torch import nn
from torch import optim
from torch.nn import functional

from benchmarks.spaces.language import peft
from benchmarks.spaces.language import word2vec
from benchmarks.spaces.training import SpaceTask
from benchmarks.spaces.training import Trained
from benchmarks.spaces.training import finite
from benchmarks.spaces.training import load
from benchmarks.spaces.training import mlp
from benchmarks.spaces.training import reported
from benchmarks.spaces.training import shuffled


def _errors(task: SpaceTask, model: MLPClassifier | SGDClassifier) -> Iterator[float]:
    """Yield the error after every `partial_fit`; a model that broke is always wrong."""
    x, y, x_val, y_val = (part.numpy() for part in load(task.data))
    broken = False
    for _ in range(task.epochs):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                error = 1.0 if broken else 1 - float(model.partial_fit(x, y, classes=np.unique(y)).score(x_val, y_val))
            except ValueError:  # weights or losses are no numbers
                error, broken = 1.0, True
        yield error


def sklearn_mlp(task: SpaceTask, trial: Trial) -> Trained:
    """MLPClassifier, its sizes by layer, and what only its SGD has; the accuracy, to maximise."""
    layers = trial.suggest_int("n_layers", 1, 3)
    sizes = [trial.suggest_int(f"n_units_l{i}", 8, 128) for i in range(layers)]
    activation = trial.suggest_categorical("activation", ["identity", "logistic", "tanh", "relu"])
    solver = trial.suggest_categorical("solver", ["sgd", "adam"])
    alpha = trial.suggest_float("alpha", 1e-6, 1.0, log=True)
    lr = trial.suggest_float("learning_rate_init", 1e-5, 1.0, log=True)
    size = trial.suggest_categorical("batch_size", [16, 32, 64, 128, 256])
    more: dict[str, object] = {}
    if solver == "sgd":
        more["learning_rate"] = trial.suggest_categorical("learning_rate", ["constant", "invscaling", "adaptive"])
        more["momentum"] = trial.suggest_float("momentum", 0.0, 0.99)
        more["nesterovs_momentum"] = trial.suggest_categorical("nesterovs_momentum", [True, False])
    else:
        more["beta_1"] = trial.suggest_float("beta_1", 0.8, 0.999)
    model = MLPClassifier(
        hidden_layer_sizes=tuple(sizes),
        activation=activation,
        solver=solver,
        alpha=alpha,
        learning_rate_init=lr,
        batch_size=size,
        random_state=_seed(),
        **more,
    )
    return reported(task, trial, _errors(task, model))


def _seed() -> int:
    """Return a seed from torch's generator."""
    return int(torch.randint(2**31 - 1, ()))


def sklearn_linear(task: SpaceTask, trial: Trial) -> Trained:
    """SGDClassifier: its losses and schedules, each with the parameters that only it has; the error."""
    loss = trial.suggest_categorical("loss", ["hinge", "log_loss", "modified_huber", "squared_hinge", "perceptron"])
    penalty = trial.suggest_categorical("penalty", ["l2", "l1", "elasticnet"])
    more: dict[str, object] = {"alpha": trial.suggest_float("alpha", 1e-8, 1.0, log=True)}
    if penalty == "elasticnet":
        more["l1_ratio"] = trial.suggest_float("l1_ratio", 0.0, 1.0)
    schedule = trial.suggest_categorical("learning_rate", ["optimal", "invscaling", "constant", "adaptive"])
    if schedule != "optimal":
        more["eta0"] = trial.suggest_float("eta0", 1e-5, 10.0, log=True)
    if schedule == "invscaling":
        more["power_t"] = trial.suggest_float("power_t", 0.1, 0.9)
    average = trial.suggest_categorical("average", [True, False])
    model = SGDClassifier(
        loss=loss, penalty=penalty, learning_rate=schedule, average=average, random_state=_seed(), **more
    )
    return reported(task, trial, _errors(task, model))


def lightning_cli(task: SpaceTask, trial: Trial) -> Trained:
    """A perceptron of Lightning's command line: dotted names, and accumulated gradients; its `val_loss`."""
    lr = trial.suggest_float("optimizer.init_args.lr", 1e-5, 1e-1, log=True)
    decay = trial.suggest_float("optimizer.init_args.weight_decay", 1e-6, 1.0, log=True)
    hidden = trial.suggest_int("model.hidden_size", 16, 192, step=16)
    layers = trial.suggest_int("model.num_layers", 1, 4)
    drop = trial.suggest_float("model.dropout", 0.0, 0.5)
    size = trial.suggest_categorical("data.batch_size", [16, 32, 64])
    clip = trial.suggest_float("trainer.gradient_clip_val", 0.01, 10.0, log=True)
    gathered = trial.suggest_categorical("trainer.accumulate_grad_batches", [1, 2, 4])
    warm = trial.suggest_int("lr_scheduler.warmup_steps", 0, 100)
    x, y, x_val, y_val = load(task.data)
    x, y = x[:540], y[:540]
    net = mlp([64, *[hidden] * layers, 10], drop=[drop] * layers, act=nn.ReLU)
    optimizer = optim.AdamW(net.parameters(), lr, weight_decay=decay)
    batches = math.ceil(len(y) / size)
    steps = task.epochs * math.ceil(batches / gathered)
    scheduler = optim.lr_scheduler.LambdaLR(
        optimizer, lambda n: min((n + 1) / (warm + 1), 0.5 + 0.5 * math.cos(math.pi * n / steps))
    )

    def epochs() -> Iterator[float]:
        for _ in range(task.epochs):
            net.train()
            for number, batch in enumerate(shuffled(len(y), size), 1):
                torch.autograd.backward(functional.cross_entropy(net(x[batch]), y[batch]) / gathered)
                if number % gathered == 0 or number == batches:
                    nn.utils.clip_grad_norm_(net.parameters(), clip)
                    optimizer.step()
                    optimizer.zero_grad()
                    scheduler.step()
            net.eval()
            with torch.no_grad():
                yield finite(functional.cross_entropy(net(x_val), y_val).item())

    return reported(task, trial, epochs())


def _augmented(x: torch.Tensor, magnitude: float, shift: int, cutout: int) -> torch.Tensor:
    """Return pictures, of which half are turned, scaled and brightened by up to a magnitude, moved, and cut out of."""
    n, grid = len(x), torch.arange(8)
    angle, scale, light = magnitude * (2 * torch.rand(3, n) - 1) * torch.tensor([[0.08], [0.04], [0.08]])
    cos, sin = angle.cos() * scale.exp(), angle.sin() * scale.exp()
    move = torch.randint(-shift, shift + 1, (2, n)) / 4
    turn = torch.stack([cos, -sin, move[0], sin, cos, move[1]], 1).reshape(n, 2, 3)
    where = functional.affine_grid(turn, [n, 1, 8, 8], align_corners=False)
    pictures = functional.grid_sample(x, where, align_corners=False) * light.exp().reshape(n, 1, 1, 1)
    corner = torch.randint(0, 8, (2, n, 1)) - cutout // 2
    rows, columns = (grid >= corner) & (grid < corner + cutout)
    cut = rows[:, None, :, None] & columns[:, None, None, :]
    return torch.where(torch.rand(n, 1, 1, 1) < 0.5, pictures.masked_fill(cut, 0.0), x)


def augment(task: SpaceTask, trial: Trial) -> Trained:
    """Few pictures, ways to make more of them, SAM, and an averaged network, whose loss is known only at the end."""
    lr = trial.suggest_float("lr", 1e-3, 1.0, log=True)
    momentum = trial.suggest_float("momentum", 0.5, 0.99)
    decay = trial.suggest_float("weight_decay", 1e-6, 1e-1, log=True)
    size = trial.suggest_categorical("batch_size", [16, 32, 64])
    magnitude = trial.suggest_int("aug_magnitude", 0, 10)
    shift = trial.suggest_int("aug_shift_px", 0, 3)
    cutout = trial.suggest_int("cutout_size", 0, 5)
    smoothing = trial.suggest_float("label_smoothing", 0.0, 0.3)
    kept = trial.suggest_float("ema_decay", 0.5, 0.999)
    rho = trial.suggest_float("sam_rho", 1e-3, 0.5, log=True)
    x, y, x_val, y_val = load(task.data)
    x, x_val = ((part.reshape(-1, 1, 8, 8) - 0.3) / 0.4 for part in (x[:200], x_val))
    y = y[:200]
    net = nn.Sequential(
        nn.Conv2d(1, 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(256, 48),
        nn.ReLU(),
        nn.Linear(48, 10),
    )
    averaged = copy.deepcopy(net)
    optimizer = optim.SGD(net.parameters(), lr, momentum, weight_decay=decay)
    scheduler = optim.lr_scheduler.CosineAnnealingLR(optimizer, task.epochs * math.ceil(len(y) / size))

    def gradients(pictures: torch.Tensor, target: torch.Tensor) -> list[torch.Tensor]:
        optimizer.zero_grad()
        torch.autograd.backward(functional.cross_entropy(net(pictures), target, label_smoothing=smoothing))
        return [p.grad for p in net.parameters() if p.grad is not None]

    for _ in range(task.epochs):
        for batch in shuffled(len(y), size):
            pictures = _augmented(x[batch], magnitude, shift, cutout)
            ascent = gradients(pictures, y[batch])
            length = rho / (float(sum((part**2).sum() for part in ascent)) ** 0.5 + 1e-12)
            _move(net, ascent, length)
            gradients(pictures, y[batch])
            _move(net, ascent, -length)
            optimizer.step()
            scheduler.step()
            with torch.no_grad():
                for mean, now in zip(averaged.parameters(), net.parameters(), strict=True):
                    mean.lerp_(now, 1 - kept)
    with torch.no_grad():
        loss = functional.cross_entropy(averaged(x_val), y_val)
    return Trained(finite(loss.item()), 1.0, False)


def _move(net: nn.Module, direction: list[torch.Tensor], length: float) -> None:
    """Move a network's parameters."""
    with torch.no_grad():
        for parameter, part in zip(net.parameters(), direction, strict=True):
            parameter.add_(part, alpha=length)


TOOLS = (
    SpaceTask("sklearn_mlp", training=sklearn_mlp, maximize=True),
    SpaceTask("sklearn_linear", training=sklearn_linear, epochs=10),
    SpaceTask("lightning_cli", training=lightning_cli),
    SpaceTask("peft", training=peft, epochs=6),
    SpaceTask("word2vec", training=word2vec, maximize=True),
    SpaceTask("augment", training=augment, epochs=12, reports=False),
)
