"""Does a restart from a snapshot pick the same weight decay as whole trainings, and what does it cost?

    python -m benchmarks.weight_decay_snapshot record --data-root DIR [PAIR...]   # trains what is missing; resumable
    python -m benchmarks.weight_decay_snapshot table                              # from the files alone

For each pair and seed: five whole trainings at weight decay 1e-5 to 1e-1; the one at 1e-4 is saved after a quarter, a
half and three quarters of its epochs, and where `is_restart_point` says, and restarted from each with the other four.
A pick is judged by what `benchmarks.weight_decay` measured for it, on other seeds: its mean loss over that of the best
of the five, minus one. The cost of a search is in whole trainings, the one at 1e-4 included.
"""

import json
import sys
from collections.abc import Callable
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import weight_decay
from benchmarks.duel.tasks import Task
from benchmarks.record_or_table import record_or_table
from benchmarks.result_files import settings
from benchmarks.result_files import write
from benchmarks.weight_decay_tasks import load_pairs
from benchmarks.weight_decay_tasks import train
from optuna_discipline import EpochLog
from optuna_discipline import LossCurve
from optuna_discipline.rules.plateau import is_restart_point
from optuna_discipline.rules.slots import SMALLEST_NOISE
from optuna_discipline.training.saved_state import SavedState

RESULTS = Path(__file__).parent / "results" / "weight_decay_snapshot"
PAIRS = (
    "mlp-256",
    "regression",
    "fashion-cnn",
    "batchnorm",
    "texture",
    "imbalanced",
    "magic",
    "deep",
    "residual",
    "penbased-residual",
    "digits-residual-26",
    "optdigits-residual-42",
)
BASE = 1e-4
OTHERS = (1e-5, 1e-3, 1e-2, 1e-1)
SHALLOW = (1e-3, 1e-2)  # the others of `weight_decay_candidates(complexity="shallow")`
SEEDS = (10, 11, 12)
SHARES = (0.25, 0.5, 0.75)
PLATEAU = "plateau"


class Keeper:
    """Saves a training wherever it is asked to, or starts from one saved.

    Args:
        wanted: From the epochs so far to the names under which to save now.
        given: Where to start from.
    """

    def __init__(self, wanted: Callable[[LossCurve], list[str]], given: SavedState | None = None) -> None:
        self._wanted, self._given = wanted, given
        self._names: list[str] = []
        self.states: dict[str, SavedState] = {}

    def load(self) -> SavedState | None:
        """Return where to start from."""
        return self._given

    def went_on(self, state: SavedState) -> None:
        """Note nothing: the command knows what it gave."""

    def is_wanted(self, logs: Sequence[EpochLog], n_epochs: int) -> bool:
        """Return whether any name is wanted now that has not been saved yet."""
        self._names = [n for n in self._wanted(LossCurve(tuple(logs), n_epochs)) if n not in self.states]
        return bool(self._names)

    def save(self, state: SavedState) -> None:
        """Keep the state under the names wanted."""
        self.states.update(dict.fromkeys(self._names, state))


def main() -> int:
    """Run the command line; return the exit code."""
    grids = weight_decay.read(weight_decay.RESULTS)
    return record_or_table(
        __doc__,
        RESULTS,
        PAIRS,
        load_pairs,
        lambda task, path: record(task, grids[task.name]["lr"], path),
        lambda folder: show(folder, grids),
    )


def record(task: Task, lr: float, path: Path) -> None:
    """Train what the pair's file lacks, and write the file anew after each seed."""
    found: dict[str, Any] = {"pair": task.name, "lr": lr, "settings": settings(), "seeds": {}}
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))
    for seed in SEEDS:
        if str(seed) in found["seeds"]:
            continue
        keeper = Keeper(_names)
        runs = {BASE: train(task, lr=lr, weight_decay=BASE, seed=seed, snapshots=keeper).loss}
        runs |= {wd: train(task, lr=lr, weight_decay=wd, seed=seed).loss for wd in OTHERS}
        restarts: dict[str, Any] = {}
        for name, state in keeper.states.items():
            losses = {
                wd: train(task, lr=lr, weight_decay=wd, seed=seed, snapshots=Keeper(lambda curve: [], state)).loss
                for wd in OTHERS
            }
            share = len(state.logs) / task.epochs
            restarts[name] = {"share": share, "losses": {str(wd): round(loss, 5) for wd, loss in losses.items()}}
        found["seeds"][str(seed)] = {
            "runs": {str(wd): round(loss, 5) for wd, loss in runs.items()},
            "restarts": restarts,
        }
        write(path, found)
    print(task.name, flush=True)


def show(folder: Path, grids: dict[str, dict[str, Any]]) -> None:
    """Print agreement, regret and cost of each way to search, over pairs and seeds."""
    rows: dict[str, list[tuple[str, float, float, bool]]] = {}
    for path in sorted(folder.glob("*.json")):
        pair = json.loads(path.read_text(encoding="utf-8"))
        truth = {
            float(wd): float(np.mean([run[0] for run in runs])) for wd, runs in grids[pair["pair"]]["grid"].items()
        }
        best = min(truth[wd] for wd in (BASE, *OTHERS))
        for seed in pair["seeds"].values():
            runs = {float(wd): loss for wd, loss in seed["runs"].items()}
            whole = min(runs, key=lambda wd: runs[wd])
            searches = {"whole trainings": (whole, 1.0 + len(OTHERS)), "none: 1e-4": (BASE, 1.0)}
            for name, restart in seed["restarts"].items():
                losses = {BASE: runs[BASE], **{float(wd): loss for wd, loss in restart["losses"].items()}}
                pick = min(losses, key=lambda wd: losses[wd])
                searches[f"restart, {name}"] = (pick, 1 + len(OTHERS) * (1 - restart["share"]))
            few = {wd: runs[wd] for wd in (BASE, *SHALLOW)}
            searches["three candidates, whole trainings"] = (min(few, key=lambda wd: few[wd]), float(len(few)))
            searches["three candidates, as the recipe restarts them"] = _as_the_recipe(runs, seed["restarts"][PLATEAU])
            for name, (pick, cost) in searches.items():
                rows.setdefault(name, []).append((pair["pair"], truth[pick] / best - 1, cost, pick == whole))
    print("| search | pairs x seeds | picks as whole trainings do | mean regret | median | worst pair | cost |")
    print("|---|---|---|---|---|---|---|")
    for name in sorted(rows, key=lambda n: (n != "whole trainings", n)):
        found = rows[name]
        regrets = np.array([regret for _, regret, _, _ in found])
        by_pair = {pair: np.mean([r for p, r, _, _ in found if p == pair]) for pair, *_ in found}
        worst = max(by_pair, key=lambda pair: by_pair[pair])
        same = np.mean([same for *_, same in found])
        cost = np.mean([cost for _, _, cost, _ in found])
        print(
            f"| {name} | {len(found)} | {same:.0%} | {regrets.mean():.3f} | {np.median(regrets):.3f} | "
            f"{by_pair[worst]:.3f} ({worst}) | {cost:.2f} |"
        )


def _as_the_recipe(runs: dict[float, float], restart: dict[str, Any]) -> tuple[float, float]:
    """Return pick and cost of the recipe's search: restarts, and their winner trained from the start to be taken."""
    losses = {BASE: runs[BASE], **{wd: restart["losses"][str(wd)] for wd in SHALLOW}}
    best, cost = min(losses, key=lambda wd: losses[wd]), 1 + len(SHALLOW) * (1 - restart["share"])
    noise = SMALLEST_NOISE * runs[BASE]
    if best == BASE or losses[best] >= runs[BASE] - noise:
        return BASE, cost
    return best if runs[best] < runs[BASE] - noise else BASE, cost + 1


def _names(curve: LossCurve) -> list[str]:
    """Return the names under which a training of these epochs is saved."""
    found = [f"{share:g}" for share in SHARES if curve.fraction >= share]
    return [*found, PLATEAU] if is_restart_point(curve) else found


if __name__ == "__main__":
    sys.exit(main())
