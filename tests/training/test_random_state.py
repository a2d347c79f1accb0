import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader
from torch.utils.data import RandomSampler

from optuna_discipline.rules.curve import EpochLog
from optuna_discipline.rules.schedule import OneCycle
from optuna_discipline.training.loop import train_epochs
from optuna_discipline.training.random_state import PrivateRandom
from optuna_discipline.training.random_state import RandomStates
from optuna_discipline.training.random_state import generators_of
from optuna_discipline.training.random_state import kept_random
from optuna_discipline.training.random_state import loaders_generator

CPU = torch.device("cpu")


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def task(n: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(n, 4, generator=torch.Generator().manual_seed(0))
    return x, (x[:, 0] > 0).long()


def net() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.3), nn.Linear(8, 2))


def test_states_come_back() -> None:
    generator = torch.Generator().manual_seed(1)
    states = RandomStates.capture([generator])
    first = (draw(), float(torch.rand((), generator=generator)))
    states.restore()
    assert (draw(), float(torch.rand((), generator=generator))) == first


def test_a_private_stream_goes_on_where_it_stopped_and_hides_from_the_caller() -> None:
    states = RandomStates.capture()
    callers = [draw(), draw()]
    states.restore()
    one, two = PrivateRandom(7, CPU), PrivateRandom(7, CPU)
    seen = []
    with one:
        seen.append(draw())
    assert draw() == callers[0]
    with one:
        seen.append(draw())
    assert draw() == callers[1]
    with two:
        assert [draw(), draw()] == seen


def test_without_a_seed_the_global_stream_is_used() -> None:
    states = RandomStates.capture()
    expected = draw()
    states.restore()
    with PrivateRandom(None, CPU):
        assert draw() == expected


def test_generators_of_loaders_and_samplers_are_found_once() -> None:
    a, b = torch.Generator(), torch.Generator()
    data = list(range(4))
    loader = DataLoader(data, sampler=RandomSampler(data, generator=b), generator=a)
    assert generators_of(loader, loader, None, [1]) == (a, b)
    assert generators_of(DataLoader(data)) == ()


def test_the_callers_random_numbers_are_given_back_at_every_epoch_of_a_training() -> None:
    model, states = net(), RandomStates.capture()
    expected = [draw() for _ in range(3)]
    states.restore()
    logs = train_epochs(model, nn.CrossEntropyLoss(), task(), None, OneCycle(0.1, 3), seed=0)
    assert [draw() for _ in logs] == expected


def test_drawing_between_epochs_does_not_change_a_seeded_training() -> None:
    def run(n: int) -> list[EpochLog]:
        logs = []
        for log in train_epochs(net(), nn.CrossEntropyLoss(), task(), task(), OneCycle(0.1, 3), seed=0):
            torch.rand(n)
            logs.append(log)
        return logs

    assert run(0) == run(100)


def test_a_look_into_a_loader_gives_its_random_states_back() -> None:
    own = torch.Generator()
    loader = DataLoader(list(range(9)), shuffle=True, generator=own)
    state, first = own.get_state(), RandomStates.capture()
    with kept_random(loader):
        next(iter(loader))
        draw()
    assert torch.equal(own.get_state(), state)
    before = draw()
    first.restore()
    assert draw() == before


def test_a_loaders_generator_is_on_the_device_where_it_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    seeded = loaders_generator(3)
    assert seeded.device == CPU
    assert torch.equal(seeded.get_state(), torch.Generator().manual_seed(3).get_state())
    made, asked = torch.Generator, []
    monkeypatch.setattr(torch, "Generator", lambda device: asked.append(str(device)) or made())
    with torch.device("meta"):  # stands for a GPU as torch's default device
        loaders_generator(0)
        loaders_generator(None, CPU)
    assert asked == ["meta", "cpu"]


class Generators:
    """Stands for the generators of a GPU: CUDA's module, or that of mps."""

    def __init__(self) -> None:
        self.own = torch.Generator()

    def get_rng_state_all(self) -> list[torch.Tensor]:
        return [self.get_rng_state()]

    def set_rng_state_all(self, states: list[torch.Tensor]) -> None:
        self.set_rng_state(states[0])

    def get_rng_state(self) -> torch.Tensor:
        return self.own.get_state()

    def set_rng_state(self, state: torch.Tensor) -> None:
        self.own.set_state(state)

    def manual_seed(self, seed: int) -> None:
        self.own.manual_seed(seed)

    manual_seed_all = manual_seed


@pytest.fixture(params=["cuda", "mps"])
def gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> torch.Generator:
    module, generators = getattr(torch, request.param), Generators()
    for name in vars(Generators):
        if hasattr(module, name) and not name.startswith("__"):
            monkeypatch.setattr(module, name, getattr(generators, name))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: request.param == "cuda")
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: request.param == "cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: request.param == "mps")
    return generators.own


def test_a_private_stream_on_the_cpu_covers_a_gpu_that_is_in_use(gpu: torch.Generator) -> None:
    def drawn() -> float:
        return float(torch.rand((), generator=gpu))

    gpu.manual_seed(2)
    callers, seen = [drawn(), drawn()], []
    for start in (1, 2):
        gpu.manual_seed(start)
        stream = PrivateRandom(7, CPU)
        with stream:
            seen.append(drawn())
    assert drawn() == callers[0]
    with stream:
        seen.append(drawn())
    assert drawn() == callers[1]
    assert seen[0] == seen[1] != seen[2]


def test_a_gpus_state_is_stored_and_read_again(gpu: torch.Generator) -> None:
    stored = RandomStates.capture().to_dict()
    first = float(torch.rand((), generator=gpu))
    RandomStates.from_dict(stored).restore()
    assert float(torch.rand((), generator=gpu)) == first


def test_states_that_were_stored_without_mps_are_read() -> None:
    stored = RandomStates.capture().to_dict()
    del stored["mps"]
    assert RandomStates.from_dict(stored).mps is None
