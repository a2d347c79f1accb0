"""The discipline as an Optuna pruner: divergence at once, comparison only among like."""

import math
from typing import Any

import optuna
from optuna.pruners import BasePruner
from optuna.study import Study
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from optuna_discipline import trial_record
from optuna_discipline.rules.arguments import is_number
from optuna_discipline.rules.curve import EpochLog
from optuna_discipline.rules.curve import LossCurve
from optuna_discipline.rules.pruning import Peer
from optuna_discipline.rules.pruning import as_peer
from optuna_discipline.rules.pruning import compares_with_peers
from optuna_discipline.rules.pruning import should_stop

_logger = optuna.logging.get_logger(f"optuna.{__name__}")


class DisciplinedPruner(BasePruner):
    """Stops diverged runs as soon as it is certain, and leaves the best runs of 1cycle alone.

    It reads the rows of `TrialReporter` or `report_epoch`; with plain `trial.report` it knows less and stops only runs
    whose reports are no numbers. The reason of a stop is the user attribute `pruned_because` of the trial.

    Args:
        slack: How much worse than the middle comparable run a run at constant learning rate may be, as a share of
            that run's validation loss.

    Raises:
        ValueError: If `slack` is not a finite number from 0 on.

    Example:
        >>> import optuna
        >>> from optuna_discipline import DisciplinedPruner
        >>> study = optuna.create_study(pruner=DisciplinedPruner())
    """

    def __init__(self, *, slack: float = 0.1) -> None:
        if not (is_number(slack) and 0 <= slack < math.inf):
            raise ValueError(f"`slack` must be a finite number from 0 on, but got {slack!r}.")
        self._slack = slack
        self._peers: dict[str, dict[int, Peer | None]] = {}  # finished trials by study and id, rebuilt when lost

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_peers": {}}

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Return whether the trial should stop, and leave the reason on it if so."""
        curve = trial_record.read_curve(trial) or _reported(trial)
        if curve is None:
            return False
        peers = self._read_peers(study, trial) if compares_with_peers(curve) else []
        decision = should_stop(curve, peers, slack=self._slack)
        if decision.stop:
            study._storage.set_trial_user_attr(trial._trial_id, trial_record.PRUNED_KEY, decision.reason)
            trial.user_attrs[trial_record.PRUNED_KEY] = decision.reason
            _logger.info(f"Trial {trial.number} pruned: {decision.reason}.")
        return decision.stop

    def _read_peers(self, study: Study, trial: FrozenTrial) -> list[Peer]:
        others = study._storage.get_all_trials(study._study_id, deepcopy=False, states=(TrialState.COMPLETE,))
        known = self._peers.setdefault(study.study_name, {})
        for other in others:
            if other._trial_id not in known:
                curve = trial_record.read_curve(other)
                known[other._trial_id] = None if curve is None else as_peer(curve)
        own = trial._trial_id
        return [peer for other in others if (peer := known[other._trial_id]) is not None and other._trial_id != own]


def _reported(trial: FrozenTrial) -> LossCurve | None:
    """Return plain reports as a curve of which only NaN and inf say anything: what they measure is not known."""
    if not trial.intermediate_values:
        return None
    logs = tuple(EpochLog(step, None, None, value) for step, value in sorted(trial.intermediate_values.items()))
    return LossCurve(logs, n_epochs=logs[-1].epoch + 1)
