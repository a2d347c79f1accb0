from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from optuna_discipline.training.model_tensors import bias_and_norm
from optuna_discipline.training.model_tensors import check_inference_mode_left
from optuna_discipline.training.model_tensors import check_sparse
from optuna_discipline.training.model_tensors import tensors_of


def names(model: nn.Module) -> set[str]:
    exempt = {id(parameter) for parameter in bias_and_norm(model)}
    return {name for name, parameter in model.named_parameters() if id(parameter) in exempt}


@pytest.mark.parametrize(
    ("build", "exempt"),
    [
        (lambda: nn.Linear(2, 3), {"bias"}),
        (lambda: nn.LayerNorm((2, 2)), {"weight", "bias"}),
        (lambda: nn.GroupNorm(1, 4), {"weight", "bias"}),
        (lambda: nn.SyncBatchNorm(4), {"weight", "bias"}),
        (lambda: nn.LSTM(2, 3), {"bias_ih_l0", "bias_hh_l0"}),
        (lambda: nn.MultiheadAttention(4, 2, add_bias_kv=True), {"in_proj_bias", "out_proj.bias", "bias_k", "bias_v"}),
        (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(2, 3)), {"bias", "parametrizations.weight.original0"}),
        (lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(2, 3)), {"bias"}),
        (lambda: nn.ModuleDict({"embed": nn.Embedding(3, 2), "act": nn.PReLU()}), {"act.weight"}),
    ],
)
def test_biases_and_norms_are_told_by_their_module_and_name(build: Callable[[], nn.Module], exempt: set[str]) -> None:
    assert names(build()) == exempt


def test_a_norm_of_the_root_mean_square_is_one_of_whatever_shape() -> None:
    if not hasattr(nn, "RMSNorm"):
        pytest.skip("torch 2.2 has no RMSNorm")
    assert names(nn.RMSNorm((2, 3))) == {"weight"}


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
def test_the_magnitude_of_the_older_weight_norm_is_told_by_its_hook() -> None:
    assert names(nn.utils.weight_norm(nn.Linear(2, 3))) == {"bias", "weight_g"}
    model = nn.Linear(2, 3)
    model.weight_g = nn.Parameter(torch.ones(2, 2))
    assert names(model) == {"bias"}


def embedding(**options: Any) -> nn.Sequential:
    return nn.Sequential(nn.Embedding(4, 2, sparse=True, **options), nn.Flatten(), nn.Linear(2, 1))


class Plain(torch.optim.Optimizer):
    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, {"lr": 0.1})

    def step(self, closure: Any = None) -> Any:
        pass


class Renamed(torch.optim.AdamW):
    """Takes the step of torch's."""


class Densifying(torch.optim.AdamW):
    """Takes a step of its own, which may make any gradient one that torch's step takes."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        return super().step(closure)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (torch.optim.AdamW, "which AdamW does not take, but"),
        (Renamed, "which Renamed does not take, but"),
        (torch.optim.RMSprop, "which RMSprop does not take, but"),
        (torch.optim.SGD, "which SGD does not take with a weight decay, but"),
        (torch.optim.Adagrad, "which Adagrad does not take with a weight decay, but"),
    ],
)
def test_sparse_gradients_are_refused_where_the_optimizers_step_would_fail_on_them(kind: Any, words: str) -> None:
    model = embedding()
    optimizer = kind(model.parameters(), lr=0.1)
    rule = (
        rf"`model` must not make sparse gradients, {words} its module '0' has sparse=True: leave that out, or take SGD"
    )
    with pytest.raises(ValueError, match=rule):
        check_sparse(model, optimizer, model.parameters())
    with pytest.raises(ValueError, match="its module 'EmbeddingBag' has"):
        check_sparse(bag := nn.EmbeddingBag(4, 2, sparse=True), kind(bag.parameters(), lr=0.1), bag.parameters())
    model[0].requires_grad_(False)
    check_sparse(model, optimizer, model.parameters())


def test_sparse_gradients_are_taken_without_decay_by_another_optimizer_or_where_they_are_not_trained() -> None:
    model = embedding()
    for kind in (torch.optim.SGD, torch.optim.Adagrad):
        check_sparse(model, kind(model.parameters(), lr=0.1), model[2].parameters())
    check_sparse(model, torch.optim.AdamW(model[2].parameters()), model[2].parameters())
    for own in (Plain, Densifying):
        check_sparse(model, own(model.parameters()), model.parameters())
    dense = nn.Sequential(nn.Embedding(4, 2))
    check_sparse(dense, torch.optim.AdamW(dense.parameters()), dense.parameters())


def test_the_tensors_are_parameters_and_buffers_with_their_names() -> None:
    model = nn.BatchNorm1d(2, affine=False).requires_grad_(False)
    assert [name for name, _ in tensors_of(model)] == ["running_mean", "running_var", "num_batches_tracked"]
    assert next(tensors_of(nn.Linear(1, 1)))[0] == "weight"


def test_inference_mode_is_to_be_left() -> None:
    check_inference_mode_left()
    with torch.inference_mode(), pytest.raises(ValueError, match="never records: leave it"):
        check_inference_mode_left()
