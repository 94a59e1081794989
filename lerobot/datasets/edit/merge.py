"""Several datasets made into one."""

import copy
from pathlib import Path
from typing import Any

from lerobot.core.errors import DatasetError, FeatureMismatchError
from lerobot.datasets.dataset import LeRobotDataset
from lerobot.datasets.edit.copying import copy_episodes, output_folder
from lerobot.datasets.stats import aggregate_stats

COMPARED = ("dtype", "shape", "names")
MEANING = ("is_depth_map", "depth_unit", "video.depth_min", "video.depth_max", "video.shift", "video.use_log")


def merge_datasets(
    datasets: list[LeRobotDataset], output_repo_id: str, output_dir: str | Path | None = None
) -> LeRobotDataset:
    """A new dataset with the episodes of all, one dataset after the other; tasks are united by their text.

    Raises:
        DatasetError: fewer than one dataset is given, or fps or robot differ.
        FeatureMismatchError: features differ in name, dtype, shape or names.
    """
    if not datasets:
        raise DatasetError("There is no dataset to merge; give at least one.")
    first = datasets[0]
    for other in datasets[1:]:
        for name in ("fps", "robot_type"):
            a, b = getattr(first.meta, name), getattr(other.meta, name)
            if a != b:
                raise DatasetError(
                    f"{first.repo_id!r} has {name}={a!r} and {other.repo_id!r} has {name}={b!r}."
                )
        _check_features(first, other)
    picks = [(one.meta, episode) for one in datasets for episode in range(one.meta.total_episodes)]
    return copy_episodes(
        picks,
        repo_id=output_repo_id,
        root=output_folder(output_repo_id, output_dir),
        features=_merged_features([one.meta.features for one in datasets]),
        stats=aggregate_stats([one.meta.stats for one in datasets]),
    )


def _check_features(first: LeRobotDataset, other: LeRobotDataset) -> None:
    ours, theirs = first.meta.features, other.meta.features
    alone = sorted(set(ours) ^ set(theirs))
    if alone:
        owner = first.repo_id if alone[0] in ours else other.repo_id
        raise FeatureMismatchError(f"Only {owner!r} has the feature {alone[0]!r}. Remove it before merging.")
    for name in ours:
        for part in COMPARED:
            a, b = ours[name].get(part), theirs[name].get(part)
            if a != b:
                raise FeatureMismatchError(
                    f"Feature {name!r}: {part} is {a} in {first.repo_id!r} and {b} in {other.repo_id!r}."
                )
        ours_info, theirs_info = ours[name].get("info") or {}, theirs[name].get("info") or {}
        for key in MEANING:  # what stored pixels mean; one file table can only say it once
            if ours_info.get(key) != theirs_info.get(key):
                raise FeatureMismatchError(
                    f"Camera {name!r}: {key} is {ours_info.get(key)} in {first.repo_id!r} and "
                    f"{theirs_info.get(key)} in {other.repo_id!r}, so their distances cannot share one "
                    "dataset."
                )


def _merged_features(tables: list[dict[str, dict]]) -> dict[str, dict]:
    """The features of the first; where encoder settings differ, they are not known any more."""
    merged = copy.deepcopy(tables[0])
    for name, feature in merged.items():
        infos = [table[name].get("info") or {} for table in tables]
        for key, value in (feature.get("info") or {}).items():
            if any(info.get(key) != value for info in infos):
                feature["info"][key] = _unknown(key)
    return merged


def _unknown(key: str) -> Any:
    return {} if key == "video.extra_options" else None
