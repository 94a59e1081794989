"""Pictures that lie inside the data files: found by row; row groups that were read stay up to a limit."""

import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lerobot.core.errors import DatasetError
from lerobot.datasets.tables import open_parquet

CACHE_BYTES = 2 * 1024**3


class PictureStore:
    """Encoded pictures by row.

    Args:
        starts: (F + 1,) first row of each of the F files.
        rows: (N,) where each row is in its file.
    """

    def __init__(
        self, paths: list[Path], *, starts: np.ndarray, rows: np.ndarray, limit: int = CACHE_BYTES
    ) -> None:
        self.paths, self.starts, self.rows, self.limit = paths, starts, rows, limit
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

    def get(self, name: str, row: int) -> tuple[bytes, str]:
        """The encoded picture of a row, and words for where it lies.

        Raises:
            DatasetError: the file is missing or damaged, or there is no picture.
        """
        path = self.paths[int(np.searchsorted(self.starts, row, side="right")) - 1]
        in_file = int(self.rows[row])
        starts = self._group_starts(path)
        group = int(np.searchsorted(starts, in_file, side="right")) - 1
        cell = self._group(path, group, name)[in_file - int(starts[group])].as_py()
        where = f"{path}, column {name!r}, row {in_file}"
        if cell is None or cell.get("bytes") is None:
            raise DatasetError(f"{where}: there is no picture.")
        return cell["bytes"], where

    def _group_starts(self, path: Path) -> np.ndarray:
        if path not in self._groups:
            metadata = open_parquet(path).metadata
            sizes = [metadata.row_group(g).num_rows for g in range(metadata.num_row_groups)]
            self._groups[path] = np.cumsum([0, *sizes])[:-1]
        return self._groups[path]

    def _group(self, path: Path, group: int, name: str) -> pa.Array:
        key = (path, group, name)
        with self._lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key]
        try:
            column = open_parquet(path).read_row_group(group, columns=[name]).column(0).combine_chunks()
        except (pa.ArrowException, OSError) as error:
            raise DatasetError(f"{path}, column {name!r}: row group {group} is damaged ({error}).") from error
        with self._lock:
            if key not in self._cache:
                self._cache[key] = column
                self._size += column.nbytes
            while self._size > self.limit and len(self._cache) > 1:
                self._size -= self._cache.popitem(last=False)[1].nbytes
        return column
