"""Videos of picked episodes: which packets go into which new file, and which frames must be encoded again.

    episodes of a camera --neighbours in one file--> runs --cut at key frames--> pieces --size limit--> files

A piece is copied packet by packet; only a piece that cannot be cut out is encoded, and only when allowed. A
source file that is kept whole is copied byte for byte.
Letters: k number of an episode in the new dataset.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lerobot.core.errors import DatasetError
from lerobot.datasets.compact import MIB, Position, advance
from lerobot.datasets.edit.episodes import Pick
from lerobot.datasets.join import (
    CutError,
    Segment,
    begins_cleanly,
    has_audio,
    join_videos,
    stored_order,
    stream_kind,
)
from lerobot.datasets.metadata import VIDEO_PATH

logger = logging.getLogger(__name__)

MAX_NAMED = 5


@dataclass(kw_only=True)
class Piece:
    """Neighbouring episodes that are taken out of one file together."""

    episodes: list[int]  # k of each
    lengths: list[int]
    segment: Segment
    size: float  # bytes, about
    encodes: bool = False  # its frames are decoded and encoded again


@dataclass(kw_only=True)
class NewFile:
    """One video file of the new dataset."""

    pieces: list[Piece] = field(default_factory=list)

    @property
    def size(self) -> float:
        """Bytes, about."""
        return sum(piece.size for piece in self.pieces)

    @property
    def copied_from(self) -> Path | None:
        """The source file that this one is byte for byte, if it is."""
        if len(self.pieces) != 1 or self.pieces[0].encodes:
            return None
        segment = self.pieces[0].segment
        is_whole = segment.start == 0 and segment.length == len(stored_order(segment.path))
        return segment.path if is_whole else None


def source_segments(picks: Sequence[Pick], key: str) -> list[Segment]:
    """Where each picked episode's frames of a camera are.

    Raises:
        DatasetError: a file is missing, or its frames are not shown when the table says.
    """
    return [_source_segment(meta, episode, key) for meta, episode in picks]


def _source_segment(meta: Any, episode: int, key: str) -> Segment:
    row, path = meta.episodes[episode], meta.root / meta.get_video_file_path(episode, key)
    begin, length = row[f"videos/{key}/from_timestamp"], row["length"]
    segment = Segment(path=path, start=round(begin * meta.fps), length=length)
    shown = stored_order(path).seconds[segment.start : segment.start + length]
    late = np.abs(shown - begin - np.arange(len(shown)) / meta.fps) * meta.fps >= 0.5
    if len(shown) != length or late.any():
        what = f"ends after {len(shown)} of {length} frames" if len(shown) != length else "is out of step"
        raise DatasetError(
            f"{path}: episode {episode} of {meta.repo_id!r} {what}. "
            "lerobot-doctor says what is wrong with the dataset."
        )
    return segment


def cut_pieces(segments: Sequence[Segment], *, single: bool) -> list[Piece]:
    """The episodes as pieces: neighbours in a file together, or each alone where `single`."""
    pieces: list[Piece] = []
    for run in _runs(segments):
        pieces += _cut(segments, run)
    return [one for piece in pieces for one in _singled(segments, piece)] if single else pieces


def encoded_pieces(segments: Sequence[Segment]) -> list[Piece]:
    """Each episode alone, to be encoded again."""
    return [_piece(segments, [k], encodes=True) for k in range(len(segments))]


def _runs(segments: Sequence[Segment]) -> list[list[int]]:
    runs: list[list[int]] = []
    for k, segment in enumerate(segments):
        before = segments[k - 1] if k else None
        if before and _follows(segment, before):
            runs[-1].append(k)
        else:
            runs.append([k])
    return runs


def _follows(segment: Segment, before: Segment) -> bool:
    return before.path == segment.path and before.start + before.length == segment.start


def _cut(segments: Sequence[Segment], run: list[int]) -> list[Piece]:
    """A run with the episodes at its ends set apart for encoding until the rest can be cut out."""
    ahead: list[Piece] = []
    behind: list[Piece] = []
    while run:
        piece = _piece(segments, run)
        try:
            stored_order(piece.segment.path).packets(piece.segment)
            return [*ahead, piece, *behind[::-1]]
        except CutError as error:
            if error.at_start:
                ahead.append(_piece(segments, run[:1], encodes=True))
                run = run[1:]
            else:
                behind.append(_piece(segments, run[-1:], encodes=True))
                run = run[:-1]
    return [*ahead, *behind[::-1]]


def _piece(segments: Sequence[Segment], run: list[int], *, encodes: bool = False) -> Piece:
    lengths = [segments[k].length for k in run]
    path = segments[run[0]].path
    segment = Segment(path=path, start=segments[run[0]].start, length=sum(lengths))
    size = path.stat().st_size * segment.length / len(stored_order(path))
    return Piece(episodes=list(run), lengths=lengths, segment=segment, size=size, encodes=encodes)


def _singled(segments: Sequence[Segment], piece: Piece) -> list[Piece]:
    """Each episode of a piece alone, as far as each can be cut out by itself."""
    if len(piece.episodes) == 1:
        return [piece]
    singles = [_piece(segments, [k]) for k in piece.episodes]
    try:
        for one in singles:
            stored_order(one.segment.path).packets(one.segment)
    except CutError:
        return [piece]
    return singles


def refuse_encoding(pieces: dict[str, list[Piece]], picks: Sequence[Pick]) -> None:
    """Raise for pieces that cannot be cut out without encoding, naming episodes and cameras.

    Raises:
        DatasetError: there is one.
    """
    found = [(key, k) for key, some in pieces.items() for one in some if one.encodes for k in one.episodes]
    if not found:
        return
    named = [
        f"episode {picks[k][1]} of {picks[k][0].repo_id!r}, camera {key}" for key, k in found[:MAX_NAMED]
    ]
    more = f" and {len(found) - MAX_NAMED} more" if len(found) > MAX_NAMED else ""
    frames = sum(picks[k][0].episodes[picks[k][1]]["length"] for _, k in found)
    raise DatasetError(
        f"{'; '.join(named)}{more}: not cut at key frames, so the video cannot be copied as it is. "
        f"--operation.reencode=allowed encodes just these again ({frames} frames, a little quality is lost)."
    )


def group_pieces(
    pieces: Sequence[Piece], *, limit_mb: float, joins: bool = True, scatters: bool = False
) -> list[NewFile]:
    """New files in order: pieces of one kind together while they stay below the limit.

    Pieces of one source file stay together unless `scatters`; without `joins` those of different files stay
    apart.
    """
    made: list[NewFile] = []
    kinds = {path: stream_kind(path) for path in {one.segment.path for one in pieces if not one.encodes}}
    kind: Any = None
    for unit in [[one] for one in pieces] if scatters else _units(pieces):
        size, own = sum(one.size for one in unit), kinds.get(unit[0].segment.path, unit[0].segment.path)
        fits = made and joins and kind == own and made[-1].size + size < limit_mb * MIB
        if not fits:
            made.append(NewFile())
        clean = [True] * len(unit) if unit[0].encodes else begins_cleanly([one.segment for one in unit])
        for piece, is_clean in zip(unit, clean, strict=True):
            before = made[-1].pieces[-1].segment if made[-1].pieces else None
            if before and not is_clean and not _follows(piece.segment, before):
                made.append(NewFile())
            made[-1].pieces.append(piece)
        kind = own
    return made


def _units(pieces: Sequence[Piece]) -> list[list[Piece]]:
    """Neighbouring pieces of one source file; a single file's leftovers are not scattered over new ones."""
    units: list[list[Piece]] = []
    for piece in pieces:
        if units and units[-1][-1].segment.path == piece.segment.path and not piece.encodes:
            units[-1].append(piece)
        else:
            units.append([piece])
    return units


def write_videos(
    root: Path,
    key: str,
    made: Sequence[NewFile],
    *,
    rows: list[dict[str, Any]],
    fps: float,
    chunks_size: int,
    copy: Callable[[Path, Path], object],
    tell: Callable[[int], object],
) -> None:
    """Write one camera's new files and note each episode's place in its row.

    Args:
        copy: copies or links a whole file.
        tell: is told the number of frames after each file.
    """
    place: Position = (0, 0)
    for new in made:
        path = root / VIDEO_PATH.format(video_key=key, chunk_index=place[0], file_index=place[1])
        path.parent.mkdir(parents=True, exist_ok=True)
        source = new.copied_from
        if source is not None and _is_on_beat(source, fps):
            copy(source, path)
        else:
            for path_read in {piece.segment.path for piece in new.pieces if has_audio(piece.segment.path)}:
                logger.warning("The sound of %s is not carried over; only pictures are.", path_read)
            join_videos([piece.segment for piece in new.pieces], path, fps=fps)
        tell(note_places(new, key, place, rows=rows, fps=fps))
        place = advance(place, chunks_size)


def _is_on_beat(path: Path, fps: float) -> bool:
    seconds = stored_order(path).seconds
    return bool(np.all(np.abs(seconds - np.arange(len(seconds)) / fps) < 1e-5))


def note_places(new: NewFile, key: str, place: Position, *, rows: list[dict[str, Any]], fps: float) -> int:
    """Write into the rows of its episodes where a new file has them; returns its number of frames."""
    at, base = 0, f"videos/{key}"
    for piece in new.pieces:
        for k, length in zip(piece.episodes, piece.lengths, strict=True):
            rows[k] |= {f"{base}/chunk_index": place[0], f"{base}/file_index": place[1]}
            rows[k] |= {f"{base}/from_timestamp": at / fps, f"{base}/to_timestamp": (at + length) / fps}
            at += length
    return at
