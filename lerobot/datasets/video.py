"""Frames out of mp4 files, by number: open decoders are shared by threads, key frame groups decode once.

    {frame number: where to put it} --ascending--> seek once per group --> planes copied into the batch

Shapes: C H W picture (uint8 RGB, or uint16 levels with C = 1 for depth).
"""

import os
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path

import av
import numpy as np

from lerobot.core.errors import DatasetError
from lerobot.datasets.converter import FrameConverter
from lerobot.datasets.timeline import Timeline

CACHE_SIZE_VARIABLE = "LEROBOT_VIDEO_DECODER_CACHE_SIZE"
DEFAULT_CACHE_SIZE = 100
DEFAULT_CACHE_BYTES = 256 * 1024**2
UNLIMITED = sys.maxsize
REFERENCE_FRAMES = 12  # pictures that a decoder holds, about
BYTES_PER_ENTRY = 64  # of the file's frame table in memory, per frame
DECODER_BYTES = 1024**2  # besides pictures and table
PLANAR_FORMATS = ("yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p")
_is_exact: dict[tuple, bool] = {}  # per kind of picture, whether planes come out as interleaved pixels do


class VideoReader:
    """One open mp4 file. Not for two threads at a time; see `VideoPool`."""

    def __init__(self, path: Path, timeline: Timeline, *, is_depth: bool = False) -> None:
        if not path.is_file():
            raise DatasetError(
                f"{path} is missing. Load the dataset with force_cache_sync=True to download it again."
            )
        try:
            self.container = av.open(str(path))
            self.stream = self.container.streams.video[0]
        except (av.FFmpegError, IndexError) as error:
            raise DatasetError(f"{path} is not a video that can be read ({error}).") from error
        self.stream.thread_type = "SLICE"
        self.stream.codec_context.thread_count = 1  # threads come from outside
        self.path, self.timeline, self.is_depth = path, timeline, is_depth
        self.num_decoded = 0
        self._frames: Iterator[av.VideoFrame] | None = None  # decoding goes on from here
        self._at = -1  # number of the last decoded frame
        self._convert = FrameConverter()  # kept: setting one up costs more than fifty conversions
        context, bytes_per_pixel = self.stream.codec_context, 3 if is_depth else 1.5
        pictures = int(REFERENCE_FRAMES * bytes_per_pixel * context.width * context.height)
        self.num_bytes = DECODER_BYTES + pictures + BYTES_PER_ENTRY * len(timeline)  # about

    def read(self, wanted: Mapping[int, np.ndarray]) -> None:
        """Write the pictures of these frames into the arrays (C, H, W) given for them.

        Raises:
            DatasetError: a frame cannot be decoded, or has another size.
        """
        for number in sorted(wanted):
            frame, place = self._decode(number), wanted[number]
            if (frame.height, frame.width) != place.shape[1:]:
                raise DatasetError(
                    f"{self.path} has pictures of {frame.height} x {frame.width}, meta/info.json declares "
                    f"{place.shape[1]} x {place.shape[2]} (height x width)."
                )
            if self.is_depth:
                place[0] = self._convert(frame, "gray12le").to_ndarray()
            else:
                self._write_colours(frame, place)

    def close(self) -> None:
        """Release the file."""
        self._frames = None
        self.container.close()

    def _write_colours(self, frame: av.VideoFrame, place: np.ndarray) -> None:
        if self._has_exact_planes(frame):
            planes = self._planes(frame)
            for channel, plane in zip((1, 2, 0), planes, strict=True):
                place[channel] = plane
        else:
            pixels = self._pixels(frame)
            place[...] = pixels.transpose(2, 0, 1)  # (C, H, W)

    def _has_exact_planes(self, frame: av.VideoFrame) -> bool:
        """Whether converting straight to planes, three times as fast, gives the very same pixels.

        It does for sizes that fill the converter's vector units; the first picture of each kind proves it.
        """
        kind = (frame.format.name, frame.width, frame.height, frame.colorspace, frame.color_range)
        if kind not in _is_exact:
            is_exact = frame.format.name in PLANAR_FORMATS and frame.width % 16 == frame.height % 2 == 0
            if is_exact:
                pixels, planes = self._pixels(frame), self._planes(frame)
                is_exact = all(
                    np.array_equal(pixels[..., channel], plane)
                    for channel, plane in zip((1, 2, 0), planes, strict=True)
                )
            _is_exact[kind] = is_exact
        return _is_exact[kind]

    def _pixels(self, frame: av.VideoFrame) -> np.ndarray:
        """(H, W, C) red, green, blue."""
        return self._convert(frame, "rgb24").to_ndarray()

    def _planes(self, frame: av.VideoFrame) -> list[np.ndarray]:
        """(H, W) each: green, blue, red."""
        planar = self._convert(frame, "gbrp")
        return [
            np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[
                : frame.height, : frame.width
            ]
            for plane in planar.planes
        ]

    # --- decoding

    def _decode(self, number: int) -> av.VideoFrame:
        """The frame of this number, going on from the last one where no key frame lies between."""
        wanted, key = int(self.timeline.pts[number]), self._key_before(number)
        if self._frames is None or number <= self._at or key > self._at + 1:
            self._seek(key)
        while True:
            frame = self._next(number)
            if frame.pts == wanted:
                self._at = number
                return frame
            if frame.pts > wanted:  # decoding began too late: seeking goes by the order of decoding
                if key < 0:
                    raise DatasetError(f"{self.path}: {self._words(number)} cannot be decoded.")
                key = self._key_before(key - 1) if key else -1
                self._seek(key)

    def _next(self, number: int) -> av.VideoFrame:
        assert self._frames is not None
        try:
            frame = next(self._frames, None)
        except av.FFmpegError as error:
            raise DatasetError(f"{self.path}: {self._words(number)} cannot be decoded ({error}).") from error
        if frame is None:
            raise DatasetError(f"{self.path} ends before {self._words(number)}; the file is damaged.")
        if frame.pts is None:
            raise DatasetError(f"{self.path} does not say when {self._words(number)} is shown.")
        self.num_decoded += 1
        return frame

    def _words(self, number: int) -> str:
        return f"frame {number} ({self.timeline.seconds[number]:.3f} s)"

    def _seek(self, key: int) -> None:
        """Go to a key frame, or with -1 to the beginning of the file."""
        pts = self.timeline.pts
        target = int(pts[key]) if key >= 0 else 2 * int(pts[0]) - int(pts[-1]) - 1
        self.container.seek(target, stream=self.stream, backward=True)
        self._frames = self.container.decode(self.stream)

    def _key_before(self, number: int) -> int:
        """The last key frame that is not behind this frame."""
        reach = 64
        while True:
            low = max(0, number + 1 - reach)
            found = np.flatnonzero(self.timeline.is_key[low : number + 1])
            if len(found) or low == 0:
                return low + int(found[-1]) if len(found) else 0
            reach *= 8


class VideoPool:
    """Open readers; each is used by one thread at a time, a file may have several.

    Idle ones stay open while they are at most `size` and take at most `limit` bytes together. A forked
    process starts with an empty pool, since the parent's readers share their file positions with it. It keeps
    them untouched: closing one would wait for decoder threads that only the parent has.
    """

    def __init__(self, *, size: int | None = None, limit: int = DEFAULT_CACHE_BYTES) -> None:
        self.size = cache_size() if size is None else size
        self.limit = UNLIMITED if self.size == UNLIMITED else limit
        self._start()

    def __getstate__(self) -> dict:
        return {"size": self.size, "limit": self.limit}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._start()

    def _start(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._idle: OrderedDict[tuple[Path, int], VideoReader] = OrderedDict()
        self._count = 0
        self.num_decoded = 0  # frames, of all files

    def read(
        self, path: Path, timeline: Timeline, wanted: Mapping[int, np.ndarray], *, is_depth: bool = False
    ) -> None:
        """Decode frames of one file into the arrays given for them; see `VideoReader.read`."""
        if self._process != os.getpid():
            self._of_parent = self._idle
            self._start()
        reader = self._take(path) or VideoReader(path, timeline, is_depth=is_depth)
        before = reader.num_decoded
        try:
            reader.read(wanted)
        except BaseException:
            reader.close()
            raise
        self._give(path, reader, reader.num_decoded - before)

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

    def _give(self, path: Path, reader: VideoReader, num_decoded: int) -> None:
        surplus = []
        with self._lock:
            self._count += 1
            self.num_decoded += num_decoded
            self._idle[path, self._count] = reader
            used = sum(one.num_bytes for one in self._idle.values())
            while len(self._idle) > self.size or (used > self.limit and len(self._idle) > 1):
                surplus.append(self._idle.popitem(last=False)[1])
                used -= surplus[-1].num_bytes
        for old in surplus:
            old.close()


def cache_size() -> int:
    """How many readers stay open: the environment's word ("none" or "-1" for no limit), else 100."""
    text = os.environ.get(CACHE_SIZE_VARIABLE, "").strip().lower()
    if not text:
        return DEFAULT_CACHE_SIZE
    if text in ("none", "-1"):
        return UNLIMITED
    if not text.isdigit():
        raise DatasetError(f"{CACHE_SIZE_VARIABLE}={text!r}: expected a whole number, 'none' or '-1'.")
    return int(text)
