"""A U-Net over time: a sequence in, one of its length out, steered by a condition.

Papers: Janner et al. 2022, "Planning with Diffusion for Flexible Behavior Synthesis", arXiv:2205.09991 (the
U-Net); Perez et al. 2018, "FiLM: Visual Reasoning with a General Conditioning Layer", arXiv:1709.07871.

    x (B, T, A) -> down: [two blocks, keep a copy, halve T] x stages (the last one does not halve)
                -> middle: two blocks
                -> up: [beside the copy: two blocks, double T] x (stages - 1) -> (B, T, A)
    step code and condition -> Mish -> a linear layer per block -> scales and shifts of its channels (FiLM)

Shapes: B batch, T time, A size of x, E width of a step's code, G size of the condition, W width of a block,
n denoising steps.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lerobot.nn.conv1d import Conv1d, ConvTranspose1d

FINAL_GROUPS = 8  # of the last norm, whatever the others have: so it was published


class UNet1d(nn.Module):
    """Sequences (B, T, A) and modulations of every block -> (B, T, A); T a multiple of 2^(stages-1).

    Set `grad_checkpointing` to recompute each block in the backward pass instead of keeping its activations.

    Args:
        size: A.
        condition_size: G.
        widths: of the stages.
        code_size: E, even.
        has_scale: whether the condition scales channels, besides shifting them.
    """

    grad_checkpointing: bool = False

    def __init__(
        self,
        size: int,
        *,
        condition_size: int,
        widths: Sequence[int],
        kernel_size: int = 5,
        num_groups: int = 8,
        code_size: int = 128,
        has_scale: bool = True,
    ) -> None:
        super().__init__()

        def block(width_in: int, width: int) -> FilmBlock:
            return FilmBlock(
                width_in,
                width,
                condition_size=code_size + condition_size,
                kernel_size=kernel_size,
                num_groups=num_groups,
                has_scale=has_scale,
            )

        self.code_size = code_size
        self.diffusion_step_encoder = nn.Sequential(
            StepCode(code_size),
            nn.Linear(code_size, 4 * code_size),
            nn.Mish(),
            nn.Linear(4 * code_size, code_size),
        )
        pairs = list(zip([size, *widths[:-1]], widths, strict=True))
        self.down_modules = nn.ModuleList(
            nn.ModuleList([block(a, b), block(b, b), halving(b) if b_is_inner else nn.Identity()])
            for (a, b), b_is_inner in zip(pairs, [True] * (len(pairs) - 1) + [False], strict=True)
        )
        self.mid_modules = nn.ModuleList([block(widths[-1], widths[-1]), block(widths[-1], widths[-1])])
        self.up_modules = nn.ModuleList(
            nn.ModuleList([block(2 * b, a), block(a, a), doubling(a)]) for a, b in reversed(pairs[1:])
        )
        self.final_conv = nn.Sequential(
            ConvBlock(widths[0], widths[0], kernel_size=kernel_size, num_groups=FINAL_GROUPS),
            Conv1d(widths[0], size, 1),
        )

    @property
    def blocks(self) -> list["FilmBlock"]:
        """The blocks that are modulated, in the order of use."""
        return [block for block in self.modules() if isinstance(block, FilmBlock)]

    def modulations(self, levels: Tensor, condition: Tensor) -> list[Tensor]:
        """What steers each block, (B, W) or (B, 2W), at noise levels (B,) and under conditions (B, G)."""
        code = F.mish(torch.cat([self.diffusion_step_encoder(levels), condition], dim=-1))  # (B, E+G)
        return [block.cond_encoder[1](code) for block in self.blocks]

    def modulation_tables(self, levels: Tensor, condition: Tensor) -> list[tuple[Tensor, Tensor]]:
        """`modulations` in two terms: of each of the levels (n,), (n, ...), and of the condition, (B, ...).

        The linear layers of all denoising steps are computed at once, those of the condition only once.
        """
        code, condition = F.mish(self.diffusion_step_encoder(levels)), F.mish(condition)  # (n, E), (B, G)
        tables = []
        for block in self.blocks:
            of_code, of_condition = block.cond_encoder[1].weight.split(
                [self.code_size, condition.shape[1]], 1
            )
            bias = block.cond_encoder[1].bias
            tables.append((F.linear(code, of_code), F.linear(condition, of_condition, bias)))
        return tables

    def forward(self, x: Tensor, modulations: Sequence[Tensor]) -> Tensor:
        """(B, T, A) -> (B, T, A)."""
        x, steering = x.transpose(1, 2), iter(modulations)  # (B, A, T)
        copies = []
        for first, second, halve in self.down_modules:  # type: ignore[misc]
            x = self._run(first, x, next(steering))
            x = self._run(second, x, next(steering))
            copies.append(x)
            x = halve(x)  # (B, W, T/2)
        for block in self.mid_modules:
            x = self._run(block, x, next(steering))
        for first, second, double in self.up_modules:  # type: ignore[misc]
            x = torch.cat([x, copies.pop()], dim=1)  # (B, 2W, T)
            x = self._run(first, x, next(steering))
            x = self._run(second, x, next(steering))
            x = double(x)  # (B, W, 2T)
        return self.final_conv(x).transpose(1, 2)  # (B, T, A)

    def _run(self, block: nn.Module, x: Tensor, modulation: Tensor) -> Tensor:
        if self.grad_checkpointing and self.training:
            return checkpoint(block, x, modulation, use_reentrant=False)
        return block(x, modulation)


class FilmBlock(nn.Module):
    """Two convolutions over time, scaled and shifted in between, and a shortcut: (B, Win, T) -> (B, W, T)."""

    def __init__(
        self,
        width_in: int,
        width: int,
        *,
        condition_size: int,
        kernel_size: int,
        num_groups: int,
        has_scale: bool,
    ) -> None:
        super().__init__()
        self.has_scale = has_scale
        self.conv1 = ConvBlock(width_in, width, kernel_size=kernel_size, num_groups=num_groups)
        self.cond_encoder = nn.Sequential(nn.Mish(), nn.Linear(condition_size, (1 + has_scale) * width))
        self.conv2 = ConvBlock(width, width, kernel_size=kernel_size, num_groups=num_groups)
        self.residual_conv = Conv1d(width_in, width, 1) if width_in != width else nn.Identity()

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        """`modulation` is what `cond_encoder` makes of the condition: shifts (B, W), or scales and shifts."""
        y = self.conv1(x)  # (B, W, T)
        if self.has_scale:
            scale, shift = modulation[..., None].chunk(2, dim=1)  # (B, W, 1) each
            y = torch.addcmul(shift, scale, y)
        else:
            y = y + modulation[..., None]
        return self.conv2(y) + self.residual_conv(x)


class ConvBlock(nn.Module):
    """A convolution over time, group norm, Mish: (B, Win, T) -> (B, W, T)."""

    def __init__(self, width_in: int, width: int, *, kernel_size: int, num_groups: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            Conv1d(width_in, width, kernel_size, padding=kernel_size // 2),
            nn.GroupNorm(num_groups, width),
            nn.Mish(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, Win, T) -> (B, W, T)."""
        return self.block(x)


class StepCode(nn.Module):
    """Sines and cosines (B, E) of noise levels (B,), of wavelengths from 1 to 10000 times 2 pi."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, levels: Tensor) -> Tensor:
        """(B,) -> (B, E)."""
        half = self.size // 2
        rates = torch.exp(
            torch.arange(half, device=levels.device) * (-math.log(10000) / (half - 1))
        )  # (E/2,)
        angles = levels[:, None] * rates  # (B, E/2)
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


def halving(width: int) -> nn.Module:
    """(B, W, T) -> (B, W, T/2)."""
    return Conv1d(width, width, 3, stride=2, padding=1)


def doubling(width: int) -> nn.Module:
    """(B, W, T) -> (B, W, 2T)."""
    return ConvTranspose1d(width, width, 4, stride=2, padding=1)
