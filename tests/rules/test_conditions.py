from hypothesis import given
from hypothesis import strategies as st

from optuna_discipline.rules.conditions import added
from optuna_discipline.rules.conditions import conditions_of
from optuna_discipline.rules.conditions import dropped

ADAM, SGD = {"optimizer": "Adam", "width": 8, "adam_lr": 0.01}, {"optimizer": "SGD", "width": 9, "sgd_lr": 0.1}


def test_what_exists_for_some_values_only_is_known_by_them() -> None:
    found = conditions_of([ADAM, SGD, {**ADAM, "width": 9}], ["optimizer", "width"])
    assert set(found) == {"adam_lr", "sgd_lr"}
    assert {condition.switch for condition in found.values()} == {"optimizer"}
    assert [found["sgd_lr"].holds(word) for word in ("Adam", "SGD", "RMSprop")] == [False, True, True]


def test_the_first_switch_that_explains_it_decides() -> None:
    assert conditions_of([ADAM, SGD], ["width", "optimizer"])["sgd_lr"].switch == "width"
    third = {**SGD, "width": 8}
    assert conditions_of([ADAM, SGD, third], ["width", "optimizer"])["sgd_lr"].switch == "optimizer"


def test_layers_exist_from_their_number_on() -> None:
    runs = [{"layers": n, **{f"units{i}": 8 for i in range(n)}} for n in (1, 3, 2)]
    found = conditions_of(runs, ["layers"])
    assert [found["units2"].holds(n) for n in (1, 2, 3)] == [False, False, True]
    assert "units0" not in found


def test_a_switch_may_itself_be_missing_and_comes_before_what_it_decides() -> None:
    runs = [{"deep": 1, "kind": "b", "inner": "y"}, {"kind": "a"}, {"kind": "b", "inner": "x"}]
    found = conditions_of(runs, ["inner", "kind"])
    assert [(name, condition.switch) for name, condition in found.items()] == [("inner", "kind"), ("deep", "inner")]


def test_what_exists_together_decides_nothing_of_each_other() -> None:
    runs: list[dict[str, object]] = [{"optimizer": "Adam"}, {"optimizer": "SGD", "nesterov": True, "momentum": 0.9}]
    assert {one.switch for one in conditions_of(runs, ["nesterov", "optimizer"]).values()} == {"optimizer"}
    assert conditions_of(runs, ["nesterov"]) == {}


def test_the_switch_that_more_configurations_have_is_asked_first() -> None:
    runs = [{"kind": "a"}, {"kind": "b", "mode": "x"}, {"kind": "c", "mode": "y", "alpha": 0.9}]
    assert conditions_of(runs, ["mode", "kind"])["alpha"].switch == "kind"


def test_what_no_switch_explains_has_no_condition() -> None:
    assert conditions_of([{"a": 1, "b": 2}, {"a": 1}], ["a", "b"]) == {}
    assert conditions_of([], ["a"]) == {}


CONFIGURATIONS = st.lists(st.dictionaries(st.sampled_from("abcd"), st.integers(0, 2), max_size=4), max_size=8)


@given(CONFIGURATIONS)
def test_every_run_agrees_with_what_was_found(runs: list[dict[str, int]]) -> None:
    for name, condition in conditions_of(runs, ["a", "b"]).items():
        at = condition.switch
        assert all((at in run and condition.holds(run[at])) == (name in run) for run in runs)


def test_what_the_latest_configurations_lack_is_dropped_but_for_what_a_condition_explains() -> None:
    before, after = {"lr": 1, "decay": 2}, {"lr": 1}
    assert dropped([before, after, after], []) == set()
    assert dropped([before, after, after, after], []) == {"decay"}
    assert dropped([before, after, after, after, before], []) == set()
    assert dropped([SGD, ADAM, ADAM, ADAM], ["optimizer"]) == set()


def test_what_all_later_configurations_have_was_added() -> None:
    before, after = {"lr": 1}, {"lr": 1, "decay": 2}
    assert added([before, before, after], []) == {"decay"}
    assert added([before, after, before], []) == added([after, after], []) == added([], []) == set()
    assert added([ADAM, SGD], ["optimizer"]) == set()
