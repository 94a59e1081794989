"""meta/episodes_stats.jsonl of v2.1: statistics of each episode, read when asked for, and of all together.

    one line per episode --Arrow, all lines at once--> arrays (E, ...) per statistic --> whole dataset
                         --one line--------------------------------------------------> one episode

Shapes: E episodes.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.json

from lerobot.core import keys
from lerobot.core.errors import DatasetError
from lerobot.datasets.legacy.view import Stats, arrays, read_lines
from lerobot.datasets.stats import MOMENTS, aggregate_stats

BLOCK_BYTES = 1 << 26  # Arrow's unit of work; a line must fit into it


class EpisodeStats(Mapping):
    """Episode number -> {feature: {stat: array}}; holds places in the file, not the statistics.

    Raises:
        DatasetError: a line is no JSON object, or lacks episode_index or stats.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        data = path.read_bytes()
        ends = np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\n")) + 1
        starts = np.concatenate([[0], ends])
        lines = [int(a) for a, b in zip(starts, [*ends, len(data)], strict=True) if data[a:b].strip()]
        table = self._table(data)
        numbers = [row[0] for row in self._slow()] if table is None else table["episode_index"].to_pylist()
        self._places = dict(zip(numbers, lines, strict=True))
        self.whole = self._aggregated(table)

    def __getitem__(self, episode: int) -> Stats:
        with self.path.open("rb") as file:
            file.seek(self._places[episode])
            return arrays(json.loads(file.readline())["stats"])

    def __iter__(self) -> Iterator[int]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)

    def _table(self, data: bytes) -> pa.Table | None:
        """All lines as a table; None where lines differ in more than their numbers."""
        options = pyarrow.json.ReadOptions(block_size=min(BLOCK_BYTES, max(len(data), 1 << 16)))
        try:
            table = pyarrow.json.read_json(pa.BufferReader(data), read_options=options)
        except pa.ArrowException:
            return None  # said line by line, or read so
        fits = {keys.EPISODE_INDEX, "stats"} <= set(table.column_names)
        return table if fits and pa.types.is_integer(table["episode_index"].type) else None

    def _slow(self) -> list[tuple[int, dict[str, Any]]]:
        """All lines, one by one."""
        rows = read_lines(self.path)
        for k, row in enumerate(rows):
            if not isinstance(row.get(keys.EPISODE_INDEX), int) or not isinstance(row.get("stats"), dict):
                raise DatasetError(
                    f"{self.path}, entry {k + 1}: expected episode_index and stats, got {list(row)}."
                )
        return [(row[keys.EPISODE_INDEX], row["stats"]) for row in rows]

    def _aggregated(self, table: pa.Table | None) -> Stats:
        """Statistics of all episodes together."""
        columns = None if table is None else _columns(table["stats"].combine_chunks())
        if columns is None:
            return aggregate_stats([arrays(stats) for _, stats in self._slow()])
        return {name: _pooled(one) for name, one in columns.items()}


def _columns(stats: pa.StructArray) -> dict[str, dict[str, np.ndarray]] | None:
    """{feature: {stat: (E, ...)}}; None unless every episode has the same features, statistics and shapes."""
    found: dict[str, dict[str, np.ndarray]] = {}
    for feature in stats.type:
        one = stats.field(feature.name)
        if one.null_count or not set(MOMENTS) <= {field.name for field in one.type}:
            return None
        found[feature.name] = {}
        for name in MOMENTS:
            values, shape = one.field(name), [len(stats)]
            while pa.types.is_list(values.type):
                sizes = values.value_lengths().unique()
                if values.null_count or len(sizes) != 1:
                    return None
                shape.append(sizes[0].as_py())
                values = values.flatten()
            if values.null_count or pa.types.is_null(values.type):
                return None
            found[feature.name][name] = values.to_numpy(zero_copy_only=False).reshape(shape)
    return found


def _pooled(one: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Statistics of the union of E samples, given those of each (E, ...)."""
    count = one["count"].reshape(-1).astype(np.float64)
    weights = count.reshape(-1, *[1] * (one["mean"].ndim - 1)) / count.sum()
    mean = (weights * one["mean"]).sum(axis=0)
    variance = (weights * (one["std"].astype(np.float64) ** 2 + (one["mean"] - mean) ** 2)).sum(axis=0)
    return {
        "min": np.atleast_1d(one["min"].min(axis=0)),
        "max": np.atleast_1d(one["max"].max(axis=0)),
        "mean": np.atleast_1d(mean),
        "std": np.atleast_1d(np.sqrt(variance)),
        "count": np.array([int(count.sum())]),
    }
