"""Two studies of how weights are updated: cyclic rates and an average, and large batches."""

from collections.abc import Callable
from collections.abc import Iterator
from functools import cache

import torch
from optuna import Trial
from sklearn import datasets
from torch import nn
from torch import optim
from torch.nn import functional
from torch.optim import swa_utils

from benchmarks.spaces.training import Parts
from benchmarks.spaces.training import SpaceTask
from benchmarks.spaces.training import Trained
from benchmarks.spaces.training import finite
from benchmarks.spaces.training import load
from benchmarks.spaces.training import mlp
from benchmarks.spaces.training import reported
from benchmarks.spaces.training import shuffled
from benchmarks.spaces.training import step


@cache
def mislabelled() -> Parts:
    """Return a table of five classes with wrong labels."""
    x, y = datasets.make_classification(
        2400, 20, n_informative=10, n_classes=5, n_clusters_per_class=3, class_sep=1.2, flip_y=0.05, random_state=1
    )
    inputs, targets = torch.tensor(x, dtype=torch.float32), torch.tensor(y)
    return inputs[:800], targets[:800], inputs[1200:], targets[1200:]


def cyclic(task: SpaceTask, trial: Trial) -> Trained:
    """Every number of CyclicLR, and of stochastic weight averaging after it; the loss of the average."""
    base_lr = trial.suggest_float("base_lr", 1e-5, 1e-2, log=True)
    max_lr = trial.suggest_float("max_lr", 1e-3, 1.0, log=True)
    step_size_up = trial.suggest_int("step_size_up", 5, 80)
    mode = trial.suggest_categorical("mode", ["triangular", "triangular2", "exp_range"])
    cycle_momentum = trial.suggest_categorical("cycle_momentum", [False, True])
    swa_start = trial.suggest_float("swa_start", 0.3, 0.95)
    swa_lr = trial.suggest_float("swa_lr", 1e-4, 1.0, log=True)
    weight_decay = trial.suggest_float("weight_decay", 1e-6, 1e-1, log=True)
    x, y, x_val, y_val = mislabelled()
    net = mlp([20, 48, 48, 5])
    optimizer = optim.SGD(net.parameters(), base_lr, 0.9, weight_decay=weight_decay)
    cycle = optim.lr_scheduler.CyclicLR(
        optimizer, base_lr, max(max_lr, base_lr), step_size_up, mode=mode, gamma=0.99, cycle_momentum=cycle_momentum
    )
    averaged = swa_utils.AveragedModel(net)

    def epochs() -> Iterator[float]:
        for epoch in range(task.epochs):
            late = epoch >= swa_start * task.epochs
            for batch in shuffled(len(y), 64):
                if late:
                    optimizer.param_groups[0]["lr"] = swa_lr
                step(optimizer, functional.cross_entropy(net(x[batch]), y[batch]), net)
                if not late:
                    cycle.step()
            if late:
                averaged.update_parameters(net)
            with torch.no_grad():
                yield finite(functional.cross_entropy((averaged if late else net)(x_val), y_val).item())

    return reported(task, trial, epochs())


class LargeBatch(optim.Optimizer):
    """LARS (You and others 2017), LAMB (2019) and Lion (Chen and others 2023) in their plainest form.

    Args:
        net: What is trained.
        name: "lars", "lamb" or "lion".
        lr: Learning rate.
        betas: Decay of the first moment, and of the second (LAMB) or of what Lion keeps.
        decay: Weight decay.
        trust: Trust coefficient of LARS.
    """

    def __init__(
        self, net: nn.Module, name: str, lr: float, betas: tuple[float, float], decay: float, trust: float
    ) -> None:
        super().__init__(net.parameters(), {"lr": lr})
        self.betas, self.decay, self.trust, self.updates = betas, decay, trust, 0
        self.update = {"lars": self._lars, "lamb": self._lamb, "lion": self._lion}[name]

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Make one update."""
        self.updates += 1
        for group in self.param_groups:
            for p in group["params"]:
                m = self.state[p].setdefault("m", torch.zeros_like(p))
                self.update(p, p.grad, m, group["lr"])

    def _lars(self, p: torch.Tensor, g: torch.Tensor, m: torch.Tensor, lr: float) -> None:
        g = g + self.decay * p
        m.mul_(self.betas[0]).add_((self.trust * p.norm() / (g.norm() + 1e-9) if p.ndim > 1 else 1.0) * g)
        p.sub_(lr * m)

    def _lamb(self, p: torch.Tensor, g: torch.Tensor, m: torch.Tensor, lr: float) -> None:
        v = self.state[p].setdefault("v", torch.zeros_like(p))
        m.lerp_(g, 1 - self.betas[0])
        v.lerp_(g * g, 1 - self.betas[1])
        mean, square = (moment / (1 - b**self.updates) for moment, b in zip((m, v), self.betas, strict=True))
        u = mean / (square.sqrt() + 1e-6) + self.decay * p
        p.sub_((lr * (p.norm() / (u.norm() + 1e-9)) if p.ndim > 1 else lr) * u)

    def _lion(self, p: torch.Tensor, g: torch.Tensor, m: torch.Tensor, lr: float) -> None:
        p.mul_(1 - lr * self.decay).sub_(lr * m.lerp(g, 1 - self.betas[0]).sign())
        m.lerp_(g, 1 - self.betas[1])


def large_batch(task: SpaceTask, trial: Trial) -> Trained:
    """Large batches: LARS, LAMB, Lion or AdamW, warm restarts, Lookahead for some; the loss."""
    optimizer_name = trial.suggest_categorical("optimizer", ["lars", "lamb", "lion", "adamw"])
    lr = trial.suggest_float("lr", 1e-5, 10.0, log=True)
    batch_size = trial.suggest_categorical("batch_size", [128, 256, 512])
    weight_decay = trial.suggest_float("weight_decay", 1e-6, 1e-1, log=True)
    beta1 = trial.suggest_float("beta1", 0.8, 0.98)
    trust = trial.suggest_float("trust_coefficient", 1e-4, 1e-1, log=True) if optimizer_name == "lars" else 0.0
    beta2 = trial.suggest_float("beta2", 0.9, 0.999) if optimizer_name != "lars" else 0.0
    t_0, t_mult = trial.suggest_int("T_0", 2, 16), trial.suggest_int("T_mult", 1, 3)
    eta_min = trial.suggest_float("eta_min", 1e-8, 1e-3, log=True)
    lookahead = trial.suggest_categorical("lookahead", [False, True])
    k = trial.suggest_int("lookahead_k", 2, 10) if lookahead else 0
    alpha = trial.suggest_float("lookahead_alpha", 0.2, 0.9) if lookahead else 0.0
    x, y, x_val, y_val = load("digits")
    net = mlp([64, 64, 64, 10])
    betas = beta1, beta2
    optimizer: optim.Optimizer
    if optimizer_name == "adamw":
        optimizer = optim.AdamW(net.parameters(), lr, betas, weight_decay=weight_decay)
    else:
        optimizer = LargeBatch(net, optimizer_name, lr, betas, weight_decay, trust)
    restarts = optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, t_0, t_mult, eta_min)
    slow = [p.detach().clone() for p in net.parameters()]

    def epochs() -> Iterator[float]:
        update = 0
        for _ in range(task.epochs):
            for batch in shuffled(len(y), batch_size):
                step(optimizer, functional.cross_entropy(net(x[batch]), y[batch]), net)
                update += 1
                if lookahead and update % k == 0:
                    with torch.no_grad():
                        for p, s in zip(net.parameters(), slow, strict=True):
                            p.copy_(s.lerp_(p, alpha))
            restarts.step()
            with torch.no_grad():
                yield finite(functional.cross_entropy(net(x_val), y_val).item())

    return reported(task, trial, epochs())


OPTIMIZERS = (
    SpaceTask("cyclic", training=cyclic, epochs=10),
    SpaceTask("large-batch", training=large_batch, epochs=12),
)
