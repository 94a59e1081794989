"""The data files of the chosen episodes: numbers in memory once, texts and pictures fetched by row.

    data/*/*.parquet --rows that the episode table points to--> numbers (N, *shape) | texts | encoded pictures

Shapes: N loaded frames in dataset order.
"""

import threading
from collections import OrderedDict
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
from lerobot.datasets.tables import read_parquet

PICTURE_CACHE_BYTES = 2 * 1024**3


class Columns:
    """Columns of the chosen episodes, row by row in dataset order.

    Raises:
        DatasetError: a file is missing or damaged, lacks a column, or does not hold the rows of its episodes.
    """

    def __init__(self, meta: LeRobotDatasetMetadata, episodes: list[int], *, tolerance_s: float) -> None:
        self.meta = meta
        self.features = data_features(meta.features)
        table = meta.episodes.columns
        starts = np.array(table.get("dataset_from_index", []), dtype=np.int64)[episodes]
        ends = np.array(table.get("dataset_to_index", []), dtype=np.int64)[episodes]
        lengths = ends - starts
        self.num_frames = int(lengths.sum())
        self.absolute = np.concatenate(
            [[], *(np.arange(a, b) for a, b in zip(starts, ends, strict=True))]
        ).astype(np.int64)
        firsts = np.cumsum(lengths) - lengths
        self.first = np.repeat(firsts, lengths)  # (N,) first row of the row's episode
        self.last = np.repeat(firsts + lengths - 1, lengths)  # (N,) last row of it
        self.episode = np.repeat(np.array(episodes, dtype=np.int64), lengths)  # (N,)
        self.numbers: dict[str, torch.Tensor] = {
            name: torch.empty((self.num_frames, *_item_shape(one)), dtype=_item_dtype(one))
            for name, one in self.features.items()
            if is_numeric(one)
        }
        self.texts: dict[str, list] = {
            name: [] for name, one in self.features.items() if one["dtype"] in TEXT_DTYPES
        }
        self.pictures = PictureStore()
        self._load(episodes, tolerance_s)

    def _load(self, episodes: list[int], tolerance_s: float) -> None:
        at = 0
        for path, members in self._files(episodes):
            wanted = np.concatenate([np.arange(row[0], row[1]) for row in members])
            table, kept = self._rows(path, wanted)
            here = slice(at, at + len(wanted))
            for name in self.numbers:
                values = numbers(table.column(name), self.features[name], where=f"{path}, column {name!r}")
                self.numbers[name].numpy()[here] = values
            for name, texts in self.texts.items():
                texts.extend(table.column(name).to_pylist())
            self._check_times(path, here, tolerance_s)
            self.pictures.add(path, kept)
            at += len(wanted)

    def _files(self, episodes: list[int]) -> list[tuple[Path, list[tuple[int, int]]]]:
        """Each data file with the frame ranges of the chosen episodes in it, in dataset order."""
        found: list[tuple[Path, list[tuple[int, int]]]] = []
        for episode in episodes:
            row = self.meta.episodes[episode]
            path = self.meta.root / self.meta.data_file(row["data/chunk_index"], row["data/file_index"])
            if not found or found[-1][0] != path:
                found.append((path, []))
            found[-1][1].append((row["dataset_from_index"], row["dataset_to_index"]))
        return found

    def _rows(self, path: Path, wanted: np.ndarray) -> tuple[pa.Table, np.ndarray]:
        """The wanted frames of a file, without picture columns, and their row numbers in it."""
        names = _names(path)
        names = [*names, *self.meta.missing_columns]
        missing = [name for name in self.features if name not in names]
        if missing:
            raise DatasetError(f"{path} lacks the columns {', '.join(missing)} that meta/info.json declares.")
        wanted_names = [name for name in self.features if self.features[name]["dtype"] != "image"]
        table = read_parquet(path, [n for n in wanted_names if n not in self.meta.missing_columns])
        table = defaults.fill(table, self.meta, path)
        index = numbers(table.column(keys.INDEX), self.features[keys.INDEX], where=f"{path}, column 'index'")
        kept = np.flatnonzero(np.isin(index, wanted))
        if not np.array_equal(index[kept], wanted):
            raise DatasetError(
                f"{path} holds {len(kept)} of the {len(wanted)} frames that meta/episodes places there "
                "(frames "
                f"{wanted[0]} to {wanted[-1]}). Load with force_cache_sync=True to download it again."
            )
        return (table if len(kept) == len(table) else table.take(kept)), kept

    def _check_times(self, path: Path, here: slice, tolerance_s: float) -> None:
        """Frame numbers must count from 0 in every episode and timestamps be frame_index / fps."""
        frames = np.arange(here.start, here.stop) - self.first[here]
        stored = self.numbers[keys.FRAME_INDEX].numpy()[here]
        times = self.numbers[keys.TIMESTAMP].numpy()[here].astype(np.float64)
        expected = frames / self.meta.fps
        room = tolerance_s + np.abs(expected) * np.finfo(np.float32).eps
        wrong = np.flatnonzero((np.abs(times - expected) > room) | (stored != frames))
        if len(wrong):
            k = int(wrong[0])
            raise DatasetError(
                f"{path}: {len(wrong)} rows are out of step with fps={self.meta.fps}; the first is episode "
                f"{self.episode[here][k]}, frame_index {stored[k]} (expected {frames[k]}), timestamp "
                f"{times[k]:.6f} s "
                f"(expected {expected[k]:.6f} s within {tolerance_s} s). Correct fps in meta/info.json, or "
                "give a "
                "larger tolerance_s."
            )


def _item_shape(feature: dict) -> tuple[int, ...]:
    shape = tuple(feature["shape"])
    return () if shape == (1,) else shape


def _item_dtype(feature: dict) -> torch.dtype:
    kind = np.dtype(feature["dtype"]).kind
    return {"f": torch.float32, "b": torch.bool}.get(kind, torch.int64)


def _names(path: Path) -> list[str]:
    if not path.is_file():
        raise DatasetError(f"{path} is missing. Load the dataset with force_cache_sync=True to download it.")
    try:
        return pq.read_schema(path).names
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(
            f"{path} is damaged ({error}). If recording was interrupted, this file was never finished; "
            "otherwise load the dataset with force_cache_sync=True to download it again."
        ) from error


class PictureStore:
    """Encoded pictures by loaded row; row groups that were read stay in memory up to a limit."""

    def __init__(self, limit: int = PICTURE_CACHE_BYTES) -> None:
        self.limit = limit
        self._paths: list[Path] = []
        self._starts: list[int] = [0]  # first loaded row of each file
        self._rows: list[np.ndarray] = []  # row in the file of each loaded row
        self._groups: dict[Path, np.ndarray] = {}
        self._restart()

    def _restart(self) -> None:
        self._cache: OrderedDict[tuple[Path, int, str], pa.Array] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k not in ("_cache", "_size", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._restart()

    def add(self, path: Path, rows: np.ndarray) -> None:
        """The next loaded rows are these rows of a file."""
        self._paths.append(path)
        self._rows.append(rows)
        self._starts.append(self._starts[-1] + len(rows))

    def get(self, name: str, row: int) -> tuple[bytes, str]:
        """The encoded picture of a loaded row, and words for where it lies."""
        f = int(np.searchsorted(self._starts, row, side="right")) - 1
        path, in_file = self._paths[f], int(self._rows[f][row - self._starts[f]])
        starts = self._group_starts(path)
        group = int(np.searchsorted(starts, in_file, side="right")) - 1
        cell = self._group(path, group, name)[in_file - int(starts[group])].as_py()
        where = f"{path}, column {name!r}, row {in_file}"
        if cell is None or cell.get("bytes") is None:
            raise DatasetError(f"{where}: there is no picture.")
        return cell["bytes"], where

    def _group_starts(self, path: Path) -> np.ndarray:
        if path not in self._groups:
            metadata = pq.read_metadata(path)
            sizes = [metadata.row_group(g).num_rows for g in range(metadata.num_row_groups)]
            self._groups[path] = np.cumsum([0, *sizes])[:-1]
        return self._groups[path]

    def _group(self, path: Path, group: int, name: str) -> pa.Array:
        key = (path, group, name)
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key]
        column = pq.ParquetFile(path).read_row_group(group, columns=[name]).column(0).combine_chunks()
        with self._lock:
            if key not in self._cache:
                self._cache[key] = column
                self._size += column.nbytes
            while self._size > self.limit and len(self._cache) > 1:
                self._size -= self._cache.popitem(last=False)[1].nbytes
        return column
