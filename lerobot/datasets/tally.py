"""Picture statistics of an episode while it is recorded, without keeping its pictures.

    picture -> every n-th pixel -> counts of 256 levels (colour) | pixels (depth) -> sampled frames -> stats

How many frames are sampled depends on the episode's length, which is only known at its end, so a small
summary of every frame is kept; past `MAX_KEPT` frames every second one is dropped, again and again.
Shapes: C H W picture.
"""

import numpy as np

from lerobot.datasets.histogram import RunningQuantileStats
from lerobot.datasets.stats import picture_stats, sample_indices, thin_picture

MAX_KEPT = 4096
LEVELS = 256


class PictureTally:
    """Statistics of one camera over one episode."""

    def __init__(self, *, is_depth: bool) -> None:
        self.is_depth = is_depth
        self._kept: list[np.ndarray] = []
        self._stride = 1  # every how many frames one is kept
        self._num_frames = 0

    def add(self, picture: np.ndarray) -> None:
        """Count the next picture (C, H, W)."""
        if self._num_frames % self._stride == 0:
            thin = thin_picture(picture)
            self._kept.append(thin.copy() if self.is_depth else _levels(thin))
            if len(self._kept) > MAX_KEPT:
                self._kept, self._stride = self._kept[::2], self._stride * 2
        self._num_frames += 1

    def stats(self) -> dict[str, np.ndarray]:
        """min, max, mean, std, quantiles (C, 1, 1) and count (1,): the number of sampled frames."""
        wanted = sample_indices(self._num_frames)
        chosen = sorted({min(round(frame / self._stride), len(self._kept) - 1) for frame in wanted})
        running = RunningQuantileStats()
        if self.is_depth:
            running.update(np.stack([self._kept[i] for i in chosen]).reshape(-1, 1))
        else:
            counts = np.stack([self._kept[i] for i in chosen]).sum(axis=0, dtype=np.int64)  # (C, 256)
            levels = np.repeat(np.arange(LEVELS, dtype=np.uint8)[:, None], len(counts), axis=1)  # (256, C)
            running.update(levels, counts.T)
        stats = running.get_statistics() | {"count": np.array([len(chosen)])}
        return picture_stats(stats, is_colour=not self.is_depth)


def _levels(picture: np.ndarray) -> np.ndarray:
    """How often each level occurs, (C, 256)."""
    return np.stack([np.bincount(channel.ravel(), minlength=LEVELS) for channel in picture]).astype(np.uint32)
