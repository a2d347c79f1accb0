import functools
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


def test_targets_that_are_not_asked_say_nothing_against_a_loss() -> None:
    def loss_fn(output: Any, target: Any) -> Any:
        return f.cross_entropy(output, target)

    for target in (torch.tensor([-100, 2] * 4), torch.full((8,), -100)):
        assert favours_target(loss_fn, X, target)


def test_a_loss_of_embeddings_of_ranks_or_one_that_raises_favours_no_target() -> None:
    def pairs(output: Any, target: Any) -> Any:
        return ((torch.cdist(output, output) - 1) * (2 * (target[:, None] == target[None]).float() - 1)).mean()

    def norms(output: Any, target: Any) -> Any:
        return (output.norm(dim=1) * (2 * target - 1)).mean() + output.pow(2).mean()

    def refusing(output: Any, target: Any) -> Any:
        raise RuntimeError("wants unit vectors")

    for loss_fn in (pairs, norms, refusing, lambda output, target: output.mean() * float("nan")):
        assert not favours_target(loss_fn, X, Y)


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
