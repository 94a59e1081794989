"""Rows of single episodes out of data files: the row groups that hold them, and only the columns needed.

    footer (kept) -> row groups whose `index` overlaps the episode -> numbers and texts (L rows)
                                                                   -> pictures, page by page, in order

A file written while recording has one row group per episode. Older files have one large group, whose numbers
are kept for the next episodes of the same file; pictures are never kept.
Shapes: L frames of an episode.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from lerobot.core import keys
from lerobot.core.errors import DatasetError
from lerobot.datasets.legacy import defaults
from lerobot.datasets.metadata import LeRobotDatasetMetadata
from lerobot.datasets.schema import TEXT_DTYPES, data_features, is_numeric, numbers
from lerobot.datasets.stream.ranges import RangeSource

GROUP_CACHE_BYTES = 256 * 1024**2
FOOTERS = 64  # files whose footers are kept
PAGE_BYTES = 256 * 1024  # read at a time from a picture column
PICTURES_AT_ONCE = 8  # cells taken from a picture column at a time
WHOLE = -1  # number of the "row group" that is a whole file


@dataclass(frozen=True, kw_only=True)
class Footer:
    """What a data file says about its G row groups."""

    metadata: pq.FileMetaData
    starts: np.ndarray  # (G + 1,) first row of each group, and the number of rows
    first: np.ndarray  # (G,) lowest `index` in it; -1 where it is not told
    last: np.ndarray  # (G,) highest

    @classmethod
    def of(cls, metadata: pq.FileMetaData) -> "Footer":
        """Read from a file's metadata."""
        groups = [metadata.row_group(g) for g in range(metadata.num_row_groups)]
        names = [metadata.schema.column(c).path for c in range(metadata.num_columns)]
        at = names.index(keys.INDEX) if keys.INDEX in names else None
        told = [group.column(at).statistics if at is not None else None for group in groups]
        bounds = [
            (one.min, one.max) if one is not None and one.has_min_max else (-1, np.iinfo(np.int64).max)
            for one in told
        ]
        first, last = np.array(bounds, dtype=np.int64).reshape(-1, 2).T
        return cls(
            metadata=metadata,
            starts=np.cumsum([0, *(group.num_rows for group in groups)]),
            first=first,
            last=last,
        )

    def overlapping(self, first: int, stop: int) -> list[int]:
        """Row groups that may hold frames first..stop."""
        return np.flatnonzero((self.last >= first) & (self.first < stop)).tolist()


@dataclass(frozen=True, kw_only=True)
class EpisodeRows:
    """The numbers and texts of one episode, and where its rows lie in the data file."""

    episode: int
    path: Path
    numbers: dict[str, torch.Tensor]  # (L, *shape), () for shape (1,)
    texts: dict[str, list]
    rows: np.ndarray  # (L,) row in the file

    def __len__(self) -> int:
        return len(self.rows)


class DataFiles:
    """Reads episodes out of the data files of one dataset; safe for several threads."""

    def __init__(self, meta: LeRobotDatasetMetadata, source: RangeSource, *, tolerance_s: float) -> None:
        self.meta, self.source, self.tolerance_s = meta, source, tolerance_s
        self.features = data_features(meta.features)
        self._footers: OrderedDict[Path, Footer] = OrderedDict()
        self._groups: OrderedDict[tuple[Path, int], pa.Table] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()
        self._reading: dict[tuple[Path, int], threading.Lock] = {}

    def episode(self, number: int) -> EpisodeRows:
        """One episode.

        Raises:
            DatasetError: its file is missing or damaged, lacks a column, or does not hold its rows.
        """
        table = self.meta.episodes.columns
        first, stop = (int(table[f"dataset_{side}_index"][number]) for side in ("from", "to"))
        path = self.meta.get_data_file_path(number)
        footer = self.footer(path)
        groups = footer.overlapping(first, stop)
        if not groups:
            raise _not_there(path, 0, first, stop)
        if self.meta.missing_columns:  # which are made for a whole file
            groups, tables = list(range(len(footer.first))), [self._whole(path)]
        else:
            tables = [self._group(path, g, rows=stop - first) for g in groups]
        table = pa.concat_tables(tables)
        in_file = np.concatenate([np.arange(footer.starts[g], footer.starts[g + 1]) for g in groups])
        index = self._numbers(path, table, keys.INDEX)
        kept = np.flatnonzero((index >= first) & (index < stop))
        if not np.array_equal(index[kept], np.arange(first, stop)):
            raise _not_there(path, len(kept), first, stop)
        is_run = len(kept) and kept[-1] - kept[0] + 1 == len(kept)
        table = table.slice(kept[0], len(kept)) if is_run else table.take(kept)
        episode = EpisodeRows(
            episode=number,
            path=path,
            numbers={
                name: torch.from_numpy(self._numbers(path, table, name).astype(_dtype(one)))
                for name, one in self.features.items()
                if is_numeric(one)
            },
            texts={
                name: table.column(name).to_pylist()
                for name, one in self.features.items()
                if one["dtype"] in TEXT_DTYPES
            },
            rows=in_file[kept].astype(np.int64),
        )
        self._check_times(episode)
        return episode

    def pictures(self, name: str, path: Path) -> "PictureColumn":
        """A reader of one picture column of a file, for ascending rows."""
        footer = self.footer(path)
        return PictureColumn(lambda: self._open(path, footer.metadata), name, path=path, starts=footer.starts)

    def footer(self, path: Path) -> Footer:
        """A data file's schema and row groups."""
        with self._lock:
            if path in self._footers:
                self._footers.move_to_end(path)
                return self._footers[path]
        metadata = self._open(path).metadata
        there = {*metadata.schema.to_arrow_schema().names, *self.meta.missing_columns}
        missing = set(self.features) - there
        if missing:
            raise DatasetError(
                f"{path} lacks the columns {', '.join(sorted(missing))} that meta/info.json declares."
            )
        footer = Footer.of(metadata)
        with self._lock:
            self._footers[path] = footer
            while len(self._footers) > FOOTERS:
                self._footers.popitem(last=False)
        return footer

    def _open(self, path: Path, metadata: pq.FileMetaData | None = None) -> pq.ParquetFile:
        try:
            # Buffered: a column is read page by page, not as one piece of the size of the row group.
            return pq.ParquetFile(
                self.source.open(path), metadata=metadata, buffer_size=PAGE_BYTES, pre_buffer=False
            )
        except (pa.ArrowException, OSError) as error:
            raise _damaged(path, error) from error

    def _group(self, path: Path, group: int, *, rows: int) -> pa.Table:
        """A row group without pictures; kept when it holds more than the episode of so many rows."""
        names = [name for name, one in self.features.items() if one["dtype"] != "image"]
        return self._kept(
            (path, group),
            lambda file: file.read_row_group(group, columns=names, use_threads=False),
            rows=rows,
        )

    def _whole(self, path: Path) -> pa.Table:
        """A whole file without pictures, with the default columns that files of an old layout lack."""
        lacking = self.meta.missing_columns
        names = [
            name for name, one in self.features.items() if one["dtype"] != "image" and name not in lacking
        ]
        return self._kept(
            (path, WHOLE),
            lambda file: defaults.fill(
                file.read(columns=names, use_threads=False), self.meta, self.meta.root / path
            ),
            rows=0,
        )

    def _kept(
        self, key: tuple[Path, int], read: Callable[[pq.ParquetFile], pa.Table], *, rows: int
    ) -> pa.Table:
        path = key[0]
        with self._lock:
            guard = self._reading.setdefault(key, threading.Lock())
        with guard:  # of several episodes that begin in one group at a time, one reads it
            with self._lock:
                if key in self._groups:
                    self._groups.move_to_end(key)
                    return self._groups[key]
            try:
                table = read(self._open(path, self.footer(path).metadata))
            except (pa.ArrowException, OSError) as error:
                raise _damaged(path, error) from error
            if len(table) > rows:
                self._keep(key, table)
        with self._lock:
            self._reading.pop(key, None)
        return table

    def _keep(self, key: tuple[Path, int], table: pa.Table) -> None:
        with self._lock:
            self._groups[key] = table
            self._size += table.nbytes
            while self._size > GROUP_CACHE_BYTES and len(self._groups) > 1:
                self._size -= self._groups.popitem(last=False)[1].nbytes

    def _numbers(self, path: Path, table: pa.Table, name: str) -> np.ndarray:
        return numbers(table.column(name), self.features[name], where=f"{path}, column {name!r}")

    def _check_times(self, one: EpisodeRows) -> None:
        """Frame numbers must count from 0 and timestamps be frame_index / fps."""
        frames = np.arange(len(one))
        stored = one.numbers[keys.FRAME_INDEX].numpy()
        times = one.numbers[keys.TIMESTAMP].numpy().astype(np.float64)
        expected = frames / self.meta.fps
        room = self.tolerance_s + np.abs(expected) * np.finfo(np.float32).eps
        wrong = np.flatnonzero((np.abs(times - expected) > room) | (stored != frames))
        if len(wrong):
            k = int(wrong[0])
            raise DatasetError(
                f"{one.path}: {len(wrong)} rows of episode {one.episode} are out of step with "
                f"fps={self.meta.fps}; the first has frame_index {stored[k]} (expected {k}) and timestamp "
                f"{times[k]:.6f} s (expected {expected[k]:.6f} s within {self.tolerance_s} s). Correct fps "
                "in meta/info.json, or give a larger tolerance_s."
            )


class PictureColumn:
    """Encoded pictures of one column, for rows that only go up. For one thread."""

    def __init__(
        self, open_file: Callable[[], pq.ParquetFile], name: str, *, path: Path, starts: np.ndarray
    ) -> None:
        self._open, self.name, self.path, self._starts = open_file, name, path, starts
        self._file: pq.ParquetFile | None = None
        self._group, self._first = -1, 0  # group being read, and first row of the batch
        self._batches: Iterator[pa.RecordBatch] = iter(())
        self._batch: pa.Array | None = None

    def read(self, rows: Sequence[int]) -> Iterator[tuple[bytes, str]]:
        """The encoded picture of each ascending row of the file, and words for where it lies."""
        for row in rows:
            cell = self._cell(int(row))
            where = f"{self.path}, column {self.name!r}, row {row}"
            if cell is None or cell.get("bytes") is None:
                raise DatasetError(f"{where}: there is no picture.")
            yield cell["bytes"], where

    def close(self) -> None:
        """Release the file."""
        self._batches, self._batch, self._file, self._group = iter(()), None, None, -1

    def _cell(self, row: int) -> Any:
        if self._file is None:
            self._file = self._open()
        group = int(np.searchsorted(self._starts, row, side="right")) - 1
        try:
            if group != self._group or row < self._first:
                self._group, self._first, self._batch = group, int(self._starts[group]), None
                self._batches = self._file.iter_batches(
                    PICTURES_AT_ONCE, row_groups=[group], columns=[self.name], use_threads=False
                )
            while self._batch is None or row >= self._first + len(self._batch):
                self._first += len(self._batch) if self._batch is not None else 0
                self._batch = next(self._batches).column(self.name)
        except (pa.ArrowException, OSError) as error:
            raise _damaged(self.path, error) from error
        return self._batch[row - self._first].as_py()


def holds_runs(footer: Footer, num_episodes: int) -> bool:
    """Whether the row groups of a file with so many episodes hold several of them each."""
    return len(footer.first) < num_episodes


def _dtype(feature: dict) -> type:
    return {"f": np.float32, "b": np.bool_}.get(np.dtype(feature["dtype"]).kind, np.int64)


def _not_there(path: Path, found: int, first: int, stop: int) -> DatasetError:
    return DatasetError(
        f"{path} holds {found} of the {stop - first} frames that meta/episodes places there "
        f"(frames {first} to {stop - 1}, in order). Run lerobot-doctor on the dataset."
    )


def _damaged(path: Path, error: Exception) -> DatasetError:
    return DatasetError(
        f"{path} is damaged ({error}). If recording was interrupted, this file was never finished; otherwise "
        "push or copy it again."
    )
