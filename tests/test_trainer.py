from typing import Any

import optuna
import pytest

from optuna_discipline.trainer import Trainer

torch = pytest.importorskip("torch")
nn = torch.nn

X = torch.randn(65, 3, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()
SPACE = {
    "lr": (1e-3, 1.0),
    "momentum": (0.8, 0.99),
    "weight_decay": (1e-6, 1e-2),
    "batch_size": (16, 32),
    "epochs": (1, 2),
}
CHOICE = {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-4, "batch_size": 16, "epochs": 2}


def _trainer(**changes: Any) -> Trainer:
    settings: dict[str, Any] = {
        "build_model": lambda: nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2)),
        "train": (X, Y),
        "val": (X, Y),
        "loss_fn": None,
        "metric": "val_loss",
        "optimizer": "sgd",
        "epochs": 2,
        "device": "cpu",
        "seed": 0,
        "options": {},
        "space": SPACE,
    }
    return Trainer(**{**settings, **changes}).checked()


def test_the_loss_and_the_classes_follow_the_targets() -> None:
    assert (_trainer().loss_fn, _trainer().n_classes) == (nn.functional.cross_entropy, 2)
    regression = _trainer(build_model=lambda: nn.Linear(3, 1), train=(X, X[:, :1]), val=(X, X[:, :1]))
    assert (regression.loss_fn, regression.n_classes) == (nn.functional.mse_loss, None)
    lone = _trainer(build_model=lambda: nn.Linear(3, 3), train=X, val=(X,))
    assert (lone.loss_fn, lone.n_classes) == (nn.functional.mse_loss, None)


def test_several_labels_without_a_loss_are_warned_of_unless_a_step_may_compare_them() -> None:
    data = {"train": (X, (X > 0).float()), "val": (X, (X > 0).float()), "build_model": lambda: nn.Linear(3, 3)}
    with pytest.warns(UserWarning, match="All targets are 0 or 1"):
        _trainer(**data)
    _trainer(**data, loss_fn=nn.MSELoss())
    _trainer(**data, options={"step": lambda model, batch, loss_fn: model(batch[0]).mean()})


def test_an_accuracy_by_a_loss_that_favours_no_class_is_measured_where_it_is_asked_for() -> None:
    given: dict[str, Any] = {"loss_fn": lambda output, target: output.pow(2).mean(), "metric": "val_accuracy"}
    with pytest.raises(ValueError, match="`metric='val_accuracy'` takes the largest output for the answer"):
        _trainer(**given)
    assert _trainer(**given, options={"accuracy": True}).options == {"accuracy": True}


def test_only_a_loss_that_is_known_has_a_loss_of_chance() -> None:
    assert _trainer().chance == 2
    own = _trainer(loss_fn=lambda output, target: 100 * nn.functional.cross_entropy(output, target))
    assert (own.n_classes, own.chance) == (2, None)


def test_a_last_batch_of_one_sample_does_not_break_batch_norm() -> None:
    assert _trainer().objective(optuna.trial.FixedTrial(CHOICE)) < 0.7  # 65 samples in batches of 16


@pytest.mark.parametrize("options", [{"accumulate": 3}, {"clip_norm": 1.0}, {"amp": "bf16"}])
def test_options_reach_the_loop(options: Any) -> None:
    assert _trainer(options=options).objective(optuna.trial.FixedTrial(CHOICE)) < 1.0


def test_the_range_test_is_as_long_as_planned_and_repeatable() -> None:
    first, again = _trainer().range_test(), _trainer().range_test()
    assert first == again
    assert first.planned_steps == 2 * 2  # 65 samples in batches of 32, the lone last one left out
    assert len(first.lrs) <= 20  # a training of 4 updates is not worth 100 for its bounds


def test_a_loader_is_made_anew_with_the_trials_batch_size_and_validates_as_it_is() -> None:
    sizes: list[int] = []

    def collate(rows: Any) -> Any:
        sizes.append(len(rows))
        return torch.utils.data.default_collate(rows)

    data = torch.utils.data.TensorDataset(X, Y)
    sampler = torch.utils.data.WeightedRandomSampler([1.0] * 65, 40)
    train = torch.utils.data.DataLoader(data, batch_size=5, sampler=sampler, collate_fn=collate)
    val = torch.utils.data.DataLoader(data, batch_size=50, shuffle=True)
    before = torch.get_rng_state()
    trainer = _trainer(train=train, val=val)
    assert torch.equal(torch.get_rng_state(), before)
    assert trainer.n_classes == 2
    sizes.clear()
    first, again = (trainer.objective(optuna.trial.FixedTrial(CHOICE)) for _ in range(2))
    assert sizes == [16, 16, 8] * 4
    assert first == again  # the order follows the seed


def test_a_model_that_takes_the_trial_is_seen() -> None:
    assert _trainer(build_model=lambda trial: None).takes_trial
    assert not _trainer(build_model=lambda width=3: nn.Linear(width, 2)).takes_trial


def test_weights_come_from_the_seed_on_every_device_that_the_training_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise RuntimeError("Cannot re-initialize CUDA in forked subprocess.")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_rng_state", refuse)
    before = torch.get_rng_state()
    trainer = _trainer()
    first, again, other = (trainer._model(None, seed)[0].weight for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_first_look_at_a_model_is_by_the_precision_of_its_training() -> None:
    class HalfOnly(nn.Module):  # as flash attention
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(3, 8), nn.Linear(8, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            hidden = self.first(x)
            if hidden.dtype != torch.bfloat16:
                raise RuntimeError("only half precision")
            return self.last(hidden)

    assert _trainer(build_model=HalfOnly, options={"amp": "bf16"}).n_classes == 2
    with pytest.raises(ValueError, match="only half precision"):
        _trainer(build_model=HalfOnly)
