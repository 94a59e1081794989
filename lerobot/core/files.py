"""Files that are either whole or not there: written aside, forced to disk, renamed into place.

    write(path + ".part") -> fsync(file) -> rename -> fsync(folder)

A process killed at any instant leaves the old file or the new one, plus at most a hidden `.NAME.part`.
"""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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
    write_text(path, json.dumps(value, indent=4, ensure_ascii=False))


def move_into_place(part: Path, path: Path) -> None:
    """Force a finished file to disk and rename it to `path`; durable on return."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sync_file(part)
    part.replace(path)
    sync_folders(path.parent)


def sync_file(path: Path) -> None:
    """Return when the file's bytes are on the disk."""
    with _opened(path, os.O_RDONLY) as descriptor:
        os.fsync(descriptor)


def sync_folders(folder: Path, *, levels: int = 3) -> None:
    """Return when the names inside `folder` and its nearest ancestors are on the disk.

    Ancestors are included because a file in a folder that was just made is only durable once the folder's own
    name is. Windows cannot open folders and needs none of this.
    """
    if os.name == "nt":
        return
    for place in (folder, *folder.parents)[:levels]:
        with _opened(place, os.O_RDONLY) as descriptor:
            os.fsync(descriptor)


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(path, flags)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
