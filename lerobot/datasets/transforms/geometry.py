"""Transforms that move pixels: turn, shift, scale, shear, flip, crop.

Formulas: torchvision's on float pictures. An affine move is M = T(shift) R(angle) S(scale) Hy Hx about a
centre, in pixels from the middle of the picture, x to the right, y down; pictures are sampled at its inverse.

Shapes: B samples, T pictures of each, C H W picture, h w the cropped or resized one.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from lerobot.core.errors import ConfigError
from lerobot.datasets.transforms.color import Occasional
from lerobot.datasets.transforms.draws import Draws
from lerobot.datasets.transforms.transform import ImageTransform, Params, Shape

TRIES = 10  # random boxes of RandomResizedCrop and RandomErasing before they give up, as in torchvision


# ----------------------------------------------------------------------------------------------- affine moves
def inverse_move(
    degrees: Tensor, *, shift: Tensor, scale: Tensor, shear: Tensor, center: tuple[float, float]
) -> Tensor:
    """From places in the changed picture to places in the given one: (B, 2, 3), float32.

    Args:
        degrees: (B,), clockwise. shift: (B, 2) pixels. scale: (B,). shear: (B, 2) degrees along x and y.
        center: x and y in pixels from the middle of the picture.
    """
    degrees, shift, scale, shear = (t.double() for t in (degrees, shift, scale, shear))
    angle, (tan_x, tan_y) = degrees.deg2rad(), shear.deg2rad().tan().unbind(1)
    one, cos, sin = torch.ones_like(angle), angle.cos(), angle.sin()
    turn_back = torch.stack([cos, sin, -sin, cos], dim=1).reshape(-1, 2, 2)
    slant_back = torch.stack([1 + tan_x * tan_y, tan_x, tan_y, one], dim=1).reshape(-1, 2, 2)  # (Hy Hx)^-1
    back = slant_back @ turn_back / scale[:, None, None]  # (B, 2, 2)
    middle = torch.tensor(center, dtype=torch.float64).expand(len(back), 2)
    offset = middle - (back @ (middle + shift)[:, :, None])[:, :, 0]  # (B, 2)
    return torch.cat([back, offset[:, :, None]], dim=2).float()


def move(images: Tensor, inverse: Tensor, *, mode: str, fill: tuple[float, ...]) -> Tensor:
    """Pictures (B, T, C, H, W) after each sample's move; what comes from outside gets the colour `fill`."""
    height, width = images.shape[-2:]
    inverse = inverse.to(images.device)  # (B, 2, 3)
    x = torch.arange(width, device=images.device) - (width - 1) / 2
    y = torch.arange(height, device=images.device) - (height - 1) / 2
    sides = torch.tensor([width / 2, height / 2], device=images.device)
    scaled = inverse / sides[:, None]  # (B, 2, 3): grid_sample counts in half widths
    grid = y[:, None, None] * scaled[:, None, None, :, 1] + scaled[:, None, None, :, 2]  # (B, H, 1, 2)
    grid = x[:, None] * scaled[:, None, None, :, 0] + grid  # (B, H, W, 2)
    flat = images.flatten(1, 2)  # (B, T*C, H, W)
    if not any(fill) and mode == "nearest":
        return F.grid_sample(flat, grid, mode=mode, align_corners=False).reshape(images.shape)
    inside = torch.ones_like(flat[:, :1])
    sampled = F.grid_sample(torch.cat([flat, inside], dim=1), grid, mode=mode, align_corners=False)
    moved, mask = sampled[:, :-1].reshape(images.shape), sampled[:, None, -1:]  # (B, 1, 1, H, W)
    background = torch.tensor(fill, device=images.device, dtype=images.dtype).reshape(-1, 1, 1)
    if mode == "nearest":
        return torch.where(mask < 0.5, background, moved)
    return moved * mask + background * (1 - mask)


def from_middle(center: tuple[float, float] | None, shape: Shape) -> tuple[float, float]:
    """A centre given in pixels from the upper left corner, in pixels from the middle."""
    if center is None:
        return 0.0, 0.0
    return center[0] - shape.width / 2, center[1] - shape.height / 2


class RandomAffine(ImageTransform):
    """A random turn about the centre, with a shift, scale and shear where asked for."""

    degrees: tuple[float, float]
    translate: tuple[float, float] | None
    scale: tuple[float, float] | None
    shear: tuple[float, ...] | None
    interpolation: str
    fill: tuple[float, ...]
    center: tuple[float, float] | None

    def draw(self, draws: Draws, shape: Shape) -> Params:
        """The inverse move (B, 2, 3) in pixels."""
        degrees = draws.uniform(*self.degrees)[:, 0]
        shift, shear = torch.zeros(len(degrees), 2), torch.zeros(len(degrees), 2)
        if self.translate is not None:
            for axis, reach in enumerate((self.translate[0] * shape.width, self.translate[1] * shape.height)):
                shift[:, axis] = draws.uniform(-reach, reach)[:, 0].round()
        scale = torch.ones(len(degrees)) if self.scale is None else draws.uniform(*self.scale)[:, 0]
        for axis in range(len(self.shear or ()) // 2):
            assert self.shear is not None
            shear[:, axis] = draws.uniform(*self.shear[2 * axis : 2 * axis + 2])[:, 0]
        center = from_middle(self.center, shape)
        return {"inverse": inverse_move(degrees, shift=shift, scale=scale, shear=shear, center=center)}

    def apply(self, images: Tensor, params: Params) -> Tensor:
        """Moved pictures."""
        return move(images, params["inverse"], mode=self.interpolation, fill=self.fill)


class RandomRotation(ImageTransform):
    """A random turn about the centre, counter-clockwise."""

    degrees: tuple[float, float]
    interpolation: str
    center: tuple[float, float] | None
    fill: tuple[float, ...]

    def draw(self, draws: Draws, shape: Shape) -> Params:
        """The inverse move (B, 2, 3) in pixels."""
        degrees = draws.uniform(*self.degrees)[:, 0]
        none, center = torch.zeros(len(degrees), 2), from_middle(self.center, shape)
        move_back = inverse_move(-degrees, shift=none, scale=none[:, 0] + 1, shear=none, center=center)
        return {"inverse": move_back}

    def apply(self, images: Tensor, params: Params) -> Tensor:
        """Turned pictures."""
        return move(images, params["inverse"], mode=self.interpolation, fill=self.fill)


# ------------------------------------------------------------------------------------------------------ flips
class RandomHorizontalFlip(Occasional):
    """Left and right exchanged, with probability `p`."""

    def change(self, images: Tensor) -> Tensor:
        """Mirrored pictures."""
        return images.flip(-1)


class RandomVerticalFlip(Occasional):
    """Top and bottom exchanged, with probability `p`."""

    def change(self, images: Tensor) -> Tensor:
        """Pictures upside down."""
        return images.flip(-2)


# ------------------------------------------------------------------------------------------------------ crops
class RandomCrop(ImageTransform):
    """A box of a fixed size at a random place of the picture, which may be padded before."""

    size: tuple[int, int]
    padding: tuple[int, int, int, int]
    pad_if_needed: bool
    fill: tuple[float, ...]
    padding_mode: str

    def draw(self, draws: Draws, shape: Shape) -> Params:
        """The box's first row and column (B, 1), which are negative inside the padding.

        Raises:
            ConfigError: the box is larger than the padded picture.
        """
        left, top, right, bottom = self.padding
        sides = ((shape.height, top, bottom, self.size[0]), (shape.width, left, right, self.size[1]))
        params: Params = {}
        for name, (given, before, after, wanted) in zip(("row", "column"), sides, strict=True):
            lacking = max(0, wanted - given - before - after)
            if lacking and not self.pad_if_needed:
                raise ConfigError(
                    f"RandomCrop: size={list(self.size)} (height, width) does not fit into pictures of "
                    f"{shape.height}x{shape.width}; give a smaller size, padding, or pad_if_needed=true."
                )
            before, room = before + lacking, given + before + after + 2 * lacking - wanted
            draws.at(len(params))
            first = draws.integers(0, room + 1) if room > 0 else torch.zeros(1, dtype=torch.long)
            params[name] = first[:, None] - before
        return params

    def apply(self, images: Tensor, params: Params) -> Tensor:
        """The boxes (B, T, C, h, w)."""
        B, height, width = len(images), *images.shape[-2:]
        rows = (params["row"] + torch.arange(self.size[0])).expand(B, -1)  # (B, h), some outside the picture
        columns = (params["column"] + torch.arange(self.size[1])).expand(B, -1)  # (B, w)
        boxes = pick(images, self._inside(rows, height), self._inside(columns, width))
        is_outside = _outside(rows, height)[:, :, None] | _outside(columns, width)[:, None, :]  # (B, h, w)
        if self.padding_mode != "constant" or not is_outside.any():
            return boxes
        background = torch.tensor(self.fill, device=images.device, dtype=images.dtype).reshape(-1, 1, 1)
        return torch.where(is_outside[:, None, None].to(images.device), background, boxes)

    def _inside(self, places: Tensor, size: int) -> Tensor:
        """Places along one axis, those outside replaced by what the padding repeats."""
        if self.padding_mode == "reflect":
            places = (size - 1) - ((size - 1) - places.abs()).abs()
        return places.clamp(0, size - 1)


def _outside(places: Tensor, size: int) -> Tensor:
    return (places < 0) | (places >= size)


def pick(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The pixels (B, T, C, h, w) at each sample's rows (B, h) and columns (B, w)."""
    rows, columns = rows.to(images.device), columns.to(images.device)
    picked = [
        picture.index_select(-2, own_rows).index_select(-1, own_columns)
        for picture, own_rows, own_columns in zip(images, rows, columns, strict=True)
    ]
    return torch.stack(picked)


class RandomResizedCrop(ImageTransform):
    """A box of random size, shape and place, resized to `size`."""

    size: tuple[int, int]
    scale: tuple[float, float]
    ratio: tuple[float, float]
    interpolation: str
    antialias: bool

    def draw(self, draws: Draws, shape: Shape) -> Params:
        """The box (B, 4): first row, first column, height, width, in pixels."""
        whole = torch.tensor(self._middle(shape))
        box, is_open = None, torch.ones(1, dtype=torch.bool)
        for attempt in range(TRIES):
            draws.at(4 * attempt)
            area = draws.uniform(*self.scale)[:, 0].double() * (shape.height * shape.width)
            aspect = draws.uniform(*map(math.log, self.ratio))[:, 0].exp().double()
            width, height = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
            fits = (width >= 1) & (width <= shape.width) & (height >= 1) & (height <= shape.height)
            is_new = fits & is_open
            box = whole.repeat(len(area), 1) if box is None else box
            if is_new.any():
                height, width = height.clamp(1, shape.height), width.clamp(1, shape.width)
                row = draws.integers(0, shape.height - height.long() + 1)
                column = draws.integers(0, shape.width - width.long() + 1)
                tried = torch.stack([row, column, height.long(), width.long()], dim=1)  # (B, 4)
                box = torch.where(is_new[:, None], tried, box)
            is_open = is_open & ~is_new
            if not is_open.any():
                break
        assert box is not None
        return {"box": box}

    def _middle(self, shape: Shape) -> tuple[int, int, int, int]:
        """The largest box of an allowed shape in the middle, for when no random one fits."""
        height, width = shape.height, shape.width
        if width / height < self.ratio[0]:
            height = min(height, round(width / self.ratio[0]))
        elif width / height > self.ratio[1]:
            width = min(width, round(height * self.ratio[1]))
        return (shape.height - height) // 2, (shape.width - width) // 2, height, width

    def apply(self, images: Tensor, params: Params) -> Tensor:
        """The boxes (B, T, C, h, w), resized; one by one, as they differ in size."""
        is_smooth = self.interpolation == "bilinear"
        how = {"antialias": self.antialias, "align_corners": False} if is_smooth else {}
        resized = []
        for picture, (row, column, height, width) in zip(images, params["box"].tolist(), strict=True):
            box = picture[..., row : row + height, column : column + width]  # (T, C, ., .)
            resized.append(F.interpolate(box, self.size, mode=self.interpolation, **how))
        return torch.stack(resized)
