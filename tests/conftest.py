import hypothesis
import optuna
import pytest

hypothesis.settings.register_profile("same examples in every run", derandomize=True, deadline=None)
hypothesis.settings.load_profile("same examples in every run")


@pytest.fixture(autouse=True)
def _quiet_optuna() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
