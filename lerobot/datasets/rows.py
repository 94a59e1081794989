"""The rows of data files as arrays, each episode's together, with what was found wrong about each episode.

    data file --index column--> which rows belong to which episode --numbers, texts, picture rows--> arrays

Shapes: M episodes in the files that are read, N rows of those, F files.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lerobot.core import keys
from lerobot.core.errors import DatasetError
from lerobot.datasets.cache import Arrays, Identity, Layout, identify
from lerobot.datasets.legacy import defaults
from lerobot.datasets.metadata import LeRobotDatasetMetadata
from lerobot.datasets.schema import TEXT_DTYPES, data_features, is_numeric, numbers
from lerobot.datasets.tables import open_parquet

COLUMN = "column "  # arrays of columns are called so, followed by the feature's name
IS_WHOLE, HAS_STEPS, HAS_NUMBER = 1, 2, 4  # flags of an episode: see RowSource.layout


@dataclass(frozen=True, kw_only=True)
class RowSource:
    """Some data files of a dataset and the episodes (M,) that meta/episodes places in them, file by file."""

    meta: LeRobotDatasetMetadata
    names: list[Path]  # F files, relative to the root
    identities: list[Identity]
    episode: np.ndarray  # (M,) ascending within each file
    file: np.ndarray  # (M,) which of the F
    start: np.ndarray  # (M,) first frame in the whole dataset
    length: np.ndarray  # (M,)

    @classmethod
    def of(cls, meta: LeRobotDatasetMetadata, episodes: np.ndarray) -> "RowSource":
        """The files that hold these episodes, and every episode in them."""
        every = np.arange(len(meta.episodes))
        names, file = meta.files_of(every)
        needed = np.unique(file[episodes])
        rank = np.full(len(names), -1)
        rank[needed] = np.arange(len(needed))
        member = every[rank[file] >= 0]
        member = member[np.argsort(rank[file[member]], kind="stable")]
        start, length = (
            np.asarray(meta.episodes.column(name), dtype=np.int64)[member]
            for name in ("dataset_from_index", "length")
        )
        names = [names[k] for k in needed]
        return cls(
            meta=meta,
            names=names,
            identities=identify(meta.root, names),
            episode=member,
            file=rank[file[member]],
            start=start,
            length=length,
        )

    @property
    def features(self) -> dict[str, dict]:
        """The columns of the files."""
        return data_features(self.meta.features)

    @property
    def num_rows(self) -> int:
        """N."""
        return int(self.length.sum())

    @property
    def num_bytes(self) -> int:
        """Size of the numbers of all rows."""
        sizes = [np.dtype(t).itemsize * int(np.prod(shape[1:])) for t, shape in self._columns().values()]
        return sum(sizes) * self.num_rows

    def described(self) -> list[Any]:
        """What the arrays follow from, besides the files."""
        digest = hashlib.sha256()
        for array in (self.episode, self.file, self.start, self.length):
            digest.update(array.astype(np.int64).tobytes())
        declared = [[name, one["dtype"], list(one["shape"])] for name, one in self.features.items()]
        return [self.meta.fps, declared, digest.hexdigest(), *defaults.described(self.meta)]

    def _columns(self) -> Layout:
        return {
            f"{COLUMN}{name}": (_stored_dtype(one), (self.num_rows, *_item_shape(one)))
            for name, one in self.features.items()
            if is_numeric(one)
        }

    def layout(self) -> Layout:
        """The arrays that `fill` writes.

        Per episode (M,): `episode` its number, `first_row`, `found` rows in its file, `flags` (IS_WHOLE: all
        there and in order; HAS_STEPS: frame_index counts from 0; HAS_NUMBER: episode_index is its own),
        `time_error` the largest difference between timestamp and frame_index / fps in s, and `task_low`,
        `task_high`. Per row (N,): the columns, and `file_row` where there are pictures. Rows of an episode
        that is not whole are 0.
        """
        episodes = (len(self.episode),)
        layout: Layout = dict.fromkeys(("episode", "first_row", "found", "flags"), (np.int64, episodes))
        layout |= dict.fromkeys(("task_low", "task_high"), (np.int64, episodes))
        layout |= {"time_error": (np.float64, episodes), "file_start": (np.int64, (len(self.names) + 1,))}
        if any(one["dtype"] == "image" for one in self.features.values()):
            layout["file_row"] = (np.int64, (self.num_rows,))
        return layout | self._columns()

    def fill(self, arrays: Arrays) -> tuple[dict[str, Any], Arrays]:
        """Read the files into the arrays of `layout`; texts come as the bytes of an Arrow stream.

        Raises:
            DatasetError: a file is missing or damaged, or a column is not what is declared.
        """
        ends = np.cumsum(self.length)
        arrays["episode"][...], arrays["first_row"][...] = self.episode, ends - self.length
        arrays["flags"][...], arrays["time_error"][...] = 0, np.nan
        arrays["task_low"][...] = arrays["task_high"][...] = 0
        borders = np.searchsorted(self.file, np.arange(len(self.names) + 1))
        arrays["file_start"][...] = np.concatenate([[0], ends])[borders]
        texts: dict[str, list[pa.Array]] = {name: [] for name in self._text_names()}
        for number in range(len(self.names)):
            self._fill_file(number, slice(*borders[number : number + 2].tolist()), arrays, texts)
        names = [str(name) for name in self.names]
        return {"files": names}, ({"texts": _stream(texts)} if texts else {})

    def _fill_file(self, number: int, members: slice, arrays: Arrays, texts: dict[str, list]) -> None:
        path = self.meta.root / self.names[number]
        table = self._read(path)
        index = numbers(table.column(keys.INDEX), self.features[keys.INDEX], where=f"{path}, column 'index'")
        kept, found, is_whole = _match(index, self.start[members], self.length[members])
        arrays["found"][members] = found
        here = slice(*arrays["file_start"][number : number + 2].tolist())
        is_plain = len(kept) == len(index) and bool(is_whole.all())
        for name in (one for one in arrays if one.startswith(COLUMN)):
            feature = self.features[name.removeprefix(COLUMN)]
            values = numbers(
                table.column(name.removeprefix(COLUMN)),
                feature,
                where=f"{path}, column {name.removeprefix(COLUMN)!r}",
            )
            arrays[name][here] = values if is_plain else _spread(values, kept)
        if "file_row" in arrays:
            arrays["file_row"][here] = kept
        for name, pieces in texts.items():
            column = table.column(name)
            pieces += (column if is_plain else column.take(pa.array(kept, mask=kept < 0))).chunks
        self._judge(members, here, arrays, is_whole)

    def _read(self, path: Path) -> pa.Table:
        file = open_parquet(path)
        there = {*file.schema_arrow.names, *self.meta.missing_columns}
        missing = [name for name in self.features if name not in there]
        if missing:
            raise DatasetError(f"{path} lacks the columns {', '.join(missing)} that meta/info.json declares.")
        names = [name for name, one in self.features.items() if one["dtype"] != "image"]
        names = [name for name in names if name not in self.meta.missing_columns]
        try:
            return defaults.fill(file.read(columns=names), self.meta, path)
        except (pa.ArrowException, OSError) as error:
            raise DatasetError(
                f"{path} is damaged ({error}). Type: lerobot-doctor {self.meta.root}, or load the dataset "
                "with force_cache_sync=True to download it again."
            ) from error

    def _judge(self, members: slice, here: slice, arrays: Arrays, is_whole: np.ndarray) -> None:
        """Note what holds for each episode of a file."""
        lengths = self.length[members]
        borders = np.cumsum(lengths) - lengths  # first row of each episode within the file's rows
        frame = np.arange(int(lengths.sum())) - np.repeat(borders, lengths)
        seconds = frame / self.meta.fps
        stored = arrays[COLUMN + keys.TIMESTAMP][here].astype(np.float64)
        error = np.abs(stored - seconds) - seconds * np.finfo(np.float32).eps
        has_steps = arrays[COLUMN + keys.FRAME_INDEX][here] == frame
        has_number = arrays[COLUMN + keys.EPISODE_INDEX][here] == np.repeat(self.episode[members], lengths)
        task = arrays[COLUMN + keys.TASK_INDEX][here]
        some = np.flatnonzero(lengths)  # reduceat has no empty ranges
        at, into = borders[some], np.arange(members.start, members.stop)[some]
        if not len(some):
            return
        arrays["time_error"][into] = np.maximum.reduceat(error, at)
        arrays["task_low"][into] = np.minimum.reduceat(task, at)
        arrays["task_high"][into] = np.maximum.reduceat(task, at)
        flags = IS_WHOLE * is_whole[some] + HAS_STEPS * np.logical_and.reduceat(has_steps, at)
        arrays["flags"][into] = flags + HAS_NUMBER * np.logical_and.reduceat(has_number, at)

    def _text_names(self) -> list[str]:
        return [name for name, one in self.features.items() if one["dtype"] in TEXT_DTYPES]


def _match(
    index: np.ndarray, start: np.ndarray, length: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row in the file of each wanted frame (-1: none); per episode, how many there are, and all in order."""
    borders = np.cumsum(length) - length
    wanted = np.repeat(start - borders, length) + np.arange(int(length.sum()))
    if np.array_equal(index, wanted):
        return np.arange(len(index)), length, np.ones(len(start), dtype=bool)
    kept = np.flatnonzero(np.isin(index, wanted))  # an interrupted joining leaves rows of other episodes
    if np.array_equal(index[kept], wanted):
        return kept, length, np.ones(len(start), dtype=bool)
    kept, found = np.full(len(wanted), -1), np.zeros(len(start), dtype=np.int64)
    is_whole = np.zeros(len(start), dtype=bool)
    for k, (first, size, border) in enumerate(zip(start, length, borders, strict=True)):
        rows = np.flatnonzero((index >= first) & (index < first + size))
        found[k] = len(rows)
        is_whole[k] = np.array_equal(index[rows], np.arange(first, first + size))
        if is_whole[k]:
            kept[border : border + size] = rows
    return kept, found, is_whole


def _spread(values: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """These rows of a column, 0 where there is none."""
    spread = np.zeros((len(kept), *values.shape[1:]), values.dtype)
    spread[kept >= 0] = values[kept[kept >= 0]]
    return spread


def _stream(texts: dict[str, list[pa.Array]]) -> np.ndarray:
    """Text columns as the bytes of an Arrow stream."""
    table = pa.table({name: pa.chunked_array(_alike(pieces)) for name, pieces in texts.items()})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return np.frombuffer(sink.getvalue(), np.uint8)


def _alike(pieces: list[pa.Array]) -> list[pa.Array]:
    """Pieces of one type; language columns of some writers differ from file to file."""
    if not pieces:
        return [pa.array([], pa.string())]
    if len({piece.type for piece in pieces}) < 2:
        return pieces
    schemas = [pa.schema([("one", piece.type)]) for piece in pieces]
    wanted = pa.unify_schemas(schemas, promote_options="permissive").field("one").type
    return [piece.cast(wanted) for piece in pieces]


def read_texts(stream: np.ndarray) -> dict[str, pa.ChunkedArray]:
    """Text columns by name out of the bytes that `RowSource.fill` gave; nothing is copied."""
    table = pa.ipc.open_stream(pa.py_buffer(stream)).read_all()
    return {name: table.column(name) for name in table.column_names}


def _item_shape(feature: dict) -> tuple[int, ...]:
    shape = tuple(feature["shape"])
    return () if shape == (1,) else shape


def _stored_dtype(feature: dict) -> Any:
    """What items hold: any float as float32, any whole number as int64."""
    return {"f": np.float32, "b": np.bool_}.get(np.dtype(feature["dtype"]).kind, np.int64)
