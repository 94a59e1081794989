"""Processes that vanish in the middle of their work, as by a power cut."""

import os
import signal
from collections.abc import Callable
from typing import Any

DISK_CALLS = ("rename", "replace", "symlink", "link", "unlink", "rmdir", "mkdir", "fsync")


def die_at_operation(number: int, *operations: tuple[Any, str]) -> None:
    """Make this process vanish instead of doing its n-th call of these functions, each (owner, name)."""
    done = 0

    def counted(real):
        def call(*args, **kwargs):
            nonlocal done
            done += 1
            if done > number:
                os._exit(9)
            return real(*args, **kwargs)

        return call

    for owner, name in operations:
        setattr(owner, name, counted(getattr(owner, name)))


def kill_before(deadline: int, work: Callable[[], Any]) -> None:
    """Do the work until just before this process's n-th change of the disk, then SIGKILL it."""
    calls = 0

    def killing(call):
        def counted(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls == deadline:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)

        return counted

    for name in DISK_CALLS:
        setattr(os, name, killing(getattr(os, name)))
    work()
