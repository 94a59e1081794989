"""A dataset without some of its episodes."""

from pathlib import Path

from lerobot.core.errors import DatasetError
from lerobot.datasets.dataset import LeRobotDataset
from lerobot.datasets.edit.copying import check_episodes, copy_episodes, output_folder


def delete_episodes(
    dataset: LeRobotDataset,
    episode_indices: list[int],
    output_dir: str | Path | None = None,
    repo_id: str | None = None,
) -> LeRobotDataset:
    """A new dataset with the other episodes, renumbered from 0; `dataset` stays as it is.

    Raises:
        DatasetError: an episode does not exist, none would be left, or the output folder exists.
    """
    meta = dataset.meta
    gone = set(check_episodes(meta, episode_indices))
    kept = [episode for episode in range(meta.total_episodes) if episode not in gone]
    if not kept:
        raise DatasetError(f"All {meta.total_episodes} episodes of {meta.repo_id!r} would be deleted.")
    name = repo_id or f"{dataset.repo_id}_modified"
    root = output_folder(name, output_dir)
    return copy_episodes([(meta, e) for e in kept], repo_id=name, root=root, features=meta.features)
