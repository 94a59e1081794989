"""Rows of episodes, streamed from data files into data files: one row group in memory at a time.

    data/*/*.parquet --RowReader--> table of one episode --RowWriter--> one row group of a new data file

A file is opened once for all of its episodes that are neighbours in the new order.
"""

import json
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lerobot.core import keys
from lerobot.core.errors import DatasetError
from lerobot.datasets.compact import MIB, Position, advance
from lerobot.datasets.metadata import DATA_PATH, LeRobotDatasetMetadata
from lerobot.datasets.schema import data_features, frame_schema

HUGGINGFACE = b"huggingface"


class RowReader:
    """Rows of the episodes of some datasets."""

    def __init__(self) -> None:
        self.path: Path | None = None
        self.group: tuple[int, pa.Table] | None = None  # the row group that was read last

    def episode(self, meta: LeRobotDatasetMetadata, episode: int) -> pa.Table:
        """All rows of an episode, as they are stored.

        Raises:
            DatasetError: the file is missing or damaged, or does not hold the episode's frames in order.
        """
        path, row = meta.root / meta.get_data_file_path(episode), meta.episodes[episode]
        try:
            if path != self.path:
                self._open(path)
            start, end = np.searchsorted(self.index, [row["dataset_from_index"], row["dataset_to_index"]])
            if end - start != row["length"]:
                raise DatasetError(
                    f"{path} has {end - start} of the {row['length']} frames of episode {episode}. "
                    "lerobot-doctor says what is wrong with the dataset."
                )
            return self._rows(int(start), int(end))
        except (pa.ArrowException, OSError) as error:
            raise DatasetError(f"{path} is damaged ({error}).") from error

    def _open(self, path: Path) -> None:
        if not path.is_file():
            raise DatasetError(f"{path} is missing.")
        self.path, self.group = None, None
        self.file = pq.ParquetFile(path)
        self.index = self.file.read(columns=[keys.INDEX]).column(0).to_numpy()
        if np.any(np.diff(self.index) <= 0):
            raise DatasetError(f"{path}: the column 'index' does not rise from row to row.")
        sizes = [self.file.metadata.row_group(g).num_rows for g in range(self.file.num_row_groups)]
        self.borders = np.cumsum([0, *sizes])
        self.path = path

    def _rows(self, start: int, end: int) -> pa.Table:
        first = int(np.searchsorted(self.borders, start, side="right")) - 1
        parts = []
        for group in range(first, self.file.num_row_groups):
            low, high = int(self.borders[group]), int(self.borders[group + 1])
            if low >= end:
                break
            if self.group is None or self.group[0] != group:
                self.group = group, self.file.read_row_group(group)
            parts.append(self.group[1].slice(max(start - low, 0), min(end, high) - max(start, low)))
        return pa.concat_tables(parts)


class RowWriter:
    """New data files, one row group per episode, a new file where the size limit is passed."""

    def __init__(
        self, root: Path, *, schema: pa.Schema, limit_mb: float, chunks_size: int, joins: bool = True
    ) -> None:
        self.root, self.schema, self.limit, self.chunks_size = root, schema, limit_mb * MIB, chunks_size
        self.joins = joins  # whether rows of different source files may share a file
        self.writer: pq.ParquetWriter | None = None
        self.at: Position = (0, 0)
        self.frames = 0
        self.source: Path | None = None

    def write(self, table: pa.Table, source: Path) -> Position:
        """Add an episode that comes from a source file; returns the new file's numbers."""
        try:
            table = table.select(self.schema.names).cast(self.schema)
        except (pa.ArrowException, KeyError) as error:
            raise DatasetError(
                f"{source}: its columns are not what meta/info.json declares: {error}"
            ) from error
        if self.writer is not None and self._is_full(len(table), source):
            self.close()
            self.at = advance(self.at, self.chunks_size)
        if self.writer is None:
            self.path = self.root / DATA_PATH.format(chunk_index=self.at[0], file_index=self.at[1])
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.writer, self.frames = pq.ParquetWriter(self.path, self.schema), 0
        self.writer.write_table(table, row_group_size=max(1, len(table)))
        self.frames += len(table)
        self.source = source
        return self.at

    def _is_full(self, frames: int, source: Path) -> bool:
        if not self.joins and source != self.source:
            return True
        size = self.path.stat().st_size
        return size + size / self.frames * frames >= self.limit

    def close(self) -> None:
        """Finish the last file."""
        if self.writer is not None:
            self.writer.close()
            self.writer = None


def stored_schema(path: Path) -> pa.Schema:
    """The columns of a parquet file.

    Raises:
        DatasetError: it is missing or damaged.
    """
    if not path.is_file():
        raise DatasetError(f"{path} is missing.")
    try:
        return pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"{path} is damaged ({error}).") from error


def output_schema(
    features: dict[str, dict],
    stored: Sequence[pa.Schema],
    renamed: dict[str, str],
    *,
    gone: Collection[str] = (),
) -> pa.Schema:
    """The schema of new data files.

    Declared columns get their declared type; language columns, whose type no declaration fixes, keep that of
    the files; columns that are not declared are kept when all files have them alike.

    Args:
        stored: schemas of all source files.
        renamed: old feature name -> new.
        gone: features that are not kept.
    """
    plain = {name: one for name, one in features.items() if one["dtype"] != "language"}
    base = frame_schema(plain)
    old = {new: name for name, new in renamed.items()}
    fields: list[pa.Field] = []
    for name in data_features(features):
        if name in plain:
            fields.append(base.field(name))
        else:
            fields.append(_field_of(stored, old.get(name, name)).with_name(name))
    known = {*features, *renamed, *gone}
    fields += [
        field
        for field in stored[0]
        if field.name not in known
        and all(field.name in s.names and s.field(field.name) == field for s in stored)
    ]
    is_plain = len(fields) == len(base)
    return pa.schema(fields, metadata=base.metadata if is_plain else _description(fields, base, stored, old))


def _field_of(stored: Sequence[pa.Schema], name: str) -> pa.Field:
    found = [schema.field(name) for schema in stored if name in schema.names]
    if not found:
        raise DatasetError(f"No data file has the language column {name!r} that meta/info.json declares.")
    full = next((one for one in found if not pa.types.is_null(one.type)), found[0])
    return pa.field(full.name, full.type)


def _description(
    fields: list[pa.Field], base: pa.Schema, stored: Sequence[pa.Schema], old: dict[str, str]
) -> dict | None:
    """What the `datasets` package is told; nothing when a column's words are not known."""
    words = json.loads(base.metadata[HUGGINGFACE])
    said = json.loads((stored[0].metadata or {}).get(HUGGINGFACE, b"{}")).get("info", {}).get("features", {})
    found = said | words["info"]["features"]
    names = {field.name: old.get(field.name, field.name) for field in fields}
    if any(name not in found and before not in found for name, before in names.items()):
        return None
    described = {name: found.get(name, found.get(before)) for name, before in names.items()}
    return {"huggingface": json.dumps({**words, "info": {"features": described}})}
