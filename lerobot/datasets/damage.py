"""Errors about damaged files end with the command that says more, and that rebuilds what can be rebuilt."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lerobot.core.errors import DatasetError

ANSWERED = ("ype: lerobot-", "Install a newer lerobot")  # the message says already what to type


@contextmanager
def pointing_to_doctor(root: Path) -> Iterator[None]:
    """A span in which files of the dataset at `root` are read; its errors end in `Type: lerobot-doctor ROOT`.

    Raises:
        DatasetError: as it came, with that sentence at its end.
    """
    try:
        yield
    except DatasetError as error:
        text = str(error).rstrip()
        if any(words in text for words in ANSWERED):
            raise
        raise type(error)(f"{text}\nType: lerobot-doctor {root}") from error
