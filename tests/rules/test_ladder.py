import math
from dataclasses import replace

import pytest

from optuna_discipline import Run
from optuna_discipline.rules.ladder import Ladder
from optuna_discipline.rules.lr_lean import LrReading
from optuna_discipline.rules.rungs import ladder_axis
from optuna_discipline.rules.space import Bounds

AXIS = ladder_axis(0.1, Bounds(1e-5, 10.0))
FALLS, CLIMBS = (2.0, 1.0, 0.5, 0.3), (2.0, 1.0, 1.5, 0.3)
NO_SIDE = (2.0, 1.0, 1.05, 0.3)


def _ending(reports: tuple[float, ...], loss: float) -> tuple[float, ...]:
    return tuple(report * loss / reports[-1] for report in reports)


def _ladder(losses: dict[float, float | None], reports: tuple[float, ...] = (), *, longest: bool = True) -> Ladder:
    """Return a ladder of these losses; None is a rung under way."""
    slots = {
        x: [
            Run(i, "running", {})
            if loss is None
            else Run(i, "complete", {"lr": x}, loss, reports=_ending(reports, loss))
        ]
        for i, (x, loss) in enumerate(losses.items())
    }
    return Ladder(AXIS, slots, longest)


def test_it_begins_at_its_start_and_says_so() -> None:
    ladder = _ladder({})
    assert ladder.wanted() == ladder.open([1.0]) == [1.0]
    assert ladder.best is None
    assert ladder.reason(1.0) == "learning-rate ladder: where to start"


@pytest.mark.parametrize(
    ("reports", "wanted", "said"),
    [
        ((), [0.3333, 3.0], "best so far 1 x with 0.5, which reported nothing that says where to go"),
        (FALLS, [2.0], "best so far 1 x with 0.5, which never got clearly worse: room above"),
        (CLIMBS, [0.3333], "best so far 1 x with 0.5, which got worse on the way: too high"),
        (NO_SIDE, [0.5, 2.0], "best so far 1 x with 0.5, which leans to no side"),
        (
            (2.3, 2.29, 2.2, 2.0),
            [9.0],
            "best so far 1 x with 0.5, which kept over half of its first report: far too low",
        ),
        (
            (2.3, 1.9, 2.8, 2.4),
            [0.1111],
            "best so far 1 x with 0.5, which got worse and ended worse than it began: far too high",
        ),
    ],
)
def test_the_best_curve_closes_a_side_and_the_reason_says_which(
    reports: tuple[float, ...], wanted: list[float], said: str
) -> None:
    ladder = _ladder({1.0: 0.5}, reports)
    assert ladder.wanted() == wanted
    assert ladder.reason(wanted[0]).endswith(f" x the start; {said}")


def test_an_idle_worker_is_told_that_nothing_is_known_yet() -> None:
    said = _ladder({1.0: None}).reason(0.3333)
    assert said == "learning-rate ladder: 0.333 x the start; nothing has ended so far"


def test_what_runs_is_not_run_again_and_idle_workers_get_the_next_rung_outwards() -> None:
    ladder = _ladder({1.0: 0.5, 3.0: None})
    assert ladder.running
    assert ladder.wanted() == [0.3333, 3.0]
    assert ladder.open([0.3333, 3.0]) == [0.3333]
    busy = _ladder({1.0: 0.5, 3.0: None, 0.3333: None})
    assert busy.open([0.3333, 3.0]) == []
    waiting = _ladder({1.0: 0.5, 3.0: None, 0.3333: 0.6})
    assert waiting.open([3.0]) == []


@pytest.mark.parametrize(
    ("losses", "reports", "longest", "wanted"),
    [
        ({1.0: 0.5, 2.0: 0.6}, NO_SIDE, True, []),  # one step, and no curve that says where to go
        ({1.0: 0.5, 2.0: 0.4}, NO_SIDE, True, []),
        ({1.0: 0.5, 2.0: 0.4}, FALLS, True, [6.0]),
        ({1.0: 0.5, 2.0: 0.6}, (), False, [0.3333]),  # a short cycle is no result, and no model follows
        ({1.0: math.inf, 0.1111: math.inf}, (), True, [0.01234]),
        ({1.0: 2.3, 2.0: 2.301}, (), True, [0.3333]),  # nothing may have learned
    ],
)
def test_full_trainings_are_left_to_the_model_after_one_step_that_says_nothing(
    losses: dict[float, float | None], reports: tuple[float, ...], longest: bool, wanted: list[float]
) -> None:
    assert _ladder(losses, reports, longest=longest).wanted() == wanted


@pytest.mark.parametrize(
    ("losses", "usual", "wanted"),
    [
        ({1.0: 0.5}, 0.0, [0.3333, 3.0]),  # a rate too high costs more than one too low
        ({1.0: 0.5}, 10.0, [3.0, 0.3333]),  # but here the optimizer usually trains above
        ({1.0: 0.5, 0.3333: 0.6}, 0.0, [3.0]),
        ({1.0: 0.5, 0.3333: 0.4}, 0.0, [0.1111]),  # on and on, while the outermost is the best
        ({1.0: 0.5, 0.3333: 0.4, 0.1111: 0.3}, 0.0, [0.03703]),
        ({1.0: 0.5, 0.3333: 0.4, 0.1111: 0.6}, 0.0, []),
        ({1.0: 0.5, 0.3333: 0.6, 3.0: 0.4}, 0.0, [9.0]),
        ({1.0: 0.5, 0.3333: 0.6, 3.0: 0.7}, 0.0, []),
        ({1.0: 0.5, 3.0: 0.6}, 10.0, []),  # the start lies low already
        ({1.0: math.inf}, 10.0, [0.1111]),
    ],
)
def test_where_nothing_is_reported_the_losses_alone_say_where_to_go(
    losses: dict[float, float | None], usual: float, wanted: list[float]
) -> None:
    assert replace(_ladder(losses), usual=usual).wanted() == wanted


CLIMBS_ANYWAY, STANDS, RISES = (0.98, 1.0, 1.02, 1.02), (0.98, 0.988, 0.984, 0.99), (0.98, 0.984, 0.988, 0.99)


@pytest.mark.parametrize(
    ("runs", "wanted"),
    [
        ({1.0: (1.02, CLIMBS_ANYWAY), 0.1111: (0.99, STANDS)}, [3.0]),
        ({1.0: (1.02, CLIMBS_ANYWAY), 0.1111: (0.99, RISES)}, [3.0]),
        ({1.0: (1.02, CLIMBS_ANYWAY), 0.1111: (1.0, CLIMBS_ANYWAY)}, [3.0]),
        ({1.0: (0.99, RISES)}, [0.5, 2.0]),
        ({1.0: (0.99, RISES), 0.5: (0.9, RISES)}, [0.1667]),  # lower is better, though it learned nothing
        ({1.0: (0.99, STANDS), 3.0: (1.2, CLIMBS_ANYWAY), 1.732: (1.1, CLIMBS_ANYWAY)}, []),
        ({1.0: (1.52, (0.98, 1.1, 1.3, 1.52)), 0.1111: (0.99, STANDS)}, [0.3333]),  # the rate did that
        ({1.0: (1.02, CLIMBS_ANYWAY), 0.1111: (0.99, (2.0, 1.5, 1.1, 0.99))}, [0.3333]),  # that one has learned
        ({1.0: (1.02, CLIMBS_ANYWAY), 0.1111: (0.99, STANDS), 3.0: (1.1, CLIMBS_ANYWAY)}, [0.3333]),  # tried
    ],
)
def test_where_far_lower_rates_learn_as_little_a_larger_one_is_tried_once(
    runs: dict[float, tuple[float, tuple[float, ...]]], wanted: list[float]
) -> None:
    slots = {x: [Run(i, "complete", {"lr": x}, loss, reports=of)] for i, (x, (loss, of)) in enumerate(runs.items())}
    ladder = Ladder(AXIS, slots)
    assert ladder.wanted() == wanted
    assert ("so a larger one" in ladder.reason(3.0)) == (wanted == [3.0])
    assert Ladder(replace(AXIS, high=1.0), slots).wanted() < [1.0]


FAR_TOO_HIGH = (2.3, 1.9, 2.8, 2.4)


BROKE = (2.3, 1.9, 2.8, 2.4)  # far too high


@pytest.mark.parametrize(
    ("losses", "wanted"),
    [
        ({1.0: 2.8, 0.1111: 1e17}, [0.0123]),
        ({1.0: 2.8, 0.1111: 3.2}, [0.0123]),
        ({1.0: 2.8, 0.1111: 3.2, 0.0123: 3.4}, [0.001367]),
        ({1.0: 2.8, 0.1111: math.inf}, [0.0123]),
        ({1.0: 2.8, 0.1111: 2.7}, [3.0]),  # alike: not the rate's doing
        ({1.0: 2.8, 0.1111: 2.4}, [0.0123]),
    ],
)
def test_losses_of_rungs_that_broke_rank_nothing_a_far_lower_one_is_next(
    losses: dict[float, float], wanted: list[float]
) -> None:
    ladder = _ladder(losses, BROKE)
    assert ladder.wanted() == pytest.approx(wanted, rel=0.01)


@pytest.mark.parametrize(
    ("losses", "idle"),
    [
        ({1.0: 2.4, 0.1111: None}, [0.03703]),
        ({1.0: 2.4, 0.1111: None, 0.3333: 2.41}, [0.03703]),  # as little learned, but the ninth has not ended
        ({1.0: 2.4, 0.1111: None, 0.03703: None}, []),
        ({1.0: 2.4, 0.1111: None, 0.03703: 2.41}, []),
        ({1.0: 2.4, 0.1111: 2.41, 0.3333: 2.41}, [3.0]),
        ({1.0: 2.4, 0.1111: 2.41, 0.3333: 2.41, 3.0: None}, []),  # nor a rung between them and the one under way
    ],
)
def test_while_the_rung_far_below_is_under_way_idle_workers_go_lower(
    losses: dict[float, float | None], idle: list[float]
) -> None:
    ladder = _ladder(losses, FAR_TOO_HIGH)
    assert ladder.open(ladder.wanted()) == idle


def test_no_rung_far_below_is_tried_beyond_the_bounds() -> None:
    ladder = _ladder({1.0: 2.4, 0.1111: None}, FAR_TOO_HIGH)
    narrow = Ladder(replace(AXIS, low=0.1), ladder.slots)
    assert narrow.open(narrow.wanted()) == []
    slots = _ladder({1.0: 2.4, 0.2: None, 0.3333: 2.41}, FAR_TOO_HIGH).slots  # a ninth would be below the bounds
    assert Ladder(replace(AXIS, low=0.2), slots).wanted() == [0.2]
    listed = Ladder(replace(AXIS, choices=(0.01, 0.1111, 1.0)), ladder.slots)
    assert listed.open(listed.wanted()) == [0.01]


@pytest.mark.parametrize(("longest", "most"), [(True, 7), (False, 5)])
def test_a_plateau_is_left_on_both_sides_but_not_for_ever(longest: bool, most: int) -> None:
    losses: dict[float, float | None] = {1.0: 2.3}
    while (ladder := _ladder(losses, longest=longest)).wanted():
        losses |= dict.fromkeys(ladder.wanted(), 2.3)
    assert not ladder.learned
    assert len(losses) in (most, most + 1)
    assert min(losses) < 0.2
    assert max(losses) > 5


def test_the_best_rung_is_the_one_to_build_on() -> None:
    ladder = _ladder({1.0: 0.5, 2.0: 0.4, 6.0: math.inf})
    assert ladder.best == 2.0
    assert ladder.learned


@pytest.mark.parametrize(
    ("losses", "wanted"),
    [
        ({1.0: math.inf, 0.1111: 0.5}, [0.3333]),  # nobody knows the rates between
        ({1.0: math.inf, 0.1111: 0.5, 0.3333: 0.4}, []),
        ({1.0: 3.0, 0.1111: 0.5}, []),  # what trained there has a loss that the model knows
    ],
)
def test_half_way_to_a_rung_that_broke_far_above_one_is_tried(losses: dict[float, float], wanted: list[float]) -> None:
    ladder = _ladder(losses, NO_SIDE)
    assert ladder.wanted() == wanted
    assert all(ladder.reason(x).endswith("best so far 0.111 x with 0.5, which leans to no side") for x in wanted)


def test_a_rung_that_failed_by_an_error_is_not_approached() -> None:
    failed, good = Run(0, "failed", {"lr": 1.0}), Run(1, "complete", {"lr": 0.1}, 0.5, reports=_ending(NO_SIDE, 0.5))
    assert 0.3333 not in Ladder(AXIS, {1.0: [failed], 0.1111: [good]}).wanted()


def test_at_its_lower_bound_the_ladder_ends() -> None:
    ladder = Ladder(ladder_axis(0.1, Bounds(1e-2, 10.0)), {})
    worse = (2.0, 1.9, 2.8, 2.4)
    slots = {
        x: [Run(i, "complete", {"lr": x}, loss, reports=_ending(worse, loss))]
        for i, (x, loss) in enumerate({1.0: 2.4, 0.1111: 2.45, 0.1: 2.5}.items())
    }
    assert 0.1 not in replace(ladder, slots=slots).wanted()


def test_of_two_rungs_as_good_the_one_to_build_on_is_named() -> None:
    ladder = _ladder({1.0: 0.5, 3.0: 0.4, 0.3333: 0.4})
    assert ladder.best == 0.3333
    assert "best so far 0.333 x with 0.4" in ladder.reason(0.1111)


@pytest.mark.parametrize(("rungs", "wanted"), [((3.0, 1.0, 0.3333), True), ((3.0, 1.0, 0.3333, 0.037), False)])
def test_a_plateau_of_rates_that_were_all_too_high_is_left_below_and_soon_to_the_next_stages(
    rungs: tuple[float, ...], wanted: bool
) -> None:
    climbs = (0.98, 1.0, 1.04)
    slots = {x: [Run(i, "complete", {"lr": x}, 1 + x / 999, reports=(*climbs, 1.0))] for i, x in enumerate(rungs)}
    found = Ladder(AXIS, slots).wanted()
    assert bool(found) == wanted
    assert all(x < 0.3333 for x in found)


def test_on_a_plateau_no_middle_is_tried() -> None:
    guesses = {1.0: -0.1, 0.3333: -0.12, 2.0: -0.1}  # accuracies of ten classes
    ladder = _ladder(guesses, ())
    assert not ladder.learned
    assert all(not 0.3333 < x < 2.0 for x in ladder.wanted())
    assert _ladder({**guesses, 0.3333: -0.6}, ()).learned


def test_a_rung_that_refutes_the_best_curve_ends_the_ladder_and_no_reason_contradicts_its_step() -> None:
    slots = {
        1.0: [Run(0, "complete", {"lr": 1.0}, 0.5, reports=_ending(CLIMBS, 0.5))],
        0.3333: [Run(1, "complete", {"lr": 0.3333}, 0.9, reports=_ending(FALLS, 0.9))],
    }
    assert Ladder(AXIS, slots).wanted() == []  # the model's
    assert Ladder(AXIS, {1.0: slots[1.0]}).reason(2.0).endswith("best so far 1 x with 0.5")


@pytest.mark.parametrize(("samples", "shows", "refuted"), [(40, 0, False), (4000, 0, True), (4000, 1, True)])
def test_one_sample_of_a_few_refutes_no_curve(samples: int, shows: int, refuted: bool) -> None:
    climbs, falls = (0.7, 0.3, 0.5, 0.1, *[0.05] * 5), (0.675, 0.525, 0.275, 0.1, *[0.075] * 5)
    slots = {
        x: [Run(i, "complete", {"lr": x}, of[-1], reports=tuple(y + (i == shows) * (y > 0.2) / samples for y in of))]
        for i, (x, of) in enumerate({1.0: climbs, 0.3333: falls}.items())
    }
    ladder = Ladder(AXIS, slots)
    assert ladder.said[1.0] == LrReading("down")
    assert (ladder.readings[1.0] == LrReading(None)) == refuted


def test_no_rate_is_called_far_too_low_below_one_that_was_no_better() -> None:
    slots = {
        1.0: [Run(0, "complete", {"lr": 0.1}, 2.0, reports=(2.3, 2.29, 2.2, 2.0))],
        9.0: [Run(1, "complete", {"lr": 0.9}, 2.5, reports=(2.3, 2.6, 2.2, 2.5))],
    }
    ladder = Ladder(AXIS, slots)
    assert ladder.wanted() == [3.0]
    assert ladder.reason(3.0).endswith("kept over half of its first report; 9 x was no better, so one between them")


@pytest.mark.parametrize(
    ("samples", "runs", "wanted"),
    [
        (720, {1.0: 0.1, 0.5: 0.2}, [2.0]),
        (720, {1.0: 0.1, 0.5: 0.2, 2.0: 0.15}, []),  # once
        (720, {1.0: 0.1, 0.5: 0.2, 2.0: 0.05}, []),
        (720, {1.0: 0.1, 0.5: 0.05}, []),
        (math.pi * 1e4, {1.0: 0.1, 0.5: 0.2}, [2.0]),  # a loss, too
    ],
)
def test_a_curve_that_leans_to_no_side_is_tried_above_where_below_it_is_worse(
    samples: float, runs: dict[float, float], wanted: list[float]
) -> None:
    slots = {}
    for x, loss in runs.items():
        reports = tuple(round(samples * y) / samples for y in _ending((206, 88, 130, 56, 57, 108, 51, 55), loss))
        slots[x] = [Run(len(slots), "complete", {"lr": 0.1 * x}, reports[-1], reports=reports)]
    ladder = Ladder(AXIS, slots)
    assert ladder.said[1.0] == LrReading(None)
    assert ladder.wanted() == wanted
    if wanted:
        assert ladder.reason(2.0).endswith("which leans to no side; lower was no better")


ERROR = (0.9, 0.5, 0.55, 0.2)  # counts samples, and climbed by a little


@pytest.mark.parametrize(
    ("losses", "reports", "x", "said"),
    [
        ({1.0: 0.2}, ERROR, 2.0, ", whose curve does not say on which side"),
        ({1.0: 0.99}, RISES, 0.5, ", which only got worse"),
        ({1.0: 0.5, 0.3333: 0.9}, CLIMBS, 2.0, ", which got worse on the way, but a lower one was worse"),
        ({1.0: 0.5, 2.0: 0.9}, FALLS, 0.5, ", which never got clearly worse, but a larger one was worse"),
        ({1.0: 0.5, 0.3333: None}, CLIMBS, 2.0, ", which got worse on the way: too high; others run below it"),
        ({1.0: 0.5, 2.0: None}, FALLS, 0.3333, ", which never got clearly worse: room above; others run above it"),
    ],
)
def test_a_rung_that_the_best_curve_does_not_ask_for_has_a_reason_too(
    losses: dict[float, float | None], reports: tuple[float, ...], x: float, said: str
) -> None:
    assert _ladder(losses, reports).reason(x).endswith(f" x the start; best so far 1 x with {losses[1.0]}{said}")


def test_where_nothing_has_learned_the_reason_says_so_and_where_a_curve_fell_it_does_not() -> None:
    stood = (0.39, 0.6, 0.5, 0.39)  # its best says "far too high": nothing for a rung above
    assert (
        _ladder({1.0: 0.39, 2.0: 0.39, 0.1111: 0.39}, stood)
        .reason(6.0)
        .endswith("best so far 1 x with 0.39; nothing has learned so far")
    )
    assert _ladder({1.0: 0.3, 2.0: 0.3, 0.1111: 0.3}, CLIMBS).reason(6.0).endswith("with 0.3; none is clearly better")


def test_of_a_maximised_share_the_reason_says_what_is_missing() -> None:
    auc = Run(0, "complete", {"lr": 0.1}, -0.76, reports=(-0.68, -0.7, -0.74, -0.76))
    ladder = Ladder(AXIS, {1.0: [auc]}, sign=-1.0)
    assert ladder.reason(9.0).endswith(
        "best so far 1 x with 0.76, which kept over half of what was missing to 1 at first: far too low"
    )
