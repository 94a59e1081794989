"""Robot demonstrations on disk: LeRobot's dataset format v3.0, read and written."""

import importlib
from typing import Any

_LAZY = {
    "LeRobotDataset": "lerobot.datasets.dataset",
    "LeRobotDatasetMetadata": "lerobot.datasets.metadata",
    "EpisodeAwareSampler": "lerobot.datasets.sampler",
    "resolve_delta_timestamps": "lerobot.datasets.delta",
    "aggregate_stats": "lerobot.datasets.stats",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
