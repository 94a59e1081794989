"""A dataset in an older layout, as format v3.0 would describe it: nothing on disk changes.

meta/info.json of v2.0, v2.1, or beside meta/episodes.jsonl -> View: info, episodes, tasks, stats of v3.0

Readers of v3.0 then work as they are: the paths in `info` lead to the old files, and the episode table says
which of them holds each episode.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lerobot.core import hub, keys
from lerobot.core.errors import DatasetError
from lerobot.datasets.episodes import EpisodeTable
from lerobot.datasets.tables import EPISODES_FOLDER, TaskTable

Stats = dict[str, dict[str, np.ndarray]]

SHARDS = "v3.0 with meta/episodes.jsonl"  # what the layout of `shards.py` is called in messages


class OldEpisodes(EpisodeTable):
    """Where the episodes of an older layout lie; their statistics, as far as there are any, are in memory."""

    def __init__(self, columns: dict[str, list], *, root: Path, stats: Mapping[int, Stats]) -> None:
        line = root / keys.EPISODES_JSONL
        super().__init__(columns, [(line, row) for row in range(len(columns[keys.EPISODE_INDEX]))])
        self.root, self.own_stats = root, stats

    def stats(self, episode: int) -> Stats:
        """Statistics of one episode.

        Raises:
            DatasetError: there are none; says how to get them.
        """
        if episode not in self.own_stats:
            raise DatasetError(
                f"{self.root} has no statistics of episode {episode}. Converting it computes them. Type:\n"
                f"  {convert_command(self.root, self.root.name)}"
            )
        return self.own_stats[episode]


@dataclass(frozen=True, kw_only=True)
class View:
    """What the older layout says, in the words of v3.0."""

    layout: str  # "v2.0", "v2.1" or SHARDS
    info: dict[str, Any]
    episodes: OldEpisodes
    tasks: TaskTable
    stats: Stats
    list_files: Callable[[], dict[str, list[Path]]]
    missing_columns: tuple[str, ...] = ()  # default columns that the data files lack

    @cached_property
    def files(self) -> dict[str, list[Path]]:
        """Under "data" and under each camera the files that, one after the other, hold all frames."""
        return self.list_files()


def open_view(root: Path, *, may_tear: bool = False) -> View | None:
    """The view of a dataset in an older layout; None for format v3.0 and whatever else is there.

    Args:
        may_tear: see `shards.view`; not for readers, which expect an episode in one file.

    Raises:
        DatasetError: the layout is too old to be read, or its files contradict each other.
    """
    info = peek_info(root)
    version = hub.parse_version(str(info.get("codebase_version", "")))
    if version is not None and version[0] < 2:
        raise DatasetError(
            f"{root} is in format {info['codebase_version']}, which is older than v2.0 and not read. Convert "
            "it to v2.0 with an old release of LeRobot first."
        )
    if version is not None and version[0] == 2:
        from lerobot.datasets.legacy import v2

        return v2.view(root, info)
    if is_sharded(root):
        from lerobot.datasets.legacy import shards

        return shards.view(root, info, may_tear=may_tear)
    return None


def peek_info(root: Path) -> dict[str, Any]:
    """meta/info.json as it is; empty when there is none or it is no JSON object (its reader says so)."""
    try:
        info = json.loads((root / keys.INFO_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return info if isinstance(info, dict) else {}


def is_sharded(root: Path) -> bool:
    """Whether a dataset of v3.0, by its own word, has its episodes in meta/episodes.jsonl only."""
    version = hub.parse_version(str(peek_info(root).get("codebase_version", "")))
    return (
        version in (None, (3, 0, 0))
        and (root / keys.EPISODES_JSONL).is_file()
        and not (root / EPISODES_FOLDER).is_dir()
    )


def refusal(root: Path, repo_id: str, layout: str) -> DatasetError:
    """The error of whoever wants to change a dataset that is only read."""
    return DatasetError(
        f"{root} is in the layout {layout}, which is read and never changed. Convert it first; the "
        f"original is kept beside it. Type:\n  {convert_command(root, repo_id)}"
    )


def convert_command(root: Path, repo_id: str) -> str:
    """What to type to convert a dataset."""
    return f"lerobot-edit-dataset --operation.type=convert --repo_id={repo_id} --root={root}"


# ------------------------------------------------------------------------------------ what both layouts share
def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file with one JSON object per line.

    Raises:
        DatasetError: it is missing, or a line is no object; names the line.
    """
    if not path.is_file():
        raise DatasetError(f"{path} is missing. Load the dataset with force_cache_sync=True to download it.")
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DatasetError(f"{path}, line {number}: not JSON ({error}). Is the file cut off?") from error
        if not isinstance(row, dict):
            raise DatasetError(f"{path}, line {number}: expected an object, got {line[:60]!r}.")
        rows.append(row)
    return rows


def episode_rows(root: Path) -> list[dict[str, Any]]:
    """The rows of meta/episodes.jsonl in the order of their numbers, each with its list of task texts.

    Raises:
        DatasetError: a row lacks its number, or the numbers are not 0, 1, 2, ...
    """
    path = root / keys.EPISODES_JSONL
    rows = read_lines(path)
    for k, row in enumerate(rows):
        if not isinstance(row.get(keys.EPISODE_INDEX), int):
            raise DatasetError(f"{path}, entry {k + 1}: expected a whole number as episode_index, got {row}.")
        row["tasks"] = _texts(row)
    rows.sort(key=lambda row: row[keys.EPISODE_INDEX])
    numbers = [row[keys.EPISODE_INDEX] for row in rows]
    wrong = next((k for k, number in enumerate(numbers) if number != k), None)
    if wrong is not None:
        raise DatasetError(
            f"{path}: expected the episodes 0 to {len(rows) - 1}, each once; got {numbers[wrong]} in place "
            f"of {wrong}."
        )
    return rows


def _texts(row: dict[str, Any]) -> list[str]:
    given = row.pop(keys.TASK, None) if "tasks" not in row else row["tasks"]
    texts = [] if given is None else [given] if isinstance(given, str) else list(given)
    return [str(text) for text in texts]


def lengths_of(root: Path, rows: list[dict[str, Any]]) -> list[int]:
    """How many frames each episode has.

    Raises:
        DatasetError: a row does not say it.
    """
    for row in rows:
        if not isinstance(row.get("length"), int) or row["length"] < 1:
            raise DatasetError(
                f"{root / keys.EPISODES_JSONL}: episode {row[keys.EPISODE_INDEX]} has length "
                f"{row.get('length')!r}, expected a number of frames."
            )
    return [row["length"] for row in rows]


def read_tasks(root: Path) -> list[str] | None:
    """Task texts in the order of their numbers; None when there is no file of tasks.

    Raises:
        DatasetError: the numbers are not 0, 1, 2, ...
    """
    path = root / keys.TASKS_JSONL
    if (root / keys.TASKS_FILE).is_file():
        return TaskTable.load(root).names
    if not path.is_file():
        return None
    rows = sorted(read_lines(path), key=lambda row: row.get(keys.TASK_INDEX, -1))
    if [row.get(keys.TASK_INDEX) for row in rows] != list(range(len(rows))):
        raise DatasetError(f"{path}: expected task_index 0 to {len(rows) - 1}, each once.")
    return [str(row[keys.TASK]) for row in rows]


def arrays(plain: dict[str, dict[str, Any]], *, count: int | None = None) -> Stats:
    """Statistics as arrays of one dimension or more; `count` is put where there is none."""
    stats = {
        name: {stat: np.atleast_1d(np.array(value)) for stat, value in one.items()}
        for name, one in plain.items()
    }
    if count is not None:
        for one in stats.values():
            one.setdefault("count", np.array([count]))
    return stats


def read_stats(root: Path, *, count: int) -> Stats:
    """meta/stats.json; a dataset that does not say how many frames it counted, counted all `count`."""
    path = root / keys.STATS_FILE
    if not path.is_file():
        return {}
    try:
        return arrays(json.loads(path.read_text(encoding="utf-8")), count=count)
    except (ValueError, AttributeError) as error:
        raise DatasetError(f"{path} cannot be read as statistics: {error}") from error
