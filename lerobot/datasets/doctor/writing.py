"""The sound copy's files: data, videos, tasks, episode table, statistics, info.json, in this order.

    pieces -> rows under new numbers (copied as they are where nothing changes) -> rows of meta/episodes

Shapes: T rows of an episode.
"""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lerobot.core import files, keys
from lerobot.datasets.doctor import footage, restat
from lerobot.datasets.doctor.folder import Folder
from lerobot.datasets.doctor.infer import DATA_PATH, VIDEO_PATH
from lerobot.datasets.doctor.report import Report
from lerobot.datasets.doctor.salvage import Piece
from lerobot.datasets.tables import (
    EPISODES_PATH,
    STATS_PREFIX,
    TaskTable,
    flatten_stats,
    read_episode_rows,
    write_episode_rows,
)

if TYPE_CHECKING:
    from lerobot.datasets.doctor.rebuild import Outcome

ROWS_PER_TABLE = 5000  # episodes in one file of meta/episodes
KEPT_PREFIXES = (STATS_PREFIX, "videos/", "data/", "meta/")  # columns that are written anew


def write_dataset(
    folder: Folder,
    before: Report,
    pieces: list[Piece],
    opened: footage.Videos,
    *,
    sources: dict[str, Path],
    out: Path,
    outcome: "Outcome",
) -> None:
    """Write the pieces as a dataset into the folder `out`."""
    old_rows = _old_rows(folder)
    tasks, task_numbers = _tasks(folder, pieces, old_rows, outcome)
    rows = _start_rows(pieces, old_rows)
    _write_data(folder, pieces, rows, task_numbers, sources=sources, out=out, outcome=outcome)
    for row, numbers in zip(rows, task_numbers, strict=True):
        row["tasks"] = [tasks[number] for number in dict.fromkeys(numbers.tolist())]
    for camera in folder.video_keys:
        base = out / "videos" / camera / "chunk-000"
        places = footage.copy_footage(folder, pieces, opened, camera=camera, out=base)
        assert folder.fps is not None
        for piece, row in zip(pieces, rows, strict=True):
            file, first = places[piece.number]
            row |= {f"videos/{camera}/chunk_index": 0, f"videos/{camera}/file_index": file}
            row |= {f"videos/{camera}/from_timestamp": first / folder.fps}
            row |= {f"videos/{camera}/to_timestamp": (first + len(piece)) / folder.fps}
    if tasks:
        TaskTable(tasks).save(out)
    stats = restat.episode_stats(folder, pieces, rows, old_rows, out=out)
    for row, one in zip(rows, stats, strict=True):
        row |= flatten_stats(one)
    _write_table(rows, out)
    restat.write_stats(folder, before, stats, lost=bool(outcome.lost), out=out)
    _write_info(folder, rows, tasks, out)
    for path in (folder.root / "README.md",):
        if path.is_file():
            shutil.copyfile(path, out / path.name)


def _old_rows(folder: Folder) -> dict[int, dict[str, Any]]:
    """Complete rows of the episode table that can be read, by number."""
    found: dict[int, dict[str, Any]] = {}
    for name in folder.episodes.table_files if folder.episodes is not None else []:
        for row in read_episode_rows(folder.root / name):
            found.setdefault(row["episode_index"], row)
    return found


def _tasks(
    folder: Folder, pieces: list[Piece], old_rows: dict[int, dict[str, Any]], outcome: "Outcome"
) -> tuple[list[str], list[np.ndarray]]:
    """The task texts of the copy, and each piece's task numbers (T,) in it."""
    texts = dict(enumerate(folder.tasks or []))
    if folder.tasks is None:
        for piece in pieces:
            said, numbers = _said(old_rows, piece), np.unique(piece.columns[keys.TASK_INDEX])
            if len(said) == 1 and len(numbers) == 1:
                texts.setdefault(int(numbers[0]), said[0])
        outcome.done.append(f"{keys.TASKS_FILE}: {len(texts)} texts taken from the episode table")
    names, found = list(dict.fromkeys(texts[k] for k in sorted(texts))), []
    for piece in pieces:
        said, numbers = _said(old_rows, piece), piece.columns[keys.TASK_INDEX]
        new = np.empty(len(piece), dtype=np.int64)
        for number in np.unique(numbers):
            text = texts.get(int(number))
            if text is None:
                text = said[0] if len(said) == 1 else f"unknown task {number}"
                outcome.done.append(f"episode {piece.number}: task_index {number} is {text!r}")
            if text not in names:
                names.append(text)
            new[numbers == number] = names.index(text)
        found.append(new)
    return names, found


def _said(old_rows: dict[int, dict[str, Any]], piece: Piece) -> list[str]:
    return list(old_rows.get(piece.number, {}).get("tasks") or [])


def _start_rows(pieces: list[Piece], old_rows: dict[int, dict[str, Any]]) -> list[dict[str, Any]]:
    """The new numbers of the pieces, and whatever else their old rows said."""
    rows, start = [], 0
    for number, piece in enumerate(pieces):
        others = {k: v for k, v in old_rows.get(piece.number, {}).items() if not k.startswith(KEPT_PREFIXES)}
        row = {"episode_index": number, "tasks": [], "length": len(piece)}
        row |= {"data/chunk_index": 0, "data/file_index": 0}
        row |= {"dataset_from_index": start, "dataset_to_index": start + len(piece)}
        rows.append(row | {k: v for k, v in others.items() if k not in row})
        start += len(piece)
    return rows


def _write_data(
    folder: Folder,
    pieces: list[Piece],
    rows: list[dict[str, Any]],
    task_numbers: list[np.ndarray],
    *,
    sources: dict[str, Path],
    out: Path,
    outcome: "Outcome",
) -> None:
    """One data file for each run of pieces that come from the same file."""
    runs: list[list[int]] = []
    for k, piece in enumerate(pieces):
        if runs and pieces[runs[-1][-1]].file == piece.file:
            runs[-1].append(k)
        else:
            runs.append([k])
    for number, run in enumerate(runs):
        source, target = (
            sources[pieces[run[0]].file],
            out / DATA_PATH.format(chunk_index=0, file_index=number),
        )
        target.parent.mkdir(parents=True, exist_ok=True)
        changed = _changed(
            folder, [pieces[k] for k in run], [rows[k] for k in run], [task_numbers[k] for k in run]
        )
        if not changed and pq.read_metadata(source).num_rows == sum(len(pieces[k]) for k in run):
            shutil.copyfile(source, target)
        else:
            if changed:
                outcome.done.append(f"{pieces[run[0]].file}: {', '.join(sorted(changed))} written again")
            _rewrite(folder, source, target, pieces, rows, task_numbers, run)
        files.sync_file(target)
        for k in run:
            rows[k] |= {"data/chunk_index": 0, "data/file_index": number}


def _numbering(folder: Folder, piece: Piece, row: dict[str, Any], tasks: np.ndarray) -> dict[str, np.ndarray]:
    """The five default columns of a piece in the copy, each (T,)."""
    assert folder.fps is not None
    frame = np.arange(len(piece), dtype=np.int64)
    return {
        keys.TIMESTAMP: (frame / folder.fps).astype(np.float32),
        keys.FRAME_INDEX: frame,
        keys.EPISODE_INDEX: np.full(len(piece), row["episode_index"], dtype=np.int64),
        keys.INDEX: frame + row["dataset_from_index"],
        keys.TASK_INDEX: tasks,
    }


def _changed(
    folder: Folder, pieces: list[Piece], rows: list[dict[str, Any]], task_numbers: list[np.ndarray]
) -> set[str]:
    """Default columns whose values are others now; "order" when rows move."""
    changed: set[str] = set()
    for piece, row, tasks in zip(pieces, rows, task_numbers, strict=True):
        for name, values in _numbering(folder, piece, row, tasks).items():
            stored = piece.columns[name]
            same = np.allclose(stored, values, rtol=1e-6, atol=1e-4) if name == keys.TIMESTAMP else None
            if not (np.array_equal(stored, values) if same is None else same):
                changed.add(name)
    if (np.diff(np.concatenate([piece.take for piece in pieces])) <= 0).any():
        changed.add("order")
    return changed


def _rewrite(
    folder: Folder,
    source: Path,
    target: Path,
    pieces: list[Piece],
    rows: list[dict[str, Any]],
    task_numbers: list[np.ndarray],
    run: list[int],
) -> None:
    """The pieces' rows under their new numbers, one row group per episode."""
    table = pq.ParquetFile(source).read()
    with pq.ParquetWriter(target, table.schema) as writer:
        for k in run:
            some = table.take(pa.array(pieces[k].take))
            for name, values in _numbering(folder, pieces[k], rows[k], task_numbers[k]).items():
                at = some.column_names.index(name)
                field = some.schema.field(name)
                some = some.set_column(at, field, pa.array(values).cast(field.type))
            writer.write_table(some, row_group_size=max(1, len(some)))


def _write_table(rows: list[dict[str, Any]], out: Path) -> None:
    for number, start in enumerate(range(0, len(rows), ROWS_PER_TABLE)):
        some = rows[start : start + ROWS_PER_TABLE]
        for row in some:
            row |= {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": number}
        write_episode_rows(out / EPISODES_PATH.format(chunk_index=0, file_index=number), some)


def _write_info(folder: Folder, rows: list[dict[str, Any]], tasks: list[str], out: Path) -> None:
    """info.json with everything it said before, and true counters."""
    info = dict(folder.info or {})
    total, splits = len(rows), info.get("splits")
    if info.get("total_episodes") != total or not isinstance(splits, dict) or not splits:
        splits = {"train": f"0:{total}"}
    info |= {
        "codebase_version": info.get("codebase_version", "v3.0"),
        "fps": folder.fps,
        "features": {name: {**one, "shape": list(one["shape"])} for name, one in folder.features.items()},
        "total_episodes": total,
        "total_frames": sum(row["length"] for row in rows),
        "total_tasks": len(tasks),
        "data_path": DATA_PATH,
        "video_path": VIDEO_PATH if folder.video_keys else None,
        "splits": splits,
    }
    files.write_json(out / keys.INFO_FILE, info)
