"""Changes of pictures before a policy sees them."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lerobot.core.errors import ConfigError
from lerobot.core.types import PolicyFeature
from lerobot.processor.step import Features, ObservationProcessorStep, ProcessorStepRegistry


@ProcessorStepRegistry.register("resize_images_processor")
class ResizeImagesProcessorStep(ObservationProcessorStep):
    """Resizes named cameras to a height and width; `--policy.input_shapes` adds it to a pipeline."""

    def __init__(self, shapes: Mapping[str, Sequence[int]]) -> None:
        """`shapes` is camera feature -> [height, width] in pixels.

        Raises:
            ConfigError: a size is not two positive numbers.
        """
        self.shapes = {name: [int(size) for size in shape] for name, shape in shapes.items()}
        for name, shape in self.shapes.items():
            if len(shape) != 2 or min(shape) < 1:
                raise ConfigError(
                    f"resize_images_processor: {name} is given {shape}; expected [height, width]."
                )

    def observation(self, observation: dict[str, Any]) -> dict[str, Any]:
        """The observation with those cameras resized."""
        sized = {
            name: resize(observation[name], shape)
            for name, shape in self.shapes.items()
            if name in observation
        }
        return {**observation, **sized}

    def get_config(self) -> dict[str, Any]:
        """The sizes."""
        return {"shapes": self.shapes}

    def transform_features(self, features: Features) -> Features:
        """Features with the new heights and widths."""
        return {
            part: {
                name: PolicyFeature(feature.type, (feature.shape[0], *self.shapes[name]))
                if name in self.shapes
                else feature
                for name, feature in own.items()
            }
            for part, own in features.items()
        }


def resize(images: Tensor, shape: Sequence[int]) -> Tensor:
    """Pictures (..., C, H, W) as (..., C, height, width), bilinear with antialiasing; dtype is kept."""
    height, width = shape
    if tuple(images.shape[-2:]) == (height, width):
        return images
    flat = images.reshape(-1, *images.shape[-3:])  # (N, C, H, W)  # fmt: skip
    values = flat if flat.is_floating_point() else flat.float()
    sized = F.interpolate(values, size=(height, width), mode="bilinear", antialias=True, align_corners=False)
    if not images.is_floating_point():
        top = torch.iinfo(images.dtype).max
        sized = sized.round().clamp(0, top).to(images.dtype)
    return sized.reshape(*images.shape[:-2], height, width)
