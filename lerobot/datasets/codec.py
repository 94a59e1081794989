"""Which encoder a recording uses: settings checked, really tried, and for `auto` measured at full rate.

    settings + camera sizes -> names and ranges checked -> a few frames encoded -> settings that work
    auto: hardware encoders, libsvtav1, h264 in this order -> the first that keeps up with all cameras

What was found is kept for the life of the process.
Shapes: H W picture.
"""

import dataclasses
import logging
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from functools import lru_cache
from typing import Any

import av
import numpy as np

from lerobot.core.errors import DatasetError, suggest
from lerobot.core.types import image_shape
from lerobot.datasets.config import (
    HARDWARE_CODECS,
    DepthEncoderConfig,
    RGBEncoderConfig,
    VideoEncoderConfig,
)
from lerobot.datasets.converter import FrameConverter
from lerobot.datasets.priority import open_encoder
from lerobot.datasets.schema import is_depth

logger = logging.getLogger(__name__)

X26X_PRESETS = (
    *("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow"),
    "placebo",
)
CRF_LIMITS = {"libsvtav1": 63, "libaom-av1": 63, "libx264": 51, "libx265": 51}
HEADROOM = 1.5  # `auto` wants this many times the frame rate, since the robot's own work needs the cores too
TRIED_FRAMES, MEASURED_FRAMES = 3, 30
Size = tuple[int, int]  # height, width


def resolve_codec(config: VideoEncoderConfig) -> str:
    """FFmpeg's name of the encoder; `auto` becomes one that works here, whatever its speed.

    Raises:
        DatasetError: the wanted encoder is not part of the installed FFmpeg.
    """
    if config.codec == "auto":
        return resolve_codec(choose(config, sizes=[(480, 640)], fps=30))
    try:
        return av.Codec(config.codec, "w").name
    except av.codec.codec.UnknownCodecError as error:
        raise DatasetError(
            f"The installed FFmpeg has no encoder {config.codec!r}. Choose "
            "--dataset.rgb_encoder.vcodec=libsvtav1."
        ) from error


def settle_all(
    features: dict[str, dict],
    *,
    fps: float,
    rgb_encoder: VideoEncoderConfig | None,
    depth_encoder: DepthEncoderConfig | None,
    threads: int | None = None,
) -> tuple[VideoEncoderConfig, DepthEncoderConfig]:
    """The encoders of colour and depth cameras, tried at the cameras' sizes; see `settle`."""
    rgb, depth_one = rgb_encoder or RGBEncoderConfig(), depth_encoder or DepthEncoderConfig()

    def settled(config: VideoEncoderConfig, *, has_depth: bool) -> VideoEncoderConfig:
        videos = [one for one in features.values() if one["dtype"] == "video" and is_depth(one) == has_depth]
        shapes = [image_shape(one) for one in videos]
        sizes, channels = [(h, w) for _, h, w in shapes], max([c for c, _, _ in shapes], default=1)
        return settle(config, sizes=sizes, fps=fps, channels=channels, threads=threads)

    settled_depth = settled(depth_one, has_depth=True)
    assert isinstance(settled_depth, DepthEncoderConfig)
    return settled(rgb, has_depth=False), settled_depth


def settle(
    config: VideoEncoderConfig,
    *,
    sizes: Sequence[Size],
    fps: float,
    channels: int,
    threads: int | None = None,
) -> VideoEncoderConfig:
    """The settings to record cameras of these sizes with: checked and tried; `auto` replaced by its choice.

    Raises:
        DatasetError: the encoder does not exist here, or cannot work with these settings at this size.
    """
    if not sizes:
        return config
    if config.codec == "auto":
        return choose(config, sizes=sizes, fps=fps, threads=threads)
    check(config, channels=channels)
    for size in dict.fromkeys(sizes):
        problem = _problem(config, size=size, fps=fps, threads=threads)
        if problem:
            raise DatasetError(f"vcodec={config.vcodec!r} cannot encode {size[0]}x{size[1]}: {problem}")
    return config


def check(config: VideoEncoderConfig, *, channels: int) -> None:
    """Raise when a setting is not one that the encoder knows.

    Raises:
        DatasetError: names the setting, its value and what is accepted.
    """
    codec, given = resolve_codec(config), f"vcodec={config.vcodec!r} with "
    formats = [form.name for form in av.Codec(codec, "w").video_formats or []]
    if formats and config.pix_fmt not in formats:
        raise DatasetError(
            f"{given}pix_fmt={config.pix_fmt!r}: this encoder takes {', '.join(formats)}."
            f"{suggest(config.pix_fmt, formats)}"
        )
    components = len(av.VideoFormat(config.pix_fmt).components)
    if components < channels:
        raise DatasetError(
            f"{given}pix_fmt={config.pix_fmt!r}: it has {components} component(s) and the pictures have "
            f"{channels} channels, so colours would be lost. Use 'yuv420p'."
        )
    highest = CRF_LIMITS.get(codec)
    if highest is not None and config.crf is not None and not 0 <= config.crf <= highest:
        raise DatasetError(f"{given}crf={config.crf}: expected 0 (best) to {highest} (smallest).")
    preset = config.preset
    if codec == "libsvtav1" and preset is not None and not str(preset).lstrip("-").isdigit():
        raise DatasetError(f"{given}preset={preset!r}: expected a whole number, 0 (slow) to 13 (fast).")
    if codec in ("libx264", "libx265") and preset is not None and preset not in X26X_PRESETS:
        raise DatasetError(f"{given}preset={preset!r}: one of {', '.join(X26X_PRESETS)}.")


def choose(
    config: VideoEncoderConfig, *, sizes: Sequence[Size], fps: float, threads: int | None = None
) -> VideoEncoderConfig:
    """What `auto` stands for here: the first encoder that holds the frame rate of all cameras with headroom.

    One line of the log says which and why. When none is fast enough the fastest is taken, with a warning.
    """
    if isinstance(config, DepthEncoderConfig):
        return dataclasses.replace(
            config, vcodec="hevc"
        )  # the only one with 12 lossless bits of one component
    return _choose(_frozen(config), tuple(sizes), fps, threads)


@lru_cache
def _choose(
    frozen: "_Frozen", sizes: tuple[Size, ...], fps: float, threads: int | None
) -> VideoEncoderConfig:
    config, needed = frozen.config, fps * HEADROOM
    refused: list[str] = []
    slow: list[tuple[float, str, VideoEncoderConfig]] = []
    for candidate in _candidates(config):
        label = (
            candidate.vcodec if candidate.speed is None else f"{candidate.vcodec} preset {candidate.speed}"
        )
        problem = _problem(candidate, size=sizes[0], fps=fps, threads=threads)
        if problem:
            refused.append(candidate.vcodec)
            continue
        rate = measured_fps(candidate, sizes=sizes, fps=fps, threads=threads)
        if rate >= needed:
            others = [f"{name} {held:.0f} fps" for held, name, _ in slow]
            too_slow = f"; too slow: {', '.join(others)}" if others else ""
            absent = f"; not working here: {', '.join(refused)}" if refused else ""
            logger.info(
                "vcodec=auto: %s encodes %d camera(s) at %.0f fps, %.0f wanted%s%s.",
                *(label, len(sizes), rate, needed, too_slow, absent),
            )
            return candidate
        slow.append((rate, label, candidate))
    if not slow:
        raise DatasetError(
            f"vcodec='auto': no encoder works here with pix_fmt={config.pix_fmt!r} at {sizes[0]}; tried "
            f"{', '.join(refused)}. Choose one by name to see what is wrong."
        )
    rate, label, best = max(slow, key=lambda one: one[0])
    logger.warning(
        "vcodec=auto: no encoder has headroom for %d camera(s) at %g fps; the fastest, %s, reaches %.0f of "
        "the wanted %.0f fps. Record fewer or smaller cameras, or at a lower rate.",
        *(len(sizes), fps, label, rate, needed),
    )
    return best


def _candidates(config: VideoEncoderConfig) -> list[VideoEncoderConfig]:
    plain = dataclasses.replace(config, preset=None)
    found = []
    for codec in HARDWARE_CODECS:
        try:
            formats = [form.name for form in av.Codec(codec, "w").video_formats or []]
        except av.codec.codec.UnknownCodecError:
            continue
        pix_fmt = config.pix_fmt if config.pix_fmt in formats or "nv12" not in formats else "nv12"
        found.append(dataclasses.replace(plain, vcodec=codec, pix_fmt=pix_fmt))
    is_number = str(config.preset).isdigit()
    found.append(dataclasses.replace(config if is_number else plain, vcodec="libsvtav1"))
    return found + [dataclasses.replace(plain, vcodec="h264", preset=p) for p in ("veryfast", "ultrafast")]


def measured_fps(
    config: VideoEncoderConfig, *, sizes: Sequence[Size], fps: float, threads: int | None = None
) -> float:
    """Frames per second that cameras of these sizes, encoded at the same time, each reach here."""
    pictures = {size: [_picture(size, k) for k in range(6)] for size in dict.fromkeys(sizes)}
    with ThreadPoolExecutor(len(sizes)) as pool:
        began = time.perf_counter()
        jobs = [
            pool.submit(_encode, config, pictures[size], count=MEASURED_FRAMES, fps=fps, threads=threads)
            for size in sizes
        ]
        for job in jobs:
            job.result()
        return MEASURED_FRAMES / (time.perf_counter() - began)


def _problem(config: VideoEncoderConfig, *, size: Size, fps: float, threads: int | None) -> str:
    """Why the encoder cannot do it, or an empty string."""
    return _tried(_frozen(config), size, fps, threads)


@lru_cache
def _tried(frozen: "_Frozen", size: Size, fps: float, threads: int | None) -> str:
    config, (height, width) = frozen.config, size
    pictures = [_picture(size, k) for k in range(TRIED_FRAMES)]
    try:
        count, unknown = _encode(config, pictures, count=TRIED_FRAMES, fps=fps, threads=threads)
    except (av.FFmpegError, av.codec.codec.UnknownCodecError, ValueError) as error:
        return f"{error}. {_hint(config, height, width)}"
    unknown = [name for name in unknown if name in config.extra_options]
    if unknown:
        return f"it has no option {', '.join(map(repr, unknown))}; take it out of extra_options."
    return "" if count == TRIED_FRAMES else f"{count} of {TRIED_FRAMES} frames came out of it."


def _hint(config: VideoEncoderConfig, height: int, width: int) -> str:
    """The likely reason why an encoder did not start."""
    if config.codec in HARDWARE_CODECS:
        return "Its device or driver is not on this machine; use vcodec='auto' or 'libsvtav1'."
    if height % 2 or width % 2:
        return f"{config.pix_fmt} may need an even height and width: crop, or use pix_fmt='yuv444p'."
    return "Are crf, preset and extra_options ones that this encoder knows?"


def _encode(
    config: VideoEncoderConfig, pictures: list[np.ndarray], *, count: int, fps: float, threads: int | None
) -> tuple[int, list[str]]:
    """Encode into nowhere: how many frames came out, and the options that the encoder did not take."""
    os.environ.setdefault("SVT_LOG", "1")
    rate, codec = Fraction(fps).limit_denominator(100_000), resolve_codec(config)
    context: Any = av.CodecContext.create(codec, "w")
    context.height, context.width = pictures[0].shape[:2]
    context.pix_fmt, context.time_base, context.framerate = config.pix_fmt, 1 / rate, rate
    context.options = codec_options(config, codec, threads)
    open_encoder(context)
    has_depth, convert, came_out = isinstance(config, DepthEncoderConfig), FrameConverter(), 0
    for k in range(count):
        picture = pictures[k % len(pictures)]
        if has_depth:
            frame = av.VideoFrame.from_ndarray(picture[..., 0].astype(np.uint16) << 4, format="gray12le")
        else:
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame = convert(frame, config.pix_fmt)
        frame.pts, frame.time_base = k, 1 / rate
        came_out += len(context.encode(frame))
    came_out += len(context.encode(None))
    return came_out, list(context.options)


def _picture(size: Size, number: int) -> np.ndarray:
    """(H, W, 3) uint8: waves that move, with the noise of a camera; a flat picture would cost nothing."""
    height, width = size
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    waves = [128 + 70 * np.sin((x + 9 * number) / 40 + y / (30 + 10 * c)) for c in range(3)]
    noise = np.random.default_rng(number).normal(0, 4, (height, width, 1))
    return np.clip(np.stack(waves, -1) + noise, 0, 255).astype(np.uint8)


@dataclasses.dataclass(frozen=True)
class _Frozen:
    """Settings that can be a key: equal when everything they say is equal."""

    text: str
    config: VideoEncoderConfig = dataclasses.field(compare=False)


def _frozen(config: VideoEncoderConfig) -> _Frozen:
    return _Frozen(repr(config), config)


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
        # unset, and the file is refused or wrong. And every key frame a clean start: after a seek to one of
        # x265's open groups, FFmpeg drops the first frames of the episode that was joined behind it. What the
        # user says comes later and wins.
        words = ["bframes=0:open-gop=0", extra.pop("x265-params", ""), "log-level=error"]
        return extra | chosen | {"x265-params": ":".join(filter(None, words))}
    return {key: str(value) for key, value in config.extra_options.items()} | chosen
