"""What one process shows of a `DistributedTrial`; what two do is in `test_torch_distributed.py`."""

import optuna
import pytest

from optuna_discipline import DisciplineError
from optuna_discipline import DistributedTrial
from optuna_discipline.integrations import distributed_trial

torch = pytest.importorskip("torch")


class OneRank:
    """`torch.distributed` of a process that is alone."""

    def get_rank(self, group: None) -> int:
        return 0

    def get_world_size(self, group: None) -> int:
        return 1

    def all_gather_object(self, box: list[object], message: object, group: None) -> None:
        box[0] = message


def test_without_a_process_group_there_is_no_trial() -> None:
    with pytest.raises(DisciplineError, match="has joined no others: start all by torchrun"):
        DistributedTrial(None)


def test_what_the_first_rank_alone_has_is_asked_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed_trial, "joined_ranks", OneRank)
    study = optuna.create_study(study_name="mine")
    trial = DistributedTrial(study.ask())
    for name in ("study", "relative_params", "_trial_id"):
        with pytest.raises(AttributeError, match=rf"has no '{name}': ask rank 0's .* `trial\.on_first_rank\(lambda"):
            getattr(trial, name)
    assert trial.on_first_rank(lambda live: live.study.study_name) == "mine"
