"""Several datasets read as one: features under common names, frames numbered through, one order for all.

    a: frames 0..A-1   b: frames A..A+B-1   ->  batch(indices) -> each part read at once -> rows put in order

What a policy would see must agree in all parts: names, kinds, shapes, joint names. Other columns that not all
parts have are left out.
Shapes: B items, N frames of all parts together.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lerobot.core import keys
from lerobot.core.errors import DatasetError, FeatureMismatchError, suggest
from lerobot.core.types import image_shape, policy_features
from lerobot.datasets.dataset import LeRobotDataset
from lerobot.datasets.metadata import LeRobotDatasetMetadata
from lerobot.datasets.schema import DEFAULT_FEATURES, is_depth
from lerobot.datasets.stats import Stats, aggregate_stats

logger = logging.getLogger(__name__)

Names = Mapping[str, str | None]  # a part's feature -> its name in the mixture; None leaves it out


@dataclass(frozen=True, kw_only=True)
class MixtureMetadata:
    """What the parts of a mixture have in common.

    Raises:
        DatasetError: the parts' frame rates differ, or a name map speaks of features that are not there.
        FeatureMismatchError: features differ; all differences are listed.
    """

    parts: Sequence[LeRobotDatasetMetadata]
    names: Sequence[Names]
    sizes: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # cameras read at another (H, W)
    features: dict[str, dict] = field(init=False)
    kept: Sequence[dict[str, str]] = field(init=False)  # per part: own name -> common name

    def __post_init__(self) -> None:
        _check_rates(self.parts)
        tables = [_renamed(meta, names) for meta, names in zip(self.parts, self.names, strict=True)]
        features = _common(self.parts, tables, self.sizes)
        kept = [
            {own: common for own, common in _pairs(meta, names) if common in features}
            for meta, names in zip(self.parts, self.names, strict=True)
        ]
        object.__setattr__(self, "features", features)
        object.__setattr__(self, "kept", kept)

    @property
    def fps(self) -> int | float:
        """Frames per second of every part."""
        return self.parts[0].fps

    @property
    def camera_keys(self) -> list[str]:
        """All cameras."""
        return [name for name, one in self.features.items() if one["dtype"] in ("image", "video")]

    @property
    def depth_keys(self) -> list[str]:
        """Cameras that hold distances."""
        return [name for name in self.camera_keys if is_depth(self.features[name])]

    @property
    def total_episodes(self) -> int:
        """Episodes of all parts."""
        return sum(meta.total_episodes for meta in self.parts)

    @property
    def total_frames(self) -> int:
        """Frames of all parts."""
        return sum(meta.total_frames for meta in self.parts)

    @property
    def stats(self) -> Stats:
        """Statistics of all parts together."""
        return aggregate_stats([self.stats_of(k) for k in range(len(self.parts))])

    def stats_of(self, part: int) -> Stats:
        """Statistics of one part, under the common names."""
        return {
            common: self.parts[part].stats[own]
            for own, common in self.kept[part].items()
            if own in self.parts[part].stats
        }


class DatasetMixture(torch.utils.data.Dataset):
    """The frames of several datasets, numbered one dataset after the other.

    Each part was opened with the windows and pictures that the mixture is to give.
    """

    def __init__(self, meta: MixtureMetadata, parts: Sequence[LeRobotDataset]) -> None:
        self.meta, self.parts = meta, list(parts)
        lengths = [len(part) for part in self.parts]
        self.starts = np.cumsum([0, *lengths])[:-1]  # first item of each part
        self.first_frames = np.cumsum([0, *(m.total_frames for m in meta.parts)])[:-1]  # of each part
        self.first_episodes = np.cumsum([0, *(m.total_episodes for m in meta.parts)])[:-1]  # of each part

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    @property
    def num_frames(self) -> int:
        """Frames in the chosen episodes of all parts."""
        return len(self)

    @property
    def num_episodes(self) -> int:
        """Chosen episodes of all parts."""
        return sum(part.num_episodes for part in self.parts)

    @property
    def fps(self) -> int | float:
        """Frames per second."""
        return self.meta.fps

    @property
    def features(self) -> dict[str, dict]:
        """Every common feature."""
        return self.meta.features

    def batch(self, indices: Sequence[int]) -> dict[str, Any]:
        """Items stacked as by `LeRobotDataset.batch`, with `dataset_index` (B,): which part each is from.

        `index` and `episode_index` are numbered through all parts. May be called from several threads.
        """
        wanted = np.asarray(indices, dtype=np.int64)
        if len(wanted) and not (wanted.min() >= 0 and wanted.max() < len(self)):
            raise IndexError(f"Items {wanted.min()} to {wanted.max()} do not exist; there are {len(self)}.")
        owner = np.searchsorted(self.starts, wanted, side="right") - 1  # (B,)
        read, places = [], []
        for part in np.unique(owner):
            rows = np.flatnonzero(owner == part)
            read.append(self._read(int(part), wanted[rows] - self.starts[part]))
            places.append(rows)
        order = np.argsort(np.concatenate(places), kind="stable")
        batch = {name: _joined([one[name] for one in read], order) for name in read[0]}
        batch[keys.DATASET_INDEX] = torch.from_numpy(owner)  # (B,)
        return batch

    def _read(self, part: int, items: np.ndarray) -> dict[str, Any]:
        """Items of one part under the common names."""
        batch, found = self.parts[part].batch(items.tolist()), {}
        for own, common in self.meta.kept[part].items():
            found[common] = batch[own]
            if f"{own}{keys.PAD_SUFFIX}" in batch:
                found[f"{common}{keys.PAD_SUFFIX}"] = batch[f"{own}{keys.PAD_SUFFIX}"]
        found[keys.TASK] = batch[keys.TASK]
        found[keys.INDEX] = batch[keys.INDEX] + int(self.first_frames[part])
        found[keys.EPISODE_INDEX] = batch[keys.EPISODE_INDEX] + int(self.first_episodes[part])
        return found


def _joined(values: list[Any], order: np.ndarray) -> Any:
    """Parts of a column one after the other, then in the order that was asked for."""
    if isinstance(values[0], Tensor):
        return torch.cat(values)[torch.from_numpy(order)]
    flat = [one for part in values for one in part]
    return [flat[i] for i in order]


def _pairs(meta: LeRobotDatasetMetadata, names: Names) -> list[tuple[str, str | None]]:
    return [(own, names.get(own, own)) for own in meta.features]


def _renamed(meta: LeRobotDatasetMetadata, names: Names) -> dict[str, dict]:
    """A part's features under the common names."""
    for own in names:
        if own not in meta.features:
            raise DatasetError(
                f"feature_map: {meta.repo_id!r} has no feature {own!r}.{suggest(own, meta.features)}"
            )
    table = {}
    for own, common in _pairs(meta, names):
        if common is None:
            continue
        if common in table:
            raise DatasetError(f"feature_map: two features of {meta.repo_id!r} become {common!r}.")
        table[common] = meta.features[own]
    return table


def _check_rates(parts: Sequence[LeRobotDatasetMetadata]) -> None:
    if len({meta.fps for meta in parts}) > 1:
        said = ", ".join(f"{meta.repo_id!r} {meta.fps}" for meta in parts)
        raise DatasetError(
            f"Datasets of a mixture must have one frame rate, or a chunk of actions would last differently "
            f"long: {said} fps. Train on those of one rate."
        )


def _common(
    parts: Sequence[LeRobotDatasetMetadata],
    tables: Sequence[dict[str, dict]],
    sizes: Mapping[str, tuple[int, int]],
) -> dict[str, dict]:
    """The features that all parts have.

    Raises:
        FeatureMismatchError: lists every difference that a policy would see.
    """
    everywhere = [name for name in tables[0] if all(name in table for table in tables)]
    seen = [policy_features(table) for table in tables]
    problems = []
    for name in dict.fromkeys(name for table in seen for name in table):
        lacking = [meta.repo_id for meta, table in zip(parts, tables, strict=True) if name not in table]
        if lacking:
            problems.append(f"{name}: not in {', '.join(lacking)}")
            continue
        said = [_described(table[name], sizes.get(name)) for table in tables]
        if len(set(said)) > 1:
            told = (f"{meta.repo_id} has {one}" for meta, one in zip(parts, said, strict=True))
            problems.append(f"{name}: {'; '.join(told)}")
    if problems:
        raise FeatureMismatchError(
            "The datasets do not agree in what a policy would see:\n  "
            + "\n  ".join(problems)
            + "\nRename features, or leave them out (null), with "
            "--dataset.feature_map='{DATASET: {its feature: common name, another: null}}'; "
            "bring pictures to one size with --policy.input_shapes.CAMERA=[C,H,W]."
        )
    dropped = sorted({n for table in tables for n in table} - set(everywhere))
    if dropped:
        logger.info("Columns that not every dataset has are left out: %s.", ", ".join(dropped))
    return {name: tables[0][name] for name in everywhere if name not in DEFAULT_FEATURES} | {
        name: tables[0][name] for name in DEFAULT_FEATURES
    }


def _described(feature: dict, size: tuple[int, int] | None) -> str:
    """What must agree, in words."""
    if feature["dtype"] in ("image", "video"):
        channels, *declared = image_shape(feature)
        return f"a {'depth camera' if is_depth(feature) else 'camera'} {[channels, *(size or declared)]}"
    joints = f" of {feature['names']}" if feature.get("names") else ""
    return f"numbers {list(feature['shape'])}{joints}"
