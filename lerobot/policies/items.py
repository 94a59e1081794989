"""Batches as numbers of items, and policies whose `forward` takes a batch alone: their loss counts by items.

Shapes: B batch.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from lerobot.core import keys
from lerobot.core.errors import ConfigError
from lerobot.nn.loss import at_least_one

ITEMS = "items"  # the one total of such a loss


def num_items(batch: Mapping[str, Any]) -> Tensor:
    """How many items (B,) a batch has, each as often as its weight says; ()."""
    if keys.LOSS_WEIGHT in batch:
        return batch[keys.LOSS_WEIGHT].sum()
    some = next(value for value in batch.values() if isinstance(value, Tensor) and value.dim())
    return torch.full((), len(some), device=some.device)  # a fill: a copy from the host would be waited for


def takes_totals(forward: Callable) -> bool:
    """Whether a policy's `forward` divides its means by given totals itself."""
    return "totals" in inspect.signature(forward).parameters


def counted_by_items(forward: Callable) -> Callable:
    """A `forward` that takes a batch alone, made to yield its share of several batches' mean loss.

    Such a loss is a mean over a batch, so batches count by their items, and items of one batch all the same.
    """

    @functools.wraps(forward)
    def with_totals(
        self: Any,
        batch: dict[str, Tensor],
        *args: Any,
        reduction: str = "mean",
        totals: Mapping[str, Tensor] | None = None,
        **how: Any,
    ) -> tuple[Tensor, dict[str, Any] | None]:
        if reduction != "mean":
            raise ConfigError(
                f"{self.name} has no losses of single items: its forward needs the arguments reduction and "
                "totals, as PreTrainedPolicy.forward has them."
            )
        loss, info = forward(self, batch, *args, **how)
        if totals is None:
            return loss, info
        share = num_items(batch) / at_least_one(totals[ITEMS])
        return loss * share, {name: _part(value, share) for name, value in (info or {}).items()}

    return with_totals


def _part(value: Any, share: Tensor) -> Any:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value * share if is_number or (isinstance(value, Tensor) and value.numel() == 1) else value
