"""What an image transform is: numbers drawn for each sample, then pixels computed for all samples at once.

    images (B, T, C, H, W) in 0..1 --draw--> parameters (B, ...) on the CPU --apply--> images

One picture is a batch of one, so that a transform has one formula for both. All T pictures of a sample share
its parameters: a window must not flicker. torchvision's formulas are the ones that trained policies and
recorded pictures follow; kornia computes the same colours within 1e-5, but it needs a compiled package
beside torch and draws once per batch from torch's global stream, so the formulas are written out here.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lerobot.datasets.transforms.arguments import read_arguments
from lerobot.datasets.transforms.draws import Draws, TorchDraws

Params = dict[str, Tensor]
Change = Callable[[Tensor, Tensor], Tensor]


class Shape(NamedTuple):
    """What pictures of a batch have in common."""

    frames: int  # pictures per sample, T
    channels: int
    height: int
    width: int


class ImageTransform:
    """A random change of pictures; arguments are those of `arguments.ARGUMENTS`, by position or by name.

    Called on a picture ([T,] C, H, W), it draws from torch's global generator. float pictures are in 0..1;
    uint8 pictures are changed as floats and rounded back.

    Raises:
        ValueError: an argument is unknown, missing or out of range.
    """

    def __init__(self, *values: Any, **arguments: Any) -> None:
        self.arguments = read_arguments(type(self).__name__, values, arguments)
        for name, value in self.arguments.items():
            setattr(self, name, value)

    def draw(self, draws: Draws, shape: Shape) -> Params:
        """Parameters (B, ...) for pictures of this shape."""
        return {}

    def apply(self, images: Tensor, params: Params) -> Tensor:
        """The pictures (B, T, C, H, W), changed as the parameters say; the given ones stay as they are."""
        raise NotImplementedError

    def __call__(self, image: Tensor) -> Tensor:
        """The picture ([T,] C, H, W) after one random change."""
        given = image
        image = to_float(image)
        frames = image.reshape(-1, *image.shape[-3:])[None]  # (1, T, C, H, W)
        shape = Shape(*frames.shape[1:])
        changed = self.apply(frames, self.draw(TorchDraws(image.device), shape))
        changed = changed.reshape(*image.shape[:-3], *changed.shape[-3:])
        return changed if given.dtype.is_floating_point else changed.mul(255).round_().to(torch.uint8)

    def __repr__(self) -> str:
        said = ", ".join(f"{name}={value}" for name, value in self.arguments.items())
        return f"{type(self).__name__}({said})"


class Identity(ImageTransform):
    """The picture as it is."""

    def apply(self, images: Tensor, params: Params) -> Tensor:
        """The same pictures."""
        return images


def to_float(image: Tensor) -> Tensor:
    """The picture as float in 0..1.

    Raises:
        TypeError: it is neither uint8 nor float, or has fewer than three axes.
    """
    if image.ndim < 3 or not (image.dtype == torch.uint8 or image.dtype.is_floating_point):
        raise TypeError(
            f"a picture of shape {tuple(image.shape)} and {image.dtype}: expected (..., C, H, W) as uint8 in "
            "0..255 or float in 0..1."
        )
    return image.float().div_(255) if image.dtype == torch.uint8 else image


# ----------------------------------------------------------------------------------- samples of a batch apart
def spread(values: Tensor, images: Tensor) -> Tensor:
    """Numbers per sample (B,) or per sample and channel (B, C), shaped to multiply images (B, T, C, H, W)."""
    values = values.to(images.device, images.dtype, non_blocking=True)
    return values.reshape(len(values), 1, -1, 1, 1)


def only(images: Tensor, chosen: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """The images with `change` made to the chosen samples (B,) bool."""
    rows = chosen.nonzero()[:, 0]
    if len(rows) == len(images):
        return change(images)
    if len(rows) == 0:
        return images
    changed = images.clone()
    changed[rows] = change(images[rows])
    return changed


def in_order(images: Tensor, order: Tensor, changes: Mapping[int, Change]) -> Tensor:
    """The images after the changes that each sample's row of `order` (B, S) lists; other numbers do nothing.

    A change gets the images of the samples it is for and their rows in the batch. `images` is overwritten
    where a change concerns a part of the batch.
    """
    for column in order.unbind(1):
        for number in set(column.tolist()) & changes.keys():
            change, rows = changes[number], (column == number).nonzero()[:, 0]
            if len(rows) == len(images):
                images = change(images, rows)
            elif len(rows):
                there = rows.to(images.device)
                images.index_copy_(0, there, change(images.index_select(0, there), rows))
    return images
