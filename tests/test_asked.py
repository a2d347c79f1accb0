import optuna
import pytest
from optuna.distributions import BaseDistribution
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial

from optuna_discipline.asked import asked_distributions
from optuna_discipline.asked import constants_last
from optuna_discipline.asked import constants_of
from optuna_discipline.trial_record import CLAIM_KEY

WIDE, NARROW, ONE = FloatDistribution(0.0, 1.0), FloatDistribution(0.0, 0.5), FloatDistribution(0.5, 0.5)


def _trial(held: tuple[str, ...] = (), **distributions: BaseDistribution) -> FrozenTrial:
    params = dict.fromkeys(distributions, 0.5)
    made = optuna.create_trial(params=params, distributions=distributions, value=1.0)
    made.system_attrs = {CLAIM_KEY: {"stage": "lr", "slot": "lr0:1", "held": held}}
    return made


@pytest.mark.parametrize("one", [ONE, CategoricalDistribution([0.5])])
def test_what_has_one_value_in_every_trial_is_constant_and_stands_last(one: BaseDistribution) -> None:
    trials = [_trial(a=one, b=WIDE), _trial(b=WIDE), _trial(a=one, b=NARROW)]
    assert list(asked_distributions(trials).items()) == [("b", NARROW), ("a", one)]
    assert constants_of(trials) == {"a"}


@pytest.mark.parametrize("later", [1, 9])
def test_what_is_free_in_any_trial_is_not_constant_and_has_the_latest_of_its_ranges(later: int) -> None:
    trials = [_trial(a=ONE, b=WIDE), _trial(a=WIDE, b=WIDE), _trial(a=NARROW, b=WIDE), *[_trial(a=ONE, b=WIDE)] * later]
    assert list(asked_distributions(trials).items()) == [("a", NARROW), ("b", WIDE)]
    assert constants_of(trials) == set()


def test_what_a_sampler_around_ours_holds_is_constant_as_long_as_it_does() -> None:
    trials = [_trial(a=WIDE, b=WIDE), _trial(("a",), a=WIDE, b=WIDE)]
    assert list(asked_distributions(trials).items()) == [("b", WIDE), ("a", ONE)]
    assert constants_of(trials) == {"a"}
    trials[1].system_attrs[CLAIM_KEY]["freed"] = ["a"]
    assert constants_of(trials) == set()


def test_what_the_objective_no_longer_asks_for_is_left_out() -> None:
    trials = [_trial(a=WIDE, b=ONE, c=WIDE), *[_trial(c=WIDE)] * 3]
    assert asked_distributions(trials) == {"c": WIDE}
    assert asked_distributions(trials[:3]).keys() == {"a", "b", "c"}


def test_roles_are_in_the_order_of_asking_those_of_constants_last() -> None:
    found = constants_last({"b": "lr", "a": "lr", "d": "momentum"}, ["a", "b", "c", "d"], {"a"})
    assert list(found.items()) == [("b", "lr"), ("d", "momentum"), ("a", "lr")]
