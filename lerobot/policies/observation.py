"""Observations as people hold them -> the flat dict of tensors that a preprocessor reads.

{"state": array, "images": {"top": uint8 (H, W, C)}}   ->   {"observation.state": (J,),
                                                             "observation.images.top": float (C, H, W) in [0,
                                                             1]}
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lerobot.core import keys
from lerobot.core.errors import FeatureMismatchError
from lerobot.core.types import FeatureType, PolicyFeature

NUM_CHANNELS = (1, 3, 4)


def flatten(observation: Mapping[str, Any]) -> dict[str, Any]:
    """Nested views and short names as canonical names: images/top -> observation.images.top."""
    flat: dict[str, Any] = {}
    for name, value in observation.items():
        if name == keys.OBSERVATION and isinstance(value, Mapping):
            flat |= flatten(value)
        elif isinstance(value, Mapping):
            flat |= {canonical(f"{name}.{inner}"): item for inner, item in value.items()}
        else:
            flat[canonical(name)] = value
    return flat


def canonical(name: str) -> str:
    """`state` -> `observation.state`; tasks, actions and names that are canonical already stay."""
    stays = name.startswith((keys.OBSERVATION_PREFIX, keys.ACTION, "next.")) or name.endswith(keys.PAD_SUFFIX)
    others = (
        keys.TASK,
        keys.INFO,
        keys.TIMESTAMP,
        keys.INDEX,
        keys.FRAME_INDEX,
        keys.EPISODE_INDEX,
        keys.TASK_INDEX,
    )
    return name if stays or name in others else keys.OBSERVATION_PREFIX + name


def to_tensors(
    observation: Mapping[str, Any], features: Mapping[str, PolicyFeature]
) -> tuple[dict[str, Any], bool]:
    """Flat observation of tensors, images as float (..., C, H, W) in [0, 1]; and whether it has a batch axis.

    Args:
        features: what the policy reads; other entries pass through.

    Raises:
        FeatureMismatchError: a value has too few or too many axes, or some have a batch axis and some have
            not.
    """
    found, batched = {}, {}
    for name, value in flatten(observation).items():
        if isinstance(value, (np.ndarray, np.generic, list, tuple, float, int)) and name.startswith(
            keys.OBSERVATION_PREFIX
        ):
            value = torch.as_tensor(np.asarray(value))
        if not isinstance(value, Tensor) or not name.startswith(keys.OBSERVATION_PREFIX):
            found[name] = value
            continue
        feature = features.get(name)
        is_image = (
            feature.type is FeatureType.VISUAL
            if feature
            else name.startswith((keys.IMAGES_PREFIX, keys.IMAGE))
        )
        found[name] = (
            to_image(value, name) if is_image else value.float() if value.is_floating_point() else value
        )
        if feature is not None:
            rank = 3 if is_image else len(feature.shape)
            if value.ndim not in (rank, rank + 1):
                raise FeatureMismatchError(
                    f"{name} has shape {tuple(value.shape)}; expected {feature.shape}, with or without a "
                    "batch axis."
                )
            batched[name] = value.ndim == rank + 1
    if len(set(batched.values())) > 1:
        said = ", ".join(f"{name}: {'yes' if has else 'no'}" for name, has in batched.items())
        raise FeatureMismatchError(f"Some observations have a batch axis and some have not ({said}).")
    return found, any(batched.values())


def to_image(value: Tensor, name: str) -> Tensor:
    """uint8 or float images, channels first or last, as float (..., C, H, W); uint8 is divided by 255.

    Raises:
        FeatureMismatchError: no axis looks like channels.
    """
    if value.ndim < 3 or not {value.shape[-3], value.shape[-1]} & set(NUM_CHANNELS):
        raise FeatureMismatchError(
            f"{name} has shape {tuple(value.shape)}; expected an image (C, H, W) or (H, W, C) with 1, 3 or 4 "
            "channels."
        )
    if value.shape[-3] not in NUM_CHANNELS:
        value = value.movedim(-1, -3).contiguous()  # (..., C, H, W)
    return value.float() / 255 if value.dtype == torch.uint8 else value.float()
