"""Logging of the commands: level, format, one handler; libraries of ours only call `logging.getLogger`."""

import logging
import os
import sys

from lerobot.core.errors import ConfigError, suggest

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


def start(level: str = "INFO") -> None:
    """Send log records of at least `level` to standard error.

    Raises:
        ConfigError: there is no such level.
    """
    level = level.upper()
    if level not in LEVELS:
        raise ConfigError(
            f"--log_level={level}: expected one of {', '.join(LEVELS)}.{suggest(level, LEVELS)}"
        )
    if os.environ.get("RANK", "0") != "0":  # of several processes that train together the first one speaks
        level = "ERROR"
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s" if level != "DEBUG" else DEBUG_FORMAT))
    root = logging.getLogger()
    # Started again, it takes its own place; handlers that others added for themselves stay.
    root.handlers = [old for old in root.handlers if type(old) is not logging.StreamHandler] + [handler]
    root.setLevel(level)
    for name in ("OpenGL", "httpx", "httpx2", "httpcore", "urllib3", "PIL", "matplotlib", "libav"):
        logging.getLogger(name).setLevel(max(logging.WARNING, logging.getLevelName(level)))


DEBUG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
