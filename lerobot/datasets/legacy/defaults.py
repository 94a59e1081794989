"""Default columns that the data files of an older layout lack, made from where the episodes lie."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from lerobot.core import keys
from lerobot.core.errors import DatasetError
from lerobot.datasets.tables import EpisodeTable, TaskTable

if TYPE_CHECKING:
    from lerobot.datasets.metadata import LeRobotDatasetMetadata


def fill(table: pa.Table, meta: "LeRobotDatasetMetadata", path: Path) -> pa.Table:
    """All rows of the data file `path`, with those default columns that it lacks.

    Raises:
        DatasetError: the file has another number of rows than its episodes.
    """
    if not meta.missing_columns:
        return table
    places = zip(meta.episodes["data/chunk_index"], meta.episodes["data/file_index"], strict=True)
    here = [k for k, place in enumerate(places) if meta.root / meta.data_file(*place) == path]
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
    lengths = np.asarray(episodes["length"], dtype=np.int64)[chosen]
    starts = np.asarray(episodes["dataset_from_index"], dtype=np.int64)[chosen]
    frames = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    first = [episodes["tasks"][k][:1] for k in chosen]
    numbers = [tasks.index(texts[0]) if texts else 0 for texts in first]
    return {
        keys.TIMESTAMP: (frames / fps).astype(np.float32),
        keys.FRAME_INDEX: frames,
        keys.EPISODE_INDEX: np.repeat(np.asarray(chosen, dtype=np.int64), lengths),
        keys.INDEX: np.repeat(starts, lengths) + frames,
        keys.TASK_INDEX: np.repeat(np.asarray(numbers, dtype=np.int64), lengths),
    }
