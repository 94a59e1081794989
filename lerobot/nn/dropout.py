"""Dropout whose random numbers are drawn sixteen bits at a time where there are many on a CPU.

PyTorch draws 64 bits there for every value, one after the other, unless the processor is Intel's; that was a
sixth of a training step. A quarter of the draws decide the same with the rate rounded to 1/65536, and what is
kept is scaled by the rounded rate, so that the mean stays exact. Few values are dropped as PyTorch does it.

Paper: Srivastava et al. 2014, "Dropout: A Simple Way to Prevent Neural Networks from Overfitting".
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEAST_VALUES = 2**16
LEVELS = 2**16


class Dropout(nn.Dropout):
    """`nn.Dropout` by way of `dropout`."""

    def forward(self, x: Tensor) -> Tensor:
        """A tensor of any shape, of the same shape."""
        return dropout(x, self.p) if self.training else x


def dropout(x: Tensor, rate: float) -> Tensor:
    """The values, each 0 with probability `rate`, the others scaled so that the mean stays."""
    is_quick = x.device.type == "cpu" and x.numel() >= LEAST_VALUES and not torch.compiler.is_compiling()
    if rate in (0.0, 1.0) or not is_quick:
        return F.dropout(x, rate)
    num_dropped = round(rate * LEVELS)  # of all levels
    draws = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    levels = draws.view(torch.int16)[: x.numel()].view(x.shape)  # from -2**15
    kept = levels >= num_dropped - LEVELS // 2
    return x * (kept * (LEVELS / (LEVELS - num_dropped))).to(x.dtype)
