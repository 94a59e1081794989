"""Where an edit's result goes and how it gets there: written aside, checked, put in place at one stroke.

    .NAME.edit-xxxxxxxx  --written, verified, on the disk-->  exchanged with NAME  -->  the original: NAME_old

A process that is killed at any instant leaves the original under its name, or the result under it and the
original under a hidden name that the next edit turns into `NAME_old`. No backup is ever deleted.
"""

import ctypes
import glob
import json
import logging
import os
import shutil
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from lerobot.core import files, hub, keys
from lerobot.core.errors import DatasetError
from lerobot.datasets.lock import WriterLock
from lerobot.datasets.metadata import LeRobotDatasetMetadata

logger = logging.getLogger(__name__)

MARK = ".lerobot-edit.json"  # in a folder that an edit writes: its name, and whether it is complete
HIDDEN = ".{name}.edit-"
AT_FDCWD, RENAME_EXCHANGE, RENAME_SWAP = -100, 2, 2


@dataclass(frozen=True, kw_only=True)
class Target:
    """The dataset that an edit makes."""

    repo_id: str
    root: Path
    replaces: bool = False  # the edited dataset is there now, and is kept as <root>_old

    def check(self) -> None:
        """Raise what would stop the edit at its end.

        Raises:
            DatasetError: the folder exists, or the one to be replaced holds no dataset.
        """
        if self.replaces and not (self.root / keys.INFO_FILE).is_file():
            raise DatasetError(
                f"{self.root} holds no {keys.INFO_FILE}, so there is nothing to edit in place."
            )
        if not self.replaces and os.path.lexists(self.root):
            raise DatasetError(
                f"{self.root} exists already. Choose another --new_root or --new_repo_id, or move it away."
            )

    def backup(self) -> Path:
        """The first free name among NAME_old, NAME_old_1, ..."""
        number, path = 0, self.root.with_name(f"{self.root.name}_old")
        while os.path.lexists(path):
            number += 1
            path = self.root.with_name(f"{self.root.name}_old_{number}")
        return path


def new_target(repo_id: str, output_dir: str | Path | None) -> Target:
    """A dataset of its own: in the folder given, or in the local home under its name."""
    root = Path(output_dir).expanduser() if output_dir is not None else hub.lerobot_home() / repo_id
    return Target(repo_id=repo_id, root=root)


def in_place(meta: LeRobotDatasetMetadata) -> Target:
    """The edited dataset's own folder.

    Raises:
        DatasetError: it is a snapshot in the download cache.
    """
    if meta.root.is_relative_to(hub.dataset_cache()):
        raise DatasetError(
            f"{meta.repo_id!r} is only in the download cache, which is not changed. "
            "Give the result a name of its own with --new_repo_id=USER/NAME."
        )
    return Target(repo_id=meta.repo_id, root=meta.root.resolve(), replaces=True)


@contextmanager
def staged(target: Target) -> Iterator[Path]:
    """A hidden folder beside the target; it takes the target's place when the block ends without an error.

    Raises:
        DatasetError: the target is taken, is being recorded, was changed meanwhile, or cannot be renamed.
    """
    recover(target.root)
    target.check()
    lock = WriterLock(target.root) if target.replaces else None  # nobody records into it meanwhile
    try:
        with _staged(target, lock) as folder:
            yield folder
    finally:
        if lock is not None:
            lock.release()


@contextmanager
def _staged(target: Target, lock: WriterLock | None) -> Iterator[Path]:
    before = _identity(target.root) if target.replaces else None
    target.root.parent.mkdir(parents=True, exist_ok=True)
    folder = target.root.with_name(f"{HIDDEN.format(name=target.root.name)}{uuid.uuid4().hex[:8]}")
    try:
        folder.mkdir()
    except OSError as error:
        raise DatasetError(
            f"{target.root.parent} cannot be written to ({error}). Choose --new_root."
        ) from error
    (folder / MARK).write_text(json.dumps({"folder": folder.name}))
    with (folder / MARK).open("r+") as mark:
        _lock(mark)  # others see by it that this process is alive
        try:
            yield folder
            sync_tree(folder)
            mark.seek(0)
            mark.write(json.dumps({"folder": folder.name, "ready": True}))
            mark.flush()
            os.fsync(mark.fileno())
            if before is not None and _identity(target.root) != before:
                raise DatasetError(f"{target.root} was changed by somebody while it was edited; run again.")
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise DatasetError(f"Writing {target.root} failed ({error}); nothing was changed.") from error
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        backup = _put_in_place(folder, target)
        if lock is not None and backup is not None:
            lock.follow(backup)


def _put_in_place(folder: Path, target: Target) -> Path | None:
    """Give the result its name; returns where the original is now."""
    backup = None
    if not target.replaces:
        target.check()
        folder.rename(target.root)
    else:
        backup = target.backup()
        if not exchange(folder, target.root):
            _move(target.root, backup)
            try:
                folder.rename(target.root)
            except OSError:
                backup.rename(target.root)
                raise
        else:
            files.sync_folders(target.root.parent, levels=1)
            folder.rename(backup)
        logger.info("The original is kept in %s.", backup)
    files.sync_folders(target.root.parent, levels=1)
    (target.root / MARK).unlink(missing_ok=True)
    return backup


def _move(old: Path, new: Path) -> None:
    try:
        old.rename(new)
    except OSError as error:
        raise DatasetError(
            f"{old} cannot be renamed ({error}). Give the result a place of its own with --new_repo_id."
        ) from error


def exchange(one: Path, other: Path) -> bool:
    """Swap two names of one file system at one stroke; False where the system cannot."""
    if os.name != "posix":
        return False
    library = ctypes.CDLL(None, use_errno=True)
    names = os.fsencode(one), os.fsencode(other)
    if sys.platform == "linux" and hasattr(library, "renameat2"):
        return library.renameat2(AT_FDCWD, names[0], AT_FDCWD, names[1], RENAME_EXCHANGE) == 0
    if sys.platform == "darwin" and hasattr(library, "renamex_np"):
        return library.renamex_np(*names, RENAME_SWAP) == 0
    return False


def recover(root: Path) -> None:
    """Clean up after edits of this folder that were killed: nothing but unfinished copies is deleted."""
    if not root.parent.is_dir():
        return
    pattern = f"{glob.escape(HIDDEN.format(name=root.name))}*"
    for folder in sorted(path for path in root.parent.glob(pattern) if _is_abandoned(path)):
        mark = _read_mark(folder)
        if mark is None:  # an original, exchanged and not renamed any more
            backup = Target(repo_id="", root=root).backup()
            folder.rename(backup)
            logger.warning("An edit was interrupted: the dataset before it is now %s.", backup)
        elif mark.get("ready") and not os.path.lexists(root):  # between the two renames where no exchange is
            folder.rename(root)
            logger.warning("An edit was interrupted: its result is now %s.", root)
        else:
            shutil.rmtree(folder)
            logger.warning("Removed %s, left by an interrupted edit.", folder)
    if (root / MARK).is_file() and _is_abandoned(root):
        (root / MARK).unlink()


def _read_mark(folder: Path) -> dict[str, Any] | None:
    """What an edit says about a folder it made; None for a folder that no edit made."""
    try:
        mark = json.loads((folder / MARK).read_text())
        if mark["folder"] == folder.name:
            return mark
    except (OSError, ValueError, KeyError):
        logger.debug("%s has no mark that can be read.", folder)
    return None if (folder / keys.INFO_FILE).exists() else {}  # an edit that died before its first file


def _is_abandoned(folder: Path) -> bool:
    """Whether the process that wrote the folder is gone."""
    try:
        with (folder / MARK).open("r+") as mark:
            return _lock(mark)
    except FileNotFoundError:
        return True


def _lock(mark: IO[str]) -> bool:
    """Hold the file for this process until it is closed; False when another one holds it."""
    try:
        import fcntl
    except ImportError:  # Windows: an open file cannot be deleted there, which protects it as well
        return True
    try:
        fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _identity(root: Path) -> tuple[int, int, int]:
    """What changes when a dataset is replaced or recorded into."""
    folder, info = root.stat(), (root / keys.INFO_FILE).stat()
    return folder.st_ino, info.st_ino, info.st_mtime_ns


def sync_tree(folder: Path) -> None:
    """Return when every file and name below the folder is on the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            files.sync_file(path)
    for path in [folder, *(path for path in folder.rglob("*") if path.is_dir())]:
        files.sync_folders(path, levels=1)
