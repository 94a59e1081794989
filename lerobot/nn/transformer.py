"""Transformer encoder and decoder whose positions are added to queries and keys in every layer.

Paper: Carion et al. 2020, "End-to-End Object Detection with Transformers" (DETR). Norms come after each
residual sum unless `pre_norm`.

    tokens (S, B, D), positions (S, 1, D) -> encoder -> memory (S, B, D)
    queries (T, B, D), memory             -> decoder -> (T, B, D)

Shapes: S tokens, T queries, B batch, D model width.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lerobot.nn.attention import MultiHeadAttention
from lerobot.nn.dropout import Dropout
from lerobot.nn.linear import Linear

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu": F.relu, "gelu": F.gelu}


class Encoder(nn.Module):
    """A stack of encoder layers; `norm` exists with `pre_norm` only.

    Set `grad_checkpointing` to recompute each layer in the backward pass instead of keeping its activations.
    """

    grad_checkpointing: bool = False

    def __init__(self, layers: Sequence["EncoderLayer"], *, width: int, pre_norm: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(width) if pre_norm else nn.Identity()

    def forward(
        self, x: Tensor, *, position: Tensor, key_is_pad: Tensor | None = None, num_out: int | None = None
    ) -> Tensor:
        """Tokens (S, B, D) with positions (S, 1, D) -> (S, B, D); `key_is_pad` is (B, S).

        With `num_out` the last layer computes the first tokens only, (num_out, B, D).
        """
        for layer in self.layers:
            how: dict[str, Any] = {"position": position, "key_is_pad": key_is_pad}
            how["num_out"] = num_out if layer is self.layers[-1] else None
            if self.grad_checkpointing and self.training:
                x = checkpoint(layer, x, **how, use_reentrant=False)
            else:
                x = layer(x, **how)
        return self.norm(x)


class Decoder(nn.Module):
    """A stack of decoder layers; the final norm is always applied."""

    grad_checkpointing: bool = False

    def __init__(self, layers: Sequence["DecoderLayer"], *, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, memory: Tensor, *, position: Tensor, memory_position: Tensor) -> Tensor:
        """Queries (T, B, D), placed by (T, 1, D), over memory (S, B, D), placed by (S, 1, D) -> (T, B, D)."""
        keys = memory + memory_position  # (S, B, D), for all layers
        for layer in self.layers:
            if self.grad_checkpointing and self.training:
                x = checkpoint(layer, x, memory, position=position, keys=keys, use_reentrant=False)
            else:
                x = layer(x, memory, position=position, keys=keys)
        return self.norm(x)


class EncoderLayer(nn.Module):
    """Self-attention, then a feed-forward net, each with dropout, residual sum and norm."""

    def __init__(
        self, width: int, num_heads: int, *, hidden: int, dropout: float, activation: str, pre_norm: bool
    ) -> None:
        super().__init__()
        self.self_attn = MultiHeadAttention(width, num_heads, dropout=dropout)
        self.linear1 = Linear(width, hidden)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(hidden, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.dropout1 = Dropout(dropout)
        self.dropout2 = Dropout(dropout)
        self.activation, self.pre_norm = ACTIVATIONS[activation], pre_norm

    def forward(
        self, x: Tensor, *, position: Tensor, key_is_pad: Tensor | None = None, num_out: int | None = None
    ) -> Tensor:
        """(S, B, D) -> (S, B, D), or its first tokens (num_out, B, D)."""
        if self.pre_norm:
            x = first(x, num_out) + self._attend(self.norm1(x), position, key_is_pad, num_out)
            return x + self._feed(self.norm2(x))
        x = self.norm1(first(x, num_out) + self._attend(x, position, key_is_pad, num_out))
        return self.norm2(x + self._feed(x))

    def _attend(self, x: Tensor, position: Tensor, key_is_pad: Tensor | None, num_out: int | None) -> Tensor:
        placed = x + position
        return self.dropout1(self.self_attn(first(placed, num_out), placed, x, key_is_pad=key_is_pad))

    def _feed(self, x: Tensor) -> Tensor:
        return self.dropout2(self.linear2(self.dropout(self.activation(self.linear1(x)))))


def first(x: Tensor, num_out: int | None) -> Tensor:
    """The first tokens (num_out, B, D) of (S, B, D); or all, uncut: cutting reorders gradient sums."""
    return x if num_out is None else x[:num_out]


class DecoderLayer(nn.Module):
    """Self-attention, attention over the memory, feed-forward net, each with dropout, sum and norm."""

    def __init__(
        self, width: int, num_heads: int, *, hidden: int, dropout: float, activation: str, pre_norm: bool
    ) -> None:
        super().__init__()
        self.self_attn = MultiHeadAttention(width, num_heads, dropout=dropout)
        self.multihead_attn = MultiHeadAttention(width, num_heads, dropout=dropout)
        self.linear1 = Linear(width, hidden)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(hidden, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.norm3 = nn.LayerNorm(width)
        self.dropout1 = Dropout(dropout)
        self.dropout2 = Dropout(dropout)
        self.dropout3 = Dropout(dropout)
        self.activation, self.pre_norm = ACTIVATIONS[activation], pre_norm

    def forward(self, x: Tensor, memory: Tensor, *, position: Tensor, keys: Tensor) -> Tensor:
        """Queries (T, B, D) over memory (S, B, D) -> (T, B, D); `keys` is the memory with its positions."""
        if self.pre_norm:
            x = x + self._attend(self.norm1(x), position)
            x = x + self._look(self.norm2(x), memory, position, keys)
            return x + self._feed(self.norm3(x))
        x = self.norm1(x + self._attend(x, position))
        x = self.norm2(x + self._look(x, memory, position, keys))
        return self.norm3(x + self._feed(x))

    def _attend(self, x: Tensor, position: Tensor) -> Tensor:
        placed = x + position
        return self.dropout1(self.self_attn(placed, placed, x))

    def _look(self, x: Tensor, memory: Tensor, position: Tensor, keys: Tensor) -> Tensor:
        return self.dropout2(self.multihead_attn(x + position, keys, memory))

    def _feed(self, x: Tensor) -> Tensor:
        return self.dropout3(self.linear2(self.dropout(self.activation(self.linear1(x)))))
