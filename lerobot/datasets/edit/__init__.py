"""Edits of finished datasets: each writes a new dataset and leaves the old one as it is."""

import importlib
from typing import Any

_LAZY = {
    "delete_episodes": "lerobot.datasets.edit.delete",
    "split_dataset": "lerobot.datasets.edit.split",
    "merge_datasets": "lerobot.datasets.edit.merge",
    "remove_feature": "lerobot.datasets.edit.features",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
