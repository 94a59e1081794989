"""A parquet file whose footer is lost, read all the same: pages say how long they are, so they can be walked.

    PAR1 | pages of column 1, column 2, ... of row group 1 | row group 2 | ...      (cut off here: no footer)
    pages walked -> column chunks, by dictionary pages and counts of values -> a footer as a twin file has it

A recording that is killed leaves such a file: LeRobot's releases write one row group per episode, and the
footer last of all. The twin is a file of the same schema and row groups, written here; only places and sizes
in its footer are replaced. https://github.com/apache/parquet-format
Shapes: R rows of a row group.
"""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lerobot.core.errors import DatasetError
from lerobot.datasets.doctor import thrift
from lerobot.datasets.doctor.thrift import Struct
from lerobot.datasets.schema import data_features, frame_schema

MAGIC = b"PAR1"
DATA_PAGE, DICTIONARY_PAGE, DATA_PAGE_V2 = 0, 2, 3
PLAIN, RLE, RLE_DICTIONARY = 0, 3, 8
ROW_GROUPS = 4  # in FileMetaData
COLUMNS, GROUP_BYTES, GROUP_OFFSET, GROUP_PACKED = 1, 2, 5, 6  # in RowGroup
CHUNK_OFFSET, CHUNK_META = 2, 3  # in ColumnChunk
ENCODINGS, UNPACKED, PACKED, FIRST_DATA, FIRST_DICTIONARY = 2, 6, 7, 9, 11  # in ColumnMetaData
KEPT = {1, 3, 4, 5}  # of ColumnMetaData: type, path, codec, number of values


@dataclass(frozen=True, kw_only=True)
class Page:
    """One page of the file."""

    at: int  # where its header begins
    end: int  # where the next page begins
    unpacked: int  # bytes of header and uncompressed content
    num_values: int  # 0 for a dictionary
    is_dictionary: bool


@dataclass(frozen=True, kw_only=True)
class Leaf:
    """One column of numbers or bytes, as parquet splits nested columns."""

    per_row: int  # values in every row
    has_dictionary: bool


def mend_footer(path: Path, out: Path, *, features: dict[str, dict]) -> bool:
    """Write a readable copy of a data file whose footer is lost; False when no whole row group is found."""
    data = path.read_bytes()
    if not data.startswith(MAGIC):
        return False
    try:
        schema = frame_schema(features)
    except DatasetError:
        return False  # columns whose parts vary in number from row to row
    groups = _row_groups(_pages(data), _leaves(features))
    while groups:  # the last pages may be damaged: give up one row group after the other
        if _write(data, groups, schema, out):
            return True
        groups.pop()
    return False


def _pages(data: bytes) -> list[Page]:
    """All whole pages from the beginning of the file on."""
    found, at = [], len(MAGIC)
    while at < len(data):
        reader = thrift.Reader(data, at)
        try:
            header = reader.struct()
            kind, unpacked, packed = (header[number][1] for number in (1, 2, 3))
            inner = header.get({DATA_PAGE: 5, DICTIONARY_PAGE: 7, DATA_PAGE_V2: 8}.get(kind, -1))
            end, is_dictionary = reader.at + packed, kind == DICTIONARY_PAGE
            unpacked += reader.at - at
            count = 0 if is_dictionary or inner is None else int(inner[1][1][1])
        except (ValueError, KeyError, TypeError, IndexError):
            break  # no header: the file ends here, or its footer begins, or it is damaged
        if inner is None or packed < 0 or end > len(data):
            break
        found.append(Page(at=at, end=end, unpacked=unpacked, num_values=count, is_dictionary=is_dictionary))
        at = end
    return found


def _leaves(features: dict[str, dict]) -> list[Leaf]:
    """The columns that pages belong to, in the order they are written."""
    leaves = []
    for feature in data_features(features).values():
        is_text = feature["dtype"] in ("image", "string")
        leaf = Leaf(
            per_row=1 if is_text else int(np.prod(feature["shape"])),
            has_dictionary=feature["dtype"] != "bool",
        )
        leaves += [leaf, leaf] if feature["dtype"] == "image" else [leaf]  # bytes and path
    return leaves


def _row_groups(pages: list[Page], leaves: list[Leaf]) -> list[tuple[int, list[list[Page]]]]:
    """(R, pages of each leaf) of every whole row group from the beginning on."""
    found, at = [], 0
    while at < len(pages):
        group = next(
            (one for rows in _candidates(pages, at, leaves[0]) if (one := _walk(pages, at, leaves, rows))),
            None,
        )
        if group is None:
            break
        found.append(group)
        at += sum(map(len, group[1]))
    return found


def _candidates(pages: list[Page], at: int, leaf: Leaf) -> list[int]:
    """What R may be, by the pages that may belong to the first leaf."""
    counts, total = [], 0
    for page in pages[at + leaf.has_dictionary :]:
        if page.is_dictionary:
            break
        total += page.num_values
        if total % leaf.per_row == 0:
            counts.append(total // leaf.per_row)
    return counts[::-1]  # as many pages as possible first


def _walk(pages: list[Page], at: int, leaves: list[Leaf], rows: int) -> tuple[int, list[list[Page]]] | None:
    """The pages of each leaf of a row group of R rows; None when they do not fit."""
    chunks = []
    for leaf in leaves:
        chunk, count = [], 0
        if leaf.has_dictionary:
            if at >= len(pages) or not pages[at].is_dictionary:
                return None
            chunk.append(pages[at])
            at += 1
        while count < rows * leaf.per_row:
            if at >= len(pages) or pages[at].is_dictionary:
                return None
            chunk.append(pages[at])
            count += pages[at].num_values
            at += 1
        if count != rows * leaf.per_row:
            return None
        chunks.append(chunk)
    return (rows, chunks) if rows else None


def _write(data: bytes, groups: list[tuple[int, list[list[Page]]]], schema: pa.Schema, out: Path) -> bool:
    """The file up to its last whole row group with a footer; whether pyarrow can read all of it."""
    footer = _twin_footer(schema, [rows for rows, _ in groups])
    for (_, chunks), group in zip(groups, footer[ROW_GROUPS][1][1], strict=True):
        _place(group, chunks)
    end = groups[-1][1][-1][-1].end
    packed = thrift.pack(footer)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(data[:end] + packed + len(packed).to_bytes(4, "little") + MAGIC)
    try:
        pq.ParquetFile(out).read()
    except (pa.ArrowException, OSError):
        out.unlink()
        return False
    return True


def _twin_footer(schema: pa.Schema, sizes: list[int]) -> Struct:
    """The footer of a file with this schema and row groups of these sizes."""
    stream = io.BytesIO()
    with pq.ParquetWriter(stream, schema) as writer:
        for rows in sizes:
            empty = pa.table([_some(field.type, rows) for field in schema], schema=schema)
            writer.write_table(empty, row_group_size=rows)
    data = stream.getvalue()
    size = int.from_bytes(data[-8:-4], "little")
    return thrift.Reader(data[-8 - size : -8]).struct()


def _some(kind: pa.DataType, rows: int) -> pa.Array:
    """A column of this type whose cells are missing; places and counts are replaced anyway."""
    return pa.nulls(rows, kind)


def _place(group: Struct, chunks: list[list[Page]]) -> None:
    """Point a row group of the twin's footer to the pages that were found."""
    for column, pages in zip(group[COLUMNS][1][1], chunks, strict=True):
        data = [page for page in pages if not page.is_dictionary]
        meta: Struct = {number: one for number, one in column[CHUNK_META][1].items() if number in KEPT}
        encodings = [PLAIN, RLE, RLE_DICTIONARY]
        meta[5] = (thrift.I64, sum(page.num_values for page in data))
        meta[ENCODINGS] = (thrift.LIST, (thrift.I32, encodings))
        meta[UNPACKED] = (thrift.I64, sum(page.unpacked for page in pages))
        meta[PACKED] = (thrift.I64, pages[-1].end - pages[0].at)
        meta[FIRST_DATA] = (thrift.I64, data[0].at)
        if pages[0].is_dictionary:
            meta[FIRST_DICTIONARY] = (thrift.I64, pages[0].at)
        column.clear()
        column |= {CHUNK_OFFSET: (thrift.I64, 0), CHUNK_META: (thrift.STRUCT, meta)}
    group[GROUP_BYTES] = (thrift.I64, sum(page.unpacked for chunk in chunks for page in chunk))
    group[GROUP_OFFSET] = (thrift.I64, chunks[0][0].at)
    group[GROUP_PACKED] = (thrift.I64, chunks[-1][-1].end - chunks[0][0].at)
