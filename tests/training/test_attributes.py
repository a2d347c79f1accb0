from collections import OrderedDict
from collections import defaultdict
from collections import deque
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from optuna_discipline.training.attributes import Attributes


@pytest.mark.parametrize(
    "container", [[1, 2], {"a": 1, "b": 2}, {1, 2}, deque([1, 2]), OrderedDict(b=1, a=2), defaultdict(int, a=1)]
)
def test_a_container_is_filled_again_where_it_stands_in_its_order(container: Any) -> None:
    model = nn.Identity()
    model.first, model.second = container, (container, [container])
    before = list(container.items() if isinstance(container, dict) else container)
    attributes = Attributes.of([model])
    container.clear()
    attributes.restore()
    assert model.first is model.second[0] is model.second[1][0] is container
    assert list(container.items() if isinstance(container, dict) else container) == before


def test_containers_that_hold_themselves_and_objects_of_other_classes_are_no_trouble() -> None:
    model = nn.Identity()
    model.loop, model.array, model.hidden = [1], np.zeros(2), [nn.Linear(1, 1)]
    model.loop.append(model.loop)
    array, layers = model.array, model.hidden
    attributes = Attributes.of([model])
    model.array, model.hidden = None, []
    model.loop.clear()
    attributes.restore()
    assert model.array is array
    assert model.hidden is layers
    assert model.loop[1] is model.loop


def test_dense_tensors_are_found_once_and_others_left_alone() -> None:
    model, mean = nn.Linear(1, 1), torch.ones(2)
    model.means = [mean, {"again": mean}, torch.ones(1).expand(2), torch.eye(2).to_sparse(), torch.ones(2).to("meta")]
    assert Attributes.of([model], model.parameters()).tensors == (mean,)
