"""Who reads what, and in which order: parts of an epoch without overlap or loss, and a shuffle buffer.

    episodes --shuffled by data file, then inside it--> runs --cut at equal numbers of frames--> one part
    part --several runs open at a time, picked at random--> buffer --a random place of it--> items

Everything here is numbers: the order of an epoch is known without reading a file, so that an interrupted
epoch goes on where it stopped by reading only what lay in the buffer.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lerobot.core.errors import DatasetError

Key = tuple[int, int]  # a run of the part, and an item of the run


@dataclass(frozen=True)
class Segment:
    """Frames start..stop of an episode."""

    episode: int
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


Run = tuple[Segment, ...]  # read one after another by one reader


def group_by_file(
    segments: Sequence[Segment], files: Sequence[object], *, is_joined: bool
) -> list[list[Run]]:
    """The runs of each data file, in dataset order.

    Args:
        files: the data file of each segment.
        is_joined: all segments of a file are one run, because a reader would pass over the earlier ones
            anyway.
    """
    grouped: dict[object, list[Segment]] = {}
    for segment, file in zip(segments, files, strict=True):
        grouped.setdefault(file, []).append(segment)
    return [[tuple(one)] if is_joined else [(s,) for s in one] for one in grouped.values()]


def shuffled(groups: Sequence[Sequence[Run]], rng: np.random.Generator) -> list[Run]:
    """All runs: files in random order, and the runs of each file in random order.

    File by file, so that what is kept of a file (its tables) serves the runs that are open together.
    """
    order: list[Run] = []
    for f in rng.permutation(len(groups)):
        order += [groups[f][r] for r in rng.permutation(len(groups[f]))]
    return order


def part_of(runs: Sequence[Run], part: int, num_parts: int) -> list[Run]:
    """The runs of one of `num_parts` parts of equal length, give or take a frame; two runs may be cut."""
    total = sum(len(segment) for run in runs for segment in run)
    first, stop = total * part // num_parts, total * (part + 1) // num_parts
    found, at = [], 0
    for run in runs:
        kept = []
        for segment in run:
            start = segment.start + max(first - at, 0)
            end = segment.start + min(stop - at, len(segment))
            if start < end:
                kept.append(Segment(segment.episode, start, end))
            at += len(segment)
        if kept:
            found.append(tuple(kept))
        if at >= stop:
            break
    return found


class ShuffleBuffer:
    """The order in which the items of a part are read and given out; (give, read) pairs, either may be None.

    Args:
        lengths: items of each run, in the order in which runs are opened.
        num_open: runs that are read side by side.
        size: items in the buffer; 0 gives each item as it is read.
        rng: None opens one run at a time and gives every item in order.
    """

    def __init__(
        self, lengths: Sequence[int], *, num_open: int, size: int, rng: np.random.Generator | None
    ) -> None:
        self.size = size if rng is not None else 0
        self.num_open = num_open if rng is not None else 1
        self._draws = _draws(rng) if rng is not None else None
        self.num_opened = 0
        self._rest = deque(lengths)  # of the runs that were not opened yet
        self._open: list[list[int]] = []  # [run, next item, items]
        self._held: list[Key] = []

    def __iter__(self) -> Iterator[tuple[Key | None, Key | None]]:
        return self

    def __next__(self) -> tuple[Key | None, Key | None]:
        read = self._read()
        if read is None:
            return self._drain(), None
        if len(self._held) < self.size:
            self._held.append(read)
            return None, read
        if not self.size:
            return read, read
        place = self._draw(self.size)
        give, self._held[place] = self._held[place], read
        return give, read

    def skip(self, count: int) -> list[Key]:
        """Go on as if `count` items had been given; what was read by then and not given."""
        while count > 0:
            step = next(self, None)
            if step is None:
                raise DatasetError("The position to go on from lies behind the end of the epoch.")
            count -= step[0] is not None
        return list(self._held)

    def _read(self) -> Key | None:
        while self._rest and len(self._open) < self.num_open:
            self._open.append([self.num_opened, 0, self._rest.popleft()])
            self.num_opened += 1
        if not self._open:
            return None
        place = self._draw(len(self._open))
        run, item, items = self._open[place]
        self._open[place][1] += 1
        if item + 1 == items:
            del self._open[place]
        return run, item

    def _drain(self) -> Key:
        if not self._held:
            raise StopIteration
        place = self._draw(len(self._held))
        self._held[place], self._held[-1] = self._held[-1], self._held[place]
        return self._held.pop()

    def _draw(self, count: int) -> int:
        return int(next(self._draws) * count) if self._draws is not None else 0


def _draws(rng: np.random.Generator) -> Iterator[float]:
    """Numbers in [0, 1) for ever; drawn many at a time, which costs a tenth of single draws."""
    while True:
        yield from rng.random(4096).tolist()
