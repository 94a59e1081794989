"""Files that are either whole or not there: written aside, forced to disk, renamed into place.

    write(path + ".part") -> fsync(file) -> rename -> fsync(folder)

A process killed at any instant leaves the old file or the new one, plus at most a hidden `.NAME.part`.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lerobot.core import keys

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

PART_SUFFIX = ".part"


def part_path(path: Path) -> Path:
    """Where `path` is written until it is complete: a hidden neighbour in the same folder."""
    return path.with_name(f".{path.name}{PART_SUFFIX}")


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a neighbouring file, then move it to `path`; durable on return."""
    part = part_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        write(part)
        sync_file(part)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync_folders(path.parent)


def write_text(path: Path, text: str) -> None:
    """Replace a UTF-8 text file durably."""
    write_atomically(path, lambda part: part.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file durably: indent 4, non-ASCII kept, no newline at the end."""
    write_text(path, _json(value))


def write_jsons(values: Mapping[Path, Any]) -> None:
    """Replace several JSON files durably, in the order given and in about the time of one."""
    parts = {part_path(path): path for path in values}
    try:
        for path, value in values.items():
            part_path(path).write_text(_json(value), encoding="utf-8")
        place(parts)
    except BaseException:
        for part in parts:
            part.unlink(missing_ok=True)
        raise


def _json(value: Any) -> str:
    return json.dumps(value, indent=4, ensure_ascii=False)


def move_into_place(part: Path, path: Path) -> None:
    """Force a finished file to disk and rename it to `path`; durable on return."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sync_file(part)
    part.replace(path)
    sync_folders(path.parent)


def place(parts: Mapping[Path, Path]) -> None:
    """Force finished files to disk and rename each to its place; all are durable on return.

    The files are independent: a process killed in between leaves some in place and some not. Many are placed
    in about the time of one, since disks confirm several files at once.
    """
    folders = {folder for path in parts.values() for folder in (path.parent, *path.parents[1:3])}
    for path in parts.values():
        path.parent.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(max_workers=8) as pool:
        list(pool.map(sync_file, parts))
        for part, path in parts.items():
            part.replace(path)
        list(pool.map(sync_folder, folders))


def take_back(parts: Mapping[Path, Path]) -> None:
    """Undo as much of `place` as was done: files are under their first names again."""
    for part, path in parts.items():
        if path.exists() and not part.exists():
            path.replace(part)


def sync_file(path: Path) -> None:
    """Return when the file's bytes are on the disk."""
    with _opened(path, os.O_RDONLY) as descriptor:
        os.fsync(descriptor)


def sync_folders(folder: Path, *, levels: int = 3) -> None:
    """Return when the names inside `folder` and its nearest ancestors are on the disk.

    Ancestors are included because a file in a folder that was just made is only durable once the folder's own
    name is. Windows cannot open folders and needs none of this.
    """
    for one in (folder, *folder.parents)[:levels]:
        sync_folder(one)


def sync_folder(folder: Path) -> None:
    """Return when the names inside one folder are on the disk."""
    if os.name == "nt":
        return
    with _opened(folder, os.O_RDONLY) as descriptor:
        os.fsync(descriptor)


def follow_pointer(path: Path) -> Path:
    """The path, with a `last` or `best` in it that is a text file replaced by what it leads to."""
    for part in (path, *path.parents):
        if part.name in (keys.LAST_LINK, keys.BEST_LINK) and part.is_file():
            target = part.with_name(part.read_text(encoding="utf-8").strip())
            return target / path.relative_to(part)
    return path


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Inside, `is_being_read` of the file is true everywhere else, where the system has locks."""
    if not path.is_file():
        yield
        return
    with _opened(path, os.O_RDONLY) as descriptor:
        if fcntl is not None:
            with suppress(OSError):  # file systems without locks
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        yield


def is_being_read(path: Path) -> bool:
    """Whether somebody is inside `reading` of this file."""
    if fcntl is None:  # Windows: an open file cannot be moved anyhow
        return False
    with _opened(path, os.O_RDONLY) as descriptor:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # file systems without locks
            return False
        return False


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
