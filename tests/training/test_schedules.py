import warnings
from types import SimpleNamespace

import pytest

pytest.importorskip("torch")

from optuna_discipline import OneCycle
from optuna_discipline.training.schedules import as_schedule
from optuna_discipline.training.schedules import plan_epochs

CYCLE = OneCycle(0.1, 12)


def test_any_object_with_three_names_is_a_schedule() -> None:
    own = SimpleNamespace(total_steps=6, lr=lambda step: 0.1, momentum=lambda step: 0.9)
    assert as_schedule(own) is own
    for wrong in (None, 0.1, SimpleNamespace(total_steps=6, lr=lambda step: 0.1)):
        with pytest.raises(ValueError, match=r"`schedule` must have lr\(step\), momentum\(step\) and total_steps"):
            as_schedule(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(("per_epoch", "asked", "planned"), [(4, None, 3), (5, None, 3), (4, 3, 3), (None, 7, 7)])
def test_a_run_has_the_epochs_that_are_asked_for_or_those_of_its_schedule(
    per_epoch: int | None, asked: int | None, planned: int
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert plan_epochs(per_epoch, CYCLE, asked) == planned
