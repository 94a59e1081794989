"""The videos of salvaged episodes: where each one's frames are, whether they are whole, and copies of them.

    table says where -> taken from there      table does not -> one after the other, if the counts fit exactly

Shapes: T frames of an episode.
"""

import itertools
import shutil
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from lerobot.core import files
from lerobot.core.errors import DatasetError
from lerobot.datasets.doctor import decode
from lerobot.datasets.doctor.folder import Folder
from lerobot.datasets.doctor.salvage import Piece, Salvage
from lerobot.datasets.doctor.videos import TOLERANCE_S, Video, open_video

Videos = dict[str, Video]  # file -> what is in it


def find_footage(folder: Folder, result: Salvage, *, how: str) -> Videos:
    """Give every piece its videos; pieces without whole ones are lost. Returns the files that were opened."""
    opened: Videos = {}
    for camera in folder.video_keys:
        paths = sorted((folder.root / "videos" / camera).glob("*/*.mp4"), key=_order)
        for path in paths:
            name = path.relative_to(folder.root).as_posix()
            none = np.empty(0, dtype=np.int64)
            video = Video(name=name, camera=camera, episodes=none, numbers=none, lengths=none, first=none)
            for _ in open_video(folder.root, video):
                continue  # a file that cannot be opened keeps timeline None
            opened[name] = video
        _place(folder, result, camera, opened)
        _check(folder, result, camera, opened, how)
    return opened


def _order(path: Path) -> tuple[int, int]:
    numbers = [int("".join(c for c in part if c.isdigit()) or 0) for part in path.with_suffix("").parts[-2:]]
    return numbers[0], numbers[1]


def _place(folder: Folder, result: Salvage, camera: str, opened: Videos) -> None:
    """Where each piece's frames are: as the table says, unless it contradicts itself, else by counting."""
    table, fps = folder.episodes, folder.fps
    assert fps is not None
    places = None if table is None else table.videos.get(camera)
    said: dict[int, tuple[str, int]] = {}
    for piece in result.pieces:
        if places is None or piece.row is None or places.file[piece.row] < 0:
            continue
        first, last = places.start_s[piece.row] * fps, places.end_s[piece.row] * fps
        if np.isfinite(first) and first > -0.5 and round(last - first) == len(piece):
            said[piece.number] = (places.files[places.file[piece.row]], round(first))
    if len(said) < len(result.pieces) or _overlap(result.pieces, said):
        said = _counted(result.pieces, camera, opened) or said
    for piece in list(result.pieces):
        if piece.number in said:
            piece.videos[camera] = said[piece.number]
        else:
            result.lose([piece.number], f"where its frames of {camera} are is not known")


def _overlap(pieces: list[Piece], said: dict[int, tuple[str, int]]) -> bool:
    spans = sorted((*said[p.number], len(p)) for p in pieces if p.number in said)
    return any(a[0] == b[0] and a[1] + a[2] > b[1] for a, b in itertools.pairwise(spans))


def _counted(pieces: list[Piece], camera: str, opened: Videos) -> dict[int, tuple[str, int]]:
    """Pieces laid one after the other into the camera's files; empty unless every file is filled exactly.

    The last file may hold more than the pieces: an episode whose rows were lost follows there.
    """
    mine = [video for video in opened.values() if video.camera == camera and video.timeline is not None]
    places, ordered, at = {}, sorted(pieces, key=lambda piece: piece.number), 0
    for k, video in enumerate(mine):
        first, whole = 0, video.num_whole
        while at < len(ordered) and first + len(ordered[at]) <= whole:
            places[ordered[at].number] = (video.name, first)
            first += len(ordered[at])
            at += 1
        if first != whole and k < len(mine) - 1 and at < len(ordered):
            return {}
    return places


def _check(folder: Folder, result: Salvage, camera: str, opened: Videos, how: str) -> None:
    assert folder.fps is not None
    bad: dict[str, np.ndarray] = {}
    for piece in list(result.pieces):
        name, first = piece.videos[camera]
        video, last = opened.get(name), first + len(piece)
        if video is None or video.timeline is None:
            state = "is missing" if video is None else "cannot be opened"
            result.lose([piece.number], f"{name} {state}")
        elif last > video.num_whole:
            result.lose([piece.number], f"{name} has {video.num_whole} whole frames, this one needs {last}")
        elif how != "none":
            if name not in bad:
                bad[name] = decode.damaged_frames(folder.root, video, sample=how == "sample")
            if ((bad[name] >= first) & (bad[name] < last)).any():
                result.lose([piece.number], f"{name}: frames of it cannot be decoded")


def copy_footage(folder: Folder, pieces: list[Piece], opened: Videos, *, camera: str, out: Path) -> dict:
    """Write a camera's files below `out`; returns (file number, first frame) of each piece by its number.

    A file that is whole and needed whole is copied. Otherwise the frames of its pieces are copied, packet by
    packet, into a new one; where a piece does not begin with a key frame the whole file is copied after all.
    """
    assert folder.fps is not None
    by_file: dict[str, list[Piece]] = {}
    for piece in pieces:
        by_file.setdefault(piece.videos[camera][0], []).append(piece)
    places: dict[int, tuple[int, int]] = {}
    for k, (name, mine) in enumerate(by_file.items()):
        video, target = opened[name], out / f"file-{k:03d}.mp4"
        mine = sorted(mine, key=lambda piece: piece.videos[camera][1])
        spans = [(piece.videos[camera][1], len(piece)) for piece in mine]
        target.parent.mkdir(parents=True, exist_ok=True)
        if _is_whole(video, folder.fps, sum(length for _, length in spans)) or not _can_cut(video, spans):
            shutil.copyfile(folder.root / name, target)
            places |= {piece.number: (k, first) for piece, (first, _) in zip(mine, spans, strict=True)}
        else:
            copy_frames(folder.root / name, target, video=video, spans=spans, fps=folder.fps)
            begins = np.cumsum([0, *(length for _, length in spans)]).tolist()
            places |= {piece.number: (k, begin) for piece, begin in zip(mine, begins, strict=False)}
        files.sync_file(target)
    return places


def _is_whole(video: Video, fps: float, wanted: int) -> bool:
    assert video.timeline is not None
    count = len(video.timeline)
    return video.num_whole == count == wanted and not len(
        video.timeline.off_beat(fps=fps, tolerance_s=TOLERANCE_S)
    )


def _can_cut(video: Video, spans: list[tuple[int, int]]) -> bool:
    assert video.timeline is not None
    return all(video.timeline.is_key[first] for first, _ in spans)


def copy_frames(source: Path, out: Path, *, video: Video, spans: list[tuple[int, int]], fps: float) -> None:
    """Copy spans of frames, (first, length), end to end without decoding; frame k is shown at k / fps.

    Raises:
        DatasetError: the container gives fewer packets than its table lists.
    """
    assert video.timeline is not None
    pts, begins = video.timeline.pts, np.cumsum([0, *(length for _, length in spans)])
    rate = Fraction(fps).limit_denominator(100_000)
    with av.open(str(source)) as opened, av.open(str(out), "w", options={"movflags": "faststart"}) as target:
        template = opened.streams.video[0]
        stream = target.add_stream_from_template(template, opaque=True)
        stream.time_base = template.time_base
        packets = list(_wanted(opened, template, pts, spans, begins))
        if len(packets) != begins[-1]:
            raise DatasetError(f"{source} gave {len(packets)} of {begins[-1]} frames.")
        unit = 1 / rate / template.time_base
        late = max(order - number for order, (_, number) in enumerate(packets))  # how far stored out of order
        for order, (packet, number) in enumerate(packets):
            packet.pts, packet.dts = round(number * unit), round((order - max(late, 0)) * unit)
            packet.duration = round(unit)
            packet.stream = stream
            target.mux(packet)


def _wanted(
    opened: Any, template: Any, pts: np.ndarray, spans: list[tuple[int, int]], begins: np.ndarray
) -> Iterator[tuple[Any, int]]:
    """(packet, new frame number) of the wanted frames in the order they are stored."""
    new = np.full(len(pts), -1)
    for (first, length), begin in zip(spans, begins, strict=False):
        new[first : first + length] = begin + np.arange(length)
    try:
        for packet in opened.demux(template):
            if packet.pts is None:
                continue
            k = int(np.searchsorted(pts, packet.pts))
            if k < len(pts) and pts[k] == packet.pts and new[k] >= 0:
                yield packet, int(new[k])
    except av.FFmpegError:
        return  # the file ends here; the caller counts
