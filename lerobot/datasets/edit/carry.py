"""Statistics of episodes that were copied into a new dataset.

sources with sketches:     renumbered rows counted again + pictures' sketches  ->  as if recorded there
any source without them:   stored statistics  --aggregate_stats-->  as LeRobot's own tools do it
"""

import logging
from collections.abc import Iterable

import pyarrow as pa

from lerobot.datasets.ledger import (
    NOT_ALL,
    RELATIVE,
    Ledger,
    Summaries,
    has_relative_actions,
    matching,
    stats_of,
    stored_cameras,
    stored_totals,
    summaries_of,
    tell_approximate,
    without_sketches,
    write_cameras,
)
from lerobot.datasets.metadata import LeRobotDatasetMetadata
from lerobot.datasets.stats import Stats, aggregate_stats

logger = logging.getLogger(__name__)


class CarriedStats:
    """Collects the statistics of a new dataset's episodes, in their order.

    Args:
        meta: the new dataset.
        sources: the datasets that its episodes come from.
    """

    def __init__(self, meta: LeRobotDatasetMetadata, sources: Iterable[LeRobotDatasetMetadata]) -> None:
        self.meta = meta
        self.episodes: list[Stats] = []  # of each episode, as its row is to hold them
        self._ledger = Ledger(meta)
        self._cameras: list[Summaries] = []
        distinct = {id(source): source for source in sources}
        bare = [source for source in distinct.values() if stored_totals(source) is None]
        self._is_exact = not bare
        self._stored = {} if bare else {key: stored_cameras(source) for key, source in distinct.items()}
        for source in bare:
            tell_approximate(source, "it has no sketches", what="the copy", of=meta)
        for source in distinct.values():
            if not bare and has_relative_actions(source):
                logger.warning(RELATIVE, source.root)

    def take(self, table: pa.Table, *, source: LeRobotDatasetMetadata, episode: int, stats: Stats) -> Stats:
        """Note the next episode; returns the statistics that its row is to hold.

        Args:
            table: its rows, under their new numbers.
            source: where it comes from,
            episode: under which number,
            stats: and with which statistics.
        """
        stats = {name: one for name, one in stats.items() if name in self.meta.features}
        if self._is_exact:
            numbers = summaries_of(table, self.meta.features)
            cameras = matching(self._stored[id(source)].get(episode, []), stats, self.meta.features)
            self._ledger.add(numbers | cameras)
            self._cameras.append(cameras)
            stats |= stats_of(numbers, self.meta.features)
        self.episodes.append(stats)
        return stats

    def save_cameras(self) -> None:
        """Write the sketches of the episodes' pictures; to be done before their rows are there."""
        write_cameras(self.meta, enumerate(self._cameras))

    def save(self, given: Stats | None) -> None:
        """Write the dataset's statistics and sketches.

        `given` are what its statistics are without sketches; by default the aggregate of the episodes'.
        """
        exact = self._ledger.stats() if self._is_exact else {}
        lost = without_sketches(self._ledger.totals, self.meta.features)
        if self._is_exact and lost:
            tell_approximate(self.meta, NOT_ALL, what=", ".join(lost))
        # What is given was read for use, where distances are expressed in the unit that was asked for.
        known = {k: v for k, v in (given or {}).items() if k not in self.meta.depth_keys}
        rest = [{k: v for k, v in one.items() if k not in exact and k not in known} for one in self.episodes]
        found = aggregate_stats([one for one in rest if one]) | known | exact
        self.meta.stats = {name: found[name] for name in self.meta.features if name in found}
        self.meta.save_stats()
        if self._is_exact:
            self._ledger.save()
