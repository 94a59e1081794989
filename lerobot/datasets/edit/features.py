"""A dataset with features removed, added or renamed; videos that stay are copied as they are."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lerobot.core.errors import DatasetError, suggest
from lerobot.datasets.dataset import LeRobotDataset
from lerobot.datasets.edit.change import Change
from lerobot.datasets.edit.copying import Copy, all_episodes
from lerobot.datasets.edit.target import Target, new_target
from lerobot.datasets.metadata import LeRobotDatasetMetadata
from lerobot.datasets.schema import (
    DEFAULT_FEATURES,
    column_array,
    declared_features,
    frame_schema,
    is_numeric,
    numbers,
)
from lerobot.datasets.stats import Stats, get_feature_stats

Values = Any  # array (N, *shape) of all frames, or callable(row, episode_index, frame_index) -> one value
NewFeatures = Mapping[str, tuple[Values, dict]]


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
    target = new_target(repo_id or f"{dataset.repo_id}_modified", output_dir)
    return plan_features(dataset.meta, target=target, remove=feature_names).run()


def add_features(
    dataset: LeRobotDataset,
    features: NewFeatures,
    output_dir: str | Path | None = None,
    repo_id: str | None = None,
) -> LeRobotDataset:
    """A new dataset with further columns; `dataset` stays as it is.

    Args:
        features: name -> (values, {"dtype", "shape", "names"}). Values are an array or tensor (N, *shape)
            with a row for every frame of the dataset, or a function (row, episode_index, frame_index) ->
            value, where `row` holds the numbers and texts of the frame.

    Raises:
        DatasetError: a feature exists already, is a camera, or its values do not fit its declaration.
    """
    target = new_target(repo_id or f"{dataset.repo_id}_modified", output_dir)
    return plan_features(dataset.meta, target=target, add=features).run()


def add_feature(
    dataset: LeRobotDataset,
    feature_name: str,
    feature_values: Values,
    feature_info: dict,
    output_dir: str | Path | None = None,
    repo_id: str | None = None,
) -> LeRobotDataset:
    """A new dataset with one further column; see `add_features`."""
    return add_features(dataset, {feature_name: (feature_values, feature_info)}, output_dir, repo_id)


def modify_features(
    dataset: LeRobotDataset,
    add_features: NewFeatures | None = None,
    remove_features: str | list[str] | None = None,
    output_dir: str | Path | None = None,
    repo_id: str | None = None,
) -> LeRobotDataset:
    """A new dataset with features removed and others added in one go; see `add_features`.

    Raises:
        DatasetError: nothing is asked for, or as `add_features` and `remove_feature`.
    """
    if not add_features and not remove_features:
        raise DatasetError("Neither add_features nor remove_features was given, so there is nothing to do.")
    target = new_target(repo_id or f"{dataset.repo_id}_modified", output_dir)
    return plan_features(
        dataset.meta, target=target, add=add_features or {}, remove=remove_features or []
    ).run()


def rename_features(
    dataset: LeRobotDataset,
    names: Mapping[str, str],
    output_dir: str | Path | None = None,
    repo_id: str | None = None,
) -> LeRobotDataset:
    """A new dataset whose features are called otherwise: columns, statistics, cameras' folders. old -> new.

    Raises:
        DatasetError: a feature does not exist, a name is taken, or it is one of the five default columns.
    """
    target = new_target(repo_id or f"{dataset.repo_id}_modified", output_dir)
    return plan_rename(dataset.meta, names, target=target).run()


def plan_features(
    meta: LeRobotDatasetMetadata,
    *,
    target: Target,
    add: NewFeatures | None = None,
    remove: str | Sequence[str] = (),
) -> Copy:
    """The copy without some features and with others."""
    gone = [remove] if isinstance(remove, str) else list(remove)
    _check_known(meta, gone)
    kept = {name: feature for name, feature in meta.features.items() if name not in gone}
    change = AddedColumns(meta, dict(add or {}), kept=kept)
    stays = {name: one for name, one in meta.stats.items() if name in kept}
    return Copy(
        target=target,
        picks=all_episodes(meta),
        features=change.features,
        change=change,
        stats=stays,
    )


def plan_rename(meta: LeRobotDatasetMetadata, names: Mapping[str, str], *, target: Target) -> Copy:
    """The copy whose features have other names."""
    if not names:
        raise DatasetError("No feature to rename was given. Write --operation.names='{OLD: NEW}'.")
    _check_known(meta, list(names))
    after = [names.get(name, name) for name in meta.features]
    for name in names.values():
        if after.count(name) > 1:
            raise DatasetError(f"{meta.repo_id!r} would have two features called {name!r}.")
    features = {names.get(name, name): feature for name, feature in meta.features.items()}
    user = {name: one for name, one in features.items() if name not in DEFAULT_FEATURES}
    declared_features(user, use_videos=True)  # the new names are checked there
    return Copy(
        target=target,
        picks=all_episodes(meta),
        features=features,
        renamed=dict(names),
        stats={names.get(name, name): one for name, one in meta.stats.items()},
    )


def _check_known(meta: LeRobotDatasetMetadata, names: Sequence[str]) -> None:
    for name in names:
        if name in DEFAULT_FEATURES:
            raise DatasetError(f"{name!r} is needed in every dataset and cannot be removed or renamed.")
        if name not in meta.features:
            raise DatasetError(f"{meta.repo_id!r} has no feature {name!r}.{suggest(name, meta.features)}")


class AddedColumns(Change):
    """New columns from arrays or functions, with statistics of each episode."""

    def __init__(self, meta: LeRobotDatasetMetadata, add: dict, *, kept: dict[str, dict]) -> None:
        self.meta = meta
        declared = {}
        for name, (_, info) in add.items():
            if name in kept:
                raise DatasetError(f"{meta.repo_id!r} has a feature {name!r} already.")
            if info.get("dtype") in ("video", "image", "language"):
                raise DatasetError(
                    f"Feature {name!r}: a {info['dtype']} cannot be added to a finished dataset."
                )
            declared[name] = info
        table = declared_features(declared, use_videos=False)
        self.added = {name: table[name] for name in add}
        user = {name: one for name, one in kept.items() if name not in DEFAULT_FEATURES}
        last = {name: one for name, one in kept.items() if name in DEFAULT_FEATURES}
        self.features = {**user, **self.added, **last}
        self.values = {name: self._checked(name, values) for name, (values, _) in add.items()}

    def _checked(self, name: str, values: Values) -> Values:
        """An array with a row for every frame, of the declared shape and dtype; functions as they are."""
        if callable(values):
            return values
        feature, frames = self.added[name], self.meta.total_frames
        if not is_numeric(feature):
            if len(values) != frames:
                raise DatasetError(f"Feature {name!r}: {len(values)} texts for {frames} frames.")
            return values
        array, shape = np.asarray(values), tuple(feature["shape"])
        if shape == (1,) and array.shape == (frames,):
            array = array.reshape(frames, 1)
        if array.shape != (frames, *shape):
            raise DatasetError(
                f"Feature {name!r}: values have shape {array.shape}, expected {(frames, *shape)}: "
                f"one of shape {shape} for each of the {frames} frames."
            )
        if not np.can_cast(array.dtype, feature["dtype"], casting="same_kind"):
            raise DatasetError(f"Feature {name!r}: values are {array.dtype}, declared is {feature['dtype']}.")
        return array

    def rows(self, k: int, table: pa.Table) -> pa.Table:
        """The episode's rows with the new columns."""
        for name, feature in self.added.items():
            row = self.meta.episodes[k]
            found = self._episode_values(name, table, row)
            field = frame_schema({name: feature}).field(name)
            table = table.append_column(name, column_array(found, field, feature))
        return table

    def _episode_values(self, name: str, table: pa.Table, row: dict[str, Any]) -> Any:
        """(T, *shape), or a list of T texts."""
        values, feature = self.values[name], self.added[name]
        if not callable(values):
            found = values[row["dataset_from_index"] : row["dataset_to_index"]]
        else:
            plain = [field.name for field in table.schema if not pa.types.is_struct(field.type)]
            frames = table.select(plain).to_pylist()
            found = [values(one, one["episode_index"], one["frame_index"]) for one in frames]
        if not is_numeric(feature):
            return [str(value) for value in found]
        try:
            array = np.asarray(found).astype(feature["dtype"], casting="same_kind")
            return array.reshape(len(table), *feature["shape"])
        except (TypeError, ValueError) as error:
            raise DatasetError(f"Feature {name!r}, episode {row['episode_index']}: {error}") from error

    def stats(self, k: int, table: pa.Table) -> Stats:
        """Statistics of the new columns."""
        found: Stats = {}
        for name, feature in self.added.items():
            if is_numeric(feature):
                array = numbers(table.column(name), feature, where=f"the new column {name!r}")
                found[name] = get_feature_stats(array, 0, array.ndim == 1)
        return found

    def lines(self) -> list[str]:
        """What is added."""
        return [f"adds {name!r}: {one['dtype']} {tuple(one['shape'])}" for name, one in self.added.items()]
