"""Requests to stop: the signals of a person, a system or a scheduler, handled for a while in one way.

Worker processes hear no Ctrl-C, which is for the process that they belong to, and end with it, however that
ends.
"""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

STOP_SIGNALS = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2")  # the last two: of schedulers, before a time limit


@contextmanager
def handling(handler: Callable[[int, object], None]) -> Iterator[None]:
    """Inside, these signals call the handler; afterwards whoever had them has them again.

    Only the main thread may do this.
    """
    numbers = [getattr(signal, name) for name in STOP_SIGNALS if hasattr(signal, name)]
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def say_stopping() -> None:
    """Tell a person that their request was heard."""
    sys.stderr.write("\nStopping after this step; Ctrl-C again stops at once, unsaved.\n")


@contextmanager
def deaf_to_interrupts() -> Iterator[None]:
    """Processes that are started inside never hear Ctrl-C; here it waits until the end of the block."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows: they are deaf as soon as they have begun
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def become_worker() -> None:
    """Make this process, which `multiprocessing` started, deaf to Ctrl-C, and end it with its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process at once when its parent is gone, whatever it is doing."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
