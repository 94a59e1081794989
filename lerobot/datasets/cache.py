"""Arrays that can be made again, in files below the cache home that every process maps into its memory.

    <cache home>/datasets/<name>-<hash of the root>/KIND-KEY.bin
    arrays, each at a multiple of 64 bytes | header (JSON) | sha256 of header | length of header | magic

KEY follows from the files that the arrays were made of (path, size, time of change), so a changed file finds
no entry. An entry is written aside, forced to disk and renamed: several processes may make it at once, and
each finds a whole one. Deleting the folder costs time and nothing else.
"""

import contextlib
import hashlib
import json
import logging
import os
import shutil
import time
import uuid
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lerobot.core import files, hub

logger = logging.getLogger(__name__)

VERSION = 1  # of the layout and of what is kept; another one finds nothing
MAGIC = b"LeRoArr1"
ALIGNMENT = 64
TRAILER_BYTES = 32 + 8 + len(MAGIC)
BLOCK_BYTES, MAX_BLOCKS = (
    64 * 1024,
    256,
)  # a checksum covers every byte up to 16 MiB, then evenly spread blocks
MAX_ENTRIES = 8  # per kind and dataset, for other subsets of its files
FORGOTTEN_S = 24 * 3600  # an unfinished file this old belongs to a process that died
ORIGIN = "origin.txt"  # in each folder: the dataset's root

Identity = tuple[str, int, int]  # path, size, time of change in ns; -1 for a file that is not there
Layout = dict[str, tuple[Any, tuple[int, ...]]]  # name -> dtype, shape
Arrays = dict[str, np.ndarray]
Fill = Callable[[Arrays], tuple[dict[str, Any], Arrays]]  # -> what to note, arrays of sizes not known before
_said: set[str] = set()  # what this process was told already


@dataclass(frozen=True, kw_only=True)
class Stored:
    """Arrays by name and what was noted with them; `path` is None when they are in memory only."""

    arrays: Arrays
    about: dict[str, Any]
    path: Path | None


def identify(root: Path, names: Iterable[str | Path]) -> list[Identity]:
    """What tells files, relative to the root, from changed ones."""
    found = []
    for name in map(str, names):
        try:
            stat = os.stat(f"{root}/{name}")  # noqa: PTH116 - much quicker than a Path per file
            found.append((name, stat.st_size, stat.st_mtime_ns))
        except OSError:
            found.append((name, -1, -1))
    return found


def make_key(*parts: Any) -> str:
    """A short name for these JSON values."""
    return hashlib.sha256(json.dumps([VERSION, *parts]).encode()).hexdigest()[:24]


def warn_once(key: str, text: str, *values: Any) -> None:
    """Log a warning the first time this process meets `key`."""
    if key not in _said:
        _said.add(key)
        logger.warning(text, *values)


class CacheFolder:
    """What is kept for the dataset at `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        digest = hashlib.sha256(str(self.root).encode()).hexdigest()[:12]
        self.folder = hub.cache_home() / "datasets" / f"{self.root.name}-{digest}"

    def path(self, kind: str, key: str) -> Path:
        """Where an entry is, or would be."""
        return self.folder / f"{kind}-{key}.bin"

    def find(self, kind: str, key: str) -> Stored | None:
        """The entry, mapped into memory; None when there is none, or one that is damaged."""
        path = self.path(kind, key)
        try:
            return open_entry(path)
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            logger.info("%s is made again: %s", path, error)
            return None

    def make(
        self,
        kind: str,
        key: str,
        *,
        layout: Layout,
        fill: Fill,
        sources: list[Identity],
    ) -> Stored:
        """A new entry made of `sources`: `fill` writes the arrays of the layout in place.

        Arrays stay in memory, and one line says so, when the cache home cannot be written.
        """
        places, size = _places(layout)
        try:
            part = self._start(size)
        except OSError as error:
            self._say_unwritable(error)
            return in_memory(layout, fill)
        try:
            arrays = _views(np.memmap(part, dtype=np.uint8, mode="r+"), places)
            about, more = fill(arrays)
            path = self.path(kind, key)
            try:
                places, size = _extend(part, places, size, more)
                _seal(part, path, {"arrays": places, "about": about, "size": size, "sources": sources})
                self._tidy(kind, path)
                return open_entry(path)
            except (OSError, ValueError) as error:
                self._say_unwritable(error)
                return Stored(arrays=arrays | more, about=about, path=None)
        finally:
            part.unlink(missing_ok=True)

    def prepare(self) -> None:
        """Make the folder if it is not there; the folders of datasets that are gone are removed then.

        Raises:
            OSError: it cannot be made.
        """
        if not self.folder.is_dir():
            _forget_lost(self.folder.parent)
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / ORIGIN).write_text(str(self.root), encoding="utf-8")

    def _start(self, size: int) -> Path:
        """An unfinished file of this size whose blocks are the file's already: a full disk is met here."""
        self.prepare()
        return reserve(self.folder, size)

    def _say_unwritable(self, error: Exception) -> None:
        warn_once(
            str(self.folder.parent),
            "%s cannot be written (%s); the columns of datasets stay in memory. Set HF_DATASETS_CACHE to a "
            "folder with room.",
            self.folder.parent,
            getattr(error, "strerror", None) or error,
        )

    def _tidy(self, kind: str, kept: Path) -> None:
        """Remove entries of this kind whose files have changed since, the oldest of too many, and remains."""
        others = sorted(
            (path for path in self.folder.glob(f"{kind}-*.bin") if path != kept), key=_changed, reverse=True
        )
        gone = [path for k, path in enumerate(others) if k >= MAX_ENTRIES - 1 or self._is_stale(path)]
        gone += [
            path
            for path in self.folder.glob(f".*{files.PART_SUFFIX}")
            if time.time() - _changed(path) > FORGOTTEN_S
        ]
        for path in gone:
            with contextlib.suppress(OSError):  # another process removed it, or Windows has it open
                path.unlink()

    def _is_stale(self, path: Path) -> bool:
        try:
            sources = [tuple(one) for one in _read_header(path)["sources"]]
        except (OSError, ValueError):
            return True
        return identify(self.root, [name for name, _, _ in sources]) != sources


def open_entry(path: Path) -> Stored:
    """An entry mapped into memory, copy on write.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged.
    """
    header = _read_header(path)
    data = np.memmap(path, dtype=np.uint8, mode="c")
    if _checksum(data[: header["size"]]) != header["checksum"]:
        raise ValueError("its contents have changed")
    return Stored(arrays=_views(data, header["arrays"]), about=header["about"], path=path)


def reserve(folder: Path, size: int) -> Path:
    """A new unfinished file full of zeros; its blocks are reserved, so writing to its mapping cannot fail.

    Raises:
        OSError: there is no room.
    """
    part = folder / f".{uuid.uuid4().hex}{files.PART_SUFFIX}"
    try:
        with part.open("xb") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                for start in range(0, size, BLOCK_BYTES):
                    file.write(bytes(min(BLOCK_BYTES, size - start)))
    except OSError:
        part.unlink(missing_ok=True)
        raise
    return part


def in_memory(layout: Layout, fill: Fill) -> Stored:
    """The same without a file."""
    arrays = {name: np.empty(shape, dtype) for name, (dtype, shape) in layout.items()}
    about, more = fill(arrays)
    return Stored(arrays=arrays | more, about=about, path=None)


def _places(layout: Layout) -> tuple[dict[str, list], int]:
    """Where each array goes: name -> [dtype, shape, offset]; and the bytes of all."""
    places, at = {}, 0
    for name, (dtype, shape) in layout.items():
        kind = np.dtype(dtype)
        places[name] = [kind.str, list(shape), at]
        at += -(-kind.itemsize * int(np.prod(shape)) // ALIGNMENT) * ALIGNMENT
    return places, max(at, ALIGNMENT)


def _views(data: np.ndarray, places: dict[str, list]) -> Arrays:
    flat, views = np.asarray(data), {}
    for name, (kind, shape, offset) in places.items():
        dtype = np.dtype(kind)
        end = offset + dtype.itemsize * int(np.prod(shape))
        views[name] = flat[offset:end].view(dtype).reshape(shape)
    return views


def _extend(part: Path, places: dict[str, list], size: int, more: Arrays) -> tuple[dict[str, list], int]:
    """Add arrays whose size was not known before; the places and the bytes of all."""
    added, room = _places({name: (array.dtype, array.shape) for name, array in more.items()})
    if not more:
        return places, size
    with part.open("ab") as file:
        for name, array in more.items():
            added[name][2] += size
            file.write(bytes(added[name][2] - file.tell()))
            file.write(np.ascontiguousarray(array).data)
        file.write(bytes(size + room - file.tell()))
    return places | added, size + room


def _seal(part: Path, path: Path, header: dict[str, Any]) -> None:
    """Add the header to a filled file and rename it into place; durable on return."""
    data = np.memmap(part, dtype=np.uint8, mode="r")
    text = json.dumps(header | {"checksum": _checksum(data[: header["size"]])}).encode()
    with part.open("ab") as file:
        file.write(text + hashlib.sha256(text).digest() + len(text).to_bytes(8, "little") + MAGIC)
    files.move_into_place(part, path)


def _read_header(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        if size < TRAILER_BYTES:
            raise ValueError("it is cut off")
        file.seek(size - TRAILER_BYTES)
        trailer = file.read(TRAILER_BYTES)
        length = int.from_bytes(trailer[32:40], "little")
        if trailer[40:] != MAGIC or length > size - TRAILER_BYTES:
            raise ValueError("it has no end mark")
        file.seek(size - TRAILER_BYTES - length)
        text = file.read(length)
    if hashlib.sha256(text).digest() != trailer[:32]:
        raise ValueError("its header is damaged")
    header: dict[str, Any] = json.loads(text)
    if header["size"] + length + TRAILER_BYTES != size:
        raise ValueError("it has another size than its header says")
    return header


def _checksum(data: np.ndarray) -> int:
    if len(data) <= BLOCK_BYTES * MAX_BLOCKS:
        return zlib.crc32(data.data)
    total = 0
    for start in np.linspace(0, len(data) - BLOCK_BYTES, MAX_BLOCKS).astype(np.int64).tolist():
        total = zlib.crc32(data[start : start + BLOCK_BYTES].data, total)
    return total


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _forget_lost(home: Path) -> None:
    """Remove what is kept for datasets that are no longer there."""
    for origin in home.glob(f"*/{ORIGIN}"):
        try:
            is_lost = not Path(origin.read_text(encoding="utf-8")).exists()
        except OSError:
            continue
        if is_lost:
            shutil.rmtree(origin.parent, ignore_errors=True)
