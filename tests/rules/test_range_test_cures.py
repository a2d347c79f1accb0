from typing import Any

import numpy as np
import pytest

from optuna_discipline import RangeTest
from optuna_discipline.rules.range_test_cures import cannot_validate
from optuna_discipline.rules.range_test_cures import go_farther
from optuna_discipline.rules.range_test_cures import more_below


def _test(lrs: Any, stop_reason: str = "diverged", **settings: Any) -> RangeTest:
    return RangeTest(lrs, np.ones(len(lrs)), None, stop_reason, settings=settings)


def test_where_the_data_ended_more_data_is_the_cure() -> None:
    assert go_farther(_test([0.1], "no more data"), "raise `end_lr`").startswith("the data ended there: give more")
    assert go_farther(_test([0.1], "end of range"), "raise `end_lr`") == "raise `end_lr`"


@pytest.mark.parametrize(
    ("lrs", "settings", "knob"),
    [
        (np.linspace(1e-5, 10, 40), {}, "end_lr"),
        (np.linspace(1e-5, 10, 2), {"sweep": "linear"}, "end_lr"),
        (np.linspace(5, 10, 40), {"sweep": "linear"}, "start_lr"),  # its steps are small
        (np.geomspace(1e-5, 10, 40), {}, "start_lr"),
        (np.geomspace(1e-5, 10, 2), {}, "start_lr"),
    ],
)
def test_a_linear_sweep_whose_steps_are_large_gets_more_points_below_by_a_lower_end(
    lrs: Any, settings: Any, knob: str
) -> None:
    assert more_below(float(lrs[0]), _test(lrs, **settings)) == f"lower `{knob}`"
    assert more_below(float(lrs[0]), _test(lrs, **settings), val_every=True) == f"lower `{knob}` or `val_every`"


@pytest.mark.parametrize(
    ("train", "val", "initial", "fault"),
    [
        ([2.0, 2.0], [np.nan, np.nan], np.nan, True),
        ([2.0, 2.0], [np.nan, np.inf], np.inf, True),
        ([np.nan, 2.0], [np.nan, np.nan], np.nan, False),  # nothing can be computed
        ([2.0, 2.0], [np.nan, 1.0], np.nan, False),
        ([2.0, 2.0], [np.nan, np.nan], 2.0, False),
        ([2.0, 2.0], [np.nan, np.nan], None, False),
        ([2.0, 2.0], None, np.nan, False),
        ([], [], np.nan, False),
    ],
)
def test_the_validation_is_at_fault_where_only_its_loss_never_was_a_number(
    train: Any, val: Any, initial: Any, fault: bool
) -> None:
    lrs = np.geomspace(1e-3, 1.0, 2)[: len(train)]
    assert cannot_validate(RangeTest(lrs, train, val, "non-finite loss", initial)) is fault
