"""Transforms that change colours and leave every pixel in its place.

Formulas: torchvision's colour jitter on float pictures; gamma with a logarithmic draw; the colour of a black
body at some temperature (Zini et al. 2022, "Planckian Jitter", table of coefficients).

Shapes: B samples, T pictures of each, C H W picture.
"""

import math

import torch
from torch import Tensor

from lerobot.datasets.transforms.draws import Draws
from lerobot.datasets.transforms.transform import ImageTransform, Params, Shape, in_order, only, spread

GREY = (0.2989, 0.587, 0.114)  # shares of red, green, blue in luma (ITU-R BT.601, as torchvision rounds them)

# Red, green, blue of a black body from 3000 K in steps of 500 K (Zini et al. 2022).
BLACK_BODY_FIRST, BLACK_BODY_STEP = 3000, 500
BLACK_BODY = (
    (0.6743, 0.4029, 0.0013), (0.6281, 0.4241, 0.1665), (0.5919, 0.4372, 0.2513), (0.5623, 0.4457, 0.3154),
    (0.5376, 0.4515, 0.3672), (0.5163, 0.4555, 0.4103), (0.4979, 0.4584, 0.4468), (0.4816, 0.4604, 0.4782),
    (0.4672, 0.4619, 0.5053), (0.4542, 0.4630, 0.5289), (0.4426, 0.4638, 0.5497), (0.4320, 0.4644, 0.5681),
    (0.4223, 0.4648, 0.5844), (0.4135, 0.4651, 0.5990), (0.4054, 0.4653, 0.6121), (0.3980, 0.4654, 0.6239),
    (0.3911, 0.4655, 0.6346), (0.3847, 0.4656, 0.6444), (0.3787, 0.4656, 0.6532), (0.3732, 0.4656, 0.6613),
    (0.3680, 0.4655, 0.6688), (0.3632, 0.4655, 0.6756), (0.3586, 0.4655, 0.6820), (0.3544, 0.4654, 0.6878),
    (0.3503, 0.4653, 0.6933),
)  # fmt: skip


# ----------------------------------------------------------------------------------------------------- pixels
def luma(images: Tensor) -> Tensor:
    """Brightness (..., 1, H, W) of pictures; those with one channel are their own."""
    if images.shape[-3] == 1:
        return images
    red, green, blue = images.unbind(-3)
    return (red * GREY[0]).add_(green, alpha=GREY[1]).add_(blue, alpha=GREY[2]).unsqueeze(-3)


def brighten(images: Tensor, factor: Tensor) -> Tensor:
    """Every value times its sample's factor."""
    return (images * factor).clamp_(0, 1)


def set_apart(images: Tensor, factor: Tensor) -> Tensor:
    """Distances from each picture's mean brightness, times the factor."""
    means = images.mean(dim=(-2, -1), keepdim=True)  # (B, T, C, 1, 1); luma is linear, so means do
    return blend(images, luma(means), factor)


def saturate(images: Tensor, factor: Tensor) -> Tensor:
    """Distances from each pixel's grey, times the factor."""
    return images if images.shape[-3] == 1 else blend(images, luma(images), factor)


def blend(images: Tensor, other: Tensor, share: Tensor) -> Tensor:
    """`share` of the images and the rest of `other`; shares above 1 go beyond the images."""
    return (images * share).add_(other * (1 - share)).clamp_(0, 1)


def turn_hue(images: Tensor, turns: Tensor) -> Tensor:
    """Hues moved on by parts of the colour wheel; value and saturation stay.

    With chroma C = max - min and hue h in sixths of the wheel, red is min + C clamp(|h - 3| - 1, 0, 1); green
    and blue are min + C clamp(2 - |h - 2|, 0, 1) and min + C clamp(2 - |h - 4|, 0, 1).
    """
    if images.shape[-3] == 1:
        return images
    red, green, blue = images.unbind(-3)  # (B, T, H, W)
    top = torch.maximum(torch.maximum(red, green), blue)
    low = torch.minimum(torch.minimum(red, green), blue)
    chroma = top - low
    # Choosing by a mask of 0 and 1 is exact, and an order of magnitude faster on a CPU than torch.where.
    mask = torch.empty_like(top)
    hue = (red - green).add_(chroma, alpha=4)
    hue.lerp_((blue - red).add_(chroma, alpha=2), torch.eq(green, top, out=mask))
    hue.lerp_(green - blue, torch.eq(red, top, out=mask))
    hue.div_(chroma.clamp(min=1e-12))  # grey has hue 0
    hue.add_(6 * turns[:, :, 0])
    hue.sub_((hue * (1 / 6)).floor_(), alpha=6)  # into [0, 6)
    changed = torch.empty_like(images)
    above = top + chroma
    curves = ((3, 1, low - chroma), (2, -1, above), (4, -1, above))
    for channel, (middle, sign, base) in enumerate(curves):
        ramp = (hue - middle).abs_().clamp_(1, 2)
        torch.addcmul(base, chroma, ramp, value=sign, out=changed[:, :, channel])
    return changed


JITTERS = {"brightness": brighten, "contrast": set_apart, "saturation": saturate, "hue": turn_hue}


# ------------------------------------------------------------------------------------------------- transforms
class ColorJitter(ImageTransform):
    """Brightness, contrast, saturation and hue changed by random amounts, in random order."""

    brightness: tuple[float, float] | None
    contrast: tuple[float, float] | None
    saturation: tuple[float, float] | None
    hue: tuple[float, float] | None

    def draw(self, draws: Draws, shape: Shape) -> Params:
        """The order (B, 4) of the four, and how much (B, 1) of each that is wanted."""
        params = {"order": draws.order(4)}
        for name in JITTERS:
            if (span := self.arguments[name]) is not None:
                params[name] = draws.uniform(*span)
        return params

    def apply(self, images: Tensor, params: Params) -> Tensor:
        """Pictures with other colours."""
        wanted = [(k, name, change) for k, (name, change) in enumerate(JITTERS.items()) if name in params]
        if len(wanted) == 1:
            _, name, change = wanted[0]
            return change(images, spread(params[name], images))
        steps = {
            k: lambda part, rows, name=name, change=change: change(part, spread(params[name][rows], part))
            for k, name, change in wanted
        }
        return in_order(images.clone(), params["order"], steps)


class GammaCorrection(ImageTransform):
    """Every value to the power of a random exponent, drawn evenly on a logarithmic scale."""

    gamma: tuple[float, float]

    def draw(self, draws: Draws, shape: Shape) -> Params:
        """The exponent's logarithm (B, 1)."""
        low, high = self.gamma
        return {"log_gamma": draws.uniform(math.log(low), math.log(high))}

    def apply(self, images: Tensor, params: Params) -> Tensor:
        """Pictures with darker or lighter middle tones."""
        return images.clamp(0, 1).pow_(spread(params["log_gamma"].exp(), images))


class PlanckianJitter(ImageTransform):
    """The colour of the light at a random temperature, in kelvin; green stays."""

    temperature: tuple[int, int]

    def draw(self, draws: Draws, shape: Shape) -> Params:
        """The temperature (B,) in K."""
        low, high = self.temperature
        return {"kelvin": draws.integers(low, high + 1)}

    def apply(self, images: Tensor, params: Params) -> Tensor:
        """Pictures under warmer or colder light; those with one channel stay."""
        if images.shape[2] == 1:
            return images
        table = torch.tensor(BLACK_BODY, dtype=torch.float64)
        place = (params["kelvin"].double() - BLACK_BODY_FIRST) / BLACK_BODY_STEP
        below = place.floor().long().clamp(0, len(table) - 2)
        light = torch.lerp(table[below], table[below + 1], (place - below)[:, None])  # (B, 3)
        return (images * spread(light / light[:, 1:2], images)).clamp_(0, 1)


class Grayscale(ImageTransform):
    """Always grey, with one or three channels."""

    num_output_channels: int

    def apply(self, images: Tensor, params: Params) -> Tensor:
        """Pictures (B, T, num_output_channels, H, W)."""
        return luma(images).expand(-1, -1, self.num_output_channels, -1, -1).contiguous()


class Occasional(ImageTransform):
    """A change made with probability `p`."""

    p: float

    def draw(self, draws: Draws, shape: Shape) -> Params:
        """Whether each sample is changed (B,)."""
        return {"is_changed": draws.unit(1)[:, 0] < self.p}

    def apply(self, images: Tensor, params: Params) -> Tensor:
        """The pictures, some of them changed."""
        return only(images, params["is_changed"], self.change)

    def change(self, images: Tensor) -> Tensor:
        """The changed pictures."""
        raise NotImplementedError


class RandomGrayscale(Occasional):
    """Grey pictures of as many channels as before, with probability `p`."""

    def change(self, images: Tensor) -> Tensor:
        """Grey pictures."""
        return luma(images).expand_as(images)


class RandomInvert(Occasional):
    """The negative, with probability `p`."""

    def change(self, images: Tensor) -> Tensor:
        """Negatives."""
        return 1 - images


class RandomSolarize(Occasional):
    """Values from `threshold` on inverted, with probability `p`."""

    threshold: float

    def change(self, images: Tensor) -> Tensor:
        """Pictures with inverted bright parts."""
        return torch.where(images >= self.threshold, 1 - images, images)


class RandomPosterize(Occasional):
    """Only `bits` bits of each value, with probability `p`."""

    bits: int

    def change(self, images: Tensor) -> Tensor:
        """Pictures of few tones."""
        levels = 2**self.bits
        return (images * levels).floor_().clamp_(0, levels - 1).div_(levels)


class RandomAutocontrast(Occasional):
    """Each channel stretched to 0..1, with probability `p`."""

    def change(self, images: Tensor) -> Tensor:
        """Pictures that use the whole range; a channel of one value stays."""
        low, high = images.amin(dim=(-2, -1), keepdim=True), images.amax(dim=(-2, -1), keepdim=True)
        is_flat = low == high
        span = torch.where(is_flat, 1.0, high - low)
        return (images - torch.where(is_flat, 0.0, low)).div_(span).clamp_(0, 1)
