"""Transforms that mix neighbouring pixels or put a camera's defects on them: blur, sharpness, noise, JPEG.

Formulas: torchvision's sharpness and Gaussian blur on float pictures; a straight line as a kernel for motion.

Shapes: B samples, T pictures of each, C H W picture, K taps of a kernel.
"""

import io
import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from lerobot.core.errors import ConfigError
from lerobot.datasets.transforms.color import Occasional
from lerobot.datasets.transforms.draws import Draws
from lerobot.datasets.transforms.transform import ImageTransform, Params, Shape, spread


# ----------------------------------------------------------------------------------------------------- pixels
def sharpen(images: Tensor, factor: Tensor) -> Tensor:
    """`factor` of the images and the rest of a smooth copy; above 1 sharpens. The outermost pixels stay.

    The smooth copy weighs a pixel 5 and its eight neighbours 1 each.
    """
    height, width = images.shape[-2:]
    if height <= 2 or width <= 2:
        return images
    rows = images[..., :-2] + images[..., 1:-1]
    rows += images[..., 2:]
    smooth = rows[..., :-2, :] + rows[..., 1:-1, :]
    smooth += rows[..., 2:, :]
    middle = images[..., 1:-1, 1:-1]
    changed = images.clamp(0, 1)
    # factor * middle + (1 - factor) * (sum + 4 middle) / 13
    other = (1 - factor) / 13
    inside = smooth.mul_(other).addcmul_(middle, factor + 4 * other)
    changed[..., 1:-1, 1:-1] = inside.clamp_(0, 1)
    return changed


def smooth_along(images: Tensor, weights: Tensor, axis: int) -> Tensor:
    """Weighted means of (B, T, C, H, W) along an axis, weights (B, K) per sample; borders are mirrored."""
    count = weights.shape[1]
    border, size = count // 2, images.shape[axis]
    pad = (border, border, 0, 0) if axis == -1 else (0, 0, border, border)
    padded = F.pad(images.flatten(1, 2), pad, mode="reflect").unflatten(1, images.shape[1:3])
    total = torch.zeros_like(images)
    for tap, weight in enumerate(weights.unbind(1)):
        total.addcmul_(padded.narrow(axis, tap, size), spread(weight, images))
    return total


def line_kernel(size: int, degrees: float, *, width: int) -> Tensor:
    """A kernel (width, width) that averages along a line of `size` pixels at this angle."""
    angle = math.radians(degrees)
    along = np.arange(size) - size // 2
    x, y = np.rint(along * math.cos(angle)).astype(int), np.rint(along * math.sin(angle)).astype(int)
    kernel = torch.zeros(width, width)
    kernel[y + width // 2, x + width // 2] = 1
    return kernel / kernel.sum()


def compress(images: Tensor, qualities: Tensor) -> Tensor:
    """Pictures (B, T, C, H, W) after saving them as JPEG; done on the CPU, one by one."""
    pixels = (images.clamp(0, 1) * 255).round().to("cpu", torch.uint8)
    changed = torch.empty_like(pixels)
    for row, quality in enumerate(qualities.tolist()):
        for frame, picture in enumerate(pixels[row]):
            changed[row, frame] = _as_jpeg(picture, quality)
    return changed.to(images.device).to(images.dtype).div_(255)


def _as_jpeg(picture: Tensor, quality: int) -> Tensor:
    array = picture.permute(1, 2, 0).numpy()  # (H, W, C)
    file = io.BytesIO()
    Image.fromarray(array if array.shape[2] == 3 else array[..., 0]).save(file, "JPEG", quality=quality)
    with Image.open(file) as image:
        back = np.array(image)
    return torch.from_numpy(back).reshape(array.shape).permute(2, 0, 1)


# ------------------------------------------------------------------------------------------------- transforms
class SharpnessJitter(ImageTransform):
    """Sharpness changed by a random factor: 0 is smooth, 1 as it was, 2 sharp."""

    sharpness: tuple[float, float]

    def draw(self, draws: Draws, shape: Shape) -> Params:
        """The factor (B, 1)."""
        return {"factor": draws.uniform(*self.sharpness)}

    def apply(self, images: Tensor, params: Params) -> Tensor:
        """Smoother or sharper pictures."""
        return sharpen(images, spread(params["factor"], images))


class RandomAdjustSharpness(Occasional):
    """Sharpness changed by `sharpness_factor`, with probability `p`."""

    sharpness_factor: float

    def change(self, images: Tensor) -> Tensor:
        """Smoother or sharper pictures."""
        return sharpen(images, torch.tensor(self.sharpness_factor, device=images.device))


class GaussianBlur(ImageTransform):
    """A bell-shaped blur of random width; kernel and width in pixels."""

    kernel_size: tuple[int, int]
    sigma: tuple[float, float]

    def draw(self, draws: Draws, shape: Shape) -> Params:
        """The bell's width (B, 1) in pixels."""
        return {"sigma": draws.uniform(*self.sigma)}

    def apply(self, images: Tensor, params: Params) -> Tensor:
        """Blurred pictures.

        Raises:
            ConfigError: the pictures are too small for the kernel.
        """
        width, height = self.kernel_size
        if images.shape[-1] <= width // 2 or images.shape[-2] <= height // 2:
            raise ConfigError(
                f"GaussianBlur: kernel_size={[width, height]} is too large for pictures of "
                f"{images.shape[-1]}x{images.shape[-2]}; give one below twice that."
            )
        for axis, size in ((-1, width), (-2, height)):
            places = torch.arange(size) - size // 2
            weights = torch.exp(-0.5 * (places / params["sigma"]) ** 2)  # (B, K)
            images = smooth_along(images, weights / weights.sum(dim=1, keepdim=True), axis)
        return images


class MotionBlur(ImageTransform):
    """A blur along a straight line of random odd length, in pixels, and random direction."""

    kernel_size: tuple[int, ...]  # the odd lengths to choose from

    def draw(self, draws: Draws, shape: Shape) -> Params:
        """The kernels (B, K, K)."""
        chosen = draws.integers(0, len(self.kernel_size))
        angles = draws.uniform(0.0, 360.0)[:, 0]
        sizes, width = [self.kernel_size[i] for i in chosen], max(self.kernel_size)
        lines = zip(sizes, angles.tolist(), strict=True)
        return {"kernel": torch.stack([line_kernel(size, angle, width=width) for size, angle in lines])}

    def apply(self, images: Tensor, params: Params) -> Tensor:
        """Pictures as a moving camera sees them; border pixels count on outside."""
        kernels = params["kernel"].to(images.device, images.dtype)  # (B, K, K)
        B, T, C = images.shape[:3]
        border = kernels.shape[-1] // 2
        padded = F.pad(images.flatten(1, 2), (border,) * 4, mode="replicate")  # (B, T*C, H+2b, W+2b)
        weights = kernels[:, None, None].expand(B, T * C, 1, -1, -1).flatten(0, 1)  # (B*T*C, 1, K, K)
        return F.conv2d(padded.flatten(0, 1)[None], weights, groups=B * T * C).reshape(images.shape)


class GaussianNoise(ImageTransform):
    """Normal noise of a random standard deviation, in steps of 8-bit pictures (0..255)."""

    std: tuple[float, float]

    def draw(self, draws: Draws, shape: Shape) -> Params:
        """The standard deviation (B, 1) and the noise (B, T, C, H, W), another in every picture."""
        return {"std": draws.uniform(*self.std), "noise": draws.noise(tuple(shape))}

    def apply(self, images: Tensor, params: Params) -> Tensor:
        """Noisy pictures."""
        return (images + params["noise"] * spread(params["std"] / 255, images)).clamp_(0, 1)


class JPEGCompression(ImageTransform):
    """What a JPEG file of random quality (1 to 100) leaves of a picture."""

    quality: tuple[int, int]

    def draw(self, draws: Draws, shape: Shape) -> Params:
        """The quality (B,)."""
        low, high = self.quality
        return {"quality": draws.integers(low, high + 1)}

    def apply(self, images: Tensor, params: Params) -> Tensor:
        """Pictures with JPEG's blocks and colours."""
        return compress(images, params["quality"])
