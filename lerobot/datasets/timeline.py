"""When each frame of an mp4 is shown, and where decoding may begin: read from the container, not decoded.

    mp4 --sample table, or packets where pictures are stored out of order--> pts (N,), is_key (N,)

Frame k of a file is the k-th picture in the order of presentation times.
Shapes: N frames of the file.
"""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from lerobot.core.errors import DatasetError


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """The frames of one mp4 file in the order they are shown."""

    pts: np.ndarray  # (N,) int64, ascending, in units of time_base
    is_key: np.ndarray  # (N,) bool: decoding can begin here
    time_base: Fraction  # seconds per unit

    def __len__(self) -> int:
        return len(self.pts)

    @property
    def seconds(self) -> np.ndarray:
        """(N,) float64 presentation times."""
        return self.pts * (self.time_base.numerator / self.time_base.denominator)

    def off_beat(self, *, fps: float, tolerance_s: float) -> np.ndarray:
        """Numbers of the frames that are not shown at number / fps within the tolerance."""
        return np.flatnonzero(np.abs(self.seconds - np.arange(len(self)) / fps) > tolerance_s)


def read_timeline(path: Path) -> Timeline:
    """The timeline of a file on this machine.

    Raises:
        DatasetError: the file is missing, is no video, or holds no frame.
    """
    if not path.is_file():
        raise DatasetError(
            f"{path} is missing. Load the dataset with force_cache_sync=True to download it again."
        )
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise DatasetError(f"{path} is not a video that can be read (its codec is not known).")
            entries = [] if stream.codec_context.has_b_frames else stream.index_entries
            if len(entries) and len(entries) == stream.frames:
                found = [(entry.timestamp, entry.is_keyframe) for entry in entries]
            else:  # stored out of order, or without a table: the packets themselves say when they are shown
                found = [(p.pts, p.is_keyframe) for p in container.demux(stream) if p.pts is not None]
            time_base = stream.time_base
    except (av.FFmpegError, IndexError, UnicodeDecodeError) as error:  # damaged texts too
        raise DatasetError(f"{path} is not a video that can be read ({error}).") from error
    if not found:
        raise DatasetError(f"{path} holds no frame; it was cut off or never finished.")
    pts, is_key = (np.array(column) for column in zip(*found, strict=True))
    order = np.argsort(pts, kind="stable")
    return Timeline(pts=pts[order].astype(np.int64), is_key=is_key[order].astype(bool), time_base=time_base)
