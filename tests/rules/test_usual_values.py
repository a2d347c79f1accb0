import pytest

from optuna_discipline.rules.space import Bounds
from optuna_discipline.rules.usual_values import usual_value
from optuna_discipline.rules.usual_values import usual_word


@pytest.mark.parametrize(
    ("choices", "start"), [([0, 1e-3, 0.01, 0.1, 1], 1e-3), ([0.1, 1.0], 0.1), ([1e-5, 1e-4], 1e-4)]
)
def test_a_penalty_of_a_list_begins_nearest_to_a_usual_weight_decay(choices: list[float], start: float) -> None:
    assert usual_value("l1_lambda", Bounds.of_choices(choices)) == start


@pytest.mark.parametrize(
    ("name", "low", "high", "usual"),
    [
        ("label_smoothing", 0.0, 0.4, 0.1),
        ("loss.labelSmoothing", 0.0, 0.4, 0.1),
        ("mixup_alpha", 0.0, 1.0, 0.2),
        ("cutmix_alpha", 0.0, 2.0, 1.0),
        ("focal_gamma", 0.0, 5.0, 2.0),
        ("temperature", 0.01, 1.0, 0.1),
        ("temperature", 1.0, 20.0, 4.0),  # of a distillation
        ("kd_temperature", 1.0, 20.0, 4.0),
        ("T", 1.0, 20.0, 4.0),
        ("T", 1.0, 1000.0, None),
        ("power_t", 0.1, 0.9, None),
        ("max_grad_norm", 0.1, 100.0, 1.0),
        ("gradient_clip_val", 0.1, 10.0, 1.0),
        ("clip_range", 0.1, 0.4, 0.2),
        ("clip_epsilon", 0.05, 0.4, 0.2),
        ("ppo.eps_clip", 0.05, 0.4, 0.2),
        ("gae_lambda", 0.8, 1.0, 0.95),
        ("discount", 0.9, 0.9999, 0.99),
        ("gamma", 0.9, 0.9999, 0.99),
        ("agent.gamma", 0.8, 1.0, 0.99),
        ("gamma", 0.1, 0.9, None),  # of a learning rate's steps
        ("lr_scheduler.gamma", 0.9, 0.999, None),
        ("ema_decay", 0.9, 0.9999, 0.99),
        ("alpha", 0.0, 1.0, None),
        ("smoothing_window", 1.0, 9.0, None),
        ("l1_lambda", 1e-5, 0.1, 1e-4),  # a weight decay begins there, too
        ("model.l1_reg", 0.0, 0.1, 1e-3),
        ("tv_reg", 0.0, 1.0, 1e-3),
        ("penalty", 0.0, 0.01, 1e-4),
        ("reg_lambda", 1e-4, 1.0, 1e-2),
        ("reg_lambda", 0.0, 10.0, None),  # of XGBoost
        ("reg_lambda", 1e-8, 10.0, None),
        ("log_l1", -6.0, -1.0, None),
        ("aux_weight", 0.0, 0.1, None),
        ("box_reg", 0.0, 1.0, None),  # of a detector: a regression
    ],
)
def test_what_a_name_says_begins_at_its_usual_value_if_that_lies_within_the_bounds(
    name: str, low: float, high: float, usual: float | None
) -> None:
    assert usual_value(name, Bounds(low, high)) == (None if usual is None else pytest.approx(usual))


@pytest.mark.parametrize("none", ["none", "None", None, False])
def test_a_list_that_holds_none_is_of_no_optimizer_unless_its_name_says_so(none: str | bool | None) -> None:
    assert usual_word("whitening_mode", [none, "rmsprop", "adam"]) is none
    for name in ("optimizer", "optim.name", "solver", "opt_algorithm"):
        assert usual_word(name, [none, "rmsprop", "adam"]) == "rmsprop"
    assert usual_word("activation", [none, "relu"]) == "relu"
    assert usual_word("method", ["sgd", "adam"]) == "adam"
