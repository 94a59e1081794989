"""Statistics of episodes that were copied into a new dataset.

    sources with sketches:     renumbered rows counted again + pictures' sketches  ->  as if recorded there
    any source without them:   stored statistics  --aggregate_stats-->  as LeRobot's own tools do it

Letters: k number of an episode in the new dataset.
"""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

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
from lerobot.datasets.stats import Stats

logger = logging.getLogger(__name__)


class CarriedStats:
    """Collects what a new dataset's statistics are made of: `rows`, then `pictures`, each in order of k.

    Args:
        root: the new dataset's folder while it is written.
        repo_id: its name.
        features: its features.
        sources: the datasets that its episodes come from.
        renamed: old feature name -> new.
    """

    def __init__(
        self,
        root: Path,
        repo_id: str,
        *,
        features: dict[str, dict],
        sources: Iterable[LeRobotDatasetMetadata],
        renamed: Mapping[str, str],
    ) -> None:
        self.root, self.repo_id, self.features, self.renamed = root, repo_id, features, renamed
        self._numbers, self._pictures = Ledger(root, features), Ledger(root, features)
        self._cameras: list[Summaries] = []
        distinct = {source.root: source for source in sources}
        bare = [folder for folder, source in distinct.items() if stored_totals(source) is None]
        self.is_exact = not bare
        self._stored = {} if bare else {folder: stored_cameras(one) for folder, one in distinct.items()}
        for folder in bare:
            tell_approximate(folder, "it has no sketches", what="the copy", repo_id=repo_id)
        for folder, source in distinct.items():
            if not bare and has_relative_actions(source):
                logger.warning(RELATIVE, folder)

    def rows(self, table: pa.Table) -> Stats:
        """Note the rows of the next episode under their new numbers; returns their statistics, if exact."""
        if not self.is_exact:
            return {}
        found = summaries_of(table, self.features)
        self._numbers.add(found)
        return stats_of(found, self.features)

    def pictures(self, source: LeRobotDatasetMetadata, episode: int, stats: Stats) -> None:
        """Note the cameras of the next episode; `stats` are those of its row, `episode` its old number."""
        if self.is_exact:
            lines = [
                {self.renamed.get(name, name): one for name, one in line.items()}
                for line in self._stored[source.root].get(episode, [])
            ]
            found = matching(lines, stats, self.features)
            self._pictures.add(found)
            self._cameras.append(found)

    def finish(self) -> Stats:
        """Write the new dataset's sketches; returns its statistics, as far as they are exact."""
        if not self.is_exact:
            return {}
        whole = self._numbers
        whole.totals |= self._pictures.totals
        lost = without_sketches(whole.totals, self.features)
        if lost:
            tell_approximate(self.root, NOT_ALL, what=", ".join(lost), repo_id=self.repo_id)
        write_cameras(self.root, enumerate(self._cameras))
        whole.save()
        return whole.stats()
