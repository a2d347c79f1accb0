import functools
from typing import Any

import numpy as np
import pytest

from optuna_discipline.first_look import as_device
from optuna_discipline.first_look import check_optimizer
from optuna_discipline.first_look import check_options
from optuna_discipline.first_look import check_output
from optuna_discipline.first_look import first_batch
from optuna_discipline.first_look import first_target

torch = pytest.importorskip("torch")
nn = torch.nn


class _Rows(torch.utils.data.Dataset):  # type: ignore[misc, name-defined]
    def __init__(self, rows: list[Any]) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        return self.rows[index]


X, Y = torch.randn(8, 3), torch.arange(8) % 2


def test_the_first_batch_has_two_samples_of_what_is_cut_here() -> None:
    x, y = first_batch("val", (X, Y))
    assert x.shape == (2, 3)
    assert torch.equal(y, Y[:2])
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y), batch_size=4)
    assert [len(first_batch(name, loader)[0]) for name in ("train", "val")] == [2, 4]
    assert len(first_batch("val", [(X, Y)])[0]) == 8
    with pytest.raises(ValueError, match=r"`train` must be .* or a DataLoader, because the batch size .* got list"):
        first_batch("train", [(X, Y)])
    with pytest.raises(ValueError, match="`val` must be iterable 2 times, but a list_iterator is exhausted"):
        first_batch("val", iter([(X, Y)]))


def test_samples_that_make_no_batch_ask_for_a_loader_with_a_collate_fn() -> None:
    rows = [(torch.ones(n), n) for n in (1, 2, 3)]
    for name in ("train", "val"):
        with pytest.raises(
            ValueError, match=rf"`{name}` must give samples that make a batch.*: where they differ .* a `collate_fn`"
        ):
            first_batch(name, _Rows(rows))


def test_columns_that_are_no_arrays_are_told_from_a_loader() -> None:
    with pytest.raises(ValueError, match=r"`val` must be a tuple of tensors or arrays only.*tuple of dict and T"):
        first_batch("val", ({"a": X}, Y))


def test_training_data_without_a_length_cannot_be_counted_in_updates() -> None:
    class Endless(torch.utils.data.IterableDataset):  # type: ignore[misc, name-defined]
        def __iter__(self) -> Any:
            return iter(zip(X, Y, strict=True))

    assert len(first_batch("val", Endless())) == 2
    with pytest.raises(ValueError, match=r"`train` must have a length.* but Endless has none"):
        first_batch("train", Endless())


def test_a_target_is_the_last_part_of_a_batch_its_key_or_the_batch_itself() -> None:
    for batch in ((X, Y), (X, X, Y), {"input": X, "label": Y}):
        assert first_target(batch) is Y
    assert first_target(X) is X
    assert first_target({"tokens": X}, step=print) is None
    with pytest.raises(ValueError, match=r"must yield \(input, target\) pairs or a `step` must read them"):
        first_target({"tokens": X})


def test_a_loss_must_be_one_number_and_the_model_stays_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    settings: dict[str, Any] = {"metric": "val_loss", "own_loss": True}
    for batch, loss_fn in (((X, Y), nn.CrossEntropyLoss()), ((X, [1, 2]), lambda output, target: output.sum())):
        check_output("val", model, batch, loss_fn, torch.device("cpu"), **settings)
    assert model.training
    assert model[1].num_batches_tracked == 0
    with pytest.raises(ValueError, match=r"`loss_fn` must return one number .* shape \(8,\): average it"):
        check_output("val", model, (X, Y), nn.CrossEntropyLoss(reduction="none"), torch.device("cpu"), **settings)


def test_what_the_loss_does_not_take_is_named_with_its_cure() -> None:
    class Two(nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, x: Any) -> Any:
            return x, x.mean()

    cross_entropy, labels = nn.functional.cross_entropy, torch.ones(8, 3, dtype=torch.int64)
    for model, target, own, message in (
        (Two(), Y, False, "for a tuple of .* it raised TypeError .*: let the model return what the loss takes"),
        (Two(), Y, True, "for a tuple of Tensor and torch.int64 .*or pass a `step` in `train_options`"),
        (nn.Linear(3, 3), labels, False, r"torch.int64 \(8, 3\) of `val` it raised RuntimeError .* float targets"),
        (nn.Linear(3, 1), Y, False, r"float32 \(8, 1\) .* it raised IndexError .* for each class; for a single score,"),
        (nn.Linear(3, 3), labels, True, "it raised RuntimeError .*: change the shape or dtype of one of them"),
    ):
        with pytest.raises(ValueError, match=message):
            check_output("val", model, (X, target), cross_entropy, torch.device("cpu"), metric="val_loss", own_loss=own)


def test_inputs_of_other_floats_than_the_model_s_are_named_with_their_cure() -> None:
    settings: dict[str, Any] = {"metric": "val_loss", "own_loss": True}
    batch, device = (torch.randn(8, 3).double(), torch.randn(8, 1)), torch.device("cpu")
    with pytest.raises(
        ValueError, match=r"make the inputs `.to\(torch.float32\)`, or the model `.to\(torch.float64\)`"
    ):
        check_output("val", nn.Linear(3, 1), batch, nn.MSELoss(), device, **settings)
    check_output("val", nn.Linear(3, 1).double(), batch, nn.MSELoss(), device, **settings)
    for layer in (nn.LayerNorm(3), nn.LSTM(3, 1)):
        with pytest.raises(ValueError, match=r"make the inputs `.to\(torch.float32\)`"):
            check_output("val", layer, batch, nn.MSELoss(), device, **settings)
    with pytest.raises(ValueError, match=r"checking arguments for embedding\)$"):  # wants integers
        check_output("val", nn.Embedding(4, 1), batch, nn.MSELoss(), device, **settings)
    with pytest.raises(ValueError, match=r"multiplied \(8x3 and 4x1\)$"):
        check_output("val", nn.Linear(4, 1), (batch[0].float(), batch[1]), nn.MSELoss(), device, **settings)


def test_a_loss_that_would_stretch_the_targets_over_the_outputs_is_refused() -> None:
    x, y, device = torch.randn(8, 3), torch.randn(8), torch.device("cpu")
    f = nn.functional

    class Named(nn.MSELoss):  # type: ignore[misc, name-defined]
        pass

    class Squeezing(nn.MSELoss):  # type: ignore[misc, name-defined]
        def forward(self, output: Any, target: Any) -> Any:
            return super().forward(output.squeeze(1), target)

    losses = (nn.MSELoss(), nn.L1Loss(), nn.SmoothL1Loss(), nn.HuberLoss(), functools.partial(f.huber_loss, delta=2))
    others = (nn.PoissonNLLLoss(), f.poisson_nll_loss, nn.KLDivLoss(reduction="batchmean"), nn.HingeEmbeddingLoss())
    wrapped = (nn.MultiLabelSoftMarginLoss(), Named(), nn.MSELoss().forward, functools.partial(nn.MSELoss()))
    for loss_fn, own in (*((one, True) for one in losses + others + wrapped), (f.mse_loss, False)):
        settings: dict[str, Any] = {"metric": "val_loss", "own_loss": own}
        with pytest.raises(ValueError, match=r"outputs of the targets' shape.* \(8, 1\) and .* \(8,\): reshape one"):
            check_output("train", nn.Linear(3, 1), (x, y), loss_fn, device, **settings)
        check_output("train", nn.Linear(3, 1), (x, y[:, None]), loss_fn, device, **settings)
    own_words = lambda output, target: f.mse_loss(output.squeeze(1), target)  # noqa: E731
    for loss_fn in (own_words, Squeezing()):
        check_output("train", nn.Linear(3, 1), (x, y), loss_fn, device, metric="val_loss", own_loss=True)


def test_a_step_is_looked_at_as_the_validation_runs_it() -> None:
    model, settings = nn.Linear(3, 2), {"metric": "val_accuracy", "own_loss": True}

    def loss_alone(model: Any, batch: Any, loss_fn: Any) -> Any:
        assert not model.training
        return loss_fn(model(batch[0]), batch[1])

    def with_output(model: Any, batch: Any, loss_fn: Any) -> Any:
        output = model(batch[0])
        return loss_fn(output, batch[1]), output, batch[1]

    def look(step: Any, **changes: Any) -> None:
        given: Any = {**settings, **changes}
        check_output("val", model, (X, Y), nn.functional.cross_entropy, torch.device("cpu"), step=step, **given)

    look(with_output)
    look(loss_alone, metric="val_loss")
    with pytest.raises(ValueError, match=r"needs a `step` that returns \(loss, output, target\), .* have no output"):
        look(loss_alone)
    with pytest.raises(ValueError, match="`step` must return a tensor with one number"):
        look(lambda model, batch, loss_fn: 1.0)
    with pytest.raises(TypeError, match="indices must be"):
        look(lambda model, batch, loss_fn: model(batch["x"]))


def test_a_model_that_does_not_take_the_data_is_named_with_their_shape() -> None:
    settings: dict[str, Any] = {"metric": "val_loss", "own_loss": False}
    with pytest.raises(ValueError, match=r"`build_model` must .* samples of `val`, shape \(8, 3\): RuntimeError: mat1"):
        check_output("val", nn.Linear(5, 2), (X, Y), nn.CrossEntropyLoss(), torch.device("cpu"), **settings)


def test_a_batch_of_the_training_is_run_in_train_mode_with_gradients_and_leaves_the_random_state() -> None:
    class Own(nn.Linear):  # type: ignore[misc, name-defined]
        def forward(self, x: Any) -> Any:
            seen.append((self.training, torch.is_grad_enabled(), np.random.rand()))
            return super().forward(x)

    seen: list[Any] = []
    model, before = Own(3, 2).eval(), np.random.get_state()[2]
    for name in ("train", "val"):
        settings: dict[str, Any] = {"metric": "val_loss", "own_loss": False}
        check_output(name, model, (X, Y), nn.functional.cross_entropy, torch.device("cpu"), **settings)
    assert [look[:2] for look in seen] == [(True, True), (False, False)]
    assert (model.training, np.random.get_state()[2]) == (False, before)


@pytest.mark.parametrize("device", ["meta", "vulkan"])
def test_a_device_that_cannot_compute_is_refused(device: str) -> None:
    with pytest.raises(ValueError, match=f"`device` must be one on which torch can compute here, .* got '{device}'"):
        as_device(device)


def test_the_first_gpu_is_not_the_cpu() -> None:
    if torch.cuda.is_available():
        assert as_device(0) == torch.device("cuda:0")
    else:
        with pytest.raises(ValueError, match=r"torch sees no GPU here|such as 'cpu' or 'cuda'"):  # by torch's version
            as_device(0)


def test_an_optimizer_that_tune_does_not_know_names_the_one_meant_or_the_way_to_ones_own() -> None:
    names = ("sgd", "adamw", "adam")
    check_optimizer("adam", names)
    for given in ("AdamW", torch.optim.AdamW):
        with pytest.raises(ValueError, match=r"`optimizer` must be one of 'sgd', .* did you mean 'adamw'\?$"):
            check_optimizer(given, names)
    for given in ("lion", torch.optim.RMSprop, lambda params, lr: torch.optim.SGD(params, lr), 3):
        with pytest.raises(ValueError, match=r"but got .*: train by it in an objective of your own, .*`train_epochs"):
            check_optimizer(given, names)


def test_options_that_tune_chooses_are_refused() -> None:
    check_options({"amp": "bf16", "step": print})
    with pytest.raises(ValueError, match=r"`train_options` may hold 'decay_bias_and_norm', .* but got 'seed'"):
        check_options({"seed": 3})


@pytest.mark.parametrize("wrap", [lambda x: {"logits": x}, lambda x: (x, x), lambda x: [x]])
def test_an_accuracy_that_cannot_be_counted_is_refused_whatever_the_model_returns(wrap: Any) -> None:
    class Wrapped(nn.Linear):  # type: ignore[misc, name-defined]
        def forward(self, x: Any) -> Any:
            return wrap(super().forward(x))

    def loss(output: Any, target: Any) -> Any:
        return nn.functional.cross_entropy(output["logits"] if isinstance(output, dict) else output[0], target)

    def look(name: str, metric: Any) -> None:
        check_output(name, Wrapped(3, 2), (X, Y), loss, torch.device("cpu"), metric=metric, own_loss=True)

    look("val", "val_loss")
    look("train", "val_accuracy")
    with pytest.raises(ValueError, match=r"accuracy'` needs outputs .* an output of a?.*: return these .*'val_loss'"):
        look("val", "val_accuracy")


def test_an_accuracy_that_means_nothing_to_the_loss_is_refused_unless_asked_for() -> None:
    def pull(output: Any, target: Any) -> Any:  # of embeddings: those of a class are alike
        alike = (output @ output.T).clamp(max=1)
        return (alike - (target[:, None] == target[None]).float()).pow(2).mean()

    settings: dict[str, Any] = {"metric": "val_accuracy", "own_loss": True}
    look = functools.partial(check_output, "val", nn.Linear(3, 4), (X, Y), pull, torch.device("cpu"))
    with pytest.raises(ValueError, match=r"accuracy'` takes the largest output .* train_options={'accuracy': True}"):
        look(**settings)
    look(**settings, accuracy=True)
    look(metric="val_loss", own_loss=True)
