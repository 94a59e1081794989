"""Normalisation layers that PyTorch does not have."""

import torch
from torch import Tensor, nn


class FrozenBatchNorm2d(nn.Module):
    """Batch normalisation whose scale, shift and statistics are constants: (B, C, H, W) -> (B, C, H, W).

    All four are buffers named as in `nn.BatchNorm2d`, without its counter of batches.

    Args:
        inplace: overwrite the input, for callers that made it and read it nowhere else.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, width: int, eps: float = 1e-5, *, inplace: bool = False) -> None:
        super().__init__()
        self.eps, self.inplace = eps, inplace
        for name, value in {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0}.items():
            self.register_buffer(name, torch.full((width,), value))

    def forward(self, x: Tensor) -> Tensor:
        """`x` scaled and shifted, in the order of operations of published training runs."""
        scale = self.weight * torch.rsqrt(self.running_var + self.eps)  # (C,)
        shift = self.bias - self.running_mean * scale  # (C,)
        scaled = x.mul_(scale[:, None, None]) if self.inplace else x * scale[:, None, None]
        return scaled.add_(shift[:, None, None])
