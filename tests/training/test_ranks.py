"""Without ranks; with two of them see tests/integrations/test_torch_distributed.py."""

import pytest
import torch
from torch import nn

from optuna_discipline.exceptions import DisciplineError
from optuna_discipline.training.ranks import check_equal_batches
from optuna_discipline.training.ranks import compiled_from
from optuna_discipline.training.ranks import joined_ranks
from optuna_discipline.training.ranks import of_each_rank
from optuna_discipline.training.ranks import over_ranks
from optuna_discipline.training.ranks import without_ranks


def test_a_model_of_one_process_is_left_alone() -> None:
    model, sums = nn.Linear(1, 1), torch.tensor([1.0, 2.0])
    assert over_ranks(model, sums, 3) == (sums, 3)
    assert over_ranks(model, sums, 3)[0] is sums
    assert of_each_rank(model, 7, torch.device("cpu")) == [7]
    check_equal_batches(model, 7, torch.device("cpu"))
    assert without_ranks(model) is model
    compiled = nn.Identity()
    compiled._orig_mod = model  # as torch.compile does
    assert compiled_from(compiled) is model
    assert without_ranks(compiled) is compiled


def test_a_process_that_has_joined_no_others_is_told_how_to() -> None:
    with pytest.raises(DisciplineError, match=r"start all by torchrun, and call .*init_process_group\(\) first"):
        joined_ranks()
