import pytest

from optuna_discipline import exceptions


@pytest.mark.parametrize(
    ("error", "also"),
    [
        (exceptions.MissingExtraError, ImportError),
        (exceptions.UnsupportedStudyError, ValueError),
        (exceptions.RangeTestError, exceptions.DisciplineError),
    ],
)
def test_every_error_is_a_discipline_error_and_what_a_caller_expects(error: type, also: type) -> None:
    assert issubclass(error, exceptions.DisciplineError)
    assert issubclass(error, also)
