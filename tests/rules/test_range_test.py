import json
import math
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optuna_discipline import RangeTest
from optuna_discipline import average_range_tests
from optuna_discipline import choose_max_lr

LRS = np.geomspace(1e-4, 10, 60)


def _test(losses: Any, *, initial: float | None = 2.3, **settings: Any) -> RangeTest:
    losses = np.asarray(losses, dtype=float)
    defaults = dict(train_loss=losses, val_loss=None, stop_reason="end of range", initial_loss=initial)
    return RangeTest(lrs=LRS[: len(losses)], **{**defaults, **settings})


def test_a_record_survives_json_with_its_broken_numbers() -> None:
    test = _test([1.0, math.inf, math.nan], initial=math.nan, settings={"seed": 1})
    again = RangeTest.from_dict(json.loads(json.dumps(test.to_dict(), allow_nan=False)))
    assert again == test
    assert (again.max_lr, again.base_lr) == (None, None)


def test_damaged_records_are_refused() -> None:
    with pytest.raises(ValueError, match="lacks \\['lrs'"):
        RangeTest.from_dict({"train_loss": [], "stop_reason": ""})
    with pytest.raises(ValueError, match="as long as `lrs`"):
        RangeTest(LRS, np.ones(3), None, "end of range")
    for lrs, found in (([0.2, 0.1], r"lrs\[1\]=0.1 after 0.2"), ([0.0, 1.0], r"lrs\[0\]=0"), ([0.1, math.nan], "=nan")):
        with pytest.raises(ValueError, match=f"`lrs` must be finite, positive and rising, but got .*{found}"):
            RangeTest(np.array(lrs), np.ones(2), None, "end of range")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lrs", None),
        ("train_loss", None),
        ("train_loss", "ab"),
        ("val_loss", 3),
        ("stop_reason", 3),
        ("initial_loss", "a"),
        ("initial_loss", [1]),
        ("n_steps", "a"),
        ("n_steps", 0),
        ("planned_steps", 2.5),
        ("settings", 3),
        ("settings", None),
        ("settings", {"loss": print}),
    ],
)
def test_a_value_that_no_test_has_is_named_by_the_record_and_where_it_is_read(name: str, value: Any) -> None:
    data = {**_test([1.0, 2.0]).to_dict(), name: value}
    for make in (RangeTest.from_dict, lambda data: RangeTest(**data)):
        with pytest.raises(ValueError, match=f"`{name}` must be .* but got {re.escape(repr(value))[:9]}"):
            make(data)


def test_numpys_numbers_are_kept_as_json_takes_them() -> None:
    settings = {"momentum": np.float32(0.5), "seed": np.int64(3), "lr_ratios": np.ones(2)}
    given = _test([1.0], initial=np.float32(2), n_steps=np.int64(30), planned_steps=np.int64(300), settings=settings)
    assert RangeTest.from_dict(json.loads(json.dumps(given.to_dict()))) == given
    assert (given.n_steps, given.settings) == (30, {"momentum": 0.5, "seed": 3, "lr_ratios": [1.0, 1.0]})


def test_the_average_is_the_median_and_a_test_that_broke_off_counts_as_infinite_there() -> None:
    tests = [_test(np.full(60, 1.0)), _test(np.full(30, 2.0)), _test(np.full(60, 4.0))]
    average = average_range_tests(tests)
    assert average.train_loss.tolist() == [2.0] * 30 + [4.0] * 30
    assert average_range_tests(tests[:1]).train_loss.tolist() == [1.0] * 60
    assert np.isinf(average_range_tests(tests[:2]).train_loss[30:]).all()


def test_what_was_not_evaluated_stays_open_in_the_average() -> None:
    val = np.full(60, math.nan)
    val[1::2] = 1.0
    short = _test(np.full(31, 2.3), val_loss=val[:31])
    average = average_range_tests([_test(np.full(60, 2.3), val_loss=val), short, short])
    assert average.val_loss is not None
    assert np.isnan(average.val_loss[::2]).all()
    assert np.isfinite(average.val_loss[1:31:2]).all()
    assert np.isinf(average.val_loss[31::2]).all()


@given(st.integers(0, 100))
def test_an_average_over_seeds_steadies_the_choice(seed: int) -> None:
    rng = np.random.default_rng(seed)
    curve = np.where(LRS < 0.3, 2.3 - 1.8 / (1 + np.exp(-4 * (np.log10(LRS) + 1.5))), 0.5 + 6 * np.log10(LRS / 0.3))
    noisy = [_test(np.maximum(curve, 0.4) + 0.15 * rng.standard_normal(60)) for _ in range(4)]
    exact = choose_max_lr(_test(np.maximum(curve, 0.4))).max_lr
    assert choose_max_lr(average_range_tests(noisy)).max_lr == pytest.approx(exact, rel=0.6)


def test_tests_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one test"):
        average_range_tests([])
    with pytest.raises(TypeError, match=r"`range_tests\[1\]` must be a RangeTest"):
        average_range_tests([_test([1.0]), 3])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="must share their learning rates"):
        average_range_tests([_test([1.0, 1.0]), RangeTest(LRS[:2] * 2, np.ones(2), None, "end of range")])
    with pytest.raises(ValueError, match="all or none"):
        average_range_tests([_test([1.0]), _test([1.0], val_loss=np.ones(1))])
    every, second = np.ones(60), np.where(np.arange(60) % 2, 1.0, math.nan)
    with pytest.raises(ValueError, match=r"at the same learning rates, but one of them has others.*`val_every`"):
        average_range_tests([_test(np.ones(60), val_loss=every), _test(np.ones(60), val_loss=second)])


@pytest.mark.parametrize(
    ("name", "one", "other"), [("optimizer", "SGD", "Adam"), ("momentum", 0.9, 0.99), ("weight_decay", 0.0, 1e-3)]
)
def test_tests_of_other_settings_are_not_averaged_and_other_seeds_are(name: str, one: Any, other: Any) -> None:
    tests = [
        _test(np.ones(60), settings={name: value, "seed": seed}) for value, seed in ((one, 0), (one, 1), (other, 0))
    ]
    assert average_range_tests(tests[:2]).settings == {name: one, "seed": [0, 1]}
    average_range_tests([tests[0], _test(np.ones(60))])  # by hand, without settings
    with pytest.raises(ValueError, match=f"`range_tests` must be of one {name}, .* average those of each"):
        average_range_tests([tests[0], tests[2]])


def test_a_test_that_broke_before_its_last_evaluation_belongs_to_the_others() -> None:
    whole, broken = _test(np.ones(60), val_loss=np.ones(60)), np.where(np.arange(30) < 29, 1.0, math.nan)
    average = average_range_tests([whole, whole, _test(np.where(broken == 1, 1.0, math.inf), val_loss=broken)])
    assert average.val_loss is not None
    assert average.val_loss.tolist() == [1.0] * 60
