"""The `stats/...` columns of meta/episodes: read for all episodes, and replaced file by file.

Letters: E episodes of the dataset.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lerobot.core import files
from lerobot.datasets import tables
from lerobot.datasets.stats import Stats

EPISODE = "episode_index"
HUGGINGFACE = b"huggingface"  # describes the types of columns, some of which change


def stored_stats(root: Path, features: Iterable[str]) -> dict[int, Stats]:
    """Statistics of these features by episode, as far as meta/episodes has them."""
    starts = tuple(f"{tables.STATS_PREFIX}{name}/" for name in features)
    found: dict[int, Stats] = {}
    for path in _table_files(root):
        names = [name for name in pq.read_schema(path).names if name.startswith(starts)]
        if names:
            rows = tables.read_parquet(path, [EPISODE, *names])
            numbers = rows.column(EPISODE).to_pylist()
            for episode, row in zip(numbers, rows.select(names).to_pylist(), strict=True):
                found.setdefault(episode, tables.unflatten_stats(row))
    return found


class StatsColumns:
    """New statistics of every episode, held as one array per column."""

    def __init__(self, num_episodes: int) -> None:
        self.num_episodes = num_episodes
        self._columns: dict[str, np.ndarray] = {}  # (E, ...)

    def put(self, episode: int, stats: Stats) -> None:
        """Take the statistics of one episode; every episode must have the same."""
        for name, value in tables.flatten_stats(stats).items():
            if name not in self._columns:
                self._columns[name] = np.zeros((self.num_episodes, *value.shape), value.dtype)
            self._columns[name][episode] = value

    def write(self, root: Path) -> None:
        """Replace these columns in every file of meta/episodes, each file durably by a rename."""
        for path in _table_files(root):
            table = tables.read_parquet(path)
            episodes = table.column(EPISODE).to_numpy()
            for name, values in self._columns.items():
                column = nested_lists(values[episodes])
                at = table.schema.get_field_index(name)
                table = table.append_column(name, column) if at < 0 else table.set_column(at, name, column)
            kept = {k: v for k, v in (table.schema.metadata or {}).items() if k != HUGGINGFACE}
            _replace(path, table.replace_schema_metadata(kept))


def nested_lists(values: np.ndarray) -> pa.Array:
    """An array (E, ...) as E lists of lists of numbers."""
    flat = pa.array(values.reshape(-1))
    for size in reversed(values.shape[1:]):
        ends = np.arange(len(flat) // size + 1, dtype=np.int32) * np.int32(size)
        flat = pa.ListArray.from_arrays(pa.array(ends), flat)
    return flat


def _replace(path: Path, table: pa.Table) -> None:
    files.write_atomically(path, lambda part: pq.write_table(table, part))


def _table_files(root: Path) -> list[Path]:
    return sorted((root / tables.EPISODES_FOLDER).glob("*/*.parquet"))
