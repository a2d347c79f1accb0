import csv
import functools
import gzip
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optuna_discipline import DisciplineError
from optuna_discipline import EpochLog
from optuna_discipline import LossCurve
from optuna_discipline import Run
from optuna_discipline import Verdict
from optuna_discipline import diagnose
from optuna_discipline.rules.lr_lean import LrReading
from optuna_discipline.rules.lr_lean import read_lr

N = 30
TIME = np.linspace(0, 1, N)


def _curve(train: Any, val: Any, lr: Any = None) -> LossCurve:
    lrs = np.full(len(val), 0.1) if lr is None else lr
    logs = tuple(EpochLog(i, float(lrs[i]), float(train[i]), float(val[i])) for i in range(len(val)))
    return LossCurve(logs, n_epochs=len(val))


def _noisy(values: Any, sd: float, seed: int) -> Any:
    return values * (1 + sd * np.random.default_rng(seed).standard_normal(len(values)))


FALLING, FLAT = 0.2 + 1.5 * (1 - TIME), 0.5 + np.exp(-15 * TIME)
OVERFIT = 0.5 + np.exp(-10 * TIME) + 0.6 * np.clip(TIME - 0.4, 0, None)
OVERFITTED = 0.01 + np.exp(-5 * TIME), OVERFIT


def test_pure_noise_is_no_verdict() -> None:
    values = 1 + 0.5 * np.random.default_rng(0).standard_normal(N)
    assert diagnose(_curve(np.abs(values), np.abs(values[::-1]))).verdict in (Verdict.NOISY, Verdict.HORIZONTAL)


def test_evidence_and_advice_come_with_the_verdict() -> None:
    diagnosis = diagnose(_curve(*OVERFITTED))
    assert diagnosis.evidence["val_change"] > 0 > diagnosis.evidence["train_change"]
    assert diagnosis.evidence["gap"] > 0
    assert "regularise more" in diagnosis.advice
    assert str(diagnosis.verdict) == "overfitting"


def test_the_advice_agrees_with_what_the_ladder_reads_from_the_same_curve() -> None:
    for val in ([0.4953, 1.5376, 0.4796, 0.3343], [1.0, 0.6, 0.75, 0.5, 0.4]):
        assert read_lr(Run(0, "complete", {}, val[-1], reports=tuple(val))) == LrReading("down")
        found = diagnose(_curve(val, val))
        assert (found.verdict, found.advice) == (
            Verdict.UNDERFITTING,
            "The validation loss still falls, but rose on the way: train longer, or regularise less.",
        )
    assert "raise the learning rate" in diagnose(_curve(FALLING, FALLING)).advice
    assert "learning rate" not in diagnose(_curve(*OVERFITTED)).advice
    assert "good setting" not in diagnose(_without_training_loss(FLAT)).advice


def test_both_losses_that_rise_at_a_constant_learning_rate_say_that_it_is_too_high() -> None:
    train, val = (_noisy(start + 0.1 * TIME, 0.005, seed) for start, seed in ((0.5, 0), (0.6, 1)))
    constant = diagnose(_curve(train, val))
    assert (constant.verdict, constant.advice[-19:]) == (Verdict.HIGH_LR, "too high, lower it.")
    assert "normal inside a cycle" in diagnose(_curve(train, val, 0.1 + TIME)).advice


def _without_training_loss(val: Any, lr: Any = 0.1) -> LossCurve:
    lrs = np.broadcast_to(lr, len(val))
    logs = tuple(EpochLog(i, float(lrs[i]), None, float(val[i])) for i in range(len(val)))
    return LossCurve(logs, n_epochs=len(val))


def test_without_a_training_loss_only_a_slow_rise_far_out_of_the_noise_is_overfitting() -> None:
    assert diagnose(_without_training_loss(_noisy(OVERFIT, 0.005, 0))).verdict == Verdict.OVERFITTING
    assert diagnose(_without_training_loss(_noisy(OVERFIT, 0.1, 0))).verdict != Verdict.OVERFITTING
    assert diagnose(_without_training_loss(FLAT)).verdict == Verdict.HORIZONTAL
    assert diagnose(_without_training_loss(FALLING)).verdict == Verdict.UNDERFITTING


@pytest.mark.parametrize("seed", range(20))
def test_a_flat_noisy_validation_loss_of_a_net_that_learned_all_by_heart_is_not_overfitting(seed: int) -> None:
    curve = _curve(0.001 + np.exp(-9 * TIME), _noisy(FLAT, 0.04, seed))
    assert diagnose(curve).verdict != Verdict.OVERFITTING


def test_a_net_is_dead_when_both_losses_are_back_at_chance_though_a_batch_jumps() -> None:
    train = [2.3, 1.5, 1.2, 1.0, 1.0, 0.9, 2.303, 2.30, 2.76, 1.97, 2.305]
    for val_end, verdict in ((2.32, Verdict.DIVERGED), (9.0, None)):
        val = [2.0, 1.8, 1.5, 1.4, 1.4, 1.4, 8.0, *[val_end] * 4]
        logs = tuple(EpochLog(i, 1.0, t, v) for i, (t, v) in enumerate(zip(train, val, strict=True)))
        found = diagnose(LossCurve(logs, n_epochs=60, n_classes=10))
        assert (found.verdict == Verdict.DIVERGED) == (verdict == Verdict.DIVERGED)
    never = LossCurve(tuple(EpochLog(i, 1.0, 2.303, 2.303) for i in range(20)), n_epochs=20, n_classes=10)
    assert diagnose(never).verdict == Verdict.UNDERFITTING  # it never learned


@pytest.mark.parametrize("sd", [0.0, 0.01])
@pytest.mark.parametrize("trained", [True, False])
def test_a_loss_that_never_left_chance_is_underfitting_and_no_good_end(sd: float, trained: bool) -> None:
    val = _noisy(np.full(N, 2.3026), sd, 0)
    logs = tuple(EpochLog(i, 0.1, float(x) if trained else None, float(x)) for i, x in enumerate(val))
    found = diagnose(LossCurve(logs, n_epochs=N, n_classes=10))
    assert (found.verdict, found.evidence["chance"]) == (Verdict.UNDERFITTING, pytest.approx(math.log(10)))
    assert found.advice.startswith("The loss has never left that of chance (2.3), so nothing was learned")
    assert diagnose(LossCurve(logs, n_epochs=N)).verdict == Verdict.HORIZONTAL  # of what, nobody says


@pytest.mark.parametrize(("epochs", "sd"), [(20, 0.0), (20, 0.001), (100, 0.003), (8, 0.0)])
def test_a_slow_straight_fall_to_the_last_is_underfitting(epochs: int, sd: float) -> None:
    val = _noisy(np.linspace(2.30, 2.11, epochs), sd, 0)
    assert diagnose(_curve(val, val)).verdict == Verdict.UNDERFITTING
    assert diagnose(_without_training_loss(val)).verdict == Verdict.UNDERFITTING


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("sd", [0.002, 0.01, 0.05])
def test_a_noisy_level_is_no_straight_fall(sd: float, seed: int) -> None:
    for val in (FLAT, np.full(N, 0.7), np.concatenate([[2.3], np.full(19, 0.7)])):
        noisy = _noisy(val, sd, seed)
        assert not diagnose(_curve(noisy, noisy)).evidence["falls_straight"]


@pytest.mark.parametrize("seed", [27, 32, 41, 68, 69])
def test_levels_that_fall_one_after_the_other_by_luck_are_no_straight_fall(seed: int) -> None:
    val = _noisy(np.full(12, 0.7), 0.07, seed)
    assert min(np.median(part) for part in np.split(val, 3)[:2]) > np.median(val[8:])
    assert not diagnose(_curve(val, val)).evidence["falls_straight"]


def test_a_last_epoch_that_explodes_is_a_divergence() -> None:
    val = [2.3, 1.5, 1.0, 0.9, 1e39]
    for curve in (_curve(val, val), _without_training_loss(val)):
        found = diagnose(curve)
        assert found.verdict == Verdict.DIVERGED
        assert "loss, 1e+39, is over 100 times every earlier one" in found.advice
    assert diagnose(_curve([2.3, 1.5, 1.0, 0.9, 4.0], [2.3, 1.5, 1.0, 0.9, 4.0])).verdict != Verdict.DIVERGED


@given(st.lists(st.tuples(*[st.floats(allow_nan=True, allow_infinity=True)] * 3), min_size=4, max_size=20))
def test_any_numbers_give_a_verdict_or_a_clear_refusal(rows: Any) -> None:
    curve = LossCurve(tuple(EpochLog(i, *row) for i, row in enumerate(rows)), n_epochs=20)
    try:
        verdict = diagnose(curve).verdict
    except DisciplineError:
        assert np.isfinite(curve.val_loss).sum() < 4
    else:
        assert isinstance(verdict, Verdict)


def test_a_training_loss_with_gaps_is_read_beside_them() -> None:
    train = [math.nan, 1.0, 0.8, math.inf, 0.5, math.nan, 0.4, 0.3]
    assert diagnose(_curve(train, FALLING[::4])).verdict == Verdict.UNDERFITTING
    logs = tuple(EpochLog(i, 0.1, 0.5 if i % 2 else None, float(FALLING[4 * i])) for i in range(8))
    assert diagnose(LossCurve(logs, n_epochs=8)).verdict == Verdict.UNDERFITTING


SPARSE: dict[str, Callable[[int], bool]] = {
    "every 2nd": lambda i: i % 2 == 0,
    "every 5th": lambda i: i % 5 == 0,
    "one missing": lambda i: i != 25,
    "all but the last": lambda i: i < N - 1,
    "first only": lambda i: i == 0,
    "last only": lambda i: i == N - 1,
    "none": lambda i: False,
}


def _with_training_losses(
    train: Any, val: Any, known: Callable[[int], bool], n_classes: int | None = None
) -> LossCurve:
    logs = (EpochLog(i, 0.1, float(train[i]) if known(i) else None, float(val[i])) for i in range(len(val)))
    return LossCurve(tuple(logs), n_epochs=len(val), n_classes=n_classes)


@pytest.mark.parametrize("known", SPARSE.values(), ids=SPARSE)
def test_missing_training_losses_do_not_hide_what_the_rest_shows(known: Callable[[int], bool]) -> None:
    train, val = 0.01 + np.exp(-5 * TIME), _noisy(OVERFIT, 0.005, 0)
    found = diagnose(_with_training_losses(train, val, known))
    assert found.verdict == Verdict.OVERFITTING
    assert np.isfinite(list(found.evidence.values())).all()
    assert ("train_change" in found.evidence) == (sum(map(known, range(N))) > 1)  # one says nothing
    assert "training loss" not in found.advice


def test_a_break_after_the_last_training_loss_is_seen() -> None:
    val = [1, 0.9, 0.8, 0.7, 0.6, 0.5, 1e6, 1e6]
    for n_known, n in ((5, 8), (6, 8), (6, 7)):
        curve = _with_training_losses(val, val[:n], lambda i, n_known=n_known: i < n_known)  # type: ignore[misc]
        assert diagnose(curve).verdict == Verdict.DIVERGED
    assert diagnose(_with_training_losses(val, val[:7], lambda i: i < 6)).evidence["last_loss"] == 1e6


def test_one_training_loss_at_chance_is_no_run_that_never_left_it() -> None:
    curve = _with_training_losses(np.full(N, 2.3026), FLAT, lambda i: i == 0, n_classes=10)
    assert diagnose(curve).verdict == Verdict.HORIZONTAL


def test_too_little_and_something_else_are_refused() -> None:
    with pytest.raises(DisciplineError, match=r"at least 4 epochs with a validation loss.*but holds 0"):
        diagnose(LossCurve((), n_epochs=3))
    with pytest.raises(TypeError, match="`curve` must be a LossCurve"):
        diagnose([1.0, 0.5])  # type: ignore[arg-type]
    assert diagnose(_curve([1, math.nan], [1, 1])).verdict == Verdict.DIVERGED


@functools.cache
def _rows(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _table(name: str) -> list[dict[str, str]]:
    """Return a table of the author's data, or skip."""
    path = Path(os.environ.get("OPTUNA_DISCIPLINE_DATA", "")) / "smith" / name
    if "OPTUNA_DISCIPLINE_DATA" not in os.environ or not path.is_file():
        pytest.skip(f"needs the author's logs: set OPTUNA_DISCIPLINE_DATA to a folder with smith/{name}")
    return _rows(path)


def _number(text: str) -> float | None:
    return float(text) if text else None


def _figure(
    figure: str, name: str, *, share: float = 1.0, until: float = math.inf, lr: float | None = None
) -> LossCurve:
    """Return a digitised curve of the paper up to a share of its length, or up to a learning rate."""
    rows = [row for row in _table("paper_figures_digitised.csv.gz") if row["figure"] == figure]
    points = sorted((float(row["x"]), float(row["y"])) for row in rows if row["curve"] == name)
    is_rate = next(row["x_quantity"] for row in rows) == "learning_rate"
    seen = [(x, y) for x, y in points if x <= min(until, share * points[-1][0])]
    logs = tuple(EpochLog(i, x if is_rate else lr, None, y) for i, (x, y) in enumerate(seen))
    return LossCurve(logs, n_epochs=len(points))


def _log(run: str, share: float) -> LossCurve:
    """Return one of the author's training logs up to a share of its length."""
    rows = [row for row in _table("superconvergence_logs.csv.gz") if row["run"] == run]
    seen = [row for row in rows if float(row["iteration"]) <= share * float(rows[-1]["iteration"])]
    names = ("lr", "train_loss", "test_loss")
    logs = tuple(EpochLog(i, *(_number(row[name]) for name in names)) for i, row in enumerate(seen))
    return LossCurve(logs, n_epochs=len(rows), n_classes=10)


@pytest.mark.parametrize(
    ("figure", "name", "settings", "verdict"),
    [
        ("3a", "LR=0.001", {"share": 0.25, "lr": 0.001}, Verdict.UNDERFITTING),
        ("3a", "LR=0.0055", {"share": 0.25, "lr": 0.0055}, Verdict.HORIZONTAL),
        ("4a", "WD=1e-4", {"share": 0.5}, Verdict.OVERFITTING),
        ("4a", "WD=1e-4", {"share": 0.75}, Verdict.OVERFITTING),
        ("4a", "WD=1e-4", {}, Verdict.OVERFITTING),
        ("4a", "WD=1e-2", {"until": 0.0053}, Verdict.DIVERGED),
        ("4a", "WD=1e-2", {"until": 0.00535}, Verdict.DIVERGED),
        ("4a", "WD=1e-2", {"until": 0.0055}, Verdict.DIVERGED),
        ("4a", "WD=1e-2", {"until": 0.007}, Verdict.DIVERGED),
        ("4a", "WD=1e-2", {}, Verdict.DIVERGED),
        ("4b", "CLR=0.05-1 WD=1e-7 CM=0.95-0.85", {}, Verdict.OVERFITTING),
        ("9a", "WD=1e-3", {"share": 0.5, "lr": 0.005}, Verdict.OVERFITTING),
        ("9a", "WD=3.2e-3", {"share": 0.5, "lr": 0.005}, Verdict.HORIZONTAL),
    ],
)
def test_the_papers_figures_are_read_as_the_paper_reads_them(
    figure: str, name: str, settings: Any, verdict: Verdict
) -> None:
    assert diagnose(_figure(figure, name, **settings)).verdict == verdict


def test_a_divergence_of_figure_4a_is_never_called_overfitting() -> None:
    for step in range(10, 101):
        assert diagnose(_figure("4a", "WD=1e-2", share=step / 100)).verdict != Verdict.OVERFITTING


@pytest.mark.parametrize(
    ("run", "shares", "verdict"),
    [
        ("clr3SS5kWD-6Fig11", (0.5, 0.75, 1.0), Verdict.OVERFITTING),
        ("clr3SS5kWD-3Fig11", (0.55, 0.6, 0.65, 0.7, 0.8, 0.9, 1.0), Verdict.DIVERGED),
    ],
)
def test_the_authors_logs_are_read_as_they_ended(run: str, shares: tuple[float, ...], verdict: Verdict) -> None:
    assert [diagnose(_log(run, share)).verdict for share in shares] == [verdict] * len(shares)


def test_alarming_stretches_of_the_authors_good_runs_are_not_condemned() -> None:
    cycle = {diagnose(_log("clr3SS5kFig1a", step / 100)).verdict for step in range(25, 61, 5)}
    assert not cycle & {Verdict.OVERFITTING, Verdict.DIVERGED}
    few = {diagnose(_log("lr35Tr10kTab1", step / 80)).verdict for step in range(5, 51, 5)}
    assert Verdict.DIVERGED not in few


def test_a_validation_loss_that_rises_beside_a_training_loss_that_stands_is_overfitting() -> None:
    val = [1, 0.6, 0.4, 0.3, 0.25, *(0.25 + 0.03 * i for i in range(1, 16))]
    for train in ([1, 0.6, 0.4, 0.3] + [0.2] * 16, [1, 0.6, 0.4, 0.3, *(0.2 - 0.002 * i for i in range(16))]):
        logs = tuple(EpochLog(i, 0.1, train[i], val[i]) for i in range(20))
        assert diagnose(LossCurve(logs, n_epochs=20)).verdict == Verdict.OVERFITTING


BURSTS = [
    ([0.47, 2.36, 0.54, 0.90], [0.60, 0.92, 1.40, 0.55]),
    ([0.5, 1.5, 1.2, 1.0], [0.6, 1.4, 1.3, 1.1]),
    ([0.47, 2.36, 2.0, 1.5, 1.2, 1.0, 0.95, 0.90], [0.6, 2.4, 2.1, 1.5, 1.2, 1.0, 0.9, 0.9]),
    ([0.47, 2.36, 2.0, 1.5, 0.9, 0.9, 0.9, 0.9, 0.9], [0.6, 2.4, 2.1, 1.5, 0.9, 0.9, 0.9, 0.9, 0.9]),
]


@pytest.mark.parametrize(("val", "train"), BURSTS)
def test_a_burst_that_has_not_come_back_to_its_start_says_that_the_learning_rate_is_too_high(
    val: list[float], train: list[float]
) -> None:
    for curve in (_curve(train, val), _without_training_loss(val)):
        found = diagnose(curve)
        assert found.verdict == Verdict.HIGH_LR
        assert found.advice.startswith("The loss rose far above its first value and has not come back")
    assert diagnose(_curve(train, [*val[:-1], 0.4])).verdict != Verdict.HIGH_LR


def test_a_loss_that_ends_above_its_first_value_does_not_still_fall() -> None:
    for val in ([1.0, 1.3, 1.2, 1.1], [0.5, 1.5, 1.2, 1.0]):  # a validation loss may burst beside a healthy training
        assert diagnose(_curve([1.0, 0.9, 0.9, 0.8], val)).verdict == Verdict.NOISY


BY_ORDERS = {
    "plateau, then halves": [40.0] * 11 + [40 * 0.5**i for i in range(1, 10)],
    "a tenth in three epochs": [100 * 10 ** (-i / 3) for i in range(20)],
    "one cycle": [44.5, 22.4, 2.24, 0.693, 0.211, 0.0548, 0.0133, 0.0028, 0.00221, 0.00221],
}


@pytest.mark.parametrize("val", BY_ORDERS.values(), ids=BY_ORDERS)
def test_a_loss_that_falls_by_orders_to_the_last_is_underfitting(val: list[float]) -> None:
    for curve in (_curve(val, val), _without_training_loss(val)):
        assert diagnose(curve).verdict == Verdict.UNDERFITTING


@pytest.mark.parametrize("seed", range(10))
def test_a_loss_that_has_fallen_by_orders_may_level_off(seed: int) -> None:
    fallen = np.array([100 * 10 ** (-i / 3) for i in range(12)] + [0.02] * 12)
    assert diagnose(_without_training_loss(_noisy(fallen, 0.01, seed))).verdict == Verdict.HORIZONTAL


TOO_HIGH = {  # constant rates of a small net: momentum .99 at .2 and .1, .97 at .3
    "both rise": (
        [0.50, 0.91, 0.89, 0.71, 0.97, 0.74, 1.30, 1.25, 1.45, 1.35, 1.64, 1.73],
        [1.62, 0.56, 0.59, 0.54, 0.37, 0.54, 0.43, 0.43, 0.66, 0.69, 0.67, 0.91],
    ),
    "training stands": (
        [1.03, 0.44, 0.69, 0.74, 0.68, 0.49, 0.83, 0.81, 1.34, 1.08, 0.99, 0.90],
        [1.99, 0.46, 0.33, 0.49, 0.49, 0.34, 0.33, 0.47, 0.34, 0.40, 0.37, 0.40],
    ),
    "training rises late": (
        [0.42, 0.28, 0.33, 0.28, 0.40, 0.73, 0.38, 0.35, 0.36, 0.42, 0.45, 0.51],
        [1.38, 0.37, 0.20, 0.18, 0.14, 0.16, 0.18, 0.13, 0.20, 0.18, 0.23, 0.41],
    ),
}


@pytest.mark.parametrize(("val", "train"), TOO_HIGH.values(), ids=TOO_HIGH)
def test_a_loss_that_jumps_about_far_above_its_best_says_that_the_learning_rate_is_too_high(
    val: list[float], train: list[float]
) -> None:
    found = diagnose(_curve(train, val))
    assert (found.verdict, found.advice) == (
        Verdict.HIGH_LR,
        "The loss jumps about far above its best: the learning rate or the momentum is too high, lower it.",
    )
    assert "normal inside a cycle" in diagnose(_curve(train, val, 0.1 + np.arange(12))).advice
    falling = _curve(train, val, 1 / np.arange(1, 13))
    assert diagnose(falling).verdict == Verdict.HIGH_LR
    assert diagnose(_curve(np.geomspace(2, 0.1, 12), val)).verdict != Verdict.HIGH_LR  # that is overfitting


@pytest.mark.parametrize("name", ["both rise", "training stands"])
def test_a_loss_that_jumps_about_while_the_learning_rate_still_comes_down_is_no_verdict_yet(name: str) -> None:
    val, train = TOO_HIGH[name]
    half = diagnose(LossCurve(_curve(train, val, 1 / np.arange(1, 13)).logs, n_epochs=24))
    assert half.verdict in (Verdict.HORIZONTAL, Verdict.NOISY)
    assert half.evidence["stays_above_best"]  # evidence is what was measured


@pytest.mark.parametrize(("epochs", "most"), [(4, 0), (6, 0), (8, 0), (10, 5), (12, 5), (14, 5), (30, 5)])
@pytest.mark.parametrize("sd", [0.2, 0.3, 0.5])
def test_noise_alone_hardly_ever_says_that_the_learning_rate_is_too_high(epochs: int, most: int, sd: float) -> None:
    noise = np.abs(1 + sd * np.random.default_rng(0).standard_normal((100, 2, epochs)))
    assert sum(diagnose(_curve(*losses)).evidence.get("stays_above_best", 0) for losses in noise) <= most


BENDING = {
    "halves": [0.5**i for i in range(5)],
    "to a level": [2 * 0.3**i + 0.1 for i in range(5)],
    "squares": [1 / (i + 1) ** 2 for i in range(5)],
    "exponential": [math.exp(-i) + 0.05 for i in range(5)],
    "one cycle": [0.87, 0.27, 0.19, 0.17, 0.12, 0.11],
}


@pytest.mark.parametrize("val", BENDING.values(), ids=BENDING)
def test_a_short_fall_that_bends_is_no_noise(val: list[float]) -> None:
    for curve in (_curve(val, val), _without_training_loss(val)):
        assert diagnose(curve).verdict == Verdict.UNDERFITTING


@pytest.mark.parametrize("rise", [0, 1e-9, 1e-6, 1e-4])
def test_what_hardly_rises_within_a_fall_changes_nothing(rise: float) -> None:
    val = [1, 0.5, 0.25, 0.25 + rise, 0.125, 0.0625]
    assert diagnose(_curve(val, val)).verdict == Verdict.UNDERFITTING


@pytest.mark.parametrize(("falls", "verdict"), [(True, Verdict.HORIZONTAL), (False, Verdict.NOISY)])
def test_noise_that_is_gone_at_the_end_of_a_cycle_is_no_verdict(falls: bool, verdict: Verdict) -> None:
    spread = np.where(TIME < 0.8, 0.3, 0.01)
    val, lr = 1 + spread * np.tile([1, 0, -1], N // 3), 1 - 0.9 * TIME if falls else np.full(N, 0.1)
    assert diagnose(_curve(np.ones(N), val, lr)).verdict == verdict


def test_a_short_curve_that_has_levelled_off_is_not_noisy() -> None:
    for val in ([0.76, 0.50, 0.22, 0.21, 0.127, 0.125], [0.67, 0.54, 0.20, 0.127, 0.14]):
        assert diagnose(_curve(val, val)).verdict == Verdict.HORIZONTAL
    assert diagnose(_curve([1.0, 0.6, 0.3, 0.6, 0.3], [1.0, 0.6, 0.3, 0.6, 0.3])).verdict == Verdict.NOISY


@pytest.mark.parametrize(("n_classes", "end", "named"), [(None, 2.3, True), (4, 2.3, False), (None, 0.8, False)])
def test_where_a_loss_levels_off_far_above_its_best_the_number_of_classes_is_asked_for(
    n_classes: int | None, end: float, named: bool
) -> None:
    train = [2.6, 1.2, 0.8, *[end] * 17]
    logs = tuple(EpochLog(i, 0.1, loss, loss + 0.5) for i, loss in enumerate(train))
    assert ("give `n_classes`" in diagnose(LossCurve(logs, 20, n_classes)).advice) is named
