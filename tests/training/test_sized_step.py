from typing import Any
from typing import NamedTuple

import pytest
import torch
from torch import nn

from optuna_discipline.training import sized_step
from optuna_discipline.training.sized_step import SizedStep
from optuna_discipline.training.sized_step import repeat_samples


class Pair(NamedTuple):
    x: Any
    y: Any


def test_samples_are_repeated_whatever_holds_them() -> None:
    batch = {"input": torch.arange(4).reshape(2, 2), "more": [torch.tensor([1.0, 2.0])], "name": "n"}
    repeated = repeat_samples(batch, 5)
    assert repeated["input"].tolist() == [[0, 1], [2, 3], [0, 1], [2, 3], [0, 1]]
    assert repeated["more"][0].tolist() == [1, 2, 1, 2, 1]
    assert repeated["name"] == "n"


def test_nested_and_named_batches_keep_their_kinds_and_a_packed_one_is_refused() -> None:
    batch = Pair([(torch.tensor([1, 2]), "n")], {"y": torch.tensor([3, 4])})
    repeated = repeat_samples(batch, 3)
    assert isinstance(repeated, Pair)
    assert isinstance(repeated.x[0], tuple)
    assert (repeated.x[0][0].tolist(), repeated.x[0][1]) == ([1, 2, 1], "n")
    assert repeated.y["y"].tolist() == [3, 4, 3]
    packed = nn.utils.rnn.pack_sequence([torch.ones(3, 2), torch.ones(1, 2)])
    with pytest.raises(ValueError, match=r"has shapes \[\(4, 2\), \(3,\), \(2,\)\]"):
        repeat_samples((packed, torch.tensor([0, 1])), 4)


def test_tensors_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match=r"has shapes \[\(2, 3\), \(1,\)\]: give a single sample one with x\[None\]"):
        repeat_samples((torch.zeros(2, 3), torch.zeros(1)), 4)


def test_lists_of_samples_are_repeated_as_lists() -> None:
    images = (torch.zeros(3, 2, 2), torch.ones(3, 2, 2))
    boxes = ({"boxes": torch.zeros(1, 4)}, {"boxes": torch.ones(2, 4)})
    repeated = repeat_samples((images, boxes), 3)
    assert [image.mean().item() for image in repeated[0]] == [0, 1, 0]
    assert [len(target["boxes"]) for target in repeated[1]] == [1, 2, 1]
    stacked = repeat_samples([torch.stack(images), list(boxes)], 3)
    assert stacked[0].mean(dim=(1, 2, 3)).tolist() == [0, 1, 0]
    assert len(stacked[1]) == 3


def test_each_update_sees_as_many_samples_as_asked() -> None:
    seen: list[int] = []

    class Counting(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(len(x))
            return super().forward(x)

    sample = (torch.randn(2, 3), torch.tensor([0, 1]))
    step = SizedStep.of(Counting(3, 2), sample, nn.CrossEntropyLoss(), "adamw", None, False, None, None)
    step.run(7)
    step.run(3, lambda update: update())
    assert seen == [7, 7, 3]


def test_everything_is_given_back_also_after_an_exception() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    step = SizedStep.of(model, torch.randn(4, 3), None, "sgd", None, False, None, None)
    with pytest.raises(KeyError, match="stop"), step.everything_kept():  # noqa: PT012
        step.run(8)
        assert not torch.equal(model.state_dict()["1.running_mean"], before["1.running_mean"])
        raise KeyError("stop")
    assert not model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_samples_are_repeated_under_another_default_device() -> None:
    batch, lists = torch.tensor([1, 2]), ([{"id": 1}, {"id": 2}], torch.tensor([3, 4]))
    with torch.device("meta"):  # stands for a GPU
        assert repeat_samples(batch, 3).tolist() == [1, 2, 1]
        assert repeat_samples(lists, 3)[1].tolist() == [3, 4, 3]


def test_no_memory_to_keep_the_model_in_is_a_size_that_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    step = SizedStep.of(nn.Linear(3, 2), torch.randn(4, 3), None, "sgd", None, False, None, None)
    assert step.fits_here(4, None)
    monkeypatch.setattr(sized_step, "preserved", fail)
    assert not step.fits_here(4, None)
