"""Checkpoints written beside the training: the loop goes on while a thread writes the files.

    take -> start -> thread: copy, check, write, flush, hash, rename, `last`, prune -> done, or failed
    step -> before_change: the copy is complete, so the optimizer may change the weights

What the thread meets is raised in the training loop, at the next step. The end of a run waits for the thread.
"""

import logging
import os
import re
import sys
import threading
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from safetensors import SafetensorError
from torch import Tensor

from lerobot.core.errors import DISK_IS_FULL, LeRobotError, TrainingError
from lerobot.training.checkpoints.snapshot import HostBuffers, Snapshot

logger = logging.getLogger(__name__)

NICENESS = 10  # of the writing thread, where threads have their own
PATIENCE_S = 1.0  # for a write that is under way when the user wants to stop at once


class Saver:
    """Writes one checkpoint at a time in a thread; `last` is the newest complete one.

    As a context manager it waits for the thread at the end, but not long after a second Ctrl-C: a checkpoint
    that is cut short has another name than a complete one.
    """

    def __init__(self, device: torch.device) -> None:
        self.last: Path | None = None
        self.buffers = HostBuffers(device)
        self.thread: threading.Thread | None = None
        self.snapshot: Snapshot | None = None  # of the write under way, until its copy was waited for
        self.failure: BaseException | None = None
        self.has_warned = False

    def take(self, tensors: Mapping[str, Tensor], *, steady: Collection[str]) -> Snapshot:
        """A snapshot of named tensors, once the checkpoint before is on the disk; see `HostBuffers.take`.

        Raises:
            LeRobotError: that checkpoint could not be written.
        """
        if self.is_writing and not self.has_warned:
            self.has_warned = True
            logger.warning(
                "The last checkpoint is still being written and the next one is due: training waits for the "
                "disk. A larger --save_freq avoids that."
            )
        self.wait()
        return self.buffers.take(tensors, steady=steady)

    def start(self, write: Callable[[], Path], snapshot: Snapshot) -> None:
        """Begin to write a checkpoint.

        Args:
            write: writes it from the tensors of the snapshot and gives its folder.
        """
        self.snapshot = snapshot
        self.thread = threading.Thread(
            target=self._work, args=(write, snapshot), name="checkpoint", daemon=True
        )
        self.thread.start()
        if not snapshot.is_copy:
            self.wait()

    @property
    def is_writing(self) -> bool:
        """Whether a write is under way."""
        return self.thread is not None and self.thread.is_alive()

    def before_change(self) -> None:
        """Return when weights and optimizer state may be changed; every step calls this before it does.

        Raises:
            LeRobotError: a write has failed.
        """
        if self.snapshot is not None:
            self.snapshot.hold()
            self.snapshot = None
        if self.failure is not None and not self.is_writing:
            self.wait()

    def wait(self) -> None:
        """Return when the checkpoint is on the disk.

        Raises:
            LeRobotError: it could not be written.
        """
        if self.thread is not None:
            self.thread.join()
        self.thread = self.snapshot = None
        failure, self.failure = self.failure, None
        if failure is not None:
            raise failure

    def _work(self, write: Callable[[], Path], snapshot: Snapshot) -> None:
        try:
            snapshot.finish()
            lower_priority()
            self.last = write()
        except (OSError, SafetensorError) as error:
            self.failure = explained(error)
        except BaseException as error:  # noqa: BLE001  whatever it is, the loop ends with it
            self.failure = error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.wait()
        elif isinstance(error, Exception):
            try:
                self.wait()
            except LeRobotError as failed:
                error.add_note(str(failed))
        elif self.thread is not None:  # a second Ctrl-C
            self.thread.join(PATIENCE_S)


def explained(error: OSError | SafetensorError) -> TrainingError:
    """What went wrong on the disk, and how to go on."""
    number = re.search(r"\(os error (\d+)\)", str(error))  # safetensors knows files only by their text
    if isinstance(error, SafetensorError) and number:
        error = OSError(int(number[1]), os.strerror(int(number[1])))
    place = f" ({error.filename})" if isinstance(error, OSError) and error.filename else ""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    advice = "Mend that"
    if isinstance(error, OSError) and error.errno in DISK_IS_FULL:
        advice = "Make room there (--keep_last=2 keeps no more than two checkpoints)"
    failed = TrainingError(
        f"The checkpoint could not be written: {reason}{place}. Earlier checkpoints are unharmed. {advice}, "
        "and continue the run with --resume=true."
    )
    failed.__cause__ = error
    return failed


def lower_priority() -> None:
    """Let the training's threads go first; only Linux has priorities of threads."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
