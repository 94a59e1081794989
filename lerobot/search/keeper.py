"""A process that runs one command and stops it when the process that asked for it wants so, or is gone.

    search --standard input--> keeper --SIGTERM, then SIGKILL--> lerobot-train

The search holds the other end of the keeper's standard input. It is closed when the search wants the command
to stop, and by the operating system when the search was killed: nothing outlives it.
"""

import os
import signal
import subprocess
import sys
import threading

GRACE_S = 60.0  # for finishing a step and saving; then the command and all it started are killed


def keep(words: list[str], *, grace_s: float = GRACE_S) -> int:
    """The exit status of the command; 128 + the signal's number when a signal ended it."""
    child = subprocess.Popen(words, stdin=subprocess.DEVNULL)
    for number in (signal.SIGTERM, signal.SIGINT):  # sent to this process by others: passed on
        signal.signal(number, lambda number, frame: child.terminate())
    threading.Thread(target=_stop_at_the_end_of_input, args=(child, grace_s), daemon=True).start()
    status = child.wait()
    return status if status >= 0 else 128 - status


def _stop_at_the_end_of_input(child: subprocess.Popen, grace_s: float) -> None:
    os.read(sys.stdin.fileno(), 1)  # nothing is ever written: this returns when the other end is closed
    child.terminate()
    try:
        child.wait(grace_s)
    except subprocess.TimeoutExpired:
        kill_group(os.getpid())


def kill_group(leader: int) -> None:
    """Kill the process group of a keeper: the command, whatever it started, and the keeper."""
    if sys.platform == "win32":
        os.kill(leader, signal.SIGTERM)
        return
    try:
        os.killpg(leader, signal.SIGKILL)
    except ProcessLookupError:  # none of them is left
        return


if __name__ == "__main__":
    sys.exit(keep(sys.argv[1:]))
