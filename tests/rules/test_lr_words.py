import pytest

from optuna_discipline.rules.lr_lean import LrReading
from optuna_discipline.rules.lr_lean import read_lr
from optuna_discipline.rules.lr_words import describe_curve
from optuna_discipline.rules.run import Run


@pytest.mark.parametrize(
    ("reports", "reading", "words"),
    [
        ((2.3, 1.9, 2.8, 2.29), LrReading("down", far=True), "got worse and ended hardly better than it began"),
        ((0.69, 0.96, 1.88, 4.17), LrReading("down", far=True), "got worse and ended worse than it began"),
        ((0.3964, 0.6036, 0.3964, 0.3964), LrReading("down", far=True), "got worse and ended where it began"),
        ((2.0, 1.0, 1.5, 0.6), LrReading("down"), "got worse on the way"),
        ((9110.0, 2310.0, 2320.0, 2309.0, 2308.0), LrReading("down"), "fell at once and then stood still"),
        ((-0.412, -0.588, -0.588, -0.588), LrReading("down"), "fell at once and then stood still"),
        ((0.9, 0.31, 0.3, 0.29, 0.28), LrReading("up"), "never got clearly worse"),  # it learns on
        ((1.091, 1.098, 1.107, 1.105), LrReading("up", far=True), "ended worse than it began"),
        ((2.3026, 2.303, 2.3026), LrReading("up", far=True), "ended where it began"),
        ((2.303, 2.302, 2.301), LrReading("up", far=True), "ended hardly better than it began"),
        ((2.3, 2.2, 2.0, 1.8), LrReading("up", far=True), "kept over half of its first report"),
        ((2.0, 1.0, 0.6, 0.5), LrReading("up"), "never got clearly worse"),
        ((-5.01234, -5.03179, -5.37461), LrReading("up"), "never got clearly worse"),  # a score without a known top
    ],
)
def test_what_a_curve_shows_is_true_of_it(reports: tuple[float, ...], reading: LrReading, words: str) -> None:
    run = Run(0, "complete", {}, reports[-1], reports=reports)
    assert read_lr(run) == reading
    assert describe_curve(run, reading) == words


@pytest.mark.parametrize(("times", "sign", "top"), [(1, -1.0, "1"), (1, 1.0, "-1"), (100, -1.0, "100")])
def test_of_a_maximised_share_it_says_what_was_missing(times: float, sign: float, top: str) -> None:
    run = Run(0, "complete", {}, -0.3 * times, reports=tuple(-x * times for x in (0.1, 0.15, 0.2, 0.3)))
    reading = read_lr(run)
    assert reading == LrReading("up", far=True)
    assert describe_curve(run, reading, sign=sign) == f"kept over half of what was missing to {top} at first"
