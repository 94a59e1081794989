"""Video files: can they be opened, are all frames there, where the rows look for them, as declared.

    mp4 --container, sample table--> timeline, bytes that are there --against--> the episode table

Shapes: E episodes of a file, M frames of it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

from lerobot.core.errors import DatasetError
from lerobot.datasets.doctor.finding import Finding, finding, numbered
from lerobot.datasets.doctor.folder import Folder
from lerobot.datasets.timeline import Timeline, read_timeline

TOLERANCE_S = 1e-4
VIDEO_ERRORS = (av.FFmpegError, IndexError, AttributeError, UnicodeDecodeError)  # of a damaged header
CANONICAL = {"libdav1d": "av1", "libaom-av1": "av1", "libsvtav1": "av1", "libx264": "h264", "libx265": "hevc"}


@dataclass(kw_only=True)
class Video:
    """One mp4 file of a camera, and the episodes that the table places in it."""

    name: str
    camera: str
    episodes: np.ndarray  # (E,) positions in the episode table, by their first frame
    numbers: np.ndarray  # (E,) episode_index of each
    lengths: np.ndarray  # (E,) frames
    first: np.ndarray  # (E,) number of each one's first frame in the file
    timeline: Timeline | None = None
    num_whole: int = 0  # frames whose bytes are all in the file, counted from the beginning
    codec: str = ""
    size: tuple[int, int] = (0, 0)  # height, width
    pix_fmt: str = ""

    @property
    def last(self) -> np.ndarray:
        """(E,) number after each one's last frame."""
        return self.first + self.lengths


def expected_video(folder: Folder, camera: str, number: int) -> Video:
    """What the episode table expects in a camera's file of this number."""
    table = folder.episodes
    assert table is not None and folder.fps is not None
    places = table.videos[camera]
    here = places.of_file(number)
    first = np.nan_to_num(np.round(places.start_s[here] * folder.fps), nan=-1).astype(np.int64)
    order = np.argsort(first, kind="stable")
    here = here[order]
    return Video(
        name=places.files[number],
        camera=camera,
        episodes=here,
        numbers=table.number[here],
        lengths=table.lengths[here],
        first=first[order],
    )


def open_video(root: Path, video: Video) -> Iterator[Finding]:
    """Fill what the container says; a finding when it cannot be opened."""
    path = root / video.name
    try:
        video.timeline = read_timeline(path)
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            context = stream.codec_context
            video.codec = CANONICAL.get(context.name, context.name)
            video.size, video.pix_fmt = (context.height, context.width), str(context.pix_fmt)
            video.num_whole = _whole_frames(stream, len(video.timeline), path.stat().st_size)
    except (DatasetError, *VIDEO_ERRORS) as error:
        text = f"{path.stat().st_size} bytes, {str(error).removeprefix(str(path)).strip()}".rstrip(".")
        yield finding(
            "video.unreadable", video.name, found=text, expected="an mp4 file", episodes=video.numbers
        )


def _whole_frames(stream: Any, count: int, size: int) -> int:
    """How many frames, in the order they are shown, come before the first whose bytes are cut off."""
    entries = stream.index_entries
    if not len(entries):
        return count
    ends = np.array([[entry.timestamp, entry.pos + entry.size] for entry in entries], dtype=np.int64)
    ends = ends[np.argsort(ends[:, 0], kind="stable")]
    cut = np.flatnonzero(ends[:, 1] > size)
    return min(count, int(cut[0])) if len(cut) else count


def check_frames(fps: float, video: Video) -> Iterator[Finding]:
    """Whether each episode's frames are there, at their times, beginning with a key frame."""
    timeline = video.timeline
    if timeline is None:
        return
    there = min(video.num_whole, len(timeline))
    short = np.flatnonzero((video.last > there) | (video.first < 0))
    if len(short):
        cut = f"; the file is cut off after frame {there}" if video.num_whole < len(timeline) else ""
        text = f"{there} frames ({there / fps:.3f} s){cut}"
        yield finding(
            "video.frames",
            video.name,
            found=text,
            expected=f"{video.last.max()} frames for {numbered(video.numbers[short])}",
            episodes=video.numbers[short],
        )
    elif len(video.last) and len(timeline) > video.lengths.sum():
        text = f"{len(timeline)} frames"
        expected = f"{video.lengths.sum()} frames of its episodes"
        yield finding("video.unclaimed", video.name, found=text, expected=expected, remedy=NOTHING)
    yield from _check_beat(fps, video, timeline)
    starts = video.first[(video.first >= 0) & (video.first < there)]
    soft = starts[~timeline.is_key[starts]]
    if len(soft):
        text = f"frame {soft[0]} is no key frame, {len(soft)} such episodes"
        yield finding(
            "video.key",
            video.name,
            found=text,
            expected="a key frame at each episode's start",
            remedy="nothing must be done to train; cutting this episode out encodes it again",
            episodes=video.numbers[np.isin(video.first, soft)],
        )


NOTHING = "nothing must be done; edits of the dataset leave them out"


def _check_beat(fps: float, video: Video, timeline: Timeline) -> Iterator[Finding]:
    off = timeline.off_beat(fps=fps, tolerance_s=TOLERANCE_S)
    claimed = np.zeros(len(timeline), dtype=bool)
    for first, last in zip(np.clip(video.first, 0, None), np.clip(video.last, 0, None), strict=True):
        claimed[first:last] = True
    off = off[claimed[off]]
    if not len(off):
        return
    k = int(off[0])
    touched = [
        n for n, a, b in zip(video.numbers, video.first, video.last, strict=True) if _any_in(off, a, b)
    ]
    step_s = float(np.median(np.diff(timeline.seconds))) if len(timeline) > 1 else 0.0
    shown = f"; this file has {1 / step_s:.3f} frames per second" if step_s > 0 else ""
    yield finding(
        "video.times",
        video.name,
        found=f"frame {k} is shown at {timeline.seconds[k]:.6f} s, {len(off)} such frames{shown}",
        expected=f"{k / fps:.6f} s, frame {k} at fps={fps:g}",
        episodes=touched,
    )


def _any_in(sorted_numbers: np.ndarray, first: int, last: int) -> bool:
    return bool(np.searchsorted(sorted_numbers, first) < np.searchsorted(sorted_numbers, last))


def check_ranges(folder: Folder, camera: str) -> Iterator[Finding]:
    """from_timestamp and to_timestamp of a camera: the episode's length apart, on the beat."""
    table, fps = folder.episodes, folder.fps
    assert table is not None and fps is not None
    places = table.videos[camera]
    first, last = places.start_s * fps, places.end_s * fps
    with np.errstate(invalid="ignore"):
        is_right = (np.round(last - first) == table.lengths) & (np.abs(first - np.round(first)) < 0.01)
        is_right &= first > -0.5
    wrong = np.flatnonzero(~is_right & (places.file >= 0))
    if len(wrong):
        k = int(wrong[0])
        yield finding(
            "video.range",
            table.table_files[int(table.table_file[k])],
            found=f"{camera!r} of {numbered(table.number[wrong])} from {places.start_s[k]:.6f} s to "
            f"{places.end_s[k]:.6f} s",
            expected=f"{table.lengths[k]} frames, {table.lengths[k] / fps:.6f} s, from a multiple of "
            f"1/{fps:g} s",
            episodes=table.number[wrong],
        )


def check_overlap(video: Video, table_file: str) -> Iterator[Finding]:
    """No two episodes may claim the same frames."""
    over = np.flatnonzero(video.first[1:] < video.last[:-1])
    if len(over):
        k = int(over[0])
        one, other = video.numbers[k], video.numbers[k + 1]
        yield finding(
            "video.overlap",
            table_file,
            found=f"episode {one} has frames {video.first[k]} to {video.last[k]} of {video.name}, episode "
            f"{other} begins at {video.first[k + 1]}",
            expected="episodes one after the other",
            episodes=np.unique(video.numbers[[*over, *(over + 1)]]),
        )


def check_format(folder: Folder, video: Video) -> Iterator[Finding]:
    """Size, codec and pixel format against meta/info.json."""
    if video.timeline is None:
        return
    feature = folder.features[video.camera]
    info = feature.get("info") or feature.get("video_info") or {}
    names = feature.get("names")
    shape = list(feature["shape"])
    is_first = isinstance(names, list) and len(names) == 3 and str(names[0]).startswith("channel")
    declared = tuple(shape[1:] if is_first or (shape[0] in (1, 3) and shape[2] not in (1, 3)) else shape[:2])
    if video.size != declared:
        yield finding(
            "video.format",
            video.name,
            found=f"pictures of {video.size[0]} x {video.size[1]} (height x width)",
            expected=f"{declared[0]} x {declared[1]}, the shape of {video.camera!r} in meta/info.json",
            episodes=video.numbers,
        )
    for key, value in (("video.codec", video.codec), ("video.pix_fmt", video.pix_fmt)):
        said = info.get(key)
        if isinstance(said, str) and CANONICAL.get(said, said) != value:
            yield finding(
                "video.info", video.name, found=f"{key} {value}", expected=f"{said} of meta/info.json"
            )
