"""Normalisation layers that PyTorch does not have."""

import torch
import torch.nn.functional as F
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
        """One fused pass over `x`."""
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
        )

    def after(self, conv: nn.Conv2d, x: Tensor) -> Tensor:
        """`self(conv(x))`; where the feature map is larger than the kernel, the scale goes into the kernel instead.

        Convolution is linear, so both orders give the same numbers up to rounding, and gradients reach the kernel
        through its scaled copy.
        """
        height, width = (math_ceil_div(side, stride) for side, stride in zip(x.shape[-2:], conv.stride, strict=True))
        if x.shape[0] * conv.out_channels * height * width < conv.weight.numel():
            return self(conv(x))
        scale = self.weight * torch.rsqrt(self.running_var + self.eps)               # (C,)
        shift = self.bias - self.running_mean * scale                                # (C,)
        kernel = conv.weight * scale[:, None, None, None]
        return F.conv2d(x, kernel, shift, conv.stride, conv.padding, conv.dilation, conv.groups)


def math_ceil_div(size: int, step: int) -> int:
    """`size / step`, rounded up."""
    return -(-size // step)
