"""Fixed sinusoidal positions: where a token or a pixel is.

Papers: Vaswani et al. 2017, "Attention Is All You Need"; Carion et al. 2020 (DETR) for the plane.
"""

import math

import torch
from torch import Tensor

TEMPERATURE = 10000.0


def sinusoid_table(num_positions: int, width: int) -> Tensor:
    """Positions 0, 1, ... as rows (S, D); even columns sines, odd ones cosines, computed in float64."""
    positions = torch.arange(num_positions, dtype=torch.float64)
    return interleave(positions[:, None] / frequencies(width, dtype=torch.float64)).float()


def sinusoid_plane(height: int, width: int, *, channels: int, device: torch.device | None = None) -> Tensor:
    """Position of each cell of a feature map (channels, H, W): half of the channels from y, half from x.

    Rows and columns count from 1 and are scaled to end at 2*pi.
    """
    rates = frequencies(channels // 2, device=device)
    rows, columns = (
        torch.arange(1, size + 1, dtype=torch.float32, device=device) / (size + 1e-6) * (2 * math.pi)
        for size in (height, width)
    )
    of_row = interleave(rows[:, None] / rates)  # (H, D/2)
    of_column = interleave(columns[:, None] / rates)  # (W, D/2)
    plane = torch.cat(
        [of_row[:, None].expand(-1, width, -1), of_column[None].expand(height, -1, -1)], dim=-1
    )  # (H, W, D)
    return plane.permute(2, 0, 1).contiguous()  # (D, H, W)


def frequencies(
    width: int, *, dtype: torch.dtype = torch.float32, device: torch.device | None = None
) -> Tensor:
    """Divisors 10000^(2 floor(j/2) / width) of the columns j = 0 ... width-1."""
    columns = torch.arange(width, dtype=dtype, device=device)
    return TEMPERATURE ** (2 * torch.div(columns, 2, rounding_mode="floor") / width)


def interleave(angles: Tensor) -> Tensor:
    """Sine of the even columns, cosine of the odd ones: (..., D) -> (..., D)."""
    is_even = torch.arange(angles.shape[-1], device=angles.device) % 2 == 0
    return torch.where(is_even, angles.sin(), angles.cos())
