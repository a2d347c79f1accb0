"""The tables of `benchmarks.weight_decay`, from its files: hits of the candidates, and what a search with them costs.

*Bracketed*: the grid's best weight decay lies between the smallest and the largest candidate. *Hit*: some candidate is
as good as the grid's best within the noise (twice the standard error of their difference over seeds, or 1 % of the
loss). *Regret*: the mean loss of a pick over that of the grid's best, minus one. A search sees one seed, as a study
does, and is judged by the means over all.
"""

import math
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np

from optuna_discipline import weight_decay_candidates
from optuna_discipline.rules.candidates import WEIGHT_DECAYS
from optuna_discipline.rules.line_search import Axis
from optuna_discipline.rules.line_search import best_point
from optuna_discipline.rules.line_search import open_points
from optuna_discipline.rules.line_search import point_key

NOISE, SMALLEST_NOISE, NOW = 2.0, 0.01, 1e-4
SIZES = ("n_parameters", "n_samples", "n_classes", "depth", "input_size")
PARTS = ("development", "held out")


def show(results: dict[str, dict[str, Any]]) -> None:
    """Print a row a pair, the hit rates of each set, and the searches."""
    print(
        "| pair | part | layers | samples | lr | best (loss) | within noise | candidates | bracketed | hit | regret |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for name, result in results.items():
        grid = Grid(result)
        found = candidates_of(result)
        low, high = grid.plateau()
        print(
            f"| {name} | {result['part']} | {result['depth']} | {result['n_samples']} | {result['lr']:g} | "
            f"{grid.best:g} | {low:g} to {high:g} | {', '.join(f'{x:g}' for x in found)} | "
            f"{_yes(grid.brackets(found))} | {_yes(grid.hits(found))} | {grid.regret_of(found):.3f} |"
        )
    print("\n| candidates | part | pairs | bracketed | hit | mean regret | worst |\n|---|---|---|---|---|---|---|")
    sets: dict[str, Any] = {
        "by complexity": candidates_of,
        **{w: (lambda r, w=w: WEIGHT_DECAYS[w]) for w in WEIGHT_DECAYS},
    }
    for label, pick in {**sets, "1e-4 alone": lambda r: (NOW,)}.items():
        for part in PARTS:
            grids = [(Grid(r), pick(r)) for r in results.values() if r["part"] == part]
            regrets = [grid.regret_of(found) for grid, found in grids]
            bracketed, hit = (sum(getattr(g, what)(found) for g, found in grids) for what in ("brackets", "hits"))
            print(
                f"| {label} | {part} | {len(grids)} | {bracketed} | {hit} "
                f"| {np.mean(regrets):.3f} | {max(regrets):.3f} |"
            )
    print("\n| search, from 1e-4 | part | mean regret | median | worst pair | trainings beside the first |")
    print("|---|---|---|---|---|---|")
    for label, axis_of in SEARCHES.items():
        for part in PARTS:
            chosen = {
                n: [search(Grid(r), axis_of(r), s) for s in range(Grid(r).n_seeds)]
                for n, r in results.items()
                if r["part"] == part
            }
            regrets = {n: [Grid(results[n]).regret_of([x]) for x, _ in picks] for n, picks in chosen.items()}
            every = np.concatenate(list(regrets.values()))
            worst = max(regrets, key=lambda n: float(np.mean(regrets[n])))
            cost = np.mean([cost for picks in chosen.values() for _, cost in picks])
            mean = np.mean([np.mean(x) for x in regrets.values()])
            print(
                f"| {label} | {part} | {mean:.3f} | {np.median(every):.3f} | "
                f"{np.mean(regrets[worst]):.3f} ({worst}) | {cost:.1f} |"
            )


class Grid:
    """The losses of one pair, shape (weight decays, seeds)."""

    def __init__(self, result: Mapping[str, Any]) -> None:
        self.values = [float(x) for x in result["grid"]]
        self.losses = np.array([[run[0] for run in runs] for runs in result["grid"].values()])
        self.means = self.losses.mean(axis=1)
        self._best = int(np.argmin(self.means))
        self.best, self.n_seeds = self.values[self._best], self.losses.shape[1]

    def nearest(self, weight_decay: float) -> int:
        """Return the place of the grid's point nearest to a weight decay, by ratio; 0 is itself."""
        if weight_decay < 3e-7:
            return self.values.index(0.0)
        positive = [i for i, x in enumerate(self.values) if x > 0]
        return min(positive, key=lambda i: abs(math.log(self.values[i] / weight_decay)))

    def is_as_good(self, place: int) -> bool:
        """Return whether a point is as good as the best within the noise."""
        difference = self.losses[place] - self.losses[self._best]
        noise = NOISE * difference.std(ddof=1) / math.sqrt(self.n_seeds)
        return bool(difference.mean() <= max(noise, SMALLEST_NOISE * self.means[self._best]))

    def plateau(self) -> tuple[float, float]:
        """Return the ends of the unbroken stretch around the best that is as good as it."""
        low = high = self._best
        while low > 0 and self.is_as_good(low - 1):
            low -= 1
        while high < len(self.values) - 1 and self.is_as_good(high + 1):
            high += 1
        return self.values[low], self.values[high]

    def brackets(self, candidates: Sequence[float]) -> bool:
        """Return whether the best lies between the smallest and the largest candidate."""
        return min(candidates) <= self.best <= max(candidates)

    def hits(self, candidates: Sequence[float]) -> bool:
        """Return whether a candidate is as good as the best."""
        return any(self.is_as_good(self.nearest(x)) for x in candidates)

    def regret_of(self, candidates: Sequence[float]) -> float:
        """Return the regret of the best candidate."""
        return float(min(self.means[self.nearest(x)] for x in candidates) / self.means[self._best] - 1)


def candidates_of(result: Mapping[str, Any]) -> tuple[float, ...]:
    """Return what the rule gives for a pair."""
    return weight_decay_candidates(**{name: result[name] for name in SIZES})


def search(grid: Grid, axis: Axis, seed: int) -> tuple[float, int]:
    """Search with one seed as the sampler does; return the pick, and the trainings that it took beside the first."""
    results: dict[float, float] = {}
    noise = 0.0
    while todo := open_points(axis, results, noise=noise):
        for x in todo:
            results[x] = float(grid.losses[grid.nearest(x), seed])
        noise = SMALLEST_NOISE * results[point_key(NOW)]
    return best_point(axis, results, noise=noise), len(results) - 1


def _axis(candidates: Sequence[float], *, walk: bool) -> Axis:
    ordered = dict.fromkeys(point_key(x) for x in (NOW, *candidates))
    return Axis(tuple(ordered), 0.0, 0.3, factor=10.0 if walk else 1.0, bisect=walk, max_points=7, figures=1)


def _yes(answer: bool) -> str:
    return "yes" if answer else "no"


SEARCHES = {
    "none": lambda result: Axis((NOW,), 0.0, 0.3),
    "a tenth and ten times": lambda result: _axis((NOW * 10, NOW / 10), walk=False),
    "a tenth and ten times, then bisect and extrapolate": lambda result: _axis((NOW * 10, NOW / 10), walk=True),
    "by complexity": lambda result: _axis(candidates_of(result), walk=False),
    "by complexity, then bisect and extrapolate": lambda result: _axis(candidates_of(result), walk=True),
}
