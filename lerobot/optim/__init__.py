"""Optimizers and learning-rate schedules."""

import importlib
from typing import Any

_LAZY = {
    "AdamConfig": "lerobot.optim.optimizers",
    "AdamWConfig": "lerobot.optim.optimizers",
    "ConstantWithWarmupSchedulerConfig": "lerobot.optim.schedulers",
    "CosineAnnealingWithWarmupSchedulerConfig": "lerobot.optim.schedulers",
    "CosineDecayWithWarmupSchedulerConfig": "lerobot.optim.schedulers",
    "DiffuserSchedulerConfig": "lerobot.optim.schedulers",
    "LRSchedulerConfig": "lerobot.optim.schedulers",
    "MultiAdamConfig": "lerobot.optim.optimizers",
    "OptimizerConfig": "lerobot.optim.optimizers",
    "SGDConfig": "lerobot.optim.optimizers",
    "VQBeTSchedulerConfig": "lerobot.optim.schedulers",
    "XVLAAdamWConfig": "lerobot.optim.optimizers",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
