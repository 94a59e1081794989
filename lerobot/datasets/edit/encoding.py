"""Frames of a video decoded and encoded again: episodes that cannot be cut out, or another encoder.

    mp4 --decode--> frames as they are stored (YUV, or depth levels) --encode--> mp4, frame k at k / fps

Depth levels are passed on as they are; their scale stays that of `info`.
"""

import dataclasses
import itertools
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.video.reformatter import VideoReformatter

from lerobot.core.errors import DatasetError
from lerobot.datasets.codec import codec_options, resolve_codec
from lerobot.datasets.config import DepthEncoderConfig, RGBEncoderConfig, VideoEncoderConfig
from lerobot.datasets.join import Segment, clean_start, stored_order
from lerobot.datasets.schema import is_depth

ENCODERS = {"av1": "libsvtav1", "h264": "h264", "hevc": "hevc"}  # canonical name -> encoder
SETTINGS = ("pix_fmt", "g", "crf", "preset", "fast_decode", "extra_options")
SCALE = ("depth_min", "depth_max", "shift", "use_log")


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


def encode_segment(
    segment: Segment, out: Path, *, fps: float, config: VideoEncoderConfig, threads: int | None = None
) -> None:
    """An mp4 of a segment's frames, encoded anew.

    Raises:
        DatasetError: the frames cannot be decoded or encoded, or another number of them came out.
    """
    os.environ.setdefault("SVT_LOG", "1")  # errors only; the encoder prints its settings otherwise
    rate = Fraction(fps).limit_denominator(100_000)
    codec, convert = resolve_codec(config), VideoReformatter()
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        with av.open(str(out), "w", format="mp4") as target:
            stream = None
            for k, frame in enumerate(decode_segment(segment)):
                if stream is None:
                    stream = target.add_stream(
                        codec, rate=rate, options=codec_options(config, codec, threads)
                    )
                    stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, config.pix_fmt
                    for tag in ("color_range", "color_primaries", "color_trc", "colorspace"):
                        setattr(stream.codec_context, tag, getattr(frame, tag))
                frame = convert.reformat(frame, format=config.pix_fmt)
                frame.pts, frame.time_base, frame.pict_type = k, 1 / rate, 0
                target.mux(stream.encode(frame))
            if stream is not None:
                target.mux(stream.encode(None))
    except av.FFmpegError as error:
        raise DatasetError(f"Encoding {segment.path} with {config.codec} failed: {error}.") from error
    made = len(stored_order(out))
    if made != segment.length:
        raise DatasetError(f"Encoding {segment.path} gave {made} of {segment.length} frames.")


def decode_segment(segment: Segment) -> Iterator[av.VideoFrame]:
    """The frames of a segment in the order they are shown.

    Raises:
        DatasetError: the file holds fewer of them.
    """
    order = stored_order(segment.path)
    wanted = order.pts[order.place[segment.start : segment.start + segment.length]]
    count = 0
    with av.open(str(segment.path)) as source:
        stream = source.streams.video[0]
        stream.thread_type = "AUTO"
        if segment.start:
            # Not to any key frame: behind one of an open group FFmpeg may drop frames of the next episode.
            first = order.place[clean_start(segment.path, segment.start)]
            source.seek(int(order.dts[first]), stream=stream, backward=True)
        for frame in itertools.takewhile(lambda frame: frame.pts <= wanted[-1], source.decode(stream)):
            if count < len(wanted) and frame.pts == wanted[count]:
                count += 1
                yield frame
    if count != segment.length:
        raise DatasetError(
            f"{segment.path}: {count} of the {segment.length} frames from {segment.start} on were decoded."
        )
