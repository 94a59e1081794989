"""Frames of a video decoded and encoded again: episodes that cannot be cut out, or another encoder.

    mp4 --decode--> frames as they are stored (YUV, or depth levels) --encode--> mp4, frame k at k / fps

Depth levels are passed on as they are; their scale stays that of `info`.
"""

import itertools
import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av

from lerobot.core.errors import DatasetError
from lerobot.datasets.codec import codec_options, resolve_codec
from lerobot.datasets.config import VideoEncoderConfig
from lerobot.datasets.converter import FrameConverter
from lerobot.datasets.join import Segment, clean_start, stored_order
from lerobot.datasets.priority import open_encoder


def encode_segment(
    segment: Segment, out: Path, *, fps: float, config: VideoEncoderConfig, threads: int | None = None
) -> None:
    """An mp4 of a segment's frames, encoded anew.

    Raises:
        DatasetError: the frames cannot be decoded or encoded, or another number of them came out.
    """
    os.environ.setdefault("SVT_LOG", "1")  # errors only; the encoder prints its settings otherwise
    rate = Fraction(fps).limit_denominator(100_000)
    codec, convert = resolve_codec(config), FrameConverter()
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
                    open_encoder(stream.codec_context)
                frame = convert(frame, config.pix_fmt)
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
