"""Items and batches of the chosen episodes: numbers gathered at once, video frames grouped by file.

    items (B) -> frames and windows (B, T) -> numbers by one gather per column
                                           -> pictures: from the frame cache, or
                                              distinct frames decoded once, by file, in order, into the batch

Shapes: B items, T offsets of delta_timestamps, n = B or B*T frames of one camera, C H W picture.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lerobot.core import keys
from lerobot.core.errors import DatasetError, suggest
from lerobot.core.types import image_shape
from lerobot.datasets import depth, images
from lerobot.datasets.cache import identify, make_key
from lerobot.datasets.columns import Columns, Frames
from lerobot.datasets.config import CACHE_BYTES
from lerobot.datasets.depth import DepthScale
from lerobot.datasets.footage import Footage
from lerobot.datasets.frame_cache import KINDS, FrameCache, Shape, open_caches
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
        image_sizes: colour cameras that are resized, with antialiasing: name -> (H, W).
        cache: "ram" or "disk" keeps decoded colour pictures; None decodes them each time.
        cache_bytes: what they may take, all cameras together.
        skip_cameras: cameras that are not read and not in the batches.

    Raises:
        DatasetError: files are missing, damaged or contradict each other; an option names no such camera.
    """

    def __init__(
        self,
        meta: LeRobotDatasetMetadata,
        episodes: np.ndarray,
        *,
        deltas: dict[str, list[int]],
        tolerance_s: float,
        image_transforms: Callable[[Tensor], Tensor] | None = None,
        return_uint8: bool = False,
        depth_output_unit: str = "mm",
        image_sizes: Mapping[str, tuple[int, int]] | None = None,
        cache: str | None = None,
        cache_bytes: int | None = None,
        skip_cameras: Collection[str] = (),
    ) -> None:
        self.meta = meta
        self.features = {name: one for name, one in meta.features.items() if name not in skip_cameras}
        self.deltas = {name: offsets for name, offsets in deltas.items() if name in self.features}
        self.image_transforms = image_transforms
        self.return_uint8 = return_uint8
        self.depth_output_unit = depth_output_unit
        self.columns = Columns(meta, episodes, tolerance_s=tolerance_s)
        self.footage = Footage(meta, episodes, tolerance_s=tolerance_s, skip=skip_cameras)
        self.videos = VideoPool()
        self.image_sizes = self._checked_sizes(image_sizes or {})
        self._sources: dict[str, Shape] = {}
        self.caches = self._open_caches(cache, CACHE_BYTES if cache_bytes is None else cache_bytes)

    def batch(self, indices: Sequence[int]) -> dict[str, Any]:
        """The items at these positions, stacked: tensors (B, ...), texts as lists of B.

        Raises:
            IndexError: a position is out of range.
            DatasetError: a file is missing or damaged.
        """
        frames = self.columns.frames(self._items(indices))  # (B,)
        batch: dict[str, Any] = {}
        padding: dict[str, Tensor] = {}
        windows: dict[str, Frames] = {}
        for name, offsets in self.deltas.items():
            windows[name], is_pad = frames.window(offsets, self.columns.lengths)  # (B, T)
            padding[f"{name}{keys.PAD_SUFFIX}"] = torch.from_numpy(is_pad)
        for name, feature in self.features.items():
            wanted = windows.get(name, frames)  # (B,) or (B, T)
            if feature["dtype"] in ("image", "video"):
                batch[name] = self._camera(name, feature, wanted)
            elif name in self.columns.numbers:
                batch[name] = self.columns.values(name, wanted)
            else:
                batch[name] = self.columns.words(name, wanted)
        batch |= padding
        tasks = self.columns.values(keys.TASK_INDEX, frames).tolist()
        batch[keys.TASK] = [self.meta.tasks.name(task) for task in tasks]
        return batch

    def close(self) -> None:
        """Release open video files."""
        self.videos.close()

    def _items(self, indices: Sequence[int]) -> np.ndarray:
        items, count = np.asarray(indices, dtype=np.int64).reshape(-1), self.columns.num_frames
        wrong = items[(items < -count) | (items >= count)]
        if len(wrong):
            raise IndexError(f"Item {wrong[0]} does not exist; there are {count} (0 to {count - 1}).")
        return np.where(items < 0, items + count, items)

    # --- pictures

    def _camera(self, name: str, feature: dict, frames: Frames) -> Tensor:
        """Pictures (B, [T,] C, H, W) of one camera."""
        shape = frames.offset.shape
        flat = Frames(frames.episode.reshape(-1), frames.offset.reshape(-1))  # (n,)
        if is_depth(feature):
            return torch.from_numpy(self._distances(name, feature, flat)).unflatten(0, shape)
        pictures = torch.from_numpy(self._colours(name, feature, flat)).unflatten(0, shape)
        if not self.return_uint8:
            pictures = pictures.float().div_(255)
        if self.image_transforms is not None:
            pictures = torch.stack([self.image_transforms(picture) for picture in pictures])
        return pictures

    def _colours(self, name: str, feature: dict, frames: Frames) -> np.ndarray:
        """Pictures (n, C, H, W) uint8, at the size that was asked for."""
        items = self.columns.items(frames)  # (n,)
        out = np.empty((len(items), *self._shape(name, feature)), np.uint8)
        cache = self.caches.get(name)
        missing = np.flatnonzero(
            cache.take(items, out) if cache is not None else np.ones(len(items), dtype=bool)
        )
        if not len(missing):
            return out
        distinct, at, back = np.unique(items[missing], return_index=True, return_inverse=True)
        places = missing[at]  # where each distinct picture goes first
        wanted = Frames(frames.episode[places], frames.offset[places])
        if name in self.image_sizes:
            decoded = np.empty((len(distinct), *self._source(name, feature)), np.uint8)
            self._decode(name, feature, wanted, [*decoded])
            out[places] = _resize(decoded, self.image_sizes[name])
        else:
            self._decode(name, feature, wanted, [out[place] for place in places])
        if cache is not None:
            cache.keep(distinct, out, places)
        twins = missing[places[back.reshape(-1)] != missing]
        out[twins] = out[places[back.reshape(-1)[places[back.reshape(-1)] != missing]]]
        return out

    def _distances(self, name: str, feature: dict, frames: Frames) -> np.ndarray:
        """Depth pictures (n, 1, H, W) float32 in the output unit."""
        items = self.columns.items(frames)
        _, at, back = np.unique(items, return_index=True, return_inverse=True)
        wanted = Frames(frames.episode[at], frames.offset[at])
        if feature["dtype"] == "image":
            found = np.stack([self._depth_picture(name, e, k) for e, k in _pairs(wanted)])
            return found[back.reshape(-1)]
        levels = np.empty((len(at), *image_shape(feature)), np.uint16)
        self._decode(name, feature, wanted, [*levels])
        scale = DepthScale.from_info(feature.get("info") or {}, name=name)
        return scale.dequantize(levels, unit=self.depth_output_unit)[back.reshape(-1)]

    def _depth_picture(self, name: str, episode: int, offset: int) -> np.ndarray:
        data, where = self.columns.picture(name, episode=episode, offset=offset)
        picture = images.decode(data, where=where, is_depth=True)
        scale = depth.factor(depth.unit_of(picture.dtype), self.depth_output_unit)
        return picture.astype(np.float32) * np.float32(scale)

    def _decode(self, name: str, feature: dict, frames: Frames, places: list[np.ndarray]) -> None:
        """Write the pictures of distinct frames into their places (C, H, W)."""
        if feature["dtype"] == "image":
            for (episode, offset), place in zip(_pairs(frames), places, strict=True):
                data, where = self.columns.picture(name, episode=episode, offset=offset)
                picture = images.decode(data, where=where)
                if picture.shape != place.shape:
                    raise DatasetError(
                        f"{where}: the picture has shape {picture.shape}, the first one of {name!r} "
                        f"{place.shape} (channels, height, width)."
                    )
                place[...] = picture
            return
        files, numbers = self.footage.place(name, frames)
        for file in np.unique(files):
            members = np.flatnonzero(files == file)
            wanted: dict[int, np.ndarray] = {}
            twins = [  # frames that two episodes claim
                (places[k], first)
                for k in members
                if (first := wanted.setdefault(int(numbers[k]), places[k])) is not places[k]
            ]
            path, timeline = self.footage.timeline(name, int(file))
            self.videos.read(path, timeline, wanted, is_depth=is_depth(feature))
            for place, first in twins:
                place[...] = first

    # --- sizes and caches

    def _source(self, name: str, feature: dict) -> Shape:
        """Size (C, H, W) of a colour camera's pictures before resizing.

        Pictures inside data files are whatever size they are; videos are as declared.
        """
        if name not in self._sources:
            _, height, width = image_shape(feature)
            if feature["dtype"] == "image" and self.columns.num_frames:
                data, where = self.columns.picture(
                    name, episode=int(np.flatnonzero(self.columns.lengths)[0]), offset=0
                )
                height, width = images.decode(data, where=where).shape[1:]
            self._sources[name] = (3, height, width)
        return self._sources[name]

    def _shape(self, name: str, feature: dict) -> Shape:
        """Size (C, H, W) of a colour camera's pictures in items."""
        if name in self.image_sizes:
            return (3, *self.image_sizes[name])
        return self._source(name, feature)

    def _colour_cameras(self) -> dict[str, dict]:
        return {
            name: self.meta.features[name]
            for name in self.meta.camera_keys
            if name in self.features and name not in self.meta.depth_keys
        }

    def _checked_sizes(self, sizes: Mapping[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
        cameras = self._colour_cameras()
        for name, size in sizes.items():
            if name not in cameras:
                raise DatasetError(
                    f"image_sizes names {name!r}, which is no colour camera.{suggest(name, cameras)}"
                )
            if len(size) != 2 or min(size) < 1:
                raise DatasetError(f"image_sizes[{name!r}]={size!r}: expected (height, width) in pixels.")
        return {name: (int(size[0]), int(size[1])) for name, size in sizes.items()}

    def _open_caches(self, kind: str | None, budget: int) -> dict[str, FrameCache]:
        if kind is None:
            return {}
        if kind not in KINDS:
            raise DatasetError(f"cache={kind!r}: expected 'ram', 'disk' or None.")
        shapes = {name: self._shape(name, one) for name, one in self._colour_cameras().items()}
        return open_caches(
            kind,
            shapes,
            num_items=self.columns.num_frames,
            budget=budget,
            root=self.meta.root,
            names={name: self._content(name, shape) for name, shape in shapes.items()}
            if kind == "disk"
            else {},
        )

    def _content(self, name: str, shape: Shape) -> str:
        """What tells a camera's pictures from all others: its files, the chosen episodes and the size."""
        is_video = self.meta.features[name]["dtype"] == "video"
        paths, _ = self.meta.files_of(self.columns.episodes, video_key=name if is_video else None)
        chosen = np.stack([self.columns.episodes, self.columns.starts, self.columns.lengths])
        return make_key(name, shape, identify(self.meta.root, paths), chosen.tolist())


def _pairs(frames: Frames) -> list[tuple[int, int]]:
    return list(zip(frames.episode.tolist(), frames.offset.tolist(), strict=True))


def _resize(pictures: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pictures (n, C, H, W) uint8 at another size, bilinear with antialiasing."""
    if pictures.shape[2:] == size:
        return pictures
    resized = torch.nn.functional.interpolate(
        torch.from_numpy(pictures), size=size, mode="bilinear", antialias=True
    )
    return resized.numpy()
