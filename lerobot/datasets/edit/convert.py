"""A dataset in an older layout made into format v3.0: videos by stream copy, all compared before it counts.

v2.0, v2.1, shards --View--> rebuilt aside --compared with the source--> put in place, original: NAME_old
"""

import logging
import shutil
from dataclasses import replace
from pathlib import Path

from lerobot.core import hub
from lerobot.core.errors import DatasetError
from lerobot.datasets import config
from lerobot.datasets.dataset import LeRobotDataset
from lerobot.datasets.edit.target import Target, new_target, staged
from lerobot.datasets.legacy.rebuild import Source, rebuild, verify
from lerobot.datasets.legacy.view import open_view
from lerobot.datasets.location import Location, holds_dataset
from lerobot.datasets.metadata import CODEBASE_VERSION

logger = logging.getLogger(__name__)

LAST_OLD_VERSION = "v2.1"
OWN_FOLDERS = ("meta", "data", "videos", "images")  # made anew; everything else is copied along


def convert_format(
    repo_id: str,
    root: str | Path | None = None,
    *,
    output_dir: str | Path | None = None,
    data_file_size_in_mb: float = config.DATA_FILES_SIZE_IN_MB,
    video_file_size_in_mb: float = config.VIDEO_FILES_SIZE_IN_MB,
    again: bool = False,
) -> LeRobotDataset:
    """The dataset of a folder in format v3.0, in its place (the original is kept as `FOLDER_old`).

    Pictures stay bit for bit the same, rows keep their values; index columns that lie are put right, with a
    warning. Statistics of episodes are carried over; where there are none (v2.0, shards) they are computed.

    Args:
        root: the folder; by default the local home of the name, else what the Hub has is converted into it.
        output_dir: a new folder for the result; the original stays where it is.
        again: convert what the Hub has in an older format, even if there is a v3.0 here or there.

    Raises:
        DatasetError: there is no dataset in an older layout, its files contradict each other, or the result
            does not agree with it; the original is untouched then.
    """
    limits = {"data_file_size_in_mb": data_file_size_in_mb, "video_file_size_in_mb": video_file_size_in_mb}
    for name, limit in limits.items():
        if not limit > 0:
            raise DatasetError(f"{name}={limit}: expected a number of MiB greater than 0.")
    revision = LAST_OLD_VERSION if again else CODEBASE_VERSION
    location = Location.find(repo_id, root=None if again else root, revision=revision, force=again)
    source, folder = Source.open(location.root), location.root
    location.need(path.relative_to(folder) for paths in source.view.files.values() for path in paths)
    if output_dir is not None:
        target = new_target(repo_id, output_dir)
    elif folder.is_relative_to(hub.dataset_cache()):
        target = new_target(repo_id, root)
        target = replace(target, replaces=again and target.root.is_dir())
    else:
        target = Target(repo_id=repo_id, root=folder.resolve(), replaces=True)
    logger.info("Converting %s (%s) to v3.0: %s.", folder, source.view.layout, source)
    with staged(target) as made:
        rebuild(source, made, repo_id=repo_id, **limits)
        verify(source, made, repo_id=repo_id)
        _copy_others(folder, made)
    return LeRobotDataset(repo_id, root=target.root)


def is_converted(repo_id: str, root: str | Path | None = None) -> bool:
    """Whether the folder, or the local home of the name, holds a dataset in format v3.0."""
    folder = Path(root).expanduser() if root is not None else hub.lerobot_home() / repo_id
    return holds_dataset(folder) and open_view(folder, may_tear=True) is None


def _copy_others(folder: Path, made: Path) -> None:
    """Files that are no part of the format (a card, a licence) come along."""
    for path in folder.iterdir():
        if path.name.startswith(".") or path.name in OWN_FOLDERS:
            continue
        if path.is_dir():
            shutil.copytree(path, made / path.name)
        else:
            shutil.copy2(path, made / path.name)
