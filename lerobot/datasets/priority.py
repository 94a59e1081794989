"""Opening an encoder without making anything real-time.

SVT-AV1, where it may (as root, in a container), gives its threads and the whole process's first thread the
scheduling class SCHED_FIFO. Everything else on the machine then waits, a control loop and a training in other
processes included, and programs started later inherit it.
"""

import os
import threading
from pathlib import Path
from typing import Any

TASKS = Path("/proc/self/task")
_opening = threading.Lock()


def open_encoder(context: Any) -> None:
    """Open a codec context; threads that were ordinary before, and those it starts, are so after it."""
    if not TASKS.is_dir():  # only Linux lets a process do this to itself
        context.open()
        return
    with _opening:
        before = real_time_threads()
        context.open()
        for thread in real_time_threads() - before:
            try:
                os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))
            except ProcessLookupError:  # it has ended
                continue


def real_time_threads() -> set[int]:
    """The ids of this process's threads that run before all ordinary ones."""
    found = set()
    for task in TASKS.iterdir():
        try:
            if os.sched_getscheduler(int(task.name)) in (os.SCHED_FIFO, os.SCHED_RR):
                found.add(int(task.name))
        except ProcessLookupError:
            continue
    return found
