"""Edits of finished datasets: each writes a new dataset aside, checks it, and only then puts it in place."""

from lerobot.core.lazy import forward

__getattr__ = forward(
    __name__,
    {
        "delete_episodes": "lerobot.datasets.edit.delete",
        "split_dataset": "lerobot.datasets.edit.split",
        "merge_datasets": "lerobot.datasets.edit.merge",
        "remove_feature": "lerobot.datasets.edit.features",
        "recompute_stats": "lerobot.datasets.edit.stats",
        "add_feature": "lerobot.datasets.edit.features",
        "add_features": "lerobot.datasets.edit.features",
        "modify_features": "lerobot.datasets.edit.features",
        "rename_features": "lerobot.datasets.edit.features",
        "modify_tasks": "lerobot.datasets.edit.tasks",
        "convert_image_to_video_dataset": "lerobot.datasets.edit.pictures",
        "convert_video_to_image_dataset": "lerobot.datasets.edit.pictures",
        "reencode_dataset": "lerobot.datasets.edit.reencode",
        "repack_dataset": "lerobot.datasets.edit.repack",
    },
)
