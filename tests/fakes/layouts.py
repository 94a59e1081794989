"""Made datasets rewritten into older layouts: v2.1, v2.0, and shards beside meta/episodes.jsonl."""

import json
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lerobot.datasets import LeRobotDataset
from lerobot.datasets.join import Segment, join_videos
from lerobot.datasets.schema import DEFAULT_FEATURES
from tests.fakes import dataset as made

MOMENTS = ("min", "max", "mean", "std")


def v21(source: LeRobotDataset, out: Path) -> Path:
    """The dataset in format v2.1: one file per episode, statistics per episode."""
    info = {key: value for key, value in _info(source).items() if not key.endswith("_in_mb")}
    info |= {
        "codebase_version": "v2.1",
        "total_videos": source.num_episodes * len(source.meta.video_keys),
        "total_chunks": 1,
        "chunks_size": 1000,
        "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet",
        "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4",
    }
    write_json(out / "meta/info.json", info)
    _write_episodes(source, out)
    write_lines(out / "meta/tasks.jsonl", [{"task_index": i, "task": t} for i, t in _tasks(source)])
    stats = [
        {"episode_index": k, "stats": _plain(source.meta.episodes.stats(k), (*MOMENTS, "count"))}
        for k in range(source.num_episodes)
    ]
    write_lines(out / "meta/episodes_stats.jsonl", stats)
    for k in range(source.num_episodes):
        _write_table(out / f"data/chunk-000/episode_{k:06d}.parquet", rows_of(source, [k]))
        for key in source.meta.video_keys:
            write_video(source, key, [(k, 0, None)], out / f"videos/chunk-000/{key}/episode_{k:06d}.mp4")
    return out


def v20(source: LeRobotDataset, out: Path) -> Path:
    """The dataset in format v2.0: like v2.1, with one stats.json that counts nothing."""
    v21(source, out)
    (out / "meta/episodes_stats.jsonl").unlink()
    info = json.loads((out / "meta/info.json").read_text())
    write_json(out / "meta/info.json", info | {"codebase_version": "v2.0"})
    write_json(out / "meta/stats.json", _plain(source.meta.stats, MOMENTS))
    return out


def shards(
    source: LeRobotDataset,
    out: Path,
    *,
    data: list[list[int]],
    videos: list[list[int]] | None = None,
    without: tuple[str, ...] = (),
    has_tasks: bool = False,
) -> Path:
    """The layout of the guide: shards of whole episodes; the five default columns are not declared.

    Args:
        data, videos: the episodes of each shard.
        without: columns left out of the data files.
        has_tasks: write meta/tasks.jsonl.
    """
    declared = {k: v for k, v in _info(source)["features"].items() if k not in DEFAULT_FEATURES}
    for one in declared.values():
        if one["dtype"] == "video":
            del one["names"]
            one["video_info"] = {"video.fps": source.fps, "video.codec": "h264"}
    info = {"codebase_version": "v3.0", "robot_type": "so101", "fps": source.fps, "features": declared}
    write_json(out / "meta/info.json", info)
    _write_episodes(source, out)
    write_json(out / "meta/stats.json", _plain(source.meta.stats, MOMENTS))
    if has_tasks:
        write_lines(out / "meta/tasks.jsonl", [{"task_index": i, "task": t} for i, t in _tasks(source)])
    for k, episodes in enumerate(data):
        table = rows_of(source, episodes)
        path = out / f"data/train-{k:05d}-of-{len(data):05d}.parquet"
        _write_table(path, table.drop_columns([name for name in without if name in table.column_names]))
    for key in source.meta.video_keys:
        groups = data if videos is None else videos
        for k, episodes in enumerate(groups):
            path = out / f"videos/{key}/train-{k:05d}-of-{len(groups):05d}.mp4"
            write_video(source, key, [(e, 0, None) for e in episodes], path)
    return out


def rows_of(source: LeRobotDataset, episodes: list[int]) -> pa.Table:
    """All columns of some episodes."""
    tables = []
    for k in episodes:
        table = pq.read_table(source.root / source.meta.get_data_file_path(k))
        tables.append(table.filter(np.asarray(table.column("episode_index")) == k))
    return pa.concat_tables(tables)


def packets(path: Path) -> list[bytes]:
    """The encoded pictures of a video, in the order they are stored."""
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.pts is not None]


def write_json(path: Path, value) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=4), encoding="utf-8")


def write_lines(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def check(dataset: LeRobotDataset, lengths: list[int]) -> None:
    """Every item must be what was recorded, and the tables must say so."""
    made.check(dataset, lengths)
    assert list(dataset.meta.episodes["dataset_to_index"]) == np.cumsum(lengths).tolist()


def _info(source: LeRobotDataset) -> dict:
    info = json.loads((source.root / "meta/info.json").read_text())
    return info | {"robot_type": "so101"}


def _tasks(source: LeRobotDataset) -> list[tuple[int, str]]:
    return [(i, text) for text, i in source.meta.tasks["task_index"].items()]


def _write_episodes(source: LeRobotDataset, out: Path) -> None:
    rows = [
        {"episode_index": k, "tasks": list(source.meta.episodes[k]["tasks"]), "length": int(n)}
        for k, n in enumerate(source.meta.episodes["length"])
    ]
    write_lines(out / "meta/episodes.jsonl", rows)


def _plain(stats: dict, names: tuple[str, ...]) -> dict:
    return {key: {n: np.asarray(one[n]).tolist() for n in names if n in one} for key, one in stats.items()}


def _write_table(path: Path, table: pa.Table) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)


def write_video(source: LeRobotDataset, key: str, parts: list, path: Path) -> None:
    """A video of parts (episode, first frame, number of frames or None for the rest)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    segments = []
    for episode, first, length in parts:
        row = source.meta.episodes[episode]
        start = round(row[f"videos/{key}/from_timestamp"] * source.fps) + first
        file = source.root / source.meta.get_video_file_path(episode, key)
        segments.append(Segment(path=file, start=start, length=length or row["length"] - first))
    join_videos(segments, path, fps=source.fps)
