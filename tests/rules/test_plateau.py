import csv
import gzip
import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optuna_discipline import EpochLog
from optuna_discipline import LossCurve
from optuna_discipline.rules.plateau import has_plateaued
from optuna_discipline.rules.plateau import is_restart_point

PANELS = Path(os.environ.get("OPTUNA_DISCIPLINE_DATA", "")) / "smith" / "paper_figures_digitised.csv.gz"


def _curve(losses: list[float], n_epochs: int = 20, n_classes: int | None = None) -> LossCurve:
    return LossCurve(tuple(EpochLog(i, 1.0, x, x) for i, x in enumerate(losses)), n_epochs, n_classes)


def _first(losses: list[float], n_epochs: int, n_classes: int | None = None) -> int | None:
    """Return after how many epochs the run is saved."""
    points = range(1, len(losses) + 1)
    return next((n for n in points if is_restart_point(_curve(losses[:n], n_epochs, n_classes))), None)


@pytest.mark.skipif(not PANELS.is_file(), reason="the digitised figures are not in OPTUNA_DISCIPLINE_DATA/smith")
@pytest.mark.parametrize("n_reports", [30, 90, 158])
def test_the_papers_figure_12a_plateaus_where_its_author_restarted(n_reports: int) -> None:
    with gzip.open(PANELS, "rt", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["figure"] == "12a"]
    points = [(float(row["x"]), float(row["y"])) for row in rows if row["curve"] == "WD=1e-3"]
    restart = min(float(row["x"]) for row in rows if row["curve"] == "WD=1e-2")  # 0.0033 of 0.0014 to 0.01
    points = [points[i] for i in np.linspace(0, len(points) - 1, n_reports).round().astype(int)]
    found = _first([loss for _, loss in points], n_reports)
    assert found is not None
    assert restart < points[found - 1][0] < 1.3 * restart


def test_a_loss_that_still_falls_has_no_plateau_and_is_saved_in_the_middle() -> None:
    falling = [2.0 - 0.09 * i for i in range(20)]
    assert not any(has_plateaued(_curve(falling[:n])) for n in range(1, 21))
    assert _first(falling, 20) == 10


def test_the_first_plateau_from_a_quarter_on_counts() -> None:
    assert _first([2.3, 0.5] + [0.4] * 18, 20) == 6
    assert _first([2.0 - 0.2 * i for i in range(6)] + [1.0] * 14, 20) == 9


def test_every_epoch_from_the_middle_to_the_last_but_one_is_a_restart_point() -> None:
    falling = [2.0 - 0.09 * i for i in range(20)]
    assert [n for n in range(1, 21) if is_restart_point(_curve(falling[:n]))] == list(range(10, 20))


def test_a_run_that_never_left_chance_has_not_plateaued_before_the_middle() -> None:
    assert _first([math.log(10)] * 20, 20, n_classes=10) == 10


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_diverged_run_is_not_saved(bad: float) -> None:
    assert _first([2.0, 1.0, 0.9, bad], 4) == 2  # in the middle, while it was sound
    assert not is_restart_point(_curve([2.0, 1.0, 0.9, bad], 6))


def test_the_end_of_a_run_is_no_place_to_restart_from() -> None:
    assert not is_restart_point(_curve([1.0] * 20, 20))
    assert not is_restart_point(_curve([], 20))


@given(st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=30), st.floats(1e-3, 1e3))
def test_the_unit_of_the_loss_does_not_matter(losses: list[float], unit: float) -> None:
    scaled = [loss * unit for loss in losses]
    assert has_plateaued(_curve(losses, 30)) == has_plateaued(_curve(scaled, 30)) or min(losses) == max(losses)
