import argparse

import pytest

from optuna_discipline import options


def test_a_name_of_other_bytes_than_utf_8_is_refused_in_letters_that_can_be_printed() -> None:
    assert options.name("réseau 網") == "réseau 網"
    with pytest.raises(argparse.ArgumentTypeError, match=r"must be UTF-8, but got 'a\\udcff': give another"):
        options.name("a\udcff")


@pytest.mark.parametrize(("text", "number"), [("10", 10), ("9", None), ("1e2", None), ("101", None)])
def test_a_whole_number_lies_within_its_bounds(text: str, number: int | None) -> None:
    if number is not None:
        assert options.whole(text, least=10, most=100) == number
        return
    with pytest.raises(argparse.ArgumentTypeError, match=f"must be a whole number from 10 to 100, but got '{text}'"):
        options.whole(text, least=10, most=100)
