"""Subtasks of merged datasets (written by LeRobot 0.4.4 to 0.5): united by their text, as tasks are.

meta/subtasks.parquet of each source (subtask_index, text) -> one table, and new numbers in every row
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lerobot.core.errors import DatasetError
from lerobot.datasets import tables
from lerobot.datasets.edit.change import Change
from lerobot.datasets.edit.episodes import Pick

SUBTASKS = "meta/subtasks.parquet"
NUMBER = "subtask_index"


def unites_subtasks(picks: Sequence[Pick]) -> bool:
    """Whether the sources have tables of subtasks that differ, and rows that point into them."""
    roots = dict.fromkeys(meta.root for meta, _ in picks)
    has_column = all(NUMBER in meta.features for meta, _ in picks)
    stored = [(root / SUBTASKS).read_bytes() for root in roots if (root / SUBTASKS).is_file()]
    return has_column and len(stored) == len(roots) and len(set(stored)) > 1


class UnitedSubtasks(Change):
    """Rows get the numbers of the united table, which is written before the other files are carried."""

    def __init__(self, picks: Sequence[Pick]) -> None:
        self.picks = picks
        self.texts: dict[str, int] = {}
        self.numbers: dict[Path, np.ndarray] = {}  # by root: old number -> new
        for meta, _ in picks:
            if meta.root not in self.numbers:
                self.numbers[meta.root] = self._united(meta.root)

    def _united(self, root: Path) -> np.ndarray:
        table = tables.read_parquet(root / SUBTASKS)
        others = [name for name in table.column_names if name != NUMBER]
        if NUMBER not in table.column_names or not others:
            raise DatasetError(f"{root / SUBTASKS} needs {NUMBER} and a column of texts.")
        self.schema, self.text = table.schema, others[0]
        old = table.column(NUMBER).to_numpy()
        texts = table.column(self.text).to_pylist()
        numbers = np.full(int(old.max(initial=-1)) + 1, -1)
        numbers[old] = [self.texts.setdefault(text, len(self.texts)) for text in texts]
        return numbers

    def start(self, work: Path) -> None:
        """Write the united table into the new dataset."""
        columns = {NUMBER: pa.array(self.texts.values(), pa.int64()), self.text: pa.array(self.texts)}
        table = pa.table({name: columns[name] for name in self.schema.names if name in columns})
        (work.parent / SUBTASKS).parent.mkdir(exist_ok=True)
        pq.write_table(table.replace_schema_metadata(self.schema.metadata), work.parent / SUBTASKS)

    def rows(self, k: int, table: pa.Table) -> pa.Table:
        """The rows with new subtask numbers; a number that its table does not have is an error."""
        meta, episode = self.picks[k]
        known, old = self.numbers[meta.root], table.column(NUMBER).to_numpy()
        if len(old) and (old.min() < 0 or old.max() >= len(known)):
            raise DatasetError(f"Episode {episode} of {meta.repo_id!r}: a {NUMBER} is not in {SUBTASKS}.")
        at = table.column_names.index(NUMBER)
        return table.set_column(at, table.field(NUMBER), pa.array(known[old], table.field(NUMBER).type))

    def lines(self) -> list[str]:
        """What is united."""
        return [f"unites subtasks by their text: {len(self.texts)} in all"]
