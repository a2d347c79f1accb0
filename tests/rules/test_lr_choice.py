import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optuna_discipline import RangeTest
from optuna_discipline import choose_max_lr
from optuna_discipline.rules.lr_choice import check_optimizer_of

N = 60
LRS = np.geomspace(1e-4, 10, N)
EXPONENT = np.log10(LRS)


def _test(losses: Any, *, initial: float | None = 2.3, **settings: Any) -> RangeTest:
    losses = np.asarray(losses, dtype=float)
    defaults = dict(train_loss=losses, val_loss=None, stop_reason="end of range", initial_loss=initial)
    return RangeTest(lrs=LRS[: len(losses)], **{**defaults, **settings})


def _valley(bottom: float = 0.3, end: float = 5.0) -> Any:
    """Fall from 2.3 to .5 at 10**-0.5, then rise."""
    return np.where(EXPONENT < -0.5, 2.3 - 1.8 / (1 + np.exp(-4 * (EXPONENT + 1.5))), 0.5 + 3 * (EXPONENT + 0.5))


EDGE = 10**-0.41  # where 15 % of the gain of 1.8 is lost again


def test_a_valley_gives_a_fraction_of_the_lr_at_which_the_gain_begins_to_be_lost() -> None:
    choice = choose_max_lr(_test(_valley()))
    assert choice.status == "OK"
    assert choice.confident
    assert choice.max_lr == pytest.approx(EDGE / 4, rel=0.2)
    low, high = choice.bounds  # type: ignore[misc]
    assert low == pytest.approx(choice.max_lr / 10)  # type: ignore[operator]
    assert high == pytest.approx(2 * EDGE, rel=0.2)


def test_the_edges_of_both_losses_count_the_same() -> None:
    late = np.interp(EXPONENT - 0.5, EXPONENT, _valley())  # half a decade later
    both = choose_max_lr(_test(late, val_loss=_valley())).max_lr
    assert both == pytest.approx(EDGE / (3 * 4) ** 0.5 * 10**0.25, rel=0.25)


def test_a_plateau_does_not_move_the_choice_however_its_noise_falls() -> None:
    curve = np.maximum(_valley(), 0.8)  # flat over more than a decade
    found = [choose_max_lr(_test(curve + 0.02 * np.random.default_rng(i).standard_normal(N))).max_lr for i in range(20)]
    assert max(found) < 1.6 * min(found)  # type: ignore[type-var, operator]


def test_a_test_as_long_as_the_training_is_read_at_its_smallest_loss() -> None:
    short, long = _test(_valley()), _test(_valley(), planned_steps=N)
    assert choose_max_lr(long).max_lr == pytest.approx(LRS[np.argmin(_valley())], rel=0.35)
    assert choose_max_lr(long).max_lr > choose_max_lr(short).max_lr  # type: ignore[operator]


def test_a_test_that_diverged_is_as_long_as_it_was_planned_and_one_whose_data_ended_is_not() -> None:
    whole = _test(_valley(), planned_steps=N)
    known = {"n_steps": N, "planned_steps": N}
    diverged = _test(_valley()[:-3], stop_reason="diverged", **known)
    assert choose_max_lr(diverged).max_lr == choose_max_lr(whole).max_lr
    ended = _test(_valley()[:-3], stop_reason="no more data", **known)
    assert choose_max_lr(ended).max_lr < choose_max_lr(whole).max_lr  # type: ignore[operator]


def test_a_test_that_diverged_early_is_a_short_one() -> None:
    losses = [2.3, 2.2, 2.0, 1.8, 1.7, 1.5, 1.3, 1.2, 3, 8, 9, 9]
    short, long = (choose_max_lr(_test(losses, stop_reason="diverged", n_steps=40, planned_steps=p)) for p in (400, 40))
    assert long == short
    assert "as long as the training" not in long.reason


def test_the_reason_of_a_long_test_says_what_was_taken_and_how_long_it_is() -> None:
    whole = choose_max_lr(_test(_valley(), planned_steps=N)).reason
    assert "is that of the smallest loss, as the test is as long as the training." in whole
    steep = np.concatenate([np.full(100, 2.3), np.linspace(2.3, 0.8, 20), np.linspace(0.9, 9, 4)])
    lrs = np.geomspace(1e-5, 1e-3, 150)[: len(steep)]
    cut = choose_max_lr(RangeTest(lrs, steep, None, "diverged", 2.3, n_steps=150, planned_steps=150))
    edge = cut.max_lr / 0.8  # type: ignore[operator]
    assert np.abs(lrs / edge - 1).min() < 1e-6
    assert f"is 0.8 of the edge, {edge:.3g}, as the test was to be as long as the training." in cut.reason


@pytest.mark.parametrize(("optimizer", "usual"), [("SGD", 0.1), ("AdamW", 5e-3)])
def test_a_known_optimizer_draws_the_choice_to_its_usual_rate(optimizer: str, usual: float) -> None:
    alone = choose_max_lr(_test(_valley())).max_lr
    drawn = choose_max_lr(_test(_valley(), settings={"optimizer": optimizer}))
    trust = 0.7 * 0.5 * N / 100  # fewer updates than 100, and no validation loss
    assert trust < 0.7 * 0.5
    assert drawn.max_lr == pytest.approx(alone**trust * usual ** (1 - trust))  # type: ignore[operator]
    assert f"the usual {usual:g}" in drawn.reason


def _shifted(decades: float) -> Any:
    """A valley whose edge lies that far lower."""
    return np.interp(EXPONENT + decades, EXPONENT, _valley())


@pytest.mark.parametrize("n_steps", [N, 1000])
def test_the_usual_rate_never_draws_the_choice_to_the_edge_that_was_seen(n_steps: int) -> None:
    low = choose_max_lr(_test(_shifted(1.1), settings={"optimizer": "SGD"}, n_steps=n_steps))
    assert low.max_lr == pytest.approx(EDGE * 10**-1.1 / 1.5, rel=0.2)
    assert (low.status, low.confident) == ("OK", True)
    assert f"drawn to the usual 0.1 no farther than to {low.max_lr:.3g}, clear of the edge" in low.reason


@pytest.mark.parametrize("optimizer", ["SGD", "Adadelta"])
def test_a_usual_rate_that_is_far_above_is_of_other_units_and_left_out(optimizer: str) -> None:
    curves = {"losses": _shifted(2.5), "val_loss": _shifted(2.5)}
    low = choose_max_lr(_test(**curves, settings={"optimizer": optimizer}))
    assert low.max_lr == choose_max_lr(_test(**curves)).max_lr
    assert "lies too far above to count" in low.reason
    alone = choose_max_lr(_test(_shifted(2.5), settings={"optimizer": optimizer}))
    assert alone.max_lr > 2 * low.max_lr  # type: ignore[operator]  # a training loss alone is not read so surely


def test_a_guess_stays_below_the_edge_that_was_seen() -> None:
    losses = np.concatenate([np.full(25, 2.3), np.full(N - 25, 50.0)])
    choice = choose_max_lr(_test(losses, settings={"optimizer": "SGD"}))
    assert choice.status == "NO_GAIN_THEN_DIVERGED"
    assert choice.max_lr == pytest.approx(LRS[24] / 1.2, rel=0.2)
    assert "no farther than" in choice.reason


def test_where_no_edge_was_seen_the_usual_rate_holds() -> None:
    losses = np.concatenate([np.linspace(2.3, 0.5, 30), np.full(N - 30, 0.5)])
    short = RangeTest(LRS[:N] / 200, losses, None, "end of range", 2.3, settings={"optimizer": "SGD"})
    choice = choose_max_lr(short)
    assert choice.status == "NO_RISE"
    assert LRS[-1] / 200 / 1.5 < choice.max_lr <= LRS[-1] / 200  # type: ignore[operator]


@pytest.mark.parametrize("trust", [-0.1, 1.1, math.nan, "1"])
def test_a_trust_that_is_no_share_is_refused(trust: Any) -> None:
    with pytest.raises(ValueError, match=r"`trust` must be in \[0, 1\]"):
        choose_max_lr(_test(_valley()), trust=trust)


def test_how_far_the_curve_is_trusted_can_be_said() -> None:
    adamw = _test(_valley(), settings={"optimizer": "AdamW"})
    assert choose_max_lr(adamw, trust=0.0).max_lr == pytest.approx(5e-3)
    assert choose_max_lr(adamw, trust=1.0).max_lr == choose_max_lr(_test(_valley())).max_lr


def test_a_validation_loss_is_trusted_more_than_a_training_loss_alone() -> None:
    far = {"settings": {"optimizer": "AdamW"}}
    alone = choose_max_lr(_test(_valley(), **far))
    both = choose_max_lr(_test(_valley(), val_loss=_valley(), **far))
    assert 5e-3 < alone.max_lr < both.max_lr  # type: ignore[operator]


def test_a_validation_loss_that_rises_while_the_training_loss_falls_on_is_overfitting() -> None:
    val = np.where(EXPONENT < -2.5, 2.3 - 1.8 / (1 + np.exp(-6 * (EXPONENT + 3.2))), 0.5 + 0.8 * (EXPONENT + 2.5))
    choice = choose_max_lr(_test(_valley() - 0.4, val_loss=val, initial=2.3))
    assert (choice.status, choice.confident) == ("OVERFITTING", False)
    assert "overfitting" in choice.reason
    assert choice.max_lr < 0.5 * EDGE / 4  # the mean of both, as the smaller one is the safer


def test_a_validation_loss_that_rises_early_is_no_overfitting_where_the_training_loss_is_no_lower() -> None:
    val = np.where(EXPONENT < -2.5, 2.3 - 1.8 / (1 + np.exp(-6 * (EXPONENT + 3.2))), 0.5 + 0.8 * (EXPONENT + 2.5))
    choice = choose_max_lr(_test(_valley(), val_loss=val))
    assert (choice.status, choice.confident) == ("OK", True)
    assert "overfitting" not in choice.reason


def test_the_end_of_the_range_is_not_called_an_edge() -> None:
    losses = np.concatenate([np.linspace(2.3, 0.5, N - 20), np.full(20, 0.5)])
    assert "the end of the range, as no edge was seen, 10, over 4" in choose_max_lr(_test(losses)).reason
    both = choose_max_lr(_test(losses, val_loss=_valley())).reason
    assert "the mean of one edge and the range's end" in both


def test_a_loss_that_explodes_to_huge_numbers_does_not_hide_what_was_gained() -> None:
    losses = np.concatenate([_valley()[:45], np.full(N - 45, 1e12)])
    assert choose_max_lr(_test(losses, stop_reason="diverged")).status == "OK"


def test_the_validation_loss_is_read_where_there_is_one() -> None:
    val = np.full(N, math.nan)
    val[::2] = _valley()[::2]
    choice = choose_max_lr(_test(np.full(N, 2.3), val_loss=val))
    assert "validation" in choice.reason
    assert choice.status == "OK"


@pytest.mark.parametrize(
    ("losses", "status", "number", "confident"),
    [
        (np.full(N, 2.3), "FLAT", False, False),
        (2.3 + 1e-3 * np.sin(np.arange(N)), "FLAT", False, False),
        (np.linspace(2.3, 0.1, N), "CENSORED", True, False),
        (np.concatenate([np.linspace(2.3, 0.5, N - 20), np.full(20, 0.5)]), "NO_RISE", True, False),
        (np.concatenate([[math.nan] * N]), "DIVERGED_AT_START", False, False),
        (np.concatenate([np.full(5, 2.3), np.full(N - 5, 50.0)]), "DIVERGED_AT_START", False, False),
        (np.concatenate([np.full(40, 2.3), np.full(N - 40, 50.0)]), "NO_GAIN_THEN_DIVERGED", True, False),
        (np.linspace(2.3, 1.0, 8), "TOO_FEW_POINTS", False, False),
        (np.concatenate([[0.5, 0.5, 0.5], np.linspace(0.6, 3, N - 3)]), "BEST_AT_START", True, False),
    ],
)
def test_curves_that_cannot_answer_are_recognised(losses: Any, status: str, number: bool, confident: bool) -> None:
    choice = choose_max_lr(_test(losses))
    assert (choice.status, choice.max_lr is not None, choice.confident) == (status, number, confident)
    assert choice.reason.endswith(".")


@pytest.mark.parametrize(
    ("settings", "trust"),
    [
        ({}, None),
        ({"settings": {"optimizer": "SGD"}}, 1.0),
        ({"settings": {"optimizer": "SGD"}, "planned_steps": N}, None),
    ],
)
def test_a_loss_that_still_falls_at_the_end_of_the_range_gives_that_end(settings: Any, trust: Any) -> None:
    choice = choose_max_lr(_test(np.linspace(2.3, 0.1, N), **settings), trust=trust)
    assert (choice.status, choice.max_lr, choice.bounds) == ("CENSORED", LRS[-1], (LRS[-1] / 10, LRS[-1]))
    assert "max_lr 10 is the largest that was tried, and the loss was still falling: raise `end_lr`" in choice.reason


@pytest.mark.parametrize(("optimizer", "usual"), [("SGD", 0.1), ("AdamW", 5e-3)])
def test_that_end_is_drawn_to_the_usual_rate_of_a_known_optimizer(optimizer: str, usual: float) -> None:
    losses, known = np.linspace(2.3, 0.1, N), {"optimizer": optimizer}
    for curves, trust in (({}, 0.7 * 0.6 * 0.5), ({"val_loss": losses}, 0.7 * 0.6)):
        choice = choose_max_lr(_test(losses, settings=known, **curves))
        assert choice.status == "CENSORED"
        assert choice.max_lr == pytest.approx(LRS[-1] ** trust * usual ** (1 - trust))
        assert choice.bounds == (pytest.approx(choice.max_lr / 10), LRS[-1])  # type: ignore[operator]
        assert f"is the largest that was tried, 10, drawn to the usual {usual:g}, and the loss" in choice.reason


def test_an_end_below_the_usual_rate_stays() -> None:
    short = RangeTest(LRS / 1e4, np.linspace(2.3, 0.1, N), None, "end of range", 2.3, settings={"optimizer": "SGD"})
    choice = choose_max_lr(short)
    assert choice.max_lr == LRS[-1] / 1e4
    assert "is the largest that was tried, and" in choice.reason


def test_a_plateau_whose_lowest_noise_stands_near_its_end_is_not_falling() -> None:
    rng = np.random.default_rng(0)
    plateau = np.concatenate([np.linspace(2.3, 0.8, 30), np.full(N - 30, 0.8)])
    found = [choose_max_lr(_test(plateau + 0.15 * rng.standard_normal(N))).status for _ in range(100)]
    assert found.count("CENSORED") <= 8


def test_a_noisy_loss_that_still_falls_is_seen_to() -> None:
    rng = np.random.default_rng(0)
    losses = [np.linspace(2.3, 0.1, N) + 0.03 * rng.standard_normal(N) for _ in range(50)]
    assert all(choose_max_lr(_test(curve)).status == "CENSORED" for curve in losses)


@pytest.mark.parametrize("losses", [np.linspace(2.3, 0.1, N), np.full(N, 2.3), np.linspace(2.3, 1.0, 8)])
def test_where_the_data_ended_more_data_is_the_cure(losses: Any) -> None:
    reason = choose_max_lr(_test(losses, stop_reason="no more data")).reason
    assert "the data ended there: give more, or lower `num_steps`" in reason
    assert "raise" not in reason


def test_a_loss_that_explodes_at_the_last_rate_gives_neither_that_rate_nor_a_wider_range() -> None:
    losses = np.concatenate([np.full(40, 2.3), np.linspace(2.2, 0.9, N - 41), [5.0]])
    choice = choose_max_lr(_test(losses, settings={"optimizer": "AdamW"}))
    assert choice.status == "OK"
    assert choice.max_lr < LRS[-1] / 100  # type: ignore[operator]
    assert "raise" not in choice.reason


LINEAR = np.linspace(1e-3, 10.0, N)


def _linear(losses: Any) -> RangeTest:
    losses = np.asarray(losses, dtype=float)
    stop_reason = "diverged" if np.isfinite(losses[-1]) else "non-finite loss"
    return RangeTest(LINEAR[: len(losses)], losses, losses, stop_reason, initial_loss=2.3, n_steps=N)


@pytest.mark.parametrize(
    ("losses", "status"),
    [
        ([2.3, 1.5, 0.4, 9.0, 30.0, 90.0], "TOO_FEW_POINTS"),
        ([2.3, 1.5, 0.4, math.nan], "DIVERGED_AT_START"),
        ([2.3, 1.5, 0.6, 0.4, 0.5, *np.linspace(1, 3, 30)], "BEST_AT_START"),
        ([2.3, 2.3, *np.full(30, 9.0)], "DIVERGED_AT_START"),
        ([2.3, 2.2, 2.0, 1.6, 3.9, *np.tile([2.4, 2.6, 3.1], 10)], "FLAT"),
    ],
)
def test_a_linear_sweep_that_spends_its_steps_above_the_edge_asks_for_a_lower_end(losses: Any, status: str) -> None:
    choice = choose_max_lr(_linear(losses))
    assert choice.status == status
    assert "lower `end_lr`" in choice.reason
    assert "raise" not in choice.reason
    assert "start_lr" not in choice.reason


def test_a_linear_sweep_that_rises_in_its_first_step_asks_for_a_lower_end_unless_its_steps_are_small() -> None:
    losses = np.geomspace(9, 1e3, 40)
    for start, knob in ((1e-5, "end_lr"), (5.0, "start_lr")):
        test = RangeTest(np.linspace(start, 10, 40), losses, losses, "diverged", 2.3, settings={"sweep": "linear"})
        choice = choose_max_lr(test)
        assert choice.status == "DIVERGED_AT_START"
        assert choice.reason.endswith(f"at lr {start:.3g} already: lower `{knob}`.")


@pytest.mark.parametrize("n", [2, 3, 4, 5])
@pytest.mark.parametrize("ratio", [1.5, 3.0, 10.0])
def test_few_points_of_an_exponential_sweep_are_not_told_as_linear(n: int, ratio: float) -> None:
    for settings in ({}, {"sweep": "exp"}):
        lrs, losses = 1e-5 * ratio ** np.arange(n), [2.3, 5.0, 9.0, 20.0, 30.0][:n]
        choice = choose_max_lr(RangeTest(lrs, losses, None, "diverged", 2.3, settings=settings))
        assert choice.reason.endswith(": lower `start_lr`.")


@pytest.mark.parametrize("n", [2, 3])
def test_few_points_of_a_sweep_that_is_known_to_be_linear_are_told_so(n: int) -> None:
    test = RangeTest(LINEAR[:n], [2.3, 5.0, 9.0][:n], None, "diverged", 2.3, settings={"sweep": "linear"})
    assert choose_max_lr(test).reason.endswith(": lower `end_lr`.")


@pytest.mark.parametrize(
    ("stop_reason", "cure"),
    [
        ("diverged", "it broke before its first update, so check the data, the loss and the model."),
        ("non-finite loss", "it broke before its first update, so check the data, the loss and the model."),
        ("no more data", "the data ended there: give more"),
        ("end of range", "raise `num_steps`."),
        ("failed", "raise `num_steps`."),
    ],
)
@pytest.mark.parametrize("val_loss", [None, []])
def test_an_empty_test_is_refused_with_a_cure(stop_reason: str, cure: str, val_loss: Any) -> None:
    choice = choose_max_lr(RangeTest([], [], val_loss, stop_reason))
    assert (choice.status, choice.max_lr) == ("TOO_FEW_POINTS", None)
    assert f"has 0 evaluations and needs 10 to be read: {cure}" in choice.reason
    scaled = choose_max_lr(RangeTest([], [], val_loss, "diverged", settings={"amp": "fp16"}))
    assert scaled.reason.endswith("the model, or take another `amp`.")


@pytest.mark.parametrize("share", [2, 5])
def test_a_flat_loss_that_rose_towards_its_end_is_said_to(share: int) -> None:
    rises = choose_max_lr(_test(np.repeat([2.3, 2.5], [N - N // share, N // share])))
    assert (rises.status, "rose towards its end: take more steps, lower `end_lr`" in rises.reason) == ("FLAT", True)
    assert "rose" not in choose_max_lr(_test(np.full(N, 2.3))).reason


def test_a_validation_loss_that_never_fell_has_risen_by_a_twentieth_where_that_is_clear() -> None:
    losses = 2.3 * np.repeat([1.0, 1.06], [40, N - 40])
    choice = choose_max_lr(_test(np.full(N, 2.3), val_loss=losses))
    assert (choice.status, choice.confident) == ("NO_GAIN_THEN_DIVERGED", False)
    assert choice.max_lr == pytest.approx(LRS[39] / 5, rel=0.1)
    rng = np.random.default_rng(0)
    noisy = [2.3 + 0.2 * rng.standard_normal(N) for _ in range(100)]
    found = [choose_max_lr(_test(np.full(N, 2.3), val_loss=loss)).status for loss in noisy]
    assert found.count("FLAT") >= 97


def test_too_few_evaluations_ask_for_what_gives_more() -> None:
    few = np.linspace(2.3, 1.0, 8)
    assert choose_max_lr(_test(few)).reason.endswith(": raise `num_steps`.")
    assert choose_max_lr(_test(few, val_loss=few)).reason.endswith(": raise `num_steps` or lower `val_every`.")
    assert choose_max_lr(_test(few, stop_reason="diverged")).reason.endswith(": lower `start_lr`.")


def test_a_fall_that_is_only_noise_is_not_denied() -> None:
    losses = 2.3 + np.concatenate([0.6 * np.random.default_rng(0).standard_normal(40), np.full(N - 40, 50.0)])
    choice = choose_max_lr(_test(losses, val_loss=losses))
    assert choice.status == "NO_GAIN_THEN_DIVERGED"
    assert "smoothed validation loss never fell clearly below its start" in choice.reason


@pytest.mark.parametrize(
    ("first", "initial", "cure"),
    [
        (2.3, math.nan, "no number, or above 1e+150: check the data, the loss and the model"),
        (math.nan, 2.3, "check the data"),
        (1e200, 1e200, "check the data"),
        (1e200, None, "check the data"),
        (2.3, 2.3, "lower `start_lr`"),
    ],
)
def test_a_loss_that_was_no_number_before_any_update_is_not_the_rates_fault(
    first: float, initial: float | None, cure: str
) -> None:
    choice = choose_max_lr(_test([first, math.nan], initial=initial, stop_reason="non-finite loss"))
    assert choice.status == "DIVERGED_AT_START"
    assert cure in choice.reason
    assert ("start_lr" in choice.reason) == (cure == "lower `start_lr`")


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("n", [2, 20])
def test_validation_data_that_give_no_loss_before_any_update_are_named(bad: float, n: int) -> None:
    val = np.full(n, math.nan)
    val[-1] = bad
    broken = _test(np.full(n, 2.3), val_loss=val, initial=bad, stop_reason="non-finite loss")
    choice = choose_max_lr(broken)
    assert (choice.status, choice.max_lr) == ("DIVERGED_AT_START", None)
    assert choice.reason.endswith("where the training loss was one: look for NaN and inf in the validation data.")
    assert "validation data" not in choose_max_lr(_test(np.full(n, bad), val_loss=val, initial=bad)).reason


def test_a_curve_cut_by_nan_is_read_up_to_there() -> None:
    losses = _valley().copy()
    losses[np.argmin(losses) + 3 :] = math.nan
    choice = choose_max_lr(_test(losses, stop_reason="non-finite loss"))
    assert choice.max_lr is not None
    assert choice.max_lr < LRS[np.argmin(_valley())]


def test_pure_noise_is_not_confident() -> None:
    rng = np.random.default_rng(1)
    assert not any(choose_max_lr(_test(2.3 + 0.05 * rng.standard_normal(N))).confident for _ in range(50))


@pytest.mark.parametrize("validated", [False, True])
@pytest.mark.parametrize("kind", ["log-normal", "slow"])
def test_noise_with_heavy_tails_or_a_slow_wander_is_seldom_read_with_confidence(kind: str, validated: bool) -> None:
    rng, sure, unsure = np.random.default_rng(0), 0, ""
    for _ in range(60):
        noise = rng.standard_normal((2, 3 * N))
        slow = [2.3 + np.convolve(0.1 * row, 0.9 ** np.arange(50))[N : 2 * N] for row in noise]
        train, val = slow if kind == "slow" else 2.3 * np.exp(3 * noise[:, :N])
        choice = choose_max_lr(_test(train, val_loss=val if validated else None))
        sure += choice.confident
        unsure = choice.reason if (choice.status, choice.confident) == ("OK", False) else unsure
    assert sure <= 20
    assert unsure.endswith(", but the loss wandered by much of what it gained, as noise does.")


@given(
    st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), max_size=N),
    st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True, width=32)),
)
def test_any_losses_give_a_choice_inside_the_range_or_a_refusal_with_a_reason(losses: Any, initial: Any) -> None:
    choice = choose_max_lr(_test(losses, initial=initial))
    assert choice.reason
    if choice.max_lr is None:
        assert not choice.confident
    else:
        assert LRS[0] <= choice.max_lr <= LRS[-1]
        low, high = choice.bounds  # type: ignore[misc]
        assert LRS[0] <= low <= high <= LRS[-1] * (1 + 1e-12)


@given(st.lists(st.sampled_from([0.0, 1.0, -1.0, math.nan, math.inf, -math.inf, 1e308, -1e308, 5e-324]), max_size=N))
def test_losses_near_the_largest_number_overflow_nowhere(losses: list[float]) -> None:
    for initial in (None, 1.0, 1e308):
        for curves in ({}, {"val_loss": losses[::-1]}):
            assert choose_max_lr(_test(losses, initial=initial, **curves)).reason


@given(st.sampled_from([2.0**k for k in range(-12, 13)]), st.integers(0, 20))
def test_scaling_the_losses_does_not_change_the_choice(scale: float, seed: int) -> None:
    losses = _valley() + 0.02 * np.random.default_rng(seed).standard_normal(N)
    one, other = choose_max_lr(_test(losses)), choose_max_lr(_test(losses * scale, initial=2.3 * scale))
    assert (one.max_lr, one.status) == (other.max_lr, other.status)


@pytest.mark.parametrize(
    ("tested", "optimizer"),
    [("SGD", "sgd"), ("Adam", "adamw"), ("RMSprop", "adam"), (None, "sgd"), (None, "adam"), ("Own", "sgd")],
)
def test_a_range_test_of_an_optimizer_with_the_same_usual_rate_or_an_unknown_one_is_taken(
    tested: str | None, optimizer: str
) -> None:
    check_optimizer_of(_test(_valley(), settings={"optimizer": tested}), optimizer)
    check_optimizer_of(_test(_valley()), optimizer)


@pytest.mark.parametrize(
    ("tested", "optimizer"), [("SGD", "adam"), ("Adam", "sgd"), ("Adadelta", "adam"), ("Lion", "adamw")]
)
def test_a_range_test_of_an_optimizer_with_another_usual_rate_is_refused(tested: str, optimizer: str) -> None:
    with pytest.raises(ValueError, match=rf"got one of '{tested.lower()}' for optimizer='{optimizer}': run it with"):
        check_optimizer_of(_test(_valley(), settings={"optimizer": tested}), optimizer)
