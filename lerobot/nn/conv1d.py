"""Convolutions over time whose large float32 products on a CPU are those of matrices.

A sequence of a few steps with thousands of channels has far more weights than values. PyTorch brings all
weights of a convolution to another order at each call, which takes longer than multiplying with them; as a
matrix they are read where they are, two to ten times as fast. Where one network is run many times in a row,
`packed` brings them to the order of the processor's kernels once. Sums are in another order than those of
`nn.Conv1d`; small convolutions are left to it.

    x (B, C, T) -> windows (B*T', C*k) x weights (N, C*k)^T -> (B, N, T')       and the reverse, transposed

Shapes: B batch, T steps in, T' steps out, C channels in, N channels out, k kernel.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lerobot.nn.linear import gradient, is_onednn, product

LEAST_WEIGHTS = 2**15  # from here on a product of matrices is faster, whatever the length
LEAST_RUNS = 32  # bringing the weights to another order takes as long as 20 runs save


class Conv1d(nn.Conv1d):
    """`nn.Conv1d`, without dilation and groups: (B, C, T) -> (B, N, T')."""

    packed: Tensor | None = None  # the weights as a matrix, in the order of the processor's kernels

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, T) -> (B, N, T')."""
        if not is_product(x, self.weight):
            return super().forward(x)
        stride, padding = self.stride[0], int(self.padding[0])
        if self.packed is None:
            return _Convolution.apply(x, self.weight, self.bias, stride, padding)
        seen = windows(x, self.kernel_size[0], stride=stride, padding=padding)
        return by_channels(product(seen, self.packed, self.bias), len(x))

    def matrix(self) -> Tensor:
        """The weights (N, C*k)."""
        return self.weight.flatten(1)


class ConvTranspose1d(nn.ConvTranspose1d):
    """`nn.ConvTranspose1d`, without dilation and groups: (B, N, T') -> (B, C, T)."""

    packed: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        """(B, N, T') -> (B, C, T)."""
        if not is_product(x, self.weight):
            return super().forward(x)
        stride, padding = self.stride[0], int(self.padding[0])
        if self.packed is None:
            return _Transposed.apply(x, self.weight, self.bias, stride, padding)
        seen = product(by_steps(x), self.packed)  # (B*T', C*k)
        made = spread(seen, len(x), self.kernel_size[0], stride=stride, padding=padding)
        return made + self.bias[:, None]

    def matrix(self) -> Tensor:
        """The weights (C*k, N)."""
        return self.weight.flatten(1).t()


def is_product(x: Tensor, weight: Tensor) -> bool:
    """Whether matrices are multiplied: many weights, and a CPU and numbers that oneDNN has kernels for."""
    return weight.numel() >= LEAST_WEIGHTS and is_onednn(x, weight)


@contextmanager
def packed(net: nn.Module, *, num_runs: int, num_rows: int) -> Iterator[None]:
    """Inside, large convolutions of the net keep their weights ready, if it runs so often that this pays.

    They take as much memory again. Gradients switch it off. Weights that change meanwhile are not seen.

    Args:
        num_runs: how often the net will run.
        num_rows: B*T of the sequences to come, roughly.
    """
    pays = num_runs >= LEAST_RUNS and not torch.is_grad_enabled()
    layers = [layer for layer in net.modules() if isinstance(layer, (Conv1d, ConvTranspose1d)) and pays]
    try:
        for layer in layers:
            if is_product(layer.weight, layer.weight):
                layer.packed = torch.ops.mkldnn._reorder_linear_weight(layer.matrix().contiguous(), num_rows)
        yield
    finally:
        for layer in layers:
            layer.packed = None


class _Convolution(torch.autograd.Function):
    """The convolution and its three gradients; windows are cut out again rather than kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.how = {"stride": stride, "padding": padding}
        seen = windows(x, weight.shape[2], **ctx.how)
        return by_channels(product(seen, weight.flatten(1), bias), len(x))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        rows = by_steps(grad)  # (B*T', N)
        of_x = of_weight = None
        if ctx.needs_input_grad[0]:
            of_windows = product(rows, weight.flatten(1).t())  # (B*T', C*k)
            of_x = spread(of_windows, len(x), weight.shape[2], length=x.shape[2], **ctx.how)
        if ctx.needs_input_grad[1]:
            of_weight = gradient(rows, windows(x, weight.shape[2], **ctx.how)).view_as(weight)
        return of_x, of_weight, rows.sum(0) if ctx.needs_input_grad[2] else None, None, None


class _Transposed(torch.autograd.Function):
    """The transposed convolution and its three gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.how = {"stride": stride, "padding": padding}
        seen = product(by_steps(x), weight.flatten(1).t())  # (B*T', C*k)
        return spread(seen, len(x), weight.shape[2], **ctx.how) + bias[:, None]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        seen = windows(grad, weight.shape[2], **ctx.how)  # (B*T', C*k)
        of_x = by_channels(product(seen, weight.flatten(1)), len(x)) if ctx.needs_input_grad[0] else None
        of_weight = gradient(by_steps(x), seen).view_as(weight) if ctx.needs_input_grad[1] else None
        return of_x, of_weight, grad.sum((0, 2)) if ctx.needs_input_grad[2] else None, None, None


def windows(x: Tensor, kernel: int, *, stride: int, padding: int) -> Tensor:
    """What each step out sees, (B*T', C*k), of x (B, C, T) with zeros around."""
    if kernel > 1:
        x = F.pad(x, (padding, padding)).unfold(2, kernel, stride)  # (B, C, T', k)
        return x.transpose(1, 2).flatten(2).flatten(0, 1)
    return by_steps(x)


def spread(
    seen: Tensor, num_batch: int, kernel: int, *, stride: int, padding: int, length: int | None = None
) -> Tensor:
    """The reverse of `windows`, (B, C, T): each step the sum of what is said of it in (B*T', C*k)."""
    if kernel == 1:
        return by_channels(seen, num_batch)
    seen = seen.unflatten(0, (num_batch, -1)).unflatten(2, (-1, kernel))  # (B, T', C, k)
    num_out = seen.shape[1]
    length = (num_out - 1) * stride + kernel - 2 * padding if length is None else length
    whole = seen.new_zeros(num_batch, seen.shape[2], length + 2 * padding)
    for place in range(kernel):
        whole[..., place : place + stride * (num_out - 1) + 1 : stride] += seen[..., place].transpose(1, 2)
    return whole[..., padding : padding + length]


def by_steps(x: Tensor) -> Tensor:
    """(B, C, T) -> (B*T, C)."""
    return x.transpose(1, 2).flatten(0, 1)


def by_channels(rows: Tensor, num_batch: int) -> Tensor:
    """(B*T, C) -> (B, C, T)."""
    return rows.unflatten(0, (num_batch, -1)).transpose(1, 2)
