"""Names that a package hands on and whose modules load only when somebody asks for them."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def forward(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """A package's `__getattr__` for the names in `homes`, name -> the module it lives in."""

    def find(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(importlib.import_module(homes[name]), name)

    return find
