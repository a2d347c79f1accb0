import random

import numpy as np
import torch
from torch.utils.data import DataLoader
from torch.utils.data import RandomSampler

from optuna_discipline.training.random_state import PrivateRandom
from optuna_discipline.training.random_state import RandomStates
from optuna_discipline.training.random_state import generators_of

CPU = torch.device("cpu")


def draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


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
