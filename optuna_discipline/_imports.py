"""Optional dependencies, imported at the call that needs them."""

import importlib
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
