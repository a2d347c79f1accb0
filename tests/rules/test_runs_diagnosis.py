import math
from typing import Any

import pytest

from optuna_discipline import DisciplineError
from optuna_discipline import EpochLog
from optuna_discipline import LossCurve
from optuna_discipline import Run
from optuna_discipline import Verdict
from optuna_discipline import diagnose
from optuna_discipline.rules import diagnosis
from optuna_discipline.rules.runs_diagnosis import diagnose_runs

N = 12
FALLING = [2 - i / 10 for i in range(N)]
SHRINKING = [math.exp(-i) for i in range(N)]
OVERFIT = [1 - i / 20 for i in range(5)] + [0.8 + i / 10 for i in range(N - 5)]


def _run(number: int, val: list[float], train: list[float] | None = None, **settings: Any) -> Run:
    losses = val if train is None else train
    logs = tuple(EpochLog(i, 0.1, loss, v) for i, (loss, v) in enumerate(zip(losses, val, strict=True)))
    curve = LossCurve(logs, n_epochs=N, n_classes=10)
    given: dict[str, Any] = {"state": "complete", "params": {"lr": 0.1 * (number + 1)}, "loss": val[-1], **settings}
    return Run(number=number, curve=curve, **given)


def _fell(number: int) -> Run:
    return _run(number, [2.0, math.nan], state="pruned", loss=None)


def _stuck(number: int) -> Run:
    return _run(number, [2.303] * N)


def test_the_shares_the_best_and_its_verdict_are_told() -> None:
    found = diagnose_runs([_run(0, FALLING), _run(1, [3 + x for x in FALLING], FALLING), _fell(2), _stuck(3)])
    assert (found.n_runs, found.diverged, found.never_learned, found.best) == (4, 0.25, 0.25, 0)
    assert found.best_diagnosis is not None
    assert found.best_diagnosis.verdict == Verdict.UNDERFITTING
    assert found.verdicts == {Verdict.UNDERFITTING: 2}
    assert found.advice[0].startswith("The best run looks underfitting. The validation loss still falls")


def test_many_divergences_name_the_bound_to_lower() -> None:
    found = diagnose_runs([_run(0, FALLING), _fell(3), _fell(4)])
    assert found.advice[0] == (
        "67% of the runs diverged: lower the upper bound of the learning rate "
        "(the smallest that broke is 0.4, the largest that held 0.1)."
    )
    unknown = diagnose_runs([_run(0, [2.0, math.nan], params={}), _run(1, FALLING, params={})])
    assert unknown.advice[0] == "50% of the runs diverged: lower the upper bound of the learning rate."


def test_where_most_runs_diverged_no_larger_learning_rate_is_asked_for() -> None:
    found = diagnose_runs([_run(0, FALLING), _fell(3), _fell(4)])
    assert found.advice[1:] == (
        "The best run looks underfitting. The validation loss still falls: train longer, or regularise less.",
    )
    assert "raise the learning rate" in diagnose_runs([_run(0, FALLING), _run(1, FALLING), _fell(4)]).advice[0]
    many = diagnose_runs(
        [_run(0, OVERFIT, SHRINKING, loss=0), *(_run(i, FALLING) for i in (1, 2)), *map(_fell, (3, 4, 5))]
    )
    assert many.advice[1].startswith("The best run looks overfitting.")
    assert many.advice[2] == (
        "2 of 3 runs that learned look underfitting. The validation loss still falls: train longer, or regularise less."
    )


SETTINGS = {"lr": 0.16, "momentum": 0.989, "weight_decay": 1e-4, "batch_size": 32.0}


@pytest.mark.parametrize(
    ("settings", "val", "at_edge"),
    [
        ({"weight_decay": 4e-5}, [x + 0.6 for x in FALLING], True),
        ({"lr": 0.2, "momentum": 0.986}, [2.0, 30.0, *[math.nan] * (N - 2)], True),
        ({}, [x + 0.3 for x in FALLING], False),  # no much worse
        ({"lr": 0.32}, [x + 0.6 for x in FALLING], False),  # twice the rate, as the ladder steps
        ({"momentum": 0.95}, [x + 0.6 for x in FALLING], False),
        ({"weight_decay": 1e-2}, [x + 0.6 for x in FALLING], False),
        ({"batch_size": 64.0}, [x + 0.6 for x in FALLING], False),
    ],
)
def test_a_best_run_whose_neighbours_ended_much_worse_may_be_luck_and_is_asked_for_no_larger_rate(
    settings: dict[str, float], val: list[float], at_edge: bool
) -> None:
    best = _run(0, FALLING, params=SETTINGS)
    found = diagnose_runs([best, _run(1, FALLING, params=SETTINGS), _run(2, val, params={**SETTINGS, **settings})])
    assert found.at_edge == at_edge
    assert ("raise the learning rate" in found.advice[0]) != (at_edge or settings == {"lr": 0.32})
    luck = "Of 2 runs with nearly its settings 1 broke or ended much worse, so its value may be luck: train it again"
    assert (luck in found.advice[0]) == at_edge


@pytest.mark.parametrize(
    ("rate", "worse_by", "more", "is_room"),
    [
        (2.0, 0.1, {}, False),
        (2.0, math.nan, {}, False),  # it broke
        (2.0, 0.002, {}, True),  # by luck
        (9.0, 0.1, {}, True),  # a better one may lie between
        (0.5, 0.1, {}, True),
        (2.0, 0.1, {"others": {"width": 8}}, True),
        (2.0, 0.1, {"allowed": False, "loss": math.inf}, True),
        (2.0, 0.1, {"state": "pruned"}, True),
    ],
)
def test_no_larger_rate_is_asked_for_where_one_nearby_ended_worse(
    rate: float, worse_by: float, more: dict[str, Any], is_room: bool
) -> None:
    above = _run(1, [x + worse_by for x in FALLING], params={**SETTINGS, "lr": 0.16 * rate}, **more)
    found = diagnose_runs([_run(0, FALLING, params=SETTINGS), above, *(_run(i, FALLING, params={}) for i in (2, 3))])
    assert found.worse_above != is_room
    assert ("raise the learning rate" in found.advice[0]) == is_room


def test_a_better_run_above_that_reported_no_curve_is_none_that_was_worse() -> None:
    best = _run(0, FALLING, params=SETTINGS)
    above = [Run(1, "complete", {**SETTINGS, "lr": 0.3}, FALLING[-1] + more) for more in (-0.5, 0.5)]
    assert [diagnose_runs([best, run]).worse_above for run in above] == [False, True]


@pytest.mark.parametrize(("above", "at_edge"), [(0.15, False), (0.25, True)])
def test_beside_a_loss_near_0_much_worse_is_a_tenth_of_what_it_fell(above: float, at_edge: bool) -> None:
    val = [2 * (1 - i / 9) if i < 9 else 0.01 for i in range(N)]
    runs = [_run(0, val, params=SETTINGS), _run(1, [x + above for x in val], params=SETTINGS)]
    assert diagnose_runs(runs).at_edge == at_edge


def test_other_parameters_and_shorter_runs_are_no_neighbours() -> None:
    best, worse = _run(0, FALLING, params={**SETTINGS, "epochs": 16.0}), [x + 0.6 for x in FALLING]
    short, wide = _run(1, worse, params={**SETTINGS, "epochs": 4.0}), _run(2, worse, others={"width": 8})
    assert not diagnose_runs([best, short, wide]).at_edge


def test_at_the_edge_a_loss_that_levelled_off_with_the_rate_asks_for_a_longer_run_only() -> None:
    val = [0.5 + 0.5 * math.exp(-8 * i / 23) for i in range(24)]
    curve = LossCurve(tuple(EpochLog(i, 0.1 * (1 - i / 23.01), x, x) for i, x in enumerate(val)), n_epochs=24)
    best = Run(0, "complete", SETTINGS, 0.5, curve=curve)
    found = diagnose_runs([best, _run(1, [x + 0.6 for x in FALLING], params=SETTINGS)])
    assert "without a gap: a longer run may go on. Of 1 run with" in found.advice[0]


def test_a_validation_loss_alone_that_never_left_chance_is_one_that_never_learned() -> None:
    curve = LossCurve(tuple(EpochLog(i, 0.1, None, 2.303) for i in range(N)), n_epochs=N, n_classes=10)
    run = Run(0, "complete", {"lr": 0.1}, 2.303, curve=curve)
    assert diagnose_runs([run]).never_learned == 1
    assert len(diagnose_runs([run, _fell(3), _fell(4)]).advice) == 1  # that most broke, not to look above and below


def test_a_validation_loss_alone_that_began_below_chance_and_stood_is_none_that_never_learned() -> None:
    logs = tuple(EpochLog(i, 0.1, None, 0.15 - 1e-5 * i) for i in range(N))
    runs = [Run(0, "complete", {"lr": 0.1}, 0.15, curve=LossCurve(logs, N, n_classes)) for n_classes in (10, None)]
    assert [diagnose_runs([run]).never_learned for run in runs] == [0, 1]  # where nobody says it may be chance


@pytest.mark.parametrize(("second", "never"), [(0.1985, 1), (0.19, 0), (math.nan, 0)])
def test_validation_losses_below_chance_that_all_stand_at_one_level_never_learned(second: float, never: float) -> None:
    curves = [LossCurve(tuple(EpochLog(i, 0.1, None, x) for i in range(N)), N, 2) for x in (0.1986, second)]
    runs = [Run(i, "complete", {"lr": 0.1}, 0.2, curve=curve) for i, curve in enumerate(curves)]
    assert diagnose_runs(runs).never_learned == never


def test_where_the_smallest_rate_broke_too_the_upper_bound_is_not_what_to_lower() -> None:
    assert diagnose_runs([_fell(3), _fell(4)]).advice == (
        "Every run diverged, at the smallest learning rate (0.4) too: look for NaN or inf in the data, and at the "
        "loss; where these are fine, lower both bounds of the learning rate.",
    )
    unknown = diagnose_runs([_run(0, [2.0, math.nan], params={})])
    assert unknown.advice[0].startswith("Every run diverged: look for NaN or inf")


def test_a_break_that_only_the_validation_loss_shows_is_one_of_the_shares_too() -> None:
    val = [1 - i / 10 for i in range(6)] + [3.0] * (N - 6)
    logs = tuple(EpochLog(i, 0.1, None, x) for i, x in enumerate(val))
    broken = [Run(i, "complete", {"lr": 0.1 * i}, 3.0, curve=LossCurve(logs, n_epochs=N)) for i in (2, 3)]
    found = diagnose_runs([_run(0, FALLING), *broken])
    assert (found.diverged, found.verdicts, found.best) == (2 / 3, {Verdict.UNDERFITTING: 1}, 0)
    assert (found.highest_lr_that_held, found.lowest_lr_that_diverged) == (0.1, 0.2)


def test_runs_that_never_learned_ask_for_longer_ones() -> None:
    assert "train longer" in diagnose_runs([_stuck(0), _stuck(1)]).advice[0]


def test_without_known_classes_a_run_whose_losses_both_stood_still_never_learned() -> None:
    still = [0.97 - 1e-5 * i for i in range(N)]
    rough = [1.0, 1.13, 0.82, 0.95, 1.07, 0.9, 1.2, 0.88, 1.02, 0.79, 1.1, 0.97]
    losses = [(still, still), (rough, still), ([1.0, *[0.9] * (N - 1)], still), ([0.9] * N, [0.9] + [0.7] * (N - 1))]
    curves = [
        LossCurve(tuple(EpochLog(i, 0.1, a, b) for i, (a, b) in enumerate(zip(train, val, strict=True))), n_epochs=N)
        for train, val in losses
    ]
    runs = [Run(i, "complete", {"lr": 0.1}, 0.97, curve=curve) for i, curve in enumerate(curves)]
    assert [diagnose_runs([run]).never_learned for run in runs] == [1, 1, 0, 0]
    found = diagnose_runs(runs[:2])
    assert found.verdicts == {}
    assert found.advice == (
        "100% of the runs ended where they started: train longer, or raise the lower bound of the learning rate; such "
        "runs rank nothing.",
    )


def test_where_half_broke_and_half_never_learned_the_bounds_are_not_to_be_raised_and_lowered() -> None:
    found = diagnose_runs([_stuck(0), _stuck(1), _fell(3), _fell(4)])
    assert (found.diverged, found.never_learned) == (0.5, 0.5)
    assert found.advice == (
        "50% of the runs diverged: lower the upper bound of the learning rate (the smallest that broke is 0.4, the "
        "largest that held 0.2).",
    )


@pytest.mark.parametrize(("broken", "raised"), [((0.5, 2.0, 3.0), False), ((), True)])
def test_the_lower_bound_is_not_to_be_raised_where_most_runs_at_higher_rates_broke(
    broken: tuple[float, ...], raised: bool
) -> None:
    runs = [
        *(_run(i, [2.303] * N, params={"lr": 0.01 * (i + 1)}) for i in range(4)),
        *(_run(4 + i, [2.0, math.nan], state="pruned", loss=None, params={"lr": lr}) for i, lr in enumerate(broken)),
        _run(9, FALLING, params={"lr": 0.2}),
    ]
    found = diagnose_runs(runs)
    assert found.diverged_above == len(broken) / (len(broken) + 1)
    assert ("raise the lower bound" in found.advice[0]) == raised


def test_runs_that_ended_above_a_floor_but_left_chance_have_learned() -> None:
    floor = [2.3 - 0.4 * i / (N - 1) for i in range(N)]  # of wrong labels
    assert diagnose_runs([_run(0, floor), _stuck(1)]).never_learned == 0.5


def test_runs_that_never_moved_never_learned_though_they_fell_beyond_their_noise() -> None:
    val = [0.705 - 0.008 * (1 - (1 - i / (N - 1)) ** 3) for i in range(N)]
    curve = LossCurve(tuple(EpochLog(i, 0.1, x, x) for i, x in enumerate(val)), n_epochs=N)
    found = diagnose_runs([Run(i, "complete", {"lr": 1e-4}, val[-1], curve=curve) for i in range(3)])
    assert (found.never_learned, found.verdicts) == (1, {})


@pytest.mark.parametrize(("last", "at_best"), [(-0.9, True), (-0.7, False)])
def test_a_metric_at_its_best_is_set_against_a_loss_that_overfits(last: float, at_best: bool) -> None:
    reports = (*(-0.1 - 0.8 * i / (N - 2) for i in range(N - 1)), last)
    runs = [_run(i, OVERFIT, SHRINKING, loss=last + i, reports=reports) for i in range(3)]
    advice = diagnose_runs([*runs, _run(9, FALLING, loss=-2.0)]).advice
    assert [("The study's metric is at its best" in one) for one in advice] == [False, at_best]
    alone = diagnose_runs(runs).best_diagnosis
    assert alone is not None
    assert ("The study's metric is at its best" in alone.advice) == at_best
    losses = diagnose_runs([_run(0, OVERFIT, SHRINKING, reports=tuple(OVERFIT))]).best_diagnosis
    assert losses is not None
    assert "metric" not in losses.advice


@pytest.mark.parametrize("reports", [(-0.1,) * N, (-0.5,), tuple(SHRINKING)], ids=["constant", "one", "training loss"])
def test_a_metric_that_never_moved_or_is_the_training_loss_excuses_no_overfitting(reports: tuple[float, ...]) -> None:
    found = diagnose_runs([_run(0, OVERFIT, SHRINKING, reports=reports)]).best_diagnosis
    assert found is not None
    assert (found.verdict, "metric" in found.advice) == (Verdict.OVERFITTING, False)


def test_runs_that_levelled_off_as_the_rate_ran_out_are_counted() -> None:
    val = [0.5 + 0.5 * math.exp(-8 * i / 23) for i in range(24)]
    logs = tuple(EpochLog(i, 0.1 * (1 - i / 23.01), x, x) for i, x in enumerate(val))
    curve = LossCurve(logs, n_epochs=24)
    short = [Run(i, "complete", {"lr": 0.1}, 1.0, curve=curve) for i in range(3)]
    advice = diagnose_runs([*short, _run(9, FALLING, loss=0.1)]).advice
    assert advice[1].startswith("3 of 4 runs that learned look horizontal. The validation loss has levelled off as the")
    assert len(diagnose_runs(short).advice) == 1  # that of the best run


def test_what_most_runs_show_is_said_beside_the_best() -> None:
    overfit = [_run(i, [3 + x for x in OVERFIT], SHRINKING) for i in (1, 2, 3)]
    found = diagnose_runs([_run(0, FALLING), *overfit])
    assert found.verdicts == {Verdict.UNDERFITTING: 1, Verdict.OVERFITTING: 3}
    assert found.advice[1].startswith("3 of 4 runs that learned look overfitting. ")


def test_a_running_study_says_that_it_needs_more() -> None:
    found = diagnose_runs([_run(0, [2.0, 1.0], state="running", loss=None)])
    assert found.advice == ("No run is complete yet: run more trials.",)
    assert found.best is None
    assert found.verdicts == {}


def test_no_run_is_compared_with_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[object] = []
    monkeypatch.setattr(Run, "__eq__", lambda self, other: bool(compared.append(other)))
    diagnose_runs([*(_run(i, FALLING) for i in range(9)), *(_fell(i) for i in range(9, 18))])
    assert not compared  # every curve of thousands with every broken one takes minutes


def test_a_curve_is_diagnosed_once_however_often_its_study_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[LossCurve] = []
    monkeypatch.setattr(diagnosis, "diagnose", lambda curve: read.append(curve) or diagnose(curve))
    for _ in range(3):  # as each report and each pass of the dashboard builds its curves anew
        diagnose_runs([_run(i, [x + (i + 1) / 7 for x in FALLING]) for i in range(4)])
    assert len(read) == 4


def test_runs_without_reports_are_refused() -> None:
    with pytest.raises(DisciplineError, match=r"none of 1 did: report them through TrialReporter"):
        diagnose_runs([Run(0, "complete", {}, 1.0)])


def test_short_runs_are_said_to_be_short() -> None:
    curve = LossCurve(tuple(EpochLog(i, 0.1, 1 - 0.1 * i, 1 - 0.1 * i) for i in range(3)), n_epochs=3)
    found = diagnose_runs([Run(0, "complete", {"lr": 0.1}, 0.8, curve=curve)])
    assert found.advice == ("The runs are too short to be read: report at least 4 epochs.",)


def test_runs_without_a_validation_loss_are_not_called_short() -> None:
    curve = LossCurve(tuple(EpochLog(i, 0.1, None, None) for i in range(N)), n_epochs=N)
    found = diagnose_runs([Run(0, "complete", {"lr": 0.1}, 0.8, curve=curve)])
    assert found.advice == (
        "The runs reported no validation loss, by which a curve is read: report `val_loss`, and `train_loss` "
        "beside it.",
    )
