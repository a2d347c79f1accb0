"""The discipline as an Optuna pruner: divergence at once, comparison only among like."""

import math
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from typing import Any

import optuna
from optuna.pruners import BasePruner
from optuna.study import Study
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from optuna.trial import TrialState

from optuna_discipline import costs
from optuna_discipline import trial_record
from optuna_discipline.rules.curve import EpochLog
from optuna_discipline.rules.curve import LossCurve
from optuna_discipline.rules.pruning import SLACK
from optuna_discipline.rules.pruning import check_slack
from optuna_discipline.rules.pruning import compares_with_peers
from optuna_discipline.rules.pruning import should_stop
from optuna_discipline.rules.pruning import why_certain
from optuna_discipline.rules.standing import Standing
from optuna_discipline.rules.standing import as_peer
from optuna_discipline.rules.standing import rank_alike
from optuna_discipline.study_record import told_roles
from optuna_discipline.trial_record import Reported

# Plain runs stopped by a guessed length, after which one shows how long they are.
STOPS_IN_A_ROW = 3
ENDED = (TrialState.COMPLETE, TrialState.PRUNED)
_logger = optuna.logging.get_logger(f"optuna.{__name__}")


class DisciplinedPruner(BasePruner):
    """Stops diverged runs as soon as it is certain, hopeless ones when it is safe, and leaves the best of 1cycle alone.

    It reads the rows of `TrialReporter` or `report_epoch`, and stops a run, too, whose metric has been no number for
    three reports and a tenth of its length while the training goes on (a quarter, if numbers came back twice before);
    one that never was a number may begin by the middle. With plain `trial.report` it knows neither training loss nor
    learning rate: then it stops runs that report infinity, or NaN for as long (a minimised one also from the first
    report on), and after three quarters of their length those far worse than every good one before. NaN between numbers
    counts as not measured. A run of either kind that does not say how long it is counts as long as the longest complete
    one that did not either, so the first shows it and is not compared; after three such stops in a row one run is not,
    in case they are longer now. Nor is one stopped after three stops by NaN from the first report on. A run whose rows
    count from 1 stands an epoch farther than it is: it is compared an epoch earlier, and not at its last but one.
    Trials of different stages or lengths are not compared, nor are any at epochs without the study's metric, nor by
    reports that rank the complete trials against their values: an accuracy beside a loss. The reason of a stop is the
    user attribute `pruned_because` of the trial.

    Args:
        slack: How much worse than the worst level of the best third of the others a run may be at the same epoch, as a
            share of that loss (of what is missing to 1, or to 100, if the metric is an accuracy; at most of what the
            best of them gained from its first report).

    Raises:
        ValueError: If `slack` is not a finite number from 0 on.

    Example:
        >>> import optuna
        >>> from optuna_discipline import DisciplinedPruner
        >>> study = optuna.create_study(pruner=DisciplinedPruner())
    """

    def __init__(self, *, slack: float = SLACK) -> None:
        check_slack(slack)
        self._slack = slack
        self._by_study: dict[str, _Complete] = {}  # rebuilt when lost

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_by_study": {}}

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Return whether the trial should stop, and leave the reason on it if so."""
        maximize = study.direction == StudyDirection.MAXIMIZE
        reported, guessed = trial_record.read_reported(trial), False
        plain = reported is None
        if not _says_its_length(trial, reported):
            known = self._known(study, maximize)
            epochs, most = costs.epochs_and_most(trial, known.told)
            longest = known.longest if known.longest > most else 0  # beyond any number of epochs, updates are counted
            reported = _planned(trial, reported, epochs, longest)
            guessed = reported is not None and reported.curve.n_epochs > epochs
        if reported is None:
            return False
        compared = compares_with_peers(reported.curve) and (reported.values is None or reported.values[-1] is not None)
        peers = self._known(study, maximize).of_others(trial) if compared else []
        if peers and guessed and _may_be_longer(study, trial):
            peers = []
        decision = should_stop(
            reported.curve,
            peers,
            slack=self._slack,
            values=reported.values,
            maximize=maximize,
            label=_label(trial, reported),
        )
        if not decision.stop:
            return False
        reason = decision.reason
        certain = why_certain(reported.curve, reported.values, maximize=maximize) is not None
        if certain and not reported.curve.has_train_loss and _may_begin_late(study, trial):
            return False
        if plain and certain:
            reason = _no_number(trial)
        elif guessed and not certain:
            reason += "; it counts as long as the longest complete run"
        if _stored_reason(study, trial) != reason:  # the objective may ask again
            study._storage.set_trial_user_attr(trial._trial_id, trial_record.PRUNED_KEY, reason)
            trial.user_attrs[trial_record.PRUNED_KEY] = reason
            _logger.info(f"Trial {trial.number} pruned: {reason}.")
        return True

    def _known(self, study: Study, maximize: bool) -> "_Complete":
        others = study._storage.get_all_trials(study._study_id, deepcopy=False, states=(TrialState.COMPLETE,))
        known = self._by_study.get(study.study_name)
        if known is None or known.last != _last(others):  # a complete trial stays complete
            known = self._by_study[study.study_name] = _Complete(others, maximize, known, told_roles(study))
        return known


@dataclass(frozen=True)
class _Offer:
    """What one complete trial offers: its standing, its value and last report, and its length where it said none."""

    standing: Standing | None
    end: tuple[float, float] | None
    length: int


class _Complete:
    """What the complete trials of a study offer to comparisons, best end first."""

    def __init__(self, trials: list[FrozenTrial], maximize: bool, former: "_Complete | None", told: costs.Told) -> None:
        self.last, self.told = _last(trials), told
        before = former._by_trial if former else {}
        by_key = {trial_record.identity_of(trial): trial for trial in trials}
        self._by_trial: dict[trial_record.Identity, _Offer] = {
            key: before.get(key) or _read_offer(trial, maximize, told) for key, trial in by_key.items()
        }
        offers = self._by_trial.values()
        self.longest = max((offer.length for offer in offers), default=0)
        agree = rank_alike([offer.end for offer in offers if offer.end is not None])
        found = [(offer.standing, key) for key, offer in self._by_trial.items() if offer.standing is not None and agree]
        self._sorted = sorted(found, key=lambda one: one[0].final)
        self._peers = [peer for peer, _ in self._sorted]

    def of_others(self, trial: FrozenTrial) -> list[Standing]:
        """Return the peers of a trial without itself."""
        own = trial_record.identity_of(trial)
        return self._peers if own not in self._by_trial else [peer for peer, key in self._sorted if key != own]


def _last(trials: list[FrozenTrial]) -> tuple[int, trial_record.Identity | None]:
    return len(trials), trial_record.identity_of(trials[-1]) if trials else None


def _read_offer(trial: FrozenTrial, maximize: bool, told: costs.Told) -> _Offer:
    reported = trial_record.read_reported(trial)
    known, standing, length = reported, None, 0
    if not _says_its_length(trial, reported):
        known = _planned(trial, reported, costs.epochs_of(trial, told), 0)
        length = _reached(_steps(trial)) if reported is None else reported.curve.n_epochs
    if known is not None and why_certain(known.curve, known.values, maximize=maximize) is None:
        measured = _where_measured(known)
        label = _label(trial, known)
        standing = as_peer(measured.curve, values=measured.values, maximize=maximize, label=label)
    return _Offer(standing, _end_of(trial, reported), length)


def _says_its_length(trial: FrozenTrial, reported: Reported | None) -> bool:
    return reported is not None and bool(trial_record.read_run(trial).get("n_epochs"))


def _label(trial: FrozenTrial, reported: Reported) -> tuple[str | None, bool]:
    """Return what runs must have in common to be compared: the stage, and whether the metric is the loss."""
    return trial_record.stage_of(trial), reported.values is None


def _where_measured(reported: Reported) -> Reported:
    """Return a run that did not break at the epochs that have the study's metric: at others there is none to compare.

    Where nothing else was reported NaN is none either.
    """
    curve, values = reported.curve, reported.values
    if values is None:
        return reported
    pairs = zip(curve.logs, values, strict=True)
    found = [(log, x) for log, x in pairs if x is not None and (curve.has_train_loss or not math.isnan(x))]
    return Reported(replace(curve, logs=tuple(log for log, _ in found)), [x for _, x in found])


def _end_of(trial: FrozenTrial, reported: Reported | None) -> tuple[float, float] | None:
    """Return value and last report; None for a trial whose reports say that they are losses, or end at no number."""
    if trial.value is None or (reported is not None and reported.values is None) or not trial.intermediate_values:
        return None
    last = trial.intermediate_values[max(trial.intermediate_values)]
    return (trial.value, last) if math.isfinite(last) else None


def _stored_reason(study: Study, trial: FrozenTrial) -> object:
    return study._storage.get_trial(trial._trial_id).user_attrs.get(trial_record.PRUNED_KEY)


def _planned(trial: FrozenTrial, reported: Reported | None, epochs: float, longest: int) -> Reported | None:
    """Return what a trial reported, planned for as many epochs as it says, or as others had if those are more.

    Plain reports are a curve of unknown losses and rates, whose epochs count from where the reports begin.
    """
    if reported is not None:
        planned = max(int(epochs), longest, reported.curve.n_epochs)
        return Reported(replace(reported.curve, n_epochs=planned), reported.values)
    steps = _steps(trial)
    if not steps:
        return None
    values: list[float | None] = [trial.intermediate_values[step] for step in steps]
    before = _before(steps)
    logs = tuple(EpochLog(step - before, None, None, value) for step, value in zip(steps, values, strict=True))
    planned = max(int(epochs) - before, longest, steps[-1] - before + 1)
    return Reported(LossCurve(logs, n_epochs=planned), values)


def _no_number(trial: FrozenTrial) -> str:
    """Return from which step on the plain reports are no numbers, in words: of what they are, nobody says."""
    steps = _steps(trial)
    last = max((step for step in steps if math.isfinite(trial.intermediate_values[step])), default=-1)
    first = next(step for step in steps if step > last)
    return f"the report at step {first} is {trial.intermediate_values[first]}"


def _may_begin_late(study: Study, trial: FrozenTrial) -> bool:
    """Whether reports without a training loss that are NaN from the first on may still become numbers.

    A loss that is no number has nearly always diverged. But where one complete trial began as late, or three in a row
    were stopped before any number, it may be one that is not measured in each epoch.
    """
    here = len(_steps(trial))
    if not here or not all(map(math.isnan, trial.intermediate_values.values())):
        return False
    for stopped, other in enumerate(_ended_before(study, trial), start=1):
        if not all(math.isnan(other.intermediate_values[step]) for step in _steps(other)[:here]):
            return False
        if other.state == TrialState.COMPLETE or stopped == STOPS_IN_A_ROW:
            return True
    return False


def _may_be_longer(study: Study, trial: FrozenTrial) -> bool:
    """Whether the last runs before a plain one were all stopped beside others, and none went as far as it has come.

    Its length is a guess, by the longest complete run: if the user has changed it, none would ever be complete again.
    """
    stopped, here = 0, _reached(_steps(trial))
    for other in _ended_before(study, trial):
        steps = _steps(other)
        if not math.isfinite(other.intermediate_values[steps[-1]]):
            continue
        if other.state == TrialState.PRUNED:
            stopped += 1
        elif _reached(steps) >= here:
            return False
        if stopped == STOPS_IN_A_ROW:
            return True
    return False


def _ended_before(study: Study, trial: FrozenTrial) -> Iterator[FrozenTrial]:
    """Yield the trials before one that have reported and ended, the latest first."""
    for other in reversed(study._storage.get_all_trials(study._study_id, deepcopy=False, states=ENDED)):
        if other.number < trial.number and _steps(other):
            yield other


def _steps(trial: FrozenTrial) -> list[int]:
    return sorted(step for step in trial.intermediate_values if step >= 0)


def _before(steps: Sequence[int]) -> int:
    """Return the steps before the ones that led to the first report: of a training that goes on from another's end.

    >>> [_before(steps) for steps in ((5, 6, 7), (0, 1, 2), (1, 2, 3), (4, 9, 14), (100, 200))]
    [4, 0, 0, 0, 0]
    """
    return max(0, 2 * steps[0] - steps[1]) if len(steps) > 1 else 0


def _reached(steps: Sequence[int]) -> int:
    return steps[-1] - _before(steps) + 1 if steps else 0
