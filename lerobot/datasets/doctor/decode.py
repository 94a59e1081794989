"""Pictures decoded to find flipped bytes: of videos by groups of pictures, of image columns by rows.

A decoder does not notice every flipped byte: one that only changes a colour gives a picture all the same.
Shapes: M frames of a file.
"""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.parquet as pq

from lerobot.datasets.doctor.finding import Finding, finding
from lerobot.datasets.doctor.folder import Folder
from lerobot.datasets.doctor.rows import READ_ERRORS, Rows, unreadable
from lerobot.datasets.doctor.videos import Video

SAMPLED_GROUPS = 16  # groups of pictures, per file, that --decode=sample looks at
SAMPLED_ROWS = 8  # pictures, per image column and file, that are looked at without --decode
STRICT = {"err_detect": "explode+crccheck+bitstream+buffer"}


def check_decoding(root: Path, video: Video, *, sample: bool) -> Iterator[Finding]:
    """Decode a video's frames, or some groups of them; which frames are damaged, and of which episodes."""
    if video.timeline is None:
        return
    bad, reason = _damaged(root / video.name, video, _spans(video, sample=sample))
    if len(bad):
        touched = [
            n
            for n, a, b in zip(video.numbers, video.first, video.last, strict=True)
            if ((bad >= a) & (bad < b)).any()
        ]
        yield finding(
            "video.decode",
            video.name,
            found=f"{len(bad)} frames cannot be decoded, the first is frame {bad[0]} ({reason})",
            expected="a picture for every frame",
            episodes=touched,
        )


def damaged_frames(root: Path, video: Video, *, sample: bool) -> np.ndarray:
    """Numbers of the frames, of all or of a sample, that cannot be decoded."""
    return _damaged(root / video.name, video, _spans(video, sample=sample))[0]


def _spans(video: Video, *, sample: bool) -> list[tuple[int, int]]:
    """Runs of frames to decode, each from a key frame on."""
    assert video.timeline is not None
    keys = np.flatnonzero(video.timeline.is_key)
    whole = min(video.num_whole, len(video.timeline))
    if not sample or len(keys) <= SAMPLED_GROUPS:
        return [(0, whole)]
    chosen = keys[np.unique(np.linspace(0, len(keys) - 1, SAMPLED_GROUPS).astype(int))]
    ends = np.append(keys, len(video.timeline))[np.searchsorted(keys, chosen) + 1]
    return [(int(a), int(b)) for a, b in zip(chosen, ends, strict=True) if b <= whole]


def _damaged(path: Path, video: Video, spans: list[tuple[int, int]]) -> tuple[np.ndarray, str]:
    """Numbers of the frames in these spans that give no picture, and the decoder's first complaint."""
    assert video.timeline is not None
    pts, reason = video.timeline.pts, ""
    is_seen = np.zeros(len(pts), dtype=bool)
    wanted = np.zeros(len(pts), dtype=bool)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.options = STRICT
        for first, end in spans:
            wanted[first:end] = True
            if first:
                container.seek(int(pts[first]), stream=stream, backward=True)
            for shown, complaint in _pictures(container, stream, int(pts[end - 1])):
                reason = reason or complaint
                k = int(np.searchsorted(pts, shown)) if shown is not None else -1
                if 0 <= k < len(pts) and pts[k] == shown and not complaint:
                    is_seen[k] = True
    return np.flatnonzero(wanted & ~is_seen), reason or "no picture"


def _pictures(container: Any, stream: Any, last_pts: int) -> Iterator[tuple[int | None, str]]:
    """(time, complaint) of every picture up to a time; a damaged packet gives (None, why)."""
    try:
        for packet in container.demux(stream):
            try:
                for frame in packet.decode():
                    yield frame.pts, "marked as damaged" if frame.is_corrupt else ""
            except av.FFmpegError as error:
                yield None, str(error)
            if packet.dts is not None and packet.dts > last_pts:
                break
    except av.FFmpegError as error:
        yield None, str(error)


def check_pictures(folder: Folder, rows: Rows, *, decode: str) -> Iterator[Finding]:
    """Image columns of a data file: every row has a picture, and those looked at have the declared size."""
    path = folder.root / rows.name
    try:
        file = pq.ParquetFile(path)
        for name in folder.image_keys:
            if name in file.schema_arrow.names:
                yield from _check_column(folder, rows, file, name, decode)
    except READ_ERRORS as error:
        yield unreadable(path, rows, error)


def _check_column(
    folder: Folder, rows: Rows, file: pq.ParquetFile, name: str, decode: str
) -> Iterator[Finding]:
    lacking: list[int] = []
    at, bad, groups = 0, [], _looked_at(file.metadata.num_row_groups, decode)
    for group in range(file.metadata.num_row_groups):
        if group in groups:
            cells = file.read_row_group(group, columns=[name])[name].combine_chunks()
            data = cells.field("bytes") if hasattr(cells, "field") else cells
            empty = np.flatnonzero(np.asarray(data.is_null()) | np.asarray(cells.is_null()))
            lacking += (empty + at).tolist()
            bad += _undecodable(folder, name, data, first=at, decode=decode)
        at += file.metadata.row_group(group).num_rows
    yield from _picture_findings(rows, name, lacking, bad)


def _looked_at(count: int, decode: str) -> set[int]:
    if decode == "all" or count <= SAMPLED_GROUPS:
        return set(range(count))
    return set(np.linspace(0, count - 1, SAMPLED_GROUPS).astype(int).tolist())


def _undecodable(
    folder: Folder, name: str, data: Any, *, first: int, decode: str
) -> list[tuple[int, str, str]]:
    """(row, code, what was found) of pictures that are damaged or of another size."""
    from PIL import Image

    feature, found = folder.features[name], []
    shape = list(feature["shape"])
    sizes = {tuple(shape[:2]), tuple(shape[1:])}
    rows = range(len(data))
    chosen = rows if decode == "all" else np.unique(np.linspace(0, len(data) - 1, SAMPLED_ROWS).astype(int))
    for row in chosen if len(data) else ():
        content = data[int(row)].as_py()
        if content is None:
            continue
        try:
            with Image.open(io.BytesIO(content)) as picture:
                size = (picture.height, picture.width)
                picture.load()
        except (OSError, ValueError, SyntaxError) as error:  # SyntaxError: a PNG with a broken chunk
            found.append((first + int(row), "image.unreadable", f"{len(content)} bytes, {error}"))
            continue
        if size not in sizes:
            found.append((first + int(row), "image.size", f"a picture of {size[0]} x {size[1]}"))
    return found


def _picture_findings(
    rows: Rows, name: str, lacking: list[int], bad: list[tuple[int, str, str]]
) -> Iterator[Finding]:
    if lacking:
        yield finding(
            "image.missing",
            rows.name,
            found=f"no picture of {name!r} in row {lacking[0]}, {len(lacking)} such rows",
            expected="encoded bytes",
            episodes=_touched(rows, lacking),
        )
    for code in ("image.unreadable", "image.size"):
        mine = [(row, text) for row, kind, text in bad if kind == code]
        if mine:
            yield finding(
                code,
                rows.name,
                found=f"{name!r} in row {mine[0][0]}: {mine[0][1]}, {len(mine)} such rows",
                expected="a picture of the declared size",
                episodes=_touched(rows, [row for row, _ in mine]),
            )


def _touched(rows: Rows, in_file: list[int]) -> np.ndarray:
    """The episodes of rows of the file."""
    if rows.take is None:
        return rows.numbers
    return rows.touched(np.flatnonzero(np.isin(rows.take, in_file)))
