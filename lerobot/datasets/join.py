"""Packets of several mp4 files copied into one, end to end, without decoding: pictures stay bit for bit.

    files --stored order--> segments that begin at key frames --packets, new times--> one mp4

Frame k of the new file is shown at exactly k / fps.
Shapes: N frames of a file; its frames are numbered in the order they are shown.
"""

import contextlib
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from lerobot.core.errors import DatasetError

TICKS_PER_FRAME = 1024  # of the mp4's clock; at 10 fps a second has 10240
NAL_CODECS = ("h264", "hevc")
IDR_H264 = 5
CLEAN_HEVC = range(16, 21)  # BLA and IDR; 21 is CRA, which pictures of the part before it may hang on


@dataclass(frozen=True, kw_only=True)
class Segment:
    """Frames of an mp4 file, by number: `length` of them from `start` on."""

    path: Path
    start: int
    length: int


class CutError(DatasetError):
    """A segment cannot be taken out of its file without encoding it again; `at_start` says at which end."""

    def __init__(self, message: str, *, at_start: bool) -> None:
        super().__init__(message)
        self.at_start = at_start


@dataclass(frozen=True, kw_only=True)
class StoredOrder:
    """The packets of a file in the order they are stored, which is the order they are decoded in."""

    pts: np.ndarray  # (N,) int64, in units of time_base
    dts: np.ndarray  # (N,) int64
    is_key: np.ndarray  # (N,) bool
    rank: np.ndarray  # (N,) int64: the number of the frame that the packet holds
    place: np.ndarray  # (N,) int64: the packet that holds a frame; the reverse of rank
    time_base: Fraction

    def __len__(self) -> int:
        return len(self.pts)

    @property
    def seconds(self) -> np.ndarray:
        """(N,) float64: when each frame is shown."""
        return self.pts[self.place] * float(self.time_base)

    def packets(self, segment: Segment) -> np.ndarray:
        """The places of a segment's packets, ascending.

        Raises:
            CutError: the segment cannot be decoded without frames outside it.
            DatasetError: the file has fewer frames.
        """
        end = segment.start + segment.length
        if end > len(self):
            have = max(0, len(self) - segment.start)
            raise DatasetError(
                f"{segment.path} has {have} of the {segment.length} frames from {segment.start} on."
            )
        places = np.sort(self.place[segment.start : end])
        first = self.place[segment.start]
        if not self.is_key[first] or places[0] != first:
            raise CutError(
                f"{segment.path}: frame {segment.start} begins an episode and is no key frame", at_start=True
            )
        between = self.rank[places[0] : places[-1] + 1]
        later = between[between >= end]
        if len(later):
            raise CutError(
                f"{segment.path}: frame {end - 1} ends an episode, and frame {later[0]}, which belongs to "
                "another, is needed to decode it",
                at_start=False,
            )
        return places


def stored_order(path: Path) -> StoredOrder:
    """The order of a file's packets; kept in memory for the files asked for last.

    Raises:
        DatasetError: the file is missing or is no video.
    """
    if not path.is_file():
        raise DatasetError(
            f"{path} is missing. Load the dataset with force_cache_sync=True to download it again."
        )
    facts = path.stat()
    return _stored_order(path, facts.st_size, facts.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _stored_order(path: Path, size: int, modified_ns: int) -> StoredOrder:
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            entries = [] if stream.codec_context.has_b_frames else stream.index_entries
            if len(entries) and len(entries) == stream.frames:
                found = [(entry.timestamp, entry.timestamp, entry.is_keyframe) for entry in entries]
            else:
                packets = (packet for packet in container.demux(stream) if packet.pts is not None)
                found = [(packet.pts, packet.dts, packet.is_keyframe) for packet in packets]
            time_base = stream.time_base
    except (av.FFmpegError, IndexError) as error:
        raise DatasetError(f"{path} is not a video that can be read ({error}).") from error
    if not found:
        raise DatasetError(f"{path} holds no frame; it was cut off or never finished.")
    pts, dts, is_key = (np.array(column) for column in zip(*found, strict=True))
    place = np.argsort(pts, kind="stable")
    rank = np.empty_like(place)
    rank[place] = np.arange(len(place))
    return StoredOrder(
        pts=pts.astype(np.int64),
        dts=dts.astype(np.int64),
        is_key=is_key.astype(bool),
        rank=rank,
        place=place,
        time_base=time_base,
    )


def join_videos(segments: Sequence[Segment], out: Path, *, fps: int | float) -> None:
    """Copy packets of several mp4 files into one, end to end, without decoding; frame k gets pts k / fps.

    Raises:
        CutError: a segment does not begin with a key frame, or needs frames outside it.
        DatasetError: a file has fewer frames than it should.
    """
    rate = Fraction(fps).limit_denominator(100_000)
    clock, step = Fraction(1, TICKS_PER_FRAME * rate.numerator), TICKS_PER_FRAME * rate.denominator
    plans = [stored_order(segment.path).packets(segment) for segment in segments]
    delay = max(_delay(segment, places) for segment, places in zip(segments, plans, strict=True))
    with (
        av.open(str(out), "w", format="mp4", options={"movflags": "faststart"}) as target,
        contextlib.closing(_PacketReader()) as reader,
    ):
        stream, at, count = None, 0, 0
        for segment, places in zip(segments, plans, strict=True):
            order = reader.open(segment.path)
            if stream is None:
                stream = target.add_stream_from_template(reader.stream, opaque=True)  # no encoder needed
                stream.time_base = clock
            for place, packet in zip(places, reader.packets(places), strict=True):
                packet.time_base, packet.duration = clock, step
                packet.pts = int(at + order.rank[place] - segment.start) * step
                packet.dts = (count - delay) * step  # never after pts, and rises by one frame each
                packet.stream = stream
                target.mux(packet)
                count += 1
            at += segment.length


def _delay(segment: Segment, places: np.ndarray) -> int:
    """By how many frames decoding runs ahead of showing."""
    shown = stored_order(segment.path).rank[places] - segment.start
    return int((np.arange(len(places)) - shown).max())


class _PacketReader:
    """Packets of one file after the other by their places; a file is opened once for neighbours."""

    def __init__(self) -> None:
        self.path: Path | None = None
        self.container: Any = None

    def open(self, path: Path) -> StoredOrder:
        if path != self.path:
            self.close()
            self.container, self.path = av.open(str(path)), path
            self.stream = self.container.streams.video[0]
            self.order, self.next = stored_order(path), 0
            self.source = self.container.demux(self.stream)
        return self.order

    def packets(self, places: np.ndarray) -> Iterator[Any]:
        if places[0] != self.next:
            self.container.seek(int(self.order.dts[places[0]]), stream=self.stream, backward=True)
            self.source = self.container.demux(self.stream)
        wanted = iter(self.order.pts[places].tolist())
        pts = next(wanted, None)
        while pts is not None:
            packet = next(self.source, None)
            if packet is None or (packet.pts is None and not packet.size):
                raise DatasetError(
                    f"{self.path}: the packet of pts {pts} was not found where its table says."
                )
            if packet.pts == pts:
                yield packet
                pts = next(wanted, None)
        self.next = int(places[-1]) + 1

    def is_clean(self, path: Path, frame: int) -> bool:
        order = self.open(path)
        context = self.stream.codec_context
        if context.codec.canonical_name not in NAL_CODECS:
            return True
        packet = next(self.packets(order.place[frame : frame + 1]))
        self.next = -1  # the iterator was left in the middle
        return _is_clean(bytes(packet), context)

    def close(self) -> None:
        if self.container is not None:
            self.container.close()
        self.container, self.path = None, None


def stream_kind(path: Path) -> tuple[Any, ...]:
    """What two files must share to be joined: codec, size, pixel format and the codec's header."""
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        return context.name, context.width, context.height, context.pix_fmt, context.extradata


def has_audio(path: Path) -> bool:
    """Whether a file holds sound, which joining leaves out."""
    with av.open(str(path)) as container:
        return bool(container.streams.audio)


def begins_cleanly(segments: Sequence[Segment]) -> list[bool]:
    """Whether each segment may follow another one: its first picture makes decoders forget what came before.

    Key frames of open groups of pictures (CRA of HEVC, recovery points of H.264) do not; a segment that
    begins with one must be the first of its file.
    """
    with contextlib.closing(_PacketReader()) as reader:
        return [reader.is_clean(segment.path, segment.start) for segment in segments]


def clean_start(path: Path, frame: int) -> int:
    """The last frame up to this one from which decoding can begin as if the file began there."""
    order = stored_order(path)
    keys = np.flatnonzero(order.is_key[order.place[: frame + 1]])[::-1].tolist()
    with contextlib.closing(_PacketReader()) as reader:
        return next((key for key in keys if key == 0 or reader.is_clean(path, key)), 0)


def _is_clean(data: bytes, context: Any) -> bool:
    """Whether an access unit of a key frame, as mp4 stores it, is an instantaneous refresh."""
    is_hevc, header = context.codec.canonical_name == "hevc", bytes(context.extradata or b"")
    at = 21 if is_hevc else 4  # the byte of hvcC or avcC whose low bits are the size of lengths, less one
    size = (header[at] & 3) + 1 if len(header) > at else 4
    start = 0
    while start + size < len(data):
        first = data[start + size]
        kind = (first >> 1) & 63 if is_hevc else first & 31
        if kind in CLEAN_HEVC if is_hevc else kind == IDR_H264:
            return True
        start += size + int.from_bytes(data[start : start + size], "big")
    return False
