"""Chosen episodes into a new dataset: rows renumbered, videos cut and joined without encoding.

    [(dataset, episode), ...] -> data files, videos, used tasks -> meta/episodes (last) -> info, stats

The new dataset counts as empty until its episode table is written, so an interrupted copy is no dataset.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lerobot.core import files, hub, keys
from lerobot.core.errors import DatasetError
from lerobot.datasets import compact, tables
from lerobot.datasets.dataset import LeRobotDataset
from lerobot.datasets.edit.carry import CarriedStats
from lerobot.datasets.encoder import Segment, join_videos, stream_kind
from lerobot.datasets.metadata import LeRobotDatasetMetadata
from lerobot.datasets.schema import frame_schema
from lerobot.datasets.stats import Stats

Pick = tuple[LeRobotDatasetMetadata, int]  # a dataset and an episode of it
ROWS_PER_TABLE = 5000


def output_folder(repo_id: str, output_dir: str | Path | None) -> Path:
    """Where an edit writes: the folder given, or the local home of the new name."""
    return Path(output_dir) if output_dir is not None else hub.lerobot_home() / repo_id


def check_episodes(meta: LeRobotDatasetMetadata, episodes: list[int]) -> list[int]:
    """The episodes without repetitions, ascending.

    Raises:
        DatasetError: there are none, or one does not exist.
    """
    chosen = sorted({int(episode) for episode in episodes})
    wrong = [episode for episode in chosen if not 0 <= episode < meta.total_episodes]
    if wrong or not chosen:
        raise DatasetError(
            f"Episodes {list(episodes)}: {f'{wrong[0]} does not exist' if wrong else 'none chosen'}; "
            f"{meta.repo_id!r} has {meta.total_episodes} (0 to {meta.total_episodes - 1})."
        )
    return chosen


def copy_episodes(
    picks: list[Pick], *, repo_id: str, root: Path, features: dict[str, dict], stats: Stats | None = None
) -> LeRobotDataset:
    """A new dataset of the picked episodes in the order given, with these features.

    Statistics are those of a recording of these episodes when all sources have sketches. Otherwise they are
    carried over as they were recorded, those of index columns too, and `stats` are the new dataset's; by
    default they are put together from the episodes'.

    Raises:
        DatasetError: the folder exists, or the sources are damaged.
    """
    first = picks[0][0]
    meta = LeRobotDatasetMetadata.create(
        repo_id,
        first.info["fps"],
        features,
        first.robot_type,
        root,
        chunks_size=first.chunks_size,
        data_files_size_in_mb=first.data_files_size_in_mb,
        video_files_size_in_mb=first.video_files_size_in_mb,
    )
    rows = _start_rows(picks)
    carried = CarriedStats(meta, [source for source, _ in picks])
    _copy_data(meta, picks, rows, carried)
    for key in meta.video_keys:
        _copy_videos(meta, picks, rows, key)
    for row, one in zip(rows, carried.episodes, strict=True):
        row |= tables.flatten_stats(one)
    carried.save_cameras()
    _write_table(meta, rows)
    meta.set_totals()
    meta.save_info()
    carried.save(stats)
    return LeRobotDataset(repo_id, root=root)


def _start_rows(picks: list[Pick]) -> list[dict[str, Any]]:
    """The new numbers of the picked episodes."""
    rows, start = [], 0
    for number, (source, episode) in enumerate(picks):
        length = source.episodes.columns["length"][episode]
        rows.append({"episode_index": number, "tasks": [], "length": length})
        rows[-1] |= {"data/chunk_index": 0, "data/file_index": 0}
        rows[-1] |= {"dataset_from_index": start, "dataset_to_index": start + length}
        start += length
    return rows


def _copy_data(
    meta: LeRobotDatasetMetadata, picks: list[Pick], rows: list[dict[str, Any]], carried: CarriedStats
) -> None:
    """Data files, one row group per episode, up to the size limit; `tasks` of the rows and of the dataset."""
    schema, place, limit = frame_schema(meta.features), (0, 0), meta.data_files_size_in_mb * compact.MIB
    tables_read = _episode_tables(picks)
    k = 0
    while k < len(picks):
        path = meta.root / meta.data_file(*place)
        path.parent.mkdir(parents=True, exist_ok=True)
        with pq.ParquetWriter(path, schema) as writer:
            while True:
                table = next(tables_read)
                tasks = _task_names(picks[k][0], table)
                meta.tasks = meta.tasks.with_tasks(tasks)
                rows[k] |= {"tasks": list(dict.fromkeys(tasks))}
                rows[k] |= {"data/chunk_index": place[0], "data/file_index": place[1]}
                before = path.stat().st_size
                table = _renumbered(table, rows[k], meta, tasks).select(schema.names).cast(schema)
                source, episode = picks[k]
                stats = source.episodes.stats(episode)
                carried.take(table, source=source, episode=episode, stats=stats)
                writer.write_table(table)
                size, k = path.stat().st_size, k + 1
                if k == len(picks) or 2 * size - before >= limit:  # the next is expected to be as large
                    break
        files.sync_file(path)
        place = compact.advance(place, meta.chunks_size)
    meta.tasks.save(meta.root)


def _episode_tables(picks: list[Pick]) -> Iterator[pa.Table]:
    """Rows of each picked episode; a source file is read once for neighbours that share it."""
    last: tuple[Path, pa.Table] | None = None
    for source, episode in picks:
        path = source.root / source.get_data_file_path(episode)
        if last is None or last[0] != path:
            last = (path, tables.read_parquet(path))
        row, table = source.episodes[episode], last[1]
        index = table.column(keys.INDEX).to_numpy()
        table = table.filter((index >= row["dataset_from_index"]) & (index < row["dataset_to_index"]))
        if len(table) != row["length"]:
            raise DatasetError(f"{path} has {len(table)} of the {row['length']} frames of episode {episode}.")
        yield table


def _task_names(source: LeRobotDatasetMetadata, table: pa.Table) -> list[str]:
    return [source.tasks.name(index) for index in table.column(keys.TASK_INDEX).to_pylist()]


def _renumbered(
    table: pa.Table, row: dict[str, Any], meta: LeRobotDatasetMetadata, tasks: list[str]
) -> pa.Table:
    """The episode's rows under their new numbers."""
    length = row["length"]
    columns = {
        keys.EPISODE_INDEX: np.full(length, row["episode_index"]),
        keys.INDEX: np.arange(row["dataset_from_index"], row["dataset_to_index"]),
        keys.TASK_INDEX: np.array([meta.tasks.index(task) for task in tasks]),
    }
    for name, values in columns.items():
        table = table.set_column(table.column_names.index(name), name, pa.array(values, pa.int64()))
    return table


def _copy_videos(
    meta: LeRobotDatasetMetadata, picks: list[Pick], rows: list[dict[str, Any]], key: str
) -> None:
    """One camera's videos, joined up to the size limit; sizes are shares of the source files' sizes."""
    place, total = (0, 0), 0.0
    segments: list[Segment] = []
    limit = meta.video_files_size_in_mb * compact.MIB
    frames = _frames_by_file([source for source, _ in picks], key)
    kinds = {path: stream_kind(path) for path in frames}
    at = 0
    for row, (source, episode) in zip(rows, picks, strict=True):
        path = source.root / source.get_video_file_path(episode, key)
        start = round(source.episodes.columns[f"videos/{key}/from_timestamp"][episode] * source.fps)
        segment = Segment(path=path, start=start, length=row["length"])
        size = path.stat().st_size * segment.length / frames[path]
        if segments and (total + size >= limit or kinds[path] != kinds[segments[-1].path]):
            _write_video(meta, key, place, segments)
            place, segments, total, at = compact.advance(place, meta.chunks_size), [], 0.0, 0
        segments.append(segment)
        total += size
        row |= {f"videos/{key}/chunk_index": place[0], f"videos/{key}/file_index": place[1]}
        row |= {f"videos/{key}/from_timestamp": at / meta.fps}
        row |= {f"videos/{key}/to_timestamp": (at + segment.length) / meta.fps}
        at += segment.length
    _write_video(meta, key, place, segments)


def _frames_by_file(sources: list[LeRobotDatasetMetadata], key: str) -> dict[Path, int]:
    """How many frames each source file of a camera holds."""
    frames: dict[Path, int] = {}
    for source in {id(one): one for one in sources}.values():
        for episode, length in enumerate(source.episodes.columns["length"]):
            path = source.root / source.get_video_file_path(episode, key)
            frames[path] = frames.get(path, 0) + length
    return frames


def _write_video(
    meta: LeRobotDatasetMetadata, key: str, place: compact.Position, segments: list[Segment]
) -> None:
    path = meta.root / meta.video_file(key, *place)
    files.write_atomically(path, lambda part: join_videos(segments, part, fps=meta.fps))


def _write_table(meta: LeRobotDatasetMetadata, rows: list[dict[str, Any]]) -> None:
    """meta/episodes, in files of a few thousand rows."""
    place = (0, 0)
    for start in range(0, len(rows), ROWS_PER_TABLE):
        some = rows[start : start + ROWS_PER_TABLE]
        path = meta.root / tables.EPISODES_PATH.format(chunk_index=place[0], file_index=place[1])
        for k, row in enumerate(some):
            row |= {"meta/episodes/chunk_index": place[0], "meta/episodes/file_index": place[1]}
            meta.episodes.append(row, (path, k))
        tables.write_episode_rows(path, some)
        place = compact.advance(place, meta.chunks_size)
