"""Optimizers and learning-rate schedules."""

from lerobot.core.lazy import forward

__getattr__ = forward(
    __name__,
    {
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
    },
)
