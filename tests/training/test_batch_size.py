import subprocess
import sys
import time
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from optuna_discipline.exceptions import DisciplineError
from optuna_discipline.rules.candidates import epochs_at_equal_time
from optuna_discipline.training import memory
from optuna_discipline.training import sized_step
from optuna_discipline.training.batch_size import largest_batch_size
from optuna_discipline.training.batch_size import samples_per_second
from optuna_discipline.training.batch_size import search_largest
from tests.training.test_snapshot import Net
from tests.training.test_snapshot import facts
from tests.training.test_snapshot import same
from tests.training.test_snapshot import train

linux = pytest.mark.skipif(sys.platform != "linux", reason="limits a child's memory as Linux does")
MEGABYTE = 2**20

# Activations of 0.15 MB a sample and few parameters; the address space may grow by 150 MB.
REAL_LIMIT = """
import resource, torch
from torch import nn
from optuna_discipline import largest_batch_size
from optuna_discipline.training.memory import address_space_used, is_out_of_memory

model = nn.Sequential(nn.Linear(4, 12_500), nn.ReLU(), nn.Linear(12_500, 2))
x, y = torch.randn(1, 4), torch.tensor([1])

optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)

def step(size):
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x.repeat(size, 1)), y.repeat(size)).backward()
    optimizer.step()

step(2)
before = address_space_used()
resource.setrlimit(resource.RLIMIT_AS, (before + 150 * 2**20, resource.RLIM_INFINITY))
found = largest_batch_size(model, (x, y), nn.CrossEntropyLoss(), low=128, high=4096)
assert address_space_used() - before < 32 * 2**20, "memory was not given back"
step(found)
try:
    step(10_000)  # one activation alone is 500 MB
    print(found, "fits")
except (RuntimeError, MemoryError) as error:
    print(found, "out of memory" if is_out_of_memory(error) else error)
"""


@linux
def test_the_search_meets_a_real_limit_and_the_process_survives() -> None:
    run = subprocess.run([sys.executable, "-c", REAL_LIMIT], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    found, too_much = run.stdout.strip().split(" ", 1)
    assert 300 < int(found) < 1500  # 2 to 4 activations of 50 kB a sample are alive at once
    assert too_much == "out of memory"


@linux
def test_model_optimizer_modes_and_random_states_are_left_alone_on_a_cpu() -> None:
    model, sample = Net(), torch.randn(3, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    train(model, optimizer)
    model.norm.eval()
    before = facts(model, optimizer)
    assert largest_batch_size(model, sample, high=40, optimizer=optimizer) == 40
    assert samples_per_second(model, sample, 40, optimizer=optimizer, seconds=1e-3) > 0
    assert same(before, facts(model, optimizer))


@linux
@pytest.mark.parametrize(
    ("low", "match"),
    [(2, "lower `high`, for instance to 8, which fits"), (9, "lower `low`, or take a faster model")],
)
def test_a_step_that_does_not_end_names_the_size_that_fitted(
    low: int, match: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            time.sleep(60 if len(x) > 8 else 0)
            return super().forward(x)

    monkeypatch.setattr(memory, "_PATIENCE_S", 3.0)
    with pytest.raises(DisciplineError, match=f"A training step did not end within 3 s: {match}"):
        largest_batch_size(Slow(3, 2), torch.randn(1, 3), low=low, memory_limit=2**30)


class Limited(Net):
    """A net on a device whose memory holds 100 samples."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output = super().forward(x)
        if len(x) > 100:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return output


class Gpu(str):
    """A device that is not called a CPU and computes on it, so that its steps are made in this process."""

    type = "gpu"


@pytest.mark.parametrize(("tolerance", "expected"), [(0, 100), (0.1, 96), (1.0, 64)])
def test_elsewhere_the_devices_own_refusal_counts(
    tolerance: float, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sized_step, "resolve_device", lambda *_: Gpu("cpu"))
    model, sample = Limited(), (torch.randn(3, 3), torch.randn(3, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    train(model, optimizer)
    before = facts(model.eval(), optimizer)
    found = largest_batch_size(model, sample, nn.MSELoss(), tolerance=tolerance, optimizer=optimizer)
    assert found == expected
    assert same(before, facts(model, optimizer))


@pytest.mark.parametrize("limit", [1, 50])
def test_a_library_that_finds_no_way_has_run_out_of_memory_only_above_a_size_that_fits(
    limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Picky(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if len(x) > limit:
                raise RuntimeError("GET was unable to find an engine to execute this computation")
            return super().forward(x)

    monkeypatch.setattr(sized_step, "resolve_device", lambda *_: Gpu("cpu"))
    if limit > 1:
        assert largest_batch_size(Picky(3, 2), torch.randn(1, 3), tolerance=0) == limit
        return
    with pytest.raises(RuntimeError, match="unable to find an engine"):
        largest_batch_size(Picky(3, 2), torch.randn(1, 3))


def test_a_model_on_the_gpu_is_tried_there() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU")
    model = nn.Sequential(nn.Linear(4, 25_000), nn.ReLU(), nn.Linear(25_000, 2)).cuda()
    sample, before = (torch.randn(1, 4), torch.tensor([1])), torch.cuda.memory_allocated()
    found = largest_batch_size(model, sample, nn.CrossEntropyLoss(), memory_limit=300 * MEGABYTE, high=2**20)
    assert 300 < found < 2000
    assert largest_batch_size(model, sample, nn.CrossEntropyLoss(), high=2**24) > found
    assert torch.cuda.memory_allocated() == before


@given(limit=st.integers(2, 5000), low=st.integers(1, 20), high=st.integers(20, 4000), tolerance=st.floats(0, 0.5))
def test_the_search_is_right_and_never_tries_a_size_twice(limit: int, low: int, high: int, tolerance: float) -> None:
    tried: list[int] = []

    def fits(size: int) -> bool:
        tried.append(size)
        return size <= limit

    found = search_largest(fits, low, high, tolerance)
    assert len(tried) == len(set(tried))
    assert max(tried) <= high
    if limit < low:
        assert found is None
    else:
        assert found is not None
        best = min(limit, high)
        assert best - max(1, tolerance * best) <= found <= best
        if tolerance == 0:
            assert found == best


def test_larger_batches_process_more_samples_and_get_more_epochs_in_the_same_time() -> None:
    model, sample = nn.Linear(8, 2), (torch.randn(4, 8), torch.tensor([0, 1, 0, 1]))
    slow, fast = (samples_per_second(model, sample, size, nn.CrossEntropyLoss(), seconds=0.05) for size in (4, 512))
    assert fast > 2 * slow
    assert epochs_at_equal_time(10, 1 / slow, 1 / fast) > 20


@linux
def test_a_model_that_does_not_fit_at_all_is_said_with_its_limit() -> None:
    with pytest.raises(DisciplineError, match="Not even a batch of `low` = 20000 fits into 1 MiB"):
        largest_batch_size(nn.Linear(1000, 10), torch.randn(1, 1000), low=20_000, memory_limit=MEGABYTE)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"low": 0}, "`low` must be an integer from 1 on"),
        ({"low": 8, "high": 4}, "`high` must be an integer from 8 on"),
        ({"high": float("nan")}, "`high` must be an integer"),
        ({"tolerance": float("nan")}, "`tolerance` must be a number"),
        ({"memory_limit": 0}, "`memory_limit` must be an integer from 1 on, but got 0. It counts bytes"),
        ({"device": "meta"}, "`device` must be one on which torch can compute here"),
        ({"device": "nowhere"}, "`device` must be one on which torch can compute here"),
        ({"optimizer": "best"}, "`optimizer` must be 'sgd', 'adamw'"),
        ({"loss_fn": 3}, "`loss_fn` must be callable"),
        ({"sample": None}, "`sample` must be a batch of tensors"),
        (
            {"sample": (torch.randn(3), torch.tensor(1))},
            r"first dimension, or lists .*, but has shapes \[\(3,\), \(\)\]: give a single",
        ),
        ({"sample": (torch.randn(0, 3), torch.randn(0))}, r"has shapes \[\(0, 3\), \(0,\)\]"),
        ({"sample": torch.zeros(2, 3, device="meta")}, r"Data must hold numbers, but a tensor of shape \(2, 3\) is on"),
        ({"sample": torch.randn(2, 5)}, "shapes cannot be multiplied"),
        ({"model": nn.Linear(3, 2, device="meta")}, "but its 'weight' is on 'meta': build all"),
        ({"model": nn.ReLU()}, "has no trainable parameter"),
        ({"model": "net"}, r"`model` must be a torch.nn.Module"),
        ({"model": nn.LSTM(3, 2)}, "`loss_fn` must be given where the model returns no tensor, but tuple"),
    ],
)
@linux
def test_bad_arguments_are_named(options: dict[str, Any], match: str) -> None:
    arguments = {"model": nn.Linear(3, 2), "sample": torch.randn(2, 3), "high": 8, **options}
    with pytest.raises((ValueError, DisciplineError, RuntimeError), match=match):
        largest_batch_size(**arguments)
    if not {"low", "high", "tolerance", "memory_limit"} & set(options):
        arguments.pop("high")
        with pytest.raises((ValueError, DisciplineError, RuntimeError), match=match):
            samples_per_second(batch_size=4, seconds=1e-3, **arguments)
