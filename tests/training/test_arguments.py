import copy
import math

import pytest
import torch

from optuna_discipline.training.arguments import Seen
from optuna_discipline.training.arguments import as_choice
from optuna_discipline.training.arguments import as_count
from optuna_discipline.training.arguments import as_module
from optuna_discipline.training.arguments import as_number
from optuna_discipline.training.arguments import as_seed
from optuna_discipline.training.arguments import check_builder


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, "0.1", None, True, torch.ones(2)])
def test_a_bad_number_is_refused_with_its_name_and_value(value: object) -> None:
    with pytest.raises(ValueError, match=r"`lr` must be a number in \[0, inf\), but got"):
        as_number("lr", value)  # type: ignore[arg-type]


def test_numbers_of_torch_and_int_are_numbers() -> None:
    assert as_number("lr", torch.tensor(0.5)) == 0.5
    assert as_number("lr", 1) == 1.0


def test_an_open_end_excludes_its_value() -> None:
    with pytest.raises(ValueError, match=r"in \(0, inf\)"):
        as_number("lr", 0.0, low_open=True)
    with pytest.raises(ValueError, match=r"in \[0, 1\)"):
        as_number("momentum", 1.0, high=1.0)


@pytest.mark.parametrize("value", [0, -1, 1.5, math.nan, "3", True, None, torch.arange(2)])
def test_a_bad_count_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="`num_steps` must be an integer from 1 on"):
        as_count("num_steps", value)  # type: ignore[arg-type]


def test_a_seed_is_none_or_an_integer_from_0() -> None:
    assert as_seed(None) is None
    assert as_seed(0) == 0
    assert as_seed(2**64 - 1) == 2**64 - 1
    for seed in (-1, 2**64, 0.5, True):
        with pytest.raises(ValueError, match=r"`seed` must be an integer from 0 on, below 2\*\*64, but got .*None"):
            as_seed(seed)  # type: ignore[arg-type]


def test_a_choice_outside_the_list_is_refused() -> None:
    with pytest.raises(ValueError, match="`sweep` must be one of 'exp', 'linear', but got 'log'"):
        as_choice("sweep", "log", ("exp", "linear"))


@pytest.mark.parametrize("builder", [torch.nn.Linear(1, 1), None, 3])
def test_a_builder_must_be_a_function(builder: object) -> None:
    with pytest.raises(ValueError, match=r"`build_model` must be a function that makes a new module.*pass `lambda"):
        check_builder(builder)


def test_a_model_in_place_of_a_builder_is_told_by_its_class_alone() -> None:
    with pytest.raises(ValueError, match=r"but got a module, Sequential: pass `lambda") as refused:
        check_builder(torch.nn.Sequential(torch.nn.Linear(1, 1)))
    assert "\n" not in str(refused.value)


def test_what_a_builder_returns_must_be_a_module() -> None:
    check_builder(lambda: 3)
    with pytest.raises(ValueError, match="`build_model` must return a torch module, but returned int"):
        as_module(3, Seen())


def test_a_builder_must_return_another_module_each_time() -> None:
    made, seen = torch.nn.Linear(1, 1), Seen()
    assert as_module(made, seen) is made
    assert as_module(copy.deepcopy(made), seen) is not made
    with pytest.raises(ValueError, match="the same Linear again: make it inside the function"):
        as_module(made, seen)
    del made
    assert not seen
