"""Small files of a recording joined up to the size limits, and leftovers deleted; safe at every instant.

    files of one episode each:  p0 p1 p2 p3  ->  groups below the limit  ->  (p0 p1 p2) as p0, (p3) as p3

Each group is joined aside and renamed to its first file's place; then the rows of its episodes are changed;
at the very end the other files are deleted. In between, files hold more than the rows point to, which readers
do not mind. No place is ever given to other episodes: a reader that opened the dataset before may find a file
missing, but never the frames of other episodes in it.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from lerobot.core import files, keys
from lerobot.datasets import tables
from lerobot.datasets.join import Segment, join_videos, stream_kind
from lerobot.datasets.metadata import LeRobotDatasetMetadata

MIB = 1024**2
Position = tuple[int, int]


def compact(meta: LeRobotDatasetMetadata, *, first_new: int = 0) -> None:
    """Join the trailing files of one episode each, and files of meta/episodes from episode `first_new` on."""
    emptied: list[Path] = []
    for name in ("data", *(f"videos/{key}" for key in meta.video_keys)):
        emptied += _compact_series(meta, name)
    emptied += _compact_table(meta, first_new)
    meta.save_info()  # a reader that misses one of the files below sees by it that the dataset has changed
    for path in emptied:
        path.unlink()


def _compact_series(meta: LeRobotDatasetMetadata, series: str) -> list[Path]:
    """Join files of one series; returns those that no row points to any more."""
    places, emptied = _places(meta, series), []
    for group in _groups(meta, series, range(_first_single(places), len(places))):
        if len(group) > 1:
            _join(meta, series, group, places[group[0]])
            emptied += [meta.root / _path(meta, series, places[episode]) for episode in group[1:]]
    return emptied


def _places(meta: LeRobotDatasetMetadata, series: str) -> list[Position]:
    columns = meta.episodes.columns
    return list(zip(columns[f"{series}/chunk_index"], columns[f"{series}/file_index"], strict=True))


def _first_single(places: list[Position]) -> int:
    """The first episode of the run, at the end, of files that hold one episode each."""
    start = len(places)
    while start and _is_single(places, start):
        start -= 1
    return start


def _is_single(places: list[Position], start: int) -> bool:
    """Whether no neighbour of episode start-1 shares its file; a file's episodes are neighbours."""
    here = places[start - 1]
    return (start < 2 or places[start - 2] != here) and (start == len(places) or places[start] != here)


def _groups(meta: LeRobotDatasetMetadata, series: str, episodes: Sequence[int]) -> Iterator[list[int]]:
    """Neighbouring episodes whose files can be joined and together stay below the size limit."""
    limit = (meta.data_files_size_in_mb if series == "data" else meta.video_files_size_in_mb) * MIB
    places, kind, total = _places(meta, series), None, 0
    group: list[int] = []
    for episode in episodes:
        path = meta.root / _path(meta, series, places[episode])
        size, own_kind = path.stat().st_size, None if series == "data" else stream_kind(path)
        if group and (total + size >= limit or own_kind != kind):
            yield group
            group, total = [], 0
        group.append(episode)
        total, kind = total + size, own_kind
    if group:
        yield group


def _path(meta: LeRobotDatasetMetadata, series: str, place: Position) -> Path:
    if series == "data":
        return meta.data_file(*place)
    return meta.video_file(series.removeprefix("videos/"), *place)


def _join(meta: LeRobotDatasetMetadata, series: str, group: list[int], target: Position) -> None:
    """Write the group's file and point the rows of its episodes to it."""
    places = _places(meta, series)
    sources = [meta.root / _path(meta, series, places[episode]) for episode in group]
    lengths = [meta.episodes.columns["length"][episode] for episode in group]
    out = meta.root / _path(meta, series, target)
    changes: dict[int, dict[str, Any]] = {
        episode: {f"{series}/chunk_index": target[0], f"{series}/file_index": target[1]} for episode in group
    }
    if series == "data":
        files.write_atomically(out, lambda part: _join_data(meta, group, sources, part))
    else:
        segments = [Segment(path=p, start=0, length=n) for p, n in zip(sources, lengths, strict=True)]
        files.write_atomically(out, lambda part: join_videos(segments, part, fps=meta.fps))
        for episode, start, length in zip(group, np.cumsum([0, *lengths]).tolist(), lengths, strict=False):
            changes[episode] |= {
                f"{series}/from_timestamp": start / meta.fps,
                f"{series}/to_timestamp": (start + length) / meta.fps,
            }
    change_rows(meta, changes)


def _join_data(meta: LeRobotDatasetMetadata, group: list[int], sources: list[Path], out: Path) -> None:
    """One row group per episode; rows of other episodes, left by an interrupted joining, are not copied."""
    schema = pq.read_schema(sources[0])
    with pq.ParquetWriter(out, schema) as writer:
        for episode, source in zip(group, sources, strict=True):
            table = pq.ParquetFile(source).read()
            table = table.filter(np.asarray(table.column(keys.EPISODE_INDEX)) == episode)
            writer.write_table(table.cast(schema), row_group_size=max(1, len(table)))


def change_rows(meta: LeRobotDatasetMetadata, changes: dict[int, dict[str, Any]]) -> None:
    """Change columns of some episodes in meta/episodes and in memory; each file is replaced by one rename."""
    by_file: dict[Path, list[int]] = {}
    for episode in changes:
        by_file.setdefault(meta.episodes.sources[episode][0], []).append(episode)
    for path, episodes in by_file.items():
        rows = tables.read_episode_rows(path)
        for episode in episodes:
            rows[meta.episodes.sources[episode][1]].update(changes[episode])
        tables.write_episode_rows(path, rows)
        for episode in episodes:
            for name, value in changes[episode].items():
                meta.episodes.columns[name][episode] = value


def _compact_table(meta: LeRobotDatasetMetadata, first_new: int) -> list[Path]:
    """Join the files of meta/episodes up to the limit of data files; returns those that are not needed."""
    paths = list(dict.fromkeys(path for path, _ in meta.episodes.sources[first_new:]))
    limit, total = meta.data_files_size_in_mb * MIB, 0
    group: list[Path] = []
    emptied: list[Path] = []
    for path in paths:
        size = path.stat().st_size
        if group and total + size >= limit:
            emptied += _join_tables(meta, group)
            group, total = [], 0
        group.append(path)
        total += size
    return emptied + _join_tables(meta, group)


def _join_tables(meta: LeRobotDatasetMetadata, paths: list[Path]) -> list[Path]:
    if len(paths) < 2:
        return []
    episodes = [e for e, (path, _) in enumerate(meta.episodes.sources) if path in set(paths)]
    own = {name: meta.episodes.columns[name][episodes[0]] for name in TABLE_PLACE if name in meta.episodes}
    stored = {path: tables.read_episode_rows(path) for path in paths}
    rows = [stored[path][row] | own for path, row in (meta.episodes.sources[e] for e in episodes)]
    tables.write_episode_rows(paths[0], rows)
    for k, episode in enumerate(episodes):
        meta.episodes.sources[episode] = (paths[0], k)
        for name, value in own.items():
            meta.episodes.columns[name][episode] = value
    return paths[1:]


TABLE_PLACE = ("meta/episodes/chunk_index", "meta/episodes/file_index")


def remove_leftovers(meta: LeRobotDatasetMetadata) -> list[Path]:
    """Delete unfinished files, and data, video and episode files that no episode points to; returns them."""
    used = {path for path, _ in meta.episodes.sources}
    for episode in range(len(meta.episodes)):
        used.add(meta.root / meta.get_data_file_path(episode))
        used |= {meta.root / meta.get_video_file_path(episode, key) for key in meta.video_keys}
    found = [*meta.root.glob(f"*/**/.*{files.PART_SUFFIX}")]
    for pattern in ("data/*/*.parquet", f"{tables.EPISODES_FOLDER}/*/*.parquet", "videos/*/*/*.mp4"):
        found += [path for path in meta.root.glob(pattern) if path not in used]
    for path in found:
        path.unlink()
    return found


def advance(position: Position, chunks_size: int) -> Position:
    """The chunk and file number after these."""
    chunk, file = position
    return (chunk + 1, 0) if file >= chunks_size - 1 else (chunk, file + 1)
