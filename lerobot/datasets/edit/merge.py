"""Several datasets made into one."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lerobot.core.errors import DatasetError, FeatureMismatchError
from lerobot.datasets.dataset import LeRobotDataset
from lerobot.datasets.edit.change import Change
from lerobot.datasets.edit.copying import Copy, all_episodes
from lerobot.datasets.edit.subtasks import UnitedSubtasks, unites_subtasks
from lerobot.datasets.edit.target import Target, new_target
from lerobot.datasets.metadata import LeRobotDatasetMetadata
from lerobot.datasets.stats import aggregate_stats

COMPARED = ("dtype", "shape", "names")
MEANING = ("is_depth_map", "depth_unit", "video.depth_min", "video.depth_max", "video.shift", "video.use_log")


def merge_datasets(
    datasets: Sequence[LeRobotDataset],
    output_repo_id: str,
    output_dir: str | Path | None = None,
    concatenate_videos: bool = True,
    concatenate_data: bool = True,
    *,
    reencode: bool = False,
) -> LeRobotDataset:
    """A new dataset with the episodes of all, one dataset after the other; tasks are united by their text.

    Args:
        concatenate_videos: put videos of several files into one, up to the size limit.
        concatenate_data: the same for rows.
        reencode: encode episodes again that another writer did not begin and end at key frames.

    Raises:
        DatasetError: no dataset is given, fps or robot differ, or the output folder exists.
        FeatureMismatchError: features differ in name, dtype, shape or names; all differences are listed.
    """
    return plan_merge(
        [dataset.meta for dataset in datasets],
        target=new_target(output_repo_id, output_dir),
        joins_videos=concatenate_videos,
        joins_data=concatenate_data,
        may_encode=reencode,
    ).run()


def plan_merge(metas: Sequence[LeRobotDatasetMetadata], *, target: Target, **options: Any) -> Copy:
    """The copy that puts the episodes of all one after the other."""
    if not metas:
        raise DatasetError("There is no dataset to merge; give at least one.")
    if len({meta.root.resolve() for meta in metas}) < len(metas):
        raise DatasetError(f"A dataset is given twice among {', '.join(meta.repo_id for meta in metas)}.")
    for other in metas[1:]:
        for name in ("fps", "robot_type"):
            a, b = getattr(metas[0], name), getattr(other, name)
            if a != b:
                raise DatasetError(
                    f"{metas[0].repo_id!r} has {name}={a!r} and {other.repo_id!r} has {name}={b!r}; "
                    "only datasets that agree are merged."
                )
    if not any(meta.total_episodes for meta in metas):
        raise DatasetError("None of the datasets has an episode, so there is nothing to merge.")
    differences = [line for other in metas[1:] for line in _differences(metas[0], other)]
    if differences:
        raise FeatureMismatchError(
            "The datasets cannot be merged:\n  "
            + "\n  ".join(differences)
            + "\nRemove or rename features first "
            "(--operation.type=remove_feature, rename_feature)."
        )
    picks = [pick for meta in metas if meta.total_episodes for pick in all_episodes(meta)]
    return Copy(
        target=target,
        picks=picks,
        change=UnitedSubtasks(picks) if unites_subtasks(picks) else Change(),
        features=_merged_features([meta.features for meta in metas]),
        stats=aggregate_stats([meta.stats for meta in metas]),
        **options,
    )


def _differences(first: LeRobotDatasetMetadata, other: LeRobotDatasetMetadata) -> list[str]:
    """A line for every feature that two datasets do not share."""
    ours, theirs = first.features, other.features
    lines = [f"Only {first.repo_id!r} has the feature {name!r}." for name in ours if name not in theirs]
    lines += [f"Only {other.repo_id!r} has the feature {name!r}." for name in theirs if name not in ours]
    for name in (name for name in ours if name in theirs):
        pairs = {part: (ours[name].get(part), theirs[name].get(part)) for part in COMPARED}
        ours_info, theirs_info = ours[name].get("info") or {}, theirs[name].get("info") or {}
        # What stored pixels mean: one feature can only say it once.
        pairs |= {part: (ours_info.get(part), theirs_info.get(part)) for part in MEANING}
        lines += [
            f"Feature {name!r}: {part} is {a} in {first.repo_id!r} and {b} in {other.repo_id!r}."
            for part, (a, b) in pairs.items()
            if a != b and not (part == "is_depth_map" and bool(a) == bool(b))
        ]
    return lines


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
