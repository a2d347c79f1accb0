"""Say that a study is gone, where its storage only says that a record does not exist."""

import contextlib
from collections.abc import Iterator

from optuna.study import Study

from optuna_discipline.exceptions import DisciplineError


@contextlib.contextmanager
def naming_a_lost_study(source: object) -> Iterator[None]:
    """Name the study and the cure where it was deleted, or renamed on optuna-dashboard; leave any other error alone.

    Args:
        source: The study that is read, or something else that a plot shows.

    Raises:
        DisciplineError: In place of a KeyError of a study that its storage no longer holds.

    Example:
        >>> import optuna
        >>> study = optuna.create_study(study_name="mine")
        >>> with naming_a_lost_study(study):
        ...     study.trials
        []
    """
    try:
        yield
    except KeyError as error:
        if not isinstance(source, Study) or _is_there(source):
            raise
        raise DisciplineError(
            f"the study {source.study_name!r} is no longer in its storage: it was deleted, or renamed on "
            "optuna-dashboard, which copies a study and deletes the old one. Load it by its new name "
            "(`optuna.load_study`)."
        ) from error


def _is_there(study: Study) -> bool:
    try:
        study._storage.get_study_user_attrs(study._study_id)  # which no storage of Optuna answers from a cache
    except KeyError:
        return False
    return True
