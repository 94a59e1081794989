"""Files of a dataset folder that the format does not know: carried along where their rows can be followed.

README, licences, notes   copied          *_progress.parquet   rows of kept episodes, renumbered
images/, .cache/          left behind     what differs between merged datasets: left behind, and said
"""

import filecmp
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lerobot.core import files, keys
from lerobot.core.errors import DatasetError
from lerobot.datasets import tables
from lerobot.datasets.edit.episodes import Pick
from lerobot.datasets.edit.target import MARK

OWN_FOLDERS = ("data", "videos", "images", ".cache", tables.EPISODES_FOLDER)
OWN_FILES = (
    keys.INFO_FILE,
    keys.STATS_FILE,
    keys.TASKS_FILE,
    keys.SKETCHES_FILE,
    keys.EPISODE_SKETCHES_FILE,
    MARK,
)
PROGRESS = "*_progress.parquet"


def unknown_files(root: Path) -> list[Path]:
    """Files that the format does not know, relative to the root; unfinished ones are passed over."""
    found = []
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root)
        is_own = name.as_posix() in OWN_FILES or any(name.is_relative_to(folder) for folder in OWN_FOLDERS)
        if path.is_file() and not is_own and not path.name.endswith(files.PART_SUFFIX):
            found.append(name)
    return found


def carry(folder: Path, picks: Sequence[Pick], rows: Sequence[dict[str, Any]]) -> list[str]:
    """Copy what can be carried into the new dataset; returns a line for each file that is left behind."""
    roots = list(dict.fromkeys(meta.root for meta, _ in picks))
    left = []
    for name in dict.fromkeys(name for root in roots for name in unknown_files(root)):
        owners = [root for root in roots if (root / name).is_file()]
        out = folder / name
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.exists():  # the edit made its own
            continue
        if name.match(PROGRESS) and len(name.parts) == 1:
            left += _carry_progress(out, name, picks, rows)
        elif all(filecmp.cmp(owners[0] / name, root / name, shallow=False) for root in owners[1:]):
            shutil.copyfile(owners[0] / name, out)
        else:
            left.append(f"{name} differs between the merged datasets and is left behind.")
    return left


def _carry_progress(
    out: Path, name: Path, picks: Sequence[Pick], rows: Sequence[dict[str, Any]]
) -> list[str]:
    """One row per frame of the kept episodes; frames are found by their old index."""
    parts: list[pa.Table] = []
    stored: dict[Path, pa.Table] = {}
    for (meta, episode), row in zip(picks, rows, strict=True):
        path = meta.root / name
        if path not in stored:
            stored[path] = pq.read_table(path) if path.is_file() else None
        table = stored[path]
        if table is None:
            continue
        if not {keys.INDEX, keys.EPISODE_INDEX} <= set(table.column_names):
            return [f"{name} has no columns index and episode_index and is left behind."]
        old = meta.episodes[episode]
        index = table.column(keys.INDEX).to_numpy()
        low, high = np.searchsorted(index, [old["dataset_from_index"], old["dataset_to_index"]])
        part = table.slice(low, high - low)
        fresh = part.column(keys.INDEX).to_numpy() - old["dataset_from_index"] + row["dataset_from_index"]
        numbers = {keys.INDEX: fresh, keys.EPISODE_INDEX: np.full(len(part), row["episode_index"])}
        for column, values in numbers.items():
            at = part.column_names.index(column)
            part = part.set_column(at, part.field(column), pa.array(values, part.field(column).type))
        parts.append(part)
    try:
        pq.write_table(pa.concat_tables(parts), out)
    except pa.ArrowException as error:
        raise DatasetError(
            f"{name} cannot be joined: {error}. Move it away from one of the datasets."
        ) from error
    return []
