"""Default columns that the data files of an older layout lack, made from where the episodes lie."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from lerobot.core import keys
from lerobot.core.errors import DatasetError
from lerobot.datasets.episodes import EpisodeTable
from lerobot.datasets.tables import TaskTable

if TYPE_CHECKING:
    from lerobot.datasets.metadata import LeRobotDatasetMetadata


def fill(table: pa.Table, meta: "LeRobotDatasetMetadata", path: Path) -> pa.Table:
    """All rows of the data file `path`, with those default columns that it lacks.

    Raises:
        DatasetError: the file has another number of rows than its episodes.
    """
    if not meta.missing_columns:
        return table
    names, which = meta.files_of(np.arange(len(meta.episodes)))
    here = np.flatnonzero(which == names.index(path.relative_to(meta.root))).tolist()
    made = default_columns(meta.episodes, meta.tasks, here, fps=meta.fps)
    rows = len(made[keys.INDEX])
    if rows != len(table):
        raise DatasetError(f"{path} has {len(table)} rows, its {len(here)} episodes have {rows} frames.")
    for name in meta.missing_columns:
        table = table.append_column(name, pa.array(made[name]))
    return table


def default_columns(
    episodes: EpisodeTable, tasks: TaskTable, chosen: list[int], *, fps: float
) -> dict[str, np.ndarray]:
    """The five default columns of the chosen episodes, one after the other.

    Every frame of an episode gets its first task.
    """
    lengths = np.asarray(episodes.column("length"), dtype=np.int64)[chosen]
    starts = np.asarray(episodes.column("dataset_from_index"), dtype=np.int64)[chosen]
    frames = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    numbers = first_tasks(episodes, tasks, chosen)
    return {
        keys.TIMESTAMP: (frames / fps).astype(np.float32),
        keys.FRAME_INDEX: frames,
        keys.EPISODE_INDEX: np.repeat(np.asarray(chosen, dtype=np.int64), lengths),
        keys.INDEX: np.repeat(starts, lengths) + frames,
        keys.TASK_INDEX: np.repeat(np.asarray(numbers, dtype=np.int64), lengths),
    }


def first_tasks(episodes: EpisodeTable, tasks: TaskTable, chosen: list[int]) -> list[int]:
    """The number of the first task of each chosen episode; 0 where it has no text."""
    texts = [episodes.columns["tasks"][k][:1] for k in chosen]
    return [tasks.index(one[0]) if one else 0 for one in texts]


def described(meta: "LeRobotDatasetMetadata") -> list[Any]:
    """What made columns follow from, besides the lengths of episodes."""
    if not meta.missing_columns:
        return []
    return [*meta.missing_columns, first_tasks(meta.episodes, meta.tasks, list(range(len(meta.episodes))))]
