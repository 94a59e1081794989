"""Frames into mp4 files: one encoder thread per camera while recording.

    add(frame) -> queue -> [thread: convert, encode, mux] -> part file -> finish() -> renamed by the writer

Frame k of a file has pts exactly k / fps; every file begins with a key frame, so files are joined without
encoding.
Shapes: C H W frame (uint8 RGB), or (H, W) uint16 levels of a depth camera.
"""

import logging
import os
import queue
import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from lerobot.core.errors import DatasetError
from lerobot.datasets.config import DepthEncoderConfig, VideoEncoderConfig
from lerobot.datasets.join import Segment as Segment
from lerobot.datasets.join import join_videos as join_videos
from lerobot.datasets.join import stream_kind as stream_kind

logger = logging.getLogger(__name__)

HARDWARE_CODECS = (
    "h264_videotoolbox",
    "hevc_videotoolbox",
    "h264_nvenc",
    "hevc_nvenc",
    "h264_vaapi",
    "h264_qsv",
)
CANONICAL = {"libdav1d": "av1", "libaom-av1": "av1", "libsvtav1": "av1", "libx264": "h264", "libx265": "hevc"}


class VideoEncoder:
    """Encodes the frames of one camera of one episode in a thread of its own; no frame is ever dropped.

    `add` waits while `queue_size` frames are pending. An error of the encoder is raised by the next call.
    """

    def __init__(
        self,
        path: Path,
        *,
        fps: int | float,
        config: VideoEncoderConfig,
        queue_size: int,
        threads: int | None = None,
    ) -> None:
        self.path = path
        self.config = config
        self.fps = Fraction(fps).limit_denominator(100_000)
        self.threads = threads
        self.num_frames = 0
        self._frames: queue.Queue[np.ndarray | None] = queue.Queue(maxsize=max(1, queue_size))
        self._error: Exception | None = None
        self._is_aborted = False
        self._is_late = False
        self._thread = threading.Thread(target=self._run, name=f"encode {path.name}", daemon=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._thread.start()

    def add(self, frame: np.ndarray) -> None:
        """Queue one frame; the array must not change afterwards."""
        if self._frames.full() and not self._is_late:
            self._is_late = True
            logger.warning("Encoding %s is slower than recording; recording waits for it.", self.path)
        self._put(frame)
        self.num_frames += 1

    def finish(self) -> Path:
        """Wait until every frame is in the file, and return its path."""
        self._put(None)
        self._thread.join()
        self._raise()
        return self.path

    def abort(self) -> None:
        """Stop and delete the unfinished file."""
        self._is_aborted = True
        while self._thread.is_alive():
            try:
                self._frames.put(None, timeout=0.05)
                break
            except queue.Full:
                continue
        self._thread.join()
        self.path.unlink(missing_ok=True)

    def _put(self, frame: np.ndarray | None) -> None:
        while True:
            self._raise()
            try:
                self._frames.put(frame, timeout=0.1)
                return
            except queue.Full:
                continue

    def _raise(self) -> None:
        if self._error is not None:
            raise DatasetError(
                f"Encoding {self.path} with {self.config.codec} failed: {self._error}. "
                "Discard the episode with clear_episode_buffer(); try vcodec='h264' if it happens again."
            ) from self._error

    def _run(self) -> None:
        try:
            encode_frames(self._pending(), self.path, fps=self.fps, config=self.config, threads=self.threads)
        except Exception as error:  # noqa: BLE001  handed to the recording thread by the next call
            self._error = error
            self._drain()

    def _pending(self) -> Iterator[np.ndarray]:
        while (frame := self._frames.get()) is not None and not self._is_aborted:
            yield frame

    def _drain(self) -> None:
        while not self._frames.empty():
            self._frames.get_nowait()


def encode_frames(
    frames: Any, path: Path, *, fps: Fraction | int, config: VideoEncoderConfig, threads: int | None = None
) -> None:
    """Write an mp4 of frames: (C, H, W) uint8 RGB, or (H, W) uint16 levels for a depth encoder."""
    os.environ.setdefault("SVT_LOG", "1")  # errors only; the encoder prints its settings otherwise
    is_depth = isinstance(config, DepthEncoderConfig)
    rate = Fraction(fps).limit_denominator(100_000)
    codec = resolve_codec(config)
    convert = VideoReformatter()
    with av.open(str(path), "w", format="mp4") as container:
        stream = None
        for k, frame in enumerate(frames):
            picture = _video_frame(frame, is_depth=is_depth)
            if stream is None:
                stream = container.add_stream(codec, rate=rate, options=codec_options(config, codec, threads))
                stream.width, stream.height, stream.pix_fmt = picture.width, picture.height, config.pix_fmt
            picture.pts, picture.time_base = k, 1 / rate
            container.mux(stream.encode(convert.reformat(picture, format=config.pix_fmt)))
        if stream is not None:
            container.mux(stream.encode(None))


def _video_frame(frame: np.ndarray, *, is_depth: bool) -> av.VideoFrame:
    if is_depth:
        return av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="gray12le")
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(frame.transpose(1, 2, 0)), format="rgb24")


def resolve_codec(config: VideoEncoderConfig) -> str:
    """The name of an encoder that this machine has.

    Raises:
        DatasetError: the wanted encoder is not part of the installed FFmpeg.
    """
    if config.codec == "auto":
        return next((codec for codec in HARDWARE_CODECS if _opens(codec)), "libsvtav1")
    try:
        return av.Codec(config.codec, "w").name
    except av.codec.codec.UnknownCodecError as error:
        raise DatasetError(
            f"The installed FFmpeg has no encoder {config.codec!r}. Choose "
            "--dataset.rgb_encoder.vcodec=libsvtav1."
        ) from error


def _opens(codec: str) -> bool:
    """Whether a hardware encoder exists and its device answers."""
    try:
        context = av.CodecContext.create(codec, "w")
        context.width, context.height, context.pix_fmt, context.time_base = (
            256,
            256,
            "yuv420p",
            Fraction(1, 30),
        )
        context.open()
    except (av.FFmpegError, av.codec.codec.UnknownCodecError):
        return False
    return True


def codec_options(config: VideoEncoderConfig, codec: str, threads: int | None = None) -> dict[str, str]:
    """The settings in the words of this codec; `extra_options` never override them."""
    options: dict[str, Any] = {"g": config.g}
    if codec == "libsvtav1":
        params = f"fast-decode={config.fast_decode}" + (f":lp={threads}" if threads else "")
        options |= {"crf": config.crf, "preset": config.speed, "svtav1-params": params}
    elif codec == "libaom-av1":
        options |= {"crf": config.crf, "preset": config.preset, "threads": threads, "row-mt": 1}
    elif codec.endswith("videotoolbox"):
        options |= {"q:v": None if config.crf is None else min(max(100 - 2 * config.crf, 1), 100)}
    elif codec.endswith("nvenc"):
        options |= {"rc": 0, "qp": config.crf, "preset": config.preset}
    elif codec.endswith("vaapi"):
        options |= {"qp": config.crf}
    elif codec.endswith("qsv"):
        options |= {"global_quality": config.crf, "preset": config.preset}
    else:
        tune = "fastdecode" if config.fast_decode else None
        options |= {"crf": config.crf, "preset": config.preset, "tune": tune, "threads": threads}
    chosen = {key: str(value) for key, value in options.items() if value is not None}
    if codec == "libx265":
        extra = {k: str(v) for k, v in config.extra_options.items()}
        # No pictures that wait for later ones: in clips shorter than that wait, x265 leaves decoding times
        # unset, and the file is refused or wrong. What the user says comes later and wins.
        words = ["bframes=0", extra.pop("x265-params", ""), "log-level=error"]
        return extra | chosen | {"x265-params": ":".join(filter(None, words))}
    return {key: str(value) for key, value in config.extra_options.items()} | chosen


def probe_info(path: Path, config: VideoEncoderConfig) -> dict[str, Any]:
    """What `meta/info.json` says about a camera: facts of the stream, then the encoder's settings."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        info = {
            "video.height": stream.codec_context.height,
            "video.width": stream.codec_context.width,
            "video.codec": CANONICAL.get(stream.codec_context.name, stream.codec_context.name),
            "video.pix_fmt": stream.codec_context.pix_fmt,
            "video.fps": int(stream.base_rate or stream.average_rate),
            "video.channels": len(stream.codec_context.format.components),
            "has_audio": bool(container.streams.audio),
        }
    return info | encoder_info(config)


def encoder_info(config: VideoEncoderConfig) -> dict[str, Any]:
    """An encoder's settings as they are stored under a feature's `info`."""
    info: dict[str, Any] = {
        "video.g": config.g,
        "video.crf": config.crf,
        "video.preset": config.speed,
        "video.fast_decode": config.fast_decode,
        "video.video_backend": config.video_backend,
        "video.extra_options": dict(config.extra_options),
    }
    if isinstance(config, DepthEncoderConfig):
        info |= {
            f"video.{key}": getattr(config, key) for key in ("depth_min", "depth_max", "shift", "use_log")
        }
    return info
