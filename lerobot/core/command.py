"""The frame around every command: errors become one message and an exit status, never a traceback.

Exit status: 0 done, 1 failed while running, 2 the user's mistake, 130 interrupted by Ctrl-C.

Of several processes that fail alike one speaks. Each leaves its error in the file that its launcher
(lerobot-train, torchrun) names, and the launcher says what went wrong first.
"""

import functools
import json
import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lerobot.core.errors import DISK_IS_FULL, LeRobotError

LAUNCHED = "LEROBOT_LAUNCHED"  # set for processes of lerobot-train: it says their errors itself
ERROR_FILE = "TORCHELASTIC_ERROR_FILE"  # set by torch's launchers: where a process leaves its error


def command(function: Callable[..., Any]) -> Callable[..., None]:
    """Decorator for `main()`: prints `error: ...` for our errors and exits with their status."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
        except LeRobotError as error:
            logging.getLogger(function.__module__).debug("where it came from:", exc_info=True)
            say(error)
            raise SystemExit(error.exit_status) from None
        except KeyboardInterrupt:
            if LAUNCHED not in os.environ:
                print("interrupted", file=sys.stderr)
            raise SystemExit(130) from None
        except BrokenPipeError:  # `lerobot-... | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(0) from None
        except OSError as error:
            if error.errno not in DISK_IS_FULL:
                raise
            place = f" for {error.filename}" if error.filename else ""
            print(f"error: There is no room left on the disk{place}: {error.strerror}.", file=sys.stderr)
            raise SystemExit(1) from None

    return run


def say(error: LeRobotError) -> None:
    """Print an error, or leave it to the launcher of this process."""
    text = "\n".join([str(error), *getattr(error, "__notes__", ())])
    if path := os.environ.get(ERROR_FILE):
        tree = {"message": text, "kind": type(error).__name__, "timestamp": int(time.time())}
        Path(path).write_text(json.dumps(tree), encoding="utf-8")
    if LAUNCHED not in os.environ and os.environ.get("RANK", "0") == "0":
        print(f"error: {text}", file=sys.stderr)
