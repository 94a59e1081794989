"""Activations whose exact functions are slow on a CPU, computed there from a sigmoid, which is fast.

The results differ from PyTorch's by rounding, less than 1e-6 for inputs of a usual size. Where gradients are
wanted, and on other devices, they are PyTorch's.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Tanh(nn.Module):
    """tanh x = 2 sigmoid(2 x) - 1, any shape."""

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        if not is_only_read(x):
            return torch.tanh(x)
        return torch.sigmoid(2 * x).mul_(2).sub_(1)


class Mish(nn.Module):
    """x tanh(softplus x) = x (2 / (1 + s²) - 1) with s = sigmoid(-x), any shape.

    Paper: Misra 2019, "Mish: A Self Regularized Non-Monotonic Activation Function", arXiv:1908.08681.
    """

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        if not is_only_read(x):
            return F.mish(x)
        s = torch.sigmoid(-x)
        return torch.div(x, torch.addcmul(s.new_ones(()), s, s)).mul_(2).sub_(x)


def is_only_read(x: Tensor) -> bool:
    """Whether it is on the CPU, computed as it stands, and nothing is going to be differentiated."""
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
    )
