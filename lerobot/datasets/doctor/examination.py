"""Everything that can be wrong with a dataset, looked for in its raw files; nothing is changed.

    folder -> info, tasks, episode table -> data files -> videos -> statistics -> Report

Each check is a function from what was read to findings, so that one damaged file hides no other.
"""

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from lerobot.core.errors import DatasetError
from lerobot.datasets.doctor import cameras, info, old, rows, stats, tasks, videos
from lerobot.datasets.doctor import decode as decoding
from lerobot.datasets.doctor import episodes as table_checks
from lerobot.datasets.doctor.finding import Finding
from lerobot.datasets.doctor.folder import Folder, holds_traces
from lerobot.datasets.doctor.report import Report
from lerobot.datasets.legacy.view import is_sharded

DECODE = ("none", "sample", "all")
Progress = Callable[[str, int, int], None]  # what, how many are done, of how many


def examine(
    root: str | Path,
    *,
    episodes: Sequence[int] | None = None,
    quick: bool = False,
    decode: str = "none",
    on_progress: Progress | None = None,
) -> Report:
    """Everything that is wrong with the dataset in a folder.

    Args:
        episodes: only look into the files of these; the tables are always checked whole.
        quick: tables, footers and containers, but no rows and no statistics against them.
        decode: "all" decodes every picture, "sample" some groups of pictures of every file.

    Raises:
        DatasetError: the folder does not exist or has nothing of a dataset, an episode does not exist, or
            `decode` is none of those words.
    """
    began, root = time.perf_counter(), Path(root).expanduser()
    if decode not in DECODE:
        raise DatasetError(f"decode={decode!r}: expected one of {', '.join(DECODE)}.")
    if not holds_traces(root):
        state = "holds no meta/info.json, meta/ or data/" if root.is_dir() else "does not exist"
        raise DatasetError(
            f"{root} {state}. Give the folder of a dataset, the one that holds meta/info.json."
        )
    report = Report(root=root)
    folder = _read_tables(root, report)
    table = folder.episodes
    if table is not None:
        report.num_episodes, report.num_frames = len(table), int(table.lengths.sum())
        chosen = _chosen(folder, episodes)
        tell = on_progress or (lambda what, done, total: None)
        moments = _check_data(folder, report, chosen, quick=quick, decode=decode, tell=tell)
        _check_videos(folder, report, chosen, decode=decode, tell=tell)
        _check_stats(folder, report, moments)
    report.seconds = time.perf_counter() - began
    return report


def read_folder(root: Path) -> tuple[Folder, list[Finding]]:
    """What can be read of a dataset's `meta/`, and what is wrong with those files."""
    folder = Folder(root=root)
    found = info.read_info(folder)
    if any(one.code in ("info.future", "info.version") for one in found):
        return folder, found
    if folder.is_old:
        found += old.read_old_tables(folder)
    else:
        found += tasks.read_tasks(folder)
        found += table_checks.read_episodes(folder)
    return folder, found


def _read_tables(root: Path, report: Report) -> Folder:
    if is_sharded(root):
        report.findings += old.check_shards(Folder(root=root))
        report.checked, report.version = ["layout"], "shards"
        report.skipped.append("rows, videos and statistics of this layout; convert it and ask again")
        return Folder(root=root)
    folder, found = read_folder(root)
    report.findings += found
    report.version = str((folder.info or {}).get("codebase_version", ""))
    report.checked += ["info", "tasks", "episodes", "files"]
    if any(one.code in ("info.future", "info.version") for one in found):
        report.skipped.append("the files, since their format is not known")
        return folder
    report.findings += [
        *info.check_counts(folder),
        *table_checks.check_episodes(folder),
        *table_checks.check_files(folder),
        *table_checks.check_joined(folder),
    ]
    if folder.is_old:
        report.skipped.append("statistics of episodes, which format v2.x keeps elsewhere")
    else:
        report.findings += [*table_checks.check_own_places(folder), *cameras.check_capture(folder)]
    if folder.episodes is None:
        report.findings += rows.check_unplaced(folder)
        report.skipped.append("rows and videos, since there is no episode table to compare them with")
    return folder


def _chosen(folder: Folder, wanted: Sequence[int] | None) -> np.ndarray:
    """Positions in the episode table."""
    assert folder.episodes is not None
    numbers = folder.episodes.number
    if wanted is None:
        return np.arange(len(numbers))
    unknown = sorted(set(wanted) - set(numbers.tolist()))
    if unknown:
        raise DatasetError(
            f"episodes={list(wanted)}: episode {unknown[0]} does not exist; there are {len(numbers)}."
        )
    return np.flatnonzero(np.isin(numbers, list(wanted)))


def _check_data(
    folder: Folder, report: Report, chosen: np.ndarray, *, quick: bool, decode: str, tell: Progress
) -> stats.Moments | None:
    table = folder.episodes
    assert table is not None
    moments = stats.Moments(len(table))
    files = [n for n in np.unique(table.data.file[chosen]) if n >= 0]
    for done, number in enumerate(files):
        tell("data files", done, len(files))
        one = rows.expected_rows(folder, int(number))
        if (folder.root / one.name).is_file():
            report.findings += _check_data_file(folder, one, moments, quick=quick, decode=decode)
    tell("data files", len(files), len(files))
    report.checked += ["data footers"] if quick else ["data footers", "rows"]
    if quick:
        report.skipped.append("rows, and statistics against them (quick)")
        return None
    report.findings += [*stats.check_episode_stats(folder, moments), *stats.check_constant(folder, moments)]
    return moments


def _check_data_file(
    folder: Folder, one: rows.Rows, moments: stats.Moments, *, quick: bool, decode: str
) -> list[Finding]:
    found = list(rows.check_footer(folder, one))
    is_unreadable = any(each.code == "data.unreadable" for each in found)
    if quick or is_unreadable:
        return found
    found += rows.read_rows(folder, one)
    if one.columns:
        is_short = any(each.code == "data.rows" for each in found)
        found += [each for each in rows.check_order(one) if not (is_short and each.code == "data.rows")]
        found += [*rows.check_numbering(folder, one), *rows.check_values(one)]
        moments.add(one)
    if folder.image_keys:
        found += decoding.check_pictures(folder, one, decode=decode)
    return found


def _check_videos(folder: Folder, report: Report, chosen: np.ndarray, *, decode: str, tell: Progress) -> None:
    table = folder.episodes
    assert table is not None
    if not folder.video_keys:
        return
    if folder.fps is None:
        report.skipped.append("videos, since fps is not known")
        return
    jobs = [
        (camera, int(number))
        for camera in folder.video_keys
        for number in np.unique(table.videos[camera].file[chosen])
        if number >= 0 and (folder.root / table.videos[camera].files[number]).is_file()
    ]
    for camera in folder.video_keys:
        report.findings += videos.check_ranges(folder, camera)
    what = "videos" if decode == "none" else "videos decoded"
    with ThreadPoolExecutor(max(1, min(8, os.cpu_count() or 1))) as threads:
        for done, found in enumerate(
            threads.map(lambda job: _check_video(folder, *job, decode=decode), jobs)
        ):
            report.findings += found
            tell(what, done + 1, len(jobs))
    report.checked += ["videos"] if decode == "none" else ["videos", f"pictures ({decode})"]
    if decode == "none":
        report.skipped.append("pictures inside the videos; --decode=true decodes every one")


def _check_video(folder: Folder, camera: str, number: int, *, decode: str) -> list[Finding]:
    assert folder.fps is not None and folder.episodes is not None
    video = videos.expected_video(folder, camera, number)
    found = list(videos.open_video(folder.root, video))
    if video.timeline is None:
        return found
    found += videos.check_frames(folder.fps, video)
    found += videos.check_format(folder, video)
    if len(video.episodes):
        table_file = folder.episodes.table_files[int(folder.episodes.table_file[video.episodes[0]])]
        found += videos.check_overlap(video, table_file)
    if decode != "none":
        found += decoding.check_decoding(folder.root, video, sample=decode == "sample")
    return found


def _check_stats(folder: Folder, report: Report, moments: stats.Moments | None) -> None:
    if folder.is_old and not (folder.root / stats.FILE).is_file():
        return
    stored, found = stats.read_stats(folder)
    report.findings += found
    report.checked.append("statistics")
    if stored is None:
        return
    if moments is not None and not moments.is_read.all():
        report.skipped.append("statistics against the rows, since not all rows were read")
    report.findings += stats.check_stats(folder, stored, moments)
