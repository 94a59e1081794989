"""A dataset without some of its episodes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lerobot.core.errors import DatasetError
from lerobot.datasets.dataset import LeRobotDataset
from lerobot.datasets.edit.copying import Copy, check_episodes
from lerobot.datasets.edit.target import Target, new_target
from lerobot.datasets.metadata import LeRobotDatasetMetadata


def delete_episodes(
    dataset: LeRobotDataset,
    episode_indices: Sequence[int],
    output_dir: str | Path | None = None,
    repo_id: str | None = None,
    *,
    reencode: bool = False,
) -> LeRobotDataset:
    """A new dataset with the other episodes, renumbered from 0; `dataset` stays as it is.

    Args:
        reencode: encode episodes again that another writer did not begin and end at key frames.

    Raises:
        DatasetError: an episode does not exist, none would be left, the output folder exists, or an episode
            cannot be cut out.
    """
    target = new_target(repo_id or f"{dataset.repo_id}_modified", output_dir)
    return plan_delete(dataset.meta, episode_indices, target=target, may_encode=reencode).run()


def plan_delete(
    meta: LeRobotDatasetMetadata, episodes: Sequence[int], *, target: Target, **options: Any
) -> Copy:
    """The copy that leaves these episodes out."""
    gone = set(check_episodes(meta, episodes))
    kept = [(meta, episode) for episode in range(meta.total_episodes) if episode not in gone]
    if not kept:
        raise DatasetError(f"All {meta.total_episodes} episodes of {meta.repo_id!r} would be deleted.")
    return Copy(target=target, picks=kept, features=meta.features, **options)
