"""Formats v2.0 and v2.1, one data file and one video per camera for every episode, in the words of v3.0.

meta/episodes.jsonl, tasks.jsonl, episodes_stats.jsonl (v2.1) or stats.json (v2.0)
data/chunk-CCC/episode_EEEEEE.parquet    videos/chunk-CCC/<camera>/episode_EEEEEE.mp4
"""

import logging
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lerobot.core import keys
from lerobot.core.errors import DatasetError
from lerobot.datasets import config
from lerobot.datasets.legacy.episode_stats import EpisodeStats
from lerobot.datasets.legacy.view import (
    OldEpisodes,
    View,
    episode_rows,
    lengths_of,
    read_stats,
    read_tasks,
)
from lerobot.datasets.schema import DEFAULT_FEATURES
from lerobot.datasets.tables import EPISODES_FOLDER, TaskTable

logger = logging.getLogger(__name__)

DATA_PATH = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
VIDEO_PATH = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
DROPPED = ("total_chunks", "total_videos")  # counted otherwise since v3.0


def view(root: Path, info: dict[str, Any]) -> View:
    """The dataset at `root`, whose meta/info.json is `info`.

    Raises:
        DatasetError: a file of meta/ is missing or damaged, or does not hold every episode.
    """
    if (root / EPISODES_FOLDER).is_dir() and not (root / keys.EPISODES_JSONL).is_file():
        raise DatasetError(
            f"{root / keys.INFO_FILE}: codebase_version is {info['codebase_version']!r}, but the episodes "
            f"are in {EPISODES_FOLDER}/ as in v3.0. Correct it, or load with force_cache_sync=True to "
            "download it."
        )
    rows = episode_rows(root)
    lengths = lengths_of(root, rows)
    path = root / keys.EPISODES_STATS_JSONL
    if path.is_file() and path.stat().st_size:
        own_stats = EpisodeStats(path)
        stats = own_stats.whole
    else:
        own_stats, stats = None, read_stats(root, count=sum(lengths))
    cameras = [k for k, f in info.get("features", {}).items() if f.get("dtype") == "video"]
    columns = _columns(rows, lengths, cameras, info)
    described = _info(info, lengths)
    return View(
        layout=str(info["codebase_version"]),
        info=described,
        episodes=OldEpisodes(columns, root=root, stats=own_stats or {}),
        tasks=TaskTable(_tasks(root, rows)),
        stats=stats,
        list_files=partial(_files, root, described, columns, cameras),
    )


def _info(info: dict[str, Any], lengths: list[int]) -> dict[str, Any]:
    """info.json with the templates of v3.0: a file is numbered like the episode it holds."""
    names = {"{episode_chunk": "{chunk_index", "{episode_index": "{file_index"}
    paths = {"data_path": info.get("data_path") or DATA_PATH, "video_path": info.get("video_path")}
    features = info.get("features", {})
    if paths["video_path"] is None and any(one.get("dtype") == "video" for one in features.values()):
        paths["video_path"] = VIDEO_PATH
    for key, template in paths.items():
        for old, new in names.items():
            template = template.replace(old, new) if template else None
        paths[key] = template
    kept = {key: value for key, value in info.items() if key not in DROPPED}
    counted = {"total_episodes": len(lengths), "total_frames": sum(lengths)}
    defaults = {name: dict(one) for name, one in DEFAULT_FEATURES.items() if name not in features}
    return counted | kept | paths | {"features": {**features, **defaults}}


def _files(
    root: Path, info: dict[str, Any], columns: dict[str, list], cameras: list[str]
) -> dict[str, list[Path]]:
    places = list(zip(columns["data/chunk_index"], columns["data/file_index"], strict=True))
    found = {"data": [root / info["data_path"].format(chunk_index=c, file_index=f) for c, f in places]}
    for key in cameras:
        template = info["video_path"]
        found[key] = [root / template.format(video_key=key, chunk_index=c, file_index=f) for c, f in places]
    return found


def _columns(
    rows: list[dict[str, Any]], lengths: list[int], cameras: list[str], info: dict[str, Any]
) -> dict[str, list]:
    """The episode table: every episode is alone in its files and begins at their start."""
    count, fps = len(rows), info.get("fps") or 1
    ends = np.cumsum(lengths, dtype=np.int64).tolist()
    chunks_size = info.get("chunks_size") or config.CHUNKS_SIZE
    place = {"chunk_index": [k // chunks_size for k in range(count)], "file_index": list(range(count))}
    columns: dict[str, list] = {
        keys.EPISODE_INDEX: list(range(count)),
        "tasks": [row["tasks"] for row in rows],
        "length": lengths,
        **{f"data/{name}": values for name, values in place.items()},
        "dataset_from_index": [end - length for end, length in zip(ends, lengths, strict=True)],
        "dataset_to_index": ends,
    }
    for camera in cameras:
        columns |= {f"videos/{camera}/{name}": values for name, values in place.items()}
        columns[f"videos/{camera}/from_timestamp"] = [0.0] * count
        columns[f"videos/{camera}/to_timestamp"] = [length / fps for length in lengths]
    for name in dict.fromkeys(name for row in rows for name in row if name not in columns):
        columns[name] = [row.get(name) for row in rows]  # what somebody noted beside the usual three
    return columns


def _tasks(root: Path, rows: list[dict[str, Any]]) -> list[str]:
    names = read_tasks(root)
    if names is None:
        raise DatasetError(
            f"{root / keys.TASKS_JSONL} is missing. Load the dataset with force_cache_sync=True to download "
            "it."
        )
    unknown = next((text for row in rows for text in row["tasks"] if text not in names), None)
    if unknown is not None:
        logger.warning("%s does not number the task %r of an episode.", root / keys.TASKS_JSONL, unknown)
    return names
