"""Entries of several runs at a time, made by threads a little before they are asked for.

    runs --threads: a chunk each, the next one while the last is used--> take(run, item)

What is given never depends on how fast a thread is. Errors of a thread reach whoever takes its entry.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from lerobot.datasets.stream.reel import Entry, Reel
from lerobot.datasets.stream.shards import Key, Run

RUNS_AHEAD = 2  # runs that are begun before they are opened


@dataclass
class _Open:
    entries: Iterator[Entry]
    coming: Future[list[Entry]]
    ready: deque[Entry] = field(default_factory=deque)


class ReadAhead:
    """Reads runs; close it in the end.

    Args:
        first_new: runs before this one were begun in an earlier iterator; see `fetch`.
    """

    def __init__(self, reel: Reel, runs: Sequence[Run], *, num_threads: int, first_new: int = 0) -> None:
        self.reel, self.runs = reel, runs
        self._next_run = first_new
        self._open: dict[int, _Open] = {}
        self._pool = ThreadPoolExecutor(num_threads, thread_name_prefix="stream")

    def take(self, key: Key) -> Entry:
        """The item of a run; the items of a run are taken in order."""
        run, item = key
        for coming in range(self._next_run, min(run + 1 + RUNS_AHEAD, len(self.runs))):
            self._begin(coming, 0)
        self._next_run = max(self._next_run, run + 1 + RUNS_AHEAD)
        if run not in self._open:  # goes on in the middle of a run
            self._begin(run, item)
        one = self._open[run]
        if not one.ready:
            one.ready.extend(one.coming.result())
            one.coming = self._more(one.entries)
        entry = one.ready.popleft()
        if item + 1 == sum(map(len, self.runs[run])):
            del self._open[run]
        return entry

    def fetch(self, keys: Sequence[Key]) -> dict[Key, Entry]:
        """Single items, of runs that `take` goes on with later."""
        by_run: dict[int, list[int]] = {}
        for run, item in sorted(keys):
            by_run.setdefault(run, []).append(item)
        jobs = {
            run: self._pool.submit(list, self.reel.entries(_frames(self.runs[run], items)))
            for run, items in by_run.items()
        }
        return {
            (run, item): entry
            for run, items in by_run.items()
            for item, entry in zip(items, jobs[run].result(), strict=True)
        }

    def close(self) -> None:
        """Stop the threads and release the files."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._open.clear()

    def _begin(self, run: int, item: int) -> None:
        length = sum(map(len, self.runs[run]))
        entries = self.reel.entries(_frames(self.runs[run], range(item, length)))
        self._open[run] = _Open(entries, self._more(entries))

    def _more(self, entries: Iterator[Entry]) -> "Future[list[Entry]]":
        return self._pool.submit(lambda: list(islice(entries, self.reel.chunk)))


def _frames(run: Run, items: Sequence[int]) -> list[tuple[int, np.ndarray]]:
    """(episode, frames) of ascending items of a run."""
    wanted, found, at = np.asarray(items, dtype=np.int64), [], 0
    for segment in run:
        inside = wanted[(wanted >= at) & (wanted < at + len(segment))]
        if len(inside):
            found.append((segment.episode, inside - at + segment.start))
        at += len(segment)
    return found
