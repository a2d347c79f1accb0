"""A study of learning by reward: PPO (Schulman and others 2017) balances a pole on a cart."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from optuna import Trial
from torch import nn
from torch import optim

from benchmarks.spaces.training import SpaceTask
from benchmarks.spaces.training import Trained
from benchmarks.spaces.training import mlp
from benchmarks.spaces.training import reported
from benchmarks.spaces.training import shuffled
from benchmarks.spaces.training import step

LONGEST = 200  # steps of an episode, and so its largest return
ENVS = 32
REWARD = 0.05  # of a step, to learn from
STEPS = 32  # of every environment between evaluations


class Poles:
    """Carts with poles, side by side (Barto, Sutton and Anderson 1983)."""

    def __init__(self, count: int) -> None:
        self.state = _start(count)
        self.age = np.zeros(count, int)

    def observed(self) -> torch.Tensor:
        """Return what the agent sees."""
        return torch.tensor(self.state.T, dtype=torch.float32)

    def push(self, right: np.ndarray) -> np.ndarray:
        """Push every cart; return which poles fell or stood for long enough, and start these again."""
        _, speed, angle, spin = self.state
        sine, cosine = np.sin(angle), np.cos(angle)
        pushed = (np.where(right, 10.0, -10.0) + 0.05 * spin**2 * sine) / 1.1
        turning = (9.8 * sine - cosine * pushed) / (0.5 * (4 / 3 - 0.1 * cosine**2 / 1.1))
        moving = pushed - 0.05 * turning * cosine / 1.1
        self.state = self.state + 0.02 * np.array([speed, moving, spin, turning])
        self.age += 1
        done: np.ndarray = (np.abs(self.state[0]) > 2.4) | (np.abs(self.state[2]) > np.pi / 15) | (self.age >= LONGEST)
        if done.any():
            self.state = np.where(done, _start(len(done)), self.state)
            self.age[done] = 0
        return done


def _start(count: int) -> np.ndarray:
    return (0.1 * torch.rand(4, count, dtype=torch.float64) - 0.05).numpy()


class Rollout(NamedTuple):
    """Steps of every environment, one after the other."""

    seen: torch.Tensor
    right: torch.Tensor
    log_prob: torch.Tensor
    advantage: torch.Tensor
    target: torch.Tensor


def _said(net: nn.Module, seen: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the logarithms of the probabilities of both actions, and the value."""
    output = net(seen)
    return output[..., :2].log_softmax(-1), output[..., 2:]


@torch.no_grad()
def _collect(poles: Poles, net: nn.Module, n_steps: int, gamma: float, gae_lambda: float) -> Rollout:
    """Return what the agent does, with generalised advantages."""
    seen, logs, values, right, fell = [], [], [], [], []
    for _ in range(n_steps):
        seen.append(poles.observed())
        of_actions, value = _said(net, seen[-1])
        right.append(torch.rand(ENVS) < of_actions[:, 1].exp())
        fell.append(torch.from_numpy(poles.push(right[-1].numpy())))
        logs.append(of_actions)
        values.append(value[:, 0])
    values.append(_said(net, poles.observed())[1][:, 0])
    advantages, running = [], torch.zeros(ENVS)
    for t in reversed(range(n_steps)):
        goes_on = (~fell[t]).float()
        running = REWARD + gamma * values[t + 1] * goes_on - values[t] + gamma * gae_lambda * goes_on * running
        advantages.append(running)
    actions, advantage = torch.cat(right).long()[:, None], torch.cat(advantages[::-1])[:, None]
    log_prob, value = torch.cat(logs).gather(1, actions), torch.cat(values[:-1])[:, None]
    return Rollout(torch.cat(seen), actions, log_prob, advantage, advantage + value)


@torch.no_grad()
def _mean_return(net: nn.Module) -> float:
    """Return what the agent earns in an episode when it does what it holds for best."""
    poles, returns = Poles(ENVS), np.zeros(ENVS)
    going = np.ones(ENVS, bool)
    while going.any():
        returns += going
        going &= ~poles.push(net(poles.observed())[:, :2].argmax(1).numpy() == 1)
    return float(returns.mean())


def control(task: SpaceTask, trial: Trial) -> Trained:
    """PPO on a cart with a pole, its names and most bounds as in the RL Zoo; the return of evaluation episodes."""
    batch_size = trial.suggest_categorical("batch_size", [256, 512, 1024])
    n_steps = trial.suggest_categorical("n_steps", [8, 16, 32])
    gamma = trial.suggest_categorical("gamma", [0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 0.9999])
    learning_rate = trial.suggest_float("learning_rate", 1e-5, 1, log=True)
    ent_coef = trial.suggest_float("ent_coef", 1e-8, 0.1, log=True)
    clip_range = trial.suggest_categorical("clip_range", [0.1, 0.2, 0.3, 0.4])
    n_epochs = trial.suggest_categorical("n_epochs", [1, 2, 5, 10])
    gae_lambda = trial.suggest_categorical("gae_lambda", [0.8, 0.9, 0.92, 0.95, 0.98, 0.99, 1.0])
    max_grad_norm = trial.suggest_categorical("max_grad_norm", [0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 2, 5])
    vf_coef = trial.suggest_float("vf_coef", 0, 1)
    net_arch = trial.suggest_categorical("net_arch", ["tiny", "small", "medium"])
    activation_fn = trial.suggest_categorical("activation_fn", ["tanh", "relu"])
    sizes = {"tiny": [16], "small": [64], "medium": [64, 64]}[net_arch]
    act = {"tanh": nn.Tanh, "relu": nn.ReLU}[activation_fn]
    net = mlp([4, *sizes, 3], act=act)
    optimizer = optim.Adam(net.parameters(), learning_rate, eps=1e-5, fused=True)
    poles = Poles(ENVS)

    def loss(of: Rollout) -> torch.Tensor:
        logs, value = _said(net, of.seen)
        ratio = (logs.gather(1, of.right) - of.log_prob).exp()
        advantage = (of.advantage - of.advantage.mean()) / (of.advantage.std() + 1e-8)
        gain = torch.min(ratio * advantage, ratio.clamp(1 - clip_range, 1 + clip_range) * advantage).mean()
        entropy = -(logs.exp() * logs).sum(1).mean()
        return vf_coef * nn.functional.mse_loss(value, of.target) - gain - ent_coef * entropy

    def evaluations() -> Iterator[float]:
        for _ in range(task.epochs):
            for _ in range(STEPS // n_steps):
                found = _collect(poles, net, n_steps, gamma, gae_lambda)
                for _ in range(n_epochs):
                    for batch in shuffled(n_steps * ENVS, batch_size):
                        step(optimizer, loss(Rollout(*(part[batch] for part in found))), net, max_grad_norm)
            yield 1 - _mean_return(net) / LONGEST

    return reported(task, trial, evaluations())
