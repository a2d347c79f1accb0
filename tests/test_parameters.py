import math
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.distributions import IntDistribution

from optuna_discipline import parameters
from optuna_discipline.rules import usual_values
from optuna_discipline.rules.space import Bounds
from optuna_discipline.rules.space import default_of

DISTRIBUTIONS: list[BaseDistribution] = [
    FloatDistribution(1e-5, 10, log=True),
    FloatDistribution(-1, 1),
    FloatDistribution(0.1, 0.95, step=0.05),
    IntDistribution(1, 16),
    IntDistribution(3, 15, step=4),
    IntDistribution(1, 1000, log=True),
    CategoricalDistribution([16, 64, 256]),
    CategoricalDistribution([0.1, 1, 0.01]),
]


@given(st.sampled_from(DISTRIBUTIONS), st.floats(-1e6, 1e6))
def test_any_wish_is_fitted_into_any_distribution(distribution: BaseDistribution, wish: float) -> None:
    value = parameters.fit(distribution, wish)
    assert parameters.allows(distribution, value)
    assert type(value) in (int, float)
    assert parameters.fit(distribution, value) == value


def test_fitting_takes_the_nearest() -> None:
    assert parameters.fit(IntDistribution(3, 15, step=4), 9.5) == 11
    assert parameters.fit(CategoricalDistribution([16, 64, 256]), 100) == 64
    assert parameters.fit(FloatDistribution(0.0, 1.0), 7.0) == 1.0


@pytest.mark.filterwarnings("ignore:Choices for a categorical distribution")
def test_a_stored_value_stands_for_the_choice_that_json_made_it_of_and_else_for_itself() -> None:
    layers = CategoricalDistribution([(64, 64), (128,), None])  # type: ignore[list-item]
    found = [parameters.as_choice(layers, stored) for stored in ([128], (64, 64), None, "gone")]
    assert found == [(128,), (64, 64), None, "gone"]
    assert parameters.as_choice(FloatDistribution(0.0, 1.0), 2.0) == 2.0  # from wider bounds


def test_what_went_through_logarithms_is_what_it_was_within_bounds_and_on_steps() -> None:
    assert parameters.fit(FloatDistribution(1e-5, 10, log=True), 0.0999999999999999) == 0.1
    assert parameters.fit(FloatDistribution(1e-7, 0.1, log=True), 0.00010000000000000009) == 1e-4
    third = 1 / 3  # no decimal of 14 figures
    assert parameters.fit(FloatDistribution(third, 1.0), 0.0) == third
    assert parameters.fit(FloatDistribution(0.0, third), 1.0) == third
    assert parameters.fit(FloatDistribution(0.0, 1.0, step=0.1), 0.3) == 3 * 0.1


@pytest.mark.parametrize(
    "distribution",
    [
        IntDistribution(-3, 8),
        IntDistribution(1, 9, step=4),
        IntDistribution(1, 9, log=True),
        FloatDistribution(-0.3, 2.0, step=0.1),
    ],
)
def test_many_numbers_are_fitted_as_each_alone(distribution: IntDistribution | FloatDistribution) -> None:
    numbers = np.array([-math.inf, *np.linspace(-4, 10, 113), 4.5, 5.5, math.inf, math.nan])
    alone = [parameters.fit(distribution, x) for x in numbers.tolist()]
    assert parameters.fit_all(distribution, numbers).tolist() == alone
    assert (alone[0], alone[-2], alone[-1]) == (distribution.low, distribution.high, distribution.low)
    shares = np.linspace(0, 1, 11)
    assert parameters.at_share(distribution, shares) == pytest.approx(
        [parameters.at_share(distribution, x) for x in shares]
    )


def test_a_function_of_many_numbers_is_asked_once_of_each() -> None:
    asked = []
    found = parameters.of_each(lambda x: asked.append(x) or 2 * x, np.array([3.0, 1.0, 3.0]))
    assert (found.tolist(), asked) == ([6.0, 2.0, 6.0], [1.0, 3.0])


@pytest.mark.parametrize(
    ("distribution", "bounds"),
    [
        (FloatDistribution(0.5, 2), Bounds(0.5, 2.0)),
        (CategoricalDistribution([64, 16]), Bounds(16.0, 64.0, (16.0, 64.0))),
        (CategoricalDistribution(["1e-2", "0.1"]), Bounds(0.01, 0.1, (0.01, 0.1))),
        (CategoricalDistribution(["a", "b"]), None),
        (CategoricalDistribution(["64", "auto"]), None),
        (CategoricalDistribution(["1", "nan"]), None),
        (CategoricalDistribution([True, False]), None),
        (CategoricalDistribution([1, None]), None),
        (CategoricalDistribution([1.0, math.inf]), None),
    ],
)
def test_bounds_are_those_of_numbers(distribution: BaseDistribution, bounds: Bounds | None) -> None:
    assert parameters.bounds_of(distribution) == bounds


def test_numbers_in_text_have_roles_and_are_given_as_the_text_that_they_are() -> None:
    rates, index = CategoricalDistribution(["1e-1", "1e-2", "1e-3"]), CategoricalDistribution(["0", "1", "2"])
    assert (parameters.role_of("lr", rates), parameters.role_of("opt.lr", index)) == ("lr", None)
    assert parameters.fit(rates, 0.02) == "1e-2"
    assert parameters.fit_in_role("lr", "log_lr", CategoricalDistribution(["-3", "-2"]), 0.02) == "-2"
    assert parameters.value_in_role("lr", "lr", rates, "1e-3") == 1e-3
    assert parameters.value_in_role("batch_size", "bs", CategoricalDistribution(["auto", "64"]), "64") == "64"
    assert parameters.ordered_choices(rates) == ["1e-3", "1e-2", "1e-1"]
    assert parameters.ordered_choices(CategoricalDistribution(["1e-1", "0.01", "0.1", "1e-2"])) == ["0.01", "1e-1"]


@pytest.mark.parametrize("value", ["a", None, 99, math.nan])
def test_what_a_distribution_does_not_hold_is_not_allowed(value: Any) -> None:
    assert not any(parameters.allows(d, value) for d in DISTRIBUTIONS[:5])


def test_numbers_begin_in_their_middle_and_words_at_the_first() -> None:
    assert parameters.start_of("x", FloatDistribution(1e-4, 1, log=True)) == pytest.approx(1e-2)
    assert parameters.start_of("x", FloatDistribution(0, 0.8)) == 0.4
    assert parameters.start_of("x", CategoricalDistribution([3, 1, 4, 2])) == 2
    assert parameters.start_of("x", CategoricalDistribution([True, False])) is True
    assert parameters.start_of("x", CategoricalDistribution(["relu", "tanh"])) == "relu"


@pytest.mark.parametrize(
    ("name", "distribution", "start"),
    [
        ("width", IntDistribution(16, 256, log=True), 128),
        ("n_units_l0", IntDistribution(0, 200), 150),
        ("hidden_size", CategoricalDistribution([512, 64, 128, 256]), 256),
        ("out_channels", CategoricalDistribution([8, 32]), 32),
        ("n_hidden_layers", IntDistribution(1, 32), 17),
        ("hidden", IntDistribution(1, 5), 3),
        ("width_multiplier", FloatDistribution(0.5, 2.0, log=True), 1.0),
        ("d_model", CategoricalDistribution([16, 32, 64, 128, 256]), 128),
        ("embedding_size", IntDistribution(16, 256, log=True), 128),
        ("depth", IntDistribution(1, 99), 50),
    ],
)
def test_a_width_begins_at_three_quarters_of_its_range(name: str, distribution: BaseDistribution, start: float) -> None:
    assert parameters.start_of(name, distribution) == pytest.approx(start)


def test_a_dropout_begins_low() -> None:
    assert parameters.start_of("max_dropout", FloatDistribution(0, 0.8)) == 0.1
    assert parameters.start_of("Dropout", FloatDistribution(0.2, 0.8)) == 0.2
    assert parameters.start_of("dropout", CategoricalDistribution([0.0, 0.5])) == 0.0
    for name in ("drop_rate", "attn_drop", "model.dropPath", "p_drop"):
        assert parameters.start_of(name, FloatDistribution(0, 0.6)) == 0.1
    for name in ("lr_drop", "drop_factor", "backdrop"):
        assert parameters.start_of(name, FloatDistribution(0, 0.6)) == 0.3
    assert parameters.start_of("dropout", CategoricalDistribution([0.5, 0.1, 0.3])) == 0.1
    assert parameters.start_of("droop", FloatDistribution(0, 0.8)) == 0.4


@pytest.mark.parametrize("name", ["heads", "n_heads", "num_heads", "nhead", "n_head", "encoder.attentionHeads"])
def test_heads_begin_at_a_number_that_divides_widths(name: str) -> None:
    assert parameters.start_of(name, IntDistribution(1, 8)) == 4
    assert parameters.start_of(name, IntDistribution(4, 16)) == 4
    assert parameters.start_of(name, IntDistribution(1, 2)) == 2
    assert parameters.start_of(name, CategoricalDistribution([8, 1, 2, 4])) == 4


def test_whole_numbers_begin_at_usual_counts_and_not_at_usual_shares() -> None:
    assert parameters.start_of("head_dim", IntDistribution(8, 64)) == 50
    assert parameters.start_of("T", IntDistribution(1, 20)) == 4
    assert parameters.start_of("grad_clip", IntDistribution(0, 10)) == 5


def test_an_optimizer_begins_with_one_that_adapts_its_steps() -> None:
    assert parameters.start_of("opt", CategoricalDistribution(["SGD", "RMSprop", "Adam"])) == "RMSprop"
    assert parameters.start_of("opt", CategoricalDistribution(["sgd", "adamw"])) == "adamw"
    assert parameters.start_of("opt", CategoricalDistribution(["SGD", "Lion", "Mystery"])) == "SGD"
    assert parameters.start_of("opt", CategoricalDistribution(["Lion", "lamb", "sgd"])) == "lamb"
    assert usual_values.usual_lr({"optimizer": "lion"}) == 7e-4
    assert parameters.start_of("opt", CategoricalDistribution([None, 3, "x"])) is None


def test_an_activation_begins_with_one_that_does_not_saturate() -> None:
    assert parameters.start_of("act", CategoricalDistribution(["sigmoid", "tanh", "LeakyReLU", "gelu"])) == "LeakyReLU"
    assert parameters.start_of("act", CategoricalDistribution(["tanh", "HardSwish"])) == "HardSwish"
    assert parameters.start_of("act", CategoricalDistribution(["tanh", "sigmoid"])) == "tanh"
    assert parameters.start_of("act", CategoricalDistribution(["sine", "relu"])) == "sine"
    assert parameters.start_of("act", CategoricalDistribution(["tanh", "Softplus"])) == "Softplus"
    assert parameters.start_of("scheduler", CategoricalDistribution(["step", "cosine"])) == "step"


def test_the_usual_learning_rate_is_that_of_the_optimizer_that_is_named() -> None:
    assert usual_values.usual_lr({"activation": "relu", "opt": "SGD", "width": 3}) == 0.1
    assert usual_values.usual_lr({"opt": "AdamW"}) == 5e-3
    assert usual_values.usual_lr({"opt": "adadelta"}) == 1.0
    assert usual_values.usual_lr({"activation": "relu", "nesterov": True, "none": None}) is None
    assert usual_values.usual_lr({"opt": "RMSprop"}, momentum=0.95) == pytest.approx(2.5e-4)
    assert usual_values.usual_lr({"opt": "Adam"}, momentum=0.95) == 5e-3


def test_roles_are_checked() -> None:
    assert parameters.check_roles({"alpha": "weight_decay"})["alpha"] == "weight_decay"
    assert parameters.check_roles({"lr": None}) == {"lr": None}
    assert parameters.check_roles(None) == {}
    with pytest.raises(ValueError, match="`roles` must give one of"):
        parameters.check_roles({"alpha": "shine"})
    with pytest.raises(TypeError, match="`roles` must map names to roles"):
        parameters.check_roles({1: "lr"})  # type: ignore[dict-item]


FINITE = st.floats(-1e9, 1e9)
POSITIVE = st.floats(1e-12, 1e9)
BOUNDS = st.tuples(FINITE, FINITE).map(sorted)
LOG_BOUNDS = st.tuples(POSITIVE, POSITIVE).map(sorted)
INT_BOUNDS = st.tuples(st.integers(-(10**9), 10**9), st.integers(-(10**9), 10**9)).map(sorted)
ANY_DISTRIBUTION = st.one_of(
    BOUNDS.map(lambda b: FloatDistribution(*b)),
    LOG_BOUNDS.map(lambda b: FloatDistribution(*b, log=True)),
    st.builds(
        lambda low, step, count: FloatDistribution(low, round(low + step * count, 6), step=step),
        st.integers(-100, 100).map(lambda k: k / 100),
        st.sampled_from([0.01, 0.05, 0.1, 0.25, 1.0]),
        st.integers(1, 50),
    ),
    INT_BOUNDS.map(lambda b: IntDistribution(*b)),
    st.builds(
        lambda low, step, count: IntDistribution(low, low + step * count, step=step),
        st.integers(-100, 100),
        st.integers(1, 9),
        st.integers(1, 99),
    ),
    st.builds(lambda low, more: IntDistribution(low, low + more, log=True), st.integers(1, 99), st.integers(1, 10**6)),
    st.lists(st.one_of(st.integers(1, 512), POSITIVE), min_size=1, max_size=6).map(CategoricalDistribution),
    st.just(CategoricalDistribution(["small", None, True])),
)


@given(ANY_DISTRIBUTION, st.floats(allow_nan=True, allow_infinity=True))
def test_whatever_is_wished_the_fitted_value_and_the_start_are_allowed(d: BaseDistribution, wish: float) -> None:
    assert parameters.allows(d, parameters.fit(d, wish))
    assert parameters.allows(d, parameters.start_of("width", d))
    bounds = parameters.bounds_of(d)
    assert bounds is None or bounds.low <= parameters.fit(d, wish) <= bounds.high


def test_the_latest_distribution_of_a_parameter_is_known() -> None:
    trials = [
        optuna.create_trial(params={"lr": 0.5}, distributions={"lr": FloatDistribution(0.1, high)}, value=1.0)
        for high in (1.0, 2.0)
    ]
    assert parameters.known_distributions(trials) == {"lr": FloatDistribution(0.1, 2.0)}


def test_adams_own_numbers_begin_at_its_defaults() -> None:
    assert parameters.start_of("beta2", FloatDistribution(0.9, 0.9999)) == 0.999
    assert parameters.start_of("optimizer.beta_2", CategoricalDistribution([0.99, 0.999])) == 0.999
    assert parameters.start_of("adam_eps", FloatDistribution(1e-10, 1e-4, log=True)) == 1e-8
    assert parameters.start_of("policy_epsilon", FloatDistribution(0.1, 0.9)) == 0.5
    assert parameters.bounds_of(FloatDistribution(0.8, 0.99), "adam_beta1") == Bounds(0.8, 0.99, start=0.9)
    assert parameters.bounds_of(FloatDistribution(0.8, 0.99), "momentum") == Bounds(0.8, 0.99)


def test_a_wide_epsilon_is_adams_where_it_reaches_down_to_adams_default() -> None:
    assert parameters.start_of("epsilon", FloatDistribution(1e-10, 1e3, log=True)) == pytest.approx(1e-8)


def test_what_is_kept_begins_where_its_dropout_does() -> None:
    assert parameters.start_of("dropout_keep_prob", FloatDistribution(0.4, 1.0)) == 0.9
    assert parameters.start_of("keep_rate", CategoricalDistribution([0.5, 0.8, 0.9, 1.0])) == 0.9


ONE_LESS = [
    ("one_minus_momentum", FloatDistribution(0.01, 0.5)),
    ("opt_momentum", FloatDistribution(1e-3, 1.0, log=True)),
    ("one_minus_beta1", CategoricalDistribution([0.2, 0.1, 0.05])),
]


@pytest.mark.parametrize(("name", "distribution"), ONE_LESS)
def test_a_momentum_may_be_given_as_1_less_itself(name: str, distribution: BaseDistribution) -> None:
    given, bounds = parameters.bounds_of(distribution), parameters.bounds_in_role("momentum", name, distribution)
    assert given is not None
    assert bounds is not None
    assert (bounds.low, bounds.high) == pytest.approx((1 - given.high, 1 - given.low))
    assert parameters.value_in_role("momentum", name, distribution, 0.1) == 0.9
    assert parameters.value_in_role("lr", name, distribution, 0.1) == 0.1
    assert parameters.fit_in_role("momentum", name, distribution, 0.9) == pytest.approx(0.1)
    start = default_of("momentum", bounds)
    assert start == pytest.approx(0.9 if "beta" in name else 0.95)


@pytest.mark.parametrize(
    ("name", "distribution", "start"),
    [
        ("momentum", FloatDistribution(0.01, 0.5), 0.255),  # of a batch norm, as TabNet's
        ("sgd_opt_momentum", FloatDistribution(1e-5, 0.1, log=True), 1e-3),
        ("rmsprop_momentum", CategoricalDistribution([0.0, 0.1, 0.5]), 0.1),
    ],
)
def test_a_momentum_that_is_small_or_another_thing_has_no_role_unless_the_user_says_so(
    name: str, distribution: BaseDistribution, start: float
) -> None:
    assert parameters.role_of(name, distribution) is None
    assert parameters.start_of(name, distribution) == pytest.approx(start)
    assert parameters.role_of(name, distribution, {name: "momentum"}) == "momentum"


@pytest.mark.parametrize(("name", "distribution"), [*ONE_LESS, ("beta1", FloatDistribution(0.1, 0.5))])
def test_a_beta_or_1_less_a_momentum_may_be_small(name: str, distribution: BaseDistribution) -> None:
    assert parameters.role_of(name, distribution) == "momentum"


def test_a_momentum_as_it_is_is_not_turned() -> None:
    for distribution in (FloatDistribution(0.1, 0.99), FloatDistribution(0.5, 0.99, log=True)):
        assert parameters.bounds_in_role("momentum", "momentum", distribution) == parameters.bounds_of(distribution)
        assert parameters.value_in_role("momentum", "momentum", distribution, 0.9) == 0.9


@pytest.mark.parametrize(
    ("name", "distribution", "role"),
    [
        ("log_lr", FloatDistribution(-5, -1), "lr"),
        ("log_lr", FloatDistribution(1e-5, 0.1), None),
        ("lr_power", FloatDistribution(0.1, 2.0), None),
        ("weight_decay_exp", IntDistribution(-6, -2), "weight_decay"),
        ("batch_size_exp", IntDistribution(4, 8), "batch_size"),
        ("log2_batch_size", CategoricalDistribution([4, 5, 6]), "batch_size"),
        ("log2_batch", IntDistribution(4, 9), "batch_size"),
        ("train_batch_exp", CategoricalDistribution([4, 5, 6]), "batch_size"),
        ("batch_exp", FloatDistribution(0.5, 2.0), None),
        ("batch_exp", IntDistribution(-2, 3), None),
        ("batch_exp", IntDistribution(16, 256), None),
        ("batch", IntDistribution(4, 9), None),
        ("val_batch_exp", IntDistribution(4, 9), None),
        ("batch_norm_exp", IntDistribution(4, 9), None),
        ("log_lr", CategoricalDistribution(["a", "b"]), None),
        ("optimizer.lr", FloatDistribution(-1.0, 3.0), None),
        ("lr", FloatDistribution(1e-5, 0.1), "lr"),
    ],
)
def test_exponents_have_roles_where_their_bounds_fit(
    name: str, distribution: BaseDistribution, role: str | None
) -> None:
    assert parameters.role_of(name, distribution) == role


def test_what_the_user_tells_of_an_exponent_comes_first() -> None:
    exponents = FloatDistribution(-5, -1)
    assert parameters.role_of("log_lr", exponents, {"log_lr": None}) is None
    assert parameters.role_of("x", exponents, {"x": "lr"}) == "lr"
    assert parameters.bounds_in_role("lr", "x", exponents) == Bounds(1e-5, 0.1)
    assert parameters.fit_in_role("lr", "x", exponents, 1e-3) == pytest.approx(-3)


def test_1_less_beta2_begins_at_1_less_its_default() -> None:
    assert parameters.start_of("one_minus_beta2", FloatDistribution(1e-6, 1.0, log=True)) == pytest.approx(1e-3)
    assert parameters.start_of("beta2", FloatDistribution(1e-6, 1.0, log=True)) == pytest.approx(1e-3)


def test_a_learning_rate_named_after_an_optimizer_begins_at_its_usual_one() -> None:
    assert parameters.bounds_of(FloatDistribution(1e-4, 1.0), "sgd_lr") == Bounds(1e-4, 1.0, start=0.1)
    assert parameters.bounds_of(CategoricalDistribution([1e-3, 1e-2]), "adamw_lr") == Bounds(
        1e-3, 1e-2, (1e-3, 1e-2), start=5e-3
    )


@pytest.mark.parametrize(
    ("names", "start"),
    [
        ("adam_lr adamLr lr_adam adam.lr adam/lr adam__lr optim.AdamW.lr Adam:learning_rate RMSprop.lr", 5e-3),
        ("sgd.lr optimizer.SGD.lr adam.sgd_lr", 0.1),
        ("lr optimizer.lr head.lr", None),
    ],
)
def test_an_optimizer_is_read_in_any_spelling_and_as_a_group(names: str, start: float | None) -> None:
    found = {name: parameters.bounds_of(FloatDistribution(1e-5, 1.0), name) for name in names.split()}
    assert found == dict.fromkeys(names.split(), Bounds(1e-5, 1.0, start=start))


def test_a_name_of_one_library_starts_from_its_default() -> None:
    bounds = parameters.bounds_of(FloatDistribution(1e-5, 1.0, log=True), "learning_rate_init")
    assert bounds is not None
    assert default_of("lr", bounds) == 1e-3
    assert default_of("lr", Bounds(1e-2, 1.0, start=1e-3)) == 1e-2


def test_no_momentum_is_above_1_unless_the_user_says_so() -> None:
    for name in ("momentum", "beta1"):
        assert parameters.role_of(name, FloatDistribution(0, 1)) == "momentum"
        assert parameters.role_of(name, FloatDistribution(0, 2)) is None
        assert parameters.role_of(name, FloatDistribution(0, 2), {name: "momentum"}) == "momentum"


@pytest.mark.parametrize("name", ["lr", "lr_choice", "momentum", "weight_decay", "batch_size"])
@pytest.mark.parametrize("distribution", [IntDistribution(0, 1), CategoricalDistribution([1, 0])])
def test_whole_numbers_from_0_are_an_index_unless_the_user_says_so(name: str, distribution: BaseDistribution) -> None:
    assert parameters.role_of(name, distribution) is None
    assert parameters.role_of(name, distribution, {name: "weight_decay"}) == "weight_decay"
    assert parameters.role_of("epochs", distribution) == "epochs"


def test_a_list_with_0_and_a_rate_is_no_index() -> None:
    assert parameters.role_of("weight_decay", CategoricalDistribution([0, 1e-4])) == "weight_decay"
    assert parameters.role_of("lr_choice", CategoricalDistribution([1e-3, 1e-2])) == "lr"
    assert parameters.role_of("log2_batch_size", IntDistribution(0, 8)) == "batch_size"


@pytest.mark.parametrize(
    ("name", "distribution"),
    [
        ("batch_size", IntDistribution(0, 256, step=32)),
        ("batch_size", CategoricalDistribution([64, 0, 32])),
        ("weight_decay", CategoricalDistribution([0, 1, 10])),
    ],
)
def test_whole_numbers_from_0_with_gaps_are_no_index(name: str, distribution: BaseDistribution) -> None:
    assert parameters.role_of(name, distribution) == name


@pytest.mark.parametrize(
    "name", ["lr_idx", "lr_index", "idx_lr", "learning_rate_id", "batch_size_idx", "dataset_id_lr", "log_lr_id"]
)
def test_a_name_that_says_an_index_has_no_role_where_its_numbers_are_whole(name: str) -> None:
    whole = (IntDistribution(1, 9), IntDistribution(-4, 0), CategoricalDistribution([3, 5]))
    assert [parameters.role_of(name, distribution) for distribution in whole] == [None] * 3
    assert parameters.role_of(name, IntDistribution(1, 9), {name: "batch_size"}) == "batch_size"
    if name.startswith(("lr", "dataset")):
        assert parameters.role_of(name, FloatDistribution(1e-5, 1, log=True)) == "lr"


@pytest.mark.filterwarnings("ignore:Choices for a categorical distribution")
def test_a_class_or_a_function_says_what_its_name_says() -> None:
    sgd, adam, tanh, relu, rmsprop = (type(name, (), {}) for name in ("SGD", "Adam", "Tanh", "ReLU", "RMSprop"))
    assert parameters.start_of("opt", CategoricalDistribution([sgd, adam])) is adam  # type: ignore[list-item]
    assert parameters.start_of("act", CategoricalDistribution([tanh, relu])) is relu  # type: ignore[list-item]
    assert usual_values.usual_lr({"opt": sgd}) == usual_values.usual_lr({"opt": "SGD"})
    assert usual_values.adds_up({"opt": rmsprop})
    assert usual_values.usual_lr({"opt": lambda: None, "width": 3, "act": relu}) is None


@pytest.mark.parametrize(
    ("name", "distribution", "bounds"),
    [
        ("lr", FloatDistribution(0.25, 1.0, step=0.25), Bounds(0.25, 1.0, (0.25, 0.5, 0.75, 1.0))),
        ("lr", FloatDistribution(0.0, 1.0, step=0.25), Bounds(0.25, 1.0, (0.25, 0.5, 0.75, 1.0))),
        ("lr", FloatDistribution(0.0, 1.0, step=2**-10), Bounds(2**-10, 1.0)),  # too many to count
        ("lr", CategoricalDistribution([0.5, 0.0, 1.0]), Bounds(0.5, 1.0, (0.5, 1.0))),
        ("lr", CategoricalDistribution([0.0]), Bounds(0.0, 0.0, (0.0,))),
        ("lr", FloatDistribution(0.0, 1.0), Bounds(0.0, 1.0)),
        ("log2_lr", FloatDistribution(-3.0, -1.0, step=1.0), Bounds(0.125, 0.5, (0.125, 0.25, 0.5))),
        ("weight_decay", FloatDistribution(0.0, 1.0, step=0.5), Bounds(0.0, 1.0)),
    ],
)
def test_the_steps_of_a_learning_rate_are_counted_and_0_is_none(
    name: str, distribution: BaseDistribution, bounds: Bounds
) -> None:
    role = parameters.role_of(name, distribution)
    assert parameters.bounds_in_role(role, name, distribution) == bounds


def test_a_learning_rate_above_0_is_not_fitted_to_0() -> None:
    stepped = FloatDistribution(0.0, 1.0, step=0.25)
    assert [parameters.fit_in_role("lr", "lr", stepped, wish) for wish in (0.0, 0.01, 0.4)] == [0.0, 0.25, 0.5]
    assert parameters.fit_in_role("weight_decay", "weight_decay", stepped, 0.01) == 0.0
