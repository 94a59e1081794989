"""The tables of formats v2.0 and v2.1, in the words of v3.0: a file of its own for every episode.

meta/episodes.jsonl, meta/tasks.jsonl    data/chunk-CCC/episode_EEEEEE.parquet    videos/chunk-CCC/KEY/...mp4
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from lerobot.core import keys
from lerobot.core.errors import DatasetError
from lerobot.datasets.doctor.finding import Finding, finding
from lerobot.datasets.doctor.folder import Episodes, Folder, Places
from lerobot.datasets.legacy.view import open_view

EPISODES_FILE, TASKS_FILE = keys.EPISODES_JSONL, keys.TASKS_JSONL
DATA_PATH = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
VIDEO_PATH = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
EPISODES_PER_CHUNK = 1000


def read_old_tables(folder: Folder) -> list[Finding]:
    """Fill `tasks` and `episodes` of the folder; what is wrong with their lines."""
    rows, found = _lines(folder.root, EPISODES_FILE, ("episode_index", "length"), "episodes")
    tasks, more = _lines(folder.root, TASKS_FILE, ("task_index", "task"), "tasks")
    if tasks is not None:
        numbers = [task["task_index"] for task in tasks]
        if sorted(numbers) == list(range(len(numbers))):
            folder.tasks = [task["task"] for task in sorted(tasks, key=lambda task: task["task_index"])]
        else:
            text = f"task_index {numbers[:8]}"
            more.append(finding("tasks.order", TASKS_FILE, found=text, expected=f"0 to {len(numbers) - 1}"))
    if rows is not None:
        folder.episodes = _episodes(folder, rows)
    return found + more


def check_shards(folder: Folder) -> list[Finding]:
    """Whether a dataset in the layout of some guides can be opened; the reader of that layout decides."""
    found = [
        finding(
            "layout.shards",
            EPISODES_FILE,
            found="episodes listed beside numbered shards",
            expected="format v3.0 for a dataset that is to be changed",
            remedy="lerobot-edit-dataset --operation.type=convert makes a v3.0 copy",
        )
    ]
    try:
        open_view(folder.root)
    except DatasetError as error:
        text = str(error).splitlines()[0].rstrip(".")
        found.append(finding("layout.damaged", EPISODES_FILE, found=text, expected="shards that hold them"))
    return found


def _lines(
    root: Path, name: str, needed: tuple[str, ...], noun: str
) -> tuple[list[dict[str, Any]] | None, list[Finding]]:
    path = root / name
    if not path.is_file():
        return None, [
            finding(f"{noun}.missing", name, found="no such file", expected="a line for each of them")
        ]
    rows = []
    for k, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines()):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            return None, [
                finding(f"{noun}.unreadable", name, found=f"line {k + 1}: {error}", expected="JSON")
            ]
        if not isinstance(row, dict) or any(key not in row for key in needed):
            text = f"line {k + 1} is {line[:80]}"
            return None, [finding(f"{noun}.column", name, found=text, expected=" and ".join(needed))]
        rows.append(row)
    return rows, []


def _episodes(folder: Folder, rows: list[dict[str, Any]]) -> Episodes:
    info = folder.info or {}
    number, length = (np.array([row[c] for row in rows], dtype=np.int64) for c in ("episode_index", "length"))
    ends = np.cumsum(length)
    chunks = number // int(info.get("chunks_size") or EPISODES_PER_CHUNK)

    def places(template: Any, key: str = "") -> Places:
        pairs = zip(chunks.tolist(), number.tolist(), strict=True)
        files = [str(template).format(episode_chunk=c, episode_index=n, video_key=key) for c, n in pairs]
        return Places(files=files, file=np.arange(len(rows)))

    videos = {}
    for key in folder.video_keys:
        videos[key] = places(info.get("video_path") or VIDEO_PATH, key)
        videos[key].start_s, videos[key].end_s = np.zeros(len(rows)), length / (folder.fps or 1)
    return Episodes(
        number=number,
        length=length,
        start=ends - length,
        end=ends,
        tasks=[list(row.get("tasks") or []) for row in rows],
        data=places(info.get("data_path") or DATA_PATH),
        videos=videos,
        table_files=[EPISODES_FILE],
        table_file=np.zeros(len(rows), dtype=np.int64),
    )
