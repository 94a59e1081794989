"""Whole episodes out of data files, with or without an episode table: which rows belong to which episode.

    data file + table rows --------> rows by place, where at least two of four columns agree with it
    data file alone ---------------> rows by episode_index, where frame_index counts 0, 1, 2, ...

Shapes: T rows of an episode, N rows of a file.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lerobot.core import keys
from lerobot.datasets.doctor import decode, rows
from lerobot.datasets.doctor.finding import Finding
from lerobot.datasets.doctor.folder import Episodes, Folder
from lerobot.datasets.doctor.rows import TOLERANCE_S, Rows

AGREE = 2  # of index, episode_index, frame_index and timestamp: so many must fit the expected place


@dataclass(kw_only=True)
class Piece:
    """One episode that was found whole in a data file."""

    number: int  # its episode_index so far
    file: str
    take: np.ndarray  # (T,) rows of the file, in order
    row: int | None  # its position in the episode table, when it is there
    columns: dict[str, np.ndarray]  # numeric columns (T, ...)
    videos: dict[str, tuple[str, int]] = field(default_factory=dict)  # camera -> file, number of first frame

    def __len__(self) -> int:
        return len(self.take)


@dataclass(kw_only=True)
class Salvage:
    """What was found, and why the rest was not."""

    pieces: list[Piece] = field(default_factory=list)
    lost: dict[int, str] = field(default_factory=dict)  # episode -> reason

    def lose(self, numbers: np.ndarray | list[int], reason: str) -> None:
        """Note why episodes are left out; the first reason stays."""
        for number in numbers:
            self.lost.setdefault(int(number), reason)
        self.pieces = [piece for piece in self.pieces if piece.number not in self.lost]


def salvage(folder: Folder, *, sources: dict[str, Path], trusts_table: bool, how: str) -> Salvage:
    """Whole episodes of all data files.

    Args:
        sources: the file to read for each name relative to the root: the file itself, or a mended copy.
        trusts_table: whether the episode table is complete, so that files it does not name are leftovers.
        how: which pictures of image columns are decoded, as for `examine`.
    """
    result, table = Salvage(), folder.episodes
    named = {} if table is None else {name: n for n, name in enumerate(table.data.files) if name}
    for name in sorted({*sources, *named}):
        if name not in named and trusts_table:
            continue
        one = _expected(folder, named.get(name), name)
        if name not in sources:
            state = "is damaged" if (folder.root / name).is_file() else "is missing"
            result.lose(one.numbers, f"{name} {state}")
            continue
        whole = Folder(**{**folder.__dict__, "root": _root_of(sources[name], name)})
        found = rows.read_rows(whole, one)
        lacking = [column for column in folder.numbers if column not in one.columns]
        if found or lacking:
            why = found[0].found if found else f"no column {', '.join(lacking)}"
            result.lose(one.numbers, f"{name}: {why}")
            continue
        _split(folder, one, result)
        _without_bad_pictures(whole, one, result, how)
    for piece in list(result.pieces):
        bad = [n for n, v in piece.columns.items() if v.dtype.kind == "f" and not np.isfinite(v).all()]
        bad = [name for name in bad if name != keys.TIMESTAMP]
        if bad:
            result.lose([piece.number], f"NaN or infinity in {', '.join(bad)}")
    return result


def _root_of(path: Path, name: str) -> Path:
    """The folder from which `name` leads to `path`."""
    return path.parents[len(Path(name).parts) - 1]


def _expected(folder: Folder, number: int | None, name: str) -> Rows:
    if number is not None:
        return rows.expected_rows(folder, number)
    none = np.empty(0, dtype=np.int64)
    return Rows(name=name, columns={}, episodes=none, lengths=none, starts=none, numbers=none)


def _split(folder: Folder, one: Rows, result: Salvage) -> None:
    """The pieces of one data file; episodes of the table that it does not hold whole are lost."""
    for _ in rows.check_order(one):
        continue  # only `take` is wanted here
    ends = np.cumsum(one.lengths)
    by_place = list(zip(one.episodes, one.numbers, ends - one.lengths, ends, strict=True))
    done = set()
    if one.take is not None:
        for row, number, begin, end in by_place:
            take = one.take[begin:end]
            if end > begin and _agrees(folder, one, take, int(number), int(one.index[begin])):
                done.add(int(number))
                result.pieces.append(_piece(one, int(number), take, int(row)))
    rows_of = {int(number): int(row) for row, number, _, _ in by_place}
    doubtful = _doubtful(folder.episodes, rows_of)
    for number, take in _runs(folder, one):
        is_new = number not in rows_of and (folder.episodes is None or number not in folder.episodes.number)
        expected = None if number not in rows_of else int(one.lengths[list(one.numbers).index(number)])
        if number not in done and (is_new or number in doubtful or len(take) == expected):
            done.add(number)
            result.pieces.append(_piece(one, number, take, rows_of.get(number)))
    stored = one.columns[keys.EPISODE_INDEX]
    for number in rows_of:
        if number not in done:
            there = int((stored == number).sum())
            length = int(one.lengths[list(one.numbers).index(number)])
            result.lose(
                [number], f"{one.name} has {there} rows of it, {length} are expected, or their numbering lies"
            )


def _piece(one: Rows, number: int, take: np.ndarray, row: int | None) -> Piece:
    columns = {name: values[take] for name, values in one.columns.items()}
    return Piece(number=number, file=one.name, take=take, row=row, columns=columns)


def _agrees(folder: Folder, one: Rows, take: np.ndarray, number: int, start: int) -> bool:
    """Whether enough columns say that these rows are the episode that begins at row `start`."""
    frame = np.arange(len(take))
    votes = [
        np.array_equal(one.columns[keys.INDEX][take], frame + start),
        bool((one.columns[keys.EPISODE_INDEX][take] == number).all()),
        np.array_equal(one.columns[keys.FRAME_INDEX][take], frame),
        _has_times(folder, one.columns[keys.TIMESTAMP][take], frame),
    ]
    return sum(votes) >= AGREE


def _has_times(folder: Folder, times_s: np.ndarray, frame: np.ndarray) -> bool:
    if folder.fps is None:
        return False
    return bool((np.abs(times_s - frame / folder.fps) <= TOLERANCE_S + 1e-6 * frame).all())


def _doubtful(table: Episodes | None, rows_of: dict[int, int]) -> set[int]:
    """Episodes whose length the table says in two ways that differ: the rows may decide."""
    if table is None:
        return set()
    return {n for n, row in rows_of.items() if table.end[row] - table.start[row] != table.length[row]}


def _runs(folder: Folder, one: Rows) -> Iterator[tuple[int, np.ndarray]]:
    """(episode, its rows) by episode_index, where frame_index counts from 0 and the times fit."""
    stored, frames = one.columns[keys.EPISODE_INDEX], one.columns[keys.FRAME_INDEX]
    for number in np.unique(stored):
        mine = np.flatnonzero(stored == number)
        mine = mine[np.argsort(frames[mine], kind="stable")]
        frame = np.arange(len(mine))
        if number < 0 or not np.array_equal(frames[mine], frame):
            continue
        if folder.fps is None or _has_times(folder, one.columns[keys.TIMESTAMP][mine], frame):
            yield int(number), mine


def _without_bad_pictures(folder: Folder, one: Rows, result: Salvage, how: str) -> None:
    if not folder.image_keys:
        return
    mine = [piece for piece in result.pieces if piece.file == one.name]
    one.numbers = np.array([piece.number for piece in mine], dtype=np.int64)
    one.lengths = np.array([len(piece) for piece in mine], dtype=np.int64)
    one.take = np.concatenate([piece.take for piece in mine]) if mine else np.empty(0, dtype=np.int64)
    bad: list[Finding] = list(decode.check_pictures(folder, one, decode=how)) if mine else []
    for finding in bad:
        result.lose(list(finding.episodes), f"{one.name}: {finding.found}")
