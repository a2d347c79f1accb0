"""Many workers on one study, on a virtual clock: `python -m benchmarks.workers`.

Seven kinds of analytic losses shaped like tuning's (`benchmarks/tuning_losses.py`), a new optimum for each seed.
Workers differ in speed (log-normal, deviation 0.25), trainings in length (0.1), and a diverged training ends after a
tenth of its length. A worker asks, loads its data for a moment while others may ask as well, suggests, trains, tells,
asks again. A full training at speed 1 takes and costs one unit. A study starts trials until its budget is spent, so
every number of workers pays the same.

Normalised regret of the noise-free loss at the incumbent, which is chosen by its noisy one: 0 the optimum, 1 the median
of random configurations. *Wrong stage*: a trial of a stage that began while a candidate of an earlier stage was under
way, so that it is built on what may not be the winner. *Twice*: a candidate of a stage that ran twice, though none of
its runs failed. *Alike*: a trial within 2 % of the bounds, in every parameter, of one that was running when it began,
replicates left out.
"""

import argparse
import datetime
import heapq
import json
import math
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler
from optuna.samplers import RandomSampler
from optuna.samplers import TPESampler
from optuna.trial import TrialState

from benchmarks.result_files import settings
from benchmarks.result_files import write
from benchmarks.tuning_losses import EPOCHS
from benchmarks.tuning_losses import KINDS
from benchmarks.tuning_losses import TOP
from benchmarks.tuning_losses import Loss
from optuna_discipline import DisciplinedSampler
from optuna_discipline import Recipe
from optuna_discipline.rules.run import MODEL_SLOT
from optuna_discipline.trial_record import read_claim

RESULTS = Path(__file__).parent / "results" / "workers"
METHODS = ("ours", "ours, short", "tpe", "random")
WORKERS = (1, 2, 4, 8, 16)
COMPARED = ("lr", "momentum", "weight_decay", "batch_size")
COSTS = (10, 20, 40, 60)
GOAL = 10  # speed-up: how much sooner the regret is reached that one worker has after so many trainings
LONG_AGO = datetime.datetime(2100, 1, 1)  # no trial of the simulation is overdue


@dataclass(frozen=True)
class Done:
    """One trial of a simulation: when it ran, what it cost, what came of it."""

    number: int
    start: float
    end: float
    cost: float
    value: float | None
    regret: float
    slot: str | None
    params: dict[str, float]


def sampler_of(method: str, seed: int) -> BaseSampler:
    """Return the sampler of a method."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if method == "tpe":
            return TPESampler(seed=seed, constant_liar=True)
    if method == "random":
        return RandomSampler(seed=seed)
    return DisciplinedSampler(Recipe(short=0.25) if method == "ours, short" else None, seed=seed)


def simulate(loss: Loss, method: str, n_workers: int, seed: int, budget: float) -> list[Done]:
    """Return the trials of a study in the order of their starts."""
    rng = np.random.default_rng([seed, n_workers])
    study = optuna.create_study(sampler=sampler_of(method, seed))
    speeds = np.exp(rng.normal(0, 0.25, n_workers))
    middle = loss.middle()
    done: list[Done] = []
    spent = 0.0
    events: list[tuple[float, int, str, Any]] = [(0.0, worker, "ask", None) for worker in range(n_workers)]
    heapq.heapify(events)
    while events:
        now, worker, what, data = heapq.heappop(events)
        if what == "ask" and spent < budget:
            trial = study.ask()
            study._storage._get_trial(trial._trial_id).datetime_start = _date(now)
            heapq.heappush(events, (now + 0.01 * rng.random(), worker, "train", (trial, now)))
        elif what == "train":
            trial, asked = data
            params = loss.suggest(trial, epochs=method == "ours, short")
            final = loss(params)
            share = params.get("epochs", EPOCHS) / EPOCHS * (1.0 if math.isfinite(final) else 0.1)
            cost = share * float(np.exp(rng.normal(0, 0.1)))
            spent += cost
            value = final * float(np.exp(rng.normal(0, loss.noise))) if math.isfinite(final) else None
            regret = (min(final, TOP) - loss.floor) / (middle - loss.floor)
            claim = read_claim(study._storage._get_trial(trial._trial_id))
            slot = None if claim is None else claim["slot"]
            end = now + cost * float(speeds[worker])
            done.append(Done(trial.number, asked, end, cost, value, regret, slot, params))
            heapq.heappush(events, (end, worker, "tell", (trial, value)))
        elif what == "tell":
            trial, value = data
            study.tell(trial, value, state=TrialState.COMPLETE if value is not None else TrialState.PRUNED)
            study._storage._get_trial(trial._trial_id).datetime_complete = _date(now)
            heapq.heappush(events, (now, worker, "ask", None))
    return sorted(done, key=lambda one: one.number)


def _date(hours: float) -> datetime.datetime:
    return LONG_AGO + datetime.timedelta(hours=hours)


def wrong_stages(done: list[Done]) -> int:
    """Return how many trials of a stage began while a candidate of an earlier stage was under way."""
    found = 0
    for index, one in enumerate(done):
        rank = _rank(one.slot)
        ranks = [_rank(other.slot) for other in done[:index] if other.end > one.start]
        found += rank is not None and any(other is not None and other < rank for other in ranks)
    return found


def _rank(slot: str | None) -> int | None:
    """Return the place of a slot's stage in the recipe, None for what no stage is built on."""
    head = (slot or "").split(":")[0].rstrip("0123456789")
    return COMPARED.index(head) if head in COMPARED else None


def twice(done: list[Done]) -> int:
    """Return how many trials ran a candidate that another had run; nothing fails in the simulation."""
    slots = [one.slot for one in done if one.slot not in (None, MODEL_SLOT)]
    return len(slots) - len(set(slots))


def alike(done: list[Done]) -> int:
    """Return how many trials nearly repeat one that was running when they began."""
    found = 0
    for index, one in enumerate(done):
        others = [o for o in done[:index] if o.end > one.start]
        replicate = (one.slot or "").startswith("replicate")
        found += not replicate and any(_near(one.params, other.params) for other in others)
    return found


def _near(a: dict[str, float], b: dict[str, float]) -> bool:
    spans = {"lr": 6.0, "weight_decay": 6.0, "momentum": 0.19, "dropout": 0.8, "batch_size": 1.2, "epochs": EPOCHS}
    log = ("lr", "weight_decay", "batch_size")
    return all(abs(math.log10(a[n] / b[n]) if n in log else a[n] - b[n]) < 0.02 * spans[n] for n in a)


def regret_after(done: list[Done], budget: float) -> float:
    """Return the regret of the incumbent of the first trials, by start, that cost at most the budget together."""
    spent, best = 0.0, None
    for one in done:
        spent += one.cost
        if spent > budget:
            break
        if one.value is not None and (best is None or one.value < best.value):  # type: ignore[operator]
            best = one
    return 1.0 if best is None else best.regret


def regret_at(done: list[Done], now: float) -> float:
    """Return the regret of the incumbent at a time."""
    known = [one for one in done if one.end <= now and one.value is not None]
    best = min(known, key=lambda one: one.value or 0.0, default=None)
    return 1.0 if best is None else best.regret


TIMES = tuple(float(x) for x in np.round(np.geomspace(0.5, 80, 60), 3))


def result_of(kind: str, method: str, n_workers: int, seed: int, budget: float) -> dict[str, Any]:
    """Simulate one study; return what the tables need."""
    done = simulate(Loss.draw(kind, seed), method, n_workers, seed, budget)
    ours = method.startswith("ours")
    return {
        "trials": len(done),
        "wrong_stage": wrong_stages(done),
        "twice": twice(done) if ours else 0,
        "alike": alike(done),
        "replicates": sum((one.slot or "").startswith("replicate") for one in done),
        "regret": [round(regret_after(done, cost), 5) for cost in COSTS],
        "by_time": [round(regret_at(done, now), 3) for now in TIMES],
        "end": round(max(one.end for one in done), 3),
    }


def table(results: dict[str, dict[str, dict[str, Any]]]) -> str:
    """Return the tables of results, by "method|workers" and "kind|seed"."""
    lines = [
        "| method | workers | trials | wrong stage | twice | alike | replicates | "
        + " | ".join(f"regret, {cost}" for cost in COSTS)
        + " | against one worker, "
        + " | ".join(map(str, COSTS))
        + " | speed-up |",
        "|---|" + "---|" * (6 + 2 * len(COSTS) + 1),
    ]
    for method in METHODS:
        alone: np.ndarray | None = None
        goal, since = 0.0, 0.0
        for n_workers in WORKERS:
            rows = list(results.get(f"{method}|{n_workers}", {}).values())
            if not rows:
                continue
            trials = sum(row["trials"] for row in rows)
            shares = [f"{100 * sum(row[key] for row in rows) / trials:.1f}%" for key in COUNTS]
            regret = np.mean([row["regret"] for row in rows], axis=0)
            error = np.std([row["regret"] for row in rows], axis=0, ddof=1) / math.sqrt(len(rows))
            curve = np.mean([row["by_time"] for row in rows], axis=0)
            alone = regret if alone is None else alone
            goal = goal or float(alone[COSTS.index(GOAL)])
            reached = next((t for t, r in zip(TIMES, curve, strict=True) if r <= goal), math.inf)
            since = since or reached
            cells = [f"{m:.4f} ({e:.4f})" for m, e in zip(regret, error, strict=True)]
            ratios = [f"{100 * (m / a - 1):+.0f}%" for m, a in zip(regret, alone, strict=True)]
            speed_up = f"{since / reached:.1f}x" if reached < math.inf else "-"
            row = [method, n_workers, trials, *shares, *cells, *ratios, speed_up]
            lines.append("| " + " | ".join(map(str, row)) + " |")
    return "\n".join(lines)


COUNTS = ("wrong_stage", "twice", "alike", "replicates")


def main() -> int:
    """Simulate what is missing and print the table; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--budget", type=float, default=float(COSTS[-1]))
    parser.add_argument("--methods", nargs="*", choices=METHODS, default=METHODS)
    parser.add_argument("--workers", type=int, nargs="*", default=WORKERS)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    start = time.perf_counter()
    results: dict[str, dict[str, Any]] = {}
    for method in arguments.methods:
        for n_workers in arguments.workers:
            path = arguments.out / f"{method.replace(', ', '-')}-{n_workers}.json"
            found = json.loads(path.read_text(encoding="utf-8"))["studies"] if path.exists() else {}
            missing = [(k, seed) for k in KINDS for seed in range(arguments.seeds) if f"{k}|{seed}" not in found]
            results[f"{method}|{n_workers}"] = found
            if not missing:
                continue
            for kind, seed in missing:
                found[f"{kind}|{seed}"] = result_of(kind, method, n_workers, seed, arguments.budget)
            write(path, {"settings": settings(), "budget": arguments.budget, "studies": found})
            print(f"{time.perf_counter() - start:.0f} s {method}, {n_workers}", file=sys.stderr, flush=True)
    print(table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
