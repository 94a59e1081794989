"""What is wrong with a dataset, found in its raw files, and what can be rebuilt of it."""

from lerobot.core.lazy import forward

__getattr__ = forward(
    __name__,
    {
        "examine": "lerobot.datasets.doctor.examination",
        "Report": "lerobot.datasets.doctor.report",
        "Finding": "lerobot.datasets.doctor.finding",
        "find_folder": "lerobot.datasets.doctor.find",
        "repair": "lerobot.datasets.doctor.rebuild",
    },
)
