"""A loss as a sum of means: padding left out, items weighed, micro-batches adding up to the large batch.

    values (B, ...) * mask * weight -> sum / total -> * scale -> loss

`total` is how many (weighted) values a mean is over. Given that of several micro-batches together, each of
them yields its share, and the shares add up to the mean over all values, however unevenly these are spread.

Shapes: B batch; further axes as the values have them.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Reduction = Literal["mean", "none"]


class Part(NamedTuple):
    """One mean of a loss."""

    values: Tensor  # (B, ...)
    mask: Tensor | None = None  # (B, ...), the first axes of the values: where they count
    scale: float = 1.0  # how much the mean weighs in the loss


def add_up(
    parts: Mapping[str, Part],
    *,
    reduction: Reduction = "mean",
    weight: Tensor | None = None,
    totals: Mapping[str, Tensor] | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss (), or (B,) without reduction, and for the log each mean () and `item_losses` (B,), detached.

    Args:
        reduction: `none` gives the loss of each item alone, whatever its weight.
        weight: (B,) how much each item counts in the means.
        totals: by the parts' names, the `count` that each mean is divided by instead of this batch's.
    """
    means, items = {}, []
    for name, part in parts.items():
        values = part.values if part.mask is None else part.values * _spread(part.mask, part.values)
        total = totals[name] if totals is not None else _total(part, weight)
        weighed = values if weight is None else values * _spread(weight, values)
        means[name] = weighed.sum() / at_least_one(total)
        items.append(part.scale * _item_means(values if reduction == "none" else values.detach(), part.mask))
    item_losses = torch.stack(items).sum(0)  # (B,)
    info = {name: mean.detach() for name, mean in means.items()} | {"item_losses": item_losses.detach()}
    if reduction == "none":
        return item_losses, info
    first, *others = (mean * parts[name].scale for name, mean in means.items())
    return sum(others, start=first), info


def count(mask: Tensor, weight: Tensor | None = None) -> Tensor:
    """How many entries of a mask (B, ...) are set, each as often as the weight (B,) of its item says; ()."""
    return mask.sum() if weight is None else (mask * _spread(weight, mask)).sum()


def _total(part: Part, weight: Tensor | None) -> Tensor:
    mask = part.mask
    if mask is None and weight is None:
        return torch.full((), part.values.numel(), device=part.values.device)
    if mask is None:
        mask = part.values.new_ones(len(part.values), dtype=torch.bool)  # (B,)
    return count(mask, weight) * (part.values.numel() // max(1, mask.numel()))


def _item_means(values: Tensor, mask: Tensor | None) -> Tensor:
    """The mean (B,) over each item's values, of which the masked ones are 0."""
    flat = values.reshape(len(values), -1)
    if mask is None:
        return flat.mean(1)
    counts = mask.reshape(len(mask), -1).sum(1) * (values.numel() // max(1, mask.numel()))  # (B,)
    return flat.sum(1) / at_least_one(counts)


def at_least_one(total: Tensor) -> Tensor:
    """The total, or 1 where nothing counts: a mean over nothing is 0."""
    return torch.where(total > 0, total, 1)


def _spread(outer: Tensor, values: Tensor) -> Tensor:
    """A tensor of the first axes of the values, ready to be multiplied with them."""
    return outer.reshape(outer.shape + (1,) * (values.dim() - outer.dim()))
