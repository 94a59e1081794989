"""Checkpoints from before LeRobot 0.4: the statistics of the dataset are buffers among the weights.

    normalize_inputs.buffer_observation_images_front_left.mean   ->
    stats["observation.images.front_left"]["mean"]

A buffer's name has underscores for dots, so it is matched against the features in the config.
"""

import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from lerobot.policies.config import PreTrainedConfig
from lerobot.policies.weights import read_weights
from lerobot.processor.store import has_pipeline

logger = logging.getLogger(__name__)

Stats = dict[str, dict[str, Tensor]]
NORMALIZERS = (
    "normalize_inputs|normalize_targets|unnormalize_outputs|unnormalize_targets|"
    "normalize|unnormalize|input_normalizer|output_normalizer|normalizer"
)
BUFFER = re.compile(rf"(?:^|\.)(?:{NORMALIZERS})\.(?:buffer_)?(?P<feature>[^.]+)\.(?P<stat>\w+)$")
NORMALIZER = re.compile(rf"(?:^|\.)(?:{NORMALIZERS})\.")


def split_stats(
    weights: Mapping[str, Tensor], config: PreTrainedConfig, *, source: str
) -> tuple[dict[str, Tensor], Stats]:
    """The weights without their normalisation buffers, and the statistics those held.

    Buffers that were never filled (infinite) are left out, so normalising with them fails by name.
    """
    features = {name.replace(".", "_"): name for name in [*config.input_features, *config.output_features]}
    stats: Stats = {}
    unfilled = set()
    for name, value in weights.items():
        found = BUFFER.search(name)
        feature = features.get(found["feature"]) if found else None
        if found is None or feature is None:
            continue
        if torch.isfinite(value).all():
            stats.setdefault(feature, {})[found["stat"]] = value.float()
        else:
            unfilled.add(feature)
    if unfilled:
        logger.warning("%s: the statistics of %s were never filled.", source, ", ".join(sorted(unfilled)))
    return {name: value for name, value in weights.items() if not NORMALIZER.search(name)}, stats


def is_legacy(folder: Path, names: Iterable[str]) -> bool:
    """Whether a checkpoint has no pipelines, but normalisation buffers among the names of its weights."""
    return not has_pipeline(folder) and any(NORMALIZER.search(name) for name in names)


def read_stats(folder: Path, config: PreTrainedConfig) -> Stats | None:
    """The statistics inside the weights of an old checkpoint folder, or None when it is not an old one."""
    if has_pipeline(folder):
        return None
    weights = read_weights(folder)
    return split_stats(weights, config, source=str(folder))[1] if is_legacy(folder, weights) else None
