"""Frames into mp4 files: one encoder thread per camera while recording.

    add(frame) -> queue -> [thread: convert, encode, mux] -> part file -> finish() -> renamed by the writer

Frame k of a file has pts exactly k / fps; every file begins with a key frame, so files are joined without
encoding.
Shapes: C H W frame (uint8 RGB), or (H, W) uint16 levels of a depth camera.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from lerobot.core import files
from lerobot.core.errors import DatasetError
from lerobot.datasets import disk
from lerobot.datasets.codec import codec_options, resolve_codec
from lerobot.datasets.config import DepthEncoderConfig, VideoEncoderConfig
from lerobot.datasets.converter import FrameConverter
from lerobot.datasets.priority import open_encoder


class VideoEncoder:
    """Encodes the frames of one camera of one episode in a thread of its own; no frame is ever dropped.

    At most `queue_size` pictures wait for the encoder. What happens to the next one is said by `overflow`:
    "wait" makes `add` wait, "repeat" encodes the picture before it once more. An error of the encoder is
    raised by the next call.

    Args:
        prepare: called in the encoder's thread with every picture that was added; gives what is encoded.
    """

    def __init__(
        self,
        path: Path,
        *,
        fps: int | float,
        config: VideoEncoderConfig,
        queue_size: int,
        threads: int | None = None,
        overflow: str = "wait",
        prepare: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> None:
        self.path = path
        self.config = config
        self.fps = Fraction(fps).limit_denominator(100_000)
        self.threads, self.overflow, self.prepare = threads, overflow, prepare
        self.queue_size = max(1, queue_size)
        self.num_frames = 0  # that were added
        self.num_encoded = 0  # that the finished file holds
        self.num_waits, self.waited_s = 0, 0.0
        self.repeated: list[int] = []  # frames that show the picture of the frame before
        self.is_finished = False
        self._waiting: deque[np.ndarray | None] = deque()  # None repeats the picture before
        self._num_pictures = 0  # among those that wait
        self._changed = threading.Condition()
        self._error: Exception | None = None
        self._is_ended = self._is_aborted = False
        self._thread = threading.Thread(target=self._run, name=f"encode {path.name}", daemon=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._thread.start()

    @property
    def is_broken(self) -> bool:
        """Whether the encoder failed, so that this episode cannot be saved any more."""
        return self._error is not None

    def ready(self) -> None:
        """Return when the next frame can be queued at once, or repeated.

        Raises:
            DatasetError: the encoder failed; says why and what to do.
        """
        with self._changed:
            self._raise()
            if self._num_pictures < self.queue_size or (self.overflow == "repeat" and self.num_frames):
                return
            began = time.perf_counter()
            while self._num_pictures >= self.queue_size and self._error is None:
                self._changed.wait()
            self.num_waits, self.waited_s = self.num_waits + 1, self.waited_s + time.perf_counter() - began
            self._raise()

    def add(self, frame: np.ndarray) -> None:
        """Queue one frame; the array must not change afterwards."""
        self.ready()
        with self._changed:
            if self._num_pictures >= self.queue_size:
                self._waiting.append(None)
                self.repeated.append(self.num_frames)
            else:
                self._waiting.append(frame)
                self._num_pictures += 1
            self.num_frames += 1
            self._changed.notify_all()

    def end(self) -> None:
        """Say that no frame follows, without waiting for the file."""
        with self._changed:
            self._is_ended = True
            self._changed.notify_all()

    def finish(self) -> Path:
        """Wait until every frame is in the file and the file is on the disk; returns its path."""
        self.end()
        self._thread.join()
        self._raise()
        if self.num_encoded != self.num_frames:
            raise DatasetError(
                f"{self.path} holds {self.num_encoded} of the {self.num_frames} frames that were recorded, "
                "so the episode cannot be saved. Discard it with clear_episode()."
            )
        self.is_finished = True
        return self.path

    def abort(self) -> None:
        """Stop and delete the unfinished file."""
        with self._changed:
            self._is_aborted = True
            self._changed.notify_all()
        self._thread.join()
        self.path.unlink(missing_ok=True)

    def _raise(self) -> None:
        if self._error is None:
            return
        if disk.is_full(self._error):
            raise disk.trouble(
                self._error,
                self.path,
                "the episode being recorded cannot be saved: call "
                "clear_episode(), make room, and record it again",
            ) from self._error
        raise DatasetError(
            f"Encoding {self.path} with {self.config.codec} failed: {self._error}. "
            "Discard the episode with clear_episode(); try vcodec='h264' if it happens again."
        ) from self._error

    def _run(self) -> None:
        try:
            encode_frames(self._pending(), self.path, fps=self.fps, config=self.config, threads=self.threads)
            if not self._is_aborted:
                files.sync_file(self.path)
                self.num_encoded = count_frames(self.path)
        except Exception as error:  # noqa: BLE001  handed to the recording thread by the next call
            with self._changed:
                self._error = error
                self._waiting.clear()
                self._changed.notify_all()

    def _pending(self) -> Iterator[np.ndarray | None]:
        while True:
            with self._changed:
                while not (self._waiting or self._is_ended or self._is_aborted):
                    self._changed.wait()
                if self._is_aborted or not self._waiting:
                    return
                frame = self._waiting.popleft()
                if frame is not None:
                    self._num_pictures -= 1
                    self._changed.notify_all()
            yield frame if frame is None or self.prepare is None else self.prepare(frame)


def encode_frames(
    frames: Iterable[np.ndarray | None],
    path: Path,
    *,
    fps: Fraction | int | float,
    config: VideoEncoderConfig,
    threads: int | None = None,
) -> None:
    """Write an mp4 of frames: (C, H, W) uint8 RGB, or (H, W) uint16 levels for a depth encoder.

    None in place of a frame shows the frame before it once more.
    """
    os.environ.setdefault("SVT_LOG", "1")  # errors only; the encoder prints its settings otherwise
    is_depth = isinstance(config, DepthEncoderConfig)
    rate = Fraction(fps).limit_denominator(100_000)
    codec = resolve_codec(config)
    convert = FrameConverter()
    with av.open(str(path), "w", format="mp4") as container:
        stream: Any = None
        picture: Any = None
        for k, frame in enumerate(frames):
            if frame is not None:
                picture = convert(_video_frame(frame, is_depth=is_depth), config.pix_fmt)
            if stream is None:
                stream = container.add_stream(codec, rate=rate, options=codec_options(config, codec, threads))
                stream.width, stream.height, stream.pix_fmt = picture.width, picture.height, config.pix_fmt
                open_encoder(stream.codec_context)
            picture.pts, picture.time_base = k, 1 / rate
            container.mux(stream.encode(picture))
        if stream is not None:
            container.mux(stream.encode(None))


def count_frames(path: Path) -> int:
    """How many frames the finished file says it holds."""
    with av.open(str(path)) as container:
        return container.streams.video[0].frames


def _video_frame(frame: np.ndarray, *, is_depth: bool) -> av.VideoFrame:
    if is_depth:
        return av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="gray12le")
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(frame.transpose(1, 2, 0)), format="rgb24")
