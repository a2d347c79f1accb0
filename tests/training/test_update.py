import pytest
import torch
from torch import nn

from optuna_discipline.training.update import Updater
from optuna_discipline.training.update import resolve_device
from optuna_discipline.training.update import windows

CPU = torch.device("cpu")
X = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))


def test_clipping_limits_the_norm_of_the_whole_gradient() -> None:
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    Updater(model, lambda o, t: 1e3 * o.sum(), optimizer, CPU, clip_norm=0.5).update([(X, X)])
    grads = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    assert grads.norm().item() == pytest.approx(0.5, rel=1e-4)


def test_the_sum_of_losses_counts_samples() -> None:
    model = nn.Linear(3, 3)
    updater = Updater(model, lambda o, t: (o * 0).sum() + 2.0, torch.optim.SGD(model.parameters(), lr=0.1), CPU)
    result = updater.update([(X, X), (X[:2], X[:2])])
    assert (result.loss_sum.item(), result.n_samples) == (16.0, 8)


def test_windows_hold_every_batch_once() -> None:
    assert list(windows(range(5), 3)) == [[0, 1, 2], [3, 4]]
    with pytest.raises(ValueError, match="`accumulate` must be an integer"):
        list(windows(range(5), 0))


def test_the_device_is_the_models_own_by_default() -> None:
    assert resolve_device(nn.Linear(1, 1, device="meta"), None) == torch.device("meta")
    assert resolve_device(nn.Flatten(), None) == CPU
    with pytest.raises(ValueError, match="`device` must be a device of this machine"):
        resolve_device(nn.Flatten(), 3.5)  # type: ignore[arg-type]
