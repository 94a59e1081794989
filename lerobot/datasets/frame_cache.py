"""Decoded pictures at the size that is used, kept in memory or in files, so that later epochs decode nothing.

    marks (N,) checksum of each picture, 0: not there yet | pixels (N, C, H, W) uint8      by item number < N

Pixels are written before their mark, and pictures that another process or an earlier run wrote are compared
with their mark before they are served: an unfinished or damaged one is decoded again.
"""

import logging
import mmap
import os
import threading
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lerobot.core.errors import DatasetError
from lerobot.datasets.cache import CacheFolder, reserve

logger = logging.getLogger(__name__)

KINDS = ("ram", "disk")
MARK_BYTES, PAGE_BYTES = 4, 4096
GIB = 1024**3
Shape = tuple[int, int, int]  # C H W


class FrameCache:
    """Pictures of the first `capacity` items of one camera; for any number of threads and processes.

    Args:
        path: the file they are in; None keeps them in memory, shared with processes that are forked.
    """

    def __init__(self, capacity: int, shape: Shape, path: Path | None = None) -> None:
        self.capacity, self.shape, self.path = capacity, shape, path
        if path is None:
            memory = np.frombuffer(mmap.mmap(-1, file_bytes(capacity, shape)), np.uint8)
        else:
            memory = np.asarray(np.memmap(path, dtype=np.uint8, mode="r+"))
        self._marks = memory[: MARK_BYTES * capacity].view(np.uint32)
        self._pixels = memory[_pixels_at(capacity) :].reshape(capacity, *shape)
        self._rows = torch.from_numpy(self._pixels.reshape(capacity, -1))
        self._is_good = np.zeros(capacity, dtype=bool)  # written or compared by this process
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """Another process maps the same file; one in memory begins empty there."""
        return {"capacity": self.capacity, "shape": self.shape, "path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["capacity"], state["shape"], state["path"])  # type: ignore[misc]

    def __len__(self) -> int:
        """Pictures that are there."""
        return int(np.count_nonzero(self._marks))

    def take(self, items: np.ndarray, out: np.ndarray) -> np.ndarray:
        """Copy the pictures of items (n,) that are there to `out` (n, C, H, W); flags (n,) of the others."""
        inside = items < self.capacity
        self._compare(items[inside])
        there = np.zeros(len(items), dtype=bool)
        there[inside] = self._is_good[items[inside]]
        if there.all():
            flat = torch.from_numpy(out.reshape(len(items), -1))
            torch.index_select(self._rows, 0, torch.from_numpy(items), out=flat)
        else:
            for k in np.flatnonzero(there):
                out[k] = self._pixels[items[k]]
        return ~there

    def keep(self, items: np.ndarray, pictures: np.ndarray, places: np.ndarray) -> None:
        """Store `pictures[places[k]]` as the picture of `items[k]`, where there is room."""
        for item, place in zip(items.tolist(), places.tolist(), strict=True):
            if item < self.capacity and not self._is_good[item]:
                self._pixels[item] = pictures[place]
                mark = _mark(pictures[place])
                with self._lock:  # not before the pixels
                    self._marks[item] = mark
                    self._is_good[item] = True

    def _compare(self, items: np.ndarray) -> None:
        """Look at pictures that this process did not write."""
        strange = items[~self._is_good[items]]
        for item in np.unique(strange[self._marks[strange] != 0]).tolist():
            if _mark(self._pixels[item]) == self._marks[item]:
                self._is_good[item] = True
            else:
                self._marks[item] = 0


def open_caches(
    kind: str,
    shapes: Mapping[str, Shape],
    *,
    num_items: int,
    budget: int,
    root: Path,
    names: Mapping[str, str],
) -> dict[str, FrameCache]:
    """One cache per camera, together within the budget (bytes); says once how many items have room.

    Args:
        shapes: size of the pictures of each camera.
        names: what tells a camera's pictures from others, for the name of its file.

    Raises:
        DatasetError: the file cannot be made.
    """
    per_item = sum(int(np.prod(shape)) + MARK_BYTES for shape in shapes.values())
    capacity = min(num_items, max(0, budget - len(shapes) * PAGE_BYTES) // max(1, per_item))
    if not shapes or not num_items:
        return {}
    logger.log(
        logging.INFO if capacity == num_items else logging.WARNING,
        "Frame cache (%s): %d of %d frames of %d cameras fit in %.2f GiB; all of them need %.2f GiB.%s",
        kind,
        capacity,
        num_items,
        len(shapes),
        budget / GIB,
        num_items * per_item / GIB,
        "" if capacity == num_items else " The others are decoded each time.",
    )
    if not capacity:
        return {}
    if kind == "ram":
        return {camera: FrameCache(capacity, shape) for camera, shape in shapes.items()}
    folder = CacheFolder(root)
    paths = {camera: folder.path(f"frames{capacity}", names[camera]) for camera in shapes}
    try:
        _make_room(folder.folder, set(paths.values()), budget=budget, shapes=shapes, capacity=capacity)
        for camera, path in paths.items():
            _ensure(folder, path, file_bytes(capacity, shapes[camera]))
        return {camera: FrameCache(capacity, shapes[camera], path) for camera, path in paths.items()}
    except OSError as error:
        raise DatasetError(
            f"{folder.folder}: {capacity * per_item / GIB:.2f} GiB for decoded frames cannot be reserved "
            f"({error.strerror or error}). Give a smaller cache_bytes, cache='ram', or set HF_DATASETS_CACHE "
            "to a folder with room."
        ) from error


def file_bytes(capacity: int, shape: Shape) -> int:
    """Size of a cache of so many pictures."""
    return max(1, _pixels_at(capacity) + capacity * int(np.prod(shape)))


def _pixels_at(capacity: int) -> int:
    return -(-MARK_BYTES * capacity // PAGE_BYTES) * PAGE_BYTES


def _mark(picture: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(picture).data) or 1


def _ensure(folder: CacheFolder, path: Path, size: int) -> None:
    """An existing file of this size, or a new one full of zeros whose blocks are reserved."""
    if path.is_file() and path.stat().st_size == size:
        return
    folder.prepare()
    path.unlink(missing_ok=True)
    part = reserve(folder.folder, size)
    try:
        os.link(part, path)  # unlike a rename, this leaves a file alone that another process made meanwhile
    except FileExistsError:
        return
    finally:
        part.unlink()


def _make_room(
    folder: Path, kept: set[Path], *, budget: int, shapes: Mapping[str, Shape], capacity: int
) -> None:
    """Remove the oldest caches of the dataset that would exceed the budget together with the new ones."""
    others = [path for path in folder.glob("frames*.bin") if path not in kept]
    used = sum(file_bytes(capacity, shape) for shape in shapes.values())
    for path in sorted(others, key=lambda path: path.stat().st_mtime, reverse=True):
        used += path.stat().st_size
        if used > budget:
            path.unlink(missing_ok=True)
