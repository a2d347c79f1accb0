import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from optuna_discipline.exceptions import DisciplineError
from optuna_discipline.training import evaluation
from optuna_discipline.training.evaluation import evaluate
from optuna_discipline.training.evaluation import evaluate_with_batch_statistics

CPU = torch.device("cpu")
X = torch.randn(12, 3, generator=torch.Generator().manual_seed(0)) * 5 + 2
Y = (X[:, 0] > 2).long()


@pytest.fixture
def net() -> nn.Sequential:
    return nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.9), nn.Linear(3, 2))


def test_the_loss_is_the_mean_over_samples_not_over_batches(net: nn.Sequential) -> None:
    whole = evaluate(net, [(X, Y)], nn.CrossEntropyLoss(), device=CPU)
    ragged = evaluate(net, [(X[:7], Y[:7]), (X[7:], Y[7:])], nn.CrossEntropyLoss(), device=CPU)
    assert whole.loss == pytest.approx(ragged.loss)
    assert whole.accuracy == ragged.accuracy == pytest.approx((net.eval()(X).argmax(1) == Y).float().mean().item())


def test_modes_come_back_each_its_own_also_after_an_exception(net: nn.Sequential) -> None:
    net[0].eval()
    evaluate(net, [(X, Y)], nn.CrossEntropyLoss(), device=CPU)
    with pytest.raises(ZeroDivisionError, match="division"):
        evaluate(net, [(X, Y)], lambda o, t: torch.ones(()) * (1 / 0), device=CPU)
    assert [module.training for module in net.modules()] == [True, False, True, True]


def test_batch_statistics_are_used_and_the_averages_come_back(net: nn.Sequential) -> None:
    before = copy.deepcopy(net.state_dict())
    by_batch = evaluate_with_batch_statistics(net, [(X, Y)], nn.CrossEntropyLoss(), device=CPU)
    normalised = (X - X.mean(0)) / (X.var(0, unbiased=False) + net[0].eps).sqrt()
    expected = nn.functional.cross_entropy(net[2](normalised), Y).item()
    assert by_batch == pytest.approx(expected, rel=1e-5)
    assert by_batch != pytest.approx(evaluate(net, [(X, Y)], nn.CrossEntropyLoss(), device=CPU).loss, rel=1e-3)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(module.training for module in net.modules())


def test_a_frozen_norm_and_a_lone_sample_use_the_averages(net: nn.Sequential) -> None:
    plain = evaluate(net, [(X, Y)], nn.CrossEntropyLoss(), device=CPU).loss
    lone = [(X[i : i + 1], Y[i : i + 1]) for i in range(12)]
    assert evaluate_with_batch_statistics(net, lone, nn.CrossEntropyLoss(), device=CPU) == pytest.approx(plain)
    net[0].eval()
    assert evaluate_with_batch_statistics(net, [(X, Y)], nn.CrossEntropyLoss(), device=CPU) == pytest.approx(plain)


def test_no_batch_is_an_error(net: nn.Sequential) -> None:
    with pytest.raises(DisciplineError, match="no batch to evaluate"):
        evaluate(net, [], nn.CrossEntropyLoss(), device=CPU)


def test_the_accuracy_is_a_share_of_the_targets_whatever_a_batch_is(net: nn.Sequential) -> None:
    class Cloud:
        def __init__(self, x: torch.Tensor, y: torch.Tensor) -> None:
            self.x, self.y = x, y

        def to(self, device: torch.device) -> "Cloud":
            return Cloud(self.x.to(device), self.y.to(device))

    def step(model: nn.Module, batch: Cloud, loss_fn: object) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        output = model(batch.x)
        return nn.functional.cross_entropy(output, batch.y), output, batch.y

    pairs = [(X[:7], Y[:7]), (X[7:], Y[7:])]
    expected = evaluate(net, pairs, nn.CrossEntropyLoss(), device=CPU)
    assert evaluate(net, [Cloud(*pair) for pair in pairs], nn.MSELoss(), device=CPU, step=step) == expected


def test_labels_that_cross_entropy_ignores_are_no_wrong_answers(net: nn.Sequential) -> None:
    known = Y.clone()
    known[6:] = -100
    assert evaluate(net, [(X, known)], nn.CrossEntropyLoss(), device=CPU).accuracy == pytest.approx(
        (net.eval()(X[:6]).argmax(1) == Y[:6]).float().mean().item()
    )
    assert evaluate(net, [(X, torch.full_like(Y, -100))], nn.CrossEntropyLoss(), device=CPU).accuracy is None


def test_a_synchronised_norm_waits_for_no_other_rank(net: nn.Sequential, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = evaluate_with_batch_statistics(net, [(X, Y)], nn.CrossEntropyLoss(), device=CPU)
    synchronised = nn.SyncBatchNorm.convert_sync_batchnorm(net)
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    with pytest.raises(ValueError, match="to be on"):  # where it would wait on a GPU
        synchronised(X)
    before = copy.deepcopy(synchronised.state_dict())
    assert evaluate_with_batch_statistics(synchronised, [(X, Y)], nn.CrossEntropyLoss(), device=CPU) == expected
    assert all(torch.equal(value, before[name]) for name, value in synchronised.state_dict().items())
    with pytest.raises(ValueError, match="to be on"):
        synchronised(X)


def test_losses_and_answers_on_another_device_are_summed_on_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    def step(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor], loss_fn: nn.Module) -> Any:
        output, target = (part.to("cuda:1") for part in (model(batch[0]), batch[1]))
        return loss_fn(output, target), output, target

    def over_ranks(model: nn.Module, sums: torch.Tensor, n_samples: int) -> Any:
        raise KeyError(str(sums.device))  # the sums have no content

    monkeypatch.setattr(evaluation, "over_ranks", over_ranks)
    first = torch.device("cuda:0")
    with FakeTensorMode():  # tensors of GPUs that need not be there
        model, batch = nn.Linear(3, 2, device=first), (torch.zeros(8, 3), torch.zeros(8, dtype=torch.long))
        with pytest.raises(KeyError, match="cuda:0"):
            evaluate(model, [batch], nn.CrossEntropyLoss(), device=first, step=step)


def test_a_synchronised_norm_keeps_a_forward_of_its_own() -> None:
    class Doubled(nn.SyncBatchNorm):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            calls.append("subclass")
            return 2 * super().forward(x)

    def hook(x: torch.Tensor) -> torch.Tensor:
        calls.append("hook")
        return x

    calls: list[str] = []
    net = nn.Sequential(nn.SyncBatchNorm(3), Doubled(3), nn.Linear(3, 2))
    net[0].forward = hook
    evaluate_with_batch_statistics(net, [(X, Y)], nn.CrossEntropyLoss(), device=CPU)
    assert calls == ["hook", "subclass"]
    assert vars(net[0])["forward"] is hook
