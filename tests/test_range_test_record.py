import json
import math

import numpy as np
import optuna
import pytest

from optuna_discipline import RangeTest
from optuna_discipline.range_test_record import MAX_PART
from optuna_discipline.range_test_record import RANGE_TEST_KEY
from optuna_discipline.range_test_record import read_range_test
from optuna_discipline.range_test_record import write_range_test

MYSQL_BYTES = 65_535


def range_test(n_steps: int) -> RangeTest:
    """Return a test that evaluated at every step and ended in numbers of full length, NaN and inf."""
    rng = np.random.default_rng(0)
    losses = rng.uniform(0.1, 3, n_steps)
    losses[-2:] = math.nan, math.inf
    return RangeTest(np.geomspace(1e-5, 9, n_steps), losses, losses, "end of range", settings={"note": "é\\"})


@pytest.mark.parametrize(("n_steps", "in_parts"), [(100, False), (1_000, True), (5_000, True)])
def test_a_range_test_of_any_length_comes_back_exactly_and_fits_mysql(n_steps: int, in_parts: bool) -> None:
    study = optuna.create_study()
    test = range_test(n_steps)
    write_range_test(study._storage, study.ask()._trial_id, test.to_dict())
    assert RangeTest.from_dict(read_range_test(study)) == test
    kept = study.trials[0].system_attrs
    assert ("parts" in kept[RANGE_TEST_KEY]) == in_parts
    for value in kept.values():
        assert len(json.dumps(value)) <= MYSQL_BYTES


def test_a_part_of_nothing_but_quotes_fits_mysql_too() -> None:
    assert len(json.dumps('"' * MAX_PART)) <= MYSQL_BYTES


def test_no_range_test_is_none() -> None:
    study = optuna.create_study()
    assert read_range_test(study) is None
    study.ask()
    assert read_range_test(study) is None


def test_a_study_that_the_dashboard_renamed_has_its_range_test_still_and_shows_no_numbers() -> None:
    study, renamed = optuna.create_study(), optuna.create_study()
    test = range_test(1_000)
    write_range_test(study._storage, study.ask()._trial_id, test.to_dict())
    study.tell(0, 1.0)
    renamed.add_trials(study.get_trials(deepcopy=False))  # all that optuna-dashboard does, beside user attributes
    assert RangeTest.from_dict(read_range_test(renamed)) == test
    assert study.user_attrs == {}


@pytest.mark.parametrize(
    ("attributes", "error"),
    [
        ({RANGE_TEST_KEY: {"parts": 2}, f"{RANGE_TEST_KEY}:0": "{"}, KeyError),
        ({RANGE_TEST_KEY: {"parts": 1}, f"{RANGE_TEST_KEY}:0": 3}, TypeError),
        ({RANGE_TEST_KEY: {"parts": 1}, f"{RANGE_TEST_KEY}:0": "{"}, ValueError),
        ({RANGE_TEST_KEY: {"parts": 10**15}}, KeyError),
        ({RANGE_TEST_KEY: {"parts": "many"}}, TypeError),
    ],
)
def test_damaged_parts_raise_what_readers_take_for_damage(attributes: dict[str, object], error: type) -> None:
    study = optuna.create_study()
    study.add_trial(optuna.create_trial(value=1.0, system_attrs=attributes))
    with pytest.raises(error, match=r"range_test|str instance|Expecting|integer"):
        read_range_test(study)
