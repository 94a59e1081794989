"""Data files: footers, columns, and every row against the place that the episode table gives it.

    file -> schema -> numeric columns -> rows in the order of the table -> values

Whole columns are compared at once. Shapes: N rows of a file, E its episodes.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lerobot.core import keys
from lerobot.core.errors import DatasetError
from lerobot.datasets.doctor.finding import Finding, finding, numbered
from lerobot.datasets.doctor.folder import Folder
from lerobot.datasets.schema import DEFAULT_FEATURES, numbers

TOLERANCE_S = 1e-4
NONSENSE_ROWS = 1_000_000  # so many more than a file has are not listed one by one
SMALL_FILE_BYTES = 4 * 1024**2  # reading less than this, threads cost more than they save
READ_ERRORS = (pa.ArrowException, OSError)


@dataclass(kw_only=True)
class Rows:
    """A data file's numeric columns, and the rows that the episode table expects in it."""

    name: str
    columns: dict[str, np.ndarray]  # (N, *shape)
    episodes: np.ndarray  # (E,) positions in the episode table
    lengths: np.ndarray  # (E,)
    starts: np.ndarray  # (E,) first `index` of each
    numbers: np.ndarray  # (E,) episode_index of each
    take: np.ndarray | None = None  # rows of the file in the order they should have; None: cannot be told

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    @property
    def frame(self) -> np.ndarray:
        """The expected frame_index of every expected row."""
        return np.arange(self.lengths.sum()) - np.repeat(np.cumsum(self.lengths) - self.lengths, self.lengths)

    @property
    def index(self) -> np.ndarray:
        """The expected index of every expected row."""
        return self.frame + np.repeat(self.starts, self.lengths)

    @property
    def episode(self) -> np.ndarray:
        """The expected episode_index of every expected row."""
        return np.repeat(self.numbers, self.lengths)

    def touched(self, rows: np.ndarray) -> np.ndarray:
        """The episode numbers that expected rows belong to."""
        return np.unique(self.episode[rows])


def expected_rows(folder: Folder, number: int) -> Rows:
    """What the episode table expects in its data file of this number; columns are still empty."""
    table = folder.episodes
    assert table is not None
    here = table.data.of_file(number)
    here = here[np.argsort(table.starts[here], kind="stable")]
    return Rows(
        name=table.data.files[number],
        columns={},
        episodes=here,
        lengths=table.lengths[here],
        starts=table.starts[here],
        numbers=table.number[here],
    )


def check_footer(folder: Folder, rows: Rows) -> Iterator[Finding]:
    """Whether the file can be opened and has the declared columns, by its footer alone."""
    path = folder.root / rows.name
    try:
        file = pq.ParquetFile(path)
    except READ_ERRORS as error:
        yield unreadable(path, rows, error)
        return
    yield from _schema_faults(folder, rows, file.schema_arrow)
    count, expected = file.metadata.num_rows, int(rows.lengths.sum())
    if count < expected:
        yield _too_few(rows, f"{count} rows", expected, rows.numbers)
    if len(rows.numbers) > 1 and file.metadata.num_row_groups < len(rows.numbers):
        text = f"{file.metadata.num_row_groups} row groups for {len(rows.numbers)} episodes"
        yield finding(
            "data.groups",
            rows.name,
            found=text,
            expected="one per episode",
            remedy="nothing must be done; lerobot-edit-dataset writes one per episode",
        )


def check_unplaced(folder: Folder) -> Iterator[Finding]:
    """Data files that cannot be opened, where no episode table says what should be in them."""
    none = np.empty(0, dtype=np.int64)
    for path in sorted(folder.root.glob("data/*/*.parquet")):
        name = path.relative_to(folder.root).as_posix()
        rows = Rows(name=name, columns={}, episodes=none, lengths=none, starts=none, numbers=none)
        if not path.name.startswith("."):
            yield from check_footer(folder, rows)


def unreadable(path: Path, rows: Rows, error: Exception) -> Finding:
    """The finding about a data file that cannot be read."""
    text = f"{path.stat().st_size} bytes, {_first_line(error)}"
    return finding("data.unreadable", rows.name, found=text, expected="a parquet file", episodes=rows.numbers)


def _schema_faults(folder: Folder, rows: Rows, schema: pa.Schema) -> Iterator[Finding]:
    missing = [name for name in folder.columns if name not in schema.names]
    extra = [name for name in schema.names if name not in folder.columns and name != "__index_level_0__"]
    if missing:
        yield finding(
            "data.column",
            rows.name,
            found=f"no column {', '.join(missing)}",
            expected="the columns of meta/info.json",
            episodes=rows.numbers,
        )
    if extra:
        text = f"the columns {', '.join(extra)}"
        yield finding("data.extra", rows.name, found=text, expected="only the columns of meta/info.json")
    for name, one in folder.numbers.items():
        if name in schema.names:
            base = _base(schema.field(name).type)
            wanted = pa.from_numpy_dtype(np.dtype(one["dtype"]))
            if (pa.types.is_integer(base) or pa.types.is_floating(base)) and base != wanted:
                text = f"column {name!r} holds {base}"
                yield finding("data.width", rows.name, found=text, expected=str(wanted))
    described = (schema.metadata or {}).get(b"huggingface")
    if described is not None and not missing and not extra:
        try:
            names = set(json.loads(described)["info"]["features"])
        except (ValueError, KeyError, TypeError):
            names = set()
        if names != set(folder.columns):
            text = f"'huggingface' metadata of {len(names)} columns"
            yield finding(
                "data.metadata",
                rows.name,
                found=text,
                expected=f"the {len(folder.columns)} that are declared",
            )


def _base(kind: pa.DataType) -> pa.DataType:
    """The type of the numbers inside lists and extensions."""
    while isinstance(kind, pa.BaseExtensionType) or hasattr(kind, "value_type"):
        kind = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind.value_type
    return kind


def read_rows(folder: Folder, rows: Rows) -> list[Finding]:
    """Fill the numeric columns that can be read; what is wrong with types and missing values."""
    path, found = folder.root / rows.name, []
    try:
        file = pq.ParquetFile(path, memory_map=True)
        names = [name for name in folder.numbers if name in file.schema_arrow.names]
        table = file.read(columns=names, use_threads=path.stat().st_size > SMALL_FILE_BYTES)
    except READ_ERRORS as error:
        return [unreadable(path, rows, error)]
    for name in names:
        feature, column = folder.numbers[name], table[name]
        text = f"column {name!r} of type {column.type}"
        if column.null_count or _has_inner_nulls(column):
            found.append(
                finding(
                    "data.null",
                    rows.name,
                    found=f"missing values in column {name!r}",
                    expected=f"{feature['dtype']} {feature['shape']} in every row",
                    episodes=rows.numbers,
                )
            )
            continue
        try:
            if not _is_even(column, feature):
                raise DatasetError(f"lists of {int(np.prod(feature['shape']))} numbers")
            rows.columns[name] = numbers(column, feature, where="")
        except (DatasetError, ValueError):
            found.append(
                finding(
                    "data.type",
                    rows.name,
                    found=text,
                    expected=f"{feature['dtype']} {list(feature['shape'])}",
                    episodes=rows.numbers,
                )
            )
    return found


def _has_inner_nulls(column: pa.ChunkedArray) -> bool:
    values = column.combine_chunks()
    while isinstance(values, pa.ExtensionArray) or pa.types.is_nested(values.type):
        if isinstance(values, pa.ExtensionArray):
            values = values.storage
            continue
        if not hasattr(values, "flatten") or pa.types.is_struct(values.type):
            return False
        values = values.flatten()
        if values.null_count:
            return True
    return False


def _is_even(column: pa.ChunkedArray, feature: dict) -> bool:
    """Whether every list of a one-dimensional column has the declared length, and the numbers are numbers."""
    base = _base(column.type)
    if not (pa.types.is_integer(base) or pa.types.is_floating(base) or pa.types.is_boolean(base)):
        return False
    if pa.types.is_list(column.type) and len(column):
        sizes = pc.min_max(pc.list_value_length(column)).as_py()
        return sizes["min"] == sizes["max"] == feature["shape"][0]
    return True


def check_order(rows: Rows) -> Iterator[Finding]:
    """Whether the rows are those of the file's episodes, in order; fills `take`."""
    wanted = float(np.sum(rows.lengths, dtype=np.float64))  # lengths may be nonsense that overflows
    if wanted > 2 * len(rows) + NONSENSE_ROWS:
        yield _too_few(rows, f"{len(rows)} rows", f"{wanted:.0f}", rows.numbers)
        return
    index, expected = rows.columns.get(keys.INDEX), rows.index
    if index is None:
        rows.take = np.arange(len(rows)) if len(rows) == len(expected) else None
        return
    if len(index) == len(expected):
        yield from _check_same_number(rows, index, expected)
        return
    mine = np.flatnonzero(np.isin(index, expected))
    if np.array_equal(np.sort(index[mine]), expected):
        rows.take = mine[np.argsort(index[mine], kind="stable")]
        text = f"{len(index) - len(mine)} rows more"
        yield finding("data.unclaimed", rows.name, found=text, expected=f"{len(expected)} rows")
        if not np.array_equal(index[mine], expected):
            yield _unordered(rows, index[mine])
        return
    lacking = rows.touched(np.flatnonzero(~np.isin(expected, index)))
    yield _too_few(rows, f"{len(index)} rows, {len(mine)} of them", len(expected), lacking)


def _check_same_number(rows: Rows, index: np.ndarray, expected: np.ndarray) -> Iterator[Finding]:
    rows.take = np.arange(len(index))
    if np.array_equal(index, expected):
        return
    if np.array_equal(np.sort(index), expected):
        rows.take = np.argsort(index, kind="stable")
        yield _unordered(rows, index)
        return
    episode, frame = rows.columns.get(keys.EPISODE_INDEX), rows.columns.get(keys.FRAME_INDEX)
    if episode is not None and frame is not None:
        order = np.lexsort((frame, episode))
        by_number = np.array_equal(episode[order], rows.episode) and np.array_equal(frame[order], rows.frame)
        if by_number and not np.array_equal(order, rows.take):
            rows.take = order
            yield _unordered(rows, index)
    wrong = np.flatnonzero(index[rows.take] != expected)
    if len(wrong):
        k = int(wrong[0])
        yield finding(
            "data.index",
            rows.name,
            found=f"index {index[rows.take][k]} in row {k}, and {len(wrong) - 1} more like it",
            expected=f"{expected[k]}",
            episodes=rows.touched(wrong),
        )


def _unordered(rows: Rows, index: np.ndarray) -> Finding:
    k = int(np.flatnonzero(np.diff(index) <= 0)[0]) if (np.diff(index) <= 0).any() else 0
    text = f"index {index[k]} is followed by {index[min(k + 1, len(index) - 1)]} in row {k + 1}"
    return finding("data.order", rows.name, found=text, expected="ascending index")


def _too_few(rows: Rows, text: str, expected: int | str, episodes: np.ndarray) -> Finding:
    return finding(
        "data.rows",
        rows.name,
        found=text,
        expected=f"{expected} rows of {numbered(rows.numbers)}",
        episodes=episodes,
    )


def check_numbering(folder: Folder, rows: Rows) -> Iterator[Finding]:
    """episode_index, frame_index, timestamp and task_index of rows whose place is known."""
    if rows.take is None:
        return
    for name, expected in ((keys.EPISODE_INDEX, rows.episode), (keys.FRAME_INDEX, rows.frame)):
        if name in rows.columns:
            stored = rows.columns[name][rows.take]
            yield from _different(rows, name, stored, expected)
    if folder.fps is not None and keys.TIMESTAMP in rows.columns:
        yield from _check_times(folder.fps, rows)
    if folder.num_tasks is not None and keys.TASK_INDEX in rows.columns:
        stored = rows.columns[keys.TASK_INDEX][rows.take]
        wrong = np.flatnonzero((stored < 0) | (stored >= folder.num_tasks))
        if len(wrong):
            yield finding(
                "data.task_index",
                rows.name,
                found=f"task_index {stored[wrong[0]]} in row {wrong[0]}, {len(wrong)} such rows",
                expected=f"0 to {folder.num_tasks - 1}, the rows of {keys.TASKS_FILE}",
                episodes=rows.touched(wrong),
            )


def _different(rows: Rows, name: str, stored: np.ndarray, expected: np.ndarray) -> Iterator[Finding]:
    wrong = np.flatnonzero(stored != expected)
    if len(wrong):
        k = int(wrong[0])
        yield finding(
            f"data.{name}",
            rows.name,
            found=f"{name} {stored[k]} in row {k} (index {rows.index[k]}), {len(wrong)} such rows",
            expected=f"{expected[k]}",
            episodes=rows.touched(wrong),
        )


def _check_times(fps: float, rows: Rows) -> Iterator[Finding]:
    assert rows.take is not None
    stored = rows.columns[keys.TIMESTAMP][rows.take].astype(np.float64)
    expected = rows.frame / fps
    room = TOLERANCE_S + np.abs(expected) * np.finfo(np.float32).eps
    wrong = np.flatnonzero(~(np.abs(stored - expected) <= room))
    if not len(wrong):
        return
    k, fitting = int(wrong[0]), fitting_fps(stored, rows.frame)
    remedy = ""
    if fitting is not None:
        remedy = (
            f"these times fit fps={fitting:g}: set fps in meta/info.json to it if that is true; else --repair"
        )
        remedy += " computes them again"
    yield finding(
        "data.timestamp",
        rows.name,
        found=f"timestamp {stored[k]:.6f} s at frame_index {rows.frame[k]} of episode {rows.episode[k]}, "
        f"{len(wrong)} such rows",
        expected=f"{expected[k]:.6f} s at fps={fps:g}",
        remedy=remedy,
        episodes=rows.touched(wrong),
    )


def fitting_fps(times_s: np.ndarray, frame: np.ndarray) -> float | None:
    """The rate at which all timestamps are frame / rate; None when there is none."""
    later = np.flatnonzero((frame > 0) & (times_s > 0))
    if not len(later):
        return None
    rate = float(np.median(frame[later] / times_s[later]))
    rate = round(rate) if abs(rate - round(rate)) < 1e-3 * rate else rate
    room = TOLERANCE_S + np.abs(times_s) * np.finfo(np.float32).eps
    return rate if bool((np.abs(times_s - frame / rate) <= room).all()) else None


def check_values(rows: Rows) -> Iterator[Finding]:
    """NaN and infinity."""
    for name, values in rows.columns.items():
        if values.dtype.kind != "f" or name == keys.TIMESTAMP:
            continue
        values = values if rows.take is None else values[rows.take]
        finite = np.isfinite(values).reshape(len(values), -1).all(axis=1)
        wrong = np.flatnonzero(~finite)
        if len(wrong):
            where = f"first in episode {rows.episode[wrong[0]]}" if rows.take is not None else ""
            yield finding(
                "data.nan",
                rows.name,
                found=f"NaN or infinity in {len(wrong)} rows of column {name!r}, {where}".rstrip(", "),
                expected="numbers",
                episodes=rows.touched(wrong) if rows.take is not None else rows.numbers,
            )


def whole_groups(path: Path) -> list[int] | None:
    """Row groups of a data file that can be read; None where there is no footer to tell them by."""
    try:
        file = pq.ParquetFile(path)
    except READ_ERRORS:
        return None
    whole = []
    for group in range(file.metadata.num_row_groups):
        try:
            file.read_row_group(group)
        except READ_ERRORS:
            continue
        whole.append(group)
    return whole


def is_default(name: str) -> bool:
    """Whether a column only numbers the rows."""
    return name in DEFAULT_FEATURES


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
