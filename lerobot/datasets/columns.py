"""The numbers and texts of the chosen episodes: in memory, or mapped from the cache once they are many.

    items (B) -> Frames: episode, place in it -> windows (B, T) -> one gather per column

What is wrong with a chosen episode is said when the columns are opened; other episodes may be damaged.
Shapes: E chosen episodes, M episodes in the files that were read, B items, T window.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from lerobot.core import keys
from lerobot.core.errors import DatasetError
from lerobot.datasets.cache import CacheFolder, Stored, in_memory, make_key, open_entry
from lerobot.datasets.metadata import LeRobotDatasetMetadata
from lerobot.datasets.pictures import PictureStore
from lerobot.datasets.rows import COLUMN, HAS_NUMBER, HAS_STEPS, IS_WHOLE, RowSource, read_texts

CACHED_FROM_BYTES = 16 * 1024**2  # size of the numbers from which on they are kept in the cache
CACHED_FROM_FILES = 32  # or so many files, each of which takes a millisecond to open
KIND = "columns"
MAPPED = ("numbers", "texts", "pictures", "first_rows")


@dataclass(frozen=True)
class Frames:
    """Frames by episode, numbered through the chosen ones, and place in it; (B,) or (B, T) each."""

    episode: np.ndarray
    offset: np.ndarray

    def window(self, offsets: list[int], lengths: np.ndarray) -> tuple["Frames", np.ndarray]:
        """Frames (B, T) around these, and flags (B, T) where the episode's border is repeated instead."""
        wanted = self.offset[:, None] + np.array(offsets)
        kept = np.clip(wanted, 0, lengths[self.episode][:, None] - 1)
        return Frames(np.broadcast_to(self.episode[:, None], wanted.shape), kept), kept != wanted


class ItemNumbers(Mapping):
    """Number in the whole dataset -> number among the items of the chosen episodes, found without a table.

    Args:
        starts, lengths: (E,) first frame, ascending, and number of frames of each chosen episode.
    """

    def __init__(self, starts: np.ndarray, lengths: np.ndarray) -> None:
        self.starts, self.lengths = starts, lengths
        self.shift = np.cumsum(lengths) - lengths - starts

    def __getitem__(self, frame: int) -> int:
        k = int(np.searchsorted(self.starts, frame, side="right")) - 1
        if k < 0 or frame >= self.starts[k] + self.lengths[k]:
            raise KeyError(frame)
        return int(frame + self.shift[k])

    def __iter__(self) -> Iterator[int]:
        for start, length in zip(self.starts.tolist(), self.lengths.tolist(), strict=True):
            yield from range(start, start + length)

    def __len__(self) -> int:
        return int(self.lengths.sum())


class Columns:
    """Columns of the chosen episodes.

    Raises:
        DatasetError: a file is missing or damaged, lacks a column, or does not hold the rows of its episodes.
    """

    def __init__(self, meta: LeRobotDatasetMetadata, episodes: np.ndarray, *, tolerance_s: float) -> None:
        self.meta, self.tolerance_s = meta, tolerance_s
        self.episodes = np.asarray(episodes, dtype=np.int64)  # (E,)
        starts, lengths = (
            np.asarray(meta.episodes.column(name), dtype=np.int64)
            for name in ("dataset_from_index", "length")
        )
        self.starts, self.lengths = starts[self.episodes], lengths[self.episodes]  # (E,)
        self.ends = np.cumsum(self.lengths)  # (E,) one past the last item of each
        self.num_frames = int(self.lengths.sum())
        self._open()

    def __getstate__(self) -> dict[str, Any]:
        """What is mapped from a file is mapped again in the other process."""
        return {k: v for k, v in self.__dict__.items() if self.path is None or k not in MAPPED}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self.path is not None:
            try:
                self._use(open_entry(self.path))
            except (OSError, ValueError):  # removed or damaged meanwhile
                self._open()

    def frames(self, items: np.ndarray) -> Frames:
        """Where items (B,) are."""
        episode = np.searchsorted(self.ends, items, side="right")
        return Frames(episode, items - (self.ends - self.lengths)[episode])

    def items(self, frames: Frames) -> np.ndarray:
        """The reverse of `frames`: item numbers of the same shape."""
        return (self.ends - self.lengths)[frames.episode] + frames.offset

    def values(self, name: str, frames: Frames) -> torch.Tensor:
        """Numbers (B, [T,] *shape) of one column."""
        rows = torch.from_numpy(self.first_rows[frames.episode] + frames.offset)
        column = self.numbers[name]
        return column.index_select(0, rows.reshape(-1)).reshape(*rows.shape, *column.shape[1:])

    def words(self, name: str, frames: Frames) -> list:
        """Texts of one column: a list of B, of lists of T for windows."""
        rows = self.first_rows[frames.episode] + frames.offset
        flat = self.texts[name].take(pa.array(rows.reshape(-1))).to_pylist()
        return (
            flat
            if rows.ndim == 1
            else [flat[k : k + rows.shape[1]] for k in range(0, rows.size, rows.shape[1])]
        )

    def picture(self, name: str, *, episode: int, offset: int) -> tuple[bytes, str]:
        """The encoded picture of one frame, and words for where it lies."""
        return self.pictures.get(name, int(self.first_rows[episode]) + offset)

    def _open(self) -> None:
        """From the cache or from the files; the columns of all files serve every choice of episodes."""
        source = RowSource.of(self.meta, self.episodes)
        if source.num_bytes < CACHED_FROM_BYTES and len(source.names) < CACHED_FROM_FILES:
            stored: Stored | None = in_memory(source.layout(), source.fill)
        else:
            cache = CacheFolder(self.meta.root)
            every = RowSource.of(self.meta, np.arange(len(self.meta.episodes)))
            stored = next(
                (found for one in (every, source) if (found := cache.find(KIND, _key(one)))), None
            ) or cache.make(
                KIND, _key(source), layout=source.layout(), fill=source.fill, sources=source.identities
            )
        assert stored is not None
        self._use(stored)
        self._check(stored)

    def _use(self, stored: Stored) -> None:
        arrays, self.path = stored.arrays, stored.path
        self.numbers = {
            name.removeprefix(COLUMN): torch.from_numpy(array)
            for name, array in arrays.items()
            if name.startswith(COLUMN)
        }
        self.texts = read_texts(arrays["texts"]) if "texts" in arrays else {}
        self.first_rows = arrays["first_row"][self._members(stored)]  # (E,)
        if "file_row" in arrays:
            paths = [self.meta.root / name for name in stored.about["files"]]
            self.pictures = PictureStore(paths, starts=arrays["file_start"], rows=arrays["file_row"])

    def _members(self, stored: Stored) -> np.ndarray:
        """Where the chosen episodes (E,) are among the M."""
        order = np.argsort(stored.arrays["episode"], kind="stable")
        return order[np.searchsorted(stored.arrays["episode"], self.episodes, sorter=order)]

    # --- what may be wrong

    def _check(self, stored: Stored) -> None:
        """Every chosen episode must be there in order, and count from 0 in steps of 1 / fps."""
        member = self._members(stored)
        flags, error = stored.arrays["flags"][member], stored.arrays["time_error"][member]
        lowest, highest = stored.arrays["task_low"][member], stored.arrays["task_high"][member]
        filled = self.lengths > 0
        for wrong, explain in (
            (flags & IS_WHOLE == 0, self._say_missing),
            ((flags & HAS_STEPS == 0) | ~(error <= self.tolerance_s), self._say_out_of_step),
            (flags & HAS_NUMBER == 0, self._say_other_number),
            ((lowest < 0) | (highest >= len(self.meta.tasks)), self._say_unknown_task),
        ):
            found = np.flatnonzero(wrong & filled)
            if len(found):
                k = int(found[0])
                path = self.meta.root / self.meta.get_data_file_path(int(self.episodes[k]))
                more = f" ({len(found)} episodes are like this.)" if len(found) > 1 else ""
                raise DatasetError(explain(path, k, int(stored.arrays["found"][member[k]])) + more)

    def _say_missing(self, path: Path, k: int, found: int) -> str:
        start, length = int(self.starts[k]), int(self.lengths[k])
        what = "in another order than" if found == length else f"{found} of"
        return (
            f"{path} holds {what} the {length} frames that meta/episodes places there for episode "
            f"{self.episodes[k]} (index {start} to {start + length - 1}). "
            f"Type: lerobot-doctor {self.meta.root}, or load the dataset with force_cache_sync=True to "
            "download it again."
        )

    def _say_out_of_step(self, path: Path, k: int, found: int) -> str:
        frame, seconds = (self._episode(name, k) for name in (keys.FRAME_INDEX, keys.TIMESTAMP))
        counted = np.arange(len(frame))
        expected = counted / self.meta.fps
        error = np.abs(seconds.astype(np.float64) - expected) - expected * np.finfo(np.float32).eps
        wrong = np.flatnonzero((frame != counted) | ~(error <= self.tolerance_s))
        j = int(wrong[0])
        return (
            f"{path}: {len(wrong)} rows are out of step with fps={self.meta.fps}; the first is episode "
            f"{self.episodes[k]}, frame_index {frame[j]} (expected {j}), timestamp {seconds[j]:.6f} s "
            f"(expected {expected[j]:.6f} s within {self.tolerance_s} s). Correct fps in meta/info.json, "
            f"give a larger tolerance_s, or type: lerobot-doctor {self.meta.root}"
        )

    def _say_other_number(self, path: Path, k: int, found: int) -> str:
        stored = self._episode(keys.EPISODE_INDEX, k)
        j = int(np.flatnonzero(stored != self.episodes[k])[0])
        return (
            f"{path}: frame {j} of episode {self.episodes[k]} says episode_index {stored[j]}. "
            f"Type: lerobot-doctor {self.meta.root}"
        )

    def _say_unknown_task(self, path: Path, k: int, found: int) -> str:
        stored, count = self._episode(keys.TASK_INDEX, k), len(self.meta.tasks)
        j = int(np.flatnonzero((stored < 0) | (stored >= count))[0])
        return (
            f"{path}: frame {j} of episode {self.episodes[k]} has task_index {stored[j]}; "
            f"meta/tasks.parquet has {count} tasks (0 to {count - 1}). Type: lerobot-doctor {self.meta.root}"
        )

    def _episode(self, name: str, k: int) -> np.ndarray:
        """One column of one chosen episode."""
        first = int(self.first_rows[k])
        return self.numbers[name][first : first + int(self.lengths[k])].numpy()


def _key(source: RowSource) -> str:
    return make_key(KIND, source.described(), source.identities)
