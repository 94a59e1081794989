"""A dataset onto the Hub: its folder, a card, and the tag of its format version."""

import json
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from lerobot.core import hub
from lerobot.datasets.metadata import CODEBASE_VERSION, LeRobotDatasetMetadata

CARD_FILE = "README.md"


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
    """Upload the dataset to the repository of its name; returns the commit's address.

    Args:
        branch: a branch other than the main one; made if it is not there.
        tag_version: put the tag `v3.0` on what was pushed, moving it if it exists; readers ask for this tag.
        patterns: only upload files whose paths match one of these.
        card_fields: further entries of the card's YAML header.

    Raises:
        HubError: the Hub was not reached or refused.
    """
    repo = hub.Repo(repo_id=meta.repo_id, repo_type="dataset").create(private=private)
    if branch is not None:
        repo.branch(branch)
    ignore = ["images/*", ".cache/*", "*.part", *([] if push_videos else ["videos/*"])]
    address = repo.upload(
        meta.root, message="Upload dataset", revision=branch, patterns=patterns, ignore=ignore
    )
    with TemporaryDirectory() as folder:
        text = card(meta, tags=tags or [], license=license, fields=card_fields or {})
        (Path(folder) / CARD_FILE).write_text(text, encoding="utf-8")
        repo.upload(Path(folder), message="Write the dataset's card", revision=branch)
    if tag_version:
        repo.tag(CODEBASE_VERSION, revision=branch)
    return address


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
