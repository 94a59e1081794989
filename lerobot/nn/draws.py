"""Random numbers for a batch: from torch's own generator, or of each item from one of its own.

An item that brings its own generator draws the same numbers whoever else is in the batch, on every device:
they are drawn on the CPU and moved.

Shapes: B batch, K categories.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


class Draws:
    """Where a model that acts at random gets its numbers from.

    Args:
        generators: one per item of the batch, on the CPU; None takes torch's own for all of them.
    """

    def __init__(self, generators: Sequence[torch.Generator] | None = None) -> None:
        self.generators = generators

    def normal(self, *size: int, like: Tensor, axis: int = 0) -> Tensor:
        """N(0, 1) of that size, with the device and type of `like`; `axis` is the one of the items."""
        if self.generators is None:
            return torch.randn(size, device=like.device, dtype=like.dtype)
        of_item = [length for position, length in enumerate(size) if position != axis]
        drawn = [torch.randn(of_item, generator=each, dtype=like.dtype) for each in self._each(size[axis])]
        return torch.stack(drawn, dim=axis).to(like.device)

    def categories(self, probabilities: Tensor) -> Tensor:
        """A category (B, ...), int64, of each distribution (B, ..., K), which need not sum to 1."""
        *front, num_categories = probabilities.shape
        if self.generators is None:
            return torch.multinomial(probabilities.reshape(-1, num_categories), 1).reshape(front)
        drawn = [torch.rand(front[1:], generator=each) for each in self._each(front[0])]
        level = torch.stack(drawn).to(probabilities)  # (B, ...), in [0, 1)
        below = probabilities.cumsum(-1)  # (B, ..., K)
        # the first category whose part of the line reaches beyond the level
        return (below > (level * below[..., -1])[..., None]).to(torch.int8).argmax(-1)

    def integers(self, num: int, *, below: int, num_batch: int, device: torch.device) -> Tensor:
        """`num` integers from 0 to `below` - 1: (num, 1) that all items share, or (num, B), own ones."""
        if self.generators is None:
            return torch.randint(0, below, (num,), device=device)[:, None]
        drawn = [torch.randint(0, below, (num,), generator=each) for each in self._each(num_batch)]
        return torch.stack(drawn, dim=1).to(device)

    def _each(self, num_batch: int) -> Sequence[torch.Generator]:
        assert self.generators is not None
        assert len(self.generators) == num_batch, f"{num_batch} items, {len(self.generators)} generators"
        return self.generators
