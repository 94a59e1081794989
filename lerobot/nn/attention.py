"""Multi-head attention with PyTorch's parameter layout and one fused kernel.

Paper: Vaswani et al. 2017, "Attention Is All You Need".

    query (S, B, D) -> h heads of width d -> softmax(q k^T / sqrt(d)) v -> (S, B, D)

Shapes: S tokens, B batch, D model width, h heads, d width per head. Sequence first: random numbers of dropout are
then drawn in the order in which published training runs drew them.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from lerobot.core.errors import ConfigError


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
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, *, key_is_pad: Tensor | None = None) -> Tensor:
        """(S, B, D).

        Args:
            key_is_pad: (B, M) bool, true where a key must not be looked at; each row needs at least one false.
        """
        q, k, v = self._project(query, key, value)                                    # (S or M, B, D) each
        q, k, v = (rearrange(x, "s b (h d) -> b h s d", h=self.num_heads) for x in (q, k, v))
        is_seen = None if key_is_pad is None else ~key_is_pad[:, None, None, :]       # (B, 1, 1, M)
        rate = self.dropout if self.training else 0.0
        found = F.scaled_dot_product_attention(q, k, v, attn_mask=is_seen, dropout_p=rate)
        return self.out_proj(rearrange(found, "b h s d -> s b (h d)"))                # (S, B, D)

    def _project(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values; equal inputs share one product."""
        weight, bias, cut = self.in_proj_weight, self.in_proj_bias, 2 * self.width
        if query is key:
            q, k = F.linear(query, weight[:cut], bias[:cut]).chunk(2, dim=-1)
        else:
            q = F.linear(query, weight[: self.width], bias[: self.width])
            k = F.linear(key, weight[self.width : cut], bias[self.width : cut])
        return q, k, F.linear(value, weight[cut:], bias[cut:])
