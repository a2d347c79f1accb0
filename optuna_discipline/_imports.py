"""Optional dependencies, imported at the call that needs them."""

import importlib
from collections.abc import Callable
from typing import Any

from optuna_discipline.exceptions import MissingExtraError


def require(module: str, *, extra: str) -> Any:
    """Import `module` or say which extra brings it.

    Args:
        module: Dotted name, such as `"plotly.graph_objects"`.
        extra: The extra of this package that installs it.

    Raises:
        MissingExtraError: If the module is absent, or present and broken.
    """
    try:
        return importlib.import_module(module)
    except Exception as error:  # a broken binary wheel raises OSError or RuntimeError, not ImportError
        raise MissingExtraError(
            f"`{module}` could not be imported ({type(error).__name__}: {error}). "
            f"Install it with: pip install 'optuna-discipline[{extra}]'"
        ) from error


def stand_in(name: str, *, needs: str, extra: str) -> Callable[..., Any]:
    """Return a stand-in for a function of the package that needs an absent module.

    The name is there, so that star imports, `hasattr` and `help` do without the module; only the call asks for it.

    Args:
        name: Where the function is, such as `"optuna_discipline.training.loop.train_epochs"`.
        needs: Dotted name of the module that it needs.
        extra: The extra of this package that installs it.
    """
    module, _, function = name.rpartition(".")

    def call(*args: Any, **kwargs: Any) -> Any:
        require(needs, extra=extra)
        return getattr(importlib.import_module(module), function)(*args, **kwargs)

    call.__name__ = call.__qualname__ = function
    call.__doc__ = f"Needs `{needs}`: pip install 'optuna-discipline[{extra}]'."
    return call
