"""Transforms that change a part of the picture: erased boxes, holes, bright and dark spots, a shadow.

Shapes: B samples, T pictures of each, C H W picture, N boxes or spots.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from lerobot.datasets.transforms.draws import Draws
from lerobot.datasets.transforms.geometry import TRIES
from lerobot.datasets.transforms.transform import ImageTransform, Params, Shape

SOFTNESS = 8  # pixels that a shadow's edge is averaged over


class RandomErasing(ImageTransform):
    """With probability `p` one box of random size, shape and place gets the colour `value`."""

    p: float
    scale: tuple[float, float]
    ratio: tuple[float, float]
    value: tuple[float, ...]

    def draw(self, draws: Draws, shape: Shape) -> Params:
        """The box (B, 1, 4): first row, first column, height, width; empty where nothing is erased."""
        is_open = draws.unit(1)[:, 0] < self.p  # (B,)
        box = torch.zeros(len(is_open), 4, dtype=torch.long)
        for attempt in range(TRIES):
            if not is_open.any():
                break
            draws.at(1 + 4 * attempt)
            area = draws.uniform(*self.scale)[:, 0].double() * (shape.height * shape.width)
            aspect = draws.uniform(*map(math.log, self.ratio))[:, 0].exp().double()
            height, width = (area * aspect).sqrt().round().long(), (area / aspect).sqrt().round().long()
            is_new = (height < shape.height) & (width < shape.width) & is_open
            if is_new.any():
                row = draws.integers(0, (shape.height - height + 1).clamp(min=1))
                column = draws.integers(0, (shape.width - width + 1).clamp(min=1))
                box = torch.where(is_new[:, None], torch.stack([row, column, height, width], dim=1), box)
                is_open = is_open & ~is_new
        return {"box": box[:, None]}

    def apply(self, images: Tensor, params: Params) -> Tensor:
        """Pictures with a box in one colour."""
        return painted(images, params["box"], self.value)


class CoarseDropout(ImageTransform):
    """Some holes of random size and place, filled with one grey value."""

    max_holes: int
    max_height_frac: float
    max_width_frac: float
    fill_value: float

    def draw(self, draws: Draws, shape: Shape) -> Params:
        """The holes (B, N, 4): first row, first column, height, width; empty beyond a sample's own number."""
        number = draws.integers(1, self.max_holes + 1)  # (B,)
        count = int(number.max())
        limits = torch.tensor([self.max_height_frac * shape.height, self.max_width_frac * shape.width])
        sides = (draws.unit(count, 2) * limits).round().clamp(min=1)  # (B, N, 2)
        room = (torch.tensor([shape.height, shape.width]) - sides).clamp(min=0)
        places = (draws.unit(count, 2) * room).round()
        sides = sides * (torch.arange(count) < number[:, None])[:, :, None]
        return {"boxes": torch.cat([places, sides], dim=2).long()}

    def apply(self, images: Tensor, params: Params) -> Tensor:
        """Pictures with holes."""
        return painted(images, params["boxes"], (self.fill_value,))


class GaussianPatchBrightness(ImageTransform):
    """Some round spots of random place, width (in picture sides) and factor, bright or dark."""

    num_patches: tuple[int, int]
    sigma_range: tuple[float, float]
    factor_range: tuple[float, float]

    def draw(self, draws: Draws, shape: Shape) -> Params:
        """Centres (B, N, 2) as (y, x) in 0..1, widths and factors (B, N); the factor of no spot is 1."""
        number = draws.integers(self.num_patches[0], self.num_patches[1] + 1)  # (B,)
        count = int(number.max())
        center = draws.unit(count, 2)
        sigma = draws.uniform(*self.sigma_range, count=count)
        factor = draws.uniform(*self.factor_range, count=count)
        factor = torch.where(torch.arange(count) < number[:, None], factor, 1.0)
        return {"center": center, "sigma": sigma, "factor": factor}

    def apply(self, images: Tensor, params: Params) -> Tensor:
        """Pictures with spots."""
        height, width = images.shape[-2:]
        center, sigma, factor = (params[name].to(images.device) for name in ("center", "sigma", "factor"))
        y = torch.linspace(0, 1, height, device=images.device) - center[:, :, :1]  # (B, N, H)
        x = torch.linspace(0, 1, width, device=images.device) - center[:, :, 1:]  # (B, N, W)
        total = torch.ones(len(images), height, width, device=images.device)
        for n in range(center.shape[1]):
            wide = 2 * sigma[:, n, None] ** 2
            bell = (-(y[:, n] ** 2) / wide).exp()[:, :, None] * (-(x[:, n] ** 2) / wide).exp()[:, None, :]
            total *= 1 + (factor[:, n, None, None] - 1) * bell
        return (images * total[:, None, None]).clamp_(0, 1)


class RandomShadow(ImageTransform):
    """A soft upright band, a third to two thirds as wide as the picture, darker or lighter than the rest."""

    opacity: tuple[float, float]

    def draw(self, draws: Draws, shape: Shape) -> Params:
        """How much darker (negative) or lighter (B, 1), and the band's first column and width (B, 1)."""
        opacity = draws.uniform(*self.opacity)
        place = draws.unit(1)
        width = (draws.uniform(1 / 3, 2 / 3) * shape.width).round()
        is_dark = draws.unit(1) < 0.5
        first = (place * (shape.width - width)).round()
        return {"change": torch.where(is_dark, -opacity, opacity), "first": first, "width": width}

    def apply(self, images: Tensor, params: Params) -> Tensor:
        """Pictures with a band in them."""
        height, width = images.shape[-2:]
        x = torch.arange(width)
        band = ((x >= params["first"]) & (x < params["first"] + params["width"])).float()  # (B, W)
        coarse = F.avg_pool1d(band[:, None], min(SOFTNESS, height, width))
        soft = F.interpolate(coarse, size=width, mode="linear", align_corners=False)[:, 0]  # (B, W)
        factor = (1 + params["change"] * soft).to(images.device, images.dtype)
        return (images * factor[:, None, None, None]).clamp_(0, 1)


# ----------------------------------------------------------------------------------------------------- pixels
def painted(images: Tensor, boxes: Tensor, color: tuple[float, ...]) -> Tensor:
    """The pictures with each sample's boxes (B, N, 4: row, column, height, width) in one colour."""
    row, column, height, width = (side[:, :, None] for side in boxes.unbind(2))  # (B, N, 1)
    y, x = torch.arange(images.shape[-2]), torch.arange(images.shape[-1])
    rows = (y >= row) & (y < row + height)  # (B, N, H)
    columns = (x >= column) & (x < column + width)  # (B, N, W)
    is_inside = (rows[:, :, :, None] & columns[:, :, None, :]).any(dim=1)[:, None, None]  # (B, 1, 1, H, W)
    paint = torch.tensor(color, device=images.device, dtype=images.dtype).reshape(-1, 1, 1)
    return torch.where(is_inside.to(images.device), paint, images)
