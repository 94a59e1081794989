"""Linear layers whose large float32 products use the CPU's widest vector units.

PyTorch multiplies float32 matrices with MKL, which leaves AVX-512 alone on processors of other makers than
its own; oneDNN, which PyTorch uses for convolutions, does not: twice the speed there, the same products in
another order of sums. Small products stay with `F.linear`: there is little to win, and recorded runs repeat
bit for bit.

    x (..., K), weight (N, K), bias (N,) -> (..., N)
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

LEAST_MULTIPLICATIONS = 2**23  # from here on oneDNN's start costs nothing
LEAST_WITHOUT_GRADIENT = 2**21  # from here on it costs less than it saves; no recorded run is at stake
HAS_WIDE_KERNELS = (
    torch.backends.mkldnn.is_available()
    and torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
)


class Linear(nn.Linear):
    """`nn.Linear` by way of `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., K) -> (..., N)."""
        return linear(x, self.weight, self.bias)


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x weight^T + bias, (..., N), by the faster of two libraries."""
    if is_wide(x, weight):
        return _WideLinear.apply(x, weight, bias)
    return F.linear(x, weight, bias)


def is_wide(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN multiplies these: large, and `is_onednn`."""
    least = LEAST_MULTIPLICATIONS if torch.is_grad_enabled() else LEAST_WITHOUT_GRADIENT
    return x.numel() * weight.shape[0] >= least and is_onednn(x, weight)


def is_onednn(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN could: float32, on a CPU with AVX-512; not in compiled code."""
    return (
        HAS_WIDE_KERNELS
        and not torch.compiler.is_compiling()
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
    )


def is_large(x: Tensor, width: int) -> bool:
    """Whether a linear layer of that width has so much to do that another order of sums is worth it."""
    return x.numel() * width >= LEAST_MULTIPLICATIONS


class _WideLinear(torch.autograd.Function):
    """The product and its three gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        rows = grad.flatten(0, -2)  # (S, N)
        of_x = product(grad, weight.t()) if needs_x else None
        of_weight = gradient(rows, x.flatten(0, -2)) if needs_weight else None  # (N, K)
        return of_x, of_weight, rows.sum(0) if needs_bias else None


def gradient(rows: Tensor, x: Tensor) -> Tensor:
    """rows^T x, (N, K), of (S, N) and (S, K); the smaller one of the two is what gets copied to be turned."""
    if rows.shape[1] > x.shape[1]:
        return product(x.t(), rows.t()).t().contiguous()
    return product(rows.t(), x.t())


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x weight^T + bias with oneDNN; knows no gradients."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
