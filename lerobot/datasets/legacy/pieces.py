"""Episodes cut out of files that, one after the other, hold all frames: rows of parquet, packets of mp4.

file A: episode 0, 1, first half of 2   file B: second half of 2, episode 3   -> rows and pieces of each
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import pyarrow as pa
import pyarrow.parquet as pq

from lerobot.core.errors import DatasetError
from lerobot.datasets.join import Segment
from lerobot.datasets.tables import read_parquet
from lerobot.datasets.timeline import read_timeline


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Frames of an episode inside one video."""

    path: Path
    start: int  # number of the first frame in the file
    length: int
    size: float  # bytes, the share of the file's size

    @property
    def segment(self) -> Segment:
        """The same, for joining."""
        return Segment(path=self.path, start=self.start, length=self.length)


def rows_of(paths: Sequence[Path], names: list[str], lengths: Sequence[int]) -> Iterator[pa.Table]:
    """The rows of each episode, columns `names`.

    Raises:
        DatasetError: a file is damaged or lacks a column, or the files have other rows than the episodes.
    """
    one_each = len(paths) == len(lengths)
    left: pa.Table | None = None
    remaining = iter(paths)
    for episode, length in enumerate(lengths):
        while left is None or len(left) < length:
            path = next(remaining, None)
            if path is None:
                raise DatasetError(
                    f"The data files end inside episode {episode}, which has {length} frames. Is one missing?"
                )
            table = _read(path, names)
            if one_each and len(table) != length:
                raise DatasetError(
                    f"{path} has {len(table)} rows; the length of episode {episode} is {length}."
                )
            left = table if left is None or not len(left) else pa.concat_tables([left, table])
        yield left.slice(0, length)
        left = left.slice(length)
    if (left is not None and len(left)) or next(remaining, None) is not None:
        raise DatasetError(f"{paths[-1]} holds rows after the last episode.")


def _read(path: Path, names: list[str]) -> pa.Table:
    if path.is_file():
        missing = [name for name in names if name not in pq.read_schema(path).names]
        if missing:
            raise DatasetError(f"{path} lacks the columns {', '.join(missing)} that meta/info.json declares.")
    return read_parquet(path, names).replace_schema_metadata(None)


def pieces_of(paths: Sequence[Path], lengths: Sequence[int]) -> list[list[Piece]]:
    """Where each episode's pictures are: mostly one piece, more where an episode goes on in the next file.

    Raises:
        DatasetError: the files have fewer frames than the episodes.
    """
    one_each, pieces = len(paths) == len(lengths), []
    counts = [lengths[k] if one_each else len(read_timeline(path)) for k, path in enumerate(paths)]
    k, at = 0, 0
    for length in lengths:
        own, wanted = [], length
        while wanted:
            if k == len(paths):
                raise DatasetError(f"The videos up to {paths[-1]} have fewer frames than the data files.")
            taken = min(wanted, counts[k] - at)
            if taken:
                size = paths[k].stat().st_size * taken / counts[k]
                own.append(Piece(path=paths[k], start=at, length=taken, size=size))
            wanted, at = wanted - taken, at + taken
            if at == counts[k]:
                k, at = k + 1, 0
        pieces.append(own)
    return pieces


def copied_packets(pieces: Sequence[Piece]) -> Iterator[tuple[bytes, bool]]:
    """The encoded pictures of the pieces in the order they are stored, and which are key frames."""
    wanted: dict[Path, int] = {}
    for piece in pieces:
        wanted[piece.path] = max(wanted.get(piece.path, 0), piece.start + piece.length)
    for path, count in wanted.items():
        last = read_timeline(path).pts[count - 1]  # frames past the end of the last episode stay behind
        with av.open(str(path)) as container:
            for packet in container.demux(video=0):
                if packet.pts is not None and packet.pts <= last:
                    yield bytes(packet), packet.is_keyframe
