"""Episodes to learn from and episodes held out."""

import math

from lerobot.core.errors import ConfigError
from lerobot.datasets.dataset import LeRobotDataset


def split_episodes(dataset: LeRobotDataset, *, share: float) -> tuple[list[int] | None, list[int]]:
    """Episodes to train on (None: all) and the held-out ones: the last ceil(n * share) of each task."""
    if share == 0:
        return dataset.episodes, []
    by_task: dict[str, list[int]] = {}
    for episode in dataset.episodes if dataset.episodes is not None else range(dataset.meta.total_episodes):
        by_task.setdefault(dataset.meta.episodes[episode]["tasks"][0], []).append(episode)
    held_out = [e for episodes in by_task.values() for e in episodes[-math.ceil(len(episodes) * share) :]]
    train = sorted({e for episodes in by_task.values() for e in episodes} - set(held_out))
    if not train:
        raise ConfigError(f"--dataset.eval_split={share} leaves no episode to train on; lower it.")
    return train, sorted(held_out)


def frames_of(dataset: LeRobotDataset, episodes: list[int]) -> list[int]:
    """Item numbers of all frames of some episodes."""
    rows = [dataset.meta.episodes[e] for e in episodes]
    frames = [i for row in rows for i in range(row["dataset_from_index"], row["dataset_to_index"])]
    relative = dataset.absolute_to_relative_idx
    return frames if relative is None else [relative[i] for i in frames]
