"""The pipelines of a run: one pair with the data's statistics, or one pair per dataset of a mixture.

batch -> rows of each dataset -> that dataset's preprocessor -> rows in their old order
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lerobot.core import keys
from lerobot.core.types import FeatureType
from lerobot.datasets.mixture import MixtureMetadata
from lerobot.policies.build import make_pre_post_processors
from lerobot.policies.config import PreTrainedConfig
from lerobot.processor.defaults import Pair
from lerobot.processor.images import ResizeImagesProcessorStep
from lerobot.training.config import TrainConfig
from lerobot.training.sampling.data import Batch
from lerobot.training.sampling.source import Metadata
from lerobot.training.statistics import check_statistics, uses_stored

PER_DATASET_FOLDER = "per_dataset"  # beside the main pipelines in a checkpoint; one folder per dataset

# Mean and standard deviation of ImageNet's pixels in [0, 1], per colour.
IMAGENET = {
    "mean": np.array([0.485, 0.456, 0.406], np.float32)[:, None, None],  # (3, 1, 1)
    "std": np.array([0.229, 0.224, 0.225], np.float32)[:, None, None],  # (3, 1, 1)
}


def build_processors(cfg: TrainConfig, meta: Metadata) -> list[Pair]:
    """Pre- and postprocessors: one pair for all data, or with `--dataset.stats=per_dataset` one per dataset.

    The first pair is the policy's own, which evaluation uses and a checkpoint holds under the usual names. A
    resumed run gets what its checkpoint holds, others this data's statistics or, with
    `--statistics=checkpoint`, those of the policy they begin with.

    Raises:
        MissingStatsError: a feature that is scaled has no statistics.
    """
    if not (cfg.dataset.stats == "per_dataset" and isinstance(meta, MixtureMetadata)):
        return [_pair(cfg, meta, meta.stats, folder=None)]
    folders: list[Path | None] = [None, *(folder_name(name) for name in cfg.dataset.names[1:])]
    return [_pair(cfg, meta, meta.stats_of(k), folder=folder) for k, folder in enumerate(folders)]


def _pair(cfg: TrainConfig, meta: Metadata, stats: Mapping[str, Any], *, folder: Path | None) -> Pair:
    policy = cfg.policy
    assert policy is not None
    if uses_stored(cfg):
        stored = Path(str(policy.pretrained_path)) / folder if folder else policy.pretrained_path
        before, after = make_pre_post_processors(policy, stored)
    else:
        before, after = make_pre_post_processors(
            policy, policy.pretrained_path, dataset_stats=_stats_of_data(cfg, meta, stats)
        )
    check_statistics(cfg, meta, (before, after))
    if cfg.input_shapes and not cfg.resume:
        before.steps = [step for step in before.steps if not isinstance(step, ResizeImagesProcessorStep)]
        sizes = {name: shape[1:] for name, shape in cfg.input_shapes.items()}
        before.steps.insert(1, ResizeImagesProcessorStep(sizes))
    return before, after


def _stats_of_data(cfg: TrainConfig, meta: Metadata, stats: Mapping[str, Any]) -> dict[str, Any]:
    """The data's statistics under the policy's names, ImageNet's for colour cameras if asked for."""
    stats = dict(deepcopy(stats))
    if cfg.dataset.use_imagenet_stats:
        for name in set(meta.camera_keys) - set(meta.depth_keys):
            stats[name] = {**stats.get(name, {}), **IMAGENET}
    return {cfg.rename_map.get(name, name): value for name, value in stats.items()}


def prepare(cfg: TrainConfig, pairs: Sequence[Pair], batch: Batch) -> Batch:
    """A batch of the dataset, on the device already, as the policy reads it."""
    names = cfg.rename_map | {a + keys.PAD_SUFFIX: b + keys.PAD_SUFFIX for a, b in cfg.rename_map.items()}
    batch = {names.get(key, key): value for key, value in batch.items()}
    if cfg.task is not None:
        batch["task"] = [cfg.task] * len(batch["index"])
    assert cfg.policy is not None
    return preprocess(pairs, with_axes(cfg.policy, batch))


def with_axes(policy: PreTrainedConfig, batch: Batch) -> Batch:
    """The batch in which a feature of one number has its axis, (B, [T,] 1): datasets give it without."""
    found = dict(batch)
    for name, feature in {**policy.input_features, **policy.output_features}.items():
        is_action = feature.type is FeatureType.ACTION
        offsets = policy.action_delta_indices if is_action else policy.observation_delta_indices
        if feature.shape == (1,) and name in batch and batch[name].dim() == 1 + (offsets is not None):
            found[name] = batch[name].unsqueeze(-1)  # (B, [T,] 1)
    return found


def preprocess(pairs: Sequence[Pair], batch: Batch) -> Batch:
    """The batch as the policy reads it, each row through the preprocessor of its dataset."""
    if len(pairs) == 1:
        return pairs[0][0](batch)
    owner = batch[keys.DATASET_INDEX]  # (B,)
    done, places = [], []
    for k, (before, _) in enumerate(pairs):
        rows = (owner == k).nonzero().squeeze(1)
        if len(rows):
            done.append(before({name: _rows(value, rows, len(owner)) for name, value in batch.items()}))
            places.append(rows)
    order = torch.cat(places).argsort()
    merged = {name: _joined([one[name] for one in done], order) for name in done[0]}
    return type(done[0])(merged)


def _rows(value: Any, rows: Tensor, size: int) -> Any:
    if isinstance(value, Tensor):
        return value[rows]
    return [value[i] for i in rows.tolist()] if isinstance(value, list) and len(value) == size else value


def _joined(values: list[Any], order: Tensor) -> Any:
    if isinstance(values[0], Tensor):
        return torch.cat(values)[order]
    if isinstance(values[0], list):
        flat = [one for part in values for one in part]
        return [flat[i] for i in order.tolist()]
    return values[0]


def save_per_dataset(cfg: TrainConfig, pairs: Sequence[Pair], checkpoint: Path) -> None:
    """Write the pipelines of the datasets after the first, if they have any, into a checkpoint's folder."""
    for name, pair in zip(cfg.dataset.names[1:], pairs[1:], strict=False):
        folder = checkpoint / keys.PRETRAINED_FOLDER / folder_name(name)
        assert cfg.policy is not None
        cfg.policy.save_pretrained(folder)  # so that the folder is found as one of this policy
        for pipeline in pair:
            pipeline.save_pretrained(folder)


def folder_name(dataset: str) -> Path:
    """Where a dataset's pipelines are, inside `pretrained_model`."""
    return Path(PER_DATASET_FOLDER) / dataset.replace("/", "__")
