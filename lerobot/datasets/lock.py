"""One writer per dataset: a lock of the operating system, which ends with the process that holds it.

    .cache/recording.lock    who writes, as JSON; the file is deleted when recording ends in order

Readers do not look at it, and folders named .cache are never uploaded.
"""

import contextlib
import errno
import gc
import json
import logging
import os
import socket
import sys
import time
import weakref
from pathlib import Path
from typing import Any

from lerobot.core import keys
from lerobot.core.errors import DatasetError

logger = logging.getLogger(__name__)

LOCK_FILE = ".cache/recording.lock"
LOCKED_BYTE = 1 << 30  # Windows locks bytes: one far behind the text, which others may then read


class WriterLock:
    """The right to change one dataset; at most one process, and one object in it, holds it.

    Raises:
        DatasetError: another one holds it; says which process, and since when.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.path = root, root / LOCK_FILE
        self._descriptor: int | None = None
        self._process = os.getpid()
        self._state: Any = None  # of the dataset when the lock was given up
        self.take()

    def take(self) -> None:
        """Hold the lock, if it is not held already.

        Raises:
            DatasetError: somebody else holds it, or has changed the dataset since it was given up here.
        """
        if self._process != os.getpid():
            raise DatasetError(
                f"{self.root} is recorded by process {self._process}, of which this one is a copy. Record in "
                "that process, or open the dataset here with LeRobotDataset.resume() when it has finished."
            )
        if self._descriptor is not None:
            return
        descriptor = self._locked()
        if self._state is not None and self._state != _state(self.root):
            os.close(descriptor)
            raise DatasetError(
                f"{self.root} was changed by somebody else since finalize(). Open it again with "
                "LeRobotDataset.resume()."
            )
        os.ftruncate(descriptor, 0)
        os.write(descriptor, json.dumps(_self()).encode())
        self._descriptor = descriptor
        self._closing = weakref.finalize(self, os.close, descriptor)  # an object that is dropped frees it
        _HELD.add(self)

    def release(self) -> None:
        """Give the lock up and delete its file."""
        if self._descriptor is None:
            return
        self._state = _state(self.root)
        if sys.platform != "win32":  # Windows deletes no open file; there the file stays, unlocked
            self.path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # it may hold something else
                self.path.parent.rmdir()
        self._forget()

    def follow(self, root: Path) -> None:
        """The dataset was renamed while the lock was held: its file is there now."""
        self.root, self.path = root, root / LOCK_FILE

    def _locked(self) -> int:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            if not _lock(descriptor, self.path) and not self._is_freed(descriptor):
                said, is_here = _said(descriptor), any(lock.path == self.path for lock in _HELD)
                os.close(descriptor)
                remedy = "Wait until it has finished, or stop it, or record into another folder"
                if is_here:
                    remedy = "That is this process: call finalize() of the dataset that is recorded"
                raise DatasetError(
                    f"{self.root} is being written by {said}. {remedy}. Reading is possible meanwhile."
                )
            if _is_same(descriptor, self.path):
                return descriptor
            os.close(descriptor)  # whoever held it has just deleted the file: this lock is on nothing

    def _is_freed(self, descriptor: int) -> bool:
        """Whether the lock is ours once objects of this process that nobody refers to are really gone."""
        if any(lock.path == self.path for lock in _HELD):
            gc.collect()
            return _lock(descriptor, self.path)
        return False

    def _forget(self) -> None:
        if self._descriptor is not None:
            self._closing()
            self._descriptor = None


_HELD: "weakref.WeakSet[WriterLock]" = weakref.WeakSet()


def _forget_in_child() -> None:
    """A forked process is not the writer: it must not keep the lock when the writer ends."""
    for lock in list(_HELD):
        lock._forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int, path: Path) -> bool:
        """Whether the lock is ours now."""
        os.lseek(descriptor, LOCKED_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        os.lseek(descriptor, 0, os.SEEK_SET)
        return True
else:
    import fcntl

    def _lock(descriptor: int, path: Path) -> bool:
        """Whether the lock is ours now."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
            logger.warning("%s cannot be locked (%s): make sure that nobody else writes here.", path, error)
        return True


def _is_same(descriptor: int, path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False


def _state(root: Path) -> Any:
    """What changes with every change of a dataset: the identity of its counters' file."""
    try:
        found = (root / keys.INFO_FILE).stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


def _self() -> dict[str, Any]:
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    command = " ".join(Path(word).name if n == 0 else word for n, word in enumerate(sys.argv[:3]))
    return {"process": os.getpid(), "host": socket.gethostname(), "since": since, "command": command[:100]}


def _said(descriptor: int) -> str:
    """Who holds the lock, in words."""
    try:
        os.lseek(descriptor, 0, os.SEEK_SET)
        who = json.loads(os.read(descriptor, 4096))
        return f"process {who['process']} ({who['command']}) on {who['host']} since {who['since']}"
    except (ValueError, KeyError, OSError):  # it has just been taken and says nothing yet
        return "another process, which has just begun"
