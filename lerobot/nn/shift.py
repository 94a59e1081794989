"""Random shifts of pictures by whole pixels: borders are repeated, so that sizes stay.

Paper: Kostrikov et al. 2020, "Image Augmentation Is All You Need", arXiv:2004.13649.

Shapes: B pictures, C H W picture.
"""

import torch
from torch import Tensor


def randomly_shifted(pictures: Tensor, *, reach: int) -> Tensor:
    """The pictures (B, C, H, W), each moved by its own number of pixels, up to `reach`, along both axes."""
    # drawn in this shape and type by the published implementation: the same seed gives the same shifts
    drawn = torch.randint(
        0, 2 * reach + 1, (len(pictures), 1, 1, 2), device=pictures.device, dtype=torch.float32
    )
    across, down = (drawn.flatten(1) - reach).long().unbind(1)  # (B,) each
    return shifted(pictures, down=down, across=across)


def shifted(pictures: Tensor, *, down: Tensor, across: Tensor) -> Tensor:
    """Pictures (B, C, H, W) that begin (B,) pixels further down and across, borders repeated."""
    height, width = pictures.shape[-2:]
    rows = (torch.arange(height, device=down.device) + down[:, None]).clamp(0, height - 1)  # (B, H)
    columns = (torch.arange(width, device=across.device) + across[:, None]).clamp(0, width - 1)  # (B, W)
    pixels = (rows[:, :, None] * width + columns[:, None, :]).flatten(1)  # (B, H*W)
    flat = pictures.flatten(2)  # (B, C, H*W)
    return flat.gather(2, pixels[:, None].expand_as(flat)).view_as(pictures)
