import copy
import math
from typing import Any

import pytest
import torch
from torch import nn

from optuna_discipline.exceptions import DisciplineError
from optuna_discipline.training.optimizers import build_optimizer
from optuna_discipline.training.optimizers import is_adam_like
from optuna_discipline.training.optimizers import lr_ratios
from optuna_discipline.training.optimizers import set_hyperparams


@pytest.fixture
def model() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))


def test_sgd_takes_nesterov_and_falls_back_to_plain_without_momentum(model: nn.Module) -> None:
    assert build_optimizer(model, lr=0.1, momentum=0.9).param_groups[0]["nesterov"] is True
    assert build_optimizer(model, lr=0.1, momentum=0.9, nesterov=False).param_groups[0]["nesterov"] is False
    assert build_optimizer(model, lr=0.1, momentum=0.0).param_groups[0]["nesterov"] is False


@pytest.mark.parametrize(("kind", "type_"), [("adamw", torch.optim.AdamW), ("adam", torch.optim.Adam)])
def test_momentum_means_beta1_for_adam(model: nn.Module, kind: str, type_: type) -> None:
    optimizer = build_optimizer(model, kind, lr=1e-3, momentum=0.95, weight_decay=1e-2)  # type: ignore[arg-type]
    assert type(optimizer) is type_
    assert optimizer.param_groups[0]["betas"] == (0.95, 0.999)
    assert optimizer.param_groups[0]["weight_decay"] == 1e-2
    set_hyperparams(optimizer, momentum=0.85)
    assert optimizer.param_groups[0]["betas"] == (0.85, 0.999)
    assert is_adam_like(optimizer)


def test_biases_and_norms_stay_without_weight_decay_if_asked(model: nn.Module) -> None:
    optimizer = build_optimizer(model, lr=0.1, weight_decay=1e-3, decay_bias_and_norm=False)
    set_hyperparams(optimizer, weight_decay=5e-4)
    decay = {p.ndim > 1: g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert decay == {True: 5e-4, False: 0.0}
    assert sum(len(g["params"]) for g in optimizer.param_groups) == len(list(model.parameters()))


def test_a_shared_parameter_decays_once_and_a_norm_of_two_dimensions_not_at_all() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm((2, 2)), nn.Linear(2, 2))
    model[2].weight, model[2].bias = model[0].weight, model[0].bias
    optimizer = build_optimizer(model, lr=0.1, weight_decay=1e-3, decay_bias_and_norm=False)
    held = [[id(parameter) for parameter in group["params"]] for group in optimizer.param_groups]
    assert held == [[id(model[0].weight)], [id(p) for p in (model[0].bias, model[1].weight, model[1].bias)]]


def test_groups_keep_their_lr_ratios_also_after_a_lr_of_0(model: nn.Sequential) -> None:
    optimizer = torch.optim.SGD(
        [{"params": model[0].parameters(), "lr": 0.1}, {"params": model[2].parameters(), "lr": 0.01}], lr=1.0
    )
    for lr in (1.0, 0.0, 0.5):
        set_hyperparams(optimizer, lr=lr)
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.5, 0.05])
    assert lr_ratios(optimizer) == pytest.approx([1.0, 0.1])


def test_the_ratios_are_those_of_the_initial_lr_where_a_scheduler_left_it(model: nn.Sequential) -> None:
    optimizer = torch.optim.SGD(
        [{"params": model[0].parameters(), "lr": 0.1}, {"params": model[2].parameters(), "lr": 0.01}], lr=1.0
    )
    torch.optim.lr_scheduler.StepLR(optimizer, 1)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    set_hyperparams(optimizer, lr=1.0)
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([1.0, 0.1])


def test_a_group_added_after_a_training_has_the_ratio_it_would_have_had_before(model: nn.Sequential) -> None:
    optimizer = torch.optim.SGD(model[2].parameters(), lr=0.1)
    for lr in (0.1, 1e-5):  # a cycle up to 0.1 that has ended
        set_hyperparams(optimizer, lr=lr)
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    optimizer.add_param_group({"params": model[0].parameters(), "lr": 0.01})
    optimizer.add_param_group({"params": model[1].parameters()})
    set_hyperparams(optimizer, lr=0.2)
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.2, 0.02, 0.2])


def test_a_group_added_after_a_scheduler_is_compared_with_the_initial_lr(model: nn.Sequential) -> None:
    optimizer = torch.optim.SGD(model[2].parameters(), lr=0.1)
    torch.optim.lr_scheduler.StepLR(optimizer, 1)
    optimizer.param_groups[0]["lr"] = 1e-5
    optimizer.add_param_group({"params": model[0].parameters(), "lr": 0.01})
    assert lr_ratios(optimizer) == pytest.approx([1.0, 0.1])


def test_a_tensor_lr_is_written_in_place(model: nn.Module) -> None:
    lr = torch.tensor(0.1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, capturable=False, foreach=False)
    set_hyperparams(optimizer, lr=0.25)
    assert optimizer.param_groups[0]["lr"].item() == 0.25


def test_a_given_optimizer_is_returned_itself_and_keeps_what_is_not_given(model: nn.Module) -> None:
    given = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.5, weight_decay=5e-4)
    built = build_optimizer(model, given, lr=0.1)
    assert built is given
    group = given.param_groups[0]
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.1, 0.5, 5e-4)


def test_a_callable_may_take_the_lr_or_not(model: nn.Module) -> None:
    by_class = build_optimizer(model, torch.optim.RMSprop, lr=0.1, momentum=0.7, weight_decay=1e-3)
    group = by_class.param_groups[0]
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.1, 0.7, 1e-3)
    by_lambda = build_optimizer(model, lambda params: torch.optim.SGD(params, lr=9.0), lr=0.1)
    assert by_lambda.param_groups[0]["lr"] == 0.1


def test_a_callable_keeps_what_is_not_given(model: nn.Module) -> None:
    def make(params: Any, lr: float) -> torch.optim.Optimizer:
        return torch.optim.AdamW(params, lr=lr, weight_decay=0.3, betas=(0.8, 0.99))

    for group in build_optimizer(model, make, lr=0.1).param_groups:
        assert (group["lr"], group["weight_decay"], group["betas"]) == (0.1, 0.3, (0.8, 0.99))
    group = build_optimizer(model, make, lr=0.1, momentum=0.9, weight_decay=0.0).param_groups[0]
    assert (group["weight_decay"], group["betas"]) == (0.0, (0.9, 0.99))
    exempt = build_optimizer(model, make, lr=0.1, decay_bias_and_norm=False)
    assert [group["weight_decay"] for group in exempt.param_groups] == [0.3, 0.0]


def test_a_class_starts_as_its_name_does(model: nn.Module) -> None:
    sgd = build_optimizer(model, torch.optim.SGD, lr=0.1).param_groups[0]
    adamw = build_optimizer(model, torch.optim.AdamW, lr=0.1).param_groups[0]
    assert (sgd["momentum"], adamw["betas"][0], adamw["weight_decay"]) == (0.9, 0.9, 0.0)


def test_weight_decay_is_refused_where_the_optimizer_has_none(model: nn.Module) -> None:
    given = torch.optim.Rprop(model.parameters(), lr=1.0)
    for kind in (torch.optim.Rprop, given):
        with pytest.raises(ValueError, match=r"`weight_decay` must be None or 0 with Rprop, .* but got 10\.0: leave"):
            build_optimizer(model, kind, lr=0.1, weight_decay=10.0)
        assert given.param_groups[0]["lr"] == 1.0
    assert build_optimizer(model, given, lr=0.1, momentum=0.9, weight_decay=0.0) is given


def test_sparse_gradients_are_refused_with_a_weight_decay_and_a_given_optimizer_is_left_as_it_was() -> None:
    model = nn.Sequential(nn.Embedding(4, 2, sparse=True), nn.Linear(2, 1))
    given = torch.optim.SGD([{"params": part.parameters()} for part in model], lr=1.0)
    before = copy.deepcopy(given.state_dict())
    for kind in ("sgd", torch.optim.SGD, given):
        with pytest.raises(ValueError, match="which SGD does not take with a weight decay, but its module '0' has"):
            build_optimizer(model, kind, lr=0.1, weight_decay=1e-4)  # type: ignore[arg-type]
    assert given.state_dict() == before
    given.param_groups[1]["weight_decay"] = 1e-3
    for decay in (None, 1e-4):  # to the group that has had one alone
        assert build_optimizer(model, given, lr=0.1, weight_decay=decay) is given
    assert [group["weight_decay"] for group in given.param_groups] == [0.0, 1e-4]


@pytest.mark.parametrize(
    ("argument", "value"),
    [("lr", math.nan), ("lr", -1.0), ("lr", "0.1"), ("momentum", 1.0), ("momentum", -0.1), ("weight_decay", math.inf)],
)
def test_bad_numbers_are_refused(model: nn.Module, argument: str, value: object) -> None:
    arguments = {"lr": 0.1, argument: value}
    with pytest.raises(ValueError, match=f"`{argument}` must be a number in"):
        build_optimizer(model, **arguments)  # type: ignore[arg-type]


def test_a_wrong_kind_is_refused(model: nn.Module) -> None:
    with pytest.raises(ValueError, match="`optimizer` must be 'sgd', 'adamw'"):
        build_optimizer(model, "lion", lr=0.1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"must make a torch\.optim\.Optimizer"):
        build_optimizer(model, lambda params: 3, lr=0.1)  # type: ignore[arg-type, return-value]
    with pytest.raises(ValueError, match="holds none of those"):
        build_optimizer(model, torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0), lr=0.1)


def test_a_callable_that_leaves_out_the_models_parameters_is_refused(model: nn.Module) -> None:
    other = nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"but holds none .* make it from the parameters that the function is called"):
        build_optimizer(model, lambda groups, lr: torch.optim.SGD(other.parameters(), lr=lr), lr=0.1)


def test_a_callable_may_give_layers_rates_of_their_own(model: nn.Module) -> None:
    def layerwise(groups: Any, lr: float) -> torch.optim.Optimizer:
        parameters = groups[0]["params"]
        return torch.optim.AdamW([{"params": parameters[2:]}, {"params": parameters[:2], "lr": lr / 2}], lr=lr)

    optimizer = build_optimizer(model, layerwise, lr=0.1)
    set_hyperparams(optimizer, lr=0.4)
    of_name = {id(parameter): name for name, parameter in model.named_parameters()}
    rates = {of_name[id(p)]: group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert rates == {name: 0.2 if name.startswith("0.") else 0.4 for name in of_name.values()}


def test_an_optimizer_that_chooses_its_own_rate_is_refused(model: nn.Module) -> None:
    class Relative(torch.optim.Optimizer):
        def __init__(self, params: Any, lr: float | None = None) -> None:
            super().__init__(params, {"lr": lr})

        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            pass

    for kind in (Relative(model.parameters()), lambda groups: Relative(groups)):
        with pytest.raises(ValueError, match=r"`optimizer` must have a learning rate .* but Relative has lr=None"):
            build_optimizer(model, kind, lr=0.1)
    assert build_optimizer(model, Relative, lr=0.1).param_groups[0]["lr"] == 0.1


def test_an_optimizer_that_asks_for_a_closure_is_refused_and_left_as_it_was(model: nn.Module) -> None:
    given = torch.optim.LBFGS(model.parameters(), lr=1.0)
    for kind in (torch.optim.LBFGS, given):
        with pytest.raises(ValueError, match="`optimizer` must make its step from one gradient, but LBFGS asks"):
            build_optimizer(model, kind, lr=0.1)
    assert given.param_groups[0]["lr"] == 1.0


def test_a_model_without_trainable_parameters_is_refused() -> None:
    whole = nn.Module()
    whole.weight = nn.Parameter(torch.ones(2, 2, dtype=torch.int8), requires_grad=False)
    for model in (nn.Flatten(), whole):
        with pytest.raises(
            DisciplineError, match=r"no trainable parameter: give it .* or train it before it is quantised"
        ):
            build_optimizer(model, lr=0.1)
    with pytest.raises(DisciplineError, match="no trainable parameter: set `requires_grad`"):
        build_optimizer(nn.Linear(2, 2).requires_grad_(False), lr=0.1)
    with pytest.raises(ValueError, match=r"must be a torch\.nn\.Module"):
        build_optimizer("model", lr=0.1)  # type: ignore[arg-type]


def test_a_model_is_refused_where_any_of_its_tensors_was_made_in_inference_mode() -> None:
    norm = nn.BatchNorm1d(2)
    with torch.inference_mode():
        first = nn.Linear(2, 2)
        frozen = nn.Linear(2, 2).requires_grad_(False)
        norm.running_mean = torch.zeros(2)
    for layer, name in ((first, "1.weight"), (frozen, "1.weight"), (norm, "1.running_mean")):
        model = nn.Sequential(nn.Linear(2, 2), layer)
        with pytest.raises(ValueError, match=rf"outside of `torch\.inference_mode`, .* its '{name}' .*: build it anew"):
            build_optimizer(model, lr=0.1)


def test_in_inference_mode_that_is_what_is_to_be_left() -> None:
    with torch.inference_mode(), pytest.raises(ValueError, match=r"`torch\.inference_mode` never records: leave it"):
        build_optimizer(nn.Linear(2, 2), lr=0.1)


def test_buffers_whose_shapes_come_with_the_first_batch_are_let_be() -> None:
    model = nn.Sequential(nn.LazyBatchNorm1d(affine=False), nn.Linear(2, 1))
    assert len(build_optimizer(model, lr=0.1).param_groups[0]["params"]) == 2
