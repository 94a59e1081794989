"""What an edit does to each episode on its way into the new dataset; a verb overrides what it changes.

Letters: k number of an episode in the new dataset, T its frames.
"""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from lerobot.datasets.join import Segment
from lerobot.datasets.stats import Stats

Tell = Callable[[int, int], object]  # frames done, frames in all


class Change:
    """Nothing is changed."""

    makes_videos: tuple[str, ...] = ()  # cameras whose videos come from `segments`, not from the sources

    def start(self, work: Path) -> None:
        """Called once, with a folder for files that are only needed until the new dataset is complete."""

    def rows(self, k: int, table: pa.Table) -> pa.Table:
        """The episode's rows (T) with other columns; default columns get their new numbers afterwards."""
        return table

    def task(self, k: int, name: str) -> str:
        """The text of a task of the episode."""
        return name

    def stats(self, k: int, table: pa.Table) -> Stats:
        """Statistics of what is new or other than it was, from the episode's finished rows."""
        return {}

    def segments(self, key: str) -> list[Segment]:
        """The videos that were made for one of `makes_videos`, one per episode."""
        raise NotImplementedError(key)

    def stop(self) -> None:
        """Called at the end, also after an error."""

    def lines(self) -> list[str]:
        """What a dry run says about it."""
        return []


def silent(done: int, total: int) -> None:
    """Tells nobody how far an edit is."""
