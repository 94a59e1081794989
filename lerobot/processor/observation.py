"""Observations of gymnasium environments under the names and in the form that policies read."""

from typing import Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from lerobot.core import keys
from lerobot.core.errors import FeatureMismatchError
from lerobot.core.observation import PIXELS, STATES
from lerobot.processor.step import ObservationProcessorStep, ProcessorStepRegistry


@ProcessorStepRegistry.register("observation_processor")
class VanillaObservationProcessorStep(ObservationProcessorStep):
    """`pixels`, `agent_pos` and `environment_state` of an environment become canonical features.

    Pictures: uint8 (H, W, C) or (B, H, W, C) in, float32 (B, C, H, W) in [0, 1] out. States: (J,) or (B, J)
    in, float32 (B, J) out. Everything else is kept.
    """

    def observation(self, observation: dict[str, Any]) -> dict[str, Any]:
        """The observation under canonical names.

        Raises:
            FeatureMismatchError: a picture is not uint8 with its channels last.
        """
        found: dict[str, Any] = {}
        for name, value in observation.items():
            if name == PIXELS and isinstance(value, dict):
                found |= {
                    keys.IMAGES_PREFIX + camera: to_image(picture, camera)
                    for camera, picture in value.items()
                }
            elif name == PIXELS:
                found[keys.IMAGE] = to_image(value, PIXELS)
            elif name in STATES:
                found[STATES[name]] = to_state(value)
            else:
                found[name] = value
        return found


def to_image(picture: np.ndarray | Tensor, name: str) -> Tensor:
    """A uint8 picture (H, W, C) or (B, H, W, C) as float32 (B, C, H, W) in [0, 1]."""
    image = torch.as_tensor(picture)
    if image.ndim == 3:
        image = image.unsqueeze(0)  # (1, H, W, C)  # fmt: skip
    if image.ndim != 4 or image.dtype != torch.uint8 or image.shape[-1] not in (1, 3, 4):
        raise FeatureMismatchError(
            f"The picture {name!r} is {image.dtype} of shape {tuple(image.shape)}; expected uint8 (H, W, C) "
            "or (B, H, W, C) with 1, 3 or 4 channels."
        )
    return rearrange(image, "b h w c -> b c h w").contiguous().float() / 255


def to_state(values: np.ndarray | Tensor) -> Tensor:
    """Numbers (J,) or (B, J) as float32 (B, J)."""
    state = torch.as_tensor(values).float()
    return state.unsqueeze(0) if state.ndim == 1 else state
