import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from optuna_discipline.rules.schedule import OneCycle
from optuna_discipline.training.loop import train_epochs
from optuna_discipline.training.update import Updater
from optuna_discipline.training.update import resolve_device
from optuna_discipline.training.update import windows

CPU = torch.device("cpu")
X = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))


def task(n: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(n, 4, generator=torch.Generator().manual_seed(0))
    return x, (x[:, 0] > 0).long()


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


def test_a_loss_on_another_device_is_summed_on_that_of_the_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Updater, "_backward", lambda self, loss: None)  # autograd asks for a GPU that need not be there
    monkeypatch.setattr(Updater, "_apply", lambda self: None)
    with FakeTensorMode():
        model, first = nn.Linear(3, 3, device="cuda:0"), torch.device("cuda:0")
        updater = Updater(model, lambda o, t: o.sum().to("cuda:1"), torch.optim.SGD(model.parameters(), lr=0.1), first)
        batch = (torch.zeros(6, 3), torch.zeros(6))
        assert updater.update([batch, batch]).loss_sum.device == first


def test_a_step_that_cannot_be_called_is_refused_at_once() -> None:
    model = nn.Linear(3, 3)
    with pytest.raises(ValueError, match=r"`step` must be callable as step\(.*\), or None, but got 'mine'"):
        Updater(model, nn.MSELoss(), torch.optim.SGD(model.parameters(), lr=0.1), CPU, step="mine")  # type: ignore[arg-type]


def test_a_training_in_inference_mode_is_told_so() -> None:
    model = nn.Linear(3, 3)
    updater = Updater(model, nn.MSELoss(), torch.optim.SGD(model.parameters(), lr=0.1), CPU)
    with torch.inference_mode(), pytest.raises(ValueError, match=r"needs gradients, which `torch\.inference_mode`"):
        updater.update([(X, X)])


def test_windows_hold_every_batch_once() -> None:
    assert list(windows(range(5), 3)) == [[0, 1, 2], [3, 4]]


def test_the_device_is_the_models_own_by_default() -> None:
    assert resolve_device(nn.Linear(1, 1), None) == resolve_device(nn.Flatten(), None) == CPU
    with pytest.raises(ValueError, match="`device` must be one on which torch can compute here"):
        resolve_device(nn.Flatten(), 3.5)  # type: ignore[arg-type]


def test_a_device_that_does_not_compute_is_refused() -> None:
    for device in ("meta", "hpu"):  # torch has no module of the second
        with pytest.raises(ValueError, match=rf"`device` must be one on which torch can compute here, .* '{device}'"):
            resolve_device(nn.Linear(1, 1), device)


@pytest.mark.parametrize("device", [None, "cpu"])
@pytest.mark.parametrize("name", ["0.weight", "1.bias", "1.running_var"])
def test_a_model_is_refused_where_any_of_its_tensors_is_on_a_device_that_does_not_compute(
    name: str, device: str | None
) -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    owner, attribute = model.get_submodule(name[0]), name[2:]
    tensor = getattr(owner, attribute).detach().to("meta")
    setattr(owner, attribute, nn.Parameter(tensor, requires_grad=False) if attribute != "running_var" else tensor)
    with pytest.raises(ValueError, match=f"`model` must be on a device that computes, but its '{name}' is on 'meta'"):
        resolve_device(model, device)


def test_accumulation_equals_one_big_batch_also_with_a_ragged_rest() -> None:
    data = [(x, y) for x, y in zip(task(35)[0].split(10), task(35)[1].split(10), strict=True)]
    small, big = nn.Linear(4, 2), nn.Linear(4, 2)
    big.load_state_dict(small.state_dict())
    one = list(train_epochs(small, nn.CrossEntropyLoss(), data, None, OneCycle(0.1, 3), accumulate=4))
    two = list(train_epochs(big, nn.CrossEntropyLoss(), [task(35)], None, OneCycle(0.1, 3)))
    assert len(one) == len(two) == 3
    assert torch.allclose(small.weight, big.weight, atol=1e-6)
    assert one[-1].train_loss == pytest.approx(two[-1].train_loss)


def test_bf16_runs_the_forward_pass_in_bf16_and_keeps_float32_weights() -> None:
    model, dtypes = nn.Linear(4, 2), set()
    model.register_forward_hook(lambda module, inputs, output: dtypes.add(output.dtype))
    list(train_epochs(model, nn.CrossEntropyLoss(), task(), task(), OneCycle(0.1, 4), batch_size=10, amp="bf16"))
    assert dtypes == {torch.bfloat16}
    assert all(p.dtype == torch.float32 for p in model.parameters())


def test_fp16_skips_an_update_that_overflows_and_goes_on() -> None:
    if not hasattr(torch.amp, "GradScaler"):
        pytest.skip("torch 2.2 scales gradients on CUDA only")
    model = nn.Linear(4, 2)
    before = model.weight.detach().clone()
    bad = [(torch.full((4, 4), 6e4), torch.zeros(4, dtype=torch.long))]
    logs = list(train_epochs(model, lambda o, t: (o.float() * 1e2).sum(), bad, None, OneCycle(0.1, 1), amp="fp16"))
    assert len(logs) == 1
    assert torch.equal(model.weight, before)
    logs = list(train_epochs(model, nn.CrossEntropyLoss(), task(), None, OneCycle(0.1, 12), batch_size=10, amp="fp16"))
    assert len(logs) == 3
    assert not torch.equal(model.weight, before)
