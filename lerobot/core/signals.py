"""Requests to stop: the signals of a person, a system or a scheduler, handled for a while in one way."""

import signal
import sys
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
