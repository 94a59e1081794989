"""A dataset onto the Hub: its files in pieces that are never sent twice, a card, and a tag of its format.

    files of the folder - what the Hub has = pieces of data and videos -> last commit: meta/, card, deletions
                                                                       -> tag v3.0

Readers ask for the tag, so they see the old state or the whole new one.
"""

import fnmatch
import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from lerobot.core import files, hub
from lerobot.core.errors import DatasetError
from lerobot.datasets.metadata import CODEBASE_VERSION, LeRobotDatasetMetadata

logger = logging.getLogger(__name__)

CARD_FILE = "README.md"
LEFT_BEHIND = (files.PART_SUFFIX, ".lock", ".tmp", ".pyc")
OWN_FOLDERS = ("meta/", "data/", "videos/")
PIECE_FILES, PIECE_BYTES = 50, 1 << 30  # of one commit


def publish(
    meta: LeRobotDatasetMetadata,
    *,
    branch: str | None = None,
    tags: list[str] | None = None,
    license: str = "apache-2.0",
    tag_version: bool = True,
    push_videos: bool = True,
    private: bool | None = None,
    patterns: Iterable[str] | None = None,
    card_fields: dict[str, Any] | None = None,
) -> str:
    """Upload the dataset to the repository of its name; returns the last commit's address.

    Files that the Hub has already are not sent again, so a push that was interrupted goes on where it was.
    Files of an older state of the dataset are deleted there, unless only some files are pushed.

    Args:
        branch: a branch other than the main one; made if it is not there.
        tag_version: put the tag `v3.0` on what was pushed, moving it if it exists; readers ask for this tag.
        patterns: only upload files whose paths match one of these.
        card_fields: further entries of the card's YAML header.

    Raises:
        DatasetError: the dataset is in an older layout, or lacks files.
        HubError: the Hub was not reached or refused.
    """
    patterns = list(patterns) if patterns is not None else None
    wanted: dict[str, Path | bytes] = dict(files_of(meta, push_videos=push_videos, patterns=patterns))
    text = card(meta, tags=tags or [], license=license, fields=card_fields or {})
    repo = hub.Repo(repo_id=meta.repo_id, repo_type="dataset").create(private=private)
    if branch is not None:
        repo.branch(branch)
    there = repo.contents(revision=branch)
    new = missing_there(wanted | {CARD_FILE: text.encode()}, there)
    kept = [name for name in wanted if name not in new]
    if kept:
        logger.info("%d of %d files are on the Hub already.", len(kept), len(wanted))
    gone = [] if patterns is not None else _outdated(there, wanted, with_videos=push_videos)
    for piece in _pieces(
        {name: new.pop(name) for name in list(new) if name.startswith(("data/", "videos/"))}
    ):
        repo.commit(piece, message=f"Upload {len(piece)} files of the dataset", revision=branch)
    address = repo.commit(new, message="Upload dataset", revision=branch, deleted=gone)
    if tag_version:
        repo.tag(CODEBASE_VERSION, revision=branch)
    return address


def files_of(
    meta: LeRobotDatasetMetadata, *, push_videos: bool = True, patterns: Iterable[str] | None = None
) -> dict[str, Path]:
    """The dataset's files by their names in the repository: complete ones that belong to it, nothing else.

    Unfinished files, waiting pictures, locks, caches, and data or videos that no episode points to stay
    behind.

    Raises:
        DatasetError: the dataset is in an older layout, or files that episodes point to are missing.
    """
    meta.check_writable()
    used = {meta.get_data_file_path(k) for k in range(meta.total_episodes)}
    videos = {meta.get_video_file_path(k, key) for key in meta.video_keys for k in range(meta.total_episodes)}
    used |= videos if push_videos else set()
    missing = sorted(str(name) for name in used if not (meta.root / name).is_file())
    if missing:
        raise DatasetError(
            f"{meta.root} lacks {len(missing)} files of the dataset, such as {missing[0]}, so it is not "
            "pushed. Load the dataset with all its episodes and videos first."
        )
    found = {}
    for path in sorted(meta.root.rglob("*")):
        name = path.relative_to(meta.root)
        is_hidden = any(part.startswith((".", "__pycache__")) for part in name.parts)
        if not path.is_file() or is_hidden or name.name.endswith(LEFT_BEHIND) or name.parts[0] == "images":
            continue
        if name.parts[0] in ("data", "videos") and name not in used:
            continue
        if name.as_posix() != CARD_FILE and _matches(name.as_posix(), patterns):
            found[name.as_posix()] = path
    return found


def _matches(name: str, patterns: Iterable[str] | None) -> bool:
    return patterns is None or any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


def missing_there(wanted: Mapping[str, Path | bytes], there: Mapping[str, str]) -> dict[str, Path | bytes]:
    """Those files that a repository does not have, or has with other contents."""
    return {
        name: content
        for name, content in wanted.items()
        if name not in there or there[name] not in hub.fingerprint(content)
    }


def _outdated(there: Iterable[str], wanted: Mapping[str, Any], *, with_videos: bool) -> list[str]:
    """Files of an older state of the dataset that a repository holds."""
    folders = [folder for folder in OWN_FOLDERS if with_videos or folder != "videos/"]
    return [name for name in there if name.startswith(tuple(folders)) and name not in wanted]


def _pieces(new: dict[str, Path | bytes]) -> Iterator[dict[str, Path | bytes]]:
    """The files in commits of a limited number and size, so that an interruption costs one of them."""
    piece: dict[str, Path | bytes] = {}
    size = 0
    for name, content in new.items():
        piece[name] = content
        size += content.stat().st_size if isinstance(content, Path) else len(content)
        if len(piece) == PIECE_FILES or size >= PIECE_BYTES:
            yield piece
            piece, size = {}, 0
    if piece:
        yield piece


def card(meta: LeRobotDatasetMetadata, *, tags: list[str], license: str, fields: dict[str, Any]) -> str:
    """The README.md of a dataset: a YAML header that the Hub reads, and its info.json."""
    header = {
        "license": license,
        "task_categories": ["robotics"],
        "tags": ["LeRobot", *tags],
        "configs": [{"config_name": "default", "data_files": "data/*/*.parquet"}],
        **fields,
    }
    shaped = {
        **meta.info,
        "features": {k: {**v, "shape": list(v["shape"])} for k, v in meta.features.items()},
    }
    robot = f" of a {meta.robot_type}" if meta.robot_type else ""
    return (
        f"---\n{yaml.safe_dump(header, sort_keys=False, allow_unicode=True)}---\n\n"
        f"# {meta.repo_id}\n\n"
        f"{meta.total_episodes} episodes{robot}, {meta.total_frames} frames at {meta.fps} fps, recorded with "
        "[LeRobot](https://github.com/huggingface/lerobot)'s dataset format "
        f"{CODEBASE_VERSION}.\n\n"
        f"```python\nfrom lerobot.datasets import LeRobotDataset\n\n"
        f'dataset = LeRobotDataset("{meta.repo_id}")\n```\n\n'
        f"[meta/info.json](meta/info.json):\n\n"
        f"```json\n{json.dumps(shaped, indent=4, ensure_ascii=False)}\n```\n"
    )
