"""Episodes to learn from and episodes held out."""

import math

import numpy as np

from lerobot.core.errors import ConfigError
from lerobot.datasets.dataset import LeRobotDataset
from lerobot.datasets.streaming import StreamingLeRobotDataset


def split_episodes(
    dataset: LeRobotDataset | StreamingLeRobotDataset, *, share: float, seed: int | None = None
) -> tuple[list[int] | None, list[int]]:
    """Episodes to train on (None: all of the dataset's) and the held-out ones: ceil(n * share) of each task.

    Without a seed the last ones of each task are held out, as other installations do. With a seed each
    episode gets a random rank of its own, so that the choice is the same whenever the same episodes are
    there, and changes little when some are added.

    Raises:
        ConfigError: nothing is left to train on.
    """
    chosen = dataset.episodes if dataset.episodes is not None else list(range(dataset.meta.total_episodes))
    if share == 0:
        return dataset.episodes, []
    by_task: dict[str, list[int]] = {}
    for episode, tasks in zip(chosen, _first_tasks(dataset, chosen), strict=True):
        by_task.setdefault(tasks, []).append(episode)
    if seed is not None:
        by_task = {task: sorted(some, key=lambda e: _rank(seed, e)) for task, some in by_task.items()}
    held_out = [e for some in by_task.values() for e in some[len(some) - math.ceil(len(some) * share) :]]
    train = sorted(set(chosen) - set(held_out))
    if not train:
        raise ConfigError(f"--dataset.eval_split={share} leaves no episode to train on; lower it.")
    return train, sorted(held_out)


def _first_tasks(dataset: LeRobotDataset | StreamingLeRobotDataset, episodes: list[int]) -> list[str]:
    tasks = dataset.meta.episodes["tasks"]
    return [tasks[episode][0] for episode in episodes]


def _rank(seed: int, episode: int) -> int:
    return int(np.random.SeedSequence([seed, episode]).generate_state(1, np.uint64)[0])


def frames_of(dataset: LeRobotDataset, episodes: list[int]) -> list[int]:
    """Item numbers of all frames of some episodes."""
    rows = [dataset.meta.episodes[e] for e in episodes]
    frames = [i for row in rows for i in range(row["dataset_from_index"], row["dataset_to_index"])]
    relative = dataset.absolute_to_relative_idx
    return frames if relative is None else [relative[i] for i in frames]
