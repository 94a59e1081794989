"""How a camera's videos were encoded, as `meta/info.json` says it: settings into `info`, and back.

mp4 + VideoEncoderConfig --probe_info--> features.<camera>.info --stored_encoder--> VideoEncoderConfig
"""

import dataclasses
from pathlib import Path
from typing import Any

import av

from lerobot.core.errors import DatasetError
from lerobot.datasets.config import DepthEncoderConfig, RGBEncoderConfig, VideoEncoderConfig
from lerobot.datasets.schema import is_depth

CANONICAL = {"libdav1d": "av1", "libaom-av1": "av1", "libsvtav1": "av1", "libx264": "h264", "libx265": "hevc"}
ENCODERS = {"av1": "libsvtav1", "h264": "h264", "hevc": "hevc"}  # canonical name -> encoder
SETTINGS = ("pix_fmt", "g", "crf", "preset", "fast_decode", "extra_options")
SCALE = ("depth_min", "depth_max", "shift", "use_log")


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
        info |= {f"video.{key}": getattr(config, key) for key in SCALE}
    return info


def stored_encoder(feature: dict, name: str) -> VideoEncoderConfig:
    """The encoder settings that a camera's `info` holds; what it does not say is the default.

    Raises:
        DatasetError: no encoder is known for the stored codec.
    """
    info = feature.get("info") or {}
    family = DepthEncoderConfig if is_depth(feature) else RGBEncoderConfig
    said = _known(info, SETTINGS)
    codec = info.get("video.codec")
    if codec is not None:
        if codec not in ENCODERS:
            raise DatasetError(f"Camera {name!r} is stored as {codec!r}, for which no encoder is known.")
        said["vcodec"] = ENCODERS[codec]
    return with_stored_scale(family(**said), feature)


def with_stored_scale(config: VideoEncoderConfig, feature: dict) -> VideoEncoderConfig:
    """The encoder with the depth scale of the levels that are stored already."""
    info = feature.get("info") or {}
    if not isinstance(config, DepthEncoderConfig):
        return config
    return dataclasses.replace(config, **_known(info, SCALE))


def _known(info: dict, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: info[f"video.{name}"] for name in names if info.get(f"video.{name}") is not None}


def recorded_encoder(features: dict[str, dict], *, of_depth: bool) -> VideoEncoderConfig | None:
    """The settings of the first colour (or depth) video, with which a recording goes on."""
    for name, feature in features.items():
        is_known = feature["dtype"] == "video" and (feature.get("info") or {}).get("video.codec") in ENCODERS
        if is_known and is_depth(feature) == of_depth:
            return stored_encoder(feature, name)
    return None
