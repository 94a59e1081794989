"""Items and batches of the chosen episodes: numbers gathered at once, video frames grouped by file.

    indices (B) -> rows and windows (B, T) -> numbers by one gather per column
                                           -> pictures: distinct rows decoded once
                                           -> videos:   distinct frames, by file, in order

Shapes: B items, T offsets of delta_timestamps, C H W picture.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lerobot.core import keys
from lerobot.core.errors import DatasetError
from lerobot.core.types import image_shape
from lerobot.datasets import depth, images
from lerobot.datasets.columns import Columns
from lerobot.datasets.depth import DepthScale
from lerobot.datasets.metadata import LeRobotDatasetMetadata
from lerobot.datasets.schema import is_depth
from lerobot.datasets.video import VideoPool


class FrameReader:
    """Reads frames of the chosen episodes; safe for several threads at a time.

    Args:
        deltas: offsets in frames per feature; those features gain a time axis and a `<name>_is_pad` flag.
        image_transforms: applied to every colour picture tensor ([T,] C, H, W) of every item.
        return_uint8: colour pictures as uint8 in 0..255 instead of float32 in 0..1.
        depth_output_unit: "mm" or "m".
    """

    def __init__(
        self,
        meta: LeRobotDatasetMetadata,
        episodes: list[int],
        *,
        deltas: dict[str, list[int]],
        tolerance_s: float,
        image_transforms: Callable[[Tensor], Tensor] | None = None,
        return_uint8: bool = False,
        depth_output_unit: str = "mm",
    ) -> None:
        self.meta = meta
        self.deltas = deltas
        self.image_transforms = image_transforms
        self.return_uint8 = return_uint8
        self.depth_output_unit = depth_output_unit
        self.columns = Columns(meta, episodes, tolerance_s=tolerance_s)
        self.videos = VideoPool(fps=meta.fps, tolerance_s=tolerance_s)
        self._starts: dict[tuple[str, int], tuple[int, Any]] = {}

    def batch(self, indices: Sequence[int]) -> dict[str, Any]:
        """The items at these positions, stacked: tensors (B, ...), texts as lists of B.

        Raises:
            DatasetError: a position is out of range, or a file is missing or damaged.
        """
        rows = self._rows(indices)  # (B,)
        batch: dict[str, Any] = {}
        padding: dict[str, Tensor] = {}
        windows: dict[str, np.ndarray] = {}
        for name, offsets in self.deltas.items():
            windows[name], padding[f"{name}{keys.PAD_SUFFIX}"] = self._window(rows, offsets)
        for name, feature in self.meta.features.items():
            wanted = windows.get(name, rows)  # (B,) or (B, T)
            if feature["dtype"] in ("image", "video"):
                batch[name] = self._camera(name, feature, wanted)
            elif name in self.columns.numbers:
                batch[name] = self.columns.numbers[name][torch.from_numpy(wanted)]
            else:
                batch[name] = _pick(self.columns.texts[name], wanted)
        batch |= padding
        batch[keys.TASK] = [self.meta.tasks.name(int(i)) for i in self.columns.numbers[keys.TASK_INDEX][rows]]
        return batch

    def close(self) -> None:
        """Release open video files."""
        self.videos.close()

    def _rows(self, indices: Sequence[int]) -> np.ndarray:
        rows, count = np.asarray(indices, dtype=np.int64).reshape(-1), self.columns.num_frames
        wrong = rows[(rows < -count) | (rows >= count)]
        if len(wrong):
            raise IndexError(f"Item {wrong[0]} does not exist; there are {count} (0 to {count - 1}).")
        return np.where(rows < 0, rows + count, rows)

    def _window(self, rows: np.ndarray, offsets: list[int]) -> tuple[np.ndarray, Tensor]:
        """Rows (B, T) inside each item's episode, and flags (B, T) where its border was repeated."""
        wanted = rows[:, None] + np.array(offsets)  # (B, T)
        first, last = self.columns.first[rows, None], self.columns.last[rows, None]
        return np.clip(wanted, first, last), torch.from_numpy((wanted < first) | (wanted > last))

    def _camera(self, name: str, feature: dict, wanted: np.ndarray) -> Tensor:
        """Pictures (B, [T,] C, H, W) of one camera."""
        distinct, back = np.unique(wanted, return_inverse=True)  # (U,), positions in it
        decode = self._decode_video if feature["dtype"] == "video" else self._decode_images
        pictures = torch.from_numpy(decode(name, feature, distinct))  # (U, C, H, W)
        if len(distinct) != wanted.size or not np.array_equal(back.reshape(-1), np.arange(wanted.size)):
            pictures = pictures[torch.from_numpy(back.reshape(-1))]
        pictures = pictures.reshape(*wanted.shape, *pictures.shape[1:])
        if is_depth(feature):
            return pictures
        if not self.return_uint8:
            pictures = pictures.float() / 255
        if self.image_transforms is not None:
            pictures = torch.stack([self.image_transforms(picture) for picture in pictures])
        return pictures

    def _decode_video(self, name: str, feature: dict, rows: np.ndarray) -> np.ndarray:
        """Pictures (U, C, H, W) of distinct rows from the camera's files."""
        has_depth = is_depth(feature)
        pictures = np.empty((len(rows), *image_shape(feature)), np.uint16 if has_depth else np.uint8)
        places: dict[Any, dict[int, int]] = {}
        for k, row in enumerate(rows):
            path, number = self._video_frame(name, int(row))
            places.setdefault(path, {})[number] = k
        for path, numbers in places.items():

            def put(number: int, picture: np.ndarray, numbers: dict = numbers, path: Any = path) -> None:
                if picture.shape != pictures.shape[1:]:
                    raise DatasetError(
                        f"{path} has pictures of shape {picture.shape}, meta/info.json declares "
                        f"{pictures.shape[1:]} for {name!r} (channels, height, width)."
                    )
                pictures[numbers[number]] = picture

            self.videos.read(path, list(numbers), put, is_depth=has_depth)
        if not has_depth:
            return pictures
        scale = DepthScale.from_info(feature.get("info") or {}, name=name)
        return scale.dequantize(pictures, unit=self.depth_output_unit)

    def _video_frame(self, name: str, row: int) -> tuple[Any, int]:
        """The file that holds a row's picture, and the picture's number in it."""
        episode = int(self.columns.episode[row])
        start, path = self._episode_video(name, episode)
        return path, start + row - int(self.columns.first[row])

    def _episode_video(self, name: str, episode: int) -> tuple[int, Any]:
        """The number of an episode's first picture in its file, and the file."""
        key = (name, episode)
        if key not in self._starts:
            seconds = self.meta.episodes.columns[f"videos/{name}/from_timestamp"][episode]
            path = self.meta.root / self.meta.get_video_file_path(episode, name)
            self._starts[key] = (round(seconds * self.meta.fps), path)
        return self._starts[key]

    def _decode_images(self, name: str, feature: dict, rows: np.ndarray) -> np.ndarray:
        """Pictures (U, C, H, W) of distinct rows from the data files; depth in the output unit."""
        has_depth, pictures = is_depth(feature), []
        for row in rows:
            data, where = self.columns.pictures.get(name, int(row))
            picture = images.decode(data, where=where, is_depth=has_depth)
            if has_depth:
                scale = depth.factor(depth.unit_of(picture.dtype), self.depth_output_unit)
                picture = picture.astype(np.float32) * np.float32(scale)
            pictures.append(picture)
        return np.stack(pictures)


def _pick(values: list, rows: np.ndarray) -> list:
    """Texts of rows (B,), or lists of them for windows (B, T)."""
    if rows.ndim == 2:
        return [[values[i] for i in window] for window in rows]
    return [values[i] for i in rows]
