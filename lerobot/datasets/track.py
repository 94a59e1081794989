"""One camera's video read in order: frames by their place in the order they are shown.

    container (a path, or a file read by ranges) -> sample table -> seek once -> frames, one after another

Without a usable table (pictures stored out of order) frame n is the one shown at n / fps.
Shapes: N frames of the file, C H W picture (uint8 RGB, or uint16 levels with C = 1 for depth).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from lerobot.core.errors import DatasetError
from lerobot.datasets.ranges import RangeSource, RemoteFile

READ_BYTES = 64 * 1024  # asked from a remote file at a time
FAR_FRAMES = 4  # frames that are decoded and dropped rather than sought past


@dataclass(frozen=True, kw_only=True)
class SampleTable:
    """The frames of a file whose pictures are stored in the order they are shown."""

    pts: np.ndarray  # (N,) ascending
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
        key = np.maximum.accumulate(np.where(is_key, np.arange(len(pts)), 0))
        return cls(pts=pts.copy(), key=key, start=start.copy(), stop=start + size)


class VideoTrack:
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
        self.name, self.fps, self.tolerance_s, self.is_depth = name, fps, tolerance_s, is_depth
        self._file = source.open(name)
        try:
            self._container = av.open(self._file, buffer_size=READ_BYTES)
            self._stream = self._container.streams.video[0]
        except (av.FFmpegError, IndexError) as error:
            raise DatasetError(f"{name} is not a video that can be read ({error}).") from error
        # Threads come from outside: several tracks are read at a time.
        self._stream.thread_type, self._stream.codec_context.thread_count = "SLICE", 1
        if name not in tables:
            tables[name] = SampleTable.of(self._stream)
        self._table = tables[name]
        self._frames: Iterator[av.VideoFrame] | None = None
        self._at = -1  # number of the last decoded frame
        self._convert = VideoReformatter()

    def read(self, numbers: Sequence[int]) -> Iterator[np.ndarray]:
        """The picture (C, H, W) of each of the ascending frame numbers.

        Raises:
            DatasetError: there is no such frame, its time is off by more than the tolerance, or it cannot
                be decoded.
        """
        self._announce(numbers)
        layout = "gray12le" if self.is_depth else "rgb24"
        for number in numbers:
            try:
                frame = self._decode(int(number))
            except av.FFmpegError as error:
                raise DatasetError(f"{self.name}: frame {number} cannot be decoded ({error}).") from error
            pixels = self._convert.reformat(frame, format=layout).to_ndarray()
            yield pixels[None] if self.is_depth else pixels.transpose(2, 0, 1)  # a view: copied when stacked

    def close(self) -> None:
        """Release the file."""
        self._frames = None
        self._container.close()

    def _announce(self, numbers: Sequence[int]) -> None:
        """Tell a remote file which bytes these frames need."""
        if isinstance(self._file, RemoteFile) and self._table is not None and len(numbers):
            first, last = min(int(numbers[0]), len(self._table.pts) - 1), int(numbers[-1])
            needed = slice(self._table.key[first], last + 1)
            self._file.expect(int(self._table.start[needed].min()), int(self._table.stop[needed].max()))

    def _decode(self, number: int) -> av.VideoFrame:
        wanted, back = self._pts(number), 0
        if self._should_seek(number):
            self._seek(wanted)
        while True:
            assert self._frames is not None
            frame = next(self._frames, None)
            if frame is None:
                self._frames, self._at = None, -1
                raise self._missing(number)
            if frame.pts == wanted or (self._table is None and self._number_at(frame.pts) == number):
                self._at = number
                self._check_time(number, frame.pts)
                return frame
            if frame.pts > wanted:  # landed on a key frame behind the wanted frame, or the frame is missing
                back = 2 * back + 4
                if back > 4 * (number + 8):
                    raise self._missing(number)
                self._seek(self._pts(max(number - back, 0)))

    def _should_seek(self, number: int) -> bool:
        if self._frames is None or number <= self._at:
            return True
        key = self._table.key[number] if self._table is not None else number
        return key > self._at + FAR_FRAMES

    def _seek(self, pts: int) -> None:
        self._container.seek(pts, stream=self._stream, backward=True)
        self._frames = self._container.decode(self._stream)

    def _pts(self, number: int) -> int:
        if self._table is None:
            return round(number / self.fps / self._stream.time_base)
        if number >= len(self._table.pts):
            raise self._missing(number)
        return int(self._table.pts[number])

    def _number_at(self, pts: int) -> int:
        return round(float(pts * self._stream.time_base) * self.fps)

    def _check_time(self, number: int, pts: int) -> None:
        seconds = float(pts * self._stream.time_base)
        if abs(seconds - number / self.fps) > self.tolerance_s:
            raise DatasetError(
                f"{self.name}: frame {number} is at {seconds:.6f} s, expected {number / self.fps:.6f} s "
                f"within {self.tolerance_s} s. Is fps={self.fps} in meta/info.json right?"
            )

    def _missing(self, number: int) -> DatasetError:
        return DatasetError(
            f"{self.name} has no frame {number} ({number / self.fps:.3f} s). Run lerobot-doctor on it."
        )
