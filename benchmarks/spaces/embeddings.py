"""Five studies that learn embeddings and densities: contrast, denoising, a knowledge graph, a recommender, survival."""

from collections.abc import Iterator
from functools import cache

import numpy as np
import torch
from optuna import Trial
from sklearn.linear_model import RidgeClassifier
from torch import nn
from torch import optim
from torch.optim import swa_utils

from benchmarks.spaces.learning import moons
from benchmarks.spaces.training import SpaceTask
from benchmarks.spaces.training import Trained
from benchmarks.spaces.training import finite
from benchmarks.spaces.training import load
from benchmarks.spaces.training import mlp
from benchmarks.spaces.training import reported
from benchmarks.spaces.training import shuffled
from benchmarks.spaces.training import step

ENTITIES, RELATIONS = 150, 4
USERS, ITEMS = 200, 150


def contrast(task: SpaceTask, trial: Trial) -> Trained:
    """SimCLR (Chen and others 2020) on digits without labels; the accuracy of a linear probe."""
    lr = trial.suggest_float("lr", 1e-5, 1e-1, log=True)
    weight_decay = trial.suggest_float("weight_decay", 1e-7, 1e-2, log=True)
    temperature = trial.suggest_float("temperature", 0.02, 2.0, log=True)
    batch_size = trial.suggest_categorical("batch_size", [32, 64, 128, 256])
    proj_dim = trial.suggest_categorical("proj_dim", [8, 16, 32, 64])
    noise_std = trial.suggest_float("noise_std", 0.0, 1.0)
    mask_prob = trial.suggest_float("mask_prob", 0.0, 0.8)
    x, y, x_val, y_val = load("digits")
    encoder, projector = mlp([64, 64, 32]), mlp([32, 32, proj_dim])
    net = nn.ModuleList([encoder, projector])
    optimizer = optim.AdamW(net.parameters(), lr, weight_decay=weight_decay, fused=True)

    def view(images: torch.Tensor) -> torch.Tensor:
        changed = images + noise_std * torch.randn_like(images)
        return nn.functional.normalize(projector(encoder(changed * (torch.rand_like(images) >= mask_prob)).relu()))

    def epochs() -> Iterator[float]:
        for _ in range(task.epochs):
            for batch in shuffled(len(x), batch_size):
                z = torch.cat([view(x[batch]), view(x[batch])])
                alike = (z @ z.T / temperature).fill_diagonal_(-1e9)
                step(optimizer, nn.functional.cross_entropy(alike, torch.arange(len(z)).roll(len(batch))), net)
            with torch.no_grad():
                known, unknown = encoder(x).nan_to_num().numpy(), encoder(x_val).nan_to_num().numpy()
            probe = RidgeClassifier().fit(known[:300], y[:300])
            yield 1 - float(probe.score(unknown, y_val))

    return reported(task, trial, epochs())


def denoising(task: SpaceTask, trial: Trial) -> Trained:
    """A diffusion model of two moons; the energy distance of its samples."""
    learning_rate = trial.suggest_float("learning_rate", 1e-5, 1e-1, log=True)
    num_timesteps = trial.suggest_int("num_timesteps", 10, 100)
    beta_start = trial.suggest_float("beta_start", 1e-5, 1e-2, log=True)
    beta_end = trial.suggest_float("beta_end", 1e-2, 0.5, log=True)
    hidden_size = trial.suggest_int("hidden_size", 16, 128, log=True)
    train_batch_size = trial.suggest_categorical("train_batch_size", [32, 64, 128, 256])
    ema_decay = trial.suggest_float("ema_decay", 0.9, 0.9999)
    x, x_val = moons()
    betas = torch.linspace(beta_start, beta_end, num_timesteps)
    kept = torch.cumprod(1 - betas, 0)
    net = mlp([3, hidden_size, hidden_size, 2], act=nn.SiLU)
    optimizer = optim.Adam(net.parameters(), learning_rate, fused=True)
    averaged = swa_utils.AveragedModel(net, avg_fn=lambda old, new, _: old.lerp(new, 1 - ema_decay))

    def at(model: nn.Module, noisy: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        noise: torch.Tensor = model(torch.cat([noisy, t[:, None] / num_timesteps], 1))
        return noise

    def samples() -> torch.Tensor:
        noisy = torch.randn(300, 2)
        for t in range(num_timesteps - 1, -1, -1):
            noise = at(averaged, noisy, torch.full((300,), float(t)))
            noisy = (noisy - betas[t] / (1 - kept[t]).sqrt() * noise) / (1 - betas[t]).sqrt()
            noisy += betas[t].sqrt() * torch.randn_like(noisy) if t else 0.0
        return noisy

    def epochs() -> Iterator[float]:
        for _ in range(task.epochs):
            for _ in range(3):
                for batch in shuffled(len(x), train_batch_size):
                    t, noise = torch.randint(num_timesteps, (len(batch),)), torch.randn(len(batch), 2)
                    noisy = kept[t, None].sqrt() * x[batch] + (1 - kept[t, None]).sqrt() * noise
                    step(optimizer, ((at(net, noisy, t) - noise) ** 2).mean(), net)
                    averaged.update_parameters(net)
            with torch.no_grad():
                drawn = samples()
                apart = 2 * torch.cdist(drawn, x_val).mean()
                yield finite((apart - torch.cdist(drawn, drawn).mean() - torch.cdist(x_val, x_val).mean()).item())

    return reported(task, trial, epochs())


@cache
def triples() -> tuple[torch.Tensor, torch.Tensor]:
    """Return known and unknown facts (head, relation, tail) of places on a plane and directions."""
    rng = np.random.default_rng(0)
    places, moves = rng.normal(size=(ENTITIES, 4)), rng.normal(size=(RELATIONS, 4))
    facts = []
    for relation in range(RELATIONS):
        apart = np.linalg.norm(places[:, None] + moves[relation] - places[None], axis=2)
        facts += [(h, relation, t) for h in range(ENTITIES) for t in np.argsort(apart[h])[:3]]
    shuffled_facts = torch.tensor(np.array(facts)[rng.permutation(len(facts))])
    return shuffled_facts[:1500], shuffled_facts[1500:]


def knowledge(task: SpaceTask, trial: Trial) -> Trained:
    """TransE (Bordes and others 2013); the mean reciprocal rank of unknown tails."""
    embedding_dim = trial.suggest_categorical("embedding_dim", [8, 16, 32, 64])
    margin = trial.suggest_float("margin", 0.1, 10.0, log=True)
    scoring_fct_norm = trial.suggest_int("scoring_fct_norm", 1, 2)
    lr = trial.suggest_float("lr", 1e-4, 1.0, log=True)
    num_negs_per_pos = trial.suggest_int("num_negs_per_pos", 1, 32, log=True)
    batch_size = trial.suggest_int("batch_size", 32, 512, log=True)
    regularizer_weight = trial.suggest_float("regularizer_weight", 1e-8, 1.0, log=True)
    facts, unknown = triples()
    entities, relations = nn.Embedding(ENTITIES, embedding_dim), nn.Embedding(RELATIONS, embedding_dim)
    net = nn.ModuleList([entities, relations])
    for table in (entities, relations):
        nn.init.normal_(table.weight, std=embedding_dim**-0.5)
    optimizer = optim.Adam(net.parameters(), lr, fused=True)

    def apart(h: torch.Tensor, r: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return torch.linalg.vector_norm(entities(h) + relations(r) - entities(t), scoring_fct_norm, dim=-1)

    def epochs() -> Iterator[float]:
        for _ in range(task.epochs):
            for batch in shuffled(len(facts), batch_size):
                h, r, t = facts[batch].T
                wrong = torch.randint(ENTITIES, (num_negs_per_pos, len(batch)))
                loss = (margin + apart(h, r, t) - apart(h, r, wrong)).relu().mean()
                weights = regularizer_weight * (entities(h) ** 2 + entities(t) ** 2).sum(1).mean()
                step(optimizer, loss + weights, net)
            with torch.no_grad():
                h, r, t = unknown.T
                distances = apart(h[:, None], r[:, None], torch.arange(ENTITIES)).nan_to_num(1e9)
                ranks = (distances <= distances.gather(1, t[:, None])).sum(1)
                yield 1 - (1 / ranks).mean().item()

    return reported(task, trial, epochs())


@cache
def clicks() -> tuple[torch.Tensor, torch.Tensor]:
    """Return which items users took (a table of 0 and 1) and which each of them takes next."""
    rng = np.random.default_rng(0)
    taste, kind, popular = rng.normal(size=(USERS, 5)), rng.normal(size=(ITEMS, 5)), rng.normal(size=ITEMS)
    wanted = taste @ kind.T + popular + rng.gumbel(size=(USERS, ITEMS))
    order = np.argsort(-wanted, axis=1)[:, :21]
    following = order[np.arange(USERS), rng.integers(21, size=USERS)]
    taken = np.zeros((USERS, ITEMS))
    np.put_along_axis(taken, order, 1.0, axis=1)
    taken[np.arange(USERS), following] = 0
    return torch.tensor(taken, dtype=torch.float32), torch.tensor(following)


def recommender(task: SpaceTask, trial: Trial) -> Trained:
    """Matrix factorisation by pairs (Rendle and others 2009); the share of next items among the first ten."""
    factors = trial.suggest_int("factors", 4, 64, log=True)
    learning_rate = trial.suggest_float("learning_rate", 1e-3, 1.0, log=True)
    regularization = trial.suggest_float("regularization", 1e-5, 1e-1, log=True)
    negative_samples = trial.suggest_int("negative_samples", 1, 20)
    init_std = trial.suggest_float("init_std", 1e-3, 1.0, log=True)
    taken, following = clicks()
    users, items, bias = nn.Embedding(USERS, factors), nn.Embedding(ITEMS, factors), nn.Embedding(ITEMS, 1)
    for table in (users, items, bias):
        nn.init.normal_(table.weight, std=init_std)
    net = nn.ModuleList([users, items, bias])
    optimizer = optim.Adagrad(net.parameters(), learning_rate)
    user, item = taken.nonzero().T

    def epochs() -> Iterator[float]:
        for _ in range(task.epochs):
            for batch in shuffled(len(user), 256):
                of_user, liked = users(user[batch]), items(item[batch])
                other = torch.randint(ITEMS, (negative_samples, len(batch)))
                more = bias(item[batch])[:, 0] - bias(other)[..., 0] + (of_user * (liked - items(other))).sum(-1)
                weights = regularization * (of_user**2 + liked**2).sum(1).mean()
                step(optimizer, nn.functional.softplus(-more).mean() + weights, net)
            with torch.no_grad():
                scores = (users.weight @ items.weight.T + bias.weight[:, 0]).nan_to_num() - 1e9 * taken
                yield 1 - (scores.topk(10, 1).indices == following[:, None]).any(1).float().mean().item()

    return reported(task, trial, epochs())


@cache
def patients() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return what is known of 800 patients, how long they were seen, and whether they died then."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(800, 12))
    risk = x[:, 0] + np.sin(2 * x[:, 1]) + x[:, 2] * x[:, 3]
    death, left = rng.exponential(np.exp(-risk)), rng.exponential(2.0, size=800)
    return (
        torch.tensor(x, dtype=torch.float32),
        torch.tensor(np.minimum(death, left), dtype=torch.float32),
        torch.tensor(death <= left),
    )


def survival(task: SpaceTask, trial: Trial) -> Trained:
    """DeepSurv (Katzman and others 2018), its numbers and bounds; the concordance."""
    learning_rate = trial.suggest_float("learning_rate", 1e-5, 1.0, log=True)
    l2_reg = trial.suggest_float("L2_reg", 1e-4, 10.0, log=True)
    dropout = trial.suggest_float("dropout", 0.0, 0.5)
    lr_decay = trial.suggest_float("lr_decay", 0.0, 0.01)
    momentum = trial.suggest_float("momentum", 0.8, 0.95)
    n_layers = trial.suggest_int("n_layers", 1, 3)
    n_nodes = trial.suggest_int("n_nodes", 8, 64)
    activation = trial.suggest_categorical("activation", ["rectify", "selu"])
    batch_norm = trial.suggest_categorical("batch_norm", [True, False])
    x, seen, died = patients()
    act = {"rectify": nn.ReLU, "selu": nn.SELU}[activation]
    net = mlp([12, *[n_nodes] * n_layers, 1], drop=[dropout] * n_layers, norm=batch_norm, act=act)
    optimizer = optim.SGD(net.parameters(), learning_rate, momentum, nesterov=True, weight_decay=l2_reg)
    order = seen[:500].argsort(descending=True)
    comparable = died[500:, None] & (seen[500:, None] < seen[500:])

    def epochs() -> Iterator[float]:
        for epoch in range(task.epochs):
            net.train()
            for update in range(10):
                optimizer.param_groups[0]["lr"] = learning_rate / (1 + lr_decay * (10 * epoch + update))
                risk = net(x[:500])[order, 0]
                step(optimizer, (risk.logcumsumexp(0) - risk)[died[:500][order]].mean(), net)
            net.eval()
            with torch.no_grad():
                risk = net(x[500:])[:, 0].nan_to_num()
                yield 1 - (risk[:, None] > risk)[comparable].float().mean().item()

    return reported(task, trial, epochs())


EMBEDDINGS = (
    SpaceTask("contrast", training=contrast, epochs=8, maximize=True),
    SpaceTask("denoising", training=denoising, epochs=8),
    SpaceTask("knowledge", training=knowledge, epochs=8, maximize=True),
    SpaceTask("recommender", training=recommender, epochs=8, maximize=True),
    SpaceTask("survival", training=survival, epochs=8, maximize=True),
)
