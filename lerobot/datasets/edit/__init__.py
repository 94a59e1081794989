"""Edits of finished datasets: each writes a new dataset and leaves the old one as it is."""

from lerobot.core.lazy import forward

__getattr__ = forward(
    __name__,
    {
        "delete_episodes": "lerobot.datasets.edit.delete",
        "split_dataset": "lerobot.datasets.edit.split",
        "merge_datasets": "lerobot.datasets.edit.merge",
        "remove_feature": "lerobot.datasets.edit.features",
        "recompute_stats": "lerobot.datasets.edit.stats",
    },
)
