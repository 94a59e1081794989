"""meta/info.json: is it there, is it JSON, does every key mean something, does it count what is there."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lerobot.core import hub, keys
from lerobot.datasets.doctor.finding import Finding, finding
from lerobot.datasets.doctor.folder import Folder
from lerobot.datasets.schema import DEFAULT_FEATURES, IMAGE_DTYPES, TEXT_DTYPES

FILE = keys.INFO_FILE
MAJOR = 3  # the format that is written here
MADE_OF = {"total_episodes": int, "total_frames": int, "features": dict, "data_path": str}
OPTIONAL = {"total_tasks": int, "chunks_size": int, "splits": dict}


def read_info(folder: Folder) -> list[Finding]:
    """Fill `info`, `features`, `fps` and `is_old` of the folder; what is wrong with them."""
    path = folder.root / FILE
    if not path.is_file():
        return [finding("info.missing", FILE, found="no such file", expected="the dataset's schema")]
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return [finding("info.unreadable", FILE, found=f"{_size(path)} bytes, {error}", expected="JSON")]
    if not isinstance(info, dict):
        return [finding("info.unreadable", FILE, found=f"a {type(info).__name__}", expected="a JSON object")]
    folder.info = info
    wrong = [*_version(folder), *_wrong_keys(info)]
    if any(one.code in ("info.version", "info.future") for one in wrong):
        return wrong
    wrong += _fps(folder)
    return [*wrong, *_features(folder), *_paths(folder)]


def _version(folder: Folder) -> Iterator[Finding]:
    assert folder.info is not None
    said = folder.info.get("codebase_version")
    parsed = hub.parse_version(said) if isinstance(said, str) else None
    if parsed is None:
        yield finding(
            "info.version",
            FILE,
            found=f"codebase_version={said!r}",
            expected="'v3.0', 'v2.1' or 'v2.0'",
            remedy="write the version of the program that recorded the dataset",
        )
    elif parsed[0] > MAJOR:
        yield finding(
            "info.future",
            FILE,
            found=f"codebase_version={said!r}",
            expected=f"v{MAJOR}.x",
            remedy="install a newer lerobot",
        )
    elif parsed[0] < 2:
        yield finding(
            "info.version",
            FILE,
            found=f"codebase_version={said!r}",
            expected="v3.0, v2.1 or v2.0",
            remedy="convert it with the release that wrote it, first to v2.0",
        )
    elif parsed[0] < MAJOR:
        folder.is_old = True
        yield finding(
            "info.old",
            FILE,
            found=f"format {said}",
            expected="v3.0 for a dataset that is to be changed",
            remedy="lerobot-edit-dataset --operation.type=convert makes a v3.0 copy",
        )


def _wrong_keys(info: dict[str, Any]) -> Iterator[Finding]:
    for name, kind in (MADE_OF | OPTIONAL).items():
        if name not in info:
            if name in MADE_OF:
                yield finding("info.key", FILE, found=f"no {name}", expected=_kind(kind))
            continue
        value = info[name]
        is_right = isinstance(value, kind) and not isinstance(value, bool)
        if not is_right or (kind is int and value < 0):
            yield finding("info.key", FILE, found=f"{name}={value!r}", expected=_kind(kind))
    for name in ("chunks_size", "data_files_size_in_mb", "video_files_size_in_mb"):
        value = info.get(name, 1)
        if isinstance(value, (int, float)) and not value > 0:
            yield finding("info.key", FILE, found=f"{name}={value!r}", expected="a number greater than 0")


def _kind(kind: type) -> str:
    return {int: "a whole number of 0 or more", dict: "an object", str: "a text"}[kind]


def _fps(folder: Folder) -> Iterator[Finding]:
    assert folder.info is not None
    fps = folder.info.get("fps")
    is_number = isinstance(fps, (int, float)) and not isinstance(fps, bool)
    if fps is not None and is_number and math.isfinite(fps) and fps > 0:
        folder.fps = fps
    else:
        yield finding(
            "info.fps", FILE, found=f"fps={fps!r}", expected="the frames per second, a number greater than 0"
        )


def _features(folder: Folder) -> Iterator[Finding]:
    assert folder.info is not None
    declared = folder.info.get("features")
    for name, one in (declared if isinstance(declared, dict) else {}).items():
        wrong = _declaration(name, one)
        if wrong:
            yield finding("info.feature", FILE, found=f"feature {name!r} {wrong[0]}", expected=wrong[1])
        else:
            folder.features[name] = {**one, "shape": tuple(one["shape"])}
    for name in DEFAULT_FEATURES:
        if isinstance(declared, dict) and name not in declared:
            yield finding(
                "info.key", FILE, found=f"no feature {name!r}", expected="one of the five default features"
            )
    if declared is not None and any(name in DEFAULT_FEATURES for name in folder.features):
        for name, one in DEFAULT_FEATURES.items():
            folder.features.setdefault(name, dict(one))


def _declaration(name: str, one: Any) -> tuple[str, str] | None:
    """What a declaration says that it must not, and what it should."""
    if "/" in name:
        return "has a '/' in its name", "parts separated by '.'"
    if not isinstance(one, dict) or "dtype" not in one or "shape" not in one:
        return f"is {one!r}", "an object with dtype and shape"
    dtype, shape = one["dtype"], one["shape"]
    is_shape = isinstance(shape, (list, tuple)) and len(shape) > 0
    if not is_shape or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in shape):
        return f"has shape {shape!r}", "positive whole numbers such as [6]"
    if dtype in TEXT_DTYPES:
        return None
    if dtype in IMAGE_DTYPES:
        return None if len(shape) == 3 else (f"has shape {shape!r}", "height, width and channels")
    try:
        known = isinstance(dtype, str) and np.dtype(dtype).kind in "fiub"
    except TypeError:
        known = False
    return (
        None if known else (f"has dtype {dtype!r}", "image, video, string or a number type such as float32")
    )


def _paths(folder: Folder) -> Iterator[Finding]:
    assert folder.info is not None
    if folder.is_old:
        return
    wanted: dict[str, tuple[str, ...]] = {"data_path": ("chunk_index", "file_index")}
    if folder.video_keys:
        wanted["video_path"] = ("video_key", "chunk_index", "file_index")
    for name, parts in wanted.items():
        template = folder.info.get(name)
        if template is None and name == "data_path":
            continue  # said among the keys
        try:
            one, other = (
                str(template).format(**{part: f"k{n}" if part == "video_key" else n for part in parts})
                for n in (1, 2)
            )
            is_right = isinstance(template, str) and one != other and all(f"{{{p}" in template for p in parts)
        except (KeyError, IndexError, ValueError):
            is_right = False
        if not is_right or Path(str(template)).is_absolute() or ".." in Path(str(template)).parts:
            yield finding(
                "info.path",
                FILE,
                found=f"{name}={template!r}",
                expected=f"a path inside the folder with {', '.join(f'{{{part}}}' for part in parts)}",
            )


def check_counts(folder: Folder) -> Iterator[Finding]:
    """The counters and splits against the tables."""
    if folder.info is None:
        return
    there: dict[str, int] = {}
    if folder.episodes is not None:
        there = {"total_episodes": len(folder.episodes), "total_frames": int(folder.episodes.length.sum())}
    if folder.tasks is not None:
        there["total_tasks"] = len(folder.tasks)
    if is_behind(folder):
        said = folder.info["total_episodes"]
        text = f"total_episodes={said}"
        yield finding("info.behind", FILE, found=text, expected=f"{said + 1}, which meta/episodes has")
        return
    for name, count in there.items():
        said = folder.info.get(name, count)
        if isinstance(said, int) and said != count:
            where = "meta/tasks.parquet has" if name == "total_tasks" else "meta/episodes has"
            yield finding("info.count", FILE, found=f"{name}={said}", expected=f"{count}, which {where}")
    if folder.episodes is not None:
        yield from _splits(folder, len(folder.episodes))


def is_behind(folder: Folder) -> bool:
    """Whether info.json lacks exactly the last episode: the state between two writes of a recording."""
    table, info = folder.episodes, folder.info or {}
    if table is None or not len(table):
        return False
    before = (len(table) - 1, int(table.length[:-1].sum()))
    return (info.get("total_episodes"), info.get("total_frames")) == before


def _splits(folder: Folder, total: int) -> Iterator[Finding]:
    assert folder.info is not None
    splits = folder.info.get("splits")
    covered = np.zeros(total, dtype=bool)
    for name, text in (splits if isinstance(splits, dict) else {}).items():
        ends = str(text).split(":")
        if len(ends) != 2 or not all(end.strip().isdigit() for end in ends):
            return  # other programs write other things here; they are theirs
        first, end = map(int, ends)
        if not first <= end <= total:
            yield finding(
                "info.split", FILE, found=f"split {name!r} is {text!r}", expected=f"episodes within 0:{total}"
            )
            return
        covered[first:end] = True
    if splits and not covered.all():
        yield finding(
            "info.split", FILE, found=f"splits={splits}", expected=f"all {total} episodes, 0:{total}, in them"
        )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
