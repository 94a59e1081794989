"""Frames out of mp4 files, by number: open decoders are shared by threads, key frame groups decode once.

    [(file, frame number)] -> sorted by file and number -> seek once per group -> (N, C, H, W)

A frame's number is round(pts * fps) and its pts must be number / fps within the tolerance.
Shapes: N frames, C H W picture (uint8 RGB, or uint16 levels with C = 1 for depth).
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from lerobot.core.errors import DatasetError

CACHE_SIZE_VARIABLE = "LEROBOT_VIDEO_DECODER_CACHE_SIZE"
DEFAULT_CACHE_SIZE = 100
NEAR_FRAMES = 8  # without an index of key frames: this near ahead, decoding on is cheaper than seeking


class VideoReader:
    """One open mp4 file. Not for two threads at a time; see `VideoPool`."""

    def __init__(self, path: Path, *, fps: float, tolerance_s: float, is_depth: bool = False) -> None:
        if not path.is_file():
            raise DatasetError(
                f"{path} is missing. Load the dataset with force_cache_sync=True to download it again."
            )
        try:
            self.container = av.open(str(path))
            self.stream = self.container.streams.video[0]
        except (av.FFmpegError, IndexError) as error:
            raise DatasetError(f"{path} is not a video that can be read ({error}).") from error
        self.stream.thread_type, self.stream.codec_context.thread_count = (
            "SLICE",
            1,
        )  # threads come from outside
        self.path, self.fps, self.tolerance_s, self.is_depth = path, fps, tolerance_s, is_depth
        self.index = getattr(self.stream, "index_entries", None)
        self._frames: Iterator[av.VideoFrame] | None = None  # decoding goes on from here
        self._at = -1  # number of the last decoded frame
        self._convert = VideoReformatter()  # kept: setting one up costs more than fifty conversions

    def read(self, numbers: Sequence[int], put: Callable[[int, np.ndarray], None]) -> None:
        """Call `put(number, picture (C, H, W))` for each of the ascending frame numbers.

        Raises:
            DatasetError: the file has no such frame, or its time is off by more than the tolerance.
        """
        layout = "gray12le" if self.is_depth else "rgb24"
        for number in numbers:
            pixels = self._convert.reformat(self._decode(number), format=layout).to_ndarray()
            put(number, pixels[None] if self.is_depth else pixels.transpose(2, 0, 1))  # (C, H, W)

    def close(self) -> None:
        """Release the file."""
        self._frames = None
        self.container.close()

    def _decode(self, number: int) -> av.VideoFrame:
        back = 0
        if self._should_seek(number):
            self._seek(number)
        while True:
            assert self._frames is not None
            frame = next(self._frames, None)
            if frame is None:
                self._at = -1
                self._frames = None
                raise DatasetError(
                    f"{self.path} has no frame {number} ({number / self.fps:.3f} s); it ends before."
                )
            seconds = float(frame.pts * self.stream.time_base)
            self._at = round(seconds * self.fps)
            if self._at == number:
                self._check_time(number, seconds)
                return frame
            if self._at > number:  # landed on a key frame behind the wanted frame, or the frame is missing
                back = 2 * back + 4
                if back > 4 * (number + 8):
                    raise DatasetError(f"{self.path} has no frame {number} ({number / self.fps:.3f} s).")
                self._seek(number - back)

    def _check_time(self, number: int, seconds: float) -> None:
        if abs(seconds - number / self.fps) > self.tolerance_s:
            raise DatasetError(
                f"{self.path}: frame {number} is at {seconds:.6f} s, expected {number / self.fps:.6f} s "
                f"within {self.tolerance_s} s. Is fps={self.fps} in meta/info.json right?"
            )

    def _should_seek(self, number: int) -> bool:
        if self._frames is None or number <= self._at:
            return True
        if self.index is None:
            return number > self._at + NEAR_FRAMES
        key = self.index.search_timestamp(self._pts(number))
        return key >= 0 and self.index[key].timestamp > self._pts(self._at)

    def _seek(self, number: int) -> None:
        self.container.seek(max(self._pts(number), 0), stream=self.stream, backward=True)
        self._frames = self.container.decode(self.stream)

    def _pts(self, number: int) -> int:
        return int(round(number / self.fps / self.stream.time_base))


class VideoPool:
    """Open readers, at most `size` idle ones; each is used by one thread at a time, a file may have several.

    A forked process starts with an empty pool, since the parent's readers share their file positions with it.
    It keeps them untouched: closing one would wait for decoder threads that only the parent has.
    """

    def __init__(self, *, fps: float, tolerance_s: float, size: int | None = None) -> None:
        self.fps, self.tolerance_s = fps, tolerance_s
        self.size = cache_size() if size is None else size
        self._start()

    def __getstate__(self) -> dict:
        return {"fps": self.fps, "tolerance_s": self.tolerance_s, "size": self.size}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._start()

    def _start(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._idle: OrderedDict[tuple[Path, int], VideoReader] = OrderedDict()
        self._count = 0

    def read(
        self,
        path: Path,
        numbers: Sequence[int],
        put: Callable[[int, np.ndarray], None],
        *,
        is_depth: bool = False,
    ) -> None:
        """Decode the distinct frame `numbers` of one file; see `VideoReader.read`."""
        if self._process != os.getpid():
            self._of_parent = self._idle
            self._start()
        reader = self._take(path) or VideoReader(
            path, fps=self.fps, tolerance_s=self.tolerance_s, is_depth=is_depth
        )
        try:
            reader.read(sorted(set(numbers)), put)
        except BaseException:
            reader.close()
            raise
        self._give(path, reader)

    def close(self) -> None:
        """Close every idle reader."""
        with self._lock:
            idle, self._idle = self._idle, OrderedDict()
        for reader in idle.values():
            reader.close()

    def _take(self, path: Path) -> VideoReader | None:
        with self._lock:
            key = next((key for key in reversed(self._idle) if key[0] == path), None)
            return self._idle.pop(key) if key else None

    def _give(self, path: Path, reader: VideoReader) -> None:
        surplus = []
        with self._lock:
            self._count += 1
            self._idle[path, self._count] = reader
            while len(self._idle) > self.size:
                surplus.append(self._idle.popitem(last=False)[1])
        for old in surplus:
            old.close()


def cache_size() -> int:
    """How many readers stay open: the environment's word ("none" or "-1" for no limit), else 100."""
    text = os.environ.get(CACHE_SIZE_VARIABLE, "").strip().lower()
    if not text:
        return DEFAULT_CACHE_SIZE
    if text in ("none", "-1"):
        return 1_000_000
    if not text.isdigit():
        raise DatasetError(f"{CACHE_SIZE_VARIABLE}={text!r}: expected a whole number, 'none' or '-1'.")
    return int(text)
