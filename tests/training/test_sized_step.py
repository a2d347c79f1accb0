from typing import Any
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from optuna_discipline.exceptions import DisciplineError
from optuna_discipline.training import sized_step
from optuna_discipline.training.sized_step import SizedStep
from optuna_discipline.training.sized_step import repeat_samples


class Pair(NamedTuple):
    x: Any
    y: Any


class Sized(NamedTuple("Sized", [("x", torch.Tensor), ("size", Any)])):
    """Checks itself."""

    def __new__(cls, x: torch.Tensor, size: Any) -> "Sized":
        assert x is not None
        return super().__new__(cls, x, size)


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
    for tensors in ([torch.ones(3, 2), torch.ones(1, 2)], [torch.ones(5, 2)]):
        packed = nn.utils.rnn.pack_sequence(tensors)
        for refused in (packed, (packed, torch.ones(len(packed.batch_sizes)))):
            with pytest.raises(ValueError, match=r"but got a PackedSequence: give it padded or dense, and pack"):
                repeat_samples(refused, 4)


@pytest.mark.parametrize(
    ("kind", "make"),
    [
        ("a tensor with torch.sparse_coo", lambda: torch.ones(2, 3).to_sparse()),
        ("a nested tensor", lambda: torch.nested.nested_tensor([torch.ones(5, 6), torch.ones(7, 6)])),
    ],
)
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_tensors_that_are_not_plain_are_refused(kind: str, make: Any) -> None:
    with pytest.raises(ValueError, match=rf"`sample` must hold plain tensors, .* but got {kind}: give it padded or"):
        repeat_samples((make(), torch.tensor([0, 1])), 4)


def test_lists_as_long_as_the_batch_hold_one_sample_each() -> None:
    y = torch.tensor([3, 4])
    assert repeat_samples((["a", "b"], y), 3)[0] == ["a", "b", "a"]
    assert repeat_samples({"x": ("a", "b"), "y": y, "of": {"z": [1, 2]}}, 3)["of"] == {"z": [1, 2, 1]}
    sequences = [torch.ones(5), torch.ones(7)]
    assert [len(x) for x in repeat_samples((sequences, y), 3)[0]] == [5, 7, 5]
    assert [len(x) for x in repeat_samples((sequences, ["a", "b"]), 3)[0]] == [5, 7, 5]
    images = repeat_samples(([torch.zeros(3, 4, 4), torch.ones(3, 4, 4)], y), 3)[0]
    assert [(len(x), x.mean().item()) for x in images] == [(3, 0), (3, 1), (3, 0)]
    inputs = repeat_samples(([torch.ones(4), torch.ones(4)], torch.ones(4)), 9)[0]
    assert [len(x) for x in inputs] == [9, 9]
    with pytest.raises(
        ValueError, match=r"list of 3 tensors whose length is 3, too, .* give another number of samples"
    ):
        repeat_samples(([torch.zeros(3, 4, 4)] * 3, torch.zeros(3)), 4)


def test_a_tuple_of_tensors_and_a_list_of_one_for_one_sample_are_parts() -> None:
    pair = repeat_samples(((torch.ones(2, 7), torch.ones(2, 3)), torch.ones(2)), 5)[0]
    assert [tuple(x.shape) for x in pair] == [(5, 7), (5, 3)]
    assert [len(x) for x in repeat_samples(([torch.ones(1, 7)], torch.ones(1)), 5)[0]] == [5]
    for refused in ((torch.ones(5), torch.ones(7)), (torch.ones(1, 2, 5), torch.ones(1, 2, 5))):
        with pytest.raises(ValueError, match="all have the samples as their first dimension"):
            repeat_samples((refused, torch.ones(2)), 5)


@pytest.mark.parametrize("part", [torch.Size([8, 8]), (8, 8, 8), ["a", "b", "c"], [], np.ones(3), {1}, list])
def test_what_describes_the_batch_stays_as_it_is(part: Any) -> None:
    x = torch.zeros(2, 3)
    repeated = repeat_samples(Sized(x, part), 4)
    assert (type(repeated), type(repeated.size), len(repeated.x)) == (Sized, type(part), 4)
    assert repeated.size is part or repeated.size == part
    assert len(repeat_samples({"x": [x, x, x], "size": part if isinstance(part, tuple) else (8, 8, 8)}, 4)["x"][0]) == 4


@pytest.mark.parametrize(
    "batch",
    [
        tuple(zip(*[(torch.zeros(9, 5), n % 2) for n in range(4)], strict=True)),
        ((torch.zeros(9, 5),) * 4, [0, 1, 0, 1]),
        (torch.zeros(4, 9, 5), (9, 8, 7, 6)),
        {"x": torch.zeros(4, 9, 5), "lengths": (9, 8, 7, 6)},
    ],
)
def test_one_sample_each_in_a_tuple_is_refused(batch: Any) -> None:
    with pytest.raises(
        ValueError, match=r"`sample` must (hold lists of one|not hold a tuple of as many).*(list|lists)"
    ):
        repeat_samples(batch, 6)


@pytest.mark.parametrize(
    ("part", "cure"),
    [(np.ones(2), "make it a tensor"), (iter([1, 2]), "make it a list"), ([torch.ones(3)], "give one of 2")],
)
def test_what_has_the_samples_and_is_not_repeated_is_refused(part: Any, cure: str) -> None:
    with pytest.raises(ValueError, match=rf"`sample` must hold its 2 samples in tensors or lists .*: {cure}"):
        repeat_samples((part, torch.zeros(2)), 4)


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


def test_no_memory_for_torch_itself_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(torch.optim.SGD, "step", fail)
    with pytest.raises(DisciplineError, match=r"loaded what an optimizer needs: raise the limit .*`ulimit -v`"):
        sized_step.load_all_of_torch()
