"""Five studies of other targets: triplets, quantiles, pseudo labels, a network's own values, what it once said."""

from collections.abc import Iterator
from functools import cache

import torch
from optuna import Trial
from torch import optim
from torch.nn import functional
from torch.optim import swa_utils

from benchmarks.spaces.training import SpaceTask
from benchmarks.spaces.training import Trained
from benchmarks.spaces.training import finite
from benchmarks.spaces.training import load
from benchmarks.spaces.training import mlp
from benchmarks.spaces.training import reported
from benchmarks.spaces.training import shuffled
from benchmarks.spaces.training import step
from benchmarks.spaces.training import told

LABELLED = 40
WALLS = {(1, 1), (1, 2), (3, 3)}
AGENTS = 16
STEPS = 18  # of every agent between evaluations


def triplet(task: SpaceTask, trial: Trial) -> Trained:
    """Metric learning by plain SGD; the recall at 1, to maximise, looked at after every third epoch."""
    margin = trial.suggest_float("margin", 0.01, 3.0, log=True)
    mining = trial.suggest_categorical("mining", ["random", "semihard", "hard"])
    embedding_size = trial.suggest_categorical("embedding_size", [2, 4, 8, 16, 32])
    normalize = trial.suggest_categorical("normalize_embeddings", [True, False])
    lr = trial.suggest_float("lr", 1e-3, 1.0, log=True)
    x, y, x_val, y_val = load("digits")
    net = mlp([64, 64, embedding_size])
    optimizer = optim.SGD(net.parameters(), lr)

    def embed(images: torch.Tensor) -> torch.Tensor:
        return functional.normalize(net(images)) if normalize else net(images)

    def loss(z: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        apart = (((z[:, None] - z[None]) ** 2).sum(2) + 1e-9).sqrt()
        same = labels[:, None] == labels
        near, other = same & ~torch.eye(len(z), dtype=torch.bool), ~same
        if mining == "random":
            p, n = ((torch.rand_like(apart) * mask).argmax(1, keepdim=True) for mask in (near, other))
            return (margin + apart.gather(1, p) - apart.gather(1, n)).relu().mean()
        farthest = apart.masked_fill(~near, -1.0).amax(1, keepdim=True)
        usable = other & (apart > farthest) if mining == "semihard" else other
        return (margin + farthest - apart.masked_fill(~usable, 1e6).amin(1, keepdim=True)).relu().mean()

    value = 1.0
    for epoch in range(task.epochs):
        for batch in shuffled(len(x), 120):
            step(optimizer, loss(embed(x[batch]), y[batch]), net)
        if epoch % 3 == 2:
            with torch.no_grad():
                apart = torch.cdist(embed(x_val), embed(x[:400])).nan_to_num(1e9)
            value = (y[:400][apart.argmin(1)] != y_val).float().mean().item()
            trial.report(told(task, value), epoch)
            if trial.should_prune():
                return Trained(value, (epoch + 1) / task.epochs, True)
    return Trained(value, 1.0, False)


def quantile(task: SpaceTask, trial: Trial) -> Trained:
    """Three quantiles of the progression of diabetes; the pinball loss, told at the end only; a linear rate."""
    hidden_units = trial.suggest_int("hidden_units", 8, 128, step=8)
    dropout_rate = trial.suggest_float("dropout_rate", 0.0, 0.5)
    learning_rate = trial.suggest_float("learning_rate", 0.0005, 0.05)
    l2_reg = trial.suggest_float("l2_reg", 1e-6, 1.0, log=True)
    x, y, x_val, y_val = load("diabetes")
    net = mlp([10, hidden_units, hidden_units, 3], drop=[dropout_rate, dropout_rate])
    optimizer = optim.Adam(net.parameters(), learning_rate, weight_decay=l2_reg, fused=True)
    levels = torch.tensor([0.1, 0.5, 0.9])

    def pinball(out: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        off = target[:, None] - out
        return torch.maximum(levels * off, (levels - 1) * off).mean()

    for _ in range(task.epochs):
        for batch in shuffled(len(y), 16):
            step(optimizer, pinball(net(x[batch]), y[batch]), net)
    net.eval()
    with torch.no_grad():
        return Trained(finite(pinball(net(x_val), y_val).item()), 1.0, False)


def fixmatch(task: SpaceTask, trial: Trial) -> Trained:
    """Forty labels and the rest without (Sohn and others 2020), SGD with Nesterov's momentum of 0.9; the error."""
    lr = trial.suggest_float("lr", 1e-3, 1.0, log=True)
    wdecay = trial.suggest_float("wdecay", 1e-5, 1e-1, log=True)
    mu = trial.suggest_int("mu", 1, 7)
    lambda_u = trial.suggest_float("lambda_u", 0.1, 10.0, log=True)
    threshold = trial.suggest_float("threshold", 0.5, 0.99)
    ema_decay = trial.suggest_float("ema_decay", 0.9, 0.999)
    strong = trial.suggest_float("strong_mask", 0.1, 0.8)
    x, y, x_val, y_val = load("digits")
    net = mlp([64, 128, 10])
    optimizer = optim.SGD(net.parameters(), lr, 0.9, nesterov=True, weight_decay=wdecay)
    averaged = swa_utils.AveragedModel(net, avg_fn=lambda old, new, _: old.lerp(new, 1 - ema_decay))

    def weak(images: torch.Tensor) -> torch.Tensor:
        return images + 0.05 * torch.randn_like(images)

    def epochs() -> Iterator[float]:
        for _ in range(task.epochs):
            for _ in range(12):
                some, other = torch.randint(LABELLED, (16,)), torch.randint(len(x), (16 * mu,))
                with torch.no_grad():
                    sure, label = net(weak(x[other])).softmax(1).max(1)
                harder = x[other] * (torch.rand_like(x[other]) >= strong)
                pseudo = functional.cross_entropy(net(harder), label, reduction="none") * (sure > threshold)
                known = functional.cross_entropy(net(weak(x[some])), y[some])
                step(optimizer, known + lambda_u * pseudo.mean(), net)
                averaged.update_parameters(net)
            with torch.no_grad():
                yield (averaged(x_val).argmax(1) != y_val).float().mean().item()

    return reported(task, trial, epochs())


@cache
def moves() -> torch.Tensor:
    """Return where each of four moves leads from each of the 25 cells of a maze."""
    table = torch.zeros(25, 4, dtype=torch.long)
    for cell in range(25):
        for k, (di, dj) in enumerate(((0, 1), (1, 0), (0, -1), (-1, 0))):
            i, j = cell // 5 + di, cell % 5 + dj
            free = 0 <= i < 5 and 0 <= j < 5 and (i, j) not in WALLS
            table[cell, k] = 5 * i + j if free else cell
    return table


def _moved(cell: torch.Tensor, action: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return where actions lead on slippery ground, what they earn, and which of them reach the goal."""
    slips = torch.rand(len(cell)) < 0.1
    then = moves()[cell, torch.where(slips, torch.randint(4, (len(cell),)), action)]
    done = then == 24
    return then, torch.where(done, 1.0, -0.02), done


class Replay:
    """The last steps of agents: cell, action, reward, next cell, whether it is the goal."""

    def __init__(self, size: int) -> None:
        kinds = (torch.long, torch.long, torch.float32, torch.long, torch.bool)
        self.parts = [torch.zeros(size, dtype=kind) for kind in kinds]
        self.size, self.seen = size, 0

    def add(self, *steps: torch.Tensor) -> None:
        """Keep one step of every agent, in place of the oldest."""
        start = self.seen % self.size
        for part, new in zip(self.parts, steps, strict=True):
            part[start : start + AGENTS] = new
        self.seen += AGENTS

    def drawn(self, count: int) -> list[torch.Tensor]:
        """Return random steps."""
        rows = torch.randint(min(self.seen, self.size), (count,))
        return [part[rows] for part in self.parts]


def dqn(task: SpaceTask, trial: Trial) -> Trained:
    """DQN in a small maze with slippery ground (Mnih and others 2015); the mean return, noisy, to maximise."""
    learning_rate = trial.suggest_float("learning_rate", 1e-5, 1e-1, log=True)
    gamma = trial.suggest_categorical("gamma", [0.8, 0.9, 0.95, 0.98, 0.99, 0.999])
    batch_size = trial.suggest_categorical("batch_size", [16, 32, 64, 128])
    buffer_size = trial.suggest_categorical("buffer_size", [400, 1600, 6400])
    exploration_final_eps = trial.suggest_float("exploration_final_eps", 0.0, 0.2)
    exploration_fraction = trial.suggest_float("exploration_fraction", 0.05, 0.6)
    target_update_interval = trial.suggest_int("target_update_interval", 1, 200, log=True)
    double_q = trial.suggest_categorical("double_q", [True, False])
    gradient_steps = trial.suggest_categorical("gradient_steps", [1, 2])
    net, target = mlp([25, 32, 4]), mlp([25, 32, 4])
    target.load_state_dict(net.state_dict())
    optimizer = optim.Adam(net.parameters(), learning_rate, fused=True)
    eye, replay, total = torch.eye(25), Replay(buffer_size), task.epochs * STEPS

    @torch.no_grad()
    def greedy(cell: torch.Tensor) -> torch.Tensor:
        action: torch.Tensor = net(eye[cell]).argmax(1)
        return action

    def learn() -> None:
        cells, actions, rewards, thens, dones = replay.drawn(batch_size)
        with torch.no_grad():
            later = target(eye[thens])
            best = (net(eye[thens]) if double_q else later).argmax(1, keepdim=True)
            wanted = rewards + gamma * later.gather(1, best)[:, 0] * ~dones
        step(optimizer, functional.smooth_l1_loss(net(eye[cells]).gather(1, actions[:, None])[:, 0], wanted), net, 10.0)

    def mean_return() -> float:
        cell, alive, earned = torch.zeros(20, dtype=torch.long), torch.ones(20, dtype=torch.bool), torch.zeros(20)
        for _ in range(30):
            cell, reward, done = _moved(cell, greedy(cell))
            earned += reward * alive
            alive = alive & ~done
        return earned.mean().item()

    def evaluations() -> Iterator[float]:
        cell = torch.zeros(AGENTS, dtype=torch.long)
        for update in range(total):
            explored = (1 - exploration_final_eps) * update / (exploration_fraction * total)
            best, eps = greedy(cell), max(exploration_final_eps, 1 - explored)
            action = torch.where(torch.rand(AGENTS) < eps, torch.randint(4, (AGENTS,)), best)
            then, reward, done = _moved(cell, action)
            replay.add(cell, action, reward, then, done)
            cell = torch.where(done | (torch.rand(AGENTS) < 0.02), 0, then)
            for _ in range(gradient_steps):
                learn()
            if (update + 1) % target_update_interval == 0:
                target.load_state_dict(net.state_dict())
            if (update + 1) % STEPS == 0:
                yield 1 - mean_return()

    return reported(task, trial, evaluations())


def continual(task: SpaceTask, trial: Trial) -> Trained:
    """Two digits after two others, with a memory (Buzzega and others 2020): the accuracy on all so far, which falls."""
    lr = trial.suggest_float("lr", 1e-3, 1.0, log=True)
    buffer_size = trial.suggest_categorical("buffer_size", [20, 50, 100])
    minibatch_size = trial.suggest_categorical("minibatch_size", [4, 8, 16, 32])
    alpha = trial.suggest_float("alpha", 0.0, 1.0)
    beta = trial.suggest_float("beta", 0.0, 2.0)
    x, y, x_val, y_val = load("digits")
    net = mlp([64, 64, 10])
    optimizer = optim.SGD(net.parameters(), lr)
    kept: list[tuple[torch.Tensor, ...]] = []

    def remember(seen: int, *parts: torch.Tensor) -> None:
        for number, row in enumerate(zip(*parts, strict=True), seen + 1):
            place = len(kept) if len(kept) < buffer_size else int(torch.randint(number, ()))
            if place == len(kept):  # now and then of a full memory, too, which grows by one: the results are of this
                kept.append(row)
            elif place < buffer_size:
                kept[place] = row

    def rehearsed(loss: torch.Tensor) -> torch.Tensor:
        if not kept:
            return loss
        rows = [kept[i] for i in torch.randint(len(kept), (minibatch_size,)).tolist()]
        images, labels, before = (torch.stack(part) for part in zip(*rows, strict=True))
        out = net(images)
        return loss + alpha * functional.mse_loss(out, before) + beta * functional.cross_entropy(out, labels)

    def tasks() -> Iterator[float]:
        seen = 0
        for number in range(task.epochs):
            now = (y // 2 == number).nonzero()[:, 0]
            for _ in range(2):
                for part in shuffled(len(now), 10):
                    batch = now[part]
                    logits = net(x[batch])
                    step(optimizer, rehearsed(functional.cross_entropy(logits, y[batch])), net)
                    remember(seen, x[batch], y[batch], logits.detach())
                    seen += len(batch)
            known = y_val < 2 * number + 2
            with torch.no_grad():
                yield (net(x_val[known]).argmax(1) != y_val[known]).float().mean().item()

    return reported(task, trial, tasks())


TARGETS = (
    SpaceTask("triplet", training=triplet, epochs=9, maximize=True),
    SpaceTask("quantile", training=quantile, epochs=6, reports=False),
    SpaceTask("fixmatch", training=fixmatch, epochs=6),
    SpaceTask("dqn", training=dqn, epochs=8, maximize=True),
    SpaceTask("continual", training=continual, epochs=5, maximize=True),
)
