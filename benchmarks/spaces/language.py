"""Two studies in the words of language models' tools: PEFT and gensim."""

import math
from collections.abc import Iterator
from functools import cache

import numpy as np
import torch
from optuna import Trial
from torch import nn
from torch import optim
from torch.nn import functional

from benchmarks.spaces.training import SpaceTask
from benchmarks.spaces.training import Trained
from benchmarks.spaces.training import finite
from benchmarks.spaces.training import load
from benchmarks.spaces.training import reported
from benchmarks.spaces.training import shuffled
from benchmarks.spaces.training import step

_WIDTH = 48
_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj")


class _Lora(nn.Module):
    """A frozen layer and what two thin matrices add to it (Hu et al. 2021)."""

    def __init__(self, layer: nn.Module, rank: int, alpha: float, drop: float) -> None:
        super().__init__()
        self.layer, self.drop, self.scale = layer, nn.Dropout(drop), alpha / rank
        self.a, self.b = nn.Linear(_WIDTH, rank, bias=False), nn.Linear(rank, _WIDTH, bias=False)
        nn.init.zeros_(self.b.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return what the layer says now."""
        said: torch.Tensor = self.layer(x) + self.scale * self.b(self.a(self.drop(x)))
        return said


def _language_model() -> nn.ModuleDict:
    """Return the layers of a network of one block, under the names that language models give them."""
    return nn.ModuleDict(
        {"embed": nn.Linear(8, _WIDTH)}
        | {name: nn.Linear(_WIDTH, _WIDTH) for name in _MODULES}
        | {"score": nn.Linear(8 * _WIDTH, 5)}
    )


def _scores(net: nn.ModuleDict, x: torch.Tensor) -> torch.Tensor:
    """Return the scores of five digits: attention, a perceptron, and a head."""
    hidden = net["embed"](x.reshape(-1, 8, 8))
    q, k, v = (net[name](hidden) for name in _MODULES[:3])
    hidden = hidden + net["o_proj"](functional.scaled_dot_product_attention(q, k, v))
    hidden = hidden + net["down_proj"](functional.relu(net["up_proj"](hidden)))
    scores: torch.Tensor = net["score"](hidden.flatten(1))
    return scores


@cache
def base_model() -> dict[str, torch.Tensor]:
    """Return weights that know the digits below five; the caller's random numbers stay as they were."""
    x, y, _, _ = load("digits")
    x, y = x[y < 5], y[y < 5]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = _language_model()
        optimizer = optim.Adam(net.parameters(), 2e-3)
        for _ in range(10):
            for batch in shuffled(len(y), 32):
                step(optimizer, functional.cross_entropy(_scores(net, x[batch]), y[batch]), net)
    return net.state_dict()


def peft(task: SpaceTask, trial: Trial) -> Trained:
    """LoRA in the words of PEFT and of the Trainer: a frozen network learns digits it never saw; its `eval_loss`."""
    lr = trial.suggest_float("learning_rate", 1e-5, 1e-1, log=True)
    rank = trial.suggest_categorical("lora_r", [2, 4, 8, 16, 32])
    alpha = trial.suggest_int("lora_alpha", 4, 64, log=True)
    drop = trial.suggest_float("lora_dropout", 0.0, 0.5)
    kinds = ["q_proj,v_proj", "q_proj,k_proj,v_proj,o_proj", "up_proj,down_proj", "all-linear"]
    chosen = trial.suggest_categorical("target_modules", kinds)
    size = trial.suggest_categorical("per_device_train_batch_size", [8, 16, 32, 64])
    warm = trial.suggest_float("warmup_ratio", 0.0, 0.3)
    decay = trial.suggest_float("weight_decay", 0.0, 0.3)
    kind = trial.suggest_categorical("lr_scheduler_type", ["linear", "cosine", "constant"])
    x, y, x_val, y_val = load(task.data)
    x, y, x_val, y_val = x[y >= 5][:160], y[y >= 5][:160] - 5, x_val[y_val >= 5], y_val[y_val >= 5] - 5
    net = _language_model()
    fresh = {name: value.clone() for name, value in net["score"].state_dict(prefix="score.").items()}
    net.load_state_dict(base_model() | fresh)
    for name in net:
        net[name].requires_grad_(name == "score")
    for name in _MODULES if chosen == "all-linear" else chosen.split(","):
        net[name] = _Lora(net[name], rank, alpha, drop)
    optimizer = optim.AdamW([p for p in net.parameters() if p.requires_grad], lr, weight_decay=decay)
    steps = task.epochs * math.ceil(len(y) / size)

    def factor(n: int) -> float:
        if n < warm * steps:
            return n / (warm * steps)
        share = (n - warm * steps) / (steps - warm * steps)
        return {"linear": 1 - share, "cosine": 0.5 + 0.5 * math.cos(math.pi * share), "constant": 1.0}[kind]

    scheduler = optim.lr_scheduler.LambdaLR(optimizer, factor)

    def epochs() -> Iterator[float]:
        for _ in range(task.epochs):
            net.train()
            for batch in shuffled(len(y), size):
                step(optimizer, functional.cross_entropy(_scores(net, x[batch]), y[batch]), net, 1.0)
                scheduler.step()
            net.eval()
            with torch.no_grad():
                yield finite(functional.cross_entropy(_scores(net, x_val), y_val).item())

    return reported(task, trial, epochs())


_WORDS, _TOPICS = 130, 10


@cache
def corpus() -> tuple[torch.Tensor, torch.Tensor]:
    """Return sentences of 15 words, and each word's topic; that of stop words is -1.

    A sentence changes its topic often, words are as rare as Zipf has them, and two in five are stop words.
    """
    rng = np.random.default_rng(0)
    topics = np.arange(_WORDS) % _TOPICS
    topics[:_TOPICS] = -1
    often = 1 / np.arange(1, _WORDS // _TOPICS)
    topic, sentences = 0, np.zeros((300, 15), dtype=np.int64)
    for place in np.ndindex(sentences.shape):
        if place[1] == 0 or rng.random() < 0.35:
            topic = int(rng.integers(_TOPICS))
        own = topic + _TOPICS * int(rng.choice(len(often), p=often / often.sum()) + 1)
        sentences[place] = rng.integers(_TOPICS) if rng.random() < 0.4 else own
    return torch.tensor(sentences), torch.tensor(topics)


def word2vec(task: SpaceTask, trial: Trial) -> Trained:
    """Skip-grams in gensim's words, where `alpha` is the rate; the neighbours that share a topic, to maximise."""
    vector = trial.suggest_int("vector_size", 4, 128, log=True)
    window = trial.suggest_int("window", 1, 7)
    negative = trial.suggest_int("negative", 1, 10)
    alpha = trial.suggest_float("alpha", 1e-3, 1.0, log=True)
    least = trial.suggest_float("min_alpha", 1e-6, 1e-2, log=True)
    exponent = trial.suggest_float("ns_exponent", -1.0, 1.0)
    sample = trial.suggest_float("sample", 1e-4, 1e-1, log=True)
    sentences, topics = corpus()
    shares = torch.bincount(sentences.flatten(), minlength=_WORDS) / sentences.numel()
    stays = ((shares / sample).sqrt() + 1) * sample / shares
    inner, outer = (torch.rand(_WORDS, vector) - 0.5) / vector, torch.zeros(_WORDS, vector)
    label = functional.one_hot(torch.tensor(0), 1 + negative).float()

    def pairs() -> torch.Tensor:
        kept, reach = torch.rand(sentences.shape) < stays[sentences], torch.randint(1, window + 1, sentences.shape)
        found = []
        for apart in range(1, window + 1):
            left, right = sentences[:, :-apart], sentences[:, apart:]
            both = kept[:, :-apart] & kept[:, apart:]
            for a, b, near in ((left, right, reach[:, :-apart]), (right, left, reach[:, apart:])):
                found.append(torch.stack([a, b], -1)[both & (near >= apart)])
        together = torch.cat(found)
        return together[torch.randperm(len(together))]

    def agreement() -> float:
        vectors = functional.normalize(inner[topics >= 0])
        if not bool(vectors.isfinite().all()):
            return 0.0
        near = (vectors @ vectors.T).fill_diagonal_(-2).topk(5).indices
        own = topics[topics >= 0]
        return (own[near] == own[:, None]).float().mean().item()

    def epochs() -> Iterator[float]:
        for epoch in range(task.epochs):
            together = pairs()
            for number, batch in enumerate(torch.split(together, 256)):
                done = (epoch + number * 256 / len(together)) / task.epochs
                rate = alpha + (least - alpha) * done
                drawn = torch.multinomial(shares**exponent, len(batch) * negative, replacement=True)
                words = torch.cat([batch[:, 1:], drawn.reshape(-1, negative)], 1)
                vectors, others = inner[batch[:, 0]], outer[words]
                wrong = rate * (label - (others @ vectors[:, :, None]).squeeze(2).sigmoid())
                inner.index_add_(0, batch[:, 0], (wrong[:, None] @ others).squeeze(1))
                outer.index_add_(0, words.flatten(), (wrong[:, :, None] * vectors[:, None]).flatten(0, 1))
            yield 1 - agreement()

    return reported(task, trial, epochs())
