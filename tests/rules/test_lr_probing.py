import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optuna_discipline.rules.lr_probing import FACTOR
from optuna_discipline.rules.lr_probing import LONGER
from optuna_discipline.rules.lr_probing import Probe
from optuna_discipline.rules.lr_probing import choose_from_probes
from optuna_discipline.rules.lr_probing import highest_to_probe
from optuna_discipline.rules.lr_probing import last_stable_lr
from optuna_discipline.rules.lr_probing import learned_level
from optuna_discipline.rules.lr_probing import next_probe
from optuna_discipline.rules.range_test import RangeTest

INF = math.inf


def walk(loss_of: Any, start: float, ceiling: float, floor: float = 1e-4, **options: Any) -> list[Probe]:
    probes: list[Probe] = []
    while (lr := next_probe(probes, start=start, floor=floor, ceiling=ceiling, **options)) is not None:
        loss = loss_of(lr)
        probes.append(Probe(lr, loss, loss, math.isfinite(loss)))
        assert len(probes) < 20
    return probes


def valley(best: float) -> Any:
    return lambda lr: 0.1 * math.exp(0.3 * math.log(lr / best) ** 2)


def choose(probes: list[Probe], start: float = 0.1, **options: Any) -> Any:
    return choose_from_probes(probes, start=start, **{"finished": True, "length": 0.25, "ceiling": 1.0, **options})


@pytest.mark.parametrize(
    ("best", "ceiling", "expected"),
    [
        (0.1, 1.0, [0.1, 0.25, 0.04]),
        (0.3, 1.0, [0.1, 0.25, 0.625]),
        (0.3, 0.3, [0.1, 0.25]),
        (0.04, 1.0, [0.1, 0.25, 0.04, 0.016]),
    ],
)
def test_the_walk_goes_on_while_the_outermost_is_the_best(best: float, ceiling: float, expected: list[float]) -> None:
    assert [probe.lr for probe in walk(valley(best), 0.1, ceiling)] == pytest.approx(expected, rel=1e-3)


def test_a_slow_starter_is_tried_lower_before_it_is_tried_higher() -> None:
    assert [p.lr for p in walk(valley(0.1), 0.1, 1.0, down_first=True)] == pytest.approx([0.1, 0.04, 0.25], rel=1e-3)


@pytest.mark.parametrize(("start", "highest"), [(0.1, 0.8), (0.5, 1.25), (1.0, 2.0)])
def test_a_clear_sweep_lets_the_walk_go_one_rung_above_its_stable_rates(start: float, highest: float) -> None:
    assert highest_to_probe(1.0, start, clear=True) == highest
    assert highest_to_probe(1.0, start, clear=False) == 0.8


def test_the_first_step_up_may_be_a_larger_one() -> None:
    tried = [p.lr for p in walk(valley(3.0), 0.1, 10.0, up=6.0)]
    assert tried == pytest.approx([0.1, 0.6, 1.5, 3.75, 9.375], rel=1e-3)
    choice = choose([Probe(0.1, 0.5, 0.5, True), Probe(0.6, 0.2, 0.2, True)], finished=False, ceiling=10.0, sure=True)
    assert not choice.confident
    assert "nothing between it and 0.1 was tried" in choice.reason


def test_a_walk_that_only_diverges_ends_at_the_floor() -> None:
    assert [p.lr for p in walk(lambda lr: INF, 0.1, 1.0, floor=0.01)][-1] == pytest.approx(0.01)


@given(st.floats(-2.5, 0.0), st.floats(-2.0, 0.0), st.floats(1.0, 1e6))
def test_the_choice_lies_between_the_optimum_and_the_start_whatever_the_scale(
    best: float, start: float, scale: float
) -> None:
    probes = walk(valley(10**best), 10**start, 10.0)
    choice = choose(probes, 10**start, ceiling=10.0)
    low, high = sorted((LONGER * 10**best, 10**start))
    assert low / FACTOR**0.5 <= choice.max_lr <= high * FACTOR**0.5
    assert choice.bounds[0] <= choice.max_lr <= choice.bounds[1]
    scaled = [Probe(p.lr, scale * p.loss, scale * p.train_loss, p.learned) for p in probes]
    assert choose(scaled, 10**start, ceiling=10.0).max_lr == pytest.approx(choice.max_lr)


def test_a_full_length_probe_is_not_lowered() -> None:
    probes = walk(valley(0.1), 0.1, 1.0)
    assert choose(probes, length=1.0).max_lr == pytest.approx(0.1, rel=0.01)
    assert choose(probes).max_lr == pytest.approx(0.1 * LONGER**0.75, rel=0.01)


def test_negative_losses_are_compared_by_what_was_gained() -> None:
    probes = [Probe(lr, valley(0.1)(lr) - 5, 0.0, True) for lr in (0.04, 0.1, 0.25)]
    assert choose(probes, untrained=0.0).max_lr == pytest.approx(0.1 * LONGER**0.75, rel=0.02)
    assert math.isfinite(choose(probes).max_lr)


def test_probes_that_did_not_learn_never_win_over_one_that_did() -> None:
    choice = choose([Probe(0.3, 2.0, 1.9, True), Probe(0.1, 1.5, 2.3, False)], 0.3)
    assert choice.bounds[0] == 0.1
    assert choice.max_lr > 0.2


def test_nothing_is_drawn_to_a_start_that_diverged() -> None:
    probes = [Probe(0.3, INF, INF, False), Probe(0.12, 0.2, 0.2, True), Probe(0.048, 0.5, 0.5, True)]
    assert choose(probes, 0.3).max_lr < 0.12


def test_probes_of_which_none_learned_are_not_ranked() -> None:
    probes = [Probe(0.1, 2.31, 2.31, False), Probe(0.03, 2.30, 2.30, False)]
    assert choose(probes, finished=False).max_lr == 0.1


@pytest.mark.parametrize(
    ("probes", "finished", "status", "confident"),
    [
        ([Probe(0.3, 0.2, 0.2, True), Probe(0.1, 0.22, 0.3, True)], True, "OK", True),
        ([Probe(0.3, 0.2, 0.2, True), Probe(0.1, 0.3, 0.3, True)], True, "OK", False),
        ([Probe(0.3, 0.2, 0.2, True), Probe(0.75, 0.3, 0.3, True)], False, "BEST_AT_START", False),
        ([Probe(0.1, 0.3, 0.3, True), Probe(0.3, 0.2, 0.2, True)], False, "CENSORED", False),
        ([Probe(0.3, 2.3, 2.3, False)], False, "FLAT", False),
        ([Probe(0.3, INF, INF, False)], True, "DIVERGED_AT_START", False),
        ([Probe(0.3, 0.2, 0.2, True), Probe(4.7, INF, INF, False), Probe(0.1, 0.3, 0.3, True)], True, "OK", False),
    ],
)
def test_the_choice_says_how_sure_it_is(probes: list[Probe], finished: bool, status: str, confident: bool) -> None:
    choice = choose(probes, 0.3, finished=finished)
    assert (choice.status, choice.confident) == (status, confident)
    assert (choice.max_lr is None) == (status == "DIVERGED_AT_START")


@pytest.mark.parametrize(
    ("last", "finished", "length", "told"),
    [
        (Probe(0.3, 2.2, 2.2, False), False, 1.0, "raise `max_cost` so that larger rates are tried, train longer"),
        (Probe(0.3, 2.4, 2.4, False), False, 1.0, "guess: train longer"),  # they would not be tried
        (Probe(0.3, 2.2, 2.2, False), True, 1.0, "guess: train longer"),  # the walk has tried them
        (Probe(0.9, 2.2, 2.2, False), False, 1.0, "guess: train longer"),  # the ceiling forbids them
        (Probe(0.3, INF, INF, False), False, 1.0, "guess: train longer"),
        (Probe(0.3, 2.4, 2.4, False), False, 0.5, "raise `max_cost` so that longer probes are tried, train longer"),
        (Probe(0.3, 2.4, 2.4, False), True, 0.5, "raise `max_cost` so that longer probes are tried, train longer"),
    ],
)
def test_probes_that_did_not_learn_ask_for_what_a_larger_budget_would_try(
    last: Probe, finished: bool, length: float, told: str
) -> None:
    choice = choose([Probe(0.1, 2.3, 2.3, False), last], finished=finished, length=length, ceiling=1.0)
    assert choice.status == "FLAT"
    assert told in choice.reason


@pytest.mark.parametrize("finished", [False, True])
def test_one_probe_alone_is_never_sure(finished: bool) -> None:
    choice = choose([Probe(0.1, 0.2, 0.2, True)], finished=finished, sure=True)
    assert (choice.status, choice.confident) == ("TOO_FEW_POINTS", False)
    assert "it alone says nothing of its neighbours" in choice.reason


@pytest.mark.parametrize(
    ("probes", "options", "told"),
    [
        ([Probe(0.1, 0.2, 0.2, True), Probe(0.25, 0.21, 0.2, True)], {"length": 1.0}, "(0.2); it is taken as it is."),
        ([Probe(0.1, 0.2, 0.2, True), Probe(0.25, 0.21, 0.2, True)], {"length": 0.5}, "; the longer run bears 0.8 of "),
        (
            walk(valley(0.12), 0.1, 1.0),
            {"length": 1.0},
            "; the parabola through its neighbours is lowest at 0.12: max_lr 0.12.",
        ),
        (
            walk(valley(0.12), 0.1, 1.0),
            {"length": 0.25},
            "at 0.12, the longer run bears 0.8 of that, 0.25 of the way to",
        ),
    ],
)
def test_the_reason_names_only_what_was_applied(probes: list[Probe], options: Any, told: str) -> None:
    assert told in choose(probes, **options).reason


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "none lost a quarter of the untrained loss"),
        ({"untrained": 10.0, "gained": 0.0}, "none lost a quarter of the untrained loss"),
        ({"untrained": 10.0, "gained": 1.0}, "none fell from the untrained 10 to 9.5"),
        ({"untrained": 10.0, "gained": 8.0}, "none lost a quarter of the untrained loss"),
    ],
)
def test_a_flat_answer_says_how_far_the_loss_had_to_fall(options: Any, told: str) -> None:
    assert told in choose([Probe(0.1, 9.9, 9.9, False)], **options).reason


@pytest.mark.parametrize(("untrained", "gained", "level"), [(2.0, 9.0, 1.5), (-2.0, 0.5, -2.25), (0.0, 0.5, 0.0)])
def test_a_probe_has_learned_by_a_quarter_of_the_untrained_loss_at_most(
    untrained: float, gained: float, level: float
) -> None:
    assert learned_level(untrained, gained) == level


def test_a_gap_beside_the_best_probe_is_named() -> None:
    probes = [Probe(0.06, INF, INF, False), Probe(0.0096, INF, INF, False), Probe(0.0015, 0.2, 0.2, True)]
    choice = choose(probes, 0.06, sure=True)
    assert not choice.confident
    assert "nothing between it and 0.0096 was tried" in choice.reason


def test_an_answer_that_the_budget_cut_is_not_lowered_where_the_loss_still_falls() -> None:
    def cut(ratio: float, **options: Any) -> Any:
        probes = [Probe(0.1, 0.1 * ratio, 0.1, True), Probe(0.25, 0.1, 0.1, True)]
        return choose(probes, finished=False, length=0.5, ceiling=2.0, **options)

    clear, slight = cut(2.0, sure=True), cut(1.1, sure=True)
    assert (clear.status, clear.confident) == ("CENSORED", False)
    assert clear.max_lr == pytest.approx(0.25)
    assert (slight.status, slight.confident) == ("CENSORED", True)
    assert slight.max_lr == pytest.approx(0.25 * LONGER)


def test_the_end_of_what_is_looked_at_is_no_instability() -> None:
    probes = [Probe(0.4, 0.22, 0.3, True), Probe(1.0, 0.2, 0.2, True)]
    seen, unseen = (choose(probes, 1.0, sure=True, open_end=open_end) for open_end in (False, True))
    assert (seen.status, seen.confident) == ("OK", True)
    assert (unseen.status, unseen.confident) == ("CENSORED", False)
    assert "larger ones than these are not looked at" in unseen.reason


def test_a_loss_that_fell_clearly_towards_the_ceiling_is_not_sure() -> None:
    choice = choose([Probe(0.4, 0.3, 0.3, True), Probe(1.0, 0.2, 0.2, True)], sure=True)
    assert (choice.status, choice.confident) == ("OK", False)
    assert "the loss still fell towards it, and none above 1 may be tried" in choice.reason


@pytest.mark.parametrize(("untrained", "told"), [(2.0, "rose clearly above the untrained 2"), (None, "check the data")])
def test_a_refusal_says_what_happened(untrained: float | None, told: str) -> None:
    reason = choose([Probe(0.3, INF, INF, False), Probe(0.05, INF, INF, False)], 0.3, untrained=untrained).reason
    assert told in reason
    assert untrained is None or "lies below 0.05, the smallest tried" in reason


def test_probes_that_could_be_trained_but_not_validated_ask_for_a_look_at_the_validation_data() -> None:
    choice = choose([Probe(0.1, INF, 0.2, False), Probe(0.25, INF, 0.3, False)], untrained=2.0)
    assert choice.status == "DIVERGED_AT_START"
    assert "none had a validation loss that is a number: look for NaN and inf in its data" in choice.reason


def test_where_the_training_broke_at_some_rates_the_validation_data_are_not_the_first_to_blame() -> None:
    reason = choose([Probe(0.1, INF, 0.2, False), Probe(0.25, INF, INF, False)], untrained=2.0).reason
    assert "number: some broke in training, so rates below 0.1 may do; if none does, look for NaN and inf in" in reason


def test_a_start_that_is_vouched_for_needs_no_walk_to_the_end() -> None:
    probes = [Probe(0.1, 0.22, 0.2, True), Probe(0.25, 0.2, 0.2, True)]
    assert not choose(probes, finished=False).confident
    assert choose(probes, finished=False, sure=True).confident
    assert not choose([Probe(0.3, 2.3, 2.3, False)], 0.3, sure=True).confident


def test_only_a_noisy_length_is_drawn_to_the_start() -> None:
    probes = walk(valley(0.25), 0.1, 1.0)
    assert choose(probes, length=0.5).max_lr > choose(probes, length=0.25).max_lr


ANY = st.floats(allow_nan=True, allow_infinity=True)


@given(
    st.lists(
        st.builds(Probe, st.floats(1e-5, 10), ANY, ANY, st.booleans()),
        min_size=1,
        max_size=5,
        unique_by=lambda probe: probe.lr,
    )
)
def test_any_probes_give_a_rate_between_them_or_a_refusal(probes: list[Probe]) -> None:
    choice = choose(probes)
    assert choice.reason
    if choice.max_lr is not None:
        lrs = [probe.lr for probe in probes]
        assert min(lrs) / FACTOR <= choice.max_lr <= max(lrs) * FACTOR


def curve(losses: list[float]) -> RangeTest:
    return RangeTest(
        np.geomspace(0.1, 10.0, len(losses)), np.array(losses), None, "end of range", initial_loss=losses[0]
    )


def test_the_last_stable_lr_is_the_one_before_the_first_wild_loss() -> None:
    rising = np.concatenate([np.full(20, 2.0), np.full(10, 9.0)])
    assert last_stable_lr(curve(list(rising))) == pytest.approx(curve(list(rising)).lrs[19])
    spike = np.where(np.arange(30) == 12, 9.0, 2.0)
    assert last_stable_lr(curve(list(spike))) == pytest.approx(10.0)
    assert last_stable_lr(curve([2.0, 1.0, math.nan])) == pytest.approx(1.0)
    assert last_stable_lr(curve([2.0, 1.0, 1.0])) == pytest.approx(10.0)
    assert last_stable_lr(curve([math.nan, 1.0])) == pytest.approx(0.1)
    assert last_stable_lr(curve(list(rising)), untrained=7.0) == pytest.approx(10.0)  # the first batches were easy
