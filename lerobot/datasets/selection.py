"""Which episodes of a dataset are read, and the files that hold them."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from lerobot.core.errors import DatasetError, suggest
from lerobot.datasets.metadata import LeRobotDatasetMetadata


def choose_episodes(
    meta: LeRobotDatasetMetadata, *, episodes: Sequence[int] | None = None, tasks: Sequence[str] | None = None
) -> list[int] | None:
    """The episodes with these numbers in which one of these texts is a task, ascending; None: all of them.

    Raises:
        DatasetError: an episode or a task does not exist, or no episode is left.
    """
    chosen = None if episodes is None else _with_numbers(meta, episodes)
    return chosen if tasks is None else _with_tasks(meta, tasks, chosen)


def _with_numbers(meta: LeRobotDatasetMetadata, episodes: Sequence[int]) -> list[int]:
    chosen, total = sorted({int(episode) for episode in episodes}), meta.total_episodes
    wrong = [episode for episode in chosen if not 0 <= episode < total]
    if wrong or not chosen:
        raise DatasetError(
            f"episodes={list(episodes)}: "
            f"{'episode ' + str(wrong[0]) + ' does not exist' if wrong else 'empty'}; "
            f"{meta.repo_id!r} has {total} episodes (0 to {total - 1})."
        )
    return chosen


def _with_tasks(meta: LeRobotDatasetMetadata, tasks: Sequence[str], chosen: list[int] | None) -> list[int]:
    texts = [tasks] if isinstance(tasks, str) else list(tasks)
    wanted = {meta.tasks.name(meta.tasks.index(text)) for text in texts}  # an unknown text names the nearest
    listed = meta.episodes.column("tasks").tolist()
    numbers = range(meta.total_episodes) if chosen is None else chosen
    found = [episode for episode in numbers if wanted.intersection(listed[episode] or ())]
    if not found:
        raise DatasetError(
            f"tasks={texts}: none of the {len(numbers)} chosen episodes of {meta.repo_id!r} has one of these "
            "tasks."
        )
    return found


def check_cameras(meta: LeRobotDatasetMetadata, names: Iterable[str]) -> None:
    """Return when these are cameras of the dataset.

    Raises:
        DatasetError: one is not; names the nearest.
    """
    for name in names:
        if name not in meta.camera_keys:
            raise DatasetError(
                f"skip_cameras names {name!r}, which is no camera.{suggest(name, meta.camera_keys)}"
            )


def needed_files(meta: LeRobotDatasetMetadata, episodes: np.ndarray, *, videos: Iterable[str]) -> list[Path]:
    """The data files, and the video files of these cameras, that hold these episodes (E,)."""
    names, _ = meta.files_of(episodes)
    for key in videos:
        names += meta.files_of(episodes, video_key=key)[0]
    return names
