"""One study of the duel: train until the cost is spent, write down every trial."""

import hashlib
import json
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch

from benchmarks.duel.methods import METHODS
from benchmarks.duel.methods import Method
from benchmarks.duel.tasks import Task
from optuna_discipline import OneCycle
from optuna_discipline import RangeTest
from optuna_discipline import TrialReporter
from optuna_discipline import complexity_of
from optuna_discipline import lr_range_test
from optuna_discipline import train_epochs
from optuna_discipline import weight_decay_candidates
from optuna_discipline.rules.candidates import DEFAULT_BATCH_SIZE

DEFAULT = {"momentum": 0.95, "weight_decay": 1e-4, "batch_size": 64}
DEFAULT_LR = {"sgd": 0.1, "adamw": 3e-3, "adam": 3e-3}
ARCHITECTURE = {"width": 64, "depth": 2, "dropout": 0.1}
WORST = 2.0  # a loss above this many untrained losses is reported as this: a diverged run is bad, not infinitely bad
RETRAIN_SEEDS = (90_001, 90_002, 90_003)
CHECKPOINTS = (1, 2, 3, 5, 8, 10, 15, 20, 50)


def train(
    task: Task, params: dict[str, Any], seed: int, trial: optuna.Trial | None = None, *, test: bool = False
) -> dict[str, Any]:
    """Train once; return the validation loss, the cost in full trainings, and the test loss if asked for.

    The trial, if there is one, gets a report an epoch, and may stop the run.
    """
    model = _model(task, params, seed)
    size = params.get("batch_size", task.batch_size)
    epochs = params.get("epochs", task.epochs)
    whole, rest = divmod(len(task.parts[0][1]), size)
    steps = max(1, whole + (rest > 1))  # `train_epochs` leaves a lone last sample out
    schedule = OneCycle(
        params["lr"],
        total_steps=epochs * steps,
        max_momentum=params["momentum"],
        base_momentum=min(0.85, params["momentum"]),
    )
    reporter = TrialReporter(trial, n_epochs=epochs, n_classes=task.n_classes) if trial is not None else None
    losses: list[float] = []
    pruned = False
    for log in train_epochs(
        model,
        task.loss,
        task.parts[0],
        task.parts[1],
        schedule,
        optimizer=task.optimizer,
        weight_decay=params["weight_decay"],
        batch_size=size,
        seed=seed,
        accuracy=False,
    ):
        losses.append(math.nan if log.val_loss is None else log.val_loss)
        if reporter is not None:
            try:
                reporter.report(log)
            except optuna.TrialPruned:
                pruned = True
                break
    worst = WORST * task.untrained
    result = {
        "value": min(losses[-1], worst) if math.isfinite(losses[-1]) else worst,
        "cost": len(losses) / task.epochs,
        "pruned": pruned,
        "curve": [round(min(x, worst), 5) if math.isfinite(x) else worst for x in losses],
    }
    if test:
        model.eval()
        with torch.no_grad():
            found = task.loss(model(task.parts[2][0]), task.parts[2][1]).item()
        result["test"] = min(found, worst) if math.isfinite(found) else worst
    return result


def run_study(task: Task, name: str, seed: int, budget: float) -> list[dict[str, Any]]:
    """Return the trials of one method on one task, until their cost has reached the budget."""
    method = METHODS[name]
    if method.halving:
        return _early_ranking(task, seed, budget)
    spent, test, records = 0.0, None, []
    if method.range_test:
        test, spent = _range_test(task, seed)
    recipe: dict[str, Any] = {}
    if not task.architecture:
        recipe["complexity"] = complexity_of(_model(task, {}, 0), len(task.parts[0][1]), task.n_classes)
    study = optuna.create_study(
        sampler=method.sampler(seed, test, recipe), pruner=method.pruner(task.epochs), study_name=f"{task.name}-{seed}"
    )
    while spent < budget - 1e-9:
        trial = study.ask()
        params = _suggest(trial, task, method, test, recipe)
        stage = trial.user_attrs.get("stage", "")
        if method.stages_only and stage == "refine":
            break
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = train(task, params, _trial_seed(seed, trial.number), trial if method.reports else None)
        if found["pruned"]:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            study.tell(trial, found["value"])
        spent += found["cost"]
        records.append({**found, "spent": round(spent, 4), "params": params, "stage": stage})
    return records


def retrain(task: Task, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return, for every checkpoint, the incumbent trained anew on fresh seeds."""
    found: dict[str, dict[str, Any]] = {}
    rows = []
    for checkpoint in CHECKPOINTS:
        best = incumbent(records, checkpoint)
        if best is None or records[-1]["spent"] < checkpoint - 1:
            continue
        key = json.dumps(best["params"], sort_keys=True)
        if key not in found:
            runs = [train(task, best["params"], seed, test=True) for seed in RETRAIN_SEEDS]
            found[key] = {"val": [r["value"] for r in runs], "test": [r["test"] for r in runs]}
        rows.append({"checkpoint": checkpoint, **found[key]})
    return rows


def incumbent(records: list[dict[str, Any]], cost: float) -> dict[str, Any] | None:
    """Return the best trial that was finished when `cost` was spent; None if there is none."""
    done = [r for r in records if r["spent"] <= cost + 1e-6 and not r["pruned"]]
    return min(done, key=lambda r: float(r["value"]), default=None)


def path_of(out: Path, task: str, method: str, seed: int) -> Path:
    """Return where a run's result lies."""
    return out / task / f"{method.replace(', ', '_').replace(' + ', '+').replace(' ', '-')}-{seed}.json"


def _suggest(
    trial: optuna.Trial, task: Task, method: Method, test: RangeTest | None, recipe: dict[str, Any]
) -> dict[str, Any]:
    if method.space == "fixed":
        return {"lr": DEFAULT_LR[task.optimizer], **DEFAULT, "batch_size": task.batch_size or 64} | _fixed(task)
    params: dict[str, Any] = {}
    if method.space == "box":
        bounds = test.choice.bounds if test is not None else None
        low, high = bounds or (1e-5, 10.0)
        decays = [d for d in weight_decay_candidates(complexity=recipe.get("complexity", "moderate")) if d > 0]
        params["lr"] = trial.suggest_float("lr", max(low, 1e-5), min(high, 10.0), log=True)
        params["momentum"] = 1 - trial.suggest_float("one_minus_momentum", 0.01, 0.1, log=True)
        params["weight_decay"] = trial.suggest_float("weight_decay", min(decays), max(decays), log=True)
    else:
        params["lr"] = trial.suggest_float("lr", 1e-5, 10.0, log=True)
        params["momentum"] = trial.suggest_float("momentum", 0.8, 0.99)
        params["weight_decay"] = trial.suggest_float("weight_decay", 1e-7, 1e-1, log=True)
    if task.batch_size is None:
        params["batch_size"] = trial.suggest_int("batch_size", 16, 256, log=True)
    else:
        params["batch_size"] = task.batch_size
    if task.architecture:
        params["width"] = trial.suggest_int("width", 16, 256, log=True)
        params["depth"] = trial.suggest_int("depth", 1, 4)
        params["dropout"] = trial.suggest_float("dropout", 0.0, 0.5)
    if method.short:
        params["epochs"] = trial.suggest_int("epochs", 1, task.epochs)
    return params


def _early_ranking(task: Task, seed: int, budget: float) -> list[dict[str, Any]]:
    """Start eight random configurations, finish the one that is best after an eighth of the epochs, again and again."""
    records: list[dict[str, Any]] = []
    study = optuna.create_study(sampler=METHODS["random"].sampler(seed, None, {}))
    spent, number, first = 0.0, 0, max(1, task.epochs // 8)
    while spent < budget:
        entrants = []
        for _ in range(8):
            params = _suggest(study.ask(), task, METHODS["random"], None, {})
            found = train(task, params, _trial_seed(seed, number))
            number += 1
            begun = min(first, len(found["curve"]))
            spent += begun / task.epochs
            if len(found["curve"]) > first:
                entrants.append((found["curve"][first - 1], number, params, found))
        if entrants:
            _, _, params, found = min(entrants, key=lambda e: e[:2])
            spent += found["cost"] - first / task.epochs
            records.append({**found, "spent": round(spent, 4), "params": params, "stage": ""})
    return records


def _range_test(task: Task, seed: int) -> tuple[RangeTest, float]:
    """Return a range test on the training loss, and its cost in full trainings."""
    size = task.batch_size or DEFAULT_BATCH_SIZE
    total = task.epochs * math.ceil(len(task.parts[0][1]) / size)
    steps = min(100, max(20, int(0.2 * total)))
    test = lr_range_test(
        _model(task, {}, seed),
        task.loss,
        task.parts[0],
        optimizer=task.optimizer,
        start_lr=1e-5 if task.optimizer == "sgd" else 1e-6,
        end_lr=10.0 if task.optimizer == "sgd" else 1.0,
        num_steps=steps,
        batch_size=size,
        seed=seed,
        planned_steps=total,
    )
    return test, len(test.lrs) / total


def _model(task: Task, params: dict[str, Any], seed: int) -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if task.architecture:
            return task.build(**{name: params.get(name, value) for name, value in ARCHITECTURE.items()})
        return task.build()


def _fixed(task: Task) -> dict[str, Any]:
    return dict(ARCHITECTURE) if task.architecture else {}


def _trial_seed(seed: int, number: int) -> int:
    digest = hashlib.sha256(f"{seed}/{number}".encode()).digest()
    return int(np.frombuffer(digest[:4], dtype=np.uint32)[0]) % 2**31
