"""The frame around every command: errors become one message and an exit status, never a traceback.

Exit status: 0 done, 1 failed while running, 2 the user's mistake, 130 interrupted by Ctrl-C.
"""

import functools
import logging
import os
import sys
from collections.abc import Callable
from typing import Any

from lerobot.core.errors import DISK_IS_FULL, LeRobotError


def command(function: Callable[..., Any]) -> Callable[..., None]:
    """Decorator for `main()`: prints `error: ...` for our errors and exits with their status."""

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
        except LeRobotError as error:
            logging.getLogger(function.__module__).debug("where it came from:", exc_info=True)
            if os.environ.get("RANK", "0") == "0":  # of several processes that fail alike one speaks
                print("\n".join([f"error: {error}", *getattr(error, "__notes__", ())]), file=sys.stderr)
            raise SystemExit(error.exit_status) from None
        except KeyboardInterrupt:
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
