import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optuna_discipline.rules.curve import EpochLog
from optuna_discipline.rules.curve import LossCurve
from optuna_discipline.rules.curve import without_gaps
from optuna_discipline.rules.lr_lean import Lean
from optuna_discipline.rules.lr_lean import LrReading
from optuna_discipline.rules.lr_lean import is_error
from optuna_discipline.rules.lr_lean import overfits
from optuna_discipline.rules.lr_lean import read_lr
from optuna_discipline.rules.lr_lean import samples_of
from optuna_discipline.rules.lr_lean import shape_of
from optuna_discipline.rules.run import Run

END = (0.36, 0.35, 0.345, 0.342, 0.34)
FALLS = (2.0, 1.0, 0.6, 0.4, *END)
CLIMBS = (2.0, 1.0, 1.4, 0.6, *END)
OVERSHOOTS = (2.0, 1.0, 0.6, 0.3, 0.2, *END)
BUMPS = (2.0, 1.0, 1.05, 0.6, *END)


def _run(reports: tuple[float, ...], state: str = "complete") -> Run:
    return Run(0, state, {"lr": 0.1}, reports[-1] if reports else 0.1, reports=reports)  # type: ignore[arg-type]


def _lean(run: Run) -> str | None:
    said = read_lr(run)
    return None if said is None else said.lean


def test_a_run_that_ends_above_its_lowest_overfits_unless_it_returns_its_best() -> None:
    assert [overfits(_run(reports)) for reports in (OVERSHOOTS, FALLS, CLIMBS, (), (0.1, 0.2))] == [True, *[False] * 4]
    assert not overfits(replace(_run(OVERSHOOTS), loss=0.2))
    assert not overfits(replace(_run(OVERSHOOTS), loss=-0.9))  # an accuracy


def _curve(train: tuple[float, ...], val: tuple[float, ...], n_classes: int | None = None) -> Run:
    logs = tuple(EpochLog(i, 0.1, x, y) for i, (x, y) in enumerate(zip(train, val, strict=True)))
    curve = LossCurve(logs, n_epochs=len(logs), n_classes=n_classes)
    return Run(0, "complete", {}, val[-1], curve=curve, reports=val)


@pytest.mark.parametrize(("n_classes", "far"), [(None, True), (57, False), (16, True)])
def test_a_run_whose_first_epoch_left_chance_clearly_is_not_far_below(n_classes: int | None, far: bool) -> None:
    val = (2.92, 2.7, 2.5, 2.3, 2.2, 2.1, 2.05)  # of 57 classes half of what there was to learn was learned at once
    assert read_lr(_curve(val, val, n_classes)) == LrReading("up", far=far)
    without_rows = LossCurve((), n_epochs=7, n_classes=n_classes)
    assert read_lr(replace(_curve(val, val), curve=without_rows)) == LrReading("up", far=True)


@pytest.mark.parametrize(
    ("reports", "lean"), [(FALLS, "up"), (CLIMBS, "down"), (OVERSHOOTS, "down"), (BUMPS, None)], ids=str
)
def test_a_climb_says_down_a_steady_fall_up_and_a_small_bump_nothing(
    reports: tuple[float, ...], lean: str | None
) -> None:
    assert _lean(_run(reports)) == lean


@pytest.mark.parametrize(
    "reports",
    [(), FALLS[:2], (2.3, 2.3, 2.3, 2.3), (0.0, 0.0, 0.0), (1.0, 0.5, math.nan, 0.3), (1.0, 0.5, 0.4, math.inf)],
    ids=str,
)
def test_too_few_reports_a_dead_network_and_no_numbers_say_nothing(reports: tuple[float, ...]) -> None:
    assert read_lr(_run(reports)) is None


STILL = (2.303, 2.31, 2.29, 2.302, 2.3)
BEGINS = (2.3, 2.29, 2.2, 2.0, 1.8)
LEVELS_OFF = (0.9, 0.75, 0.7, 0.69, 0.685, 0.68)
BREAKS = (2.3, 1.9, 2.8, 2.4, 2.5)


@pytest.mark.parametrize(
    ("reports", "lean", "far"),
    [
        (STILL, "up", True),
        (BEGINS, "up", True),
        (LEVELS_OFF, "up", False),
        (FALLS, "up", False),
        (BREAKS, "down", True),
        (CLIMBS, "down", False),
    ],
    ids=str,
)
def test_who_has_learned_little_leans_far(reports: tuple[float, ...], lean: str, far: bool) -> None:
    assert read_lr(_run(reports)) == LrReading(lean, far)  # type: ignore[arg-type]


def test_a_validation_loss_that_stands_is_no_plateau_where_the_training_loss_fell() -> None:
    reports = (0.65, 0.655, 0.652, 0.66, 0.651, 0.656, 0.653, 0.655)
    trained = (0.76, 0.5, 0.4, 0.32, 0.3, 0.28, 0.27, 0.26)
    curve = LossCurve(tuple(EpochLog(i, 0.1, x, y) for i, (x, y) in enumerate(zip(trained, reports, strict=True))), 8)
    assert read_lr(_run(reports)) == LrReading("up", far=True)
    assert read_lr(replace(_run(reports), curve=curve)) == LrReading(None)


@pytest.mark.parametrize(
    ("reports", "lean"),
    [
        ((0.7086, 0.7133, 0.7165), None),
        ((-0.5, -0.498, -0.496), None),  # an accuracy
        ((2.3026, 2.3027, 2.3026), "up"),
        ((2.3026, 2.3027, 2.3028), "up"),
        ((0.7086, 0.7165, 0.7133), "up"),
    ],
)
def test_a_loss_that_only_rises_a_little_is_no_plateau(reports: tuple[float, ...], lean: Lean | None) -> None:
    assert read_lr(_run(reports)) == LrReading(lean, far=True)


def test_a_loss_that_is_about_right_says_so_an_error_that_moves_by_whole_samples_does_not() -> None:
    assert read_lr(_run(BUMPS)) == LrReading(None)
    assert read_lr(_run((0.5, 0.25, 0.27, 0.15, 0.1, 0.09, 0.09))) is None


def test_an_error_counts_samples_whatever_it_repeats_and_one_that_hardly_fell_wants_more() -> None:
    of_719 = tuple((np.array([624, 610, 596, 602, 588, 553, 548, 533], dtype=np.float32) / 719).tolist())
    assert read_lr(_run(of_719)) == LrReading("up")
    assert read_lr(_run(tuple(x - 1 for x in of_719))) == LrReading("up")  # as an accuracy, maximised
    assert read_lr(_run((0.91, 0.6, 0.62, 0.37, 0.24, 0.23))) is None
    assert read_lr(_run(tuple(x * 1.01234567 for x in of_719))) == LrReading(None)
    assert is_error(_run(of_719))
    assert not is_error(_run(of_719[:2]))


def test_a_maximised_share_that_hardly_rose_and_still_rises_wants_more_though_it_fell_a_little() -> None:
    f1 = (-0.00512, -0.0, -0.01638, -0.10718, -0.21034, -0.36071, -0.44113, -0.49509)
    assert read_lr(_run(f1)) == LrReading("up")
    assert read_lr(_run((-0.01216, *f1[1:3], -0.35718, -0.51034, -0.56071, -0.64113, -0.69509))) == LrReading(
        None
    )  # it rose
    assert read_lr(_run((2.3, 2.2, 2.21, 2.1, 1.9, 1.7))) == LrReading(None)  # a loss


def test_an_error_that_climbs_by_more_than_a_tenth_even_within_noise_goes_down_as_a_loss_does() -> None:
    jumps = tuple(x / 719 for x in (206, 88, 130, 56, 57, 108, 51, 55))
    assert read_lr(_run(jumps)) == LrReading(None)


def test_of_a_maximised_share_what_is_missing_counts() -> None:
    rising, high = (-0.1, -0.12, -0.2, -0.3), (-0.95, -0.96, -0.965, -0.97)
    assert read_lr(_run(rising)) == LrReading("up", far=True)
    assert read_lr(_run((-0.3, -0.8, -0.9, -0.95))) == LrReading("up")
    assert read_lr(_run(high)) == LrReading("up", far=True)
    assert read_lr(_run((-5.01234, -5.03179, -5.07461))) is None  # a score without a known top


@pytest.mark.parametrize(
    "correct",
    [
        (79, 86, 95, 91, 112, 144, 180),
        (80, 80, 81, 80, 79),
        (550, 610, 600, 650, 680, 690),
        (513, 631, 589, 663, 662, 611, 668, 664),
        (95, 109, 123, 117, 131, 166, 171, 186),
    ],
)
def test_a_percentage_is_read_as_a_share(correct: tuple[int, ...]) -> None:
    share = tuple(-count / 719 for count in correct)
    assert read_lr(_run(tuple(100 * x for x in share))) == read_lr(_run(share))


@pytest.mark.parametrize("state", ["running", "pruned", "failed"])
def test_a_run_that_did_not_end_says_nothing(state: str) -> None:
    assert read_lr(_run(FALLS, state)) is None
    assert read_lr(_run(STILL, state)) is None


def test_a_long_noisy_curve_is_read_by_its_parts() -> None:
    rng = np.random.default_rng(0)
    noisy = np.linspace(2.0, 0.5, 320) + rng.normal(0, 0.02, 320)
    assert np.diff(noisy).max() > 0.02
    assert _lean(_run((*noisy.tolist(), 0.4))) == "up"


@pytest.mark.parametrize("noise", [0.02, 0.05, 0.1])
def test_noisy_reports_of_a_good_run_do_not_say_down(noise: float) -> None:
    """A share of 1 in 4 at most, where a constant noise of a tenth of the loss lies on the reports."""
    rng = np.random.default_rng(0)
    curve = 0.1 + 0.6 * np.exp(-np.arange(50) / 8)
    found = [_lean(_run(tuple(curve * np.exp(rng.normal(0, noise, 50))))) for _ in range(200)]
    assert found.count("down") <= 2 + 200 * noise


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=4, max_size=40),
    st.floats(1e-3, 1e3),
)
def test_the_unit_of_the_loss_does_not_matter(reports: list[float], scale: float) -> None:
    shape, scaled = shape_of(tuple(reports)), shape_of(tuple(x * scale for x in reports))
    if shape is not None and scaled is not None:
        assert scaled == pytest.approx(shape, abs=1e-5)


@given(st.lists(st.floats(), max_size=20))
def test_any_reports_are_read(reports: list[float]) -> None:
    said = read_lr(_run(tuple(reports)))
    assert said is None or said.lean in ("up", "down", None)


def test_reports_of_something_else_than_the_objective_say_nothing() -> None:
    accuracies = (0.3, 0.6, 0.75, 0.8, 0.85)
    assert read_lr(replace(_run(accuracies), loss=0.45)) is None
    assert read_lr(replace(_run(FALLS), loss=-0.9)) is None
    assert read_lr(replace(_run(FALLS), loss=0.5)) == LrReading("up")  # of other data
    assert read_lr(replace(_run(OVERSHOOTS), loss=0.2)) == LrReading("down")  # of the best epoch
    far_below_its_end = (2.0, 0.2, 1.0, 1.5, 1.6)
    assert read_lr(replace(_run(far_below_its_end), loss=0.2)) == LrReading("down")
    assert read_lr(replace(_run(far_below_its_end), loss=0.6)) is None


@pytest.mark.parametrize(
    ("lean", "far", "losses", "refuted"),
    [
        ("down", False, {1 / 3: 0.6}, True),
        ("down", True, {1 / 3: math.inf}, True),
        ("down", True, {1 / 9: 0.6}, True),
        ("down", True, {1 / 27: 0.6}, False),
        ("down", False, {1 / 3: 0.503, 3.0: 0.6, 1.0: 0.6}, False),
        ("down", False, {1 / 9: 0.6}, False),  # the best may lie between
        ("up", False, {2.0: 0.6}, True),
        ("up", False, {2.0: 0.4, 0.5: 0.6}, False),
        ("up", True, {2.0: 0.6, 9.0: math.inf}, False),  # far from where networks learn any may be worse
        (None, False, {0.5: 0.6, 2.0: 0.6}, False),
    ],
)
def test_a_clearly_worse_run_nearby_refutes_what_a_curve_says(
    lean: Lean | None, far: bool, losses: dict[float, float], refuted: bool
) -> None:
    assert LrReading(lean, far).is_refuted_by(losses, 0.5) == refuted


@pytest.mark.parametrize(
    ("wrong", "worse", "samples", "refuted"),
    [(2, 3, 40, False), (2, 4, 40, False), (0, 1, 40, False), (2, 6, 40, True), (20, 30, 400, True), (2, 3, 0, True)],
)
def test_an_error_that_is_worse_by_the_root_of_what_it_counts_refutes_nothing(
    wrong: int, worse: int, samples: int, refuted: bool
) -> None:
    size = samples or 40
    for loss, other in (
        (wrong / size, worse / size),
        (wrong / size - 1, worse / size - 1),
        (100 * (wrong / size - 1), 100 * (worse / size - 1)),
    ):
        assert LrReading("down").is_refuted_by({1 / 3: other}, loss, samples) == refuted


def test_the_samples_that_reports_count_are_told_by_all_of_them() -> None:
    chance = (0.5,) * 20
    assert samples_of(_run((*chance, 0.225, 0.1, 0.075))) == 40
    assert samples_of(_run((2.3, 1.1, 0.5))) == samples_of(_run((0.5, 0.25))) == 0


def test_the_reports_of_others_tell_of_more_samples() -> None:
    few, more = _run((0.5, 0.25, 0.2)), _run((0.5031, 0.3, 0.2501))
    assert samples_of(few) == 20
    assert samples_of(few, more) == samples_of(_run((-0.5, -0.75, -0.8)), _run((-0.4969, -0.7, -0.7499))) == 10_000
    assert samples_of(few, _run((0.9, math.nan)), _run(())) == 20
    assert samples_of(few, _run((0.50003, 0.3117, 0.21))) == 0


@pytest.mark.parametrize(
    ("reports", "kept"),
    [
        ((math.nan, 0.5, 0.4, 0.3), (0.5, 0.4, 0.3)),
        ((0.9, 0.5, math.nan, 0.3), (0.9, 0.5, 0.3)),
        ((0.9, 0.5, 0.4, math.nan), None),
        ((0.9, math.nan, math.nan, 0.3), None),
        ((0.9, math.inf, 0.4, 0.3), None),  # a loss that overflowed is no gap
        ((math.nan,), None),
        ((), None),
    ],
)
def test_a_few_reports_without_a_number_before_the_last_are_gaps(
    reports: tuple[float, ...], kept: tuple[float, ...] | None
) -> None:
    assert without_gaps(reports) == pytest.approx(reports if kept is None else kept, nan_ok=True)
