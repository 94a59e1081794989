"""The table of episodes of a new dataset: what every column of the old tables said, under new numbers.

    meta/episodes of the sources --rows taken, features dropped or renamed--> + new places --> meta/episodes

Columns that this package does not know are carried over; those of a feature (`<prefix>/<feature>/...`) go
where the feature goes.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lerobot.core.errors import DatasetError
from lerobot.datasets import tables
from lerobot.datasets.compact import advance
from lerobot.datasets.edit.rows import stored_schema
from lerobot.datasets.episodes import NEEDED
from lerobot.datasets.metadata import LeRobotDatasetMetadata
from lerobot.datasets.stats import Stats

ROWS_PER_TABLE = 5000
PLACE = ("meta/episodes/chunk_index", "meta/episodes/file_index")
OWN = {*NEEDED, "tasks", *PLACE}  # written anew
VIDEOS = "videos/"
Pick = tuple[LeRobotDatasetMetadata, int]  # a dataset and an episode of it


class CarriedColumns:
    """Stored rows of picked episodes, without what is written anew. `renamed`: old feature name -> new."""

    def __init__(self, picks: Sequence[Pick], *, features: dict[str, dict], renamed: dict[str, str]) -> None:
        self.picks, self.features, self.renamed = picks, features, renamed
        self.places: dict[Path, dict[int, tuple[Path, int]]] = {}  # by root: episode -> its file and row
        self.read: tuple[Path, pa.Table] | None = None

    def blocks(self) -> Iterator[pa.Table]:
        """Tables of at most ROWS_PER_TABLE rows, in the order of the picks."""
        for start in range(0, len(self.picks), ROWS_PER_TABLE):
            yield self._block(self.picks[start : start + ROWS_PER_TABLE])

    def _block(self, picks: Sequence[Pick]) -> pa.Table:
        parts, at = [], 0
        while at < len(picks):
            meta, path = picks[at][0], self._place(picks[at])[0]
            rows = []
            while at < len(picks) and picks[at][0] is meta and self._place(picks[at])[0] == path:
                rows.append(self._place(picks[at])[1])
                at += 1
            parts.append(self._stored(path, meta).take(rows))
        return pa.concat_tables(parts, promote_options="permissive")

    def _place(self, pick: Pick) -> tuple[Path, int]:
        meta, episode = pick
        if meta.root not in self.places:
            self.places[meta.root] = _places(meta)
        return self.places[meta.root][episode]

    def _stored(self, path: Path, meta: LeRobotDatasetMetadata) -> pa.Table:
        if self.read is None or self.read[0] != path:
            names = {old: new for old in stored_schema(path).names if (new := self._new_name(old, meta))}
            table = tables.read_parquet(path, list(names))
            columns = {}
            for old, new in names.items():
                kind = _stats_type(new, table.schema.field(old).type)
                columns[new] = table.column(old) if kind is None else table.column(old).cast(kind)
            table = pa.table(columns)
            self.read = path, table
        return self.read[1]

    def _new_name(self, name: str, meta: LeRobotDatasetMetadata) -> str | None:
        """The column's name in the new table; None when it is written anew or its feature is gone."""
        if name in OWN or name.startswith(VIDEOS):
            return None
        prefix, *rest = name.split("/")
        if not rest or (rest[0] not in meta.features and prefix != "stats"):
            return name
        feature = self.renamed.get(rest[0], rest[0])
        return "/".join([prefix, feature, *rest[1:]]) if feature in self.features else None


def _places(meta: LeRobotDatasetMetadata) -> dict[int, tuple[Path, int]]:
    """File and row of every episode; of a row that is there twice the first counts."""
    places: dict[int, tuple[Path, int]] = {}
    for path in sorted((meta.root / tables.EPISODES_FOLDER).glob("*/*.parquet")):
        numbers = tables.read_parquet(path, ["episode_index"]).column(0).to_pylist()
        for row, number in enumerate(numbers):
            places.setdefault(number, (path, row))
    missing = [episode for episode in range(meta.total_episodes) if episode not in places]
    if missing:
        raise DatasetError(
            f"{meta.root / tables.EPISODES_FOLDER} has no row of episode {missing[0]}. A dataset in an older "
            "format is converted first: lerobot-edit-dataset --operation.type=convert."
        )
    return places


def _stats_type(name: str, found: pa.DataType) -> pa.DataType | None:
    """Statistics are lists of doubles (counts of int64), also where integers were written."""
    if not name.startswith(tables.STATS_PREFIX):
        return None
    depth, inner = 0, found
    while pa.types.is_list(inner) or pa.types.is_large_list(inner) or pa.types.is_fixed_size_list(inner):
        depth, inner = depth + 1, inner.value_type
    if depth == 0 or not (pa.types.is_integer(inner) or pa.types.is_floating(inner)):
        return None
    kind = pa.int64() if name.endswith("/count") else pa.float64()
    for _ in range(depth):
        kind = pa.list_(kind)
    return kind


def stats_of(block: pa.Table) -> list[Stats]:
    """The statistics of every episode of a block."""
    names = [name for name in block.column_names if name.startswith(tables.STATS_PREFIX)]
    return [tables.unflatten_stats(row) for row in block.select(names).to_pylist()]


def with_stats(block: pa.Table, more: Sequence[Stats]) -> pa.Table:
    """The block with statistics of some features replaced or added, one entry per row."""
    fresh = tables.episode_rows([tables.flatten_stats(one) for one in more])
    for name in fresh.column_names:
        column = fresh.column(name)
        place = block.column_names.index(name) if name in block.column_names else None
        block = block.append_column(name, column) if place is None else block.set_column(place, name, column)
    return block


def write_block(
    root: Path, number: int, block: pa.Table, *, rows: list[dict[str, Any]], chunks_size: int
) -> None:
    """One file of meta/episodes: new numbers and places from `rows`, then the carried columns."""
    place = (0, 0)
    for _ in range(number):
        place = advance(place, chunks_size)
    fresh = tables.episode_rows(rows)
    names = fresh.column_names
    columns = {name: fresh.column(name) for name in names}
    columns |= {name: block.column(name) for name in block.column_names}
    columns |= {
        name: pa.array([value] * len(rows), pa.int64()) for name, value in zip(PLACE, place, strict=True)
    }
    path = root / tables.EPISODES_PATH.format(chunk_index=place[0], file_index=place[1])
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
