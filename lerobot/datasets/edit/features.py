"""A dataset without some of its features."""

from pathlib import Path

from lerobot.core.errors import DatasetError, suggest
from lerobot.datasets.dataset import LeRobotDataset
from lerobot.datasets.edit.copying import copy_episodes, output_folder
from lerobot.datasets.schema import DEFAULT_FEATURES


def remove_feature(
    dataset: LeRobotDataset,
    feature_names: str | list[str],
    output_dir: str | Path | None = None,
    repo_id: str | None = None,
) -> LeRobotDataset:
    """A new dataset without these columns or cameras; `dataset` stays as it is.

    Raises:
        DatasetError: a feature does not exist or is one of the five default columns, or the output folder
            exists.
    """
    names = [feature_names] if isinstance(feature_names, str) else list(feature_names)
    meta = dataset.meta
    for name in names:
        if name in DEFAULT_FEATURES:
            raise DatasetError(f"{name!r} is needed in every dataset and cannot be removed.")
        if name not in meta.features:
            raise DatasetError(f"{meta.repo_id!r} has no feature {name!r}.{suggest(name, meta.features)}")
    features = {name: feature for name, feature in meta.features.items() if name not in names}
    new_id = repo_id or f"{dataset.repo_id}_modified"
    return copy_episodes(
        [(meta, episode) for episode in range(meta.total_episodes)],
        repo_id=new_id,
        root=output_folder(new_id, output_dir),
        features=features,
        stats=meta.stats,
    )
