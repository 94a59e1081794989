"""Robot demonstrations on disk: LeRobot's dataset format v3.0, read and written."""

from lerobot.core.lazy import forward

__getattr__ = forward(
    __name__,
    {
        "LeRobotDataset": "lerobot.datasets.dataset",
        "LeRobotDatasetMetadata": "lerobot.datasets.metadata",
        "StreamingLeRobotDataset": "lerobot.datasets.streaming",
        "EpisodeAwareSampler": "lerobot.datasets.sampler",
        "resolve_delta_timestamps": "lerobot.datasets.delta",
        "aggregate_stats": "lerobot.datasets.stats",
    },
)
