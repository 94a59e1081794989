"""Multi-head attention with PyTorch's parameter layout and fast kernels.

Paper: Vaswani et al. 2017, "Attention Is All You Need".

    query (S, B, D) -> h heads of width d -> softmax(q k^T / sqrt(d)) v -> (S, B, D)

Shapes: S tokens, B batch, D model width, h heads, d width per head. Sequence first: random numbers of dropout
are then drawn in the order in which published training runs drew them.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from lerobot.core.errors import ConfigError
from lerobot.nn.dropout import dropout as dropped
from lerobot.nn.linear import Linear, linear


class MultiHeadAttention(nn.Module):
    """Attention of `query` (S, B, D) over `key` and `value` (M, B, D) -> (S, B, D).

    Parameters are `in_proj_weight` (3D, D) in the order query, key, value, `in_proj_bias` and `out_proj`.

    Raises:
        ConfigError: the width is not a multiple of the number of heads.
    """

    def __init__(self, width: int, num_heads: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        if width % num_heads:
            raise ConfigError(f"The model width {width} cannot be split into {num_heads} equal heads.")
        self.width, self.num_heads, self.dropout = width, num_heads, dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, *, key_is_pad: Tensor | None = None
    ) -> Tensor:
        """(S, B, D).

        Args:
            key_is_pad: (B, M) bool, true where a key must not be looked at; each row needs at least one
                false.
        """
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        q, k, v = map(linear, (query, key, value), weights, biases)  # (S or M, B, D) each
        q, k, v = (rearrange(x, "s b (h d) -> b h s d", h=self.num_heads) for x in (q, k, v))
        is_seen = None if key_is_pad is None else ~key_is_pad[:, None, None, :]  # (B, 1, 1, M)
        rate = self.dropout if self.training else 0.0
        found = attend(q, k, v, is_seen=is_seen, dropout=rate)
        return self.out_proj(rearrange(found, "b h s d -> s b (h d)"))  # (S, B, D)


def attend(q: Tensor, k: Tensor, v: Tensor, *, is_seen: Tensor | None = None, dropout: float = 0.0) -> Tensor:
    """Softmax attention of heads (B, h, S, d) over (B, h, M, d); `is_seen` broadcasts to (B, h, S, M).

    While training on a CPU the probabilities are kept: the fused kernel's backward pass recomputes them,
    which loses all digits of the query and key gradients where attention is sharp, and it has no dropout
    there anyway.
    """
    if q.device.type != "cpu" or not (torch.is_grad_enabled() and q.requires_grad):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=is_seen, dropout_p=dropout)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)  # (B, h, S, M)
    if is_seen is not None:
        scores.masked_fill_(~is_seen, float("-inf"))
    return dropped(scores.softmax(-1), dropout) @ v  # (B, h, S, d)
