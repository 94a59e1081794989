"""Picture statistics of an episode while it is recorded, without keeping its pictures.

    picture -> every n-th pixel -> counts of 256 levels (colour) | pixels (depth) -> sampled frames -> summary

How many frames are sampled depends on the episode's length, which is only known at its end, so a small
summary of every frame is kept; past `MAX_KEPT` frames every second one is dropped, again and again, and the
kept frame nearest to each sampled one stands for it.
Shapes: C H W picture, N pixels.
"""

import numpy as np

from lerobot.datasets.stats import picture_stats, sample_indices, thin_picture
from lerobot.datasets.summary import Summary

MAX_KEPT = 4096
LEVELS = 256


class PictureTally:
    """Statistics of one camera over one episode. Not for two threads at a time."""

    def __init__(self, *, is_depth: bool) -> None:
        self.is_depth = is_depth
        self._kept: list[np.ndarray] = []
        self._stride = 1  # every how many frames one is kept
        self._num_frames = 0

    def add(self, picture: np.ndarray) -> None:
        """Count the next picture (C, H, W); it may be changed afterwards."""
        if self._num_frames % self._stride == 0:
            thin = thin_picture(picture)
            self._kept.append(thin.copy() if self.is_depth else count_levels(thin))
            if len(self._kept) > MAX_KEPT:
                self._kept, self._stride = self._kept[::2], self._stride * 2
        self._num_frames += 1

    def summary(self) -> Summary:
        """Of the sampled frames: levels 0..255 of a colour camera, distances of a depth camera."""
        wanted = sample_indices(self._num_frames)
        chosen = sorted({min(round(frame / self._stride), len(self._kept) - 1) for frame in wanted})
        kept = [self._kept[i] for i in chosen]
        return summary_of_depth(kept) if self.is_depth else summary_of_levels(kept)

    def stats(self) -> dict[str, np.ndarray]:
        """min, max, mean, std, quantiles (C, 1, 1) and count (1,): the number of sampled frames."""
        return picture_stats(self.summary().stats(), is_colour=not self.is_depth)


def count_levels(picture: np.ndarray) -> np.ndarray:
    """How often each level occurs in a picture (C, H, W) of bytes: (C, 256)."""
    # One channel at a time: bincount turns bytes into 64-bit numbers, and a channel of those fits the cache.
    return np.stack([np.bincount(channel.ravel(), minlength=LEVELS) for channel in picture]).astype(np.uint32)


def summary_of_levels(counts: list[np.ndarray]) -> Summary:
    """The summary of pictures whose levels were counted, each (C, 256)."""
    return Summary.of_levels(np.stack(counts).sum(axis=0, dtype=np.int64), num_pictures=len(counts))


def summary_of_depth(pictures: list[np.ndarray]) -> Summary:
    """The summary of thinned depth pictures (1, H, W), in their own unit."""
    if pictures[0].dtype == np.uint16:  # millimetres: counting them is much faster than sorting them
        counts = np.zeros((1, 1 << 16), np.int64)
        for picture in pictures:
            counts += np.bincount(picture.ravel(), minlength=1 << 16)
        return Summary.of_levels(counts, num_pictures=len(pictures))
    whole = Summary.of_rows(np.concatenate([picture.ravel() for picture in pictures]))
    whole.rows = len(pictures)
    return whole
