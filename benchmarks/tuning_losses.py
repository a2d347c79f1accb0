"""Analytic losses shaped like those of tuning, for studies that cost nothing: seven kinds, an optimum a seed."""

import functools
import math
from dataclasses import dataclass

import numpy as np
import optuna
from optuna.samplers import RandomSampler

KINDS = ("plain", "deep", "batchnorm", "overfit", "adam", "batch", "dropout")
EPOCHS, TOP = 16, math.log(10)


@dataclass(frozen=True)
class Loss:
    """The final validation loss over log10 of (learning rate / (1 - momentum)), 1 - momentum and weight decay.

    A bowl that flattens out at the loss of chance, steeper above the best learning rate, with a ceiling beyond which
    training diverges.

    Attributes:
        kind: Which of `KINDS`.
        step: Best log10 of lr / (1 - momentum); of lr for "adam".
        momentum: Best log10(1 - momentum).
        decay: Best log10 of the weight decay, at the best step.
        floor: Smallest loss.
        ceiling: Distance from the best step to divergence.
        noise: Relative deviation of one training from the next.
        extra: Best log2(batch size), or best dropout.
    """

    kind: str
    step: float
    momentum: float
    decay: float
    floor: float
    ceiling: float
    noise: float
    extra: float

    @classmethod
    def draw(cls, kind: str, seed: int) -> "Loss":
        """Return the loss of a kind and a seed."""
        rng = np.random.default_rng([seed, KINDS.index(kind)])
        step = rng.normal(-2.6, 0.5) if kind == "adam" else rng.normal(0.3, 0.6)
        return cls(
            kind,
            step=float(step),
            momentum=float(rng.uniform(-1.7, -0.8)),
            decay=float(rng.uniform(-3, -2) if kind == "overfit" else rng.uniform(-5, -3)),
            floor=float(rng.uniform(0.1, 0.6)),
            ceiling={"deep": 0.35, "batchnorm": 1.5}.get(kind, 0.7) + float(rng.uniform(0, 0.3)),
            noise=float(rng.uniform(0.02, 0.06)),
            extra=float(rng.uniform(5, 7) if kind == "batch" else rng.uniform(0, 0.5)),
        )

    def suggest(self, trial: optuna.Trial, *, epochs: bool) -> dict[str, float]:
        """Suggest the parameters as a user's objective does."""
        adam = self.kind == "adam"
        params: dict[str, float] = {
            "lr": trial.suggest_float("lr", 1e-5, 1e-1 if adam else 10.0, log=True),
            "momentum": trial.suggest_float("beta1" if adam else "momentum", 0.8, 0.99),
            "weight_decay": trial.suggest_float("weight_decay", 1e-7, 1e-1, log=True),
        }
        if self.kind == "batch":
            params["batch_size"] = trial.suggest_int("batch_size", 16, 256, log=True)
        if self.kind == "dropout":
            params["dropout"] = trial.suggest_float("dropout", 0.0, 0.8)
        if epochs:
            params["epochs"] = trial.suggest_int("epochs", 1, EPOCHS)
        return params

    def __call__(self, params: dict[str, float]) -> float:
        """Return the noise-free loss; inf where training diverges."""
        inertia = 0.0 if self.kind == "adam" else math.log10(1 - params["momentum"])
        step, best = math.log10(params["lr"]) - inertia, self.step
        if self.kind == "batch":
            best += 0.6 * math.log10(2) * (math.log2(params["batch_size"]) - 6)
        if step > best + self.ceiling:
            return math.inf
        off, decay = step - best, math.log10(params["weight_decay"]) - self.decay
        if self.kind == "batchnorm":
            decay += off  # what counts is the product of learning rate and weight decay
        steepness = {"deep": 1.5, "batchnorm": 0.15}.get(self.kind, 0.5) * (2.0 if off > 0 else 1.0)
        bowl = steepness * off**2 + {"overfit": 0.15, "batchnorm": 0.1}.get(self.kind, 0.03) * decay**2
        bowl += 0.15 * (math.log10(1 - params["momentum"]) - self.momentum) ** 2
        if self.kind == "batch":
            bowl += 0.02 * (math.log2(params["batch_size"]) - self.extra) ** 2
        if self.kind == "dropout":
            bowl += 0.5 * (params["dropout"] - self.extra) ** 2
        share = params.get("epochs", EPOCHS) / EPOCHS
        bowl += 0.1 * (1 - share) / share
        return self.floor + (TOP - self.floor) * (1 - math.exp(-bowl))

    @functools.cache  # noqa: B019 - a few dozen losses
    def middle(self) -> float:
        """Return the median loss of random configurations at full length; a diverged one counts as chance."""
        study = optuna.create_study(sampler=RandomSampler(seed=0))
        return float(np.median([min(TOP, self(self.suggest(study.ask(), epochs=False))) for _ in range(500)]))
