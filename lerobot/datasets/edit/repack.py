"""A dataset with files of other sizes: the same rows and pictures, joined or cut up to the new limits."""

from pathlib import Path
from typing import Any

from lerobot.core.errors import DatasetError
from lerobot.datasets.dataset import LeRobotDataset
from lerobot.datasets.edit.copying import Copy, all_episodes
from lerobot.datasets.edit.target import Target, new_target
from lerobot.datasets.metadata import LeRobotDatasetMetadata


def repack_dataset(
    dataset: LeRobotDataset,
    output_dir: str | Path | None = None,
    repo_id: str | None = None,
    *,
    data_files_size_in_mb: float | None = None,
    video_files_size_in_mb: float | None = None,
    reencode: bool = False,
) -> LeRobotDataset:
    """A new dataset whose files are filled up to these sizes (MiB); those of `dataset` where none is given.

    Raises:
        DatasetError: a size is not positive, or the output folder exists.
    """
    return plan_repack(
        dataset.meta,
        target=new_target(repo_id or f"{dataset.repo_id}_repacked", output_dir),
        data_files_size_in_mb=data_files_size_in_mb,
        video_files_size_in_mb=video_files_size_in_mb,
        may_encode=reencode,
    ).run()


def plan_repack(
    meta: LeRobotDatasetMetadata,
    *,
    target: Target,
    data_files_size_in_mb: float | None = None,
    video_files_size_in_mb: float | None = None,
    **options: Any,
) -> Copy:
    """The copy with files of other sizes."""
    sizes = {
        name: getattr(meta, name) if size is None else size
        for name, size in (
            ("data_files_size_in_mb", data_files_size_in_mb),
            ("video_files_size_in_mb", video_files_size_in_mb),
        )
    }
    for name, size in sizes.items():
        if not size > 0:
            raise DatasetError(f"{name}={size}: expected a number of MiB greater than 0.")
    picks = all_episodes(meta)
    return Copy(
        target=target,
        picks=picks,
        features=meta.features,
        stats=meta.stats,
        info=sizes,
        scatters=True,
        **options,
    )
