"""What was drawn from each dataset of a mixture so far, and how large its loss is.

    batch["dataset_index"] (B,), item losses (B,) -> counted on the device -> read with each log row

Shapes: B items of a batch, K datasets.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lerobot.core import keys
from lerobot.distributed.world import World
from lerobot.training.logs.metrics import Row
from lerobot.training.sampling.data import Batch


class Blend:
    """Counts the frames of each dataset; `names` is what the log calls them."""

    def __init__(self, names: Sequence[str], world: World) -> None:
        self.names, self.world = list(names), world
        self.frames = torch.zeros(len(names), dtype=torch.int64, device=world.device)  # (K,)
        self.losses = torch.zeros(2, len(names), device=world.device)  # (2, K) sums and items since a row

    def observe(self, batch: Batch, info: Mapping[str, Any] | None) -> None:
        """Count a trained batch; nothing waits for the device."""
        owner, losses = batch[keys.DATASET_INDEX], (info or {}).get("item_losses")  # (B,) each
        self.frames.index_add_(0, owner, torch.ones_like(owner))
        if losses is not None:
            losses = losses.detach().to(self.losses.dtype)
            self.losses.index_add_(1, owner, torch.stack([losses, torch.ones_like(losses)]))

    def row(self) -> Row:
        """Frames of each dataset so far, and its mean loss since the last row; every process must ask."""
        frames = self._total().tolist()
        losses, counts = self.world.add_up(self.losses.clone()).tolist()
        self.losses.zero_()
        row: Row = {}
        for k, name in enumerate(self.names):
            row[f"mixture/{name}/frames"] = frames[k]
            if counts[k]:
                row[f"mixture/{name}/loss"] = losses[k] / counts[k]
        return row

    def _total(self) -> Tensor:
        """The frames (K,) that all processes have counted."""
        return self.world.add_up(self.frames.clone())

    def state_dict(self) -> dict[str, Any]:
        """Plain values; every process must ask."""
        return {"frames": dict(zip(self.names, self._total().tolist(), strict=True))}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was asked."""
        if self.world.is_main:  # one process holds what all had counted
            counted = [state["frames"].get(name, 0) for name in self.names]
            self.frames.copy_(torch.tensor(counted))
