"""A new dataset read back before it takes its place: counts, every row's numbers, every video's frames."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lerobot.core import keys
from lerobot.core.errors import DatasetError
from lerobot.datasets.join import stored_order
from lerobot.datasets.metadata import LeRobotDatasetMetadata

NUMBERS = [keys.EPISODE_INDEX, keys.FRAME_INDEX, keys.INDEX, keys.TASK_INDEX]
TOLERANCE_S = 1e-4


class _DisagreementError(Exception):
    """Two files of the new dataset say different things."""


def verify(repo_id: str, root: Path) -> LeRobotDatasetMetadata:
    """The new dataset's metadata, after everything it says was checked against its files.

    Raises:
        DatasetError: something disagrees; nothing has been replaced then.
    """
    meta = LeRobotDatasetMetadata(repo_id, root)
    try:
        _check_rows(meta)
        for key in meta.video_keys:
            _check_videos(meta, key)
    except (_DisagreementError, pa.ArrowException, OSError) as error:
        raise DatasetError(
            f"The result did not pass its check, so nothing was replaced: {error}. "
            "lerobot-doctor says whether the dataset that was edited is in order."
        ) from error
    return meta


def _check_rows(meta: LeRobotDatasetMetadata) -> None:
    """Every data file holds exactly its episodes' rows, numbered on."""
    by_file: dict[Path, list[int]] = {}
    for episode in range(meta.total_episodes):
        by_file.setdefault(meta.root / meta.get_data_file_path(episode), []).append(episode)
    for path, episodes in by_file.items():
        table = pq.read_table(path, columns=NUMBERS, partitioning=None)
        got = {name: table.column(name).to_numpy() for name in NUMBERS}
        lengths = [meta.episodes[episode]["length"] for episode in episodes]
        first = meta.episodes[episodes[0]]["dataset_from_index"]
        _agree(path, "rows", len(table), sum(lengths))
        _agree(path, keys.INDEX, got[keys.INDEX], first + np.arange(sum(lengths)))
        _agree(path, keys.EPISODE_INDEX, got[keys.EPISODE_INDEX], np.repeat(episodes, lengths))
        _agree(path, keys.FRAME_INDEX, got[keys.FRAME_INDEX], np.concatenate([np.arange(n) for n in lengths]))
        _need(set(got[keys.TASK_INDEX]) <= set(range(len(meta.tasks))), f"{path}: a task_index has no task")


def _check_videos(meta: LeRobotDatasetMetadata, key: str) -> None:
    """Every video file holds exactly its episodes' frames, each shown at its time."""
    frames: dict[Path, int] = {}
    for episode in range(meta.total_episodes):
        row, path = meta.episodes[episode], meta.root / meta.get_video_file_path(episode, key)
        start = row[f"videos/{key}/from_timestamp"] * meta.fps
        _need(abs(start - frames.get(path, 0)) < 1e-3, f"{path}: episode {episode} begins at frame {start}")
        frames[path] = frames.get(path, 0) + row["length"]
    for path, count in frames.items():
        order = stored_order(path)
        _agree(path, "frames", len(order), count)
        late = np.abs(order.seconds - np.arange(count) / meta.fps)
        _need(late.max() <= TOLERANCE_S, f"{path}: frame {late.argmax()} is {late.max():.6f} s off its time")
        _need(bool(order.is_key[0]), f"{path}: the first frame is no key frame")


def _agree(path: Path, what: str, got: Any, expected: Any) -> None:
    _need(np.array_equal(got, expected), f"{path}: {what} {got}, expected {expected}")


def _need(is_true: bool, words: str) -> None:
    if not is_true:
        raise _DisagreementError(words)
