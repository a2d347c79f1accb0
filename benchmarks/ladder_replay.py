"""The learning-rate ladder replayed on recorded trainings: `python -m benchmarks.ladder_replay`.

The 42 networks of `benchmarks.lr_lean`, each trained at 14 or 15 rates a factor of 10 ** 0.25 apart, answer a ladder
that begins anywhere: a rung is the recorded training at the nearest rate, of a seed drawn at random. Regret of the best
run as seen, by the mean loss of its rate: 0 is the best rate's, 1 the loss before training. A ladder that is decided,
or left to the model, stays where it is. `--reports` thins the curves to so many reports. Above the highest rate that
was recorded its trainings stand for all: most have broken there, as on inputs that were not scaled.
"""

import argparse
import json
import math
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.lr_lean import RESULTS
from benchmarks.lr_lean import final_loss
from optuna_discipline import Run
from optuna_discipline.rules.ladder import Ladder
from optuna_discipline.rules.rungs import ladder_axis
from optuna_discipline.rules.space import Bounds

USUAL, USUAL_ADAMW = 0.1, 0.003
STARTS = {  # where a ladder begins, in powers of ten of a usual rate
    "1/60 to 1/16": (-1.75, -1.2),
    "1/16 to 1/3": (-1.2, -0.5),
    "1/3 to 0.8": (-0.5, -0.1),
    "usual": (-0.1, 0.1),
    "1.25 to 3": (0.1, 0.5),
    "3 to 20": (0.5, 1.3),
    "30 to 3000": (1.5, 3.5),
}
FAR_ABOVE = 1e5  # times the highest rate that was recorded: where the bounds end for a ladder that begins above it


@dataclass(frozen=True)
class Recorded:
    """A network's trainings: its rates, for each its curves, and the regret of each rate."""

    usual: float
    lrs: np.ndarray
    curves: list[list[list[float]]]
    regrets: np.ndarray


def read(path: Path, reports: int | None) -> Recorded:
    """Return the trainings of one file, their curves thinned to so many reports."""
    stored = json.loads(path.read_text(encoding="utf-8"))["curves"]
    lrs = sorted(stored, key=float)
    curves = [[_thinned(curve, reports) for curve in stored[lr]] for lr in lrs]
    worst = max(runs[0][0] for runs in curves if math.isfinite(runs[0][0]))
    final = np.array([np.mean([final_loss(curve, worst) for curve in runs]) for runs in curves])
    regrets = np.minimum((final - final.min()) / max(worst - final.min(), 1e-9), 1.0)
    usual = USUAL_ADAMW if "adam" in path.stem else USUAL
    return Recorded(usual, np.array([float(lr) for lr in lrs]), curves, regrets)


def replay(
    network: Recorded, start: float, rng: np.random.Generator, trainings: int, *, knows_usual: bool = False
) -> list[float]:
    """Return the regret of the best run after 1, 2, 3, ... trainings of a ladder that begins at `start`."""
    highest = network.lrs[-1] * (1.1 if start <= network.lrs[-1] * 1.1 else FAR_ABOVE)
    axis = ladder_axis(start, Bounds(network.lrs[0] * 0.9, highest))
    slots: dict[float, list[Run]] = {}
    found: list[float] = []
    best = math.inf
    for number in range(trainings):
        ladder = Ladder(axis, slots, usual=network.usual / start if knows_usual else 0.0)
        rungs = ladder.open(ladder.wanted())
        if not rungs:
            found.append(found[-1])
            continue
        at = int(np.argmin(abs(np.log(network.lrs / (start * rungs[0])))))
        curve = network.curves[at][int(rng.integers(len(network.curves[at])))]
        whole = all(map(math.isfinite, curve))
        loss = curve[-1] if whole else math.inf
        slots[rungs[0]] = [
            Run(number, "complete", {"lr": start * rungs[0]}, loss, reports=tuple(curve) if whole else ())
        ]
        better = loss < best or not found
        found.append((network.regrets[at] if whole else 1.0) if better else found[-1])
        best = min(best, loss)
    return found


def main() -> int:
    """Print the table; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--curves", type=Path, default=RESULTS)
    parser.add_argument("--reports", type=int)
    parser.add_argument("--repeats", type=int, default=6, help="starts a network and range")
    parser.add_argument("--usual", action="store_true", help="tell the ladder where the optimizer usually trains")
    parser.add_argument("--trainings", type=int, default=6)
    arguments = parser.parse_args()
    networks = [read(path, arguments.reports) for path in sorted(arguments.curves.glob("*.json"))]
    rows: dict[str, list[list[float]]] = defaultdict(list)
    for number, network in enumerate(networks):
        for words, (low, high) in STARTS.items():
            for repeat in range(arguments.repeats):
                rng = np.random.default_rng([repeat, number])
                start = network.usual * 10 ** rng.uniform(low, high)
                if network.lrs[0] * 0.9 <= start and (start <= network.lrs[-1] * 1.1 or low > 1):
                    found = replay(network, start, rng, arguments.trainings, knows_usual=arguments.usual)
                    rows[words].append(found)
    print(f"{len(networks)} networks, mean regret after so many trainings\n")
    print("| begins at, of a usual rate | ladders | " + " | ".join(map(str, range(1, arguments.trainings + 1))) + " |")
    print("|---|---|" + "---|" * arguments.trainings)
    for words, ladders in rows.items():
        print(f"| {words} | {len(ladders)} | " + " | ".join(f"{x:.3f}" for x in np.mean(ladders, axis=0)) + " |")
    return 0


def _thinned(curve: list[float], reports: int | None) -> list[float]:
    if reports is None or len(curve) <= reports or not all(map(math.isfinite, curve)):
        return curve
    return [curve[i] for i in np.linspace(0, len(curve) - 1, reports + 1)[1:].round().astype(int)]


if __name__ == "__main__":
    sys.exit(main())
