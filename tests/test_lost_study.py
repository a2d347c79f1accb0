from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import InMemoryStorage
from optuna.storages import JournalStorage
from optuna.storages import RDBStorage
from optuna.storages.journal import JournalFileBackend

from optuna_discipline import DisciplineError
from optuna_discipline import diagnose_study
from optuna_discipline import plot_cost
from optuna_discipline import plot_loss_curve
from optuna_discipline import plot_range_test
from optuna_discipline import plot_recipe
from optuna_discipline import plot_schedule
from optuna_discipline.lost_study import naming_a_lost_study


@pytest.mark.parametrize(
    "storage",
    [
        lambda folder: InMemoryStorage(),
        lambda folder: RDBStorage(f"sqlite:///{folder / 'study.db'}"),
        lambda folder: f"sqlite:///{folder / 'study.db'}",  # with Optuna's cache
        lambda folder: JournalStorage(JournalFileBackend(str(folder / "study.log"))),
    ],
    ids=["memory", "sqlite", "cached", "journal"],
)
def test_a_study_that_is_gone_is_named_on_every_storage(storage: Callable[[Path], Any], tmp_path: Path) -> None:
    study = optuna.create_study(study_name="mine", storage=storage(tmp_path))
    study.add_trial(optuna.create_trial(value=1.0))
    assert len(study.trials) == 1
    study._storage.delete_study(study._study_id)
    with (
        pytest.raises(DisciplineError, match=r"'mine' is no longer in its storage: .* Load it by its new name"),
        naming_a_lost_study(study),
    ):
        study.get_trials()


def test_any_other_error_stays_as_it_is() -> None:
    study = optuna.create_study()
    with pytest.raises(KeyError, match="of the user's objective"), naming_a_lost_study(study):
        raise KeyError("of the user's objective")


@pytest.mark.parametrize(
    "read", [diagnose_study, plot_cost, plot_loss_curve, plot_range_test, plot_recipe, plot_schedule]
)
def test_whatever_reads_a_study_that_is_gone_says_so(read: Callable[[optuna.Study], Any]) -> None:
    if read is not diagnose_study:
        pytest.importorskip("plotly")
    study = optuna.create_study(study_name="mine")
    study._storage.delete_study(study._study_id)
    with pytest.raises(DisciplineError, match=r"'mine' is no longer in its storage: .* Load it by its new name"):
        read(study)
