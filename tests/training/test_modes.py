from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from optuna_discipline.rules.schedule import OneCycle
from optuna_discipline.training.evaluation import evaluate
from optuna_discipline.training.find_lr import find_lr
from optuna_discipline.training.loop import train_epochs
from optuna_discipline.training.lr_range_test import lr_range_test
from optuna_discipline.training.modes import keep_modes
from optuna_discipline.training.modes import modes_of
from optuna_discipline.training.modes import set_modes
from optuna_discipline.training.modes import start_training
from optuna_discipline.training.sized_step import SizedStep

X = torch.randn(24, 3, generator=torch.Generator().manual_seed(0)) + 5
DATA = (X, X.sum(dim=1, keepdim=True))
LOSS = nn.MSELoss()


class FrozenNorm(nn.Module):
    """Keeps its BatchNorm in eval mode by its own `train()`, as detectors do."""

    def __init__(self, seen: set[tuple[bool, bool]] | None = None) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.1))
        self.head = nn.Linear(3, 1)
        # whether the model and its norm were in train mode; a set of the model's own would be given back as it was
        self.saw = (set() if seen is None else seen).add

    def train(self, mode: bool = True) -> "FrozenNorm":
        super().train(mode)
        self.body[0].eval()
        return self

    def forward(self, x: torch.Tensor) -> Any:
        self.saw((self.training, self.body[0].training))
        return self.head(self.body(x))


class Folding(nn.Linear):
    """Folds a trained part into its weight in `eval()`, where it has no gradient, and takes it out in `train()`."""

    def __init__(self) -> None:
        super().__init__(3, 1)
        self.weight.requires_grad_(False)
        self.part = nn.Parameter(torch.zeros(1, 3))
        self.folded = False

    def train(self, mode: bool = True) -> "Folding":
        super().train(mode)
        if self.folded == mode:
            self.weight.data += -self.part.data if mode else self.part.data
            self.folded = not mode
        return self

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.weight if self.folded else self.weight + self.part
        return nn.functional.linear(x, weight, self.bias)


@pytest.mark.parametrize("use", ["train_epochs", "sized_step", "lr_range_test", "find_lr"])
def test_what_a_new_models_own_train_freezes_is_frozen(use: str) -> None:
    seen: set[tuple[bool, bool]] = set()
    model = FrozenNorm(seen)
    if use == "train_epochs":
        list(train_epochs(model, LOSS, DATA, DATA, OneCycle(1e-3, 9), batch_size=8, seed=0))
    elif use == "sized_step":
        SizedStep.of(model, DATA, LOSS, "sgd", None, False, None, None).run(4)
    elif use == "lr_range_test":
        lr_range_test(model, LOSS, DATA, DATA, num_steps=9, batch_size=8, seed=0)
    else:
        find_lr(lambda: FrozenNorm(seen), LOSS, DATA, DATA, epochs=8, batch_size=8, seed=0)
    assert (True, False) in seen
    assert not any(norm for _, norm in seen)
    assert model.body[0].num_batches_tracked == 0


def test_a_part_that_eval_folds_away_trains_in_every_epoch() -> None:
    model = Folding()
    parts = []
    for _ in train_epochs(model, LOSS, DATA, DATA, OneCycle(1e-3, 9), batch_size=8, seed=0):
        parts.append(model.part.detach().clone())
        model.eval()  # the caller tests it, too
    assert not torch.equal(parts[1], parts[0])
    assert not torch.equal(parts[2], parts[1])
    assert not model.folded


def test_a_training_is_saved_in_train_mode_also_if_the_caller_tested_it() -> None:
    model = Folding()
    folded: list[bool] = []
    snapshots = SimpleNamespace(
        load=lambda: None,
        went_on=lambda state: None,
        is_wanted=lambda logs, n: True,
        save=lambda state: folded.append(model.folded),
    )
    for _ in train_epochs(model, LOSS, DATA, None, OneCycle(1e-3, 9), batch_size=8, seed=0, snapshots=snapshots):
        model.eval()
    assert folded == [False, False]


def test_folded_weights_come_back_after_an_evaluation_and_a_range_test() -> None:
    for mode in (True, False):
        model = Folding()
        model.part.data.fill_(0.5)
        model.train(mode)
        before, expected = model.weight.clone(), model(X)
        evaluate(model, [DATA], LOSS, device=torch.device("cpu"))
        lr_range_test(model, LOSS, DATA, DATA, num_steps=9, batch_size=8, seed=0)
        assert model.folded is not mode
        assert torch.allclose(model.weight, before)
        assert torch.allclose(model(X), expected)


def test_layers_frozen_by_hand_stay_so_beside_those_that_train_freezes() -> None:
    model = FrozenNorm()
    model.body[1].eval()
    start_training(model)
    assert [module.training for module in model.modules()] == [True, True, False, False, True]
    model.body.eval()
    model.body[1].train()  # in train mode within a part in eval mode
    start_training(model)
    assert [module.training for module in model.modules()] == [True, False, False, True, True]


def test_a_model_that_is_in_eval_mode_as_a_whole_is_put_into_train_mode() -> None:
    modes = start_training(FrozenNorm().eval())
    assert [training for _, training in modes] == [True, True, False, True, True]


def test_every_module_gets_its_mode_back_also_after_an_exception() -> None:
    model = FrozenNorm()
    model.head.eval()
    with pytest.raises(KeyError, match="stop"), keep_modes(model):  # noqa: PT012
        model.eval()
        raise KeyError("stop")
    assert [module.training for module in model.modules()] == [True, True, True, True, False]
    modes = modes_of(model)
    model.eval()
    set_modes(modes)
    assert modes_of(model) == modes
