"""meta/episodes: one row per episode, in order, each pointing to files that are there.

Shapes: E episodes.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lerobot.datasets.doctor.finding import Finding, finding, numbered
from lerobot.datasets.doctor.folder import Episodes, Folder, Places
from lerobot.datasets.episodes import NEEDED
from lerobot.datasets.tables import EPISODES_FOLDER, STATS_PREFIX, position_of

CAPTURE_PREFIX = "capture/"  # long columns that only the check of cameras reads
VIDEO_PARTS = ("chunk_index", "file_index", "from_timestamp", "to_timestamp")


def table_paths(root: Path) -> list[Path]:
    """The files of the episode table in the order their rows count."""
    return sorted(path for path in (root / EPISODES_FOLDER).glob("*/*.parquet") if path.name[0] != ".")


def read_episodes(folder: Folder) -> list[Finding]:
    """Fill `episodes` of the folder from every file that can be read; what is wrong with the files."""
    found, read = [], []
    paths = table_paths(folder.root)
    if not paths:
        if (folder.info or {}).get("total_episodes") == 0 and not any(folder.root.glob("data/*/*.parquet")):
            folder.episodes = _arrays(
                folder, pa.table({name: pa.array([], pa.int64()) for name in NEEDED}), []
            )
            return []
        return [
            finding("episodes.missing", EPISODES_FOLDER, found="no file", expected="a row for every episode")
        ]
    for path in paths:
        name = path.relative_to(folder.root).as_posix()
        try:
            file = pq.ParquetFile(path)
            wanted = [c for c in file.schema_arrow.names if not c.startswith((STATS_PREFIX, CAPTURE_PREFIX))]
            table = file.read(columns=wanted)
        except (pa.ArrowException, OSError) as error:
            size = path.stat().st_size
            text = f"{size} bytes, {error}"
            found.append(finding("episodes.unreadable", name, found=text, expected="a parquet file"))
            continue
        missing = [c for c in NEEDED if c not in table.column_names or table[c].null_count]
        missing += [
            f"videos/{key}/{part}"
            for key in folder.video_keys
            for part in VIDEO_PARTS
            if f"videos/{key}/{part}" not in table.column_names or table[f"videos/{key}/{part}"].null_count
        ]
        if missing:
            text = f"no values in {', '.join(missing)}"
            found.append(finding("episodes.column", name, found=text, expected="a value for every episode"))
        if not set(missing) & set(NEEDED):
            read.append((name, table))
    if read:
        read, repeated = _without_repeats(read)
        found += repeated
        table = pa.concat_tables([table for _, table in read], promote_options="permissive")
        folder.episodes = _arrays(folder, table, [(name, len(one)) for name, one in read])
    return found


def _without_repeats(
    read: list[tuple[str, pa.Table]],
) -> tuple[list[tuple[str, pa.Table]], list[Finding]]:
    """Rows of episodes that no earlier file has; readers pass the others over."""
    kept, found, seen = [], [], np.empty(0, dtype=np.int64)
    for name, table in read:
        numbers = table["episode_index"].to_numpy()
        again = np.isin(numbers, seen)
        if again.any():
            text = f"{numbered(numbers[again])}, which an earlier file has too"
            found.append(finding("episodes.repeated", name, found=text, expected="a row per episode"))
            table = table.filter(pa.array(~again))
        kept.append((name, table))
        seen = np.concatenate([seen, numbers])
    return kept, found


def _arrays(folder: Folder, table: pa.Table, sizes: list[tuple[str, int]]) -> Episodes:
    info = folder.info or {}

    def number(name: str, empty: float = -1) -> np.ndarray:
        if name not in table.column_names:
            return np.full(len(table), empty)
        values = table[name].combine_chunks().fill_null(empty)
        return values.to_numpy(zero_copy_only=False)

    videos = {}
    for key in folder.video_keys:
        at = [number(f"videos/{key}/{part}", -1 if n < 2 else np.nan) for n, part in enumerate(VIDEO_PARTS)]
        videos[key] = _places(info.get("video_path"), at[0], at[1], key)
        videos[key].start_s, videos[key].end_s = (one.astype(np.float64) for one in at[2:])
    core = {name: number(name).astype(np.int64) for name in NEEDED}
    return Episodes(
        number=core["episode_index"],
        length=core["length"],
        start=core["dataset_from_index"],
        end=core["dataset_to_index"],
        tasks=[list(one or []) for one in table["tasks"].to_pylist()]
        if "tasks" in table.column_names
        else None,
        data=_places(info.get("data_path"), core["data/chunk_index"], core["data/file_index"]),
        videos=videos,
        table_files=[name for name, _ in sizes],
        table_file=np.repeat(np.arange(len(sizes)), [size for _, size in sizes]),
    )


def _places(template: Any, chunks: np.ndarray, numbers: np.ndarray, key: str = "") -> Places:
    """The distinct files in the order of their positions, and which one each episode is in."""
    pairs, which = np.unique(np.stack([chunks, numbers]).astype(np.int64), axis=1, return_inverse=True)
    which, files = which.reshape(-1).astype(np.int64), []
    for number, (chunk, file) in enumerate(pairs.T):
        try:
            files.append(str(template).format(video_key=key, chunk_index=int(chunk), file_index=int(file)))
        except (KeyError, IndexError, ValueError):
            files.append("")
        if chunk < 0 or not files[-1] or not isinstance(template, str):
            which[which == number] = -1
    return Places(files=files, file=which)


def check_episodes(folder: Folder) -> Iterator[Finding]:
    """Order, lengths and ranges of the rows, and the tasks that they name."""
    table = folder.episodes
    if table is None or not len(table):
        return
    expected = np.arange(len(table))
    if not np.array_equal(table.number, expected):
        k = int(np.flatnonzero(table.number != expected)[0])
        yield finding(
            "episodes.order",
            _file(table, k),
            found=f"{_order_fault(table.number)}; row {k} is episode {table.number[k]}",
            expected=f"episode {k} in row {k}",
        )
    yield from _ranges(table)
    if folder.tasks is not None and table.tasks is not None:
        known = set(folder.tasks)
        wrong = [k for k, tasks in enumerate(table.tasks) if not tasks or not known.issuperset(tasks)]
        if wrong:
            text = f"tasks {table.tasks[wrong[0]]} of {numbered(table.number[wrong])}"
            yield finding(
                "episodes.task",
                _file(table, wrong[0]),
                found=text,
                expected="texts of meta/tasks.parquet",
                episodes=table.number[wrong],
            )


def _order_fault(numbers: np.ndarray) -> str:
    if len(np.unique(numbers)) < len(numbers):
        return "episode numbers repeat"
    return "episodes are missing" if numbers.max() >= len(numbers) else "episodes are out of order"


def _ranges(table: Episodes) -> Iterator[Finding]:
    wrong = np.flatnonzero((table.end - table.start != table.length) | (table.length <= 0))
    if len(wrong):
        k = int(wrong[0])
        yield finding(
            "episodes.length",
            _file(table, k),
            found=f"{numbered(table.number[wrong])}: length {table.length[k]} and rows {table.start[k]} to "
            f"{table.end[k]}",
            expected="length = dataset_to_index - dataset_from_index, and at least 1",
            episodes=table.number[wrong],
        )
    starts = np.concatenate([[0], table.end[:-1]])
    wrong = np.flatnonzero(table.start != starts)
    if len(wrong):
        k = int(wrong[0])
        yield finding(
            "episodes.range",
            _file(table, k),
            found=f"episode {table.number[k]} begins at row {table.start[k]}",
            expected=f"row {starts[k]}, where the one before ends",
            episodes=table.number[wrong],
        )


def check_own_places(folder: Folder) -> Iterator[Finding]:
    """Rows that say in which file of meta/episodes they stand must be right."""
    names = ["meta/episodes/chunk_index", "meta/episodes/file_index"]
    for name in folder.episodes.table_files if folder.episodes is not None else []:
        path = folder.root / name
        if not set(names) <= set(pq.read_schema(path).names):
            continue
        rows = pq.ParquetFile(path).read(columns=names)
        here = position_of(path)
        said = np.stack([rows[c].fill_null(-1).to_numpy() for c in names], axis=1)
        wrong = np.flatnonzero((said != here).any(axis=1))
        if len(wrong):
            text = f"{len(wrong)} rows name chunk {said[wrong[0]][0]}, file {said[wrong[0]][1]}"
            yield finding("episodes.self", name, found=text, expected=f"chunk {here[0]}, file {here[1]}")


def check_files(folder: Folder) -> Iterator[Finding]:
    """Files that are missing, files that nothing points to, and what an interrupted recording left."""
    table, root = folder.episodes, folder.root
    used: set[str] = set()
    for code, places in _all_places(table):
        for number, name in enumerate(places.files):
            episodes = places.of_file(number)
            used.add(name)
            if len(episodes) and table is not None and not (root / name).is_file():
                yield finding(
                    f"{code}.missing",
                    name,
                    found="no such file",
                    expected=numbered(table.number[episodes]),
                    remedy="fetch it again from where the dataset came from; else --repair leaves these "
                    "episodes out",
                    episodes=table.number[episodes],
                )
    if table is not None:
        for pattern in ("data/*/*.parquet", "videos/*/*/*.mp4"):
            for path in sorted(root.glob(pattern)):
                name = path.relative_to(root).as_posix()
                if name not in used and path.name[0] != ".":
                    text = f"{path.stat().st_size} bytes"
                    yield finding("files.unused", name, found=text, expected="an episode that points to it")
    for path in sorted(root.glob("**/.*.part")):
        text = f"{path.stat().st_size} bytes of an unfinished file"
        yield finding("files.part", path.relative_to(root), found=text, expected="no such file")
    for path in sorted(root.glob("images/*/episode*")):
        text = f"{sum(1 for _ in path.iterdir())} pictures" if path.is_dir() else "a file"
        yield finding("files.images", path.relative_to(root), found=text, expected="no such folder")


def check_joined(folder: Folder) -> Iterator[Finding]:
    """A recording that was not finalized has a data file for every episode."""
    table = folder.episodes
    if table is None or folder.is_old or len(table) < 2 or len(table.data.files) != len(table):
        return
    limit = (folder.info or {}).get("data_files_size_in_mb", 100)
    sizes = [path.stat().st_size for name in table.data.files if (path := folder.root / name).is_file()]
    if len(sizes) > 1 and isinstance(limit, (int, float)) and sizes[0] + sizes[1] < limit * 1024**2:
        yield finding(
            "files.unjoined",
            "data",
            found=f"{len(sizes)} files of one episode each",
            expected="few large files; any number of episodes can be read all the same",
            remedy="LeRobotDataset.resume(repo_id, root).finalize() joins them",
        )


def _all_places(table: Episodes | None) -> list[tuple[str, Places]]:
    if table is None:
        return []
    return [("data", table.data), *(("video", places) for places in table.videos.values())]


def _file(table: Episodes, row: int) -> str:
    return table.table_files[int(table.table_file[row])] if table.table_files else EPISODES_FOLDER
