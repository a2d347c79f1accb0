import math
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optuna_discipline import complexity_of
from optuna_discipline import weight_decay_candidates
from optuna_discipline.rules.complexity import Sizes
from optuna_discipline.rules.complexity import judge
from optuna_discipline.rules.complexity import sizes_of


class _Parameter:
    def __init__(self, *shape: int, requires_grad: bool = True) -> None:
        self.ndim = len(shape)
        self.requires_grad = requires_grad
        self._count = math.prod(shape)

    def numel(self) -> int:
        return self._count


class _Model:
    def __init__(self, *parameters: _Parameter) -> None:
        self._parameters = parameters

    def parameters(self) -> Any:
        return iter(self._parameters)


def _net(depth: int) -> _Model:
    return _Model(*(p for _ in range(depth) for p in (_Parameter(64, 64), _Parameter(64))))


@pytest.mark.parametrize(
    ("depth", "n_samples", "n_classes", "expected"),
    [
        (3, 1_000, 10, "shallow"),  # a small net on digits
        (42, 1_000, 10, "shallow"),  # a deep one on so few samples
        (42, 9_999, 10, "shallow"),
        (42, 10_000, 10, "complex"),
        (5, 50_000, 10, "shallow"),  # the paper's 3 convolutions on CIFAR-10
        (10, 50_000, 10, "moderate"),
        (56, 50_000, 10, "complex"),  # resnet-56 on CIFAR-10
        (50, 1_281_167, 1000, "complex"),  # resnet-50 on ImageNet
        (5, 1_281_167, 1000, "moderate"),
        (5, 50_000, 1000, "moderate"),
    ],
)
def test_complexity_follows_depth_and_data(depth: int, n_samples: int, n_classes: int, expected: str) -> None:
    assert complexity_of(_net(depth), n_samples, n_classes) == expected


def test_frozen_parameters_do_not_count() -> None:
    frozen = [_Parameter(9, 9, requires_grad=False)] * 60
    assert complexity_of(_Model(*frozen, _Parameter(9, 9)), 50_000, 10) == "shallow"
    with pytest.raises(ValueError, match="`model` must have trainable parameters"):
        complexity_of(_Model(*frozen), 100, 10)


def test_complexity_of_something_else_is_refused() -> None:
    with pytest.raises(TypeError, match="`model` must be a torch module"):
        complexity_of("resnet", 100, 10)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`n_samples` must be a number from 1 on"):
        complexity_of(_net(3), 0, 10)


# Layers, samples, classes, numbers an input, and the weight decay that the paper uses or names as best.
PAPER = {
    "3 layers, CIFAR-10, figure 4a": (4, 50_000, 10, 3_072, 4e-3),
    "3 layers, CIFAR-10, figure 12a": (4, 50_000, 10, 3_072, 3e-3),
    "LeNet, MNIST": (4, 60_000, 10, 784, 5e-4),
    "resnet-56, CIFAR-10, figure 11b": (56, 50_000, 10, 3_072, 1e-4),
    "wide resnet-32, CIFAR-10, figure 13a": (32, 50_000, 10, 3_072, 1e-4),
    "resnet-50, ImageNet, figure 4b": (50, 1_281_167, 1_000, 150_528, 1e-7),
    "inception-resnet-v2, ImageNet": (200, 1_281_167, 1_000, 150_528, 3e-6),
}


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_best_weight_decays_lie_within_the_candidates(name: str) -> None:
    depth, n_samples, n_classes, input_size, best = PAPER[name]
    found = weight_decay_candidates(_net(depth), n_samples, n_classes=n_classes, input_size=input_size)
    assert min(found) <= best <= max(found)


def test_training_data_tell_samples_classes_and_input_size() -> None:
    images, labels = np.zeros((40, 3, 8, 8)), np.arange(40) % 7
    assert sizes_of(None, (images, labels)) == Sizes(n_samples=40, n_classes=7, input_size=192)
    assert sizes_of(None, (images, labels * 0.5)) == Sizes(n_samples=40, input_size=192)
    assert sizes_of(None, [(images[0], 1), (images[1], 2)]) == Sizes(n_samples=2, input_size=192)
    assert sizes_of(None, (images, labels), n_classes=100, input_size=9) == Sizes(None, 40, 100, None, 9)
    assert sizes_of(_net(3), 40) == Sizes(n_parameters=3 * 64 * 65, n_samples=40, depth=3)
    with pytest.raises(TypeError, match=r"`n_samples` must be a number, a tuple .* got generator"):
        sizes_of(None, (x for x in ()))


@pytest.mark.parametrize("name", ["n_classes", "input_size"])
def test_a_size_of_nothing_is_refused_beside_data_too(name: Any) -> None:
    for data in (40, (np.zeros((40, 8)), np.arange(40) % 7)):
        with pytest.raises(ValueError, match=f"`{name}` must be a number from 1 on or None, but got 0"):
            complexity_of(_net(3), data, **{name: 0})


def test_a_complaint_names_the_argument_that_was_given() -> None:
    with pytest.raises(TypeError, match=r"`data` must be a number, a tuple \(inputs, targets\) .* got generator"):
        weight_decay_candidates(_net(3), (x for x in ()))
    with pytest.raises(TypeError, match=r"`data` must be a number, a tuple of tensors .* got a tuple of list, list"):
        weight_decay_candidates(_net(3), ([1, 2], [3, 4]))
    with pytest.raises(TypeError, match="`model` must be a torch module with `parameters\\(\\)`, but got None"):
        complexity_of(None, 20_000)  # type: ignore[arg-type]


def test_every_part_of_a_tuple_holds_all_samples_and_the_last_is_the_target() -> None:
    images, labels = np.zeros((40, 3, 8, 8)), np.arange(40) % 7
    assert sizes_of(None, (images, np.ones(40), labels)) == Sizes(n_samples=40, n_classes=7, input_size=192)
    assert sizes_of(None, (images,)) == Sizes(n_samples=40, input_size=192)
    assert sizes_of(None, (labels,)) == Sizes(n_samples=40, input_size=1)


@pytest.mark.parametrize("targets", [[0] * 20_000, None, "abc"])
def test_a_tuple_that_is_not_of_arrays_is_no_data(targets: Any) -> None:
    with pytest.raises(TypeError, match=r"tuple of tensors or arrays .* got a tuple of ndarray, .*: make each part an"):
        complexity_of(_net(56), (np.zeros((20_000, 3)), targets))
    with pytest.raises(TypeError, match=r"`n_samples` must be a number, a tuple"):
        complexity_of(_net(56), ())


def test_a_torch_data_set_tells_what_it_can() -> None:
    torch = pytest.importorskip("torch")
    labels = torch.arange(12) % 2
    data = torch.utils.data.TensorDataset(torch.zeros(12, 1, 4, 4), labels)
    assert sizes_of(torch.nn.Linear(2, 2), data) == Sizes(6, 12, 2, 1, 16)
    assert sizes_of(None, torch.utils.data.Subset(data, range(10))) == Sizes(None, 10, 2, None, 16)
    assert sizes_of(None, (torch.zeros(12, 4), labels)) == Sizes(n_samples=12, n_classes=2, input_size=4)


def test_integers_are_classes_only_where_few_of_them_differ() -> None:
    inputs, prices = np.zeros((1000, 4)), np.arange(100_000, 700_000, 600)
    assert sizes_of(None, (inputs, prices)).n_classes is None
    assert sizes_of(None, (inputs, prices // 600 % 200)).n_classes == 200
    assert sizes_of(None, (inputs, prices // 600 % 201)).n_classes is None
    assert sizes_of(None, (inputs, np.arange(1000) % 200), n_classes=1).n_classes == 1  # a regression


def test_a_list_holds_one_sample_each_and_a_list_of_numbers_is_no_data() -> None:
    images_and_masks = [(np.zeros((8, 8)), np.zeros((8, 8)))] * 200
    assert sizes_of(None, images_and_masks) == Sizes(n_samples=200, input_size=64)
    assert sizes_of(None, [[np.zeros((12, 8)), np.arange(12) % 2]] * 100) == Sizes(n_samples=100, input_size=96)
    with pytest.raises(TypeError, match=r"`n_samples` must be a number, .* got list: a list of numbers is none of"):
        complexity_of(_net(3), [20_000])


def test_a_look_at_an_item_draws_no_random_number() -> None:
    torch = pytest.importorskip("torch")

    class Augmented:
        def __len__(self) -> int:
            return 5

        def __getitem__(self, index: Any) -> Any:
            return np.zeros(3) + random.random() + np.random.rand() + float(torch.rand(())), 1

    def draws() -> tuple[float, float, float]:
        random.seed(0)
        np.random.seed(0)
        torch.manual_seed(0)
        if look:
            assert sizes_of(None, Augmented()) == Sizes(n_samples=5, input_size=3)
        return random.random(), np.random.rand(), float(torch.rand(()))

    look = False
    untouched = draws()
    look = True
    assert draws() == untouched


def test_an_iterable_data_set_with_a_length_tells_its_samples() -> None:
    torch = pytest.importorskip("torch")

    class Stream(torch.utils.data.IterableDataset):  # type: ignore[misc]
        def __iter__(self) -> Any:
            return iter(())

        def __len__(self) -> int:
            return 40

    assert sizes_of(None, Stream()) == Sizes(n_samples=40)


@pytest.mark.filterwarnings("ignore:.*weight_norm")
def test_depth_counts_each_layer_once_and_no_norm() -> None:
    nn = pytest.importorskip("torch").nn
    from torch.nn.utils import parametrizations

    def depth(*modules: Any) -> int | None:
        return sizes_of(nn.Sequential(*modules)).depth

    class ByHand(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            for i in range(5):
                setattr(self, f"W_l{i % 3}_{i}", nn.Parameter(nn.Linear(2, 2).weight))

    normed = [parametrizations.weight_norm(nn.Linear(4, 4)) for _ in range(3)]
    assert depth(*normed, nn.Linear(4, 1)) == 4
    assert depth(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), nn.LayerNorm((3, 8, 8))) == 1
    assert depth(nn.LSTM(4, 4, num_layers=5, bidirectional=True, proj_size=2)) == 5
    assert depth(parametrizations.weight_norm(nn.GRU(4, 4), "weight_hh_l0"), nn.GRUCell(4, 4)) == 2
    attention = nn.MultiheadAttention(4, 2, kdim=3, vdim=3, add_bias_kv=True)
    assert depth(nn.Embedding(9, 4), nn.MultiheadAttention(4, 2), attention) == 1 + 2 + 2
    matrices = [nn.Linear(2, 2).weight for _ in range(4)]
    assert depth(ByHand(), nn.ParameterList(matrices), nn.ParameterDict({"a": matrices[0], "b": ByHand().W_l0_0})) == 10
    assert depth(nn.utils.weight_norm(nn.Linear(4, 4)), nn.utils.weight_norm(nn.LSTM(4, 4), "weight_hh_l0")) == 2
    tied = nn.Linear(4, 9)
    tied.weight = nn.Embedding(9, 4).weight
    assert sizes_of(nn.ModuleList([tied, tied])).depth == 1


def test_a_model_without_shapes_and_a_class_are_named() -> None:
    nn = pytest.importorskip("torch").nn
    with pytest.raises(ValueError, match="`model` must have its shapes, but has lazy parameters: run one batch"):
        complexity_of(nn.LazyLinear(3), 20_000)
    with pytest.raises(TypeError, match=r"`model` must be a torch module .* got the class Linear: make one"):
        complexity_of(nn.Linear, 20_000)


@given(st.integers(1, 200), st.integers(1, 10**7), st.integers(2, 2_000), st.integers(1, 10**6))
def test_more_of_anything_never_asks_for_more_weight_decay(depth: int, n: int, classes: int, size: int) -> None:
    order = ("shallow", "moderate", "complex")

    def rank(**changes: int) -> int:
        sizes: dict[str, int] = {"depth": depth, "n_samples": n, "n_classes": classes, "input_size": size, **changes}
        return order.index(judge(Sizes(**sizes)))

    for name, value in {"depth": depth, "n_samples": n, "n_classes": classes, "input_size": size}.items():
        assert rank(**{name: 2 * value}) >= rank()


def test_bare_inputs_are_data_and_a_text_is_not() -> None:
    assert sizes_of(None, np.zeros((5, 3, 4))) == Sizes(n_samples=5, input_size=12)
    with pytest.raises(TypeError, match="`n_samples` must be a number or training data, but got '50000'"):
        sizes_of(None, "50000")
