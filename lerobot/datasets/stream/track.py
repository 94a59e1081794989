"""One camera's video read in order: frames of an episode by their place in the order they are shown.

    container (a path, or a file read by ranges) -> sample table -> seek once -> frames, one after another

The episode's first frame is the one nearest to from_timestamp; the others follow one by one. Without a usable
table (pictures stored out of order) frame k is the one shown at from_timestamp + k / fps.
Shapes: N frames of the file, C H W picture (uint8 RGB, or uint16 levels with C = 1 for depth).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from lerobot.core.errors import DatasetError
from lerobot.datasets.converter import FrameConverter
from lerobot.datasets.stream.ranges import RangeSource, RemoteFile
from lerobot.datasets.video import VideoReader

READ_BYTES = 64 * 1024  # asked from a remote file at a time
FAR_FRAMES = 4  # frames that are decoded and dropped rather than sought past


@dataclass(frozen=True, kw_only=True)
class SampleTable:
    """The frames of a file whose pictures are stored in the order they are shown."""

    pts: np.ndarray  # (N,) ascending
    seconds: np.ndarray  # (N,)
    key: np.ndarray  # (N,) number of the key frame from which each is decoded
    start: np.ndarray  # (N,) first byte
    stop: np.ndarray  # (N,) one past the last byte

    @classmethod
    def of(cls, stream: av.VideoStream) -> "SampleTable | None":
        """The stream's table; None where it does not tell when each picture is shown."""
        entries = stream.index_entries
        if stream.codec_context.has_b_frames or not len(entries) or len(entries) != stream.frames:
            return None
        table = np.array([(e.timestamp, e.is_keyframe, e.pos, e.size) for e in entries], dtype=np.int64)
        pts, is_key, start, size = table.T
        if (np.diff(pts) <= 0).any() or not is_key[0]:
            return None
        return cls(
            pts=pts.copy(),
            seconds=pts * float(stream.time_base),
            key=np.maximum.accumulate(np.where(is_key, np.arange(len(pts)), 0)),
            start=start.copy(),
            stop=start + size,
        )

    def nearest(self, seconds: float) -> int:
        """The frame shown nearest to a time."""
        after = int(np.clip(np.searchsorted(self.seconds, seconds), 1, max(1, len(self.pts) - 1)))
        if len(self.pts) == 1:
            return 0
        return after - (seconds - self.seconds[after - 1] <= self.seconds[after] - seconds)


class VideoTrack(VideoReader):
    """One open video. For one thread at a time.

    Args:
        name: the file, below the dataset's root.
        tables: tables of files that were open before, by name; filled here.

    Raises:
        DatasetError: the file is missing or no video.
    """

    def __init__(
        self,
        source: RangeSource,
        name: Path,
        *,
        fps: float,
        tolerance_s: float,
        is_depth: bool,
        tables: dict[Path, SampleTable | None],
    ) -> None:
        self.path, self.fps, self.tolerance_s, self.is_depth = name, fps, tolerance_s, is_depth
        self._file = source.open(name)
        try:
            self.container = av.open(self._file, buffer_size=READ_BYTES)
            self.stream = self.container.streams.video[0]
            if self.stream.codec_context is None:
                raise DatasetError(f"{name} is not a video that can be read (its codec is not known).")
        except (av.FFmpegError, IndexError, UnicodeDecodeError) as error:  # damaged texts too
            raise DatasetError(f"{name} is not a video that can be read ({error}).") from error
        # Threads come from outside: several tracks are read at a time.
        self.stream.thread_type, self.stream.codec_context.thread_count = "SLICE", 1
        if name not in tables:
            tables[name] = SampleTable.of(self.stream)
        self._table = tables[name]
        self._frames: Iterator[av.VideoFrame] | None = None
        self._last: int | None = None  # pts of the last decoded frame
        self._convert = FrameConverter()

    def frames(self, start_s: float, offsets: Sequence[int] | np.ndarray) -> Iterator[np.ndarray]:
        """The picture (C, H, W) of each of the ascending frame numbers of the episode that begins at start_s.

        Raises:
            DatasetError: there is no such frame, its time is off by more than the tolerance, or it cannot
                be decoded.
        """
        first = self._table.nearest(start_s) if self._table is not None else 0
        self._announce([first + int(k) for k in offsets])
        for k in offsets:
            expected_s = start_s + int(k) / self.fps
            try:
                frame = self._find(first + int(k), expected_s)
            except av.FFmpegError as error:
                raise DatasetError(
                    f"{self.path}: the frame at {expected_s:.3f} s cannot be decoded ({error})."
                ) from error
            picture = np.empty((1 if self.is_depth else 3, frame.height, frame.width), self._dtype)
            if self.is_depth:
                picture[0] = self._convert(frame, "gray12le").to_ndarray()
            else:
                self._write_colours(frame, picture)
            yield picture

    @property
    def _dtype(self) -> type:
        return np.uint16 if self.is_depth else np.uint8

    def _announce(self, numbers: list[int]) -> None:
        """Tell a remote file which bytes these frames need."""
        if isinstance(self._file, RemoteFile) and self._table is not None and numbers:
            first, last = (min(n, len(self._table.pts) - 1) for n in (numbers[0], numbers[-1]))
            needed = slice(self._table.key[first], last + 1)
            self._file.expect(int(self._table.start[needed].min()), int(self._table.stop[needed].max()))

    def _find(self, number: int, expected_s: float) -> av.VideoFrame:
        """The frame, going on from the last one or from a key frame before it."""
        target, back = self._target(number, expected_s), 0
        if self._should_seek(number, target):
            self._seek_to(target)
        room = 0 if self._table is not None else round(0.5 / self.fps / self.stream.time_base)
        while True:
            frame = next(self._frames, None) if self._frames is not None else None
            if frame is None:
                self._frames = self._last = None
                raise self._missing(expected_s)
            self._last = frame.pts
            if abs(frame.pts - target) <= room:
                self._check_time(frame.pts, expected_s)
                return frame
            if frame.pts > target:  # landed on a key frame behind the wanted frame, or the frame is missing
                back = 2 * back + 4
                if back > 4 * (expected_s * self.fps + 8):
                    raise self._missing(expected_s)
                self._seek_to(max(target - round(back / self.fps / self.stream.time_base), 0))

    def _target(self, number: int, expected_s: float) -> int:
        if self._table is None:
            return round(expected_s / self.stream.time_base)
        if number >= len(self._table.pts):
            raise self._missing(expected_s)
        return int(self._table.pts[number])

    def _should_seek(self, number: int, target: int) -> bool:
        if self._frames is None or self._last is None or target <= self._last:
            return True
        if self._table is None:
            return target - self._last > FAR_FRAMES / self.fps / self.stream.time_base
        return self._table.key[number] > int(np.searchsorted(self._table.pts, self._last)) + FAR_FRAMES

    def _seek_to(self, pts: int) -> None:
        self.container.seek(pts, stream=self.stream, backward=True)
        self._frames = self.container.decode(self.stream)

    def _check_time(self, pts: int, expected_s: float) -> None:
        seconds = float(pts * self.stream.time_base)
        if abs(seconds - expected_s) > self.tolerance_s:
            raise DatasetError(
                f"{self.path}: a frame is at {seconds:.6f} s, expected {expected_s:.6f} s within "
                f"{self.tolerance_s} s. Is fps={self.fps} in meta/info.json right? Run lerobot-doctor, or "
                "give a larger tolerance_s."
            )

    def _missing(self, expected_s: float) -> DatasetError:
        return DatasetError(
            f"{self.path} has no frame at {expected_s:.3f} s. Run lerobot-doctor on the dataset."
        )
