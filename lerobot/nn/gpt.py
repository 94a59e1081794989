"""A GPT over vectors: causal self-attention, norms before each sub-layer, learned positions.

Paper: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners" (GPT-2). Parameter names are
those of published VQ-BeT files.

    x (B, S, D_in) -> wte + wpe -> layers of x + attn(ln_1 x), x + mlp(ln_2 x) -> ln_f -> lm_head

Shapes: B batch, S tokens, D model width, h heads, d width per head, Q tokens that are asked for.
"""

from typing import cast

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lerobot.core.errors import ConfigError
from lerobot.nn.attention import attend
from lerobot.nn.dropout import Dropout
from lerobot.nn.linear import Linear

INIT_STD = 0.02  # of all weights at the start


class GPT(nn.Module):
    """Vectors (B, S, width_in) -> (B, S, width_out), each made of its own token and those before it.

    Set `grad_checkpointing` to recompute each block in the backward pass instead of keeping its activations.

    Args:
        num_positions: the most tokens there can be.

    Raises:
        ConfigError: the width is not a multiple of the number of heads.
    """

    grad_checkpointing: bool = False

    def __init__(
        self,
        *,
        num_layers: int,
        num_heads: int,
        width: int,
        width_in: int,
        width_out: int,
        num_positions: int,
        dropout: float,
    ) -> None:
        super().__init__()
        blocks = [
            Block(width, num_heads, num_positions=num_positions, dropout=dropout) for _ in range(num_layers)
        ]
        self.transformer = nn.ModuleDict(
            {
                "wte": Linear(width_in, width),
                "wpe": nn.Embedding(num_positions, width),
                "drop": Dropout(dropout),
                "h": nn.ModuleList(blocks),
                "ln_f": nn.LayerNorm(width),
            }
        )
        self.lm_head = Linear(width, width_out, bias=False)
        self._initialise(num_layers)

    def _initialise(self, num_layers: int) -> None:
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                # what is added to the residual stream once per sub-layer starts smaller
                depth = (2 * num_layers) ** 0.5 if name.endswith("c_proj.weight") else 1.0
                nn.init.normal_(parameter, std=INIT_STD / depth)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    @property
    def blocks(self) -> list["Block"]:
        """The layers, first to last."""
        return list(cast(nn.ModuleList, self.transformer["h"]))  # type: ignore[arg-type]

    def forward(self, x: Tensor, at: Tensor | None = None) -> Tensor:
        """(B, S, width_in) -> (B, S, width_out), or (B, Q, width_out) of the tokens (Q,) that `at` names."""
        parts, num_tokens = self.transformer, x.shape[1]
        positions = parts.get_parameter("wpe.weight")[:num_tokens]  # (S, D)
        x = parts["drop"](parts["wte"](x) + positions)  # (B, S, D)
        is_seen = self.blocks[0].attn.bias[:, :, :num_tokens, :num_tokens] > 0  # (1, 1, S, S)
        for block in self.blocks:
            chosen = at if block is self.blocks[-1] else None  # the others' outputs are read by later layers
            if self.grad_checkpointing and self.training:
                x = checkpoint(block, x, is_seen, chosen, use_reentrant=False)
            else:
                x = block(x, is_seen, chosen)
        return self.lm_head(parts["ln_f"](x))


class Block(nn.Module):
    """Causal attention, then a feed-forward net, each on normed tokens and added to them."""

    def __init__(self, width: int, num_heads: int, *, num_positions: int, dropout: float) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = CausalAttention(width, num_heads, num_positions=num_positions, dropout=dropout)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            Linear(width, 4 * width), nn.GELU(), Linear(4 * width, width), Dropout(dropout)
        )

    def forward(self, x: Tensor, is_seen: Tensor, at: Tensor | None = None) -> Tensor:
        """(B, S, D) -> (B, S, D), or (B, Q, D) of the tokens `at` (Q,)."""
        found = self.attn(self.ln_1(x), is_seen, at)
        x = found + (x if at is None else x[:, at])
        return x + self.mlp(self.ln_2(x))


class CausalAttention(nn.Module):
    """Self-attention over a token and those before it, with one matrix for query, key and value."""

    bias: Tensor  # (1, 1, P, P), 1 where a token is seen and 0 elsewhere: part of published files

    def __init__(self, width: int, num_heads: int, *, num_positions: int, dropout: float) -> None:
        super().__init__()
        if width % num_heads:
            raise ConfigError(f"The model width {width} cannot be split into {num_heads} equal heads.")
        self.num_heads, self.dropout = num_heads, dropout
        self.c_attn = Linear(width, 3 * width)
        self.c_proj = Linear(width, width)
        self.resid_dropout = Dropout(dropout)
        self.register_buffer("bias", torch.ones(num_positions, num_positions).tril()[None, None])

    def forward(self, x: Tensor, is_seen: Tensor, at: Tensor | None = None) -> Tensor:
        """(B, S, D) -> (B, S, D), or (B, Q, D); `is_seen` is (1, 1, S, S)."""
        q, k, v = self.c_attn(x).chunk(3, dim=-1)  # (B, S, D) each
        if at is not None:
            q, is_seen = q[:, at], is_seen[:, :, at]  # (B, Q, D), (1, 1, Q, S)
        q, k, v = (rearrange(y, "b s (h d) -> b h s d", h=self.num_heads) for y in (q, k, v))
        found = attend(q, k, v, is_seen=is_seen, dropout=self.dropout if self.training else 0.0)
        return self.resid_dropout(self.c_proj(rearrange(found, "b h s d -> b s (h d)")))  # (B, S or Q, D)
