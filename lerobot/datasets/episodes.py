"""Where every episode of a dataset lies: the columns of meta/episodes, one value per episode.

    meta/episodes/*/*.parquet --numbers--> arrays
                              --texts, lists--> Arrow, decoded when asked for
                              --stats/...--> stay on disk, read when asked for

A large table is kept below the cache home too, because the footers of its files take long to read.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lerobot.core.errors import DatasetError, suggest
from lerobot.datasets.cache import CacheFolder, Identity, Stored, identify, make_key
from lerobot.datasets.tables import (
    EPISODES_FOLDER,
    STATS_PREFIX,
    open_parquet,
    read_parquet,
    stays_on_disk,
    unflatten_stats,
)

NEEDED = (
    "episode_index",
    "length",
    "data/chunk_index",
    "data/file_index",
    "dataset_from_index",
    "dataset_to_index",
)
CACHED_FROM_BYTES = 1024**2  # size of the files from which on the table is kept in the cache
KIND = "episodes"


class Column(Sequence):
    """One value per episode: plain Python values by position, an array by `np.asarray`."""

    def __init__(self, values: np.ndarray | pa.Array | list) -> None:
        self._values = values

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, key: Any) -> Any:
        found = self._values[key]
        if isinstance(self._values, list):
            return found
        if isinstance(key, slice):
            return found.tolist()
        return found.item() if isinstance(self._values, np.ndarray) else found.as_py()

    def __iter__(self) -> Iterator[Any]:
        return iter(self.tolist())

    def __setitem__(self, position: int, value: Any) -> None:
        self._values = self.tolist()
        self._values[position] = value

    def append(self, value: Any) -> None:
        """Add the value of the next episode."""
        if not isinstance(self._values, list):
            self._values = self.tolist()
        self._values.append(value)

    def tolist(self) -> list[Any]:
        """All values."""
        return self._values if isinstance(self._values, list) else self._values.tolist()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        values = self._values if isinstance(self._values, (np.ndarray, list)) else self._values.to_pylist()
        return np.array(values, dtype=dtype) if copy else np.asarray(values, dtype=dtype)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self.tolist() == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._values!r})"


class Sources(Sequence):
    """File and row of each episode's line in meta/episodes, for the columns that stay on disk."""

    def __init__(self, paths: Sequence[Path], files: np.ndarray, rows: np.ndarray) -> None:
        self._paths, self._files, self._rows = list(paths), files, rows
        self._pairs: list[tuple[Path, int]] | None = None  # once one of them was changed

    @classmethod
    def of(cls, pairs: Sequence[tuple[Path, int]]) -> "Sources":
        """These pairs."""
        self = cls([], np.empty(0, np.int64), np.empty(0, np.int64))
        self._pairs = list(pairs)
        return self

    def __len__(self) -> int:
        return len(self._files) if self._pairs is None else len(self._pairs)

    def __getitem__(self, key: Any) -> Any:
        if self._pairs is not None:
            return self._pairs[key]
        if isinstance(key, slice):
            return self._all()[key]
        return self._paths[self._files[key]], int(self._rows[key])

    def __iter__(self) -> Iterator[tuple[Path, int]]:
        return iter(self._all())

    def __setitem__(self, position: int, pair: tuple[Path, int]) -> None:
        self._pairs = self._all()
        self._pairs[position] = pair

    def append(self, pair: tuple[Path, int]) -> None:
        """Add the place of the next episode."""
        self._pairs = self._all()
        self._pairs.append(pair)

    def _all(self) -> list[tuple[Path, int]]:
        if self._pairs is not None:
            return self._pairs
        files, rows = self._files.tolist(), self._rows.tolist()
        return [(self._paths[file], row) for file, row in zip(files, rows, strict=True)]


class EpisodeTable:
    """Episodes by number: `table[3]` is a dict, `table["length"]` a list with one value per episode.

    `np.asarray(table.columns["length"])` gives the numbers without making a list.
    """

    def __init__(
        self, columns: Mapping[str, Any], sources: Sources | Sequence[tuple[Path, int]] | None = None
    ) -> None:
        self.columns: dict[str, Any] = {  # Columns
            name: values if isinstance(values, Column) else Column(values) for name, values in columns.items()
        }
        self.sources = sources if isinstance(sources, Sources) else Sources.of(sources or [])
        self._stats: _StatsFile | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_stats": None}

    @classmethod
    def empty(cls) -> "EpisodeTable":
        """A table that rows are appended to."""
        return cls({name: [] for name in ("episode_index", "tasks", *NEEDED[1:])})

    @classmethod
    def load(cls, root: Path) -> "EpisodeTable":
        """All episodes under `meta/episodes`, without their statistics.

        An episode that an earlier file holds already is what an interrupted clean-up left, and is passed
        over.

        Raises:
            DatasetError: a needed column is missing, or episode numbers are not 0, 1, 2, ...
        """
        paths = sorted((root / EPISODES_FOLDER).glob("*/*.parquet"))
        identities = identify(root, [path.relative_to(root) for path in paths])
        if sum(size for _, size, _ in identities) < CACHED_FROM_BYTES:
            return cls._read(paths)
        cache, key = CacheFolder(root), make_key(KIND, identities)
        stored = cache.find(KIND, key) or cls._read(paths)._store(cache, key, identities)
        return cls._stored(stored, paths)

    @classmethod
    def _read(cls, paths: list[Path]) -> "EpisodeTable":
        tables, files, rows, count = [], [], [], 0
        for number, path in enumerate(paths):
            table = _read_table(path)
            first_new = _first_new(table.column("episode_index").to_numpy(), count, path)
            tables.append(table.slice(first_new))
            files.append(np.full(len(tables[-1]), number))
            rows.append(np.arange(first_new, len(table)))
            count += len(tables[-1])
        if not count:
            return cls.empty()
        sources = Sources(paths, np.concatenate(files), np.concatenate(rows))
        return cls(_join(tables), sources)

    def _store(self, cache: CacheFolder, key: str, identities: list[Identity]) -> Stored:
        """Keep a table that was just read."""
        arrays: dict[str, Any] = {"files": self.sources._files, "rows": self.sources._rows}
        arrays |= {f"column {n}": c._values for n, c in self.columns.items() if _is_array(c)}
        rest = pa.table({n: c._values for n, c in self.columns.items() if not _is_array(c)})
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, rest.schema) as writer:
            writer.write_table(rest)
        arrays["rest"] = np.frombuffer(sink.getvalue(), np.uint8)
        about = {"names": list(self.columns)}
        return cache.make(KIND, key, layout={}, fill=lambda _: (about, arrays), sources=identities)

    @classmethod
    def _stored(cls, stored: Stored, paths: list[Path]) -> "EpisodeTable":
        rest = pa.ipc.open_stream(pa.py_buffer(stored.arrays["rest"])).read_all()
        columns = {
            name: stored.arrays[f"column {name}"]
            if f"column {name}" in stored.arrays
            else _one_array(rest.column(name))
            for name in stored.about["names"]
        }
        return cls(columns, Sources(paths, stored.arrays["files"], stored.arrays["rows"]))

    def append(self, row: dict[str, Any], source: tuple[Path, int]) -> None:
        """Add the next episode; its statistics are not kept."""
        count = len(self)
        for name in row:
            if not stays_on_disk(name):
                self.columns.setdefault(name, Column([None] * count))
        for name, column in self.columns.items():
            column.append(row.get(name))
        self.sources.append(source)

    def __len__(self) -> int:
        return len(self.columns["episode_index"])

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[i] for i in range(len(self)))

    def __contains__(self, name: object) -> bool:
        return name in self.columns

    def __getitem__(self, key: int | str) -> Any:
        if isinstance(key, str):
            return list(self.column(key))
        self.check(key)
        return {name: values[key] for name, values in self.columns.items()}

    def check(self, episode: int) -> None:
        """Return when there is such an episode.

        Raises:
            DatasetError: there is not; says how many there are.
        """
        if not -len(self) <= episode < len(self):
            raise DatasetError(
                f"Episode {episode} does not exist; there are {len(self)} (0 to {len(self) - 1})."
            )

    def column(self, name: str) -> Column:
        """One column, not yet a list.

        Raises:
            DatasetError: there is no such column; names the nearest.
        """
        if name not in self.columns:
            raise DatasetError(
                f"meta/episodes has no column {name!r}; it has {', '.join(self.columns)}."
                f"{suggest(name, self.columns)}"
            )
        return self.columns[name]

    def stats(self, episode: int) -> dict[str, dict[str, np.ndarray]]:
        """Statistics of one episode, {feature: {stat: array}}, read from its file."""
        path, row = self.sources[episode]
        if self._stats is None or not self._stats.is_of(path):
            self._stats = _StatsFile(path)
        return unflatten_stats(self._stats.row(row))

    def stored(self, episode: int, prefix: str) -> dict[str, Any]:
        """Columns of one episode whose names begin with a prefix, read from its file."""
        self.check(episode)
        path, row = self.sources[episode]
        names = [name for name in open_parquet(path).schema_arrow.names if name.startswith(prefix)]
        return read_parquet(path, names).slice(row, 1).to_pylist()[0] if names else {}


class _StatsFile:
    """The `stats/...` columns of one file; the row group read last is kept."""

    def __init__(self, path: Path) -> None:
        self.path, self.identity = path, identify(path.parent, [path.name])
        self.file = open_parquet(path)
        self.names = [name for name in self.file.schema_arrow.names if name.startswith(STATS_PREFIX)]
        sizes = [self.file.metadata.row_group(g).num_rows for g in range(self.file.num_row_groups)]
        self.ends = np.cumsum(sizes)
        self.group, self.rows = -1, pa.table({})

    def is_of(self, path: Path) -> bool:
        """Whether this is that file, unchanged since it was opened."""
        return path == self.path and identify(path.parent, [path.name]) == self.identity

    def row(self, row: int) -> dict[str, Any]:
        group = int(np.searchsorted(self.ends, row, side="right"))
        if group != self.group:
            self.rows, self.group = self.file.read_row_group(group, columns=self.names), group
        within = row - int(self.ends[group]) + len(self.rows) if self.names else 0
        return {name: self.rows.column(name)[within].as_py() for name in self.names}


def _is_array(column: Column) -> bool:
    return isinstance(column._values, np.ndarray)


def _read_table(path: Path) -> pa.Table:
    """The columns of one file, without statistics; the needed ones are whole numbers."""
    file = open_parquet(path)
    names = file.schema_arrow.names
    missing = [name for name in NEEDED if name not in names]
    if missing:
        raise DatasetError(f"{path} lacks the columns {', '.join(missing)}.")
    try:
        table = file.read(columns=[name for name in names if not stays_on_disk(name)])
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"{path} is damaged ({error}). Is its upload or recording unfinished?") from error
    for name in NEEDED:
        column = table.column(name)
        if not pa.types.is_integer(column.type) or column.null_count:
            raise DatasetError(f"{path}: column {name!r} must hold whole numbers, none missing.")
    return table


def _first_new(numbers: np.ndarray, count: int, path: Path) -> int:
    """The first row of a file that holds an episode which the files before it do not."""
    first_new = int(np.searchsorted(numbers, count))
    expected = np.arange(count, count + len(numbers) - first_new)
    if not np.array_equal(numbers[first_new:], expected):
        raise DatasetError(
            f"{path}: episode_index is {_brief(numbers)}, expected {_brief(expected)} after the files "
            "before it. Is a file of meta/episodes missing?"
        )
    return first_new


def _brief(numbers: np.ndarray) -> str:
    return f"{numbers[0]}..{numbers[-1]}" if len(numbers) else "empty"


def _join(tables: list[pa.Table]) -> dict[str, np.ndarray | pa.Array | list]:
    """Columns of all files together; where a file lacks one, its values are missing."""
    try:
        table = pa.concat_tables(tables, promote_options="permissive")
        return {name: _values(table.column(name)) for name in table.column_names}
    except pa.ArrowException:  # a column of other types in each file
        names = dict.fromkeys(name for table in tables for name in table.column_names)
        return {
            name: [
                value
                for table in tables
                for value in (
                    table.column(name).to_pylist() if name in table.column_names else [None] * len(table)
                )
            ]
            for name in names
        }


def _values(column: pa.ChunkedArray) -> np.ndarray | pa.Array:
    is_number = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
    return column.to_numpy() if is_number and not column.null_count else _one_array(column)


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    whole = column.combine_chunks()
    return pa.concat_arrays(whole.chunks) if isinstance(whole, pa.ChunkedArray) else whole
