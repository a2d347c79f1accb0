import math
import time
import timeit
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optuna_discipline import EpochLog
from optuna_discipline import LossCurve
from optuna_discipline import OneCycle
from optuna_discipline import should_stop
from optuna_discipline.rules.divergence import is_diverged
from optuna_discipline.rules.pruning import compare
from optuna_discipline.rules.pruning import has_falling_lr
from optuna_discipline.rules.standing import as_peer
from optuna_discipline.rules.standing import stand

ANY = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True))
N = 20
CYCLE = [OneCycle(1.0, N).lr(step) for step in range(N)]


def _run(
    end: float, done: int = N, *, gap: float = 0.1, lr: Any = 0.1, train: bool = True, n_classes: int | None = None
) -> LossCurve:
    """A run that falls from 2 above its end; `gap` widens from 0.1 to its value over the first half."""
    lrs = lr if isinstance(lr, list) else [lr] * N
    losses = [end + 2 / (epoch + 1) for epoch in range(done)]
    val = [loss + 0.1 + (gap - 0.1) * min(1.0, 2 * epoch / N) for epoch, loss in enumerate(losses)]
    logs = tuple(EpochLog(i, lrs[i], losses[i] if train else None, val[i]) for i in range(done))
    return LossCurve(logs, n_epochs=N, n_classes=n_classes)


def _lives(own: LossCurve, peers: list[LossCurve], **settings: Any) -> int:
    """Return the epochs that a run lives beside others."""
    for done in range(1, N + 1):
        if should_stop(LossCurve(own.logs[:done], N, own.n_classes), peers, **settings).stop:
            return done
    return N


GOOD = [_run(0.1 + 0.01 * i) for i in range(5)]
GOOD_IN_CYCLE = [_run(0.1 + 0.01 * i, lr=CYCLE) for i in range(5)]


@given(
    st.lists(st.tuples(ANY, ANY, ANY), max_size=30), st.sampled_from([None, 2, 10]), st.integers(1, 40), st.booleans()
)
def test_any_curve_gets_an_answer(rows: Any, n_classes: int | None, n_epochs: int, maximize: bool) -> None:
    logs = tuple(EpochLog(i, *row) for i, row in enumerate(rows))
    curve = LossCurve(logs, n_epochs=n_epochs, n_classes=n_classes)
    half = LossCurve(logs[: len(logs) // 2], n_epochs=n_epochs, n_classes=n_classes)
    for own in (curve, half):
        peer = as_peer(curve, values=[row[0] for row in rows], maximize=maximize)
        peers = [] if peer is None else [peer] * 5
        decision = should_stop(own, peers, values=[row[0] for row in rows[: len(own)]], maximize=maximize)
        assert decision.reason
        assert decision.stop or n_classes is None or not own.has_train_loss or not is_diverged(own)


def test_a_learning_rate_is_known_to_fall_only_when_a_cycle_would_have_shown() -> None:
    rates = {"constant": [0.1] * 8, "falling": [0.8, 0.7, 0.6, 0.5], "rising": [0.1, 0.2, 0.3], "short": [0.1, 0.1]}
    logs = {name: tuple(EpochLog(i, lr, 1.0, 1.0) for i, lr in enumerate(lrs)) for name, lrs in rates.items()}
    falls = {name: has_falling_lr(LossCurve(own, n_epochs=8)) for name, own in logs.items()}
    assert falls == {"constant": True, "falling": True, "rising": False, "short": False}
    assert not has_falling_lr(LossCurve(logs["constant"][:3], n_epochs=3))
    assert not has_falling_lr(_run(0.1, lr=None))


def test_at_a_constant_rate_a_run_worse_than_every_good_one_stops_after_a_quarter() -> None:
    assert _lives(_run(5.0), GOOD) == N / 4
    assert _lives(_run(0.16), GOOD) == N
    assert _lives(_run(0.16), GOOD, slack=0.0) < N


def test_one_good_run_that_looked_as_bad_is_enough_to_go_on() -> None:
    late = [5.0] * 12 + [0.05] * 8
    logs = tuple(EpochLog(i, 0.1, loss - 0.01, loss) for i, loss in enumerate(late))
    assert _lives(_run(4.0), [*GOOD, LossCurve(logs, N)]) > 12
    assert _lives(_run(4.0), GOOD) == N / 4


def test_a_better_run_in_the_middle_does_not_matter_and_a_worse_end_does_not_either() -> None:
    bad = [_run(3.0 + i) for i in range(8)]
    assert _lives(_run(2.9), [*GOOD, *bad]) == N / 4
    assert _lives(_run(0.2), [*GOOD, *bad]) == N


def test_inside_a_cycle_a_bad_validation_loss_alone_stops_nothing_before_the_middle() -> None:
    wild = _run(0.1, gap=19.0, lr=CYCLE)
    assert _lives(wild, GOOD_IN_CYCLE) == N / 2
    assert _lives(_run(0.1, gap=0.12, lr=CYCLE), GOOD_IN_CYCLE) == N


def test_inside_a_cycle_a_worse_validation_loss_needs_the_gap_or_the_training_loss_beside_it() -> None:
    peers = [_run(0.1 + 0.01 * i, gap=1.0, lr=CYCLE) for i in range(5)]
    more_regular = _run(0.9, gap=0.1, lr=CYCLE)  # a higher training loss, as a larger weight decay has, and a small gap
    assert _lives(more_regular, peers) == N
    assert N / 2 <= _lives(_run(0.1, gap=3.0, lr=CYCLE), peers) < N


def test_inside_a_cycle_a_run_far_behind_in_both_losses_stops_after_a_quarter() -> None:
    assert _lives(_run(5.0, lr=CYCLE), GOOD_IN_CYCLE) == N / 4


@pytest.mark.parametrize(("lr", "lived"), [(CYCLE, 15), (None, 15), (0.1, 5)], ids=["cycle", "unknown", "constant"])
def test_without_a_training_loss_a_risen_or_unknown_rate_is_judged_at_the_end_only(lr: Any, lived: int) -> None:
    peers = [_run(0.1 + 0.01 * i, lr=lr, train=False) for i in range(5)]
    assert _lives(_run(5.0, lr=lr, train=False), peers) == lived
    assert _lives(_run(0.3, lr=lr, train=False), peers) == N or lr == 0.1


def test_a_run_that_never_left_its_start_is_left_alone_for_half_of_its_length() -> None:
    stuck = LossCurve(tuple(EpochLog(i, 0.1, 2.303, 2.303) for i in range(N)), N, n_classes=10)
    peers = [_run(0.1 + 0.01 * i, n_classes=10) for i in range(2)]
    assert _lives(stuck, peers) == N / 2
    assert _lives(stuck, peers[:1]) == N
    slow = [2.303] * 9 + [1.0] * 11
    slow_peer = LossCurve(tuple(EpochLog(i, 0.1, loss, loss) for i, loss in enumerate(slow)), N, n_classes=10)
    assert _lives(stuck, [*peers, slow_peer]) == 11
    assert _lives(stuck, [*GOOD[:3], LossCurve(stuck.logs, N)]) == N / 2  # one that never learned is none of the best


@pytest.mark.parametrize(
    ("score", "stops"), [(0.96, False), (1.1, False), (1.21, True)], ids=["better", "than they ended", "worse"]
)
def test_a_training_loss_at_its_start_stops_no_run_that_scores_as_those_that_overfit_ended(
    score: float, stops: bool
) -> None:
    shares = [(epoch + 1) / N for epoch in range(N)]
    overfit = [(1 - 0.6 * x, 1 - 0.4 * x + 0.6 * x * x) for x in shares]  # at 14 of 20 epochs .96 and better
    logs = tuple(EpochLog(i, 0.1, *losses) for i, losses in enumerate(overfit))
    own = LossCurve(tuple(EpochLog(i, 0.1, 0.97, score) for i in range(14)), N)
    assert should_stop(own, [LossCurve(logs, N)] * 2).stop is stops


@pytest.mark.parametrize(
    "peers",
    [
        GOOD[:3],
        [],
        GOOD_IN_CYCLE,
        [LossCurve(run.logs, n_epochs=21) for run in GOOD],
        [LossCurve((*run.logs[:-1], EpochLog(N - 1, 0.1, math.nan, 1.0)), N) for run in GOOD],
        [LossCurve(tuple(EpochLog(i, 0.1, 2.303, 0.1) for i in range(N)), N, n_classes=10)] * 5,
        [LossCurve(run.logs[10:], N) for run in GOOD[:4]],
    ],
    ids=["three", "none", "another schedule", "another length", "diverged", "never learned", "seen later"],
)
def test_only_four_like_it_make_a_comparison(peers: list[LossCurve]) -> None:
    assert not should_stop(_run(5.0, 8), peers).stop


def test_runs_of_another_label_are_not_compared() -> None:
    peers = [peer for run in GOOD if (peer := as_peer(run, label="refine")) is not None]
    assert _lives(_run(5.0), peers, label="refine") == N / 4
    assert _lives(_run(5.0), peers, label="lr") == N
    assert _lives(_run(5.0), peers) == N


def test_short_cycles_and_the_last_epoch_are_not_compared() -> None:
    short = [LossCurve(run.logs[:7], 7) for run in GOOD]
    assert not should_stop(LossCurve(_run(5.0).logs[:6], 7), short).stop
    assert should_stop(_run(5.0, N - 1), GOOD).stop
    assert not should_stop(_run(5.0), GOOD).stop


@pytest.mark.parametrize(("unit", "maximize"), [(1.0, True), (100.0, True), (-1.0, False), (-50.0, False)], ids=str)
def test_an_accuracy_in_any_unit_is_compared_as_an_error_is(unit: float, maximize: bool) -> None:
    def accuracies(best: float, done: int) -> list[float]:
        return [unit * best * (1 - 0.8 / (epoch + 1)) for epoch in range(done)]

    peers = []
    for i, run in enumerate(GOOD):
        values = accuracies(0.95 - 0.01 * i, N)
        peers.append(as_peer(run, values=values, maximize=maximize))
    known = [peer for peer in peers if peer is not None]

    def stops(best: float) -> bool:
        return should_stop(_run(0.1, 15), known, values=accuracies(best, 15), maximize=maximize).stop

    assert stops(0.3)
    assert not stops(0.9)
    assert not stops(0.97)


@pytest.mark.parametrize("top", [0.6, 0.95])
def test_a_percentage_is_compared_as_a_share(top: float) -> None:
    def stops(best: float, unit: float) -> bool:
        ends = [[unit * x * (1 - 0.8 / (epoch + 1)) for epoch in range(N)] for x in (top, 0.98 * top, 0.97 * top, best)]
        known = [as_peer(GOOD[i], values=ends[min(i, 2)], maximize=True) for i in range(5)]
        peers = [peer for peer in known if peer is not None]
        return should_stop(_run(0.1, 15), peers, values=ends[3][:15], maximize=True).stop

    tried = [stops(best / 20, 1.0) for best in range(20)]
    assert tried == [stops(best / 20, 100.0) for best in range(20)]
    assert any(tried)
    assert not all(tried)
    assert stops(0.001, 100.0)  # below 1 % all the time


def test_a_loss_that_swings_is_judged_by_the_best_of_its_second_half_so_far() -> None:
    swing = [2.0, 1.0, 0.5, 0.3, 0.2, 0.1, 0.1, 0.1, 0.2, 0.4, 0.5, 0.5, 0.5, 0.5]
    own = LossCurve(tuple(EpochLog(i, 0.1, 0.1, loss) for i, loss in enumerate(swing)), N)
    assert [should_stop(LossCurve(own.logs[:done], N), GOOD).stop for done in (11, 12, 13, 14)] == [False] * 4
    risen = LossCurve(tuple(EpochLog(i, 0.1, 0.1, loss) for i, loss in enumerate([*swing[:4], *[2.0] * 10])), N)
    assert should_stop(risen, GOOD).stop


def test_one_validation_sample_more_or_less_is_no_difference() -> None:
    def values(wrong: int, done: int = N) -> list[float]:
        return [1 - (wrong + max(0, 5 - epoch)) / 82 for epoch in range(done)]

    peers = [peer for run in GOOD if (peer := as_peer(run, values=values(1), maximize=True)) is not None]
    for wrong, stop in ((2, False), (3, False), (9, True)):
        assert should_stop(_run(0.1, 12), peers, values=values(wrong, 12), maximize=True).stop == stop


def test_noise_widens_the_limit() -> None:
    def noisy(end: float, sd: float, done: int = N) -> LossCurve:
        logs = (EpochLog(i, 0.1, 0.1, end + sd * (-1) ** i) for i in range(done))
        return LossCurve(tuple(logs), N)

    assert should_stop(noisy(0.2, 0.0, 10), [noisy(0.1, 0.0)] * 5).stop
    assert not should_stop(noisy(0.2, 0.05, 10), [noisy(0.1, 0.05)] * 5).stop


@pytest.mark.parametrize("epochs", [[0, 3, 7, 9, 12, 15, 18], [9, 0, 9, 3, 12, 15, 18]])
def test_missing_and_unordered_epochs_are_compared_at_the_last_one_seen(epochs: list[int]) -> None:
    sparse = LossCurve(tuple(EpochLog(epoch, 0.1, 0.4, 0.4) for epoch in epochs), n_epochs=N)
    assert not should_stop(_run(0.05, 9), [sparse] * 5).stop
    assert should_stop(_run(5.0, 9), [sparse] * 5).stop
    assert not should_stop(_run(5.0, 9), [sparse] * 3).stop


def test_peers_read_once_decide_as_curves_do_and_the_reason_has_the_numbers() -> None:
    peers = [peer for run in GOOD if (peer := as_peer(run)) is not None]
    for own in (_run(0.1, 8), _run(5.0, 8), _run(5.0, 3)):
        assert should_stop(own, peers) == should_stop(own, GOOD)
    assert should_stop(_run(5.0, 8), peers).reason == (
        "it stands at 5.368 after 40% of the run (training loss 5.268); "
        "the best 3 of 5 like it were at 0.4879 or better (0.3879)"
    )


def test_a_comparison_with_thousands_costs_less_than_reading_a_hundred_runs() -> None:
    peers = [peer for run in GOOD_IN_CYCLE if (peer := as_peer(run)) is not None] * 1000
    own = stand(_run(0.3, 10, lr=CYCLE))

    def seconds(call: Callable[[], object]) -> float:
        return min(timeit.repeat(call, timer=time.thread_time, number=1, repeat=5))

    assert seconds(lambda: compare(own, peers)) < seconds(lambda: [as_peer(GOOD_IN_CYCLE[0]) for _ in range(100)])


@pytest.mark.parametrize(
    ("values", "stops"),
    [
        ([0.5, math.nan, math.inf, math.nan], True),
        ([0.5, 0.4, math.nan, math.nan], False),  # two may come back
        ([math.nan, math.nan, math.nan, 0.5], False),
        ([0.5, math.nan, None, math.nan, math.nan], True),  # not measured is neither lost nor found
        ([math.nan] * 9, False),  # it may begin late
        ([math.nan] * 10, True),  # but not after the middle
        ([*[math.nan] * 4, 0.5, *[math.nan] * 4, 0.4, *[math.nan] * 4], False),  # measured every fifth epoch
        ([math.nan, 0.5, *[math.nan] * 3], True),
        ([math.nan, 0.5, math.nan, 0.4, *[math.nan] * 4], False),  # numbers and none alternate
        ([math.nan, 0.5, math.nan, 0.4, *[math.nan] * 5], True),
        ([None, None, None, None], False),
    ],
)
def test_a_metric_that_is_no_number_any_more_stops_a_run_that_trains(values: list[float | None], stops: bool) -> None:
    assert should_stop(_run(0.1, len(values)), values=values).stop is stops
    logs = tuple(EpochLog(i, 0.1, 1.0 / (i + 1), value) for i, value in enumerate(values))
    assert should_stop(LossCurve(logs, N)).stop is stops
    assert not should_stop(LossCurve(logs, 10 * N)).stop  # a tenth of the run is twenty reports


@pytest.mark.parametrize(
    ("values", "maximize", "stops"),
    [
        ([0.5, math.nan, math.nan], False, False),
        ([0.5, math.nan, math.nan, math.nan], False, True),
        ([0.5, math.inf], False, True),
        ([math.nan] * 3, False, True),  # a loss that is none from the first epoch on
        ([math.nan] * 3, True, False),  # a metric that may begin late
        ([math.nan, math.nan, math.inf], True, True),
    ],
)
def test_without_a_training_loss_nan_may_be_what_was_not_measured(
    values: list[float | None], maximize: bool, stops: bool
) -> None:
    curve = LossCurve(tuple(EpochLog(i, None, None, value) for i, value in enumerate(values)), N)
    for metric in (values, [0.5] * len(values)):  # of a validation loss beside an accuracy, too
        assert should_stop(curve, values=metric, maximize=maximize).stop is stops


@pytest.mark.parametrize(("n_classes", "stops"), [(None, False), (2, True)])
def test_a_training_loss_of_unknown_scale_is_not_believed_against_the_metric(
    n_classes: int | None, stops: bool
) -> None:
    losses, returns = [0.01, 0.006, 0.45, 0.37, 1.2, 1.3], [-1.25, -1.25, -0.4, 4.6, 4.5, 4.6]
    if n_classes is not None:
        losses = [0.3, 0.2, 0.4, 1.1, 1.2, 1.3]
    curve = LossCurve(tuple(EpochLog(i, 0.1, x, x) for i, x in enumerate(losses)), N, n_classes=n_classes)
    assert should_stop(curve, values=returns, maximize=True).stop is stops
    assert should_stop(curve, values=[*returns[:3], -1.2, -1.3, -1.25], maximize=True).stop
    broken = LossCurve((*curve.logs, EpochLog(6, 0.1, math.nan, 1.0)), N)
    assert should_stop(broken, values=[*returns, 4.6], maximize=True).stop


@pytest.mark.parametrize("top", [0.3, 16.0], ids=["F1", "PSNR"])
def test_a_maximised_metric_far_from_the_best_possible_is_compared_by_what_was_gained(top: float) -> None:
    def values(share: float, done: int = N) -> list[float]:
        return [top * (0.2 + share * (0.8 - 0.8 / (epoch + 1))) for epoch in range(done)]

    peers = [peer for i, run in enumerate(GOOD) if (peer := as_peer(run, values=values(1 - i / 50), maximize=True))]
    assert should_stop(_run(0.1, 12), peers, values=values(0.05, 12), maximize=True).stop
    assert not should_stop(_run(0.1, 12), peers, values=values(0.8, 12), maximize=True).stop


def test_a_metric_that_has_not_moved_says_nothing_while_the_training_loss_is_ahead() -> None:
    def values(first: int, done: int = N) -> list[float]:
        return [max(0.0, 0.6 * (1 - first / (epoch + 1))) for epoch in range(done)]

    peers = [peer for run in GOOD if (peer := as_peer(run, values=values(1), maximize=True)) is not None]
    for end, stop in ((0.05, False), (1.0, True)):
        assert should_stop(_run(end, 12), peers, values=values(12, 12), maximize=True).stop is stop


def test_peers_whose_last_value_is_no_number_are_compared_by_their_levels() -> None:
    values = [1.0 / (epoch + 1) - 0.5 for epoch in range(N)]
    peers = [peer for run in GOOD if (peer := as_peer(run, values=[*values[:-1], math.nan])) is not None]
    assert not should_stop(_run(0.1, 12), peers, values=values[:12]).stop
    assert should_stop(_run(0.1, 12), peers, values=[1.0 + epoch for epoch in range(12)]).stop


def test_bad_slack_is_refused() -> None:
    with pytest.raises(ValueError, match="`slack` must be a finite number from 0 on"):
        should_stop(_run(1.0), slack=math.nan)


@pytest.mark.parametrize("settings", [{"values": [0.5] * 12}, {"maximize": True}], ids=["values", "maximize"])
def test_peers_without_their_own_values_are_refused_beside_values(settings: Any) -> None:
    with pytest.raises(ValueError, match=r"`peers` must hold what they are compared by .*standing\.as_peer\(curve"):
        should_stop(_run(0.1, 12), GOOD, **settings)


@pytest.mark.parametrize("done", [1, 12])
def test_values_of_another_length_are_refused_at_once(done: int) -> None:
    with pytest.raises(
        ValueError, match=rf"`values` must hold one number or None .* but got 2 for {done}: \[0.1, 0.2]"
    ):
        should_stop(_run(0.1, done), values=[0.1, 0.2])
