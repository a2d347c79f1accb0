import functools
import math
import warnings
from typing import Any

import pytest

from optuna_discipline.losses import count_classes
from optuna_discipline.losses import default_loss
from optuna_discipline.losses import favours_target
from optuna_discipline.losses import is_cross_entropy
from optuna_discipline.losses import kind_of
from optuna_discipline.losses import warn_of_multi_hot

torch = pytest.importorskip("torch")
nn, f = torch.nn, torch.nn.functional

X, Y = torch.randn(8, 3), torch.arange(8) % 2


def test_a_loss_follows_the_target() -> None:
    assert default_loss(Y) is nn.functional.cross_entropy
    assert default_loss(X) is nn.functional.mse_loss
    for target, message in (
        (Y.bool(), "for targets of torch.bool"),
        (X.to(torch.complex64), "for targets of torch.complex64"),
        ([X, Y], "where the target is no tensor, but it is list"),
    ):
        with pytest.raises(ValueError, match=f"`loss_fn` must be given {message}"):
            default_loss(target)


@pytest.mark.parametrize(
    ("loss_fn", "known"),
    [
        (nn.functional.cross_entropy, True),
        (nn.CrossEntropyLoss(label_smoothing=0.1), True),
        (nn.NLLLoss(), True),
        (functools.partial(nn.functional.cross_entropy, label_smoothing=0.1), True),
        (functools.partial(nn.functional.cross_entropy, reduction="sum"), False),
        (nn.CrossEntropyLoss(reduction="sum"), False),
        (nn.MSELoss(), False),
        (lambda output, target: nn.functional.cross_entropy(output, target), False),
    ],
)
def test_torchs_own_cross_entropy_is_known(loss_fn: Any, known: bool) -> None:
    assert is_cross_entropy(loss_fn) == known


@pytest.mark.parametrize(
    "loss_fn",
    [
        f.cross_entropy,
        lambda output, target: 100 * f.cross_entropy(output / 20, target),
        functools.partial(f.cross_entropy, reduction="sum"),
        nn.CrossEntropyLoss(weight=torch.tensor([0.1, 1.0, 2.0])),
        nn.MultiMarginLoss(),
        lambda output, target: f.nll_loss(output.clamp(min=1e-3).log(), target),
        lambda output, target: f.mse_loss(output, f.one_hot(target, 3).float()),
        lambda output, target: ((1 - f.log_softmax(output, 1).exp()) ** 2 * -f.log_softmax(output, 1))[
            range(len(target)), target
        ].mean(),
    ],
)
def test_the_loss_of_a_classification_favours_the_target_however_it_is_written(loss_fn: Any) -> None:
    assert favours_target(loss_fn, X, Y)


def test_first_samples_that_are_not_asked_or_weigh_nothing_say_nothing_against_a_loss() -> None:
    def ignoring(output: Any, target: Any) -> Any:
        return f.cross_entropy(output, target, ignore_index=1, reduction="sum")

    def weighing(output: Any, target: Any) -> Any:
        return f.cross_entropy(output, target, weight=torch.tensor([1.0, 0.0, 1.0]))

    for target in (torch.tensor([-100, 2] * 4), torch.full((8,), -100), torch.ones(8, dtype=torch.int64)):
        assert favours_target(ignoring, X, target)
        assert favours_target(weighing, X, target)


def test_small_losses_and_those_of_many_classes_favour_the_target() -> None:
    def squares(output: Any, target: Any) -> Any:
        return f.mse_loss(output.softmax(1), f.one_hot(target, output.shape[1]).float())

    assert favours_target(lambda output, target: 1e-6 * f.cross_entropy(output, target), X, Y)
    assert favours_target(squares, torch.zeros(2, 10_000), Y[:2])


def test_noise_in_a_loss_changes_no_answer_and_the_random_state_stays() -> None:
    def noisy(output: Any, target: Any) -> Any:
        return f.cross_entropy(output + 3 * torch.randn_like(output), target)

    for seed in range(9):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        assert favours_target(noisy, torch.zeros(2, 10), Y[:2])
        assert torch.equal(torch.get_rng_state(), before)


def test_a_loss_with_a_state_sees_no_made_up_outputs() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(()))
            self.sign = 1.0

        def forward(self, output: Any, target: Any) -> Any:
            self.seen += 1
            return self.sign * f.cross_entropy(output, target) - 9 * self.seen  # each call would be the lowest

    loss_fn = Counting()
    assert favours_target(loss_fn, X, Y)
    loss_fn.sign = -1.0
    assert not favours_target(loss_fn, X, Y)
    loss_fn.last = torch.ones(1, requires_grad=True) * 2  # which cannot be copied
    assert favours_target(loss_fn, X, Y)
    assert not loss_fn.seen


def test_a_loss_that_raises_or_is_not_finite_for_made_up_outputs_does_not_say() -> None:
    def refusing(output: Any, target: Any) -> Any:
        raise RuntimeError("wants log-probabilities")

    for bad in (math.nan, math.inf, -math.inf):
        assert favours_target(lambda output, target, bad=bad: output.mean() + bad, X, Y)
    assert favours_target(lambda output, target: (0.5 - output[range(6), target]).sqrt().mean(), X, Y)
    assert favours_target(lambda output, target: -output[range(6), target].log().mean(), X, Y)
    assert favours_target(lambda output, target: output[range(6), target].log().mean(), X, Y)
    assert favours_target(refusing, X, Y)


def test_a_loss_of_embeddings_or_of_ranks_favours_no_target() -> None:
    def pairs(output: Any, target: Any) -> Any:
        return ((torch.cdist(output, output) - 1) * (2 * (target[:, None] == target[None]).float() - 1)).mean()

    def supervised_contrast(output: Any, target: Any) -> Any:
        own = torch.eye(len(target), dtype=torch.bool)
        alike = (f.normalize(output) @ f.normalize(output).T / 0.2).masked_fill(own, -1e9).log_softmax(1)
        pair = (target[:, None] == target[None]) & ~own
        return -((alike * pair).sum(1) / pair.sum(1).clamp(min=1))[pair.any(1)].mean()

    def triplets(output: Any, target: Any) -> Any:
        far, same = torch.cdist(output, output), target[:, None] == target[None]
        return (far[:, :, None] - far[:, None] + 2)[same[:, :, None] & ~same[:, None]].relu().mean()

    def cosines(output: Any, target: Any) -> Any:
        near = f.normalize(output) @ f.normalize(output).T
        return torch.where(target[:, None] == target[None], 1 - near, (near - 0.2).relu()).mean()

    def norms(output: Any, target: Any) -> Any:
        return (output.norm(dim=1) * (2 * target - 1)).mean() + output.pow(2).mean()

    for loss_fn in (pairs, supervised_contrast, triplets, cosines, norms):
        for n_columns in (2, 16, 128):
            assert not favours_target(loss_fn, torch.zeros(2, n_columns), Y[:2])  # which make no pair


def test_a_loss_that_is_lower_by_rounding_only_or_lowest_at_a_third_class_favours_no_target() -> None:
    assert not favours_target(lambda output, target: 1 + 5e-7 * (output.argmax(1) != target).float().mean(), X, Y)
    assert not favours_target(
        lambda output, target: f.cross_entropy(output, target) + 2 * f.cross_entropy(output, (target + 2) % 3), X, Y
    )


def test_classes_are_counted_where_targets_are_indices() -> None:
    batches = [(X, Y), (X, torch.full((8,), 4))]
    assert count_classes(Y, batches) == 5
    assert count_classes(Y, [(X, torch.zeros(8, dtype=torch.int64))]) is None
    for other in (X, X[:, 0], Y.bool(), Y[:, None], [1, 2]):
        assert count_classes(other, batches) is None


def test_several_labels_in_floats_are_warned_of() -> None:
    labels = (X > 0).float()
    with pytest.warns(UserWarning, match=r"All targets are 0 or 1 in several columns.*BCEWithLogitsLoss"):
        warn_of_multi_hot(labels[:2], [(X, labels)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for first, rest in (
            (labels[:2], X),
            (0 * labels, 0 * labels),
            (labels[:, :1], labels),
            (labels[:, 0], labels),
            (Y, labels),
        ):
            warn_of_multi_hot(first, [(X, rest)])


def test_a_kind_is_told_in_words() -> None:
    assert [kind_of(x) for x in ([1], (1, 2.0, 3), ())] == ["list", "a tuple of int and float", "tuple"]
