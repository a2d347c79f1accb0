from typing import Any

import pytest
import torch
from torch import nn

from optuna_discipline.training.step import StepResult
from optuna_discipline.training.step import count_answers
from optuna_discipline.training.step import count_samples
from optuna_discipline.training.step import default_step
from optuna_discipline.training.step import run_step
from optuna_discipline.training.step import samples_of
from optuna_discipline.training.step import to_device

X, Y = torch.ones(4, 3), torch.zeros(4, dtype=torch.long)


class Sum(nn.Module):
    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a + b


@pytest.mark.parametrize("batch", [(X, Y), [X, Y], {"x": X, "y": Y}, {"input": X, "labels": Y}])
def test_pairs_and_dicts_are_read(batch: Any) -> None:
    result = default_step(nn.Linear(3, 2), batch, nn.CrossEntropyLoss())
    assert result.target is Y
    assert result.loss.ndim == 0


@pytest.mark.parametrize("batch", [X, (X,)])
def test_a_lone_tensor_is_its_own_target(batch: Any) -> None:
    assert default_step(nn.Identity(), batch, nn.MSELoss()).loss.item() == 0.0


def test_the_last_of_a_longer_tuple_is_the_target() -> None:
    assert default_step(Sum(), (X, X, 2 * X), nn.MSELoss()).loss.item() == 0.0


@pytest.mark.skipif(not hasattr(BaseException, "add_note"), reason="notes came with Python 3.11")
def test_what_is_raised_in_a_step_names_the_step_and_the_batch() -> None:
    def unpacking(model: Any, batch: Any, loss_fn: Any) -> Any:
        x, mask, y = batch
        return loss_fn(model(x * mask), y)

    with pytest.raises(ValueError, match="not enough values to unpack") as caught:
        run_step(unpacking, nn.Linear(3, 2), [X, Y], nn.CrossEntropyLoss())
    (note,) = caught.value.__notes__  # type: ignore[attr-defined]
    assert note.endswith("in `step(model, batch, loss_fn)`, for a batch that is a list of float32 (4, 3), int64 (4,).")
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied") as plain:
        run_step(default_step, nn.Linear(4, 2), (X, Y), nn.CrossEntropyLoss())
    assert not hasattr(plain.value, "__notes__")


def test_a_batch_that_cannot_be_read_asks_for_a_step() -> None:
    with pytest.raises(ValueError, match=r"keys \['tokens'\] has none of .* `step=` \(to `tune` train_options="):
        default_step(nn.Identity(), {"tokens": X}, nn.MSELoss())
    with pytest.raises(ValueError, match=r"type str cannot be read: pass a function .* `step=`"):
        default_step(nn.Identity(), "batch", nn.MSELoss())


def test_a_loss_of_several_numbers_is_refused_with_the_cure() -> None:
    with pytest.raises(ValueError, match=r"shape \(4,\).*`\.mean\(\)`"):
        run_step(default_step, nn.Linear(3, 2), (X, Y), nn.CrossEntropyLoss(reduction="none"))
    with pytest.raises(ValueError, match="returned float"):
        run_step(default_step, nn.Linear(3, 2), (X, Y), lambda output, target: 1.0)  # type: ignore[arg-type, return-value]


def test_a_complex_loss_is_refused_by_the_name_of_who_made_it() -> None:
    def loss_fn(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return (output - target).mean() * 1j

    with pytest.raises(
        ValueError, match=r"`loss_fn` must return a real number, but returned torch.complex64: take `\.abs"
    ):
        run_step(default_step, nn.Linear(3, 3), (X, X), loss_fn)
    with pytest.raises(ValueError, match="`step` must return a real number"):
        run_step(lambda *_: torch.ones((), dtype=torch.complex64), nn.Identity(), X, nn.MSELoss())


def test_a_hook_may_return_a_loss_alone() -> None:
    result = run_step(lambda model, batch, loss_fn: torch.ones(1), nn.Identity(), X, nn.MSELoss())
    assert result.loss.shape == ()
    assert result.output is None
    with pytest.raises(ValueError, match="returned 4 parts"):
        run_step(lambda model, batch, loss_fn: (1, 2, 3, 4), nn.Identity(), X, nn.MSELoss())


def test_samples_are_counted_in_nested_batches() -> None:
    assert count_samples((X, Y)) == 4
    assert count_samples({"name": "a", "x": [X]}) == 4
    assert count_samples(torch.tensor(1.0)) == 1


def test_moving_keeps_the_form_of_a_batch() -> None:
    moved = to_device({"a": (X, [Y]), "n": 3}, torch.device("cpu"))
    assert moved["n"] == 3
    assert torch.equal(moved["a"][1][0], Y)
    image = to_device(torch.ones(2, 3, 4, 4), torch.device("cpu"), channels_last=True)
    assert image.is_contiguous(memory_format=torch.channels_last)


def test_a_batch_without_numbers_is_refused_before_it_is_moved() -> None:
    with pytest.raises(ValueError, match=r"Data must hold numbers, but a tensor of shape \(5, 3\) is on 'meta'"):
        to_device({"x": [torch.ones(5, 3, device="meta")]}, torch.device("cpu"))


def test_only_classifications_have_an_accuracy() -> None:
    scores = torch.tensor([[0.0, 1.0], [1.0, 0.0]])

    def result(output: Any, target: Any) -> Any:
        return count_answers(run_step(lambda *_: (torch.ones(()), output, target), nn.Identity(), X, nn.MSELoss()))

    assert result(scores, torch.tensor([1, 1])).tolist() == [1, 2]
    assert result(scores, torch.tensor([1, -100])).tolist() == [1, 1]
    assert result(scores, torch.tensor([1.0, 1.0])) is None
    assert result(scores, scores) is None
    assert result(scores[:, :1], torch.tensor([0, 0])) is None
    assert result(None, None) is None


def test_samples_are_those_of_the_target_where_inputs_are_a_list_of_their_own() -> None:
    sequences = [torch.ones(n) for n in (7, 3)]
    packed = nn.utils.rnn.pack_sequence(sequences)
    for inputs in (sequences, packed):
        assert count_samples((inputs, torch.tensor([0, 1]))) == 2
    graph = {"edge_index": torch.ones(2, 9), "y": torch.ones(5)}
    assert samples_of(graph, StepResult(torch.ones(()), torch.ones(5, 2), graph["y"])) == 5
    assert samples_of(graph, StepResult(torch.ones(()))) == 2


def test_packed_sequences_move_with_their_batch_sizes_left_on_the_cpu() -> None:
    packed = nn.utils.rnn.pack_sequence([torch.ones(7, 2), torch.ones(3, 2)])
    moved, target = to_device((packed, Y), torch.device("meta"))
    assert (moved.data.device.type, moved.batch_sizes.device.type, target.device.type) == ("meta", "cpu", "meta")


def test_lists_of_samples_count_as_many_as_they_are_long() -> None:
    images = [torch.ones(3, 8, 8), torch.ones(3, 8, 9)]
    assert count_samples((images, [{"boxes": torch.ones(3, 4)}, {"boxes": torch.ones(3, 4)}])) == 2
    assert count_samples(((X, X, X), (Y, Y, Y))) == 4  # three inputs, three targets


def test_samples_that_stand_second_are_those_of_a_target_that_has_them_first() -> None:
    x = torch.ones(7, 2, 3)  # (sequence, batch, features)
    target = x.transpose(0, 1)
    assert samples_of((x, x), run_step(lambda *_: (x.mean(), None, target), nn.Identity(), x, nn.MSELoss())) == 2


def test_a_loss_that_is_no_tensor_is_that_of_the_one_who_made_it() -> None:
    with pytest.raises(ValueError, match="`step` must return a tensor with one number, but returned dict"):
        run_step(lambda *_: {"loss": torch.ones(())}, nn.Identity(), X, nn.MSELoss())
    with pytest.raises(ValueError, match="`loss_fn` must return a tensor with one number, but returned float"):
        run_step(default_step, nn.Identity(), (X, Y), lambda *_: 1.0)
    with pytest.raises(ValueError, match="`loss_fn` must return a tensor with one number, but returned float"):
        run_step(lambda *args: default_step(*args), nn.Identity(), (X, Y), lambda *_: 1.0)
