"""When a run may be stopped: for certain when it diverged, and otherwise when nothing that ended well looked as bad.

Inside a 1cycle run the early validation loss ranks wrongly (the best ImageNet run of the author has the worse test
loss for 83-94 % of its length). So a run is never compared with the middle of the others, as Optuna's pruners do, but
with the *worst* level that the best third of them showed at the same epoch, with slack and noise added: how bad can a
run look here that ends well? While the learning rate has risen, the training loss or the generalisation gap must be
worse than that, too.
"""

import math
import operator
import statistics
from collections.abc import Hashable
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import cast

import numpy as np

from optuna_discipline.rules.arguments import check_type
from optuna_discipline.rules.arguments import is_number
from optuna_discipline.rules.curve import OVERFLOW
from optuna_discipline.rules.curve import LossCurve
from optuna_discipline.rules.divergence import why_diverged
from optuna_discipline.rules.standing import Standing
from optuna_discipline.rules.standing import as_peer
from optuna_discipline.rules.standing import check_values
from optuna_discipline.rules.standing import stand

SLACK = 0.5
FIRST_COMPARISON = 0.25
IN_A_CYCLE = 0.5
# Without a training loss and with a rate that rises or is unknown, only the end of a run tells, at twice the slack.
BLIND, BLIND_SLACK = 0.75, 2.0
# Before the middle of a cycle a run must be this many times the slack behind, in training loss and score.
FAR_BEHIND = 4.0
NOISE = 2.0
MIN_PEERS, MIN_PEERS_OF_A_RUN_THAT_NEVER_LEARNED = 4, 2
# The peers that ended best: a third of them, 3 to 10.
GOOD_SHARE, FEWEST_GOOD, MOST_GOOD = 0.34, 3, 10
MIN_EPOCHS, MIN_RATES = 8, 3
LOST_REPORTS, LOST_SHARE, LOST_AFTER_GAPS, LATEST_BEGIN = 3, 0.1, 0.25, 0.5
LAST_VALUES = 3
# A run has not left its start while its training loss is above the first share of it; a peer has below the second.
AT_START, CLEARLY_LEARNED = 0.95, 0.7


@dataclass(frozen=True)
class StopDecision:
    """Whether to stop a run.

    Attributes:
        stop: The decision.
        reason: Why, in one sentence with its numbers.
    """

    stop: bool
    reason: str


def should_stop(
    curve: LossCurve,
    peers: Sequence[LossCurve | Standing | None] = (),
    *,
    slack: float = SLACK,
    values: Sequence[float | None] | None = None,
    maximize: bool = False,
    label: Hashable = None,
) -> StopDecision:
    """Decide whether a run may be stopped now (Smith 2018, section 3, as far as measurements bear it out).

    Args:
        curve: The run so far.
        peers: Other runs, or what `optuna_discipline.rules.standing.as_peer` read of them. Those of another length,
            schedule or label, those that diverged and those that never learned (None, to that function) do not count.
        slack: How much worse than every good peer a run may be, as a share of that peer's loss.
        values: The study's metric at each log of the curve, if that is not the validation loss. A peer needs its own
            then, from that function.
        maximize: Whether larger `values` are better.
        label: Only peers with the same label count, for instance the stage of a recipe.

    Raises:
        ValueError: If `slack` is not a finite number from 0 on, `values` do not fit the curve, or peers are curves
            beside `values` or `maximize`, which say by what runs are compared.
    """
    check_type("curve", curve, LossCurve)
    check_slack(slack)
    check_values(curve, values)
    read = set(map(type, peers)) <= {Standing}  # of a thousand peers, and without a loop in Python
    if not read and (values is not None or maximize) and any(isinstance(peer, LossCurve) for peer in peers):
        raise ValueError(
            "`peers` must hold what they are compared by where `values` or `maximize` is given, but got a LossCurve: "
            "give optuna_discipline.rules.standing.as_peer(curve, values=..., maximize=...) of each."
        )
    broken = why_certain(curve, values, maximize=maximize)
    if broken is not None:
        return StopDecision(True, broken)
    if not compares_with_peers(curve):
        return StopDecision(False, f"{curve.fraction:.0%} of the run is done, and a comparison would come too early")
    own = stand(curve, values=values, maximize=maximize, label=label)
    known = cast("Sequence[Standing]", peers) if read else [peer for peer in map(_read, peers) if peer is not None]
    return compare(own, known, slack=slack, rises=not has_falling_lr(curve))


def why_certain(
    curve: LossCurve, values: Sequence[float | None] | None = None, *, maximize: bool = False
) -> str | None:
    """Return why a run is stopped whatever others did, None if it is not: it diverged, or its metric is lost.

    Where chance is not known, a training loss that is a number is not believed against the study's metric, and without
    a training loss NaN may be what was not measured: see `_may_be_well` and `_why_lost`.
    """
    losses = [log.val_loss for log in curve.logs]
    metric = losses if values is None else values
    broken = why_diverged(curve)
    if broken is not None and not _may_be_well(curve, metric, maximize):
        return broken
    may_begin_late = maximize or curve.has_train_loss
    lost = _why_lost(curve, metric, "study's metric", may_begin_late)
    if lost is None and values is not None and not curve.has_train_loss:
        return _why_lost(curve, losses, "validation loss", may_begin_late)
    return lost


def _may_be_well(curve: LossCurve, metric: Sequence[float | None], maximize: bool) -> bool:
    """Return whether a run that seems to have diverged may be well.

    The loss of Q-learning rises from near 0 as the return does, that of a policy gradient is noise. So where chance is
    not known the metric counts: a run is well while the best of its last three is nearer to its best than to its first.
    """
    name = "train_loss" if curve.has_train_loss else "val_loss"
    last = [x for log in curve.logs if (x := getattr(log, name)) is not None][-1]
    if not abs(last) < OVERFLOW:
        return math.isnan(last) and not curve.has_train_loss
    scores = [-x if maximize else x for x in metric if x is not None and math.isfinite(x)]
    improved = bool(scores) and 2 * min(scores[-LAST_VALUES:]) < scores[0] + min(scores)
    return improved and curve.n_classes is None


def _why_lost(curve: LossCurve, metric: Sequence[float | None], name: str, may_begin_late: bool) -> str | None:
    """Return why a metric is lost, None if it is not.

    It is once it has been no number for three reports, a tenth of the run (a quarter after two gaps), and longer than
    ever before. One that may begin late and never was a number is left alone for half of the run.
    """
    known = [(log.epoch, x) for log, x in zip(curve.logs, metric, strict=True) if x is not None]
    groups = [(is_number, list(group)) for is_number, group in groupby(known, key=lambda one: math.isfinite(one[1]))]
    if not groups or groups[-1][0]:
        return None
    *before, lost = [group for is_number, group in groups if not is_number]
    n_reports, longest = curve.n_epochs * len(curve) / (curve.logs[-1].epoch + 1), max(map(len, before), default=0)
    share = LOST_AFTER_GAPS if len(before) > 1 and all(math.isnan(x) for _, x in lost) else LOST_SHARE
    if len(lost) < max(LOST_REPORTS, math.ceil(share * n_reports), longest + 1):
        return None
    if may_begin_late and len(groups) == 1 and not LATEST_BEGIN <= curve.fraction < 1:
        return None
    epoch, first = lost[0]
    return f"the {name} is {first} at epoch {epoch} and no number since"


def compare(own: Standing, peers: Sequence[Standing], *, slack: float = SLACK, rises: bool = True) -> StopDecision:
    """Decide whether a run that has not diverged is hopeless beside others.

    A training loss that has not left its start stops none that scores as the good runs ended: those may overfit, and an
    actor's loss says nothing of its return.

    Args:
        own: The run so far.
        peers: Read by `as_peer`.
        slack: As in `should_stop`.
        rises: Whether its learning rate has risen, or is unknown.
    """
    alike = _like(own, peers)
    good = alike[: max(FEWEST_GOOD, min(MOST_GOOD, math.ceil(GOOD_SHARE * len(alike))))]
    done = own.fraction
    start = _median([own.start, *(peer.start for peer, _ in alike)])
    at_start = bool(own.lowest_train[-1] > AT_START * max(own.start, start) > 0)
    if at_start and done < IN_A_CYCLE:
        return StopDecision(False, "a run that has not left its start is not ranked before its middle")
    if at_start and len(alike) >= MIN_PEERS_OF_A_RUN_THAT_NEVER_LEARNED:
        slowest, worst = np.max([(one.train[at], one.final) for one, at in good], axis=0).tolist()
        if slowest < CLEARLY_LEARNED * start and own.scores[-1] > worst:
            text = f"the training loss {own.train[-1]:.4g} has not left its start at {done:.0%} of the run"
            return StopDecision(True, f"{text}; the slowest of the best {len(good)} others was at {slowest:.4g}")
    if len(alike) < MIN_PEERS:
        return StopDecision(False, f"{len(alike)} comparable runs are too few")
    trained = math.isfinite(own.train[-1]) and all(math.isfinite(peer.train[place]) for peer, place in good)
    if rises and not trained:
        behind = done >= BLIND and _is_behind(own, good, BLIND_SLACK * slack)
    elif rises:
        far = FAR_BEHIND * slack
        behind = _is_behind(own, good, far) and _trains_behind(own, good, far)
        if not behind and done >= IN_A_CYCLE and _is_behind(own, good, slack):
            behind = _trains_behind(own, good, slack) or _gap_is_wider(own, good, slack)
    else:
        behind = _is_behind(own, good, slack)
        if behind and trained and not own.has_moved:
            behind = not own.train[-1] < max(float(peer.train[place]) for peer, place in good)
    return StopDecision(behind, _describe(own, good, len(alike)))


def compares_with_peers(curve: LossCurve) -> bool:
    """Return whether peers can stop a run now: between a quarter and the end of one that is no short cycle."""
    enough = len(curve) >= MIN_RATES and curve.n_epochs >= MIN_EPOCHS
    return enough and FIRST_COMPARISON <= curve.fraction < 1


def has_falling_lr(curve: LossCurve) -> bool:
    """Return whether the learning rate is known and has never risen by more than a tenth.

    The rise of a cycle is seen at the ends of epochs only if it lasts a few: short runs give no answer, hence False.
    """
    lr = curve.lr[np.isfinite(curve.lr)]
    return (
        curve.n_epochs >= MIN_EPOCHS
        and len(lr) >= MIN_RATES
        and bool(np.all(lr[1:] / 1.1 <= np.minimum.accumulate(lr)[:-1]))
    )


def check_slack(slack: float) -> None:
    """Refuse a slack that is no finite number from 0 on."""
    if not (is_number(slack) and 0 <= slack < math.inf):
        raise ValueError(f"`slack` must be a finite number from 0 on, but got {slack!r}.")


def _read(peer: LossCurve | Standing | None) -> Standing | None:
    return as_peer(peer) if isinstance(peer, LossCurve) else peer


def _like(own: Standing, peers: Sequence[Standing]) -> list[tuple[Standing, int]]:
    """Return the comparable peers, best end first, with their places at this epoch; as many as can matter."""
    now, last = own.epochs[-1], len(own.epochs) - 1
    found = []
    for peer in sorted(peers, key=operator.attrgetter("final")):
        if peer.n_epochs != own.n_epochs or peer.label != own.label:
            continue
        place = peer.index_at(now)
        if place is not None and own.is_like(peer, last, place) and math.isfinite(peer.scores[place]):
            found.append((peer, place))
            if len(found) * GOOD_SHARE >= MOST_GOOD:
                break
    return found


def _describe(own: Standing, good: Sequence[tuple[Standing, int]], count: int) -> str:
    sign = -1 if own.maximize else 1
    worst, train = max(peer.scores[place] for peer, place in good), max(peer.train[place] for peer, place in good)
    mine, others = "", ""
    if math.isfinite(own.train[-1]) and math.isfinite(train):
        mine, others = f" (training loss {own.train[-1]:.4g})", f" ({train:.4g})"
    text = f"it stands at {sign * own.scores[-1]:.4g} after {own.fraction:.0%} of the run{mine}"
    return f"{text}; the best {len(good)} of {count} like it were at {sign * worst:.4g} or better{others}"


def _is_behind(own: Standing, good: Sequence[tuple[Standing, int]], slack: float) -> bool:
    """Return whether the score is worse than that of every good peer, by slack and noise; NaN is not.

    The best level of the run's second half so far counts: a constant rate lets the loss of a good run swing (.02 to .24
    and back to .01 within 32 epochs of a small net), and what it has reached just now it may reach again.
    """
    levels = [float(peer.scores[place]) for peer, place in good]
    worst, zero = max(levels), _zero(own, good)
    noise = max(float(own.score_noise[-1]), _median([float(peer.score_noise[place]) for peer, place in good]))
    step = max(own.step, *(peer.step for peer, _ in good))
    if own.best_possible is not None:
        noise = max(noise, math.sqrt(max(0.0, worst - own.best_possible) * step))
    recent_best = float(np.fmin.reduce(own.scores[len(own.scores) // 2 :]))
    return bool(recent_best > worst + slack * (worst - zero) + NOISE * noise)


def _zero(own: Standing, good: Sequence[tuple[Standing, int]]) -> float:
    """Return the score from which slack counts: the best possible, or a little beyond the best end where nothing is.

    A maximised one may end far from it, a PSNR at 16, an F1 at .3: then it counts from as far beyond the best end as
    that is from the start.
    """
    ends = [peer.final for peer, _ in good if math.isfinite(peer.final)]
    best = min(ends or [float(peer.scores[place]) for peer, place in good])
    progress = max(0.0, _median([peer.first for peer, _ in good]) - best)
    known = [bound for one in (own, *(peer for peer, _ in good)) if (bound := one.best_possible) is not None]
    if len(known) <= len(good):
        return best - 0.1 * progress
    return max(min(known), best - progress) if own.maximize else min(known)


def _trains_behind(own: Standing, good: Sequence[tuple[Standing, int]], slack: float) -> bool:
    worst = max(float(peer.train[place]) for peer, place in good)
    return bool(own.train[-1] > worst + slack * abs(worst))


def _gap_is_wider(own: Standing, good: Sequence[tuple[Standing, int]], slack: float) -> bool:
    widest = max(float(peer.gap[place]) for peer, place in good)
    return bool(own.gap[-1] > widest + slack * abs(widest))


def _median(values: Sequence[float]) -> float:
    """Return NumPy's median of a few numbers, NaN if one is NaN, in a tenth of its time."""
    return math.nan if any(map(math.isnan, values)) else statistics.median(values)
