"""Replays `DisciplinedPruner` through its pure rule, some hundred times as fast as through a study.

Each run of a group is read once at every epoch, and only the comparisons are made anew for each order. A test proves on
random orders that a real study with the real pruner lets every run live exactly as long.
"""

import functools

import numpy as np

from benchmarks.pruner_curves import Group
from optuna_discipline import LossCurve
from optuna_discipline.rules.pruning import SLACK
from optuna_discipline.rules.pruning import compare
from optuna_discipline.rules.pruning import compares_with_peers
from optuna_discipline.rules.pruning import has_falling_lr
from optuna_discipline.rules.pruning import why_certain
from optuna_discipline.rules.standing import Standing
from optuna_discipline.rules.standing import as_peer
from optuna_discipline.rules.standing import stand


class PreparedRun:
    """A run as the pruner sees it at each epoch.

    Args:
        curve: At full length.
        metric: The study's metric.
    """

    def __init__(self, curve: LossCurve, metric: str) -> None:
        self._maximize = metric == "val_accuracy"
        self._curve = curve
        self._values = [log.val_accuracy for log in curve.logs] if self._maximize else None
        self.breaks_at = next((end for end in range(1, len(curve) + 1) if self._is_certain(end)), None)
        self.peer = as_peer(curve, values=self._values, maximize=self._maximize)

    def _until(self, end: int) -> LossCurve:
        return LossCurve(self._curve.logs[:end], n_epochs=self._curve.n_epochs, n_classes=self._curve.n_classes)

    def _is_certain(self, end: int) -> bool:
        values = None if self._values is None else self._values[:end]
        return why_certain(self._until(end), values, maximize=self._maximize) is not None

    @functools.cached_property
    def standings(self) -> list[tuple[int, Standing, bool]]:
        """Epochs done, standing and whether the learning rate has risen, at each epoch with a comparison."""
        found = []
        for end in range(1, (self.breaks_at or len(self._curve) + 1)):
            curve = self._until(end)
            if compares_with_peers(curve):
                values = None if self._values is None else self._values[:end]
                own = stand(curve, values=values, maximize=self._maximize)
                found.append((end, own, not has_falling_lr(curve)))
        return found

    def lives(self, peers: list[Standing], slack: float) -> int:
        """Return the epochs that the run lives beside completed ones."""
        compared = (end for end, own, rises in self.standings if compare(own, peers, slack=slack, rises=rises).stop)
        return next(compared, self.breaks_at or len(self._curve))


class PreparedGroup:
    """A group ready for many replays by one metric.

    Args:
        group: Its runs at full length.
        metric: The study's metric.
    """

    def __init__(self, group: Group, metric: str) -> None:
        self._runs = [PreparedRun(curve, metric) for curve in group.curves]
        self._lengths = [len(curve) for curve in group.curves]

    def replay(self, seed: int, *, slack: float = SLACK) -> np.ndarray:
        """Return the epochs that each run lives in one random order, shape (runs,)."""
        lived, peers = np.zeros(len(self._runs), dtype=int), list[Standing]()
        for index in np.random.default_rng(seed).permutation(len(self._runs)):
            run = self._runs[index]
            lived[index] = run.lives(peers, slack)
            ended = lived[index] == self._lengths[index] and run.breaks_at is None
            if ended and run.peer is not None:
                peers.append(run.peer)
        return lived
