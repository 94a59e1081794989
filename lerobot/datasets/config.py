"""How camera frames become video files: encoder settings for colour and for depth.

The same names are stored in `meta/info.json` (as `video.<name>`) so that a later edit can encode the same
way.
"""

from dataclasses import dataclass, field
from typing import Any

from lerobot.core.errors import ConfigError, suggest

HARDWARE_CODECS = (  # the order in which `auto` tries them
    "h264_videotoolbox",
    "hevc_videotoolbox",
    "h264_nvenc",
    "hevc_nvenc",
    "h264_vaapi",
    "h264_qsv",
)
VIDEO_CODECS = ("h264", "hevc", "libsvtav1", "libaom-av1", "auto", *HARDWARE_CODECS)
CODEC_ALIASES = {"av1": "libsvtav1"}

CHUNKS_SIZE = 1000
DATA_FILES_SIZE_IN_MB = 100
VIDEO_FILES_SIZE_IN_MB = 200
CACHE_BYTES = 4 * 1024**3  # decoded pictures that a frame cache keeps


@dataclass(kw_only=True)
class VideoEncoderConfig:
    """Settings of one video encoder; the defaults are those of colour cameras."""

    vcodec: str = "libsvtav1"  # encoder: libsvtav1, libaom-av1, h264, hevc, a hardware encoder, or auto
    pix_fmt: str = "yuv420p"  # pixel format of the stored frames
    g: int | None = 2  # frames from one key frame to the next; small means fast random access
    crf: int | None = 30  # quality, lower is better and larger
    preset: int | str | None = (
        None  # encoder speed; unset means 12 for libsvtav1 and the codec's own otherwise
    )
    fast_decode: int = 0  # 0 to 2: favour decoding speed over size
    video_backend: str = "pyav"  # library that encodes; only pyav
    extra_options: dict[str, Any] = field(default_factory=dict)  # further codec options, passed as they are

    def __post_init__(self) -> None:
        codec = CODEC_ALIASES.get(self.vcodec, self.vcodec)
        if codec not in VIDEO_CODECS:
            raise ConfigError(
                f"vcodec={self.vcodec!r} is not known; one of {', '.join(VIDEO_CODECS)}."
                f"{suggest(self.vcodec, VIDEO_CODECS)}"
            )
        if self.video_backend != "pyav":
            raise ConfigError(f"video_backend={self.video_backend!r} cannot encode; use 'pyav'.")
        if self.g is not None and self.g < 1:
            raise ConfigError(f"g={self.g}: the distance of key frames is at least 1.")
        if self.fast_decode not in (0, 1, 2):
            raise ConfigError(f"fast_decode={self.fast_decode}: one of 0, 1, 2.")

    @property
    def codec(self) -> str:
        """The encoder's name without aliases."""
        return CODEC_ALIASES.get(self.vcodec, self.vcodec)

    @property
    def speed(self) -> int | str | None:
        """The preset that is really used."""
        return 12 if self.preset is None and self.codec == "libsvtav1" else self.preset


@dataclass(kw_only=True)
class RGBEncoderConfig(VideoEncoderConfig):
    """Encoder of colour cameras."""


@dataclass(kw_only=True)
class DepthEncoderConfig(VideoEncoderConfig):
    """Encoder of depth cameras: lossless 12-bit HEVC of quantised distances."""

    vcodec: str = "hevc"  # encoder of depth frames
    pix_fmt: str = "gray12le"  # 12 bits, one component
    extra_options: dict[str, Any] = field(default_factory=lambda: {"x265-params": "lossless=1"})  # lossless
    depth_min: float = 0.01  # nearest distance that can be stored, metres
    depth_max: float = 10.0  # farthest distance that can be stored, metres
    shift: float = 3.5  # metres added before the logarithm; larger spreads the precision more evenly
    use_log: bool = True  # finer steps near the camera

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.depth_min < self.depth_max:
            raise ConfigError(f"depth_min={self.depth_min} must be less than depth_max={self.depth_max}.")
        if self.use_log and self.depth_min + self.shift <= 0:
            raise ConfigError(f"depth_min + shift = {self.depth_min + self.shift} must be positive.")
