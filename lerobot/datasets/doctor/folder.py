"""A dataset's folder as the doctor reads it: raw, piece by piece, never refusing to go on.

    meta/info.json -> info, features     meta/tasks.parquet -> texts     meta/episodes/** -> Episodes

Whatever cannot be read becomes a finding, and what depends on it is left out of later checks.
Shapes: E episodes.
"""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lerobot.core import keys
from lerobot.datasets.schema import IMAGE_DTYPES, data_features, is_numeric


@dataclass(kw_only=True)
class Places:
    """Which file holds each episode, and for videos where in it."""

    files: list[str]  # distinct paths relative to the root
    file: np.ndarray  # (E,) int64: number in `files`; -1 where the table does not say
    start_s: np.ndarray = field(default_factory=lambda: np.empty(0))  # (E,) float64, videos only
    end_s: np.ndarray = field(default_factory=lambda: np.empty(0))  # (E,) float64, videos only

    def of_file(self, number: int) -> np.ndarray:
        """The episodes (positions in the table) that lie in a file."""
        return np.flatnonzero(self.file == number)


@dataclass(kw_only=True)
class Episodes:
    """The episode table as it is stored, as arrays."""

    number: np.ndarray  # (E,) int64 episode_index
    length: np.ndarray  # (E,) int64
    start: np.ndarray  # (E,) int64 dataset_from_index
    end: np.ndarray  # (E,) int64 dataset_to_index
    tasks: list[list[str]] | None  # None: the table has no such column
    data: Places
    videos: dict[str, Places]
    table_files: list[str]  # files of meta/episodes that could be read, in order
    table_file: np.ndarray  # (E,) int64: number in `table_files`

    def __len__(self) -> int:
        return len(self.number)

    @cached_property
    def starts(self) -> np.ndarray:
        """(E,) first row of each episode: the stored one, or lengths added up where those make no sense."""
        if self._has_ranges:
            return self.start
        return np.cumsum(self.lengths) - self.lengths

    @cached_property
    def lengths(self) -> np.ndarray:
        """(E,) rows of each episode, from the stored ranges where these make sense."""
        return self.end - self.start if self._has_ranges else np.maximum(self.length, 0)

    @cached_property
    def _has_ranges(self) -> bool:
        follows = np.array_equal(
            self.start, np.concatenate([[0], self.end[:-1]]) if len(self) else self.start
        )
        return follows and bool((self.end > self.start).all())


@dataclass(kw_only=True)
class Folder:
    """What could be read of a dataset's `meta/`; None where it could not."""

    root: Path
    info: dict[str, Any] | None = None
    features: dict[str, dict] = field(default_factory=dict)  # those whose declaration can be used
    fps: float | None = None
    tasks: list[str] | None = None
    episodes: Episodes | None = None
    is_old: bool = False  # format v2.x: a file per episode

    @property
    def columns(self) -> dict[str, dict]:
        """Features that data files hold."""
        return data_features(self.features)

    @property
    def numbers(self) -> dict[str, dict]:
        """Features that are numeric columns."""
        return {name: one for name, one in self.columns.items() if is_numeric(one)}

    @property
    def image_keys(self) -> list[str]:
        """Cameras inside the data files."""
        return [name for name, one in self.features.items() if one["dtype"] == "image"]

    @property
    def video_keys(self) -> list[str]:
        """Cameras in mp4 files."""
        return [name for name, one in self.features.items() if one["dtype"] == "video"]

    @property
    def camera_keys(self) -> list[str]:
        """All cameras."""
        return [name for name, one in self.features.items() if one["dtype"] in IMAGE_DTYPES]

    @property
    def num_tasks(self) -> int | None:
        """How many tasks the table has."""
        return None if self.tasks is None else len(self.tasks)


def holds_traces(root: Path) -> bool:
    """Whether a folder has anything that a dataset consists of."""
    return (root / keys.INFO_FILE).exists() or any((root / name).is_dir() for name in ("meta", "data"))
