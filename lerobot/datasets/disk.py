"""What to say when the disk is full, read-only or gone: the file, the room that is left, what to do next."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lerobot.core.errors import DatasetError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
MIB = 1024**2


def is_full(error: BaseException) -> bool:
    """Whether an error, or what caused it, says that there is no room: disk, quota or file size."""
    seen: BaseException | None = error
    while seen is not None:
        if getattr(seen, "errno", None) in FULL:
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def trouble(error: BaseException, path: Path, remedy: str) -> DatasetError:
    """The error for a file that could not be written."""
    folder = next((place for place in path.parents if place.exists()), Path("/"))
    try:
        room = f" ({shutil.disk_usage(folder).free / MIB:.1f} MiB free)"
    except OSError:
        room = ""
    what = f"there is no room left on its disk{room}" if is_full(error) else f"{error}"
    return DatasetError(f"{path} could not be written: {what}. Episodes that were saved are safe; {remedy}.")


@contextmanager
def told(path: Path, remedy: str) -> Iterator[None]:
    """Turn errors of the operating system inside into `trouble` about this file."""
    try:
        yield
    except OSError as error:
        raise trouble(error, path, remedy) from error
