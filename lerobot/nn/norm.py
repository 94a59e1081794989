"""Normalisation layers that PyTorch does not have."""

import torch
from torch import Tensor, nn


class FrozenBatchNorm2d(nn.Module):
    """Batch normalisation whose scale, shift and statistics are constants: (B, C, H, W) -> (B, C, H, W).

    All four are buffers named as in `nn.BatchNorm2d`, without its counter of batches.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        for name, value in {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0}.items():
            self.register_buffer(name, torch.full((width,), value))

    def forward(self, x: Tensor) -> Tensor:
        """`x` scaled and shifted, in the order of operations of published training runs."""
        scale = self.weight * torch.rsqrt(self.running_var + self.eps)  # (C,)
        shift = self.bias - self.running_mean * scale  # (C,)
        return (x * scale[:, None, None]).add_(shift[:, None, None])
