"""Imports packages that only some users need, and names the extra to install when one is missing."""

import importlib
from types import ModuleType

from lerobot.core.errors import MissingExtraError


def require(module: str, *, extra: str) -> ModuleType:
    """The imported module.

    Raises:
        MissingExtraError: it is not installed; the message names the extra of this package that brings it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise MissingExtraError(
            f"{module.split('.')[0]!r} is not installed. Type: pip install 'lerobot[{extra}]'"
        ) from error
