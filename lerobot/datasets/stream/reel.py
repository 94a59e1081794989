"""The items of a run of episodes, one after another: numbers gathered at once, every frame decoded once.

    episode rows -> chunks of items: numbers and windows by one gather per column
    cameras      -> only frames that an item's window needs, in order, dropped after their last use

Shapes: P items of a chunk, T offsets of delta_timestamps, L frames of an episode, C H W picture.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lerobot.core import keys
from lerobot.core.errors import DatasetError
from lerobot.core.types import image_shape
from lerobot.datasets import images
from lerobot.datasets.metadata import LeRobotDatasetMetadata
from lerobot.datasets.schema import is_depth
from lerobot.datasets.stream.ranges import RangeSource
from lerobot.datasets.stream.rowgroups import DataFiles, EpisodeRows, PictureColumn
from lerobot.datasets.stream.track import SampleTable, VideoTrack

CHUNK = 4  # items of a camera dataset that are made at a time
NUMBERS_CHUNK = 64  # the same without cameras
CAMERA_DTYPES = ("image", "video")


@dataclass(slots=True)
class Entry:
    """One item before its pictures are stacked; its numbers are a row of a chunk that neighbours share."""

    chunk: dict[str, Any]  # tensors (P, [T,] ...), lists of P
    at: int
    pictures: dict[str, np.ndarray | tuple[np.ndarray, ...]]  # per camera (C, H, W), or T of them


class Reel:
    """Makes entries of one dataset; safe for several threads, each with runs of its own.

    Args:
        deltas: offsets in frames per feature; those features gain a time axis and a `<name>_is_pad` flag.
    """

    def __init__(
        self,
        meta: LeRobotDatasetMetadata,
        source: RangeSource,
        *,
        deltas: dict[str, list[int]],
        tolerance_s: float,
    ) -> None:
        self.meta, self.source, self.tolerance_s = meta, source, tolerance_s
        self.deltas = {name: np.array(offsets) for name, offsets in deltas.items()}
        self.data = DataFiles(meta, source, tolerance_s=tolerance_s)
        self.cameras = {name: meta.features[name] for name in meta.camera_keys}
        self.chunk = CHUNK if self.cameras else NUMBERS_CHUNK
        self._tables: dict[Path, SampleTable | None] = {}
        self._sizes: dict[str, tuple[int, ...]] = {}  # of the first picture of each camera

    def entries(self, run: Sequence[tuple[int, np.ndarray]]) -> Iterator[Entry]:
        """The items of (episode, ascending frame numbers in it), one after another.

        Raises:
            DatasetError: a file is missing or damaged, or does not hold what meta/ says.
        """
        open_files: dict[str, VideoTrack | PictureColumn] = {}  # per camera; the next episode may go on in it
        try:
            for episode, frames in run:
                yield from self._episode(self.data.episode(episode), frames, open_files)
        finally:
            for one in open_files.values():
                one.close()

    def _episode(
        self, rows: EpisodeRows, frames: np.ndarray, open_files: dict[str, VideoTrack | PictureColumn]
    ) -> Iterator[Entry]:
        views = {name: self._view(name, rows, frames, open_files) for name in self.cameras}
        for start in range(0, len(frames), self.chunk):
            part = frames[start : start + self.chunk]  # (P,)
            chunk = self._numbers(rows, part)
            windows = {name: self._wanted(name, part, len(rows)) for name in views}
            for at in range(len(part)):
                yield Entry(chunk, at, {name: view.take(windows[name][at]) for name, view in views.items()})

    def _wanted(self, name: str, frames: np.ndarray, length: int) -> np.ndarray:
        """Frames (P,) or (P, T) of the episode that items need of a feature."""
        if name not in self.deltas:
            return frames
        return np.clip(frames[:, None] + self.deltas[name], 0, length - 1)

    def _numbers(self, rows: EpisodeRows, frames: np.ndarray) -> dict[str, Any]:
        """Everything but pictures of P items."""
        chunk: dict[str, Any] = {}
        for name in self.meta.features:
            wanted = self._wanted(name, frames, len(rows))
            if name in rows.numbers:
                chunk[name] = rows.numbers[name][torch.from_numpy(wanted)]
            elif name in rows.texts:
                chunk[name] = _pick(rows.texts[name], wanted)
        for name, offsets in self.deltas.items():
            wanted = frames[:, None] + offsets
            chunk[f"{name}{keys.PAD_SUFFIX}"] = torch.from_numpy((wanted < 0) | (wanted >= len(rows)))
        tasks = rows.numbers[keys.TASK_INDEX][torch.from_numpy(frames)]
        chunk[keys.TASK] = [self.meta.tasks.name(int(i)) for i in tasks]
        return chunk

    def _view(
        self,
        name: str,
        rows: EpisodeRows,
        frames: np.ndarray,
        open_files: dict[str, VideoTrack | PictureColumn],
    ) -> "View":
        needed = np.unique(self._wanted(name, frames, len(rows)))
        read = self._video if self.cameras[name]["dtype"] == "video" else self._images
        return View(needed, self._checked(name, read(name, rows, needed, open_files)))

    def _video(
        self, name: str, rows: EpisodeRows, needed: np.ndarray, open_files: dict[str, Any]
    ) -> Iterator[np.ndarray]:
        path = self.meta.get_video_file_path(rows.episode, name)
        track = open_files.get(name)
        if track is None or track.path != path:
            if track is not None:
                track.close()
            track = open_files[name] = VideoTrack(
                self.source,
                path,
                fps=self.meta.fps,
                tolerance_s=self.tolerance_s,
                is_depth=is_depth(self.cameras[name]),
                tables=self._tables,
            )
        seconds = self.meta.episodes.columns[f"videos/{name}/from_timestamp"][rows.episode]
        return track.frames(float(seconds), needed)

    def _images(
        self, name: str, rows: EpisodeRows, needed: np.ndarray, open_files: dict[str, Any]
    ) -> Iterator[np.ndarray]:
        column = open_files.get(name)
        if column is None or column.path != rows.path:
            column = open_files[name] = self.data.pictures(name, rows.path)
        has_depth = is_depth(self.cameras[name])
        for data, where in column.read(rows.rows[needed]):
            yield images.decode(data, where=where, is_depth=has_depth)

    def _checked(self, name: str, pictures: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        feature = self.cameras[name]
        for picture in pictures:
            # Pictures inside data files are whatever size they are; videos are as declared.
            expected = image_shape(feature) if feature["dtype"] == "video" else picture.shape
            if picture.shape != self._sizes.setdefault(name, expected):
                raise DatasetError(
                    f"{name!r} has a picture of shape {picture.shape}, expected {self._sizes[name]} "
                    "(channels, height, width) like the others."
                )
            yield picture


class View:
    """The frames of one camera and episode that coming items still need."""

    def __init__(self, needed: np.ndarray, pictures: Iterator[np.ndarray]) -> None:
        self._coming = zip(needed.tolist(), pictures, strict=True)
        self._held: dict[int, np.ndarray] = {}
        self._last = -1

    def take(self, wanted: np.ndarray) -> np.ndarray | tuple[np.ndarray, ...]:
        """The frame, or the T frames, of the next item; each of them is no lower than in the item before."""
        frames = wanted.reshape(-1).tolist()
        while self._last < max(frames):
            self._last, self._held[self._last] = next(self._coming)
        for old in [k for k in self._held if k < min(frames)]:
            del self._held[old]
        return tuple(self._held[k] for k in frames) if wanted.ndim else self._held[frames[0]]


def _pick(values: list, rows: np.ndarray) -> list:
    """Texts of rows (P,), or lists of them for windows (P, T)."""
    if rows.ndim == 2:
        return [[values[i] for i in window] for window in rows]
    return [values[i] for i in rows]
