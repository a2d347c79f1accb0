"""Workers on PostgreSQL, killed at random: `python -m benchmarks.killed_workers`.

A real server whose commits wait for the disk, eight worker processes with a heartbeat, and a killer: after exponential
waits it sends SIGKILL to a random worker, wherever that is (deciding, training, reporting, telling), and starts anew.
When the study has enough trials, it is examined: nothing that had finished may be lost or half written, no candidate
may have been run to its end twice, no stage may stand on an undecided one. Trainings are simulated (a bowl in
lr / (1 - momentum) and weight decay with 3 % noise, epochs that sleep); the refinement is TPE's, because a new process
would need seconds to load a Gaussian process.

Optuna writes the first heartbeat of a trial when its objective begins. A worker killed before that, while it decides,
leaves a trial that no heartbeat fails (`killed_while_deciding`); the sampler itself takes it for dead after a minute or
five times the longest training, so that nothing waits for it.
"""

import argparse
import collections
import json
import math
import multiprocessing
import os
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.storages import RDBStorage
from optuna.storages import fail_stale_trials
from optuna.study import MaxTrialsCallback
from optuna.trial import TrialState

from benchmarks import servers
from benchmarks.result_files import settings
from benchmarks.result_files import write
from optuna_discipline import DisciplinedPruner
from optuna_discipline import DisciplinedSampler
from optuna_discipline import EpochLog
from optuna_discipline import HyperParams
from optuna_discipline import Recipe
from optuna_discipline import TrialReporter
from optuna_discipline import suggest_hyperparams
from optuna_discipline.rules.run import MODEL_SLOT
from optuna_discipline.trial_record import read_claim
from optuna_discipline.trial_record import read_rows

RESULTS = Path(__file__).parent / "results" / "killed_workers.json"
STUDY, EPOCHS, EPOCH_SECONDS = "killed", 6, 0.2
HEARTBEAT, GRACE = 1, 5
DONE = (TrialState.COMPLETE, TrialState.PRUNED)


def work(url: str, seed: int, n_trials: int) -> None:
    """Be one worker until the study has enough trials."""
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    storage = RDBStorage(url, heartbeat_interval=HEARTBEAT, grace_period=GRACE)
    sampler = DisciplinedSampler(refine_sampler=optuna.samplers.TPESampler(multivariate=True), seed=seed)
    study = optuna.load_study(study_name=STUDY, storage=storage, sampler=sampler, pruner=DisciplinedPruner())
    rng = np.random.default_rng()

    def objective(trial: optuna.Trial) -> float:
        trial.set_user_attr("began", time.time())
        p = suggest_hyperparams(trial, epochs=EPOCHS)
        final = loss_of(p) * float(np.exp(rng.normal(0, 0.03)))
        reporter = TrialReporter(trial, n_epochs=EPOCHS, n_classes=10)
        for epoch in range(EPOCHS):
            time.sleep(EPOCH_SECONDS * rng.uniform(0.5, 1.5))
            now = final + (math.log(10) - final) * (1 - (epoch + 1) / EPOCHS) if math.isfinite(final) else math.nan
            reporter.report(EpochLog(epoch, p.max_lr, now, now))
        trial.set_user_attr("ended", time.time())
        return final

    if len(study.get_trials(deepcopy=False, states=DONE)) < n_trials:
        study.optimize(objective, callbacks=[MaxTrialsCallback(n_trials, states=DONE)])


def loss_of(p: HyperParams) -> float:
    """Return the noise-free final loss; inf where training diverges."""
    step = math.log10(p.max_lr / (1 - p.momentum)) - 0.5
    return math.inf if step > 0.7 else 0.3 + 0.5 * step**2 + 0.03 * (math.log10(p.weight_decay) + 4) ** 2


def run(url: str, *, n_workers: int, n_trials: int, seconds_between_kills: float, seed: int) -> dict[str, Any]:
    """Run a study under fire; return what happened and what was found."""
    rng = np.random.default_rng(seed)
    context = multiprocessing.get_context("forkserver")  # new processes in milliseconds, without our connections
    context.set_forkserver_preload(["__main__"])
    study = optuna.create_study(study_name=STUDY, storage=url)
    began = time.monotonic()

    def start() -> Any:
        worker = context.Process(target=work, args=(url, seed, n_trials))
        worker.start()
        return worker

    workers = [start() for _ in range(n_workers)]
    killed, exit_codes = 0, collections.Counter[int]()
    while len(study.get_trials(deepcopy=False, states=DONE)) < n_trials:
        time.sleep(float(rng.exponential(seconds_between_kills)))
        victim = int(rng.integers(n_workers))
        workers[victim].kill()
        workers[victim].join()
        killed += workers[victim].exitcode == -signal.SIGKILL
        exit_codes[workers[victim].exitcode] += 1
        workers[victim] = start()
    for worker in workers:
        worker.join()
        exit_codes[worker.exitcode] += 1
    seconds = time.monotonic() - began
    time.sleep(GRACE + 2 * HEARTBEAT)
    storage = RDBStorage(url, heartbeat_interval=HEARTBEAT, grace_period=GRACE)
    fail_stale_trials(optuna.load_study(study_name=STUDY, storage=storage))
    return {"seconds": round(seconds, 1), "killed": killed, "exit_codes": dict(exit_codes), **examine(study)}


def examine(study: optuna.Study) -> dict[str, Any]:
    """Count what must be right in a study whose workers have all gone."""
    trials = study.trials
    finished = [trial for trial in trials if trial.state in DONE]
    claims = {trial.number: read_claim(trial) for trial in trials}
    rows = {trial.number: [row.log.epoch for row in read_rows(trial)] for trial in finished}
    ended = collections.Counter(claims[t.number]["slot"] for t in finished if claims[t.number] is not None)  # type: ignore[index]
    best = HyperParams(
        *(study.best_params[name] for name in ("lr", "momentum", "weight_decay", "batch_size", "epochs"))
    )
    return {
        "started": len(trials),
        "states": dict(collections.Counter(trial.state.name for trial in trials)),
        "stages": dict(collections.Counter(str(trial.user_attrs.get("stage")) for trial in finished)),
        "numbers_missing": len(set(range(len(trials))) - {trial.number for trial in trials}),
        "left_running": sum(not trial.state.is_finished() and bool(trial.params) for trial in trials),
        "killed_while_deciding": sum(not trial.state.is_finished() and not trial.params for trial in trials),
        "finished_without_a_claim": sum(claims[trial.number] is None for trial in finished),
        "complete_with_a_row_missing": sum(
            rows[t.number] != list(range(EPOCHS)) for t in finished if t.state == TrialState.COMPLETE
        ),
        "rows_differ_from_reports": sum(rows[t.number] != sorted(t.intermediate_values) for t in finished),
        "candidates_ended_twice": sum(n - 1 for slot, n in ended.items() if slot != MODEL_SLOT),
        "begun_too_early": begun_too_early(trials),
        "best_loss": round(loss_of(best), 4),
    }


def begun_too_early(trials: list[optuna.trial.FrozenTrial]) -> list[list[object]]:
    """Return the trials of a stage whose objective began before a candidate of an earlier stage had ended.

    Each with its number, its stage, the other's number, and by how many seconds it was early.
    """
    order = {stage: index for index, stage in enumerate(Recipe().stages[:-1])}
    claims = {t.number: claim for t in trials if (claim := read_claim(t)) is not None and claim["slot"] != MODEL_SLOT}
    staged = [(order[claims[t.number]["stage"]], t) for t in trials if claims.get(t.number, {}).get("stage") in order]
    found: list[list[object]] = []
    for rank, trial in staged:
        for other_rank, other in staged:
            began, ended = trial.user_attrs.get("began"), other.user_attrs.get("ended")
            if other_rank < rank and began is not None and ended is not None and ended > began:
                found.append([trial.number, claims[trial.number]["stage"], other.number, round(ended - began, 2)])
    return found


def main() -> int:
    """Run the benchmark and print its result; return 1 if anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--seconds-between-kills", type=float, default=4.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    results = json.loads(given.out.read_text()) if given.out.exists() else {}
    wish = {"workers": given.workers, "trials": given.trials, "seconds_between_kills": given.seconds_between_kills}
    machine = {**settings(), "cpus": os.cpu_count()}
    for seed in range(given.seeds):
        key = f"{given.workers} workers, {given.trials} trials, seed {seed}"
        if key in results:
            continue
        with servers.postgresql() as url:
            found = run(url, n_workers=given.workers, n_trials=given.trials, seed=seed,
                        seconds_between_kills=given.seconds_between_kills)  # fmt: skip
        results[key] = {**wish, **machine, **found}
        write(given.out, results, indent=1)
    print(json.dumps(results, indent=1))
    wrong = ("numbers_missing", "left_running", "finished_without_a_claim", "complete_with_a_row_missing",
             "rows_differ_from_reports", "candidates_ended_twice", "begun_too_early")  # fmt: skip
    crashed = any(set(result["exit_codes"]) - {"0", "-9"} for result in json.loads(given.out.read_text()).values())
    return int(crashed or any(result[name] for result in results.values() for name in wrong))


if __name__ == "__main__":
    sys.exit(main())
