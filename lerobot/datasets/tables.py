"""Rows of the two small tables of a dataset as files hold them, and the tasks (what was to be done).

meta/episodes/chunk-CCC/file-FFF.parquet    one row per episode (episodes.py reads them into memory)
meta/tasks.parquet                          row i holds task_index i
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lerobot.core import files, keys
from lerobot.core.errors import DatasetError, suggest

EPISODES_FOLDER = "meta/episodes"
EPISODES_PATH = EPISODES_FOLDER + "/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
STATS_PREFIX = "stats/"
CAPTURE_PREFIX = "capture/"  # see capture.py
CAPTURE_LISTS = ("times_s", "repeated")  # one value per frame: read when asked for
CAPTURE_TYPES = {
    "times_s": pa.list_(pa.float64()),
    "repeated": pa.list_(pa.int64()),
    "fps": pa.float64(),
    "worst_gap_s": pa.float64(),
    "late_frames": pa.int64(),
    "repeated_frames": pa.int64(),
}
FLOATS = {"from_timestamp": pa.float64(), "to_timestamp": pa.float64()}
INTEGERS = ("chunk_index", "file_index", "episode_index", "length", "dataset_from_index", "dataset_to_index")


def read_parquet(path: Path, columns: list[str] | None = None) -> pa.Table:
    """A parquet file's columns.

    Raises:
        DatasetError: it is missing or damaged; names the file.
    """
    try:
        return open_parquet(path).read(columns=columns)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error


def open_parquet(path: Path) -> pq.ParquetFile:
    """A parquet file whose footer was read.

    Raises:
        DatasetError: it is missing or damaged; names the file.
    """
    if not path.is_file():
        raise DatasetError(
            f"{path} is missing. Load the dataset with force_cache_sync=True to download it again."
        )
    try:
        return pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> DatasetError:
    return DatasetError(
        f"{path} is damaged ({error}). If recording was interrupted, this file was never finished; "
        "otherwise load the dataset with force_cache_sync=True to download it again."
    )


def flatten_stats(stats: dict[str, dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """{feature: {stat: array}} as columns `stats/<feature>/<stat>`."""
    return {
        f"{STATS_PREFIX}{feature}/{stat}": value
        for feature, one in stats.items()
        for stat, value in one.items()
    }


def unflatten_stats(row: dict[str, Any]) -> dict[str, dict[str, np.ndarray]]:
    """The reverse of `flatten_stats`; statistics that are not there are left out."""
    stats: dict[str, dict[str, np.ndarray]] = {}
    for name, value in row.items():
        if value is not None:
            feature, stat = name.removeprefix(STATS_PREFIX).rsplit("/", 1)
            stats.setdefault(feature, {})[stat] = np.atleast_1d(np.array(value))
    return stats


def episode_rows(rows: list[dict[str, Any]]) -> pa.Table:
    """Rows as the Arrow table that a file of meta/episodes holds."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    arrays = [
        pa.array([_plain(row.get(name)) for row in rows], type=_column_type(name, rows)) for name in names
    ]
    return pa.table(dict(zip(names, arrays, strict=True)))


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value


def _column_type(name: str, rows: list[dict[str, Any]]) -> pa.DataType | None:
    if name == "tasks":
        return pa.list_(pa.string())
    if name.startswith(STATS_PREFIX):
        if name.endswith("/count"):
            return pa.list_(pa.int64())
        value = next((row[name] for row in rows if row.get(name) is not None), [0.0])
        nested = pa.float64()
        for _ in range(np.ndim(value)):
            nested = pa.list_(nested)
        return nested
    last = name.rsplit("/", 1)[-1]
    if last in INTEGERS:
        return pa.int64()
    return CAPTURE_TYPES.get(last) if name.startswith(CAPTURE_PREFIX) else FLOATS.get(last)


def stays_on_disk(name: str) -> bool:
    """Whether a column of meta/episodes is large and is only read when asked for."""
    is_list = name.startswith(CAPTURE_PREFIX) and name.rsplit("/", 1)[-1] in CAPTURE_LISTS
    return is_list or name.startswith(STATS_PREFIX)


def position_of(path: Path) -> tuple[int, int]:
    """Chunk and file number in a path that ends in chunk-CCC/file-FFF.parquet."""
    match = re.fullmatch(r"chunk-(\d+)/file-(\d+)\.\w+", "/".join(path.parts[-2:]))
    if match is None:
        raise DatasetError(f"{path}: expected a name such as chunk-000/file-000.parquet.")
    return int(match[1]), int(match[2])


def read_episode_rows(path: Path) -> list[dict[str, Any]]:
    """Complete rows of one file of meta/episodes, statistics included."""
    return read_parquet(path).to_pylist()


def write_episode_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Replace one file of meta/episodes durably."""
    write_episode_table(path, episode_rows(rows))


def write_episode_table(path: Path, table: pa.Table) -> None:
    """Replace one file of meta/episodes durably by an Arrow table of complete rows."""
    files.write_atomically(path, lambda part: pq.write_table(table, part))


class TaskTable(Mapping):
    """Task strings by number and numbers by string; `table["task_index"]` maps every string to its number."""

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self._index = {name: i for i, name in enumerate(names)}

    @classmethod
    def load(cls, root: Path) -> "TaskTable":
        """The tasks of `meta/tasks.parquet`; the text column may have any name.

        Raises:
            DatasetError: the file is missing, has no text column, or task_index is not 0, 1, 2, ...
        """
        path = root / keys.TASKS_FILE
        table = read_parquet(path)
        others = [name for name in table.column_names if name != keys.TASK_INDEX]
        text = next((name for name in (keys.TASK, *others) if name in others), None)
        if text is None or keys.TASK_INDEX not in table.column_names:
            raise DatasetError(f"{path} needs task_index and a column of texts; it has {table.column_names}.")
        pairs = sorted(zip(table[keys.TASK_INDEX].to_pylist(), table[text].to_pylist(), strict=True))
        if [index for index, _ in pairs] != list(range(len(pairs))):
            raise DatasetError(f"{path}: task_index must be 0, 1, 2, ... without gaps.")
        return cls([name for _, name in pairs])

    def save(self, root: Path) -> None:
        """Replace `meta/tasks.parquet` durably; pandas reads it back with `task` as its index."""
        table = pa.table(
            {keys.TASK_INDEX: pa.array(range(len(self.names)), pa.int64()), keys.TASK: self.names}
        )
        table = table.cast(pa.schema([(keys.TASK_INDEX, pa.int64()), (keys.TASK, pa.string())]))
        table = table.replace_schema_metadata({"pandas": json.dumps(PANDAS_METADATA)})
        files.write_atomically(root / keys.TASKS_FILE, lambda part: pq.write_table(table, part))

    def with_tasks(self, names: list[str]) -> "TaskTable":
        """This table with the new names appended in the order given."""
        return TaskTable(self.names + [name for name in dict.fromkeys(names) if name not in self._index])

    def index(self, name: str) -> int:
        """The number of a task."""
        if name not in self._index:
            raise DatasetError(f"Task {name!r} is not in meta/tasks.parquet.{suggest(name, self.names)}")
        return self._index[name]

    def name(self, index: int) -> str:
        """The text of a task number."""
        if not 0 <= index < len(self.names):
            raise DatasetError(
                f"Task number {index} is not in meta/tasks.parquet, which has {len(self.names)}."
            )
        return self.names[index]

    def __getitem__(self, key: str) -> dict[str, int]:
        if key != keys.TASK_INDEX:
            raise KeyError(f"{key!r}; a task table has the one column 'task_index'")
        return dict(self._index)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, name: object) -> bool:
        return name in self._index


PANDAS_METADATA = {
    "index_columns": [keys.TASK],
    "column_indexes": [
        {
            "name": None,
            "field_name": None,
            "pandas_type": "unicode",
            "numpy_type": "object",
            "metadata": {"encoding": "UTF-8"},
        }
    ],
    "columns": [
        {
            "name": keys.TASK_INDEX,
            "field_name": keys.TASK_INDEX,
            "pandas_type": "int64",
            "numpy_type": "int64",
            "metadata": None,
        },
        {
            "name": keys.TASK,
            "field_name": keys.TASK,
            "pandas_type": "unicode",
            "numpy_type": "object",
            "metadata": None,
        },
    ],
    "attributes": {},
    "creator": {"library": "pyarrow", "version": pa.__version__},
    "pandas_version": "2.2.0",
}
