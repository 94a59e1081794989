"""The layout that some guides show: a list of episodes in JSON lines, data and videos in numbered shards.

meta/info.json                            no path templates, perhaps no counts, no default columns in features
meta/episodes.jsonl                       one line per episode: its number, texts, length
data/train-00000-of-00002.parquet         whole episodes, one after the other
videos/<camera>/train-00000-of-00001.mp4  likewise, in shards of their own

Where each episode lies is found by counting: rows by their episode_index, frames of videos in their order.
"""

import logging
import re
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lerobot.core import keys
from lerobot.core.errors import DatasetError
from lerobot.datasets.legacy.view import (
    SHARDS,
    OldEpisodes,
    View,
    convert_command,
    episode_rows,
    read_stats,
    read_tasks,
)
from lerobot.datasets.schema import DEFAULT_FEATURES
from lerobot.datasets.tables import TaskTable
from lerobot.datasets.timeline import read_timeline

logger = logging.getLogger(__name__)

COUNTS = ("total_episodes", "total_frames", "total_tasks", "splits")
SHARD = re.compile(r"(?P<start>.*?)(?P<number>\d+)(?P<end>(-of-\d+)?\.\w+)")


def view(root: Path, info: dict[str, Any], *, may_tear: bool = False) -> View:
    """The dataset at `root`, whose meta/info.json is `info`.

    Args:
        may_tear: episodes may go on in the next shard; the episode table names the first.

    Raises:
        DatasetError: shards are missing or damaged, or do not hold the episodes of meta/episodes.jsonl.
    """
    rows, features = episode_rows(root), info.get("features", {})
    data_path, shards = _shards(root, "data", ".parquet")
    data = [_read_numbers(path) for path in shards.values()]
    lengths = _lengths(root, rows, data)
    columns = _columns(rows, lengths)
    columns |= _placed(
        "data", list(shards), [len(table) for table in data], lengths, root=root, may_tear=may_tear
    )
    _check_order(list(shards.values()), data, lengths, root=root)
    video_path, fps = None, info.get("fps") or 1
    videos_of: dict[str, list[Path]] = {}
    for camera in (name for name, one in features.items() if one.get("dtype") == "video"):
        template, videos = _shards(root, f"videos/{camera}", ".mp4")
        counts = [_count_frames(path) for path in videos.values()]
        columns |= _placed(f"videos/{camera}", list(videos), counts, lengths, root=root, may_tear=may_tear)
        videos_of[camera] = list(videos.values())
        columns |= _times(camera, columns, lengths, fps)
        template = "videos/{video_key}" + template.removeprefix(f"videos/{camera}")
        video_path = _same(root, video_path, template)
    tasks = _tasks(root, rows, data, lengths)
    defaults = {name: dict(one) for name, one in DEFAULT_FEATURES.items() if name not in features}
    described = {key: value for key, value in info.items() if key not in COUNTS}
    return View(
        layout=SHARDS,
        info=described
        | {"features": {**features, **defaults}, "data_path": data_path, "video_path": video_path}
        | {"total_episodes": len(rows), "total_frames": sum(lengths), "total_tasks": len(tasks)}
        | {"splits": {"train": f"0:{len(rows)}"}},
        episodes=OldEpisodes(columns, root=root, stats={}),
        tasks=TaskTable(tasks),
        stats=read_stats(root, count=sum(lengths)),
        missing_columns=_missing_columns(list(shards.values())),
        list_files=lambda: {"data": list(shards.values()), **videos_of},
    )


def _shards(root: Path, folder: str, ending: str) -> tuple[str, dict[int, Path]]:
    """The template of a folder's shards, and the shards by number."""
    paths = sorted((root / folder).rglob(f"*{ending}"))
    paths = [path for path in paths if not any(p.startswith(".") for p in path.relative_to(root).parts)]
    if not paths:
        raise DatasetError(
            f"{root / folder} holds no {ending} file, and {root / keys.EPISODES_JSONL} exists."
        )
    names = [path.relative_to(root).as_posix() for path in paths]
    found = [SHARD.fullmatch(name.rpartition("/")[2]) for name in names]
    alike = {
        (name.rpartition("/")[0], m["start"], m["end"]) for name, m in zip(names, found, strict=True) if m
    }
    if None in found or len(alike) > 1:
        raise DatasetError(
            f"{root / folder}: expected one series of shards such as train-00000-of-00002{ending}, found "
            f"{', '.join(names[:4])}{' ...' if len(names) > 4 else ''}."
        )
    place, start, end = alike.pop()
    width = min(len(m["number"]) for m in found if m)
    template = f"{place}/{start}{{file_index:0{width}d}}{end}".replace("//", "/")
    return template, {int(m["number"]): path for m, path in zip(found, paths, strict=True) if m}


def _read_numbers(path: Path) -> pa.Table:
    """The columns of a shard that say which episode and task a row belongs to, as far as they are there."""
    try:
        file = pq.ParquetFile(path)
        wanted = [n for n in (keys.EPISODE_INDEX, keys.TASK_INDEX) if n in file.schema_arrow.names]
        return file.read(columns=wanted) if wanted else _rows_only(file.metadata.num_rows)
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"{path} is damaged ({error}). Is its download or copy unfinished?") from error


def _rows_only(count: int) -> pa.Table:
    return pa.table({"row": pa.nulls(count)})


def _lengths(root: Path, rows: list[dict[str, Any]], data: list[pa.Table]) -> list[int]:
    """Frames of each episode: what its line says, else how many rows bear its number."""
    total = sum(len(table) for table in data)
    if all(isinstance(row.get("length"), int) for row in rows):
        lengths = [row["length"] for row in rows]
    elif all(keys.EPISODE_INDEX in table.column_names for table in data):
        numbers = np.concatenate([table.column(keys.EPISODE_INDEX).to_numpy() for table in data])
        lengths = np.bincount(numbers, minlength=len(rows))[: len(rows)].tolist()
    else:
        raise DatasetError(
            f"{root / keys.EPISODES_JSONL} gives no lengths and the data files have no episode_index, so it "
            "is not known where episodes begin."
        )
    if sum(lengths) != total or min(lengths, default=1) < 1:
        raise DatasetError(
            f"{root / keys.EPISODES_JSONL}: {len(rows)} episodes of {sum(lengths)} frames in all, and "
            f"{root / 'data'} holds {total} rows. Is a shard missing?"
        )
    return lengths


def _columns(rows: list[dict[str, Any]], lengths: list[int]) -> dict[str, list]:
    ends = np.cumsum(lengths, dtype=np.int64).tolist()
    columns: dict[str, list] = {
        keys.EPISODE_INDEX: list(range(len(rows))),
        "tasks": [row["tasks"] for row in rows],
        "length": lengths,
        "dataset_from_index": [end - length for end, length in zip(ends, lengths, strict=True)],
        "dataset_to_index": ends,
    }
    for name in dict.fromkeys(name for row in rows for name in row if "/" not in name):
        columns.setdefault(name, [row.get(name) for row in rows])
    return columns


def _placed(
    series: str, numbers: list[int], counts: list[int], lengths: list[int], *, root: Path, may_tear: bool
) -> dict[str, list]:
    """Which shard holds each episode; `counts` are the frames of each shard, in order."""
    ends = np.cumsum(lengths, dtype=np.int64)
    borders = np.cumsum(counts, dtype=np.int64)
    if borders[-1] != ends[-1]:
        raise DatasetError(
            f"{root / series}: its files hold {borders[-1]} frames, the episodes have {ends[-1]}. Is a shard "
            "missing or cut off?"
        )
    first, last = (np.searchsorted(borders, edge, side="right") for edge in (ends - lengths, ends - 1))
    torn = np.flatnonzero(first != last)
    if len(torn) and not may_tear:
        raise DatasetError(
            f"{root / series}: episode {torn[0]} begins in one shard and ends in the next, so this dataset "
            f"cannot be read as it is. Type:\n  {convert_command(root, root.name)}"
        )
    return {
        f"{series}/chunk_index": [0] * len(lengths),
        f"{series}/file_index": [numbers[k] for k in first],
    }


def _times(camera: str, columns: dict[str, list], lengths: list[int], fps: float) -> dict[str, list]:
    """From and to of each episode in its video, s; every shard begins at 0."""
    starts, at, last = [], 0, None
    for number, length in zip(columns[f"videos/{camera}/file_index"], lengths, strict=True):
        at = at if number == last else 0
        starts.append(at)
        at, last = at + length, number
    ends = [start + length for start, length in zip(starts, lengths, strict=True)]
    return {
        f"videos/{camera}/from_timestamp": [start / fps for start in starts],
        f"videos/{camera}/to_timestamp": [end / fps for end in ends],
    }


def _check_order(paths: list[Path], data: list[pa.Table], lengths: list[int], *, root: Path) -> None:
    """Rows must come episode by episode."""
    expected, at = np.repeat(np.arange(len(lengths)), lengths), 0
    for path, table in zip(paths, data, strict=True):
        if keys.EPISODE_INDEX in table.column_names:
            numbers = table.column(keys.EPISODE_INDEX).to_numpy()
            wrong = np.flatnonzero(numbers != expected[at : at + len(table)])
            if len(wrong):
                k = int(wrong[0])
                raise DatasetError(
                    f"{path}, row {k}: episode_index is {numbers[k]}, expected {expected[at + k]} by the "
                    f"lengths in {root / keys.EPISODES_JSONL}."
                )
        at += len(table)


def _count_frames(path: Path) -> int:
    try:
        with av.open(str(path)) as container:
            frames = container.streams.video[0].frames
    except (av.FFmpegError, IndexError) as error:
        raise DatasetError(f"{path} is not a video that can be read ({error}).") from error
    return frames or len(read_timeline(path))


def _same(root: Path, first: str | None, other: str) -> str:
    """The one template of all cameras."""
    if first is not None and first != other:
        raise DatasetError(
            f"{root / 'videos'}: cameras are cut into shards of different names, {first} and {other}; "
            f"convert the dataset to read it. Type:\n  {convert_command(root, root.name)}"
        )
    return other


def _tasks(root: Path, rows: list[dict[str, Any]], data: list[pa.Table], lengths: list[int]) -> list[str]:
    """Task texts by number: of a file of tasks, else of the episodes, in the numbering of the data files."""
    named = read_tasks(root)
    if named is not None:
        return named
    texts = list(dict.fromkeys(text for row in rows for text in row["tasks"]))
    if not all(keys.TASK_INDEX in table.column_names for table in data):
        return texts or [""]
    numbers = np.concatenate([table.column(keys.TASK_INDEX).to_numpy() for table in data])
    names: dict[int, str] = {}
    used = [list(dict.fromkeys(part.tolist())) for part in np.split(numbers, np.cumsum(lengths)[:-1])]
    # Episodes of one task say it outright; in others the order of texts may be anything, so they come last.
    for k in sorted(range(len(rows)), key=lambda k: len(used[k])):
        known = {names.get(number) for number in used[k]}
        open_numbers = [number for number in used[k] if number not in names]
        open_texts = [text for text in rows[k]["tasks"] if text not in known]
        if len(open_numbers) == len(open_texts):
            names |= dict(zip(open_numbers, open_texts, strict=True))
    count = int(numbers.max()) + 1
    if sorted(names) != list(range(count)):
        if not texts and count == 1:
            return [""]
        names = dict(enumerate(texts))
        if len(names) < count:
            logger.warning("%s: %d tasks are used and %d are named.", root, count, len(names))
            names |= {k: f"task {k}" for k in range(len(names), count)}
    return [names[k] for k in sorted(names)]


def _missing_columns(paths: list[Path]) -> tuple[str, ...]:
    there = [set(pq.read_schema(path).names) for path in paths]
    return tuple(name for name in DEFAULT_FEATURES if not all(name in names for names in there))
